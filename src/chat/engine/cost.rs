//! The memory that a context of a given size will occupy.

use crate::error::Result;
use crate::runtime::{CancelToken, Context, ContextParams, LoraAdapter, Model};

/// The bytes of a context as a function of its number of cells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::chat) struct CellCost {
    /// Bytes of the KV cache per cell, in all layers.
    pub kv_per_cell: f64,
    /// Bytes of the KV cache (or recurrent state) that do not depend on the number of cells.
    pub kv_fixed: f64,
    /// Bytes of the recurrent layers' states, in all sequences: a part of `kv_fixed`.
    pub state: u64,
    /// Bytes of a checkpoint; 0 if the model needs none.
    pub checkpoint: u64,
    /// Bytes of the compute buffers per cell.
    pub compute_per_cell: f64,
    /// Bytes of the compute buffers that do not depend on the number of cells.
    pub compute_fixed: f64,
}

/// llama.cpp allocates cells in multiples of this number.
pub(in crate::chat) const CELL_STEP: usize = 256;

impl CellCost {
    /// Creates two small contexts and compares their sizes, which works for every kind of cache.
    pub fn measure(
        model: &Model,
        params: &ContextParams,
        adapters: &[LoraAdapter],
        cancel: &CancelToken,
    ) -> Result<Self> {
        // A context smaller than a ubatch would have smaller compute buffers.
        let small = params.compute.n_ubatch.next_multiple_of(CELL_STEP);
        let usage = |n_ctx| {
            let params = ContextParams { n_ctx, ..params.clone() };
            Context::new(model, &params, adapters, cancel)
                .map(|context| (context.memory_usage(), context.recurrent_bytes()))
        };
        let ((one, state), (two, _)) = (usage(small)?, usage(2 * small)?);
        let per_cell = |one: u64, two: u64| two.saturating_sub(one) as f64 / small as f64;
        let (kv_per_cell, compute_per_cell) = (per_cell(one.context, two.context), per_cell(one.compute, two.compute));
        Ok(Self {
            kv_per_cell,
            state,
            checkpoint: state / params.n_sequences.max(1) as u64,
            kv_fixed: (one.context as f64 - kv_per_cell * small as f64).max(0.0),
            compute_per_cell,
            compute_fixed: (one.compute as f64 - compute_per_cell * small as f64).max(0.0),
        })
    }

    /// Bytes of a KV cache with `cells` cells.
    pub fn kv_bytes(&self, cells: usize) -> u64 {
        (self.kv_fixed + self.kv_per_cell * cells.next_multiple_of(CELL_STEP) as f64).round() as u64
    }

    /// Bytes of a context with `cells` cells: KV cache and compute buffers.
    pub fn bytes(&self, cells: usize) -> u64 {
        let compute = self.compute_fixed + self.compute_per_cell * cells.next_multiple_of(CELL_STEP) as f64;
        self.kv_bytes(cells) + compute as u64
    }

    /// The number of cells of the largest context that fits in `bytes`.
    pub fn cells_in(&self, bytes: u64) -> usize {
        let per_cell = self.kv_per_cell + self.compute_per_cell;
        let left = bytes as f64 - self.kv_fixed - self.compute_fixed;
        if per_cell <= 0.0 {
            return usize::MAX;
        }
        (left / per_cell).max(0.0) as usize / CELL_STEP * CELL_STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_counted_in_whole_steps() {
        let cost = CellCost {
            kv_per_cell: 10.0,
            kv_fixed: 100.0,
            state: 0,
            checkpoint: 0,
            compute_per_cell: 2.0,
            compute_fixed: 50.0,
        };
        assert_eq!(cost.kv_bytes(1), 2660);
        assert_eq!(cost.bytes(256), 2660 + 562);
        assert_eq!(cost.cells_in(cost.bytes(512)), 512);
        assert_eq!(cost.cells_in(cost.bytes(512) - 1), 256);
        assert_eq!(cost.cells_in(0), 0);
    }
}
