//! How many sessions with one model memory holds.

use super::Fit;
use crate::error::Result;

/// Cells that each session should have: a pruned video and some questions.
const CELLS: usize = 4096;

/// What sessions that share a model take, beside its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::chat) struct Capacity {
    /// Bytes that are free, with one session open that was not asked anything.
    pub free: u64,
    /// Where: `RAM`, or the names of the GPUs.
    pub place: String,
    /// Bytes of a session's KV cache and buffers.
    pub context: u64,
    /// Bytes of another session's vision encoder there.
    pub encoder: u64,
}

impl Capacity {
    /// How many sessions memory holds, that one counted.
    pub fn sessions(&self) -> usize {
        let left = self.free.saturating_sub(self.context);
        let first = usize::from(self.free >= self.context);
        first + (left / (self.context + self.encoder).max(1)) as usize
    }
}

impl Fit<'_> {
    /// The capacity beside this session; `None` where the machine does not say what is free.
    pub fn capacity(&self) -> Result<Option<Capacity>> {
        let available = &self.available;
        let Some(free) = available.free() else { return Ok(None) };
        let cells = self.params.n_ctx.unwrap_or(CELLS.min(self.engine.model.n_ctx_train()));
        Ok(Some(Capacity {
            context: available.cell_cost(0)?.bytes(cells),
            encoder: available.encoder_bytes(&free),
            free: free.bytes,
            place: free.place,
        }))
    }
}
