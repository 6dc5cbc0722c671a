//! The parameters of a cache.

use super::evict::{EvictMode, EvictParams};
use super::prefill::PrefillMode;
use super::profile::LayerProfile;
use super::trial::N_COMPARED;
use crate::runtime::{CancelToken, ComputeParams, ContextParams};

/// The parameters of a cache, taken from [`SessionParams`](crate::chat::SessionParams).
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct CacheParams<'a> {
    /// Cells of the context, fixed; with `None`, it grows with its prompts.
    pub n_ctx: Option<usize>,
    /// Cells to reserve for an answer.
    pub n_predict: usize,
    pub compute: &'a ComputeParams,
    /// What is evicted after the prefill.
    pub evict: EvictParams,
    /// The mode of `evict`, with its default resolved.
    pub mode: EvictMode,
    pub profile: Option<&'a LayerProfile>,
    pub prefill: PrefillMode,
    /// The most bytes of checkpoints; `None` keeps some.
    pub checkpoint_memory: Option<u64>,
    /// The most bytes that a context may take, if less than the free memory.
    pub max_memory: Option<u64>,
    pub cancel: &'a CancelToken,
}

impl<'a> CacheParams<'a> {
    /// The same parameters for a cache that is as large as its prompt and never evicts.
    pub fn small(self) -> Self {
        Self { n_ctx: None, evict: EvictParams::off(), mode: EvictMode::Off, checkpoint_memory: Some(0), ..self }
    }

    /// The profile whose free layers never hold visual tokens beyond their batch; `None` without a profile or without
    /// early eviction.
    pub fn early_layers(&self) -> Option<&'a LayerProfile> {
        let wanted = self.evict.early && self.mode == EvictMode::Layers && self.evict.threshold.is_none();
        self.profile.filter(|profile| wanted && !profile.free_layers().is_empty())
    }

    /// A context with `n_ctx` cells that computes `n_ubatch` rows at once.
    pub fn context(&self, n_ctx: usize, n_ubatch: usize) -> ContextParams {
        let evicts = self.mode != EvictMode::Off;
        let tries = evicts && self.evict.threshold.is_none();
        ContextParams {
            n_ctx,
            evictable: evicts,
            // A second sequence, to try evictions in.
            n_sequences: if tries { 2 } else { 1 },
            n_outputs: if tries { N_COMPARED } else { 1 },
            compute: ComputeParams { n_ubatch, ..self.compute.clone() },
            window: None,
            full_windows: true,
        }
    }
}
