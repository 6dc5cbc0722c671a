//! Cancelling work from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that stops encoding, prefill and decoding.
///
/// Clones share the flag. Work on a CPU stops within the current ubatch, on a GPU after it.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag. The work then fails with [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Clears the flag, before the next work.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Fails with [`Error::Cancelled`](crate::Error::Cancelled) if the flag is set.
    pub fn check(&self) -> crate::Result<()> {
        if self.is_cancelled() { Err(crate::Error::Cancelled) } else { Ok(()) }
    }

    /// The address of the flag, for llama.cpp's abort callback. Valid as long as a clone lives.
    pub(super) fn as_ptr(&self) -> *const AtomicBool {
        Arc::as_ptr(&self.0)
    }
}
