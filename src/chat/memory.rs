//! What a prompt costs in memory, told before it is computed.

use crate::error::Result;
use crate::runtime::{
    CancelToken, Context, ContextParams, DeviceKind, LoraAdapter, Model, ModelParams, devices, free_system_bytes,
};

/// Bytes of a context, by its number of cells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CellCost {
    /// The KV cache: bytes of one more cell, in all layers.
    pub kv_per_cell: f64,
    /// The KV cache (or recurrent state) without a cell.
    pub kv_fixed: f64,
    /// Buffers for intermediate results, by cell.
    pub compute_per_cell: f64,
    /// Buffers for intermediate results, without a cell.
    pub compute_fixed: f64,
}

/// llama.cpp allocates cells in steps of this many.
pub(super) const CELL_STEP: usize = 256;

impl CellCost {
    /// Makes two small contexts and compares them: that holds for every kind of cache.
    pub fn measure(
        model: &Model,
        params: &ContextParams,
        adapters: &[LoraAdapter],
        cancel: &CancelToken,
    ) -> Result<Self> {
        // Not below a ubatch, whose buffers a smaller context would make smaller.
        let small = params.n_ubatch.next_multiple_of(CELL_STEP);
        let usage = |n_ctx| {
            let params = ContextParams { n_ctx, ..params.clone() };
            Context::new(model, &params, adapters, cancel).map(|context| context.memory_usage())
        };
        let (one, two) = (usage(small)?, usage(2 * small)?);
        let per_cell = |one: u64, two: u64| two.saturating_sub(one) as f64 / small as f64;
        let (kv_per_cell, compute_per_cell) = (per_cell(one.context, two.context), per_cell(one.compute, two.compute));
        Ok(Self {
            kv_per_cell,
            kv_fixed: (one.context as f64 - kv_per_cell * small as f64).max(0.0),
            compute_per_cell,
            compute_fixed: (one.compute as f64 - compute_per_cell * small as f64).max(0.0),
        })
    }

    /// Bytes of the KV cache with `cells`.
    pub fn kv_bytes(&self, cells: usize) -> u64 {
        (self.kv_fixed + self.kv_per_cell * cells.next_multiple_of(CELL_STEP) as f64).round() as u64
    }

    /// Bytes of a context with `cells`.
    pub fn bytes(&self, cells: usize) -> u64 {
        let compute = self.compute_fixed + self.compute_per_cell * cells.next_multiple_of(CELL_STEP) as f64;
        self.kv_bytes(cells) + compute as u64
    }

    /// How many cells fit into `bytes`.
    pub fn cells_in(&self, bytes: u64) -> usize {
        let per_cell = self.kv_per_cell + self.compute_per_cell;
        let left = bytes as f64 - self.kv_fixed - self.compute_fixed;
        if per_cell <= 0.0 {
            return usize::MAX;
        }
        // Whole steps.
        (left / per_cell).max(0.0) as usize / CELL_STEP * CELL_STEP
    }
}

/// The memory that a KV cache goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FreeMemory {
    /// Bytes that can be taken now.
    pub bytes: u64,
    /// Where they are: `RAM`, or the names of the GPUs.
    pub place: String,
    /// The system's memory, which holds the embeddings too.
    pub is_system: bool,
}

/// What stays free of the memory that there is: other programs grow as well.
const SHARE: f64 = 0.95;

impl FreeMemory {
    /// The memory for a KV cache of `model` as it is loaded with `params`; `None` if that is not known.
    pub fn find(model: &Model, params: &ModelParams, offload_kv: bool) -> Option<Self> {
        let system = || {
            let bytes = (free_system_bytes()? as f64 * SHARE) as u64;
            Some(Self { bytes, place: "RAM".into(), is_system: true })
        };
        let gpus: Vec<_> = devices()
            .into_iter()
            .filter(|d| d.kind == DeviceKind::Gpu && params.uses_gpu(&d.name) && d.memory_total > 0)
            .collect();
        // A layer's cache is where the layer is.
        let n_layer = model.n_layer().max(1);
        let on_gpu = params.n_gpu_layers.map_or(n_layer, |n| (n as usize).min(n_layer)) as f64 / n_layer as f64;
        if gpus.is_empty() || !offload_kv {
            return system();
        }
        let free: usize = gpus.iter().map(|gpu| gpu.memory_free).sum();
        let place = gpus.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>().join(", ");
        Some(Self { bytes: (free as f64 * SHARE / on_gpu) as u64, place, is_system: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_counted_in_whole_steps() {
        let cost = CellCost { kv_per_cell: 10.0, kv_fixed: 100.0, compute_per_cell: 2.0, compute_fixed: 50.0 };
        assert_eq!(cost.kv_bytes(1), 2660);
        assert_eq!(cost.bytes(256), 2660 + 562);
        assert_eq!(cost.cells_in(cost.bytes(512)), 512);
        assert_eq!(cost.cells_in(cost.bytes(512) - 1), 256);
        assert_eq!(cost.cells_in(0), 0);
    }

    #[test]
    fn this_system_tells_its_memory() {
        assert!(free_system_bytes().expect("a number") > 1 << 20);
    }
}
