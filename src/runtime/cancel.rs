//! Stopping work from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that stops encoding, prefill and decoding.
///
/// Clones share the flag. Work stops within one ubatch on a CPU, and after the ubatch that runs on a GPU.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop. It then fails with [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Clears the flag, for the next piece of work.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether the work shall stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Fails with [`Error::Cancelled`](crate::Error::Cancelled) if the flag is set.
    pub fn check(&self) -> crate::Result<()> {
        if self.is_cancelled() { Err(crate::Error::Cancelled) } else { Ok(()) }
    }

    /// The address of the flag, for llama.cpp's abort callback. Valid while a clone lives.
    pub(super) fn as_ptr(&self) -> *const AtomicBool {
        Arc::as_ptr(&self.0)
    }
}
