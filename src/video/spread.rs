//! Which frames of a video a model family takes, by their numbers.
//!
//! The code that comes with a family counts frames, `0` to `N − 1`, and takes each to begin at its number over the
//! rate. Here a number becomes a moment. Where frames begin at other times, the numbers are spread over the time
//! between the first and the last of them: a still that is shown for a minute is one frame, but a minute of what is to
//! be seen.

use std::ops::Range;

use super::Rate;
use super::sampling::{Sampling, TIMESTAMP_TOLERANCE_S};

/// Which frames are taken of a video, evenly in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Spread {
    /// With [`Rate::Fps`], one at the start and one every `1/fps` s. If those are too many, and with [`Rate::Uniform`],
    /// what is shown in the middles of equal parts.
    #[default]
    Middles,
    /// From the first frame to the last: of `N` frames the numbers `i·(N − 1)/(n − 1)`, each once. With [`Rate::Fps`],
    /// `n` is the length in seconds times `fps`.
    Ends {
        /// How `n` becomes a whole number.
        count: Rounding,
        /// How `i·(N − 1)/(n − 1)` becomes a whole number.
        number: Rounding,
        /// Seconds that are left out at the start and at the end where what is between them has more than `max_frames`
        /// at the rate `fps`; 0 or more.
        margin_s: f64,
    },
    /// With [`Rate::Fps`], the first frame and then each that is a whole number of frames later, the one that comes
    /// nearest to `1/fps` s; if those are too many, the middles of equal parts of them. As [`Middles`](Self::Middles)
    /// with [`Rate::Uniform`].
    WholeSteps,
}

/// How a number becomes a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The next smaller one.
    Down,
    /// The nearest one; the even one, if two are as near.
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

/// What is known of the frames of a video.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    /// How many there are in a second, on average.
    pub fps: Option<f64>,
    /// When each begins, ascending. May leave out frames outside of the range that is asked about, except the one shown
    /// at its start.
    pub frame_times: Option<&'a [f64]>,
}

/// Frames in a second of a video that does not tell. `transformers` takes it to be as many.
const USUAL_FPS: f64 = 24.0;

/// The frames that begin in a range.
#[derive(Debug)]
struct Track {
    n: f64,
    /// How many there are in a second.
    fps: f64,
    /// Frame `i` begins at `(first + i)/pace + offset_s`.
    first: f64,
    pace: f64,
    offset_s: f64,
}

impl Track {
    /// `None` if no frame begins in `range`.
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

/// `n` frames of a range.
#[derive(Debug)]
pub(super) struct Numbers {
    track: Track,
    pub n: usize,
    /// Frame `i` has the number `stride` times what `from + i·step` rounds to; the last one that of `last`.
    from: f64,
    step: f64,
    last: f64,
    rounding: Rounding,
    stride: f64,
}

impl Numbers {
    /// Those that `sampling` wants of `range`; `None` if it goes by moments, or if no frame begins there.
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
                    // Rates of files are rounded: what should be a whole number may come out a little less.
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

    /// When frame `i` of them begins, in seconds.
    pub fn at(&self, i: usize) -> f64 {
        let whole = if i + 1 == self.n { self.last } else { self.rounding.of(self.from + i as f64 * self.step) };
        (self.track.first + self.stride * whole) / self.track.pace + self.track.offset_s
    }

    /// How many of them there are for each second of the range.
    pub fn fps(&self) -> f64 {
        self.n as f64 / self.track.seconds()
    }
}
