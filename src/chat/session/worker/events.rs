//! What the thread of a worker tells.

use crate::chat::fit::VideoPlan;
use crate::chat::report::{Answer, VideoReport};
use crate::error::Error;
use crate::observer::{Observer, Stage};
use crate::runtime::Model;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// A command that was given to a [`Worker`](super::Worker), and the events that belong to it. Later commands have
/// greater tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

impl Ticket {
    /// Opening the session, before the first command.
    pub const OPENING: Self = Self(0);
}

/// Something that happened in a [`Worker`](super::Worker).
#[derive(Debug)]
#[non_exhaustive]
pub struct Event {
    /// What it belongs to.
    pub ticket: Ticket,
    /// What it is.
    pub kind: EventKind,
}

/// What happened in a [`Worker`](super::Worker).
///
/// Each command gives [`Started`](Self::Started), unless it was cancelled before; then any number of
/// [`Progress`](Self::Progress), [`Message`](Self::Message), [`Warning`](Self::Warning) and [`Text`](Self::Text); then
/// exactly one event that [ends](Self::is_end) it. Commands do not overlap. The very last event is
/// [`Closed`](Self::Closed).
#[derive(Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// The thread begins with it.
    Started,
    /// `done` of `total` steps of a stage are done, as [`Observer::progress`] is told.
    Progress {
        /// What is being done.
        stage: Stage,
        /// How many of its steps are done.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// Something that is worth a line, for who looks on.
    Message(String),
    /// Something that the user should know, while the work goes on.
    Warning(String),
    /// The next piece of an answer: valid UTF-8, to be written as it is.
    Text(String),

    /// Ends [`Ticket::OPENING`]: the session is there.
    Loaded(Loaded),
    /// Ends a command that adds a video.
    VideoReady(Box<VideoReport>),
    /// Ends a command that plans one.
    Planned(Box<VideoPlan>),
    /// Ends a question. After a cancel, [`Answer::stop`] says so.
    Answered(Box<Answer>),
    /// Ends any other command.
    Done,
    /// Ends a command that failed, [`Error::Cancelled`] if it was cancelled: the session is as it was before it. If it
    /// was the opening that failed, there is no session, and the thread ends.
    Failed(Error),
    /// Ends a command with a panic, and the thread: nobody knows what state the session is in.
    Panicked(String),

    /// The thread ends; the session is freed. Of the last ticket that was worked on.
    Closed,
}

impl EventKind {
    /// Whether no other event of the same command follows, but for [`Closed`](Self::Closed).
    pub fn is_end(&self) -> bool {
        match self {
            Self::Started | Self::Progress { .. } | Self::Message(_) | Self::Warning(_) | Self::Text(_) => false,
            Self::Loaded(_)
            | Self::VideoReady(_)
            | Self::Planned(_)
            | Self::Answered(_)
            | Self::Done
            | Self::Failed(_)
            | Self::Panicked(_)
            | Self::Closed => true,
        }
    }
}

/// What was loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The language model, for other workers and sessions to share
    /// ([`WorkerBuilder::model`](super::WorkerBuilder::model)). Its weights are freed with the last of its clones.
    pub model: Model,
    /// The prompt layout.
    pub layout: &'static str,
    /// How long loading took.
    pub took: Duration,
}

/// What is called behind every event.
pub(super) type OnEvent = Arc<dyn Fn() + Send + Sync>;

/// Sends events.
#[derive(Clone)]
pub(super) struct EventSender {
    events: Sender<Event>,
    on_event: Option<OnEvent>,
}

impl EventSender {
    pub fn new(events: Sender<Event>, on_event: Option<OnEvent>) -> Self {
        Self { events, on_event }
    }

    /// Without effect if nobody listens any more.
    pub fn send(&self, ticket: Ticket, kind: EventKind) {
        let _ = self.events.send(Event { ticket, kind });
        if let Some(wake) = &self.on_event {
            // The event is sent; what the program does about it is no reason to end the work.
            let _ = catch_unwind(AssertUnwindSafe(|| wake()));
        }
    }
}

/// Makes events of what a command tells.
pub(super) struct EventObserver<'a> {
    pub sender: &'a EventSender,
    pub ticket: Ticket,
}

impl Observer for EventObserver<'_> {
    fn progress(&mut self, stage: Stage, done: u64, total: u64) {
        self.sender.send(self.ticket, EventKind::Progress { stage, done, total });
    }

    fn message(&mut self, message: &str) {
        self.sender.send(self.ticket, EventKind::Message(message.to_owned()));
    }

    fn warning(&mut self, message: &str) {
        self.sender.send(self.ticket, EventKind::Warning(message.to_owned()));
    }

    fn text(&mut self, piece: &str) {
        self.sender.send(self.ticket, EventKind::Text(piece.to_owned()));
    }
}
