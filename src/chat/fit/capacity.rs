//! How many sessions that share a model fit in memory.

use super::Fit;
use crate::error::Result;

/// Cells for each session: enough for a pruned video and some questions.
const CELLS: usize = 4096;

/// The memory that sessions need in addition to the weights of the shared model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::chat) struct Capacity {
    /// Free bytes while one session is open that has not answered a question yet.
    pub free: u64,
    /// Where this memory is: `RAM`, or the names of the GPUs.
    pub place: String,
    /// Bytes of the KV cache and compute buffers of a session.
    pub context: u64,
    /// Bytes of the vision encoder of each further session in the same memory.
    pub encoder: u64,
}

impl Capacity {
    /// The number of sessions that fit, including the open one.
    pub fn sessions(&self) -> usize {
        let left = self.free.saturating_sub(self.context);
        let first = usize::from(self.free >= self.context);
        first + (left / (self.context + self.encoder).max(1)) as usize
    }
}

impl Fit<'_> {
    /// The capacity while this session is open; `None` if the free memory is unknown.
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
