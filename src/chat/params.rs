//! The parameters that a session is opened with.

use super::cache::CacheParams;
use super::cache::evict::{EvictMode, EvictParams};
use super::cache::prefill::PrefillMode;
use super::cache::profile::LayerProfile;
use super::conversation::Conversation;
use super::engine::{Engine, EngineParams, Thinking, check_kwargs};
use super::fit::{Available, Fit, FitParams};
use super::prompt::{PromptParams, Tokenization};
use crate::error::{Error, Result};
use crate::prune::PruneParams;
use crate::runtime::{CancelToken, ComputeParams, MemoryUsage, ModelParams, SamplerParams, VisionParams};
use crate::skip::EncodeParams;
use serde_json::{Map, Value};
use std::sync::Arc;

/// How to open a [`Session`](super::Session).
///
/// Write it with `..SessionParams::default()` or through [`Session::builder`](super::Session::builder): any version may
/// add fields.
#[derive(Debug, Clone)]
pub struct SessionParams {
    /// The language model.
    pub model: ModelParams,
    /// The vision encoder.
    pub vision: VisionParams,
    /// Check the headers of the model's files before loading them ([`models::check`](crate::models::check)), because
    /// llama.cpp aborts the process on some files that it cannot use. The check rejects what no known model contains,
    /// so it can reject a valid new model.
    pub check_files: bool,
    /// How the language model computes: threads, batch size, KV cache types.
    pub compute: ComputeParams,
    /// Cells of the KV cache. With `None`, it holds the pruned prompt and an answer, and grows with the conversation.
    pub n_ctx: Option<usize>,
    /// Reduce a video that does not fit the model, the context or memory: fewer frames, smaller images or fewer visual
    /// tokens, where the user did not request a number. If `false`, such a video is an error.
    pub fit: bool,
    /// The maximum memory for the KV cache and buffers, in bytes. `None` allows all free memory.
    pub max_memory: Option<u64>,
    /// The most memory for checkpoints, in bytes: copies of the state of models that cannot remove the last rows of
    /// their cache, from which the next question goes on. `None` keeps up to eight of them, within 512 MB if that holds
    /// two. With 0, the next question computes the whole prompt again. Other models make none.
    pub checkpoint_memory: Option<u64>,
    /// Which visual tokens to keep.
    pub prune: PruneParams,
    /// How much of each image the vision encoder computes.
    pub encode: EncodeParams,
    /// Keep the embeddings of all visual tokens in memory, so that [`Session::set_prune`](super::Session::set_prune)
    /// can prune them again.
    pub keep_unpruned: bool,
    /// Record what [`Session::inspect`](super::Session::inspect) returns: the score and the place in the frame of each
    /// visual token.
    pub inspect: bool,
    /// Which visual tokens are evicted from the KV cache after prefill.
    pub evict: EvictParams,
    /// The model's layer profile: it decides which layers [`EvictMode::Layers`] evicts if no threshold is set.
    pub layer_profile: Option<Arc<LayerProfile>>,
    /// Decode the next frames of a video on a separate thread while a frame is encoded
    /// ([`FrameSource::decode_ahead`](crate::video::FrameSource::decode_ahead)).
    pub decode_ahead: bool,
    /// How the tokens of an answer are sampled.
    pub sampler: SamplerParams,
    /// The maximum number of tokens in an answer.
    pub n_predict: usize,
    /// The name of the prompt layout; `None` chooses the layout of the model's family.
    pub layout: Option<String>,
    /// Cut frames into tiles, if the encoder does that with single images. This makes many more visual tokens.
    pub tile: bool,
    /// A system message; `None` leaves it to the chat template.
    pub system: Option<String>,
    /// A chat template (Jinja) that replaces the model's own.
    pub chat_template: Option<String>,
    /// Whether the model thinks before it answers. A search, and all else that compares the first tokens of answers,
    /// has no thoughts, whatever is set.
    pub thinking: Thinking,
    /// What the chat template is told besides, by name, for example `reasoning_effort`. What is said here of
    /// `enable_thinking`, `thinking` and `thinking_budget` is told in place of what [`thinking`](Self::thinking) says;
    /// when a thought is closed, [`thinking`](Self::thinking) decides.
    pub template_kwargs: Map<String, Value>,
    /// How the text around frames is tokenized.
    pub tokenization: Tokenization,
    /// How text and visual tokens are batched.
    pub prefill: PrefillMode,
    /// Cancels the session's work.
    pub cancel: CancelToken,
}

impl Default for SessionParams {
    fn default() -> Self {
        Self {
            model: ModelParams::default(),
            vision: VisionParams::default(),
            check_files: true,
            compute: ComputeParams::default(),
            n_ctx: None,
            fit: true,
            max_memory: None,
            checkpoint_memory: None,
            prune: PruneParams::default(),
            encode: EncodeParams::default(),
            keep_unpruned: false,
            inspect: false,
            evict: EvictParams::default(),
            layer_profile: None,
            decode_ahead: true,
            sampler: SamplerParams::default(),
            n_predict: 512,
            layout: None,
            tile: false,
            system: None,
            chat_template: None,
            thinking: Thinking::Auto,
            template_kwargs: Map::new(),
            tokenization: Tokenization::Joined,
            prefill: PrefillMode::Auto,
            cancel: CancelToken::new(),
        }
    }
}

impl SessionParams {
    /// Checks everything that does not depend on the model.
    pub(super) fn validate(&self) -> Result<()> {
        self.prune.validate()?;
        self.encode.validate()?;
        self.sampler.validate()?;
        self.evict.validate()?;
        self.compute.validate()?;
        check_answer(self.n_predict, self.thinking, &self.template_kwargs)
    }

    /// Which eviction these parameters result in.
    pub(super) fn evict_mode(&self) -> EvictMode {
        self.evict.mode(self.prune.method.prunes())
    }

    /// The parameters of the engine.
    pub(super) fn engine(&self) -> EngineParams<'_> {
        let context = self.cache().context(self.n_ctx.unwrap_or(0), self.compute.n_ubatch);
        EngineParams {
            model: &self.model,
            vision: &self.vision,
            check_files: self.check_files,
            layout: self.layout.as_deref(),
            tile: self.tile,
            chat_template: self.chat_template.as_deref(),
            context: self.fit.then_some(context),
        }
    }

    /// The parameters of prompts.
    pub(super) fn prompt(&self) -> PromptParams<'_> {
        let Self { tokenization, thinking, template_kwargs, .. } = self;
        PromptParams { tokenization: *tokenization, thinking: *thinking, kwargs: template_kwargs }
    }

    /// The parameters of the cache.
    pub(super) fn cache(&self) -> CacheParams<'_> {
        CacheParams {
            n_ctx: self.n_ctx,
            n_predict: self.n_predict,
            compute: &self.compute,
            evict: self.evict,
            mode: self.evict_mode(),
            profile: self.layer_profile.as_deref(),
            prefill: self.prefill,
            checkpoint_memory: self.checkpoint_memory,
            max_memory: self.max_memory,
            cancel: &self.cancel,
        }
    }

    /// What decides whether another video fits `conversation`, whose context occupies `present`.
    pub(super) fn fit<'a>(
        &'a self,
        engine: &'a Engine,
        conversation: &'a Conversation,
        present: MemoryUsage,
    ) -> Fit<'a> {
        let params = FitParams {
            fit: self.fit,
            n_ctx: self.n_ctx,
            n_predict: self.n_predict,
            prompt: self.prompt(),
            prune: &self.prune,
            encode: &self.encode,
            free_layers: self.layer_profile.as_ref().map(|profile| profile.free_layers().len()),
            cancel: &self.cancel,
        };
        let available = Available {
            engine,
            context: self.cache().context(0, self.compute.n_ubatch),
            max_memory: self.max_memory,
            checkpoint_memory: self.checkpoint_memory,
            cancel: &self.cancel,
            present,
        };
        Fit { engine, conversation, params, available }
    }
}

/// Checks what decides how long an answer and the thought before it may be, and what the chat template is told.
pub(super) fn check_answer(n_predict: usize, thinking: Thinking, kwargs: &Map<String, Value>) -> Result<()> {
    check_n_predict(n_predict)?;
    thinking.check(n_predict)?;
    check_kwargs(kwargs)
}

fn check_n_predict(n_predict: usize) -> Result<()> {
    // Positions have 31 bits.
    const MOST: usize = i32::MAX as usize;
    if (1..=MOST).contains(&n_predict) {
        return Ok(());
    }
    let expected = format!("from 1 to {MOST}");
    Err(Error::InvalidParameter { name: "n-predict", value: n_predict.to_string(), expected })
}
