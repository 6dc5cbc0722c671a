//! A thread with a session: commands in, events out.
//!
//! `queue` is what the handle and the thread share: which commands wait, which one runs, and what shall stop. `events`
//! is what the thread tells. `run` is the thread.

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

/// A [`Session`] on a thread of its own, for programs whose threads must not wait: windows, servers.
///
/// Every method puts a command behind those that wait and returns at once, with a [`Ticket`]. What comes of commands
/// comes out of the channel that [`spawn`](Self::spawn) gives, in the order of the commands: see [`EventKind`]. An
/// error ends its command only; the session is then as it was before it, and the next command runs.
///
/// The handle may be used from any thread. Dropping it cancels everything, and waits for the thread: as long as a
/// cancel takes, and if the model is still being loaded, until that is done. [`detach`](Self::detach) does not wait.
///
/// Commands do not know of each other: a question behind a video that could not be read is asked without it. Where that
/// makes no sense, ask when [`EventKind::VideoReady`] has come.
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

/// Opens a session on the thread.
type OpenedBy = Box<dyn FnOnce(&mut dyn Observer) -> Result<Session> + Send>;

/// How the thread comes to its session.
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
    /// Starts a thread that opens a session. Commands can be given at once; they wait until the model is loaded.
    ///
    /// The thread stops its work by [`SessionParams::cancel`], which it clears for every command.
    pub fn spawn(files: ModelFiles, params: SessionParams) -> (Self, Receiver<Event>) {
        Self::builder(files, params).spawn()
    }

    /// As [`spawn`](Self::spawn), with more to choose.
    pub fn builder(files: ModelFiles, params: SessionParams) -> WorkerBuilder {
        let cancel = params.cancel.clone();
        WorkerBuilder { opening: Opening::Files(Box::new((files, params)), None), cancel, on_event: None }
    }

    /// A worker whose session is opened by `open`, on the thread: for a model that is fetched first, or a session that
    /// is set up before the first command. What `open` tells its observer becomes events of [`Ticket::OPENING`].
    ///
    /// `cancel` has to be the session's [`SessionParams::cancel`]. `open` may look at it, to end early.
    pub fn opened_by(
        cancel: CancelToken,
        open: impl FnOnce(&mut dyn Observer) -> Result<Session> + Send + 'static,
    ) -> WorkerBuilder {
        WorkerBuilder { opening: Opening::By(Box::new(open)), cancel, on_event: None }
    }

    /// As [`Session::add_video`]; ends with [`EventKind::VideoReady`].
    pub fn add_video(&self, source: impl Into<Source>, options: VideoOptions) -> Ticket {
        let source = source.into();
        self.command(move |session, observer| {
            session.add_video(source, &options, observer).map(Box::new).map(EventKind::VideoReady)
        })
    }

    /// As [`Session::plan_video`]; ends with [`EventKind::Planned`].
    pub fn plan_video(&self, source: impl Into<Source>, options: VideoOptions) -> Ticket {
        let source = source.into();
        self.command(move |session, _| session.plan_video(source, &options).map(Box::new).map(EventKind::Planned))
    }

    /// As [`Session::ask`]: the answer comes as [`EventKind::Text`] and ends with [`EventKind::Answered`].
    ///
    /// A cancel during the answer ends it with [`EventKind::Answered`] and what there is of it; before, it is
    /// [`EventKind::Failed`].
    pub fn ask(&self, question: impl Into<Question<'static>>) -> Ticket {
        let question = question.into();
        self.command(move |session, observer| session.ask(question, observer).map(Box::new).map(EventKind::Answered))
    }

    /// Does anything else with the session, such as [`Session::settle`] while the user reads, a change of its settings,
    /// or [`Session::save`]; ends with [`EventKind::Done`]. A panic in it ends the thread ([`EventKind::Panicked`]).
    pub fn run(&self, work: impl FnOnce(&mut Session, &mut dyn Observer) -> Result<()> + Send + 'static) -> Ticket {
        self.command(move |session, observer| work(session, observer).map(|()| EventKind::Done))
    }

    fn command(
        &self,
        work: impl FnOnce(&mut Session, &mut dyn Observer) -> Result<EventKind> + Send + 'static,
    ) -> Ticket {
        self.queue.push(Box::new(work))
    }

    /// Cancels one command: the one that runs, or the next if none does. The commands behind it are not touched. Does
    /// nothing if all are done.
    ///
    /// Until the session is opened, that is what runs. Loading is not interrupted, but nothing comes of it.
    pub fn cancel(&self) {
        self.queue.cancel_oldest();
    }

    /// Cancels the command of this ticket, whether it runs or waits. Does nothing if it is done.
    pub fn cancel_ticket(&self, ticket: Ticket) {
        self.queue.cancel(ticket);
    }

    /// Cancels the command that runs and all that wait.
    pub fn cancel_all(&self) {
        self.queue.cancel_all();
    }

    /// Whether every command has had its last event.
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// Cancels everything and lets the thread end, without waiting for it: its last event is [`EventKind::Closed`].
    /// Commands that come later fail with [`Error::Cancelled`] if the thread is still there,
    /// and get no event otherwise.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Gives the handle up: as dropping it, without waiting for the thread.
    ///
    /// Where a program ends while a thread still computes, [`runtime::exit_now`](crate::runtime::exit_now) keeps
    /// llama.cpp's destructors from running under it.
    pub fn detach(mut self) {
        self.thread = None;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.close();
        // The thread may drop its own handle, in a command that holds it.
        if let Some(thread) = self.thread.take().filter(|it| it.thread().id() != thread::current().id()) {
            // A panic was told as an event.
            let _ = thread.join();
        }
    }
}

impl WorkerBuilder {
    /// Calls `wake` behind every event, on the worker's thread: for an event loop that has to be woken to look at the
    /// channel. It should return at once.
    pub fn on_event(mut self, wake: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(wake));
        self
    }

    /// A language model that is loaded already, as [`Loaded::model`] gives it, so that several workers share its
    /// weights. The file that [`Worker::builder`] was given for it is then not looked at. Without effect on a session
    /// that is [opened otherwise](Worker::opened_by).
    pub fn model(mut self, model: Model) -> Self {
        if let Opening::Files(_, shared) = &mut self.opening {
            *shared = Some(model);
        }
        self
    }

    /// Starts the thread. If the system has none to give, the events say so.
    pub fn spawn(self) -> (Worker, Receiver<Event>) {
        let Self { opening, cancel, on_event } = self;
        let (events, receiver) = channel();
        let queue = Arc::new(Queue::new(cancel));
        let sender = EventSender::new(events, on_event);
        let (of_thread, tells) = (Arc::clone(&queue), sender.clone());
        let start = move || run::run(opening, &of_thread, &tells);
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

/// What a program with threads counts on.
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
