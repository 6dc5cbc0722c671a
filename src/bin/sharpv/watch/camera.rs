//! A thread that decodes frames as they arrive. A slower consumer gets the newest one.

use sharpv::video::{Frame, LiveInput, LiveSource};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A frame may be this much earlier than requested.
const EARLY_S: f64 = 0.001;

/// How often a wait checks whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How fast frames are taken.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Frames per second of video.
    pub fps: f64,
    /// Frames are not given before their time, as if the file were a camera.
    pub realtime: bool,
    /// The source waits for the consumer, and no frame is dropped.
    pub waits: bool,
}

/// A thread that decodes.
pub struct Camera {
    shared: Arc<Shared>,
}

/// What the thread and the handle share.
#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct Slot {
    /// The newest frame, and when it was decoded; no time if the source waits.
    frame: Option<(Frame, Option<Instant>)>,
    dropped: u64,
    end: Option<sharpv::Result<()>>,
    warnings: Vec<String>,
}

/// The next event.
pub enum Next {
    /// A frame, and when it was decoded; now, if the source waits.
    Frame(Frame, Instant),
    /// Nothing arrived in time.
    Nothing,
    /// The source has ended.
    End,
}

impl Camera {
    /// Starts the thread. [`next`](Self::next) returns the error of a source that cannot be opened.
    pub fn start(input: LiveInput, pace: Pace) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("camera".into()).spawn(move || {
            let end = theirs.film(input, pace);
            theirs.slot().end = Some(end);
            theirs.changed.notify_all();
        })?;
        Ok(Self { shared })
    }

    /// Returns the newest frame; waits for it at most `patience`.
    pub fn next(&self, patience: Duration) -> sharpv::Result<Next> {
        let slot = self.shared.slot();
        let is_empty = |slot: &mut Slot| slot.frame.is_none() && slot.end.is_none();
        let waited = self.shared.changed.wait_timeout_while(slot, patience, is_empty);
        let (mut slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some((frame, decoded)) = slot.frame.take() {
            self.shared.changed.notify_all();
            return Ok(Next::Frame(frame, decoded.unwrap_or_else(Instant::now)));
        }
        match slot.end.replace(Ok(())) {
            None => {
                slot.end = None;
                Ok(Next::Nothing)
            }
            Some(end) => end.map(|()| Next::End),
        }
    }

    /// The number of frames that newer ones replaced before they were taken.
    pub fn dropped(&self) -> u64 {
        self.shared.slot().dropped
    }

    /// Warnings about the source, available once it has ended.
    pub fn warnings(&self) -> Vec<String> {
        self.shared.slot().warnings.clone()
    }
}

impl Drop for Camera {
    /// Does not wait for the thread, as a pipe may be silent forever.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Decodes frames until the source ends or the consumer stops.
    fn film(self: &Arc<Self>, input: LiveInput, pace: Pace) -> sharpv::Result<()> {
        let asked = Arc::clone(self);
        let mut source = LiveSource::open(input, move || asked.is_stopped())?;
        let (start, mut wanted_s) = (Instant::now(), 0.0);
        let filmed = loop {
            let frame = match source.next_from(wanted_s - EARLY_S) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            while wanted_s <= frame.time_s + EARLY_S {
                wanted_s += 1.0 / pace.fps;
            }
            if pace.realtime {
                self.sleep_until(start + Duration::from_secs_f64(frame.time_s));
            }
            if !self.give(frame, pace.waits) {
                break Ok(());
            }
        };
        self.slot().warnings = source.warnings();
        filmed
    }

    /// Puts a frame into the slot: if `waits`, once that is empty, else at once. Returns false if the consumer stopped.
    fn give(&self, frame: Frame, waits: bool) -> bool {
        let mut slot = self.slot();
        while waits && slot.frame.is_some() && !self.is_stopped() {
            let waited = self.changed.wait_timeout(slot, LOOK_EVERY);
            (slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let decoded = (!waits).then(Instant::now);
        slot.dropped += u64::from(slot.frame.replace((frame, decoded)).is_some());
        self.changed.notify_all();
        !self.is_stopped()
    }

    fn sleep_until(&self, moment: Instant) {
        while !self.is_stopped() {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

/// Determines what SOURCE on the command line is.
pub fn input(source: &str, follow: bool) -> anyhow::Result<LiveInput> {
    if source == "-" {
        return Ok(LiveInput::Reader("stdin".into(), Box::new(io::stdin())));
    }
    if LiveInput::is_address(source) {
        return Ok(LiveInput::Address(source.to_owned()));
    }
    let path = PathBuf::from(source);
    if is_camera(&path) {
        anyhow::bail!(
            "{source}: use the program ffmpeg to read a camera: ffmpeg -loglevel error -f v4l2 -i {source} -pix_fmt yuv420p -f yuv4mpegpipe - | sharpv watch - …"
        );
    }
    // Reports a wrong file before a model is loaded.
    let io_error = |source| sharpv::Error::Io { action: "opening the video", path: path.clone(), source };
    let file = std::fs::File::open(&path).map_err(io_error)?;
    let kind = file.metadata().map_err(io_error)?.file_type();
    if kind.is_dir() {
        anyhow::bail!("{source}: a folder is not live video; give it to `sharpv ask` or `chat`");
    }
    // A named pipe, or a shell's <(…).
    if !kind.is_file() {
        return Ok(LiveInput::Reader(source.to_owned(), Box::new(file)));
    }
    Ok(if follow { LiveInput::Growing(path) } else { LiveInput::File(path) })
}

/// Whether the path is a camera device on Linux.
fn is_camera(path: &std::path::Path) -> bool {
    path.parent() == Some(std::path::Path::new("/dev"))
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("video"))
}
