//! Frames from video files, animations, folders of numbered frames, still images and memory.
//!
//! [`FrameSource::open`] inspects a file or folder, decides at which moments to sample frames ([`Sampling`]), and then
//! yields one upright RGB [`Frame`] after the other. The number of frames, their times and their size are known before
//! the second frame is decoded, so a prompt can be planned first. Only a few frames are in memory at any time, however
//! long the video. [`FrameSource::decode_ahead`] decodes the next frames on another thread.
//! [`FrameSource::from_frames`] samples [`Frames`] in memory.
//!
//! - **Times** are in seconds since the first frame of the video stream, whatever timestamp the file starts with.
//! - **The frame at a moment** is the one that a player would show then: the last one whose timestamp is not later.
//! - **Pixels** are square and upright: sample aspect ratio and rotation metadata are applied. Transparent pixels
//!   become white.
//! - **Every frame has the size in [`VideoInfo`]**. An image of another size (after a change of resolution within a
//!   stream, or in a mixed folder) is fitted into it, with black borders.
//!
//! FFmpeg reads everything except still JPEG, PNG and WebP images and animated WebP, which the `image` crates read.
//! HEIC is not supported. Opening the first file turns off FFmpeg's log for the whole process, and limits each of
//! FFmpeg's allocations to 335 MB.
//!
//! **Only the file itself is read**, or the images of the folder. Playlists that name other files or addresses are
//! rejected. FFmpeg gets an open file, a list of video formats, and no protocol to open anything else with. Frames of
//! more than 67 million pixels in a video are rejected, and still images of more than 134 million.
//!
//! [`LiveSource`] reads live video from a pipe, a growing file or an address, and yields frames as they arrive. Only it
//! opens addresses, and only [`LiveInput::Address`].
//!
//! [`VideoWriter`] writes a video with FFmpeg's encoders.
//!
//! Not supported: deinterlacing, tone mapping of HDR, the alpha layer of VP8, VP9 and AVIF, and tiled AVIF images.

#![forbid(unsafe_code)]

mod ahead;
mod ffmpeg;
mod folder;
mod forward;
mod frame;
mod heif;
mod image_file;
mod limits;
mod live;
mod memory;
mod sampling;
mod sniff;
mod source;
mod spread;
mod stop;
mod survey;
mod webp;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

use ahead::Ahead;
pub use ffmpeg::VideoWriter;
pub use frame::Frame;
pub use live::{LiveInput, LiveSource};
pub use memory::Frames;
pub(crate) use memory::check_image;
pub(crate) use sampling::Plan;
pub use sampling::{Rate, Sampling};
use sniff::Content;
pub use source::Source;
pub use spread::{Rounding, Spread};
use stop::Stop;
pub use survey::SurveyReport;
pub(crate) use survey::{Segments, Survey, Thumbnail};

/// The kind of a source of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Kind {
    /// A video file.
    Video,
    /// An animated GIF, PNG, WebP or AVIF.
    Animation,
    /// A folder with one image per frame.
    FrameFolder,
    /// A single image: one frame at 0 s.
    Image,
    /// [`Frames`] in memory.
    Frames,
}

/// The properties of a source of frames.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct VideoInfo {
    /// The file or folder, or the name of frames in memory.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// The kind of source.
    pub kind: Kind,
    /// Width in pixels, as displayed: with sample aspect ratio and rotation applied.
    pub width: u32,
    /// Height in pixels, as displayed.
    pub height: u32,
    /// Length of the video stream in seconds; `None` for a still image.
    pub duration_s: Option<f64>,
    /// Average frames per second; `None` if unknown, and for a still image.
    pub fps: Option<f64>,
    /// Number of frames, if the file states it or counting was cheap.
    pub n_frames: Option<u64>,
    /// FFmpeg's name for the container (`matroska,webm`); `folder` or `memory`.
    pub container: String,
    /// FFmpeg's name for the codec (`h264`, `png`, `rawvideo`).
    pub codec: String,
}

/// Writes a path, with replacement characters for bytes that are not Unicode.
fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Yields the frames that a [`Sampling`] selects, in order of time.
///
/// The iterator ends early if the file turns out to be damaged or cut off. [`FrameSource::warnings`] then reports it.
///
/// ```
/// use sharpv::video::{FrameSource, Sampling};
///
/// # let folder = tempfile::tempdir()?;
/// # for i in 0..20 {
/// #     image::RgbImage::new(32, 24).save(folder.path().join(format!("{i}.png")))?;
/// # }
/// # let path = folder.path();
/// let mut source = FrameSource::open(path, &Sampling::uniform(8))?;
/// assert_eq!((source.planned_times().len(), source.info().width, source.info().height), (8, 32, 24));
/// for frame in &mut source {
///     let frame = frame?;
///     println!("{:.1} s: {} bytes", frame.time_s, frame.rgb.len());
/// }
/// assert!(source.warnings().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FrameSource {
    info: VideoInfo,
    planner: Planner,
    times: Vec<f64>,
    sampled_fps: Option<f64>,
    images: Box<dyn Images>,
    /// The first frame. `open` decodes it, because only decoding proves that there is one.
    first: Option<Frame>,
    n_yielded: usize,
    ended: bool,
    warnings: Vec<String>,
    /// Stops `images`.
    stop: Stop,
}

/// What [`FrameSource`] needs of each kind of source.
trait Images: Send {
    /// The image that is shown at `time_s`, or `None` if the images end before. Called with ascending times.
    fn at(&mut self, time_s: f64) -> Result<Option<Frame>>;

    /// Number of images decoded so far, including those that were not returned.
    fn frames_decoded(&self) -> u64;

    /// Problems that did not stop the decoding. Called after the last image.
    fn warnings(&mut self) -> Vec<String>;
}

/// An opened source, as the module of each kind of source returns it.
struct Opened {
    /// Without width and height, which are those of the first decoded frame.
    info: VideoInfo,
    planner: Planner,
    images: Box<dyn Images>,
    warnings: Vec<String>,
}

#[cfg(test)]
std::thread_local! {
    static OPENED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many sources this thread has opened.
#[cfg(test)]
pub(crate) fn opened() -> usize {
    OPENED.get()
}

/// Plans which frames to take, for any sampling: from what was learned of the frames' times when the file was opened.
type Planner = Box<dyn Fn(&Sampling) -> Result<Plan> + Send + Sync>;

impl FrameSource {
    /// Opens the file or folder at `path`, and plans which frames to take. Decodes the first of them.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`]: the path is missing or unreadable.
    /// - [`Error::Unusable`]: the path is a URL or a playlist, for example.
    /// - [`Error::Media`], [`Error::NoVideoStream`], [`Error::UnsupportedCodec`], [`Error::NoFrames`]: nothing can be
    ///   decoded.
    /// - [`Error::NoImages`]: the folder has no images.
    /// - [`Error::InvalidParameter`], [`Error::StartBeyondEnd`]: `sampling` is invalid, or does not fit the video.
    pub fn open(path: &Path, sampling: &Sampling) -> Result<Self> {
        Self::open_with(path, sampling, || false)
    }

    /// [`open`](Self::open), but stops when `stop` returns true. `stop` is called between packets and images, here and
    /// in [`next`](Iterator::next).
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if `stop` returned true, and those of [`open`](Self::open).
    pub fn open_with(
        path: &Path,
        sampling: &Sampling,
        stop: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::of(&path.into(), sampling, stop)
    }

    /// Plans which of `frames` to take, as [`open`](Self::open) does with a file. `name` takes the place of the path.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidParameter`] if `frames` is empty or `sampling` is invalid; [`Error::StartBeyondEnd`].
    pub fn from_frames(name: &str, frames: &Frames, sampling: &Sampling) -> Result<Self> {
        Self::of(&(name, frames).into(), sampling, || false)
    }

    /// [`open_with`](Self::open_with), for any source.
    pub(crate) fn of(
        source: &Source,
        sampling: &Sampling,
        stop: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        sampling.check()?;
        #[cfg(test)]
        OPENED.set(OPENED.get() + 1);
        let stop = Stop::new(stop);
        let path = source.path();
        let Opened { mut info, planner, mut images, mut warnings } = match source {
            Source::Frames(name, frames) => memory::open(name, frames, &stop)?,
            Source::Path(_) | Source::Address(_) => match sniff::content(path)? {
                Content::Folder => folder::open(path, sampling.folder_fps, &stop)?,
                Content::Image(format) => image_file::open(path, format)?,
                Content::AnimatedWebp => webp::open(path, &stop)?,
                Content::ForFfmpeg(nature) => ffmpeg::open(path, nature, &stop)?,
            },
        };

        let Plan { times, fps: sampled_fps } = planner(sampling)?;
        let no_frames = || Error::NoFrames { path: path.to_owned() };
        let mut first = images.at(*times.first().ok_or_else(no_frames)?)?.ok_or_else(no_frames)?;
        // A read that was stopped may have returned too little.
        stop.check()?;
        first.time_s = times[0];
        (info.width, info.height) = (first.width, first.height);
        if times.len() == 1 {
            warnings.extend(images.warnings());
        }
        let first = Some(first);
        Ok(Self { info, planner, times, sampled_fps, images, first, n_yielded: 0, ended: false, warnings, stop })
    }

    /// [`of`](Self::of), but takes the frames at `times`: in seconds, ascending, and within the range of `sampling`.
    pub(crate) fn at_times(
        source: &Source,
        sampling: &Sampling,
        times: Vec<f64>,
        stop: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        // Images can only be read in order of time, so this opens the source at the start of the range.
        let rate = Rate::Fps { fps: f64::MIN_POSITIVE, max_frames: 1 };
        let at_start = Sampling { rate, spread: Spread::Middles, min_frames: 1, multiple_of: 1, ..*sampling };
        let opened = Self::of(source, &at_start, stop)?;
        let Self { info, planner, mut images, stop, warnings, first: at_start, .. } = opened;
        let no_frames = || Error::NoFrames { path: info.path.clone() };
        let first_s = *times.first().ok_or_else(no_frames)?;
        // A still image can be read only once.
        let first = match at_start.filter(|frame| frame.time_s == first_s) {
            Some(frame) => frame,
            None => images.at(first_s)?.ok_or_else(no_frames)?.fitted(info.width, info.height),
        };
        let first = Some(Frame { time_s: first_s, ..first });
        let sampled_fps = None;
        Ok(Self { info, planner, times, sampled_fps, images, first, n_yielded: 0, ended: false, warnings, stop })
    }

    /// Plans which frames another sampling takes. Opens and decodes nothing.
    ///
    /// # Errors
    /// As [`of`](Self::of), for what `sampling` asks for.
    pub(crate) fn plan(&self, sampling: &Sampling) -> Result<Plan> {
        sampling.check()?;
        (self.planner)(sampling)
    }

    /// This source with another sampling, before a frame is taken of it. Opens `source` again only where its first
    /// frame is before the one that is decoded already.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(crate) fn sampled(
        mut self,
        source: &Source,
        sampling: &Sampling,
        stop: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        let Plan { times, fps } = self.plan(sampling)?;
        if times == self.times {
            self.sampled_fps = fps;
            return Ok(self);
        }
        let (Some(&first_s), Some(decoded)) = (times.first(), self.first.take()) else {
            return Self::of(source, sampling, stop);
        };
        // Images are given in order of time.
        if first_s < decoded.time_s || (times.len() == 1) != (self.times.len() == 1) {
            return Self::of(source, sampling, stop);
        }
        let first = match first_s == decoded.time_s {
            true => decoded,
            false => {
                let no_frames = || Error::NoFrames { path: self.info.path.clone() };
                self.images.at(first_s)?.ok_or_else(no_frames)?.fitted(self.info.width, self.info.height)
            }
        };
        self.stop.check()?;
        let first = Some(Frame { time_s: first_s, ..first });
        Ok(Self { times, sampled_fps: fps, first, ..self })
    }

    /// Decodes the remaining frames on a separate thread, which stays two frames ahead. Frames, errors and warnings
    /// stay the same. [`next`](Iterator::next) waits for a frame that is not decoded yet.
    ///
    /// Dropping the source stops the thread, as the `stop` of [`open_with`](Self::open_with) does, and waits for it.
    /// Does nothing if no frame is left to decode, or if the thread cannot be started.
    pub fn decode_ahead(self) -> Self {
        let n_here = self.n_yielded + usize::from(self.first.is_some());
        let left = self.times.get(n_here..).unwrap_or_default();
        // If nothing is left, the warnings were already taken.
        if self.ended || left.is_empty() {
            return self;
        }
        let images = Ahead::start(self.images, left.to_vec(), self.stop.clone());
        Self { images, ..self }
    }

    /// The properties of the source.
    pub fn info(&self) -> &VideoInfo {
        &self.info
    }

    /// The times of the frames that the iterator yields, in seconds, ascending.
    ///
    /// The iterator yields fewer frames if the file turns out to be damaged.
    pub fn planned_times(&self) -> &[f64] {
        &self.times
    }

    /// Sampled frames per second, on average; `None` if frames were not sampled evenly, and for a still image.
    pub fn sampled_fps(&self) -> Option<f64> {
        self.sampled_fps
    }

    /// Problems that the user should know about: a file that is cut off, or damaged images, for example.
    ///
    /// Complete once the iterator has yielded its last frame.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Number of images decoded so far, including those in between sampled frames and those decoded
    /// [ahead](Self::decode_ahead).
    pub fn frames_decoded(&self) -> u64 {
        self.images.frames_decoded()
    }

    fn image(&mut self, time_s: f64) -> Result<Option<Frame>> {
        let frame = match self.first.take() {
            Some(first) => Some(first),
            None => self.images.at(time_s)?,
        };
        Ok(frame.map(|frame| Frame { time_s, ..frame.fitted(self.info.width, self.info.height) }))
    }

    fn end_early(&mut self) {
        self.ended = true;
        let (n_yielded, n_planned) = (self.n_yielded, self.times.len());
        let last_s = n_yielded.checked_sub(1).map_or(0.0, |last| self.times[last]);
        let of = self.info.duration_s.map_or_else(String::new, |duration_s| format!(" of {duration_s:.1} s"));
        self.warnings.push(format!(
            "{}: the file is cut off or damaged: only {n_yielded} of {n_planned} frames could be decoded, none after \
             {last_s:.1} s{of}",
            self.info.path.display()
        ));
        self.warnings.extend(self.images.warnings());
    }
}

impl Iterator for FrameSource {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.n_yielded == self.times.len() {
            return None;
        }
        match self.image(self.times[self.n_yielded]) {
            Ok(Some(frame)) => {
                self.n_yielded += 1;
                if self.n_yielded == self.times.len() && self.times.len() > 1 {
                    self.warnings.extend(self.images.warnings());
                }
                Some(Ok(frame))
            }
            Ok(None) => {
                self.end_early();
                None
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

impl std::fmt::Debug for FrameSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameSource")
            .field("info", &self.info)
            .field("times", &self.times)
            .field("n_yielded", &self.n_yielded)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// The names and versions of the loaded FFmpeg libraries.
pub fn ffmpeg_versions() -> Vec<(&'static str, String)> {
    ffmpeg::versions()
}

/// The properties of the file or folder at `path`. Decodes one frame to check that it can be decoded.
///
/// # Errors
///
/// Those of [`FrameSource::open`].
pub fn probe(path: &Path) -> Result<VideoInfo> {
    // Takes the first frame, so that nothing has to seek. The range is short, because the file may claim any length,
    // and each second of it would be planned.
    let rate = Rate::Fps { fps: 1.0, max_frames: 1 };
    let first_only = Sampling { rate, end_s: Some(f64::MIN_POSITIVE), ..Sampling::default() };
    Ok(FrameSource::open(path, &first_only)?.info)
}
