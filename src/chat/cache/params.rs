//! What a cache is made and filled by.

use super::evict::{EvictMode, EvictParams};
use super::prefill::PrefillMode;
use super::profile::LayerProfile;
use super::trial::LOOKED_AT;
use crate::runtime::{CancelToken, ComputeParams, ContextParams};

/// The parameters of a cache, as [`SessionParams`](crate::chat::SessionParams) have them.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct CacheParams<'a> {
    /// Cells of the context; `None` sizes it by what a prompt needs, and lets it grow.
    pub n_ctx: Option<usize>,
    /// Cells to leave for an answer.
    pub n_predict: usize,
    pub compute: &'a ComputeParams,
    /// What leaves the cache after the prefill.
    pub evict: EvictParams,
    /// The mode of `evict`, decided.
    pub mode: EvictMode,
    pub profile: Option<&'a LayerProfile>,
    pub prefill: PrefillMode,
    /// Bytes that a context may take at most, where that is less than what is free.
    pub max_memory: Option<u64>,
    pub cancel: &'a CancelToken,
}

impl<'a> CacheParams<'a> {
    /// A cache of the same kind that is as large as its prompt, and from which nothing is evicted.
    pub fn small(self) -> Self {
        Self { n_ctx: None, evict: EvictParams::off(), mode: EvictMode::Off, ..self }
    }

    /// The layers that visual tokens never stay in, if they are known and that is wanted.
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
            // One sequence to try evictions in.
            n_sequences: if tries { 2 } else { 1 },
            n_outputs: if tries { LOOKED_AT } else { 1 },
            compute: ComputeParams { n_ubatch, ..self.compute.clone() },
            window: None,
        }
    }
}
