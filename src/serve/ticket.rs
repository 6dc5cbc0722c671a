//! A client's claim to an answer. It cancels the request when the client disconnects.

use super::api::error::ApiError;
use super::cancel::{Cancellation, Reason};
use super::job::{Event, Job, Task};
use super::metrics::Metrics;
use super::queue::Queue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

/// Dropping it before the answer is done cancels the request.
#[derive(Debug)]
pub(super) struct Ticket {
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    cancellation: Arc<Cancellation>,
    job: Option<Arc<Job>>,
    start: Instant,
    timeout: Duration,
    is_over: bool,
}

impl Ticket {
    /// A ticket for a request whose answer may take `timeout` from now on.
    pub fn new(queue: &Arc<Queue>, metrics: &Arc<Metrics>, timeout: Duration) -> Self {
        let (queue, metrics, start) = (Arc::clone(queue), Arc::clone(metrics), Instant::now());
        Self { queue, metrics, cancellation: Arc::default(), job: None, start, timeout, is_over: false }
    }

    /// When the answer must be done.
    pub fn deadline(&self) -> Instant {
        self.start + self.timeout
    }

    /// The error for an answer that was not done in time.
    pub fn too_late(&self) -> ApiError {
        ApiError::timeout(self.timeout)
    }

    /// Cancels the request.
    pub fn cancellation(&self) -> Arc<Cancellation> {
        Arc::clone(&self.cancellation)
    }

    /// Gives the task to a slot or to the queue.
    pub fn submit(&mut self, task: Task) -> Result<UnboundedReceiver<Event>, ApiError> {
        let (events, receiver) = unbounded_channel();
        let job = Arc::new(Job { task, cancellation: self.cancellation(), events });
        self.queue.submit(Arc::clone(&job))?;
        self.job = Some(job);
        Ok(receiver)
    }

    /// The answer is done.
    pub fn done(&mut self) {
        self.is_over = true;
        self.metrics.finished(self.start.elapsed());
    }

    /// The request failed.
    pub fn failed(&mut self, error: ApiError) -> ApiError {
        self.is_over = true;
        tracing::debug!("a chat request failed with {}", error.status());
        error
    }

    /// The deadline has passed: cancels the request.
    pub fn timed_out(&mut self) -> ApiError {
        self.cancel(Reason::Timeout);
        self.failed(self.too_late())
    }

    fn cancel(&self, reason: Reason) {
        self.cancellation.cancel(reason);
        if let Some(job) = &self.job {
            self.queue.remove(job);
            self.metrics.cancelled(match reason {
                Reason::Gone => "gone",
                Reason::Timeout => "timeout",
                Reason::Shutdown => "shutdown",
            });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_over {
            self.cancel(Reason::Gone);
        }
    }
}
