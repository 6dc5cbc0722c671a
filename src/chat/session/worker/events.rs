//! The events that the thread of a worker sends.

use crate::chat::fit::VideoPlan;
use crate::chat::report::{Answer, VideoReport};
use crate::error::Error;
use crate::observer::{Observer, Stage};
use crate::runtime::Model;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Identifies a command of a [`Worker`](super::Worker) and its events. Later commands have greater tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

impl Ticket {
    /// The opening of the session, before the first command.
    pub const OPENING: Self = Self(0);
}

/// An event of a [`Worker`](super::Worker).
#[derive(Debug)]
#[non_exhaustive]
pub struct Event {
    /// The command that it belongs to.
    pub ticket: Ticket,
    /// What happened.
    pub kind: EventKind,
}

/// What happened in a [`Worker`](super::Worker).
///
/// Each command sends [`Started`](Self::Started), unless it was cancelled before it ran; then any number of
/// [`Progress`](Self::Progress), [`Message`](Self::Message), [`Warning`](Self::Warning), [`Thought`](Self::Thought) and
/// [`Text`](Self::Text); then exactly one event that [ends](Self::is_end) it. Events of different commands do not mix.
/// The last event is [`Closed`](Self::Closed).
#[derive(Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// The thread begins the command.
    Started,
    /// `done` of `total` steps of a stage are done, as reported to [`Observer::progress`].
    Progress {
        /// The stage.
        stage: Stage,
        /// The steps that are done.
        done: u64,
        /// All steps of the stage.
        total: u64,
    },
    /// A line of information, for display.
    Message(String),
    /// A warning for the user. The work goes on.
    Warning(String),
    /// The next piece of a thought before an answer, valid UTF-8.
    Thought(String),
    /// The next piece of an answer, valid UTF-8.
    Text(String),

    /// Ends [`Ticket::OPENING`]: the session is open.
    Loaded(Loaded),
    /// Ends a command that adds a video.
    VideoReady(Box<VideoReport>),
    /// Ends a command that plans a video.
    Planned(Box<VideoPlan>),
    /// Ends a question. If it was cancelled, [`Answer::stop`] says so.
    Answered(Box<Answer>),
    /// Ends any other command.
    Done,
    /// Ends a command that failed, with [`Error::Cancelled`] if it was cancelled. The session is as it was before the
    /// command. If the opening failed, there is no session, and the thread ends.
    Failed(Error),
    /// Ends a command that panicked, and the thread, because the state of the session is unknown.
    Panicked(String),

    /// The thread ends, and the session is freed. Has the ticket of the last command.
    Closed,
}

impl EventKind {
    /// Whether it is the last event of its command, except for [`Closed`](Self::Closed).
    pub fn is_end(&self) -> bool {
        match self {
            Self::Started
            | Self::Progress { .. }
            | Self::Message(_)
            | Self::Warning(_)
            | Self::Thought(_)
            | Self::Text(_) => false,
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

/// What opening the session loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The language model, which other workers and sessions can share
    /// ([`WorkerBuilder::model`](super::WorkerBuilder::model)). Its weights are freed with its last clone.
    pub model: Model,
    /// The prompt layout.
    pub layout: &'static str,
    /// How long loading took.
    pub took: Duration,
}

/// A function to call after every event.
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

    /// Sends an event. Does nothing if the receiver was dropped.
    pub fn send(&self, ticket: Ticket, kind: EventKind) {
        let _ = self.events.send(Event { ticket, kind });
        if let Some(wake) = &self.on_event {
            // A panic in the program's function must not end the work.
            let _ = catch_unwind(AssertUnwindSafe(|| wake()));
        }
    }
}

/// Sends what a command reports as events.
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

    fn thought(&mut self, piece: &str) {
        self.sender.send(self.ticket, EventKind::Thought(piece.to_owned()));
    }

    fn text(&mut self, piece: &str) {
        self.sender.send(self.ticket, EventKind::Text(piece.to_owned()));
    }
}
