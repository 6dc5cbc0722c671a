//! The commands of a worker: those that wait, the one that runs, and those that are cancelled.

use super::events::{EventKind, Ticket};
use crate::chat::session::Session;
use crate::error::Result;
use crate::observer::Observer;
use crate::runtime::CancelToken;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Work with the session. Returns the event that ends the command.
pub(super) type Command = Box<dyn FnOnce(&mut Session, &mut dyn Observer) -> Result<EventKind> + Send>;

/// What the thread does next.
pub(super) enum Next {
    /// Runs this command.
    Run(Ticket, Command),
    /// Reports that this command was cancelled.
    Cancelled(Ticket),
    /// Ends the thread.
    End,
}

/// What the handle and the thread share.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Signals that a command waits, or that the queue is closed.
    changed: Condvar,
    /// Cancels the command that runs. It is reset while none runs.
    cancel: CancelToken,
}

struct State {
    waiting: VecDeque<Waiting>,
    running: Option<Ticket>,
    last: u64,
    closed: bool,
    /// The thread takes no more commands.
    ended: bool,
}

struct Waiting {
    ticket: Ticket,
    command: Command,
    cancelled: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting: Vec<Ticket> = self.waiting.iter().map(|it| it.ticket).collect();
        f.debug_struct("State").field("waiting", &waiting).field("running", &self.running).finish_non_exhaustive()
    }
}

impl Queue {
    /// Makes a queue in which the opening of the session runs.
    pub fn new(cancel: CancelToken) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            running: Some(Ticket::OPENING),
            last: Ticket::OPENING.0,
            closed: false,
            ended: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), cancel }
    }

    /// Locks the state. Nothing panics while it holds the lock, so a poisoned lock is sound.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, command: Command) -> Ticket {
        let mut state = self.state();
        state.last += 1;
        let ticket = Ticket(state.last);
        if !state.ended {
            state.waiting.push_back(Waiting { ticket, command, cancelled: false });
            self.changed.notify_one();
        }
        ticket
    }

    /// Waits for the next command.
    pub fn next(&self) -> Next {
        let mut state = self.state();
        loop {
            if let Some(Waiting { ticket, command, cancelled }) = state.waiting.pop_front() {
                if cancelled || state.closed {
                    return Next::Cancelled(ticket);
                }
                self.cancel.reset();
                state.running = Some(ticket);
                return Next::Run(ticket, command);
            }
            if state.closed {
                state.ended = true;
                return Next::End;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Marks the running command as done. Returns whether it was cancelled. Later cancels concern other commands.
    pub fn done(&self) -> bool {
        let mut state = self.state();
        state.running = None;
        let cancelled = self.cancel.is_cancelled();
        self.cancel.reset();
        cancelled
    }

    pub fn cancel_oldest(&self) {
        let mut state = self.state();
        if state.running.is_some() {
            self.cancel.cancel();
        } else if let Some(oldest) = state.waiting.front_mut() {
            oldest.cancelled = true;
        }
    }

    pub fn cancel(&self, ticket: Ticket) {
        let mut state = self.state();
        if state.running == Some(ticket) {
            self.cancel.cancel();
        } else if let Some(it) = state.waiting.iter_mut().find(|it| it.ticket == ticket) {
            it.cancelled = true;
        }
    }

    pub fn cancel_all(&self) {
        let mut state = self.state();
        if state.running.is_some() {
            self.cancel.cancel();
        }
        state.waiting.iter_mut().for_each(|it| it.cancelled = true);
    }

    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.running.is_none() && state.waiting.is_empty()
    }

    /// Cancels all commands, now and later.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        if state.running.is_some() {
            self.cancel.cancel();
        }
        self.changed.notify_one();
    }
}
