//! The thread of a worker.

use super::Opening;
use super::events::{EventKind, EventObserver, EventSender, Loaded, Ticket};
use super::queue::{Next, Queue};
use crate::chat::session::Session;
use crate::error::Error;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Opens the session and runs commands until the queue is closed.
pub(super) fn run(opening: Opening, queue: &Queue, sender: &EventSender) {
    let last = match opened(opening, queue, sender) {
        Some(session) => work(session, queue, sender),
        None => Ticket::OPENING,
    };
    end(last, queue, sender);
}

fn opened(opening: Opening, queue: &Queue, sender: &EventSender) -> Option<Session> {
    let mut observer = EventObserver { sender, ticket: Ticket::OPENING };
    observer.sender.send(Ticket::OPENING, EventKind::Started);
    let result = catch_unwind(AssertUnwindSafe(|| opening.open(&mut observer)));
    let cancelled = queue.done();
    let (kind, session) = match result {
        Ok(Ok(_)) if cancelled => (EventKind::Failed(Error::Cancelled), None),
        Ok(Ok(session)) => (EventKind::Loaded(loaded(&session)), Some(session)),
        Ok(Err(error)) => (EventKind::Failed(error), None),
        Err(panic) => (EventKind::Panicked(message_of(panic.as_ref())), None),
    };
    sender.send(Ticket::OPENING, kind);
    session
}

fn loaded(session: &Session) -> Loaded {
    let engine = &session.engine;
    Loaded { model: engine.model.clone(), layout: engine.layout.name(), took: engine.load }
}

/// Runs the commands that wait. Returns the last ticket.
fn work(mut session: Session, queue: &Queue, sender: &EventSender) -> Ticket {
    let mut last = Ticket::OPENING;
    loop {
        let (ticket, command) = match queue.next() {
            Next::Run(ticket, command) => (ticket, command),
            Next::Cancelled(ticket) => {
                last = ticket;
                sender.send(ticket, EventKind::Failed(Error::Cancelled));
                continue;
            }
            Next::End => return last,
        };
        last = ticket;
        sender.send(ticket, EventKind::Started);
        let mut observer = EventObserver { sender, ticket };
        let result = catch_unwind(AssertUnwindSafe(|| command(&mut session, &mut observer)));
        queue.done();
        match result.unwrap_or_else(|panic| Ok(EventKind::Panicked(message_of(panic.as_ref())))) {
            Ok(panicked @ EventKind::Panicked(_)) => {
                sender.send(ticket, panicked);
                return last;
            }
            result => sender.send(ticket, result.unwrap_or_else(EventKind::Failed)),
        }
    }
}

/// Reports the commands that still wait as cancelled, and the thread as closed.
fn end(mut last: Ticket, queue: &Queue, sender: &EventSender) {
    queue.close();
    while let Next::Cancelled(ticket) = queue.next() {
        last = ticket;
        sender.send(ticket, EventKind::Failed(Error::Cancelled));
    }
    sender.send(last, EventKind::Closed);
}

/// Reports that no thread could be started.
pub(super) fn no_thread(source: std::io::Error, queue: &Queue, sender: &EventSender) {
    queue.done();
    sender.send(Ticket::OPENING, EventKind::Failed(Error::NoThread { source }));
    end(Ticket::OPENING, queue, sender);
}

/// The message of a panic.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}
