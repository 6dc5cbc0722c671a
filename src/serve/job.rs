//! A request on its way through the queue and a slot.

use super::api::error::ApiError;
use super::api::response::End;
use super::prepare::Prepared;
use crate::runtime::CancelToken;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// A request that was read, with who waits for its answer.
#[derive(Debug)]
pub(super) struct Job {
    pub prepared: Prepared,
    pub control: Arc<Control>,
    /// Without a bound: an answer is bounded by its tokens, and nobody who reads slowly may hold a slot.
    pub events: UnboundedSender<Event>,
}

impl Job {
    /// Tells who waits. Nobody may.
    pub fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// The request fails.
    pub fn fail(&self, error: ApiError) {
        self.send(Event::Failed(error));
    }
}

/// What happens to a request.
#[derive(Debug)]
pub(super) enum Event {
    /// Its videos can be used, and fit.
    Begun,
    /// The next piece of the answer.
    Text(String),
    /// The answer is done.
    Done(Box<End>),
    Failed(ApiError),
}

/// Why a request is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The client went away.
    Gone,
    /// It took too long.
    Timeout,
    /// The server ends.
    Shutdown,
}

/// Gives up a request, wherever it is.
#[derive(Debug, Default)]
pub(super) struct Control {
    state: Mutex<State>,
    given_up: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    why: Option<Why>,
    /// That of the slot that works on it.
    token: Option<CancelToken>,
}

impl Control {
    /// Gives it up. The first reason stays.
    pub fn cancel(&self, why: Why) {
        let mut state = self.lock();
        state.why.get_or_insert(why);
        self.given_up.store(true, Ordering::Relaxed);
        if let Some(token) = &state.token {
            token.cancel();
        }
    }

    /// Why it was given up.
    pub fn why(&self) -> Option<Why> {
        self.lock().why
    }

    /// Set when it is given up.
    pub fn given_up(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.given_up)
    }

    /// A slot begins, whose work `token` stops. Fails if it was given up.
    ///
    /// Until the guard goes: the token is that of the slot, and another request comes next.
    pub fn work<'a>(&'a self, token: &CancelToken) -> Option<Working<'a>> {
        let mut state = self.lock();
        token.reset();
        if state.why.is_some() {
            return None;
        }
        state.token = Some(token.clone());
        Some(Working(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot works on the request.
#[derive(Debug)]
pub(super) struct Working<'a>(&'a Control);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.lock().token = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_reaches_the_slot_only_while_it_works_on_the_request() {
        let (token, control) = (CancelToken::new(), Control::default());
        let working = control.work(&token).expect("not given up");
        control.cancel(Why::Gone);
        assert!(token.is_cancelled());
        drop(working);
        let next = Control::default();
        let _working = next.work(&token).expect("not given up");
        control.cancel(Why::Timeout);
        assert!(!token.is_cancelled(), "another request is at work");
        assert_eq!(control.why(), Some(Why::Gone));
        assert!(control.work(&token).is_none());
    }
}
