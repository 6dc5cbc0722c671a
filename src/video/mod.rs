//! Where the images come from: video files, animations, folders of numbered frames, single images, memory.
//!
//! [`FrameSource::open`] looks at a file or folder, decides at which moments to take an image ([`Sampling`]) and then
//! yields one upright RGB [`Frame`] after the other. How many there will be, when and how large is known before the
//! second image is decoded, so that a prompt can be planned first. Only a few full-size images are in memory at any
//! time, however long the video. [`FrameSource::decode_ahead`] decodes the next ones while one is used.
//! [`FrameSource::from_frames`] does the same with [`Frames`] that a program has in memory.
//!
//! - **Time** is in seconds since the first frame of the video track, whatever timestamps the file starts with.
//! - **The image at a moment** is the one a player would show then: the last one whose timestamp is not later.
//! - **Pixels** are square and upright: sample aspect ratio and rotation metadata are applied. What is transparent
//!   becomes white.
//! - **Every frame has the size in [`VideoInfo`]**. Where an image has another one (a change of resolution within a
//!   stream, a mixed folder) it is fitted into it, with black borders.
//!
//! FFmpeg reads everything except still JPEG, PNG and WebP images and animated WebP, which the `image` crates read.
//! HEIC is not read.
//! For the whole process, its log is switched off when the first file is opened, and what it allocates at once limited
//! to 335 MB.
//!
//! **Nothing but the file is read**, or the images of the folder: a playlist that names other files or addresses is
//! refused, and FFmpeg is given an open file, the formats that hold videos, and no way to open anything else. Images
//! of more than 67 million pixels in a video, or 134 million alone, are refused.
//!
//! [`LiveSource`] reads video that does not end: a pipe, a file that grows, an address. It gives frames as they come,
//! and it is the only thing here that opens what is no file, if it is told to.
//!
//! [`VideoWriter`] goes the other way, with the encoders that FFmpeg has.
//!
//! Not done: deinterlacing, tone mapping of HDR, the alpha layer of VP8, VP9 and AVIF, AVIF images in tiles.

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
use sampling::Plan;
pub use sampling::{Rate, Sampling};
use sniff::Content;
pub use spread::{Rounding, Spread};
use stop::Stop;
pub use survey::SurveyReport;
pub(crate) use survey::{Segments, Survey, Thumbnail};

/// What kind of thing the frames come from.
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

/// What is known about a source of frames without decoding all of it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct VideoInfo {
    /// The file or folder, or the name that frames in memory were given.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Width as displayed, in pixels: after sample aspect ratio and rotation.
    pub width: u32,
    /// Height as displayed, in pixels.
    pub height: u32,
    /// Length of the video track in seconds; `None` for a single image.
    pub duration_s: Option<f64>,
    /// Average frames per second; `None` where unknown and for a single image.
    pub fps: Option<f64>,
    /// Number of frames, where the file says it or counting was cheap.
    pub n_frames: Option<u64>,
    /// The container, by FFmpeg's name (`matroska,webm`), or `folder`, or `memory`.
    pub container: String,
    /// The codec, by FFmpeg's name (`h264`, `png`, `rawvideo`).
    pub codec: String,
}

/// A path with bytes that are no Unicode is written with replacement characters.
fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Yields the frames of a file, a folder or memory that a [`Sampling`] asks for, in order of time.
///
/// The iterator ends early if the file turns out to be damaged or cut off; [`FrameSource::warnings`] then says so.
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
    times: Vec<f64>,
    sampled_fps: Option<f64>,
    images: Box<dyn Images>,
    /// The first frame: decoded by `open`, because only a decoded image proves that there is one.
    first: Option<Frame>,
    n_given: usize,
    ended: bool,
    warnings: Vec<String>,
    /// What `images` are stopped by.
    stop: Stop,
}

/// What a kind of source has to be able to do; [`FrameSource`] does the rest.
trait Images: Send {
    /// The image that is shown at `time_s`, or `None` if the images end before. Called with ascending times.
    fn at(&mut self, time_s: f64) -> Result<Option<Frame>>;

    /// Number of images decoded so far, whether they were given out or not.
    fn frames_decoded(&self) -> u64;

    /// What went wrong without stopping the decoding, once all wanted images were taken.
    fn warnings(&mut self) -> Vec<String>;
}

/// Where frames come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// A file or folder.
    Path(&'a Path),
    /// Memory, under a name.
    Frames(&'a str, &'a Frames),
}

impl<'a> Origin<'a> {
    /// The path, or what stands for it.
    pub fn path(self) -> &'a Path {
        match self {
            Self::Path(path) => path,
            Self::Frames(name, _) => Path::new(name),
        }
    }
}

/// A source that is ready to be read, as the modules for the kinds of sources return it.
struct Opened {
    /// Width and height are those of the first decoded frame, so they are still missing here.
    info: VideoInfo,
    planned: Plan,
    images: Box<dyn Images>,
    warnings: Vec<String>,
}

impl FrameSource {
    /// Opens the file or folder at `path` and plans which frames to take.
    ///
    /// Decodes the first of the wanted frames, no more.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`]: missing or unreadable; [`Error::Unusable`]: a URL or a playlist, for example.
    /// - [`Error::Media`], [`Error::NoVideoStream`], [`Error::Media`], [`Error::UnsupportedCodec`],
    ///   [`Error::NoFrames`], [`Error::Media`]: nothing in it can be decoded, and why.
    /// - [`Error::NoImages`]: a folder without images.
    /// - [`Error::InvalidParameter`], [`Error::StartBeyondEnd`]: `sampling` asks for what cannot be.
    pub fn open(path: &Path, sampling: &Sampling) -> Result<Self> {
        Self::open_with(path, sampling, || false)
    }

    /// As [`open`](Self::open), but stops where `stop` says so: it is asked between packets and images, here and
    /// while the frames are taken.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if it was stopped, and those of [`open`](Self::open).
    pub fn open_with(
        path: &Path,
        sampling: &Sampling,
        stop: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::of(Origin::Path(path), sampling, stop)
    }

    /// Plans which of `frames` to take, as [`open`](Self::open) does with a file. `name` stands for the path.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidParameter`] if there are none, and [`Error::InvalidParameter`], [`Error::StartBeyondEnd`] if
    /// `sampling` asks for what cannot be.
    pub fn from_frames(name: &str, frames: &Frames, sampling: &Sampling) -> Result<Self> {
        Self::of(Origin::Frames(name, frames), sampling, || false)
    }

    /// As [`open_with`](Self::open_with), from wherever.
    pub(crate) fn of(
        origin: Origin<'_>,
        sampling: &Sampling,
        stop: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        sampling.check()?;
        let stop = Stop::new(stop);
        let Opened { mut info, planned, mut images, mut warnings } = match origin {
            Origin::Frames(name, frames) => memory::open(name, frames, sampling, &stop)?,
            Origin::Path(path) => match sniff::content(path)? {
                Content::Folder => folder::open(path, sampling, &stop)?,
                Content::Image(format) => image_file::open(path, format)?,
                Content::AnimatedWebp => webp::open(path, sampling, &stop)?,
                Content::ForFfmpeg(nature) => ffmpeg::open(path, nature, sampling, &stop)?,
            },
        };

        let Plan { times, fps: sampled_fps } = planned;
        let no_frames = || Error::NoFrames { path: origin.path().to_owned() };
        let mut first = images.at(*times.first().ok_or_else(no_frames)?)?.ok_or_else(no_frames)?;
        // What was read while it was stopped may be incomplete.
        stop.check()?;
        first.time_s = times[0];
        (info.width, info.height) = (first.width, first.height);
        if times.len() == 1 {
            warnings.extend(images.warnings());
        }
        let first = Some(first);
        Ok(Self { info, times, sampled_fps, images, first, n_given: 0, ended: false, warnings, stop })
    }

    /// As [`of`](Self::of), with the moments chosen by somebody else: `times` in seconds, ascending, within the range
    /// of `sampling`.
    pub(crate) fn at_times(
        origin: Origin<'_>,
        sampling: &Sampling,
        times: Vec<f64>,
        stop: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        // Opened at the start of the range, which none of the moments is before: images are given in order of time.
        let rate = Rate::Fps { fps: f64::MIN_POSITIVE, max_frames: 1 };
        let at_start = Sampling { rate, spread: Spread::Middles, min_frames: 1, multiple_of: 1, ..*sampling };
        let opened = Self::of(origin, &at_start, stop)?;
        let Self { info, mut images, stop, warnings, first: at_start, .. } = opened;
        let no_frames = || Error::NoFrames { path: info.path.clone() };
        let first_s = *times.first().ok_or_else(no_frames)?;
        // A single image is there once.
        let first = match at_start.filter(|frame| frame.time_s == first_s) {
            Some(frame) => frame,
            None => images.at(first_s)?.ok_or_else(no_frames)?.fitted(info.width, info.height),
        };
        let first = Some(Frame { time_s: first_s, ..first });
        let sampled_fps = None;
        Ok(Self { info, times, sampled_fps, images, first, n_given: 0, ended: false, warnings, stop })
    }

    /// Decodes the frames that are left on a thread of its own, from now on and until this is dropped: the next two
    /// while one is used. Frames, errors and warnings are the same, in the same order; [`next`](Iterator::next) waits
    /// for those that are not there yet.
    ///
    /// Dropping the source stops the thread as a wish to stop does ([`open_with`](Self::open_with)), and waits for it.
    /// Does nothing where only one frame is left, or where the system has no thread to give.
    pub fn decode_ahead(self) -> Self {
        let n_here = self.n_given + usize::from(self.first.is_some());
        let left = self.times.get(n_here..).unwrap_or_default();
        // What is not left was asked for its warnings already.
        if self.ended || left.is_empty() {
            return self;
        }
        let images = Ahead::start(self.images, left.to_vec(), self.stop.clone());
        Self { images, ..self }
    }

    /// What is known about the file or folder.
    pub fn info(&self) -> &VideoInfo {
        &self.info
    }

    /// The moments in seconds of the frames that the iterator gives, ascending; known before they are decoded.
    ///
    /// It gives as many frames, except from a file that turns out to be damaged.
    pub fn planned_times(&self) -> &[f64] {
        &self.times
    }

    /// How many frames are taken of each second, on average; `None` where they were not taken evenly, and of an image.
    pub fn sampled_fps(&self) -> Option<f64> {
        self.sampled_fps
    }

    /// What the user should know about the file: that it is cut off, that damaged images were skipped.
    ///
    /// Complete once the iterator has given its last frame.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Number of images decoded so far, including those that had to be decoded to reach a wanted one, and those
    /// [ahead](Self::decode_ahead) of it.
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
        let (n_given, n_planned) = (self.n_given, self.times.len());
        let last_s = n_given.checked_sub(1).map_or(0.0, |last| self.times[last]);
        let of = self.info.duration_s.map_or_else(String::new, |duration_s| format!(" of {duration_s:.1} s"));
        self.warnings.push(format!(
            "{}: the file is cut off or damaged: only {n_given} of {n_planned} frames could be decoded, none behind \
             {last_s:.1} s{of}",
            self.info.path.display()
        ));
        self.warnings.extend(self.images.warnings());
    }
}

impl Iterator for FrameSource {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.n_given == self.times.len() {
            return None;
        }
        match self.image(self.times[self.n_given]) {
            Ok(Some(frame)) => {
                self.n_given += 1;
                if self.n_given == self.times.len() && self.times.len() > 1 {
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
            .field("n_given", &self.n_given)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// The FFmpeg libraries that this program runs with, and their versions.
pub fn ffmpeg_versions() -> Vec<(&'static str, String)> {
    ffmpeg::versions()
}

/// What is in the file or folder at `path`.
///
/// # Errors
///
/// Those of [`FrameSource::open`]: it decodes one frame to see whether it can.
pub fn probe(path: &Path) -> Result<VideoInfo> {
    // The first frame, not one from the middle: nothing has to be searched for. Nor is there a moment to plan for each
    // second of a length that the file only claims.
    let rate = Rate::Fps { fps: 1.0, max_frames: 1 };
    let first_only = Sampling { rate, end_s: Some(f64::MIN_POSITIVE), ..Sampling::default() };
    Ok(FrameSource::open(path, &first_only)?.info)
}
