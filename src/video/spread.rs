//! Which frames of a video a model family takes, by their numbers.
//!
//! A family's reference code numbers the frames from `0` to `N − 1`, and assumes that each starts at its number divided
//! by the frame rate. This module turns the numbers into times. If the frame rate varies, the numbers are spread evenly
//! over the time from the first frame to the last, because a still that is shown for a minute is one frame, but a
//! minute of the video.

use std::ops::Range;

use super::Rate;
use super::sampling::{Sampling, TIMESTAMP_TOLERANCE_S};

/// Which frames to take of a video. All variants spread them evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Spread {
    /// With [`Rate::Fps`], one frame at the start and one every `1/fps` s. With [`Rate::Uniform`], or if those are too
    /// many, the frames in the middles of equal parts.
    #[default]
    Middles,
    /// From the first frame to the last: of `N` frames, those with the numbers `i·(N − 1)/(n − 1)`, each once. With
    /// [`Rate::Fps`], `n` is the length in seconds times `fps`.
    Ends {
        /// How `n` is rounded.
        count: Rounding,
        /// How `i·(N − 1)/(n − 1)` is rounded.
        number: Rounding,
        /// Seconds to leave out at the start and at the end, if the time between has more than `max_frames` at `fps`;
        /// 0 or more.
        margin_s: f64,
    },
    /// With [`Rate::Fps`], the first frame and then every `k`-th, with the `k` that comes closest to `1/fps` s. If
    /// those are too many, the middles of equal parts of them. With [`Rate::Uniform`], the same as
    /// [`Middles`](Self::Middles).
    WholeSteps,
}

/// How to round to a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Round down.
    Down,
    /// Round to the nearest number, and halves to the even one.
    Nearest,
}

impl Rounding {
    fn of(self, value: f64) -> f64 {
        match self {
            Self::Down => value.floor(),
            Self::Nearest => value.round_ties_even(),
        }
    }
}

/// What is known about the frames of a video.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    /// Average frames per second.
    pub fps: Option<f64>,
    /// The start of each frame, ascending. Frames outside the range may be missing, except the one shown at its start.
    pub frame_times: Option<&'a [f64]>,
}

/// Frames per second of a video that does not state it. `transformers` assumes the same.
const USUAL_FPS: f64 = 24.0;

/// The frames that start in a range.
#[derive(Debug)]
struct Track {
    n: f64,
    /// Frames per second.
    fps: f64,
    /// Frame `i` starts at `(first + i)/pace + offset_s`.
    first: f64,
    pace: f64,
    offset_s: f64,
}

impl Track {
    /// `None` if no frame starts in `range`.
    fn of(range: &Range<f64>, known: Known<'_>) -> Option<Self> {
        let begins_before = |border: f64| move |&time: &f64| time < border - TIMESTAMP_TOLERANCE_S;
        if let Some(times) = known.frame_times {
            let [from, to] = [range.start, range.end].map(|border| times.partition_point(begins_before(border)));
            let times = times.get(from..to)?;
            let (&first, &last) = (times.first()?, times.last()?);
            let n = times.len() as f64;
            let fps = known.fps.unwrap_or(n / (range.end - range.start));
            let pace = if last > first { (n - 1.0) / (last - first) } else { fps };
            return Some(Self { n, fps, first: 0.0, pace, offset_s: first });
        }
        let fps = known.fps.unwrap_or(USUAL_FPS);
        let tolerance_s = TIMESTAMP_TOLERANCE_S.min(0.25 / fps);
        let [from, to] = [range.start, range.end].map(|border| ((border - tolerance_s) * fps).ceil().max(0.0));
        (to > from).then_some(Self { n: to - from, fps, first: from, pace: fps, offset_s: 0.0 })
    }

    fn seconds(&self) -> f64 {
        self.n / self.fps
    }
}

/// `n` frames of a range, by their numbers.
#[derive(Debug)]
pub(super) struct Numbers {
    track: Track,
    pub n: usize,
    /// Frame `i` has the number `stride · round(from + i·step)`, and the last one `stride · last`.
    from: f64,
    step: f64,
    last: f64,
    rounding: Rounding,
    stride: f64,
}

impl Numbers {
    /// The frames of `range` that `sampling` selects; `None` if it selects by time, or if no frame starts in `range`.
    pub fn of(sampling: &Sampling, range: &Range<f64>, known: Known<'_>) -> Option<Self> {
        match (sampling.spread, sampling.rate) {
            (Spread::Middles, _) | (Spread::WholeSteps, Rate::Uniform { .. }) => None,
            (Spread::WholeSteps, Rate::Fps { fps, max_frames }) => {
                Some(Self::whole_steps(Track::of(range, known)?, fps, max_frames))
            }
            (Spread::Ends { count, number, margin_s }, _) => {
                Some(Self::ends(Track::of(range, known)?, sampling, count, number, margin_s))
            }
        }
    }

    fn ends(track: Track, sampling: &Sampling, count: Rounding, rounding: Rounding, margin_s: f64) -> Self {
        let (mut from, mut last) = (0.0, track.n - 1.0);
        let n = match sampling.rate {
            Rate::Uniform { frames } => frames as f64,
            Rate::Fps { fps, max_frames } => {
                let max = max_frames as f64;
                if (track.seconds() - 2.0 * margin_s) * fps > max {
                    let margin = margin_s * track.fps;
                    let inner = (margin.floor(), (track.n - margin).floor().min(last));
                    if inner.0 < inner.1 {
                        (from, last) = inner;
                    }
                }
                let wanted = match count {
                    // 1e-6 makes up for rounded frame rates, which may put the product just below a whole number.
                    Rounding::Down => track.seconds() * fps + 1e-6,
                    Rounding::Nearest => track.seconds() * fps,
                };
                let n = count.of(wanted).max(sampling.min_frames as f64).min(max).min(track.n);
                let multiple = sampling.multiple_of as f64;
                if n < multiple { n } else { n - n % multiple }
            }
        };
        let n = n.min(track.n).max(1.0);
        if n < 2.0 {
            last = from;
        }
        let step = (last - from) / (n - 1.0).max(1.0);
        Self { track, n: n as usize, from, step, last, rounding, stride: 1.0 }
    }

    fn whole_steps(track: Track, fps: f64, max_frames: usize) -> Self {
        let stride = (track.fps / fps).round_ties_even().max(1.0);
        let all = (track.n / stride).ceil();
        let n = all.min(max_frames as f64);
        let step = all / n;
        let from = if n < all { step / 2.0 } else { 0.0 };
        let last = (from + (n - 1.0) * step).floor();
        Self { track, n: n as usize, from, step, last, rounding: Rounding::Down, stride }
    }

    /// The start of frame `i` of these, in seconds.
    pub fn at(&self, i: usize) -> f64 {
        let whole = if i + 1 == self.n { self.last } else { self.rounding.of(self.from + i as f64 * self.step) };
        (self.track.first + self.stride * whole) / self.track.pace + self.track.offset_s
    }

    /// The number of these frames per second of the range.
    pub fn fps(&self) -> f64 {
        self.n as f64 / self.track.seconds()
    }
}
