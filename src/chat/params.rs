//! How a session is opened: everything a user can choose.

use super::cache::CacheParams;
use super::cache::evict::{EvictMode, EvictParams};
use super::cache::prefill::PrefillMode;
use super::cache::profile::LayerProfile;
use super::conversation::Conversation;
use super::engine::{Engine, EngineParams};
use super::fit::{Available, Fit, FitParams};
use super::prompt::Tokenization;
use crate::error::{Error, Result};
use crate::prune::PruneParams;
use crate::runtime::{CancelToken, ComputeParams, MemoryUsage, ModelParams, SamplerParams, VisionParams};
use crate::skip::EncodeParams;
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
    /// Look at the headers of the model's files first ([`models::check`](crate::models::check)): llama.cpp ends the
    /// process over what it cannot use. The check refuses what no model is known to have, and could be wrong.
    pub check_files: bool,
    /// How the language model computes: threads, batch size, types of the KV cache.
    pub compute: ComputeParams,
    /// Cells of the KV cache. `None` sizes it to what the prompt needs after pruning, plus room for an answer, and lets
    /// it grow with the conversation.
    pub n_ctx: Option<usize>,
    /// Take fewer frames, smaller images or fewer visual tokens where a video does not fit the model, the context or
    /// memory and nothing else was asked for. Without it, such a video is an error.
    pub fit: bool,
    /// Memory for KV cache and buffers, in bytes, where less than what is free should be taken.
    pub max_memory: Option<u64>,
    /// Which visual tokens to keep.
    pub prune: PruneParams,
    /// How much of each image the vision encoder computes.
    pub encode: EncodeParams,
    /// Keep the embeddings of all visual tokens in memory, so that [`Session::set_prune`](super::Session::set_prune)
    /// can select anew from them.
    pub keep_unpruned: bool,
    /// Keep what [`Session::inspect`](super::Session::inspect) tells: what each token scored, and where it lies.
    pub inspect: bool,
    /// Which of them leave the KV cache again, behind the prefill.
    pub evict: EvictParams,
    /// What is known of the model's layers: it says how far [`EvictMode::Layers`] goes where no threshold is given.
    pub layer_profile: Option<Arc<LayerProfile>>,
    /// Decode the next frames of a video on a thread of its own while one is encoded
    /// ([`FrameSource::decode_ahead`](crate::video::FrameSource::decode_ahead)).
    pub decode_ahead: bool,
    /// How tokens are chosen.
    pub sampler: SamplerParams,
    /// The most tokens an answer may have.
    pub n_predict: usize,
    /// The prompt layout, by name; `None` takes that of the model's family.
    pub layout: Option<String>,
    /// Cut frames into tiles, as the encoder does with single images, where it does: many more visual tokens.
    pub tile: bool,
    /// A system message; `None` leaves it to the chat template.
    pub system: Option<String>,
    /// A chat template (Jinja) to use in place of the model's own.
    pub chat_template: Option<String>,
    /// How the text around frames becomes tokens.
    pub tokenization: Tokenization,
    /// How text and visual tokens are batched.
    pub prefill: PrefillMode,
    /// Stops the session's work.
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
            tokenization: Tokenization::Joined,
            prefill: PrefillMode::Auto,
            cancel: CancelToken::new(),
        }
    }
}

impl SessionParams {
    /// What can be told before anything is loaded.
    pub(super) fn validate(&self) -> Result<()> {
        self.prune.validate()?;
        self.encode.validate()?;
        self.sampler.validate()?;
        self.evict.validate()?;
        self.compute.validate()?;
        check_n_predict(self.n_predict)
    }

    /// What is evicted.
    pub(super) fn evict_mode(&self) -> EvictMode {
        self.evict.mode(self.prune.method.prunes())
    }

    /// What the engine is loaded by.
    pub(super) fn engine(&self) -> EngineParams<'_> {
        let context = self.cache().context(self.n_ctx.unwrap_or(0), self.compute.n_ubatch);
        EngineParams {
            model: &self.model,
            vision: &self.vision,
            check_files: self.check_files,
            layout: self.layout.as_deref(),
            tile: self.tile,
            chat_template: self.chat_template.as_deref(),
            beside: self.fit.then_some(context),
        }
    }

    /// What a cache is made and filled by.
    pub(super) fn cache(&self) -> CacheParams<'_> {
        CacheParams {
            n_ctx: self.n_ctx,
            n_predict: self.n_predict,
            compute: &self.compute,
            evict: self.evict,
            mode: self.evict_mode(),
            profile: self.layer_profile.as_deref(),
            prefill: self.prefill,
            max_memory: self.max_memory,
            cancel: &self.cancel,
        }
    }

    /// What decides whether a video fits that is added to `conversation`, whose cache takes `present`.
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
            tokenization: self.tokenization,
            prune: &self.prune,
            encode: &self.encode,
            free_layers: self.layer_profile.as_ref().map(|profile| profile.free_layers().len()),
            cancel: &self.cancel,
        };
        let available = Available {
            engine,
            context: self.cache().context(0, self.compute.n_ubatch),
            max_memory: self.max_memory,
            cancel: &self.cancel,
            present,
        };
        Fit { engine, conversation, params, available }
    }
}

pub(super) fn check_n_predict(n_predict: usize) -> Result<()> {
    // Positions have 31 bits.
    const MOST: usize = i32::MAX as usize;
    if (1..=MOST).contains(&n_predict) {
        return Ok(());
    }
    let expected = format!("from 1 to {MOST}");
    Err(Error::InvalidParameter { name: "n-predict", value: n_predict.to_string(), expected })
}
