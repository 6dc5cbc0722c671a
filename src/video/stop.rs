//! Stopping the reading of a file from the outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Whether to stop; checked again and again during the work.
#[derive(Clone)]
pub(super) struct Stop {
    ask: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether the reader was dropped.
    ended: Arc<AtomicBool>,
}

impl Stop {
    pub(super) fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { ask: Arc::new(ask), ended: Arc::new(AtomicBool::new(false)) }
    }

    pub(super) fn is_requested(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || (self.ask)()
    }

    /// Stops the work for good.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Fails with [`Error::Cancelled`] if the work should stop.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_requested() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
