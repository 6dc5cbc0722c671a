//! How slow a client may be. It may take any time in total, as long as bytes keep moving.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// The least bytes per second that a client must send or read, on average over a window.
const LEAST_RATE: u64 = 1 << 10;

/// How long a client may send or read next to nothing.
#[derive(Debug, Clone, Copy)]
pub(in crate::serve) struct Patience(Duration);

impl Patience {
    pub fn new(window: Duration) -> Self {
        Self(window)
    }

    /// The time in which at least [`least`](Self::least) bytes must move.
    pub fn window(self) -> Duration {
        self.0
    }

    fn least(self) -> u64 {
        (self.0.as_secs_f64() * LEAST_RATE as f64) as u64
    }
}

/// Measures the bytes of one client.
#[derive(Debug)]
pub(in crate::serve) struct Pace {
    patience: Patience,
    /// Bytes in this window.
    moved: u64,
    /// The end of this window. `None` while the server does not wait for the client.
    end: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub fn new(patience: Patience) -> Self {
        Self { patience, moved: 0, end: None }
    }

    /// Adds bytes that were sent or read.
    pub fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
    }

    /// The server no longer waits for the client.
    pub fn rest(&mut self) {
        (self.moved, self.end) = (0, None);
    }

    /// Poll it while the server waits for the client. It is ready when the client is too slow.
    pub fn poll_too_slow(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let window = self.patience.window();
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(window)));
        loop {
            ready!(end.as_mut().poll(context));
            if self.moved < self.patience.least() {
                return Poll::Ready(());
            }
            self.moved = 0;
            end.as_mut().reset(Instant::now() + window);
        }
    }

    /// Waits until the client is too slow. Cancel-safe.
    pub async fn too_slow(&mut self) {
        std::future::poll_fn(|context| self.poll_too_slow(context)).await;
    }
}
