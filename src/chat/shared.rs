//! Videos that are encoded once for several sessions, and conversations that are set rather than held: what a program
//! needs that answers many people with a few sessions.

use super::answer::{VideoReport, VisualTokens, count, slice_reports};
use super::kv::evict::{EvictMode, EvictParams};
use super::params::{VideoOptions, check_n_predict};
use super::prompt::message::{Message, Role};
use super::session::Session;
use super::video;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::prune::PruneParams;
use crate::runtime::SamplerParams;
use crate::video::{Origin, VideoInfo};
use std::path::Path;
use std::sync::Arc;

/// A video with the embeddings of its kept visual tokens. Clones share them.
///
/// It can be added to every session that was opened with the same model, vision encoder and layout as the one that
/// encoded it.
#[derive(Debug, Clone)]
pub struct EncodedVideo(Arc<video::EncodedVideo>);

impl EncodedVideo {
    /// What was opened.
    pub fn info(&self) -> &VideoInfo {
        &self.0.info
    }

    /// Its frames.
    pub fn frames(&self) -> usize {
        self.0.arrangement.n_frames
    }

    /// Its visual tokens.
    pub fn visual_tokens(&self) -> VisualTokens {
        count(&slice_reports(std::slice::from_ref(&self.0)))
    }

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let floats = |rows: &Vec<f32>| size_of::<f32>() * rows.capacity();
        let slice = |slice: &video::EncodedSlice| {
            floats(&slice.rows) + size_of::<u32>() * (slice.kept.capacity() + slice.unfinished.capacity())
        };
        let slices = self.0.slices.iter().map(|s| slice(s) + size_of_val(s)).sum::<usize>();
        slices + self.0.unpruned.iter().map(floats).sum::<usize>() + size_of_val(self.0.as_ref())
    }
}

/// What may change from one question to the next: see [`Session::configure`].
#[derive(Debug, Clone, PartialEq)]
pub struct TurnParams {
    /// How tokens are chosen.
    pub sampler: SamplerParams,
    /// The most tokens an answer may have.
    pub n_predict: usize,
    /// Which visual tokens to keep, of videos to come.
    pub prune: PruneParams,
    /// Which of them leave the KV cache again.
    pub evict: EvictParams,
}

impl Session {
    /// How the next question is answered.
    pub fn turn_params(&self) -> TurnParams {
        let params = &self.params;
        TurnParams {
            sampler: params.sampler.clone(),
            n_predict: params.n_predict,
            prune: params.prune.clone(),
            evict: params.evict,
        }
    }

    /// Sets how the next question, and those after it, are answered. Videos that are here stay as they are. If
    /// something else than before is to be evicted, the KV cache is freed.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if something is out of range; nothing is changed then.
    pub fn configure(&mut self, turn: &TurnParams) -> Result<()> {
        turn.sampler.validate()?;
        turn.prune.validate()?;
        turn.evict.validate()?;
        check_n_predict(turn.n_predict)?;
        let how =
            |session: &Self| (session.params.evict_mode(), session.params.evict.threshold, session.params.evict.early);
        let before = how(self);
        let TurnParams { sampler, n_predict, prune, evict } = turn.clone();
        (self.params.sampler, self.params.n_predict) = (sampler, n_predict);
        (self.params.prune, self.params.evict) = (prune, evict);
        let after = how(self);
        if before != after && [before.0, after.0].iter().any(|&mode| mode != EvictMode::Off) {
            self.kv.reset();
        }
        Ok(())
    }

    /// Begins another conversation, without videos. What it shares with the one before, from its beginning on, is in
    /// the KV cache and not computed again.
    pub fn start_over(&mut self, system: Option<String>) {
        self.conversation.clear();
        self.conversation.system = system;
        self.aside = None;
    }

    /// Adds a message to the conversation as if it had been said here. Videos that were added before go into it if a
    /// user says it.
    pub fn say(&mut self, role: Role, text: &str) {
        let message = match role {
            Role::User => self.conversation.user_message(self.engine.layout.as_ref(), text),
            role => Message::text(role, text),
        };
        if role == Role::User {
            self.conversation.videos_sent = self.conversation.videos.len();
        }
        self.conversation.messages.push(message);
    }

    /// Decodes, encodes and prunes a video, and gives it to the caller: [`add_encoded`](Self::add_encoded) adds it.
    /// Room is left for the conversation so far and for `question`, as with
    /// [`add_video_for`](Self::add_video_for).
    ///
    /// # Errors
    /// As [`add_video_for`](Self::add_video_for).
    pub fn encode_video(
        &mut self,
        path: &Path,
        options: &VideoOptions,
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<EncodedVideo> {
        let video = self.encode(Origin::Path(path), options, question, observer)?;
        self.conversation.spent += video.timings;
        Ok(EncodedVideo(Arc::new(video)))
    }

    /// Adds a video for the next question.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if it was encoded for another model: its embeddings have another width.
    pub fn add_encoded(&mut self, video: &EncodedVideo) -> Result<VideoReport> {
        let width = self.engine.model.n_embd_inp();
        if video.0.slices.iter().any(|slice| slice.rows.len() != slice.kept.len() * width) {
            return Err(Error::InvalidParameter {
                name: "the encoded video",
                value: video.0.info.path.display().to_string(),
                expected: format!("one with embeddings of {width} values, as this model has"),
            });
        }
        Ok(self.add_shared(Arc::clone(&video.0)))
    }
}
