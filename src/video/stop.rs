//! Stopping the reading of a file from outside.

use std::sync::Arc;

use crate::error::{Error, Result};

/// Whether to stop: a question that is asked again and again during the work.
#[derive(Clone)]
pub(super) struct Stop(Arc<dyn Fn() -> bool + Send + Sync>);

impl Stop {
    pub(super) fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(super) fn is_wanted(&self) -> bool {
        (self.0)()
    }

    /// Fails if the work shall stop.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_wanted() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
