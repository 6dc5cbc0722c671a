//! The available memory for a context, and how much of it the vision encoder will need.

use super::limits::Shortage;
use crate::chat::engine::cost::CellCost;
use crate::chat::engine::{Engine, checkpoints};
use crate::error::{Resource, Result};
use crate::runtime::{CancelToken, ComputeParams, ContextParams, FreeMemory, MemoryUsage};

/// A context is not measured if an upper bound of its size is within this share of the free memory.
const SURELY_FREE: f64 = 0.1;

/// The memory that is available for a context.
#[derive(Debug)]
pub(in crate::chat) struct Available<'a> {
    pub engine: &'a Engine,
    /// The parameters of the context, apart from its size.
    pub context: ContextParams,
    /// The user's limit in bytes, if there is one.
    pub max_memory: Option<u64>,
    /// The user's limit for checkpoints in bytes, if there is one.
    pub checkpoint_memory: Option<u64>,
    pub cancel: &'a CancelToken,
    /// The memory of the present context, which the new one replaces.
    pub present: MemoryUsage,
}

impl Available<'_> {
    /// The ubatch size if one batch must hold `at_once` rows.
    pub fn n_ubatch(&self, at_once: usize) -> usize {
        self.context.compute.n_ubatch.max(at_once)
    }

    /// The memory cost of a context whose ubatches hold at least `at_once` rows.
    pub fn cell_cost(&self, at_once: usize) -> Result<CellCost> {
        let compute = ComputeParams { n_ubatch: self.n_ubatch(at_once), ..self.context.compute.clone() };
        self.engine.cell_cost(&ContextParams { compute, ..self.context.clone() }, self.cancel)
    }

    /// The free memory for a context, of which the encoder may need a part. `None` if unknown.
    pub fn free(&self) -> Option<FreeMemory> {
        self.free_without(|_| 0)
    }

    /// Like [`free`](Self::free), but without the part that the encoder will need.
    pub fn free_beside_encoder(&self) -> Option<FreeMemory> {
        self.free_without(|free| self.encoder_buffers(free))
    }

    fn free_without(&self, other: impl Fn(&FreeMemory) -> u64) -> Option<FreeMemory> {
        let mut free = FreeMemory::for_kv(&self.engine.model, self.context.compute.offload_kv, other)?;
        free.bytes = free.bytes.saturating_add(self.present.context + self.present.compute);
        if let Some(limit) = self.max_memory {
            free.bytes = free.bytes.min(limit);
        }
        Some(free)
    }

    /// Whether a context with `cells` cells fits in memory.
    pub fn holds(&self, cells: usize) -> Result<bool> {
        let Some(free) = self.free() else { return Ok(true) };
        if self.is_surely_free(&free, cells.max(self.n_ubatch(0))) {
            return Ok(true);
        }
        let cost = self.cell_cost(0)?;
        Ok(cost.bytes(cells) + self.reserved(&free, &cost) <= free.bytes)
    }

    /// The shortage of `free` memory for a context with `cells` cells and ubatches of at least `at_once` rows, and for
    /// the embeddings of `tokens` visual tokens. `None` if they fit.
    pub fn shortage(
        &self,
        free: &FreeMemory,
        (cells, at_once): (usize, usize),
        tokens: usize,
    ) -> Result<Option<Shortage>> {
        if self.is_surely_free(free, cells.max(self.n_ubatch(at_once))) {
            return Ok(None);
        }
        let embeddings = if free.is_system { self.embedding_bytes(tokens) } else { 0 };
        let cost = self.cell_cost(at_once)?;
        let needed = cost.bytes(cells) + embeddings + self.reserved(free, &cost);
        Ok(Shortage::of(Resource::Memory, needed, free.bytes, needed))
    }

    /// Whether an upper bound of the size of a context with `cells` cells is far below the `free` memory.
    pub fn is_surely_free(&self, free: &FreeMemory, cells: usize) -> bool {
        // Four times the size of keys and values of the model's width as 32-bit floats.
        let surely = 32 * (cells * self.engine.model.n_layer() * self.engine.model.n_embd()) as u64;
        (surely as f64) < SURELY_FREE * free.bytes as f64
    }

    /// The bytes of `free` memory that are reserved for the checkpoints that a model needs, which are in system memory.
    pub fn reserved(&self, free: &FreeMemory, cost: &CellCost) -> u64 {
        if !free.is_system {
            return 0;
        }
        checkpoints::least_budget(cost.checkpoint).min(self.checkpoint_memory.unwrap_or(u64::MAX))
    }

    /// The size of the embeddings of `visual_tokens` visual tokens, in bytes.
    pub fn embedding_bytes(&self, visual_tokens: usize) -> u64 {
        (visual_tokens * self.engine.model.n_embd_inp() * size_of::<f32>()) as u64
    }

    /// The bytes that the vision encoder needs for weights and buffers in the same memory as `free`.
    pub fn encoder_bytes(&self, free: &FreeMemory) -> u64 {
        let need = self.engine.encoder_need();
        need.iter().filter(|need| (need.device == "CPU") == free.is_system).map(|need| need.usage.total()).sum()
    }

    /// The part of [`encoder_bytes`](Self::encoder_bytes) that is not allocated yet: the buffers, until the first
    /// image.
    pub fn encoder_buffers(&self, free: &FreeMemory) -> u64 {
        if self.engine.vision.has_encoded() {
            return 0;
        }
        // All weights are on one device.
        let weights = self.engine.encoder_file_bytes();
        let bytes = self.encoder_bytes(free);
        bytes.checked_sub(weights).unwrap_or(bytes)
    }
}
