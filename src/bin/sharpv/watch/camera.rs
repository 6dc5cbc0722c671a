//! Frames on a thread of their own: it decodes as they come, and who is slower gets the newest.

use sharpv::video::{Frame, LiveInput, LiveSource};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// An image this much before its moment is taken for it.
const EARLY_S: f64 = 0.001;

/// How often a wait looks whether to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// At which pace frames are taken.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Frames for each second of video.
    pub fps: f64,
    /// Not before their time, as if the file were a camera.
    pub realtime: bool,
    /// The source waits for whoever takes the frames, and none is dropped.
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
    /// The newest frame, and when it was decoded, unless it has waited to be taken since.
    frame: Option<(Frame, Option<Instant>)>,
    dropped: u64,
    end: Option<sharpv::Result<()>>,
    warnings: Vec<String>,
}

/// What came next.
pub enum Next {
    /// A frame, and when it was there: of a source that waits, now.
    Frame(Frame, Instant),
    /// Nothing, in the time that was waited for it.
    Nothing,
    /// No more will come.
    End,
}

impl Camera {
    /// Starts the thread. What cannot be opened is told by [`next`](Self::next).
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

    /// The newest frame, waited for at most so long.
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

    /// Frames that came and went because newer ones came before they were taken.
    pub fn dropped(&self) -> u64 {
        self.shared.slot().dropped
    }

    /// What the source did wrong, once it has ended.
    pub fn warnings(&self) -> Vec<String> {
        self.shared.slot().warnings.clone()
    }
}

impl Drop for Camera {
    /// Does not wait for the thread: a pipe may be silent for ever.
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

    /// Takes frames until there are no more, or nobody wants them.
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

    /// Puts a frame into the slot, once it is empty or at once. Returns false if nobody wants it.
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

/// What SOURCE on the command line is.
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
            "{source}: a camera is read by the program ffmpeg: ffmpeg -loglevel error -f v4l2 -i {source} -pix_fmt yuv420p -f yuv4mpegpipe - | sharpv watch - …"
        );
    }
    // Told before a model is loaded.
    let io_error = |source| sharpv::Error::Io { action: "opening the video", path: path.clone(), source };
    let file = std::fs::File::open(&path).map_err(io_error)?;
    let kind = file.metadata().map_err(io_error)?.file_type();
    if kind.is_dir() {
        anyhow::bail!("{source}: a folder does not go on; give it to `sharpv ask` or `chat`");
    }
    // A named pipe, or what a shell makes of <(…).
    if !kind.is_file() {
        return Ok(LiveInput::Reader(source.to_owned(), Box::new(file)));
    }
    Ok(if follow { LiveInput::Growing(path) } else { LiveInput::File(path) })
}

/// Whether it is a device that is no file: a camera of Linux.
fn is_camera(path: &std::path::Path) -> bool {
    path.parent() == Some(std::path::Path::new("/dev"))
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("video"))
}
