//! An engine that uses a worker of sharpv.

use crate::engine::{Choice, Cost, Engine, Image, Progress, Request, Settings, Slice, Update};
use sharpv::chat::{Answer, EvictMode, EvictParams, StopReason, VideoPlan};
use sharpv::prune::{Budget, PruneParams};
use sharpv::video::{FrameSource, Sampling};
use sharpv::{
    CancelToken, Error, Event, EventKind, Observer, Result, Session, SessionParams, Stage, Ticket, VideoOptions,
    Worker, models,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// The most frames to take from a video.
const MAX_FRAMES: usize = 32;
/// The longest side of displayed images, in pixels.
const SHOWN: u32 = 512;
const N_PREDICT: usize = 256;
/// Assumed tokens of a question that is not known yet.
const QUESTION: usize = 32;
/// The size of a KV cache is a multiple of this many cells.
const CELL_STEP: usize = 256;

/// Wakes the window.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// An [`Engine`] that uses a [`Worker`].
pub struct WorkerEngine {
    wake: Wake,
    /// Updates that do not come from the worker: images, the file dialog, kept tokens.
    other: (Sender<Update>, Receiver<Update>),
    running: Option<Running>,
    /// The video whose frames were sent last.
    shown: Option<Video>,
}

/// A video, and the frames per second to take from it.
type Video = (PathBuf, f64);

/// A model that is loaded or being loaded.
struct Running {
    model: String,
    worker: Worker,
    events: Receiver<Event>,
    /// The video in the session.
    added: Option<Video>,
    /// A video that is being added, and the question that waits for it.
    adding: Option<(Ticket, Video, String)>,
    asked: Option<Ticket>,
    /// A plan that is being made, and what it is for.
    planning: Option<(Ticket, Video, Settings)>,
    /// The last plan.
    plan: Option<(Video, Box<VideoPlan>)>,
}

impl WorkerEngine {
    /// An engine that calls `wake` when there is an update to [receive](Engine::receive).
    pub fn new(wake: Wake) -> Self {
        Self { wake, other: channel(), running: None, shown: None }
    }

    /// Runs `work` on another thread, and sends its update, if any.
    fn beside(&self, work: impl FnOnce() -> Option<Update> + Send + 'static) {
        let (other, wake) = (self.other.0.clone(), Arc::clone(&self.wake));
        thread::spawn(move || {
            if let Some(update) = work() {
                // Fails only after the window is closed.
                let _ = other.send(update);
                wake();
            }
        });
    }

    fn pick(&self) {
        let dialog = rfd::AsyncFileDialog::new().set_title("A video").pick_file();
        self.beside(move || pollster::block_on(dialog).map(|file| Update::Picked(file.path().to_owned())));
    }

    fn load(&mut self, model: String) {
        // The previous model is freed when its thread ends.
        if let Some(before) = self.running.take() {
            before.worker.detach();
        }
        let cancel = CancelToken::new();
        let params = SessionParams {
            n_predict: N_PREDICT,
            // So that the share of kept tokens can change without encoding the video again.
            keep_unpruned: true,
            cancel: cancel.clone(),
            ..SessionParams::default()
        };
        let (name, wake) = (model.clone(), Arc::clone(&self.wake));
        let open = move |observer: &mut dyn Observer| open(&name, params, observer);
        let (worker, events) = Worker::opened_by(cancel, open).on_event(move || wake()).spawn();
        self.running =
            Some(Running { model, worker, events, added: None, adding: None, asked: None, planning: None, plan: None });
    }

    fn plan(&mut self, path: PathBuf, settings: Settings) {
        let video = (path, settings.fps);
        if self.shown.as_ref() != Some(&video) {
            let (path, fps) = video.clone();
            self.beside(move || match images(&path, fps) {
                Ok(images) => Some(Update::Images(path, images)),
                Err(error) => Some(Update::Trouble(error.to_string())),
            });
            self.shown = Some(video.clone());
        }
        let Some(running) = &mut self.running else { return };
        // A plan does not depend on the share of kept tokens.
        if let Some((_, plan)) = running.plan.as_ref().filter(|(planned, _)| *planned == video) {
            let _ = self.other.0.send(Update::Planned(video.0, settings, cost(plan, settings)));
            return;
        }
        // Another video, or other frames: the video in the session is useless, and would count in the plan.
        running.worker.run(|session, _| {
            session.clear();
            Ok(())
        });
        running.added = None;
        let ticket = running.worker.plan_video(&video.0, options(video.1));
        running.planning = Some((ticket, video, settings));
    }

    fn ask(&mut self, path: PathBuf, settings: Settings, question: String) {
        let Some(running) = &mut self.running else { return };
        let worker = &running.worker;
        let video = (path, settings.fps);
        let is_added = running.added.as_ref() == Some(&video);
        if !is_added {
            worker.run(|session, _| {
                session.clear();
                Ok(())
            });
        }
        let prune = prune(settings);
        worker.run(move |session, _| session.set_prune(prune));
        let evict = EvictParams {
            mode: settings.threshold.map(|_| EvictMode::Layers),
            threshold: settings.threshold,
            ..EvictParams::default()
        };
        worker.run(move |session, _| session.set_evict(evict));
        if is_added {
            self.ask_now(question);
        } else {
            // The question has to wait for the video.
            let ticket = worker.add_video(&video.0, options(video.1));
            running.added = None;
            running.adding = Some((ticket, video, question));
        }
    }

    /// Asks about the video in the session.
    fn ask_now(&mut self, question: String) {
        let Some(running) = &mut self.running else { return };
        let (other, wake) = (self.other.0.clone(), Arc::clone(&self.wake));
        running.worker.run(move |session, _| {
            let _ = other.send(Update::Kept(kept(session)));
            wake();
            Ok(())
        });
        running.asked = Some(running.worker.ask(question));
    }

    /// Cancelled work ends soon. The window does not wait for it; the next request does.
    fn stop(&mut self) {
        let Some(running) = &mut self.running else { return };
        running.worker.cancel_all();
        let (asked, adding) = (running.asked.take(), running.adding.take());
        if asked.is_some() || adding.is_some() {
            let _ = self.other.0.send(Update::Stopped);
        }
    }

    /// The update for an event.
    fn update(&mut self, event: Event) -> Option<Update> {
        let running = self.running.as_mut()?;
        let ticket = event.ticket;
        let is_adding = running.adding.as_ref().is_some_and(|adding| adding.0 == ticket);
        let is_asked = running.asked == Some(ticket);
        match event.kind {
            EventKind::Progress { stage, done, total } if is_adding || is_asked || ticket == Ticket::OPENING => {
                let done = if total == 0 { 0.0 } else { done as f32 / total as f32 };
                Some(Update::Progress(Progress { what: name(stage), done }))
            }
            EventKind::Message(text) | EventKind::Warning(text) => Some(Update::Note(text)),
            EventKind::Text(piece) if is_asked => Some(Update::Text(piece)),
            EventKind::Loaded(_) => Some(Update::Loaded(running.model.clone())),
            EventKind::VideoReady(_) => {
                let (_, video, question) = running.adding.take_if(|adding| adding.0 == ticket)?;
                running.added = Some(video);
                self.ask_now(question);
                None
            }
            EventKind::Planned(plan) => {
                let (_, video, settings) = running.planning.take_if(|planning| planning.0 == ticket)?;
                let update = Update::Planned(video.0.clone(), settings, cost(&plan, settings));
                running.plan = Some((video, plan));
                Some(update)
            }
            EventKind::Answered(answer) if is_asked => {
                running.asked = None;
                // Done while the user reads.
                running.worker.run(|session, observer| session.settle(observer));
                Some(Update::Answered(about(&answer)))
            }
            EventKind::Failed(error) => {
                running.adding.take_if(|_| is_adding);
                running.asked.take_if(|_| is_asked);
                running.planning.take_if(|planning| planning.0 == ticket);
                let was_opening = ticket == Ticket::OPENING;
                if was_opening {
                    self.running = None;
                }
                match error {
                    // For a question, this was sent at once.
                    Error::Cancelled => was_opening.then_some(Update::Stopped),
                    error if is_adding || is_asked || was_opening => Some(Update::Failed(error.to_string())),
                    error => Some(Update::Trouble(error.to_string())),
                }
            }
            EventKind::Panicked(said) => {
                self.running = None;
                Some(Update::Failed(format!("The engine has failed: {said}")))
            }
            _ => None,
        }
    }
}

impl Engine for WorkerEngine {
    fn models(&self) -> Vec<Choice> {
        let here: Vec<String> = models::installed().unwrap_or_default().into_iter().map(|files| files.name).collect();
        let known = models::known().iter().map(|model| model.name.to_owned());
        let of_hub = models::video_llms().iter().map(|model| model.repo.to_owned());
        known.chain(of_hub).map(|name| Choice { is_here: here.contains(&name), name }).collect()
    }

    fn send(&mut self, request: Request) {
        match request {
            Request::Pick => self.pick(),
            Request::Load(model) => self.load(model),
            Request::Plan(path, settings) => self.plan(path, settings),
            Request::Ask(path, settings, question) => self.ask(path, settings, question),
            Request::Stop => self.stop(),
        }
    }

    fn receive(&mut self) -> Option<Update> {
        loop {
            if let Ok(update) = self.other.1.try_recv() {
                return Some(update);
            }
            let event = self.running.as_ref()?.events.try_recv().ok()?;
            if let Some(update) = self.update(event) {
                return Some(update);
            }
        }
    }
}

impl Drop for WorkerEngine {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.worker.detach();
        }
    }
}

/// Downloads what is missing, and loads the model.
fn open(name: &str, params: SessionParams, observer: &mut dyn Observer) -> Result<Session> {
    let files = match models::obtain(name, None, &[], None, observer) {
        Err(Error::ModelNotPulled { name }) => models::pull(name, observer)?,
        files => files?,
    };
    params.cancel.check()?;
    Session::open(&files, params, observer)
}

/// Options with which the session takes the frames that [`images`] shows.
fn options(fps: f64) -> VideoOptions {
    VideoOptions { fps: Some(fps), max_frames: Some(MAX_FRAMES), ..VideoOptions::default() }
}

fn images(path: &Path, fps: f64) -> Result<Vec<Image>> {
    let source = FrameSource::open(path, &Sampling::fps(fps, MAX_FRAMES))?;
    source.map(|frame| frame.map(|frame| smaller(&frame))).collect()
}

/// Skips pixels; these images are for display only.
fn smaller(frame: &sharpv::video::Frame) -> Image {
    let step = frame.width.max(frame.height).div_ceil(SHOWN) as usize;
    let (width, height) = ((frame.width as usize).div_ceil(step), (frame.height as usize).div_ceil(step));
    let mut rgb = Vec::with_capacity(width * height * 3);
    for row in frame.rgb.chunks(3 * frame.width as usize).step_by(step) {
        row.chunks(3).step_by(step).for_each(|pixel| rgb.extend_from_slice(pixel));
    }
    Image { time_s: frame.time_s, width, height, rgb }
}

fn prune(settings: Settings) -> PruneParams {
    let budget = settings.keep.map_or(Budget::Adaptive, Budget::Keep);
    PruneParams { budget, ..PruneParams::default() }
}

fn kept(session: &Session) -> Vec<Slice> {
    let slices = session.kept_tokens(0);
    slices.map(|slice| Slice { time_s: slice.time_s, total: slice.total, kept: slice.kept.to_vec() }).collect()
}

fn cost(plan: &VideoPlan, settings: Settings) -> Cost {
    let need = plan.planned;
    let wanted =
        settings.keep.map_or(need.visual_tokens, |keep| (f64::from(keep) * need.visual_tokens as f64) as usize);
    let kept = plan.max_kept.unwrap_or(usize::MAX).min(wanted);
    let cells = need.prompt_tokens - need.visual_tokens + kept + QUESTION + N_PREDICT;
    let shortage = plan.shortage.iter().map(|short| format!("Less than requested: {short}."));
    Cost {
        frames: need.frames,
        visual_tokens: need.visual_tokens,
        kept,
        kv: plan.memory.kv_per_token * cells.next_multiple_of(CELL_STEP) as u64,
        free: plan.memory.free,
        fits: plan.fits,
        notes: shortage.chain(plan.changes.iter().cloned()).collect(),
    }
}

fn about(answer: &Answer) -> String {
    let (visual, kv) = (&answer.visual_tokens, &answer.kv);
    let stopped = if answer.stop == StopReason::Cancelled { "stopped; " } else { "" };
    format!(
        "{stopped}{} of {} visual tokens kept; first token after {:.1} s, {:.0} tokens/s; KV cache {:.1} MB, {} of {} layers evicted",
        visual.kept,
        visual.total,
        answer.timings_ms.ttft / 1000.0,
        answer.tokens_per_second(),
        kv.bytes as f64 / 1e6,
        kv.layers_evicted,
        kv.layers,
    )
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Download => "Downloading",
        Stage::Verify => "Verifying",
        Stage::Unpack => "Unpacking",
        Stage::Assemble => "Assembling",
        Stage::LoadModel => "Loading the language model",
        Stage::LoadVision => "Loading the vision encoder",
        Stage::Encode => "Watching the video",
        Stage::Prefill => "Reading the prompt",
        _ => "Working",
    }
}
