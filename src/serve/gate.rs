//! How many requests may wait at once for something slow: other servers, or large files.

use super::api::error::ApiError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Admits a number of requests, and lets a number of others wait.
#[derive(Debug)]
pub(super) struct Gate {
    open: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
}

impl Gate {
    pub fn new(at_once: usize, most_waiting: usize) -> Self {
        Self { open: Arc::new(Semaphore::new(at_once)), waiting: AtomicUsize::new(0), most_waiting }
    }

    /// Waits for a permit. The thread that does the work holds it, because it goes on when the client has gone.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(permit) = Arc::clone(&self.open).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting, self.most_waiting)
            .ok_or_else(|| ApiError::queue_full(Duration::from_secs(5)))?;
        Arc::clone(&self.open).acquire_owned().await.map_err(|_| ApiError::shutting_down())
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_enters_and_one_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let gate = Arc::new(Gate::new(1, 1));
            let first = gate.enter().await.expect("the gate is open");
            let waiting = tokio::spawn({
                let gate = Arc::clone(&gate);
                async move { gate.enter().await.is_ok() }
            });
            tokio::task::yield_now().await;
            assert_eq!(gate.enter().await.expect_err("one waits already").status(), 429);
            drop(first);
            assert!(waiting.await.expect("no panic"));
            assert!(gate.enter().await.is_ok(), "a rejected request does not count");
        });
    }
}
