//! How slow a client may be: not how long it takes counts, but that it moves on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// Bytes a second that a client moves at least, over a window.
const LEAST_RATE: u64 = 1 << 10;

/// How long a client may move next to nothing.
#[derive(Debug, Clone, Copy)]
pub(in crate::serve) struct Patience(Duration);

impl Patience {
    pub fn new(window: Duration) -> Self {
        Self(window)
    }

    /// Over this time at least [`least`](Self::least) bytes have to move.
    pub fn window(self) -> Duration {
        self.0
    }

    fn least(self) -> u64 {
        (self.0.as_secs_f64() * LEAST_RATE as f64) as u64
    }
}

/// Watches what a client moves.
#[derive(Debug)]
pub(in crate::serve) struct Pace {
    patience: Patience,
    /// Bytes of this window.
    moved: u64,
    /// The end of this window. `None` while nothing is waited for.
    end: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub fn new(patience: Patience) -> Self {
        Self { patience, moved: 0, end: None }
    }

    /// Bytes came, or went.
    pub fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
    }

    /// Nothing is waited for: it is not the client's turn.
    pub fn rest(&mut self) {
        (self.moved, self.end) = (0, None);
    }

    /// To be polled while the client is waited for: ready when it moved too little.
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

    /// Waits until the client is too slow. May be dropped and called again.
    pub async fn too_slow(&mut self) {
        std::future::poll_fn(|context| self.poll_too_slow(context)).await;
    }
}
