//! A worker: a session on a thread of its own, which takes commands and sends events.
//!
//! `queue` is what the handle and the thread share: the commands that wait, the command that runs, and what is
//! cancelled. `events` is what the thread sends. `run` is the thread.

mod events;
mod queue;
mod run;

pub use events::{Event, EventKind, Loaded, Ticket};

use super::{AnswerStream, Session};
use crate::chat::params::SessionParams;
use crate::chat::sampling::VideoOptions;
use crate::chat::search::Question;
use crate::error::{Error, Result};
use crate::models::ModelFiles;
use crate::observer::Observer;
use crate::runtime::{CancelToken, Model};
use crate::video::Source;
use events::{EventSender, OnEvent};
use queue::Queue;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

/// A [`Session`] on a thread of its own, for programs whose threads must not block, such as servers and programs with
/// windows.
///
/// Each method that queues a command returns at once, with a [`Ticket`]. The channel that [`spawn`](Self::spawn)
/// returns receives the events of all commands, in the order of the commands: see [`EventKind`]. An error ends its
/// command only: the session stays as it was before the command, and the next command runs.
///
/// The handle may be used from any thread. Dropping it cancels all commands and waits for the thread, also until the
/// model is loaded. [`detach`](Self::detach) does not wait.
///
/// Commands are independent: if a video cannot be read, the question after it is asked without the video. To prevent
/// that, ask after [`EventKind::VideoReady`].
///
/// ```no_run
/// use sharpv::{EventKind, SessionParams, VideoOptions, Worker};
///
/// let files = sharpv::models::resolve("smol", None, &[])?;
/// let (worker, events) = Worker::spawn(files, SessionParams::default());
/// worker.add_video("clip.mp4", VideoOptions::default());
/// worker.ask("What is in the video?"); // `worker.cancel()` would stop what is not done yet
/// for event in events {
///     match event.kind {
///         EventKind::Progress { stage, done, total } => println!("{stage:?}: {done} of {total}"),
///         EventKind::Text(piece) => print!("{piece}"),
///         EventKind::Answered(_) => worker.close(), // so that the events end
///         EventKind::Failed(error) => println!("{error}"),
///         _ => {}
///     }
/// }
/// # Ok::<(), sharpv::Error>(())
/// ```
#[derive(Debug)]
pub struct Worker {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// Sets up a [`Worker`]: made by [`Worker::builder`] and [`Worker::opened_by`].
#[must_use = "nothing runs before `spawn`"]
pub struct WorkerBuilder {
    opening: Opening,
    cancel: CancelToken,
    on_event: Option<OnEvent>,
}

/// A function that opens the session on the thread.
type OpenedBy = Box<dyn FnOnce(&mut dyn Observer) -> Result<Session> + Send>;

/// How the thread opens its session.
enum Opening {
    Files(Box<(ModelFiles, SessionParams)>, Option<Model>),
    By(OpenedBy),
}

impl Opening {
    fn open(self, observer: &mut dyn Observer) -> Result<Session> {
        match self {
            Self::Files(it, model) => {
                let (files, params) = *it;
                Session::load_with(model, &files, params, observer)
            }
            Self::By(open) => open(observer),
        }
    }
}

impl Worker {
    /// Starts a thread that opens a session. Commands can be queued at once; they wait until the model is loaded.
    ///
    /// [`SessionParams::cancel`] cancels the thread's work. The thread resets it for every command.
    pub fn spawn(files: ModelFiles, params: SessionParams) -> (Self, Receiver<Event>) {
        Self::builder(files, params).spawn()
    }

    /// As [`spawn`](Self::spawn), with more settings.
    pub fn builder(files: ModelFiles, params: SessionParams) -> WorkerBuilder {
        let cancel = params.cancel.clone();
        WorkerBuilder { opening: Opening::Files(Box::new((files, params)), None), cancel, on_event: None }
    }

    /// Returns a builder of a worker that opens its session with `open`, on the thread: for a model that is downloaded
    /// first, or a session that is set up before the first command. What `open` reports to its observer becomes events
    /// of [`Ticket::OPENING`].
    ///
    /// `cancel` must be the session's [`SessionParams::cancel`]. `open` may check it, to end early.
    pub fn opened_by(
        cancel: CancelToken,
        open: impl FnOnce(&mut dyn Observer) -> Result<Session> + Send + 'static,
    ) -> WorkerBuilder {
        WorkerBuilder { opening: Opening::By(Box::new(open)), cancel, on_event: None }
    }

    /// Queues [`Session::add_video`], which ends with [`EventKind::VideoReady`].
    pub fn add_video(&self, source: impl Into<Source>, options: VideoOptions) -> Ticket {
        let source = source.into();
        self.command(move |session, observer| {
            session.add_video(source, &options, observer).map(Box::new).map(EventKind::VideoReady)
        })
    }

    /// Queues [`Session::plan_video`], which ends with [`EventKind::Planned`].
    pub fn plan_video(&self, source: impl Into<Source>, options: VideoOptions) -> Ticket {
        let source = source.into();
        self.command(move |session, _| session.plan_video(source, &options).map(Box::new).map(EventKind::Planned))
    }

    /// Queues [`Session::ask`], which sends the answer as [`EventKind::Text`], a thought before it as
    /// [`EventKind::Thought`], and ends with [`EventKind::Answered`].
    ///
    /// Cancelling it during the answer ends it with [`EventKind::Answered`] and the answer so far; before the answer,
    /// with [`EventKind::Failed`].
    pub fn ask(&self, question: impl Into<Question<'static>>) -> Ticket {
        let question = question.into();
        self.command(move |session, observer| session.ask(question, observer).map(Box::new).map(EventKind::Answered))
    }

    /// Queues any other work with the session, such as [`Session::settle`] while the user reads, a change of settings,
    /// or [`Session::save`]. It ends with [`EventKind::Done`]. A panic in `work` ends the thread
    /// ([`EventKind::Panicked`]).
    pub fn run(&self, work: impl FnOnce(&mut Session, &mut dyn Observer) -> Result<()> + Send + 'static) -> Ticket {
        self.command(move |session, observer| work(session, observer).map(|()| EventKind::Done))
    }

    fn command(
        &self,
        work: impl FnOnce(&mut Session, &mut dyn Observer) -> Result<EventKind> + Send + 'static,
    ) -> Ticket {
        self.queue.push(Box::new(work))
    }

    /// Cancels one command: the one that runs, or else the next. Later commands are not cancelled. Does nothing if all
    /// are done.
    ///
    /// Before the session is open, this cancels the opening: loading goes on, but its session is dropped.
    pub fn cancel(&self) {
        self.queue.cancel_oldest();
    }

    /// Cancels the command of this ticket, running or waiting. Does nothing if it is done.
    pub fn cancel_ticket(&self, ticket: Ticket) {
        self.queue.cancel(ticket);
    }

    /// Cancels the command that runs and all commands that wait.
    pub fn cancel_all(&self) {
        self.queue.cancel_all();
    }

    /// Whether all commands are done.
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// Cancels all commands and ends the thread, without waiting for it. Its last event is [`EventKind::Closed`].
    /// Commands queued later fail with [`Error::Cancelled`] while the thread still runs, and send no event afterwards.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Drops the handle, which cancels all commands, but does not wait for the thread.
    ///
    /// If the program ends while the thread still computes, [`runtime::exit_now`](crate::runtime::exit_now) ends it
    /// without running llama.cpp's destructors.
    pub fn detach(mut self) {
        self.thread = None;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.close();
        // A command that holds the handle may drop it on the thread itself.
        if let Some(thread) = self.thread.take().filter(|it| it.thread().id() != thread::current().id()) {
            // A panic was already sent as an event.
            let _ = thread.join();
        }
    }
}

impl WorkerBuilder {
    /// Sets a function that the worker's thread calls after every event, to wake an event loop that reads the channel.
    /// It should return at once.
    pub fn on_event(mut self, wake: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(wake));
        self
    }

    /// Sets a language model that is loaded already ([`Loaded::model`]), so that several workers share its weights. The
    /// model file of [`Worker::builder`] is then not read. Has no effect with [`Worker::opened_by`].
    pub fn model(mut self, model: Model) -> Self {
        if let Opening::Files(_, shared) = &mut self.opening {
            *shared = Some(model);
        }
        self
    }

    /// Starts the thread. If the system cannot start one, [`Ticket::OPENING`] fails with [`Error::NoThread`].
    pub fn spawn(self) -> (Worker, Receiver<Event>) {
        let Self { opening, cancel, on_event } = self;
        let (events, receiver) = channel();
        let queue = Arc::new(Queue::new(cancel));
        let sender = EventSender::new(events, on_event);
        let (of_thread, its_sender) = (Arc::clone(&queue), sender.clone());
        let start = move || run::run(opening, &of_thread, &its_sender);
        let started = thread::Builder::new().name("sharpv-worker".into()).spawn(start);
        let thread = started.map_err(|error| run::no_thread(error, &queue, &sender)).ok();
        (Worker { queue, thread }, receiver)
    }
}

impl std::fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerBuilder").finish_non_exhaustive()
    }
}

/// Programs with threads rely on these traits.
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_shared<T: Send + Sync + 'static>() {}
    is_send::<Session>();
    is_send::<AnswerStream<'static>>();
    is_send::<Event>();
    is_shared::<Worker>();
    is_shared::<Model>();
    is_shared::<CancelToken>();
    is_shared::<Error>();
};
