//! What there is: memory for a context, with what the vision encoder will take of it.

use super::limits::Shortage;
use crate::chat::engine::Engine;
use crate::chat::engine::cost::CellCost;
use crate::error::{Resource, Result};
use crate::runtime::{CancelToken, ComputeParams, ContextParams, FreeMemory, MemoryUsage};

/// A context that surely takes no more than this share of the free memory is not measured.
const SURELY_FREE: f64 = 0.1;

/// The memory that a context can take.
#[derive(Debug)]
pub(in crate::chat) struct Available<'a> {
    pub engine: &'a Engine,
    /// A context as it will be made, of any size.
    pub context: ContextParams,
    /// Bytes that it may take at most, where that is less than what is free.
    pub max_memory: Option<u64>,
    pub cancel: &'a CancelToken,
    /// What the present context takes. The new one takes its place.
    pub present: MemoryUsage,
}

impl Available<'_> {
    /// Rows that are computed at once where one batch has to take `at_once`.
    pub fn n_ubatch(&self, at_once: usize) -> usize {
        self.context.compute.n_ubatch.max(at_once)
    }

    /// What the cells of a context cost whose batches take `at_once` rows or more.
    pub fn cell_cost(&self, at_once: usize) -> Result<CellCost> {
        let compute = ComputeParams { n_ubatch: self.n_ubatch(at_once), ..self.context.compute.clone() };
        self.engine.cell_cost(&ContextParams { compute, ..self.context.clone() }, self.cancel)
    }

    /// The memory that a context can take. The encoder may need some of it. `None` where that is not known.
    pub fn free(&self) -> Option<FreeMemory> {
        self.free_without(|_| 0)
    }

    /// The same without what the encoder will need.
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

    /// Whether memory holds a context with `cells`.
    pub fn holds(&self, cells: usize) -> Result<bool> {
        let Some(free) = self.free() else { return Ok(true) };
        Ok(self.is_surely_free(&free, cells.max(self.n_ubatch(0))) || self.cell_cost(0)?.bytes(cells) <= free.bytes)
    }

    /// What is short of `free` memory for a context with `cells`, batches of `at_once` rows or more, and the embeddings
    /// of `tokens`.
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
        let needed = self.cell_cost(at_once)?.bytes(cells) + embeddings;
        Ok(Shortage::of(Resource::Memory, needed, free.bytes, needed))
    }

    pub fn is_surely_free(&self, free: &FreeMemory, cells: usize) -> bool {
        // Four times what keys and values of the model's width take as 32-bit floats.
        let surely = 32 * (cells * self.engine.model.n_layer() * self.engine.model.n_embd()) as u64;
        (surely as f64) < SURELY_FREE * free.bytes as f64
    }

    /// Bytes of the embeddings of so many visual tokens.
    pub fn embedding_bytes(&self, visual_tokens: usize) -> u64 {
        (visual_tokens * self.engine.model.n_embd_inp() * size_of::<f32>()) as u64
    }

    /// What the vision encoder takes of the memory that is `free`, weights and buffers.
    pub fn encoder_bytes(&self, free: &FreeMemory) -> u64 {
        let need = self.engine.encoder_need();
        need.iter().filter(|need| (need.device == "CPU") == free.is_system).map(|need| need.usage.total()).sum()
    }

    /// Of that, what it does not have yet: its buffers, until the first image.
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
