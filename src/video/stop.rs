//! Stopping the reading of a file from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Whether to stop: a question that is asked again and again during the work.
#[derive(Clone)]
pub(super) struct Stop {
    ask: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether what is read is of no use to anybody any more.
    ended: Arc<AtomicBool>,
}

impl Stop {
    pub(super) fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { ask: Arc::new(ask), ended: Arc::new(AtomicBool::new(false)) }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || (self.ask)()
    }

    /// Stops the work, whatever the answer is from now on.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Fails if the work shall stop.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_wanted() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
