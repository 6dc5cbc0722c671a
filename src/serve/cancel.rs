//! Cancelling a request, wherever it is: in the queue, while its media are fetched, or in a slot.

use crate::runtime::CancelToken;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Why a request is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The client disconnected.
    Gone,
    /// The answer took too long.
    Timeout,
    /// The server ends.
    Shutdown,
}

/// Cancels one request.
#[derive(Debug, Default)]
pub(super) struct Cancellation {
    reason: OnceLock<Reason>,
    /// The token of the slot that works on the request. llama.cpp's abort callback reads it.
    slot: Mutex<Option<CancelToken>>,
}

impl Cancellation {
    /// Cancels the request. The first reason stays.
    pub fn cancel(&self, reason: Reason) {
        let _ = self.reason.set(reason);
        if let Some(token) = &*self.lock() {
            token.cancel();
        }
    }

    /// Why the request was cancelled, if it was.
    pub fn reason(&self) -> Option<Reason> {
        self.reason.get().copied()
    }

    /// Lets [`cancel`](Self::cancel) reach a slot through `token`, which is reset. `None` if the request is cancelled
    /// already.
    ///
    /// The slot uses the same token for its next request, so the connection ends when the guard is dropped.
    pub fn attach<'a>(&'a self, token: &CancelToken) -> Option<Attached<'a>> {
        let mut slot = self.lock();
        token.reset();
        if self.reason().is_some() {
            return None;
        }
        *slot = Some(token.clone());
        Some(Attached(self))
    }

    fn lock(&self) -> MutexGuard<'_, Option<CancelToken>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot works on the request.
#[derive(Debug)]
pub(super) struct Attached<'a>(&'a Cancellation);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_reaches_the_slot_only_while_it_works_on_the_request() {
        let (token, request) = (CancelToken::new(), Cancellation::default());
        let attached = request.attach(&token).expect("not cancelled");
        request.cancel(Reason::Gone);
        assert!(token.is_cancelled());
        drop(attached);
        let next = Cancellation::default();
        let _attached = next.attach(&token).expect("not cancelled");
        request.cancel(Reason::Timeout);
        assert!(!token.is_cancelled(), "the slot works on another request");
        assert_eq!(request.reason(), Some(Reason::Gone));
        assert!(request.attach(&token).is_none());
    }
}
