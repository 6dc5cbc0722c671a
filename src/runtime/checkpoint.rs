//! Checkpoints: copies of the part of a sequence that cannot be cut back.
//!
//! The keys and values of attention layers have a cell for each row, so the last rows can be removed. The state of a
//! recurrent layer holds all rows at once, and a sliding window forgets the rows that have left it. A checkpoint is a
//! copy of that part after some row. Restored, it takes the sequence back to that row.
//!
//! The format is that of `llama_state_seq_get_data_ext` with `LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY`. It begins with a
//! magic number and the sequence, and for recurrent layers goes on as `llama_memory_recurrent::state_write` does: the
//! number of cells (1), its position, its number of sequences (0), and the states of all layers. All have 32 bits.

use super::call::Outcome;
use super::context::Context;
use crate::error::{Error, Result};
use crate::ffi;

const PARTIAL: u32 = ffi::LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;

impl Context {
    /// Whether the last rows of a sequence can be removed only with the help of a checkpoint.
    pub fn needs_checkpoints(&self) -> bool {
        self.model().is_recurrent() || (self.model().window() > 0 && !self.params().full_windows)
    }

    /// The bytes of the recurrent layers' states, of all sequences: a part of
    /// [`MemoryUsage::context`](super::MemoryUsage::context). A checkpoint is about as large as one sequence's.
    pub fn recurrent_bytes(&self) -> u64 {
        // SAFETY: the context lives; a getter.
        unsafe { ffi::sharpv_recurrent_bytes(self.ptr()) }
    }

    /// Returns the size of a checkpoint of sequence 0 now, in bytes; 0 if nothing was computed yet.
    ///
    /// # Errors
    /// [`Error::Llama`] if llama.cpp cannot determine it.
    pub fn checkpoint_bytes(&self) -> Result<usize> {
        let context = self.ptr();
        // SAFETY: the context lives; the call reads it.
        let size = self.guarded(0, |result, err, err_len| unsafe {
            ffi::sharpv_try_state_seq_get_size_ext(context, 0, PARTIAL, result, err, err_len)
        });
        size.into_result().map_err(|reason| Error::Llama { action: "measuring a checkpoint", reason })
    }

    /// Copies the part of sequence 0 that cannot be cut back. Waits for the device; logits stay.
    ///
    /// # Errors
    /// [`Error::Llama`] if llama.cpp cannot copy it.
    pub fn checkpoint(&mut self) -> Result<Vec<u8>> {
        let mut data = vec![0_u8; self.checkpoint_bytes()?];
        let (context, output, capacity) = (self.ptr(), data.as_mut_ptr(), data.len());
        // SAFETY: the buffer is passed with its length.
        let Outcome { value, reason } = self.guarded(0, |result, err, err_len| unsafe {
            ffi::sharpv_try_state_seq_get_data_ext(context, output, capacity, 0, PARTIAL, result, err, err_len)
        });
        let Some(written @ 1..) = value else { return Err(Error::Llama { action: "copying a checkpoint", reason }) };
        data.truncate(written);
        Ok(data)
    }

    /// Takes `sequence` back to the rows before `position`, which it must still hold in its attention layers.
    /// `checkpoint` must have been made when exactly these rows were computed. Returns false if it does not belong to
    /// this context; the sequence is then unusable until it is emptied.
    #[must_use]
    pub fn go_back(&mut self, sequence: usize, checkpoint: &[u8], position: i32) -> bool {
        self.note_logits(false);
        if sequence >= self.params().n_sequences {
            return false;
        }
        let (context, data, size) = (self.ptr(), checkpoint.as_ptr(), checkpoint.len());
        // SAFETY: the context lives and is borrowed mutably, the sequence exists, and the data is passed with its
        // length, which llama.cpp does not exceed.
        let read = self.guarded(0, |result, err, err_len| unsafe {
            let sequence = sequence as i32;
            ffi::sharpv_try_state_seq_set_data_ext(context, data, size, sequence, PARTIAL, result, err, err_len)
        });
        matches!(read.value, Some(1..)) && self.truncate_sequence(sequence, position)
    }

    /// Whether `checkpoint`, out of a file, can be one of this context after a row at `position`. llama.cpp aborts on
    /// a checkpoint of another length; types and widths it checks itself. The cache must hold a row.
    pub fn can_be_checkpoint(&self, checkpoint: &[u8], position: i32) -> bool {
        let word = |at: usize| checkpoint.get(4 * at..4 * at + 4).and_then(|bytes| bytes.try_into().ok());
        let [Some(magic), Some(sequence), Some(cells), Some(at), Some(sequences)] = std::array::from_fn(word) else {
            return false;
        };
        self.model().is_recurrent()
            && self.checkpoint_bytes().is_ok_and(|bytes| bytes == checkpoint.len())
            && u32::from_ne_bytes(magic) == MAGIC
            && [sequence, cells, sequences].map(u32::from_ne_bytes) == [0, 1, 0]
            && i32::from_ne_bytes(at) == position
    }
}

/// `io_magic` of llama.cpp.
const MAGIC: u32 = 0xaf14_3cd8;
