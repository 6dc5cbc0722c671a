//! The settings that can change after a session was opened.

use super::Session;
use crate::chat::cache::evict::{EvictMode, EvictParams};
use crate::chat::cache::profile::LayerProfile;
use crate::chat::encode::{decide, select};
use crate::chat::encoded::{EncodedSlice, EncodedVideo, timed};
use crate::chat::engine::{Thinking, check_kwargs};
use crate::chat::params::{SessionParams, check_answer};
use crate::chat::report::Settings;
use crate::error::{Error, Result};
use crate::prune::{Decision, PruneParams};
use crate::runtime::{Sampler, SamplerParams};
use crate::skip::{EncodeMode, EncodeParams};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// The settings that may change from one question to the next: see [`Session::configure`].
#[derive(Debug, Clone, PartialEq)]
pub struct TurnParams {
    /// How tokens are sampled.
    pub sampler: SamplerParams,
    /// The maximum number of tokens of an answer.
    pub n_predict: usize,
    /// Which visual tokens to keep of videos added from now on.
    pub prune: PruneParams,
    /// Which of them to evict from the KV cache.
    pub evict: EvictParams,
    /// Whether the model thinks before it answers.
    pub thinking: Thinking,
    /// What the chat template is told besides: see [`SessionParams::template_kwargs`].
    pub template_kwargs: Map<String, Value>,
}

impl Session {
    /// Changes what is evicted, from the next question on. Frees the KV cache, as [`free_cache`](Self::free_cache)
    /// does.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the threshold is not between -1 and 1.
    pub fn set_evict(&mut self, evict: EvictParams) -> Result<()> {
        evict.validate()?;
        self.params.evict = evict;
        self.reset_cache();
        Ok(())
    }

    /// Changes the layer profile ([`SessionParams::layer_profile`]), from the next question on. Frees the KV cache, as
    /// [`free_cache`](Self::free_cache) does.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the profile is for a model with another number of layers.
    pub fn set_layer_profile(&mut self, profile: Option<Arc<LayerProfile>>) -> Result<()> {
        profile.iter().try_for_each(|profile| profile.check(self.engine.model.n_layer()))?;
        self.params.layer_profile = profile;
        self.reset_cache();
        Ok(())
    }

    /// Changes which visual tokens are kept, of the videos so far and of those added later. Selects the same tokens as
    /// a new session with these parameters. Frees the KV cache if the selection changes; the conversation stays.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if `prune` is out of range. With videos, also if the session was not opened with
    /// [`keep_unpruned`](SessionParams::keep_unpruned), if a video came from a saved session, which holds only the kept
    /// tokens, if encoding stopped early for tokens that would be dropped ([`skip`](crate::skip)), or if some
    /// embeddings were estimated and the method [needs exact embeddings](crate::prune::Method::needs_exact_embeddings).
    pub fn set_prune(&mut self, prune: PruneParams) -> Result<()> {
        prune.validate()?;
        check_unpruned(&self.params, self.conversation.videos.iter().map(AsRef::as_ref))?;
        let videos = &mut self.conversation.videos;
        let same = prune == self.params.prune;
        // A video that is encoded for such a method has exact embeddings.
        let exactly = self.params.encode.mode == EncodeMode::Auto && prune.method.needs_exact_embeddings();
        let is_short = |slice: &EncodedSlice| !slice.unfinished.is_empty() || (exactly && slice.is_estimated());
        let is_cut = |video: &Arc<EncodedVideo>| video.slices.iter().any(is_short);
        if let Some(video) = videos.iter().find(|video| !same && is_cut(video)) {
            return Err(Error::InvalidParameter {
                name: "the video",
                value: video.info.path.display().to_string(),
                expected: "fully encoded, to select its visual tokens anew: add it again, encoded exactly".into(),
            });
        }
        let model = &self.engine.model;
        let mut taken = Duration::ZERO;
        let decisions: Vec<Decision> =
            timed(&mut taken, || videos.iter().map(|video| decide(video, &prune, model)).collect::<Result<_>>())?;

        // Nothing fails from here on.
        let mut changed = false;
        timed(&mut taken, || {
            for (video, decision) in videos.iter_mut().zip(&decisions) {
                changed |= select(video, decision, model.n_embd_inp());
            }
        });
        self.conversation.spent.prune += taken;
        let evicted_before = self.params.evict_mode();
        self.params.prune = prune;
        // What was evicted, and what was learned about evicting, belongs to the previous selection.
        if [evicted_before, self.params.evict_mode()].iter().any(|&mode| mode != EvictMode::Off) {
            self.reset_cache();
        } else if changed {
            self.cache.free();
        }
        Ok(())
    }

    /// Changes how much of each image is encoded, of videos added from now on.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if a parameter is out of range, or if the model's encoder does not support the mode.
    pub fn set_encode(&mut self, encode: EncodeParams) -> Result<()> {
        encode.validate()?;
        self.engine.shape.mode(&encode)?;
        self.params.encode = encode;
        Ok(())
    }

    /// Changes how tokens are sampled, from the next answer on.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if a parameter is out of range, or if the grammar cannot be parsed.
    pub fn set_sampler(&mut self, sampler: SamplerParams) -> Result<()> {
        Sampler::new(&self.engine.model, &sampler)?;
        self.params.sampler = sampler;
        Ok(())
    }

    /// Changes the maximum number of tokens of an answer, from the next answer on.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for 0, and if a thought may take all of them ([`Thinking::Budget`]).
    pub fn set_n_predict(&mut self, n_predict: usize) -> Result<()> {
        check_answer(n_predict, self.params.thinking, &self.params.template_kwargs)?;
        self.params.n_predict = n_predict;
        Ok(())
    }

    /// Changes whether the model thinks before it answers, from the next answer on.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a budget that leaves no token for the answer
    /// ([`set_n_predict`](Self::set_n_predict)).
    pub fn set_thinking(&mut self, thinking: Thinking) -> Result<()> {
        thinking.check(self.params.n_predict)?;
        self.params.thinking = thinking;
        Ok(())
    }

    /// Changes what the chat template is told besides, from the next question on: see
    /// [`SessionParams::template_kwargs`].
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for the name of something that the template is given anyway, such as `messages`.
    pub fn set_template_kwargs(&mut self, kwargs: Map<String, Value>) -> Result<()> {
        check_kwargs(&kwargs)?;
        self.params.template_kwargs = kwargs;
        Ok(())
    }

    /// Sets the system message, from the next question on. With `None`, the chat template decides.
    pub fn set_system(&mut self, system: Option<String>) {
        self.conversation.system = system;
    }

    /// Makes every answer from now on begin with `text`: it is appended to the prompt as if the model had written it.
    /// [`ask`](Self::ask) returns what follows it, and there is no thought before it. With an empty text, the model
    /// begins the answer.
    ///
    /// Benchmarks use it: after `Best option:(`, almost only a letter can follow.
    pub fn set_answer_start(&mut self, text: &str) {
        text.clone_into(&mut self.conversation.answer_start);
    }

    /// The settings that produce answers, with defaults resolved.
    pub fn settings(&self) -> Settings {
        Settings::of(&self.engine, &self.params, &self.conversation, &self.cache)
    }

    /// The settings for the next question.
    pub fn turn_params(&self) -> TurnParams {
        let params = &self.params;
        TurnParams {
            sampler: params.sampler.clone(),
            n_predict: params.n_predict,
            prune: params.prune.clone(),
            evict: params.evict,
            thinking: params.thinking,
            template_kwargs: params.template_kwargs.clone(),
        }
    }

    /// Changes the settings from the next question on. The videos so far stay as they are. Frees the KV cache if the
    /// eviction changes.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if a setting is out of range; nothing changes then.
    pub fn configure(&mut self, turn: &TurnParams) -> Result<()> {
        turn.sampler.validate()?;
        turn.prune.validate()?;
        turn.evict.validate()?;
        check_answer(turn.n_predict, turn.thinking, &turn.template_kwargs)?;
        let how =
            |session: &Self| (session.params.evict_mode(), session.params.evict.threshold, session.params.evict.early);
        let before = how(self);
        let TurnParams { sampler, n_predict, prune, evict, thinking, template_kwargs } = turn.clone();
        (self.params.sampler, self.params.n_predict) = (sampler, n_predict);
        (self.params.prune, self.params.evict) = (prune, evict);
        (self.params.thinking, self.params.template_kwargs) = (thinking, template_kwargs);
        let after = how(self);
        if before != after && [before.0, after.0].iter().any(|&mode| mode != EvictMode::Off) {
            self.reset_cache();
        }
        Ok(())
    }
}

/// Checks that the visual tokens of these videos can be selected anew.
pub(super) fn check_unpruned<'a>(
    params: &SessionParams,
    videos: impl IntoIterator<Item = &'a EncodedVideo>,
) -> Result<()> {
    for video in videos {
        if !params.keep_unpruned {
            return Err(Error::InvalidParameter {
                name: "SessionParams::keep_unpruned",
                value: "false".into(),
                expected: "true, to select visual tokens anew".into(),
            });
        }
        if video.unpruned.len() != video.slices.len() {
            return Err(Error::InvalidParameter {
                name: "the video",
                value: video.info.path.display().to_string(),
                expected: "encoded in this session, to select its visual tokens anew: add it again".into(),
            });
        }
    }
    Ok(())
}
