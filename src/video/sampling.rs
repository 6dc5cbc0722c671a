//! The moments of a video at which to sample frames.

use std::ops::Range;
use std::path::Path;

use super::Spread;
use super::spread::{Known, Numbers};
use crate::error::{Error, Result};

/// A frame counts as shown this much before its timestamp, because Matroska and FLV round timestamps to milliseconds.
pub(super) const TIMESTAMP_TOLERANCE_S: f64 = 0.001;

/// How many frames to take of a range. [`Spread`] decides which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// A fixed number of frames. With [`Spread::Middles`], the frames in the middles of `frames` equal parts of the
    /// range: at `start + (i + 0.5)·(end − start)/frames`.
    ///
    /// Takes every frame of the range once if it has fewer.
    Uniform {
        /// The number of frames, 1 or more.
        frames: usize,
    },
    /// A number of frames per second. With [`Spread::Middles`], the frames at `start`, `start + 1/fps`,
    /// `start + 2/fps`, … If these are more than `max_frames`, equals `Uniform { frames: max_frames }`.
    Fps {
        /// Frames per second of video, above 0.
        fps: f64,
        /// The most frames, 1 or more.
        max_frames: usize,
    },
}

/// Which frames to take of a video: those that `rate` and `spread` select from `start_s..end_s`.
///
/// No frame is taken twice if the timestamps of all frames are known. They are known whenever the number of frames to
/// take is close to the number in the range. A still image is taken once, at 0 s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// How many frames to take.
    pub rate: Rate,
    /// Which frames to take.
    pub spread: Spread,
    /// Start of the range in seconds, 0 or more; `None` for the start of the video.
    pub start_s: Option<f64>,
    /// End of the range in seconds, exclusive; `None` for the end of the video. Capped at the end of the video.
    pub end_s: Option<f64>,
    /// Frames per second of a folder of frames: image `i` is shown at `i/folder_fps` s. Ignored for other sources.
    pub folder_fps: f64,
    /// The fewest frames that [`Rate::Fps`] takes, spread evenly; 1 or more.
    pub min_frames: usize,
    /// [`Rate::Fps`] rounds the number of frames down to a multiple of this, and spreads them evenly; 1 or more.
    /// A number below it stays.
    pub multiple_of: usize,
}

impl Default for Sampling {
    /// 8 frames of the whole video, and 1 frame per second for folders.
    fn default() -> Self {
        let rate = Rate::Uniform { frames: 8 };
        let spread = Spread::Middles;
        Self { rate, spread, start_s: None, end_s: None, folder_fps: 1.0, min_frames: 1, multiple_of: 1 }
    }
}

impl Sampling {
    /// `frames` frames of the whole video, evenly spread.
    pub fn uniform(frames: usize) -> Self {
        Self { rate: Rate::Uniform { frames }, ..Self::default() }
    }

    /// `fps` frames per second of the whole video, at most `max_frames`.
    pub fn fps(fps: f64, max_frames: usize) -> Self {
        Self { rate: Rate::Fps { fps, max_frames }, ..Self::default() }
    }

    /// Checks what can be checked without the video.
    pub(super) fn check(&self) -> Result<()> {
        let positive = |name, value: f64| {
            if value.is_finite() && value > 0.0 { Ok(()) } else { Err(invalid(name, value, "a number above 0")) }
        };
        positive("folder_fps", self.folder_fps)?;
        for (name, value) in [("min_frames", self.min_frames), ("multiple_of", self.multiple_of)] {
            if value == 0 {
                return Err(invalid(name, 0, "1 or more"));
            }
        }
        match self.rate {
            Rate::Uniform { frames: 0 } => return Err(invalid("frames", 0, "1 or more")),
            Rate::Fps { max_frames: 0, .. } => return Err(invalid("max_frames", 0, "1 or more")),
            Rate::Fps { fps, .. } => positive("fps", fps)?,
            Rate::Uniform { .. } => {}
        }
        if let Spread::Ends { margin_s, .. } = self.spread
            && !(margin_s.is_finite() && margin_s >= 0.0)
        {
            return Err(invalid("margin", seconds(margin_s), "0 s or more"));
        }

        let start = self.start_s.unwrap_or(0.0);
        if !start.is_finite() || start < 0.0 {
            return Err(invalid("start", seconds(start), "0 s or later"));
        }
        match self.end_s {
            // This form of the condition also rejects NaN.
            Some(end) if !(end.is_finite() && end > start) => {
                Err(invalid("end", seconds(end), format!("later than start, {}", seconds(start))))
            }
            _ => Ok(()),
        }
    }

    /// The range in seconds, within a video of `duration_s`.
    pub(super) fn range(&self, path: &Path, duration_s: f64) -> Result<Range<f64>> {
        let start = self.start_s.unwrap_or(0.0);
        if start >= duration_s {
            return Err(Error::StartBeyondEnd { path: path.to_owned(), start_s: start, duration_s });
        }
        Ok(start..self.end_s.map_or(duration_s, |end| end.min(duration_s)))
    }

    /// The moments in `range`, ascending. At most one for each frame, if the times of the frames are known.
    pub(super) fn plan(&self, range: &Range<f64>, known: Known<'_>) -> Plan {
        let moments = self.moments(range, known);
        let Some(frame_times) = known.frame_times else {
            return Plan { times: (0..moments.n()).map(|i| moments.at(i)).collect(), fps: Some(moments.fps()) };
        };

        let visible = &frame_times[index_at(frame_times, range.start).unwrap_or(0)..];
        let n_visible = visible.partition_point(|&t| t < range.end - TIMESTAMP_TOLERANCE_S);
        let visible = &visible[..n_visible.max(1).min(visible.len())];
        let fps_of = |n: usize| n as f64 / (range.end - range.start);
        if moments.is_evenly_spread() && moments.n() >= visible.len() {
            let times: Vec<f64> = visible.iter().map(|&t| t.max(range.start)).collect();
            let fps = Some(fps_of(times.len()));
            return Plan { times, fps };
        }

        // Loops over frames, not moments, because a file can claim that a frame lasts for a hundred years.
        let mut times = Vec::new();
        let mut i = 0;
        while i < moments.n() {
            let shown = index_at(visible, moments.at(i)).unwrap_or(0);
            times.push(moments.at_frame(i, visible[shown]));
            let Some(&next_begin) = visible.get(shown + 1) else { break };
            i = moments.first_showing(next_begin, i + 1);
        }
        let fps = if times.len() == moments.n() { moments.fps() } else { fps_of(times.len()) };
        Plan { times, fps: Some(fps) }
    }

    /// Whether the number of frames is limited, so that they are spread evenly over a video of `duration_s`.
    pub(crate) fn is_spread(&self, duration_s: Option<f64>) -> bool {
        match self.rate {
            Rate::Uniform { .. } => true,
            Rate::Fps { fps, max_frames } => {
                let end = self.end_s.into_iter().chain(duration_s).fold(f64::INFINITY, f64::min);
                (end - self.start_s.unwrap_or(0.0)) * fps > max_frames as f64
            }
        }
    }

    /// The most moments that [`plan`](Self::plan) returns for a video of `fps` frames per second.
    pub(super) fn max_moments(&self, range: &Range<f64>, fps: Option<f64>) -> usize {
        self.moments(range, Known { fps, frame_times: None }).n()
    }

    /// Whether two moments may show the same one of the `n_frames` frames in `range`, or a single moment may have to be
    /// that of the only frame.
    pub(super) fn needs_frame_times(&self, range: &Range<f64>, fps: Option<f64>, n_frames: f64) -> bool {
        let moments = self.moments(range, Known { fps, frame_times: None });
        (moments.n() > 1 || moments.is_evenly_spread()) && moments.n() as f64 > n_frames / 2.0
    }

    fn moments(&self, range: &Range<f64>, known: Known<'_>) -> Moments {
        if let Some(numbers) = Numbers::of(self, range, known) {
            return Moments::Numbers(numbers);
        }
        let (fps, max_frames) = match self.rate {
            Rate::Uniform { frames } => return Moments::uniform(range, frames),
            Rate::Fps { fps, max_frames } => (fps, max_frames),
        };
        let moments = Moments::at_rate(range, fps, max_frames);
        let n = moments.n().max(self.min_frames.min(max_frames));
        let n = if n < self.multiple_of { n } else { n - n % self.multiple_of };
        if n == moments.n() { moments } else { Moments::uniform(range, n) }
    }
}

/// The frames to take.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Their times in seconds, ascending.
    pub times: Vec<f64>,
    /// Frames to take per second; `None` for a still image.
    pub fps: Option<f64>,
}

impl Plan {
    /// The plan for a still image.
    pub fn image() -> Self {
        Self { times: vec![0.0], fps: None }
    }
}

/// Moments in order of time.
enum Moments {
    /// `n` moments, at `first + i·step`.
    Steps { first: f64, step: f64, n: usize, evenly_spread: bool },
    /// The starts of frames.
    Numbers(Numbers),
}

impl Moments {
    fn uniform(range: &Range<f64>, n: usize) -> Self {
        let step = (range.end - range.start) / n as f64;
        Self::Steps { first: range.start + step / 2.0, step, n, evenly_spread: true }
    }

    fn at_rate(range: &Range<f64>, fps: f64, max: usize) -> Self {
        // The end is not part of the range; 1e-6 keeps rounding from including it.
        let n = ((range.end - range.start) * fps - 1e-6).ceil().max(1.0);
        if n > max as f64 {
            Self::uniform(range, max)
        } else {
            Self::Steps { first: range.start, step: 1.0 / fps, n: n as usize, evenly_spread: false }
        }
    }

    fn n(&self) -> usize {
        match self {
            Self::Steps { n, .. } => *n,
            Self::Numbers(numbers) => numbers.n,
        }
    }

    fn is_evenly_spread(&self) -> bool {
        matches!(self, Self::Steps { evenly_spread: true, .. } | Self::Numbers(_))
    }

    fn at(&self, i: usize) -> f64 {
        match self {
            Self::Steps { first, step, .. } => first + i as f64 * step,
            Self::Numbers(numbers) => numbers.at(i),
        }
    }

    /// Moment `i`, at which the frame that starts at `begin_s` is shown.
    fn at_frame(&self, i: usize, begin_s: f64) -> f64 {
        let time = self.at(i);
        match self {
            // The moment is that of the frame, whose timestamp the file may have rounded.
            Self::Numbers(_) if (time - begin_s).abs() < TIMESTAMP_TOLERANCE_S => begin_s,
            _ => time,
        }
    }

    /// Moments per second.
    fn fps(&self) -> f64 {
        match self {
            Self::Steps { step, .. } => 1.0 / step,
            Self::Numbers(numbers) => numbers.fps(),
        }
    }

    /// The index, `from` or later, of the first moment at which the frame that starts at `begin_s` is shown.
    fn first_showing(&self, begin_s: f64, from: usize) -> usize {
        let (mut low, mut high) = (from, self.n());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_shown(begin_s, self.at(middle)) { high = middle } else { low = middle + 1 }
        }
        low
    }
}

/// The index of the frame that is shown at `time`: the last one of `frame_times` that is not later.
pub(super) fn index_at(frame_times: &[f64], time: f64) -> Option<usize> {
    frame_times.partition_point(|&t| is_shown(t, time)).checked_sub(1)
}

/// Whether a player has shown, by `time_s`, the frame that starts at `begin_s`.
pub(super) fn is_shown(begin_s: f64, time_s: f64) -> bool {
    begin_s <= time_s + TIMESTAMP_TOLERANCE_S
}

fn seconds(value: f64) -> String {
    format!("{value} s")
}

fn invalid(name: &'static str, value: impl ToString, expected: impl Into<String>) -> Error {
    Error::InvalidParameter { name, value: value.to_string(), expected: expected.into() }
}
