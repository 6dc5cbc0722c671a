//! `sharpv watch`: live video, and questions about it.

mod camera;
mod report;

use crate::args::{WatchArgs, WhenAt};
use crate::interrupt::Interrupts;
use crate::options::thinking_or_off;
use crate::output::AnswerWriter;
use crate::screen::{Screen, Watch};
use crate::{ask, session};
use camera::{Camera, Next, Pace};
use report::{Asked, End, Pulse, Reply, Report};
use sharpv::chat::{
    AskAt, Condition, EvictParams, LiveParams, LivePolicy, LiveSession, LiveState, Pushed, Search, SessionParams,
    StopReason, Trigger,
};
use sharpv::runtime::CancelToken;
use sharpv::video::Frame;
use std::collections::VecDeque;
use std::io::{self, BufRead, IsTerminal};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The second Ctrl-C ends the program at once.
const PATIENCE: u32 = 2;

/// How long to wait for a frame before checking for questions again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The beginning of a typed line that asks for a search.
const SEARCH: &str = "/search";

/// Seconds of a lasting change after which the model is asked.
const WHEN_PATIENCE_S: f64 = 10.0;

pub fn run(args: &WatchArgs, mut screen: Screen) -> anyhow::Result<()> {
    let interrupts = Interrupts::install(PATIENCE)?;
    let input = camera::input(&args.source, args.follow)?;
    let name = input.name();
    let is_file = matches!(input, sharpv::video::LiveInput::File(_));
    let question = args.question.as_deref().map(ask::question).transpose()?;
    let params = args.session_params(interrupts.cancel_token())?;
    let live = LiveParams { name: name.display().to_string(), ..args.live_params() };
    let files = args.model.files(&mut screen)?;
    if args.model.uses_default() && !args.json {
        screen.note(&session::about_default_model(&files));
    }
    let session = session::load(&files, SessionParams { evict: EvictParams::off(), ..params }, None, &mut screen)?;
    let pace =
        Pace { fps: args.fps, realtime: is_file && args.realtime, waits: args.no_drop || (is_file && !args.realtime) };
    let camera = Camera::start(input, pace)?;
    let watcher = Watcher {
        live: LiveSession::over(session, live)?,
        camera,
        report: Report::new(args.json),
        trigger: args.trigger(),
        novelty: 0.0,
        conditions: args.when.iter().map(|text| Condition::new(text)).collect(),
        question,
        typed: if args.source == "-" { None } else { Some(lines()?) },
        waiting: VecDeque::new(),
        pulse: Pulse::default(),
        next_s: 0.0,
        since: Instant::now(),
        cancel: interrupts.cancel_token(),
        args,
    };
    let is_typed = watcher.typed.is_some() && io::stdin().is_terminal();
    if is_typed && !args.json {
        screen.note(match args.recall {
            Some(_) => "Type a question at any time; /search QUESTION searches what is remembered. Ctrl-C ends.",
            None => "Type a question at any time. Ctrl-C ends.",
        });
    }
    let _work = interrupts.work();
    let result = watcher.watch(&name, &mut screen);
    screen.clear();
    result
}

struct Watcher<'a> {
    live: LiveSession,
    camera: Camera,
    report: Report,
    conditions: Vec<Condition>,
    /// When the conditions are checked.
    trigger: Trigger,
    /// The share of the last frame that was new.
    novelty: f32,
    /// The question to ask repeatedly, or at the end.
    question: Option<String>,
    /// Lines from stdin, unless that is the video.
    typed: Option<Receiver<String>>,
    /// Typed questions that wait for the first frame.
    waiting: VecDeque<String>,
    pulse: Pulse,
    /// The time in the video at which the question is asked next.
    next_s: f64,
    /// When the first frame arrived, or the wait for it began.
    since: Instant,
    cancel: CancelToken,
    args: &'a WatchArgs,
}

impl Watcher<'_> {
    fn watch(mut self, name: &std::path::Path, screen: &mut Screen) -> anyhow::Result<()> {
        let (mut reason, error) = loop {
            match self.step(screen) {
                Ok(None) => {}
                Ok(Some(reason)) => break (reason, None),
                Err(error) if is_cancelled(&error) => break (End::Stopped, None),
                Err(error) => break (End::Failed, Some(error)),
            }
        };
        screen.clear();
        for warning in self.camera.warnings() {
            self.report.warning(&warning, screen)?;
        }
        if matches!(reason, End::Source | End::Time) && self.trigger.end() {
            match self.look(screen) {
                Err(error) if is_cancelled(&error) => reason = End::Stopped,
                looked => looked?,
            }
        }
        let (has_video, is_whole) = (self.live.state().held > 0, matches!(reason, End::Source | End::Time));
        let last = self.question.clone().filter(|_| has_video && is_whole && self.args.every.is_none());
        if let Some(question) = last {
            match self.ask(&question, Asked::End, self.args.recall.is_some(), screen) {
                Err(error) if is_cancelled(&error) => reason = End::Stopped,
                asked => asked?,
            }
        }
        if has_video || error.is_none() {
            self.report.end(reason, screen, self.state())?;
        }
        match error {
            Some(error) => Err(error),
            None if !has_video && reason == End::Source && self.live.state().pending == 0 => {
                Err(sharpv::Error::NoFrames { path: name.to_owned() }.into())
            }
            None => Ok(()),
        }
    }

    /// Takes a frame or answers a question. Returns why the watch is over, if it is.
    fn step(&mut self, screen: &mut Screen) -> anyhow::Result<Option<End>> {
        if self.cancel.is_cancelled() {
            return Ok(Some(End::Stopped));
        }
        self.waiting.extend(self.typed.iter().flat_map(Receiver::try_iter));
        if self.live.state().held > 0
            && let Some(question) = self.waiting.pop_front()
        {
            self.answer(&question, screen)?;
            return Ok(None);
        }
        let (frame, decoded) = match self.camera.next(LOOK_EVERY)? {
            Next::Frame(frame, decoded) => (frame, decoded),
            Next::End => return Ok(Some(End::Source)),
            Next::Nothing => {
                let is_over = self.args.for_s.is_some_and(|s| self.since.elapsed().as_secs_f64() >= s);
                return Ok(is_over.then_some(End::Time));
            }
        };
        if self.args.for_s.is_some_and(|s| frame.time_s >= s) {
            return Ok(Some(End::Time));
        }
        if self.live.state().frames == 0 {
            self.since = Instant::now();
            // Only requested numbers are checked; the default is lowered if necessary.
            if [self.args.window, self.args.memory, self.args.recall].iter().any(Option::is_some) {
                self.live.check_fit((frame.width, frame.height))?;
            }
        }
        let pushed = self.push(&frame, screen)?;
        self.pulse.dropped = self.camera.dropped();
        self.pulse.lag_s = decoded.elapsed().as_secs_f64();
        self.pulse.max_lag_s = self.pulse.max_lag_s.max(self.pulse.lag_s);
        screen.status(&report::status(&self.live.state(), &self.pulse));
        if let Some(pushed) = pushed {
            self.novelty = pushed.novelty;
            if self.trigger.push(&pushed) {
                self.look(screen)?;
            }
        }
        if let (Some(every), Some(question)) = (self.args.every, self.question.clone())
            && frame.time_s >= self.next_s
            && self.live.state().held > 0
        {
            while self.next_s <= frame.time_s {
                self.next_s += every;
            }
            self.ask(&question, Asked::Every, false, screen)?;
        }
        Ok(None)
    }

    fn push(&mut self, frame: &Frame, screen: &mut Screen) -> anyhow::Result<Option<Pushed>> {
        let mut warnings = Warnings::default();
        let pushed = self.live.push(frame, &mut warnings);
        for warning in warnings.0 {
            self.report.warning(&warning, screen)?;
        }
        Ok(pushed?)
    }

    /// Checks the conditions.
    fn look(&mut self, screen: &mut Screen) -> anyhow::Result<()> {
        if self.conditions.is_empty() || self.live.state().held == 0 {
            return Ok(());
        }
        screen.busy("checking");
        let mut conditions = std::mem::take(&mut self.conditions);
        let mut looked = Ok(());
        for condition in &mut conditions {
            looked = match self.live.is_so(condition.question(), &mut ()) {
                Ok(is_so) if condition.now(is_so) => {
                    screen.clear();
                    self.report.event(condition.text(), self.novelty, self.state())
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if looked.is_err() {
                break;
            }
        }
        self.conditions = conditions;
        looked
    }

    /// Answers a typed line.
    fn answer(&mut self, line: &str, screen: &mut Screen) -> anyhow::Result<()> {
        let searched =
            line.strip_prefix(SEARCH).filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        let Some(question) = searched.map(str::trim) else { return self.ask(line, Asked::Typed, false, screen) };
        let warning = if question.is_empty() {
            "/search requires a question: /search Was there a dog?"
        } else if self.args.recall.is_none() {
            "/search: nothing is remembered; start sharpv with --recall 64, for example"
        } else {
            return self.ask(question, Asked::Typed, true, screen);
        };
        self.report.warning(warning, screen)
    }

    /// Searches the remembered frames for `question`, for the next answer.
    fn search(&mut self, question: &str, screen: &mut Screen) -> anyhow::Result<Option<Search>> {
        let cancel = self.cancel.clone();
        let searched = self.live.search(question, &mut Watch::new(screen, None, &cancel));
        screen.clear();
        let search = searched?;
        if !self.args.json {
            screen.note(&match &search {
                Some(search) => session::about_search(search, "the frames held"),
                None => "too few frames are remembered yet to search: answered from the frames held".to_owned(),
            });
        }
        Ok(search)
    }

    fn ask(&mut self, question: &str, asked: Asked, searches: bool, screen: &mut Screen) -> anyhow::Result<()> {
        let start = Instant::now();
        let search = if searches { self.search(question, screen)? } else { None };
        let streams = asked == Asked::Typed && !self.args.json;
        let cancel = self.cancel.clone();
        screen.busy("reading the question");
        let mut watch = Watch::new(screen, streams.then(AnswerWriter::new), &cancel);
        let asked_of = search.as_ref().map_or_else(|| question.into(), |search| search.question(question));
        let result = self.live.ask(asked_of, &mut watch);
        watch.finish(result.is_ok())?;
        let answer = result?;
        let latency_ms = start.elapsed().as_secs_f64() * 1000.0;
        let reasoning = answer.reasoning.as_deref();
        let reply = Reply { question, answer: &answer.answer, reasoning, asked, search, latency_ms };
        self.report.answer(reply, streams, self.state())?;
        if answer.stop == StopReason::Cancelled {
            return Err(sharpv::Error::Cancelled.into());
        }
        Ok(())
    }

    fn state(&self) -> (LiveState, Pulse) {
        (self.live.state(), self.pulse)
    }
}

fn is_cancelled(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(sharpv::Error::Cancelled))
}

/// Collects the warnings of a push.
#[derive(Debug, Default)]
struct Warnings(Vec<String>);

impl sharpv::Observer for Warnings {
    fn warning(&mut self, message: &str) {
        self.0.push(message.to_owned());
    }
}

/// The non-empty lines of stdin, read by a detached thread.
fn lines() -> io::Result<Receiver<String>> {
    let (give, given) = channel();
    thread::Builder::new().name("questions".into()).spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if !line.trim().is_empty() && give.send(line.trim().to_owned()).is_err() {
                break;
            }
        }
    })?;
    Ok(given)
}

impl WatchArgs {
    fn session_params(&self, cancel: CancelToken) -> anyhow::Result<SessionParams> {
        let params = SessionParams {
            prune: self.prune.params(self.sampler.seed())?,
            encode: self.encode.params()?,
            sampler: self.sampler.params()?,
            n_predict: self.sampler.n_predict(),
            thinking: self.sampler.thinking()?,
            ..self.model.session_params(cancel)?
        };
        Ok(SessionParams { thinking: thinking_or_off(&params), ..params })
    }

    fn trigger(&self) -> Trigger {
        let at = match self.when_at {
            WhenAt::Change => AskAt::EachChange,
            WhenAt::End => AskAt::ChangeEnds { patience_s: WHEN_PATIENCE_S },
        };
        Trigger::new(at, self.when_change)
    }

    fn live_params(&self) -> LiveParams {
        let policy = match (self.memory, self.window) {
            (Some(tokens), _) => match LivePolicy::memory(tokens as usize) {
                LivePolicy::Memory { tokens, recent, .. } => {
                    LivePolicy::Memory { tokens, recent, half_life_s: self.half_life }
                }
                other => other,
            },
            (None, Some(frames)) => LivePolicy::Window { frames: frames as usize },
            (None, None) => LivePolicy::default(),
        };
        let recall = self.recall.unwrap_or(0) as usize;
        LiveParams { policy, fps: self.fps, recall, ..LiveParams::default() }
    }
}
