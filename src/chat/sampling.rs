//! Which frames of a video are taken: what a user may ask for, and what a family takes otherwise.

use crate::layout::Layout;
use crate::video::{Rate, Sampling, Spread};

/// Which frames of a video to take. What is left out is as the model's family wants it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VideoOptions {
    /// Frames for each second of video.
    pub fps: Option<f64>,
    /// The most frames to take; without `fps`, the number of frames, spread evenly.
    pub max_frames: Option<usize>,
    /// Where to begin, in seconds.
    pub start_s: Option<f64>,
    /// Where to end, in seconds.
    pub end_s: Option<f64>,
    /// Frames for each second of a folder of frames; 1 if not given.
    pub folder_fps: Option<f64>,
    /// Which frames to take where they cannot be as many for each second as are wanted.
    pub choice: FrameChoice,
    /// The question that will be asked, as far as it is known: its tokens are reserved, and one that is too long is
    /// told before a frame is encoded.
    pub question: String,
}

/// Seconds between frames of a long video, where the family's number of frames would put them farther apart and may be
/// more.
const FAR_S: f64 = 30.0;

/// Which frames to take of a video that is too long for the number of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FrameChoice {
    /// By what changes, where frames at even distances would be two seconds apart or more.
    #[default]
    Auto,
    /// Frames at even distances.
    Even,
    /// By what changes: the video is looked over first, so that what is seen for a short time has its frame.
    Changes,
}

impl FrameChoice {
    /// Whether `n_frames` are chosen by what changes, where a look over the video shows `n_looks` images.
    pub(in crate::chat) fn looks(self, n_frames: usize, n_looks: u64) -> bool {
        let n_frames = n_frames as u64;
        match self {
            Self::Auto => n_looks >= n_frames.saturating_mul(SPARSE),
            Self::Even => false,
            Self::Changes => n_looks > n_frames,
        }
    }
}

/// Looks for each frame, one a second, from which on frames at even distances miss much.
const SPARSE: u64 = 2;

impl VideoOptions {
    /// The same for a video that `question` will be asked about.
    pub fn for_question(&self, question: &str) -> Self {
        Self { question: question.to_owned(), ..self.clone() }
    }

    pub(in crate::chat) fn sampling(&self, layout: &dyn Layout) -> Sampling {
        let frames = layout.frames();
        let rate = match (self.fps, self.max_frames) {
            (Some(fps), max) => Rate::Fps { fps, max_frames: max.unwrap_or(frames.max) },
            (None, None) => frames.rate,
            (None, Some(max)) => match frames.rate {
                Rate::Uniform { .. } => Rate::Uniform { frames: max },
                Rate::Fps { fps, .. } => Rate::Fps { fps, max_frames: max },
            },
        };
        // Who asks for a rate gets it, with an odd frame at the end if it comes so.
        let (spread, min_frames, multiple_of) =
            if self.fps.is_none() { (frames.spread, frames.min, frames.multiple_of) } else { (Spread::Middles, 1, 1) };
        let default = Sampling::default();
        Sampling {
            rate,
            spread,
            start_s: self.start_s,
            end_s: self.end_s,
            folder_fps: self.folder_fps.unwrap_or(default.folder_fps),
            min_frames,
            multiple_of,
        }
    }

    /// Families that take a fixed number of frames take more of a video of `duration_s` that is long for it, as many as
    /// they are used to at most, where nothing else was asked for. `None` if `sampling` stays.
    pub(in crate::chat) fn of_long(
        &self,
        sampling: &Sampling,
        layout: &dyn Layout,
        duration_s: Option<f64>,
    ) -> Option<Sampling> {
        let Rate::Uniform { frames } = sampling.rate else { return None };
        if self.max_frames.is_some() || self.choice == FrameChoice::Even {
            return None;
        }
        let end = self.end_s.into_iter().chain(duration_s).fold(f64::INFINITY, f64::min);
        let seconds = Some(end - self.start_s.unwrap_or(0.0)).filter(|seconds| seconds.is_finite())?;
        let more = ((seconds / FAR_S).ceil() as usize).min(layout.frames().max);
        (more > frames).then_some(Sampling { rate: Rate::Uniform { frames: more }, ..*sampling })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{self, EncoderFacts};

    #[test]
    fn frames_asked_for_override_the_family() {
        let internvl = layout::InternVl::new(&EncoderFacts::default());
        let rate =
            |fps, max_frames| VideoOptions { fps, max_frames, ..VideoOptions::default() }.sampling(&internvl).rate;
        assert_eq!(rate(None, None), Rate::Uniform { frames: 8 });
        assert_eq!(rate(None, Some(4)), Rate::Uniform { frames: 4 });
        assert_eq!(rate(Some(2.0), None), Rate::Fps { fps: 2.0, max_frames: 32 });
        assert_eq!(rate(Some(2.0), Some(5)), Rate::Fps { fps: 2.0, max_frames: 5 });
        let of_long = |options: &VideoOptions, seconds| {
            options.of_long(&options.sampling(&internvl), &internvl, seconds).map(|sampling| sampling.rate)
        };
        let default = VideoOptions::default();
        assert_eq!([None, Some(240.0)].map(|seconds| of_long(&default, seconds)), [None, None]);
        assert_eq!(of_long(&default, Some(600.0)), Some(Rate::Uniform { frames: 20 }));
        assert_eq!(of_long(&default, Some(10_800.0)), Some(Rate::Uniform { frames: 32 }));
        let part = VideoOptions { start_s: Some(100.0), end_s: Some(200.0), ..default.clone() };
        assert_eq!(of_long(&part, Some(10_800.0)), None);
        for options in [
            VideoOptions { max_frames: Some(8), ..default.clone() },
            VideoOptions { choice: FrameChoice::Even, ..default.clone() },
            VideoOptions { fps: Some(0.1), ..default },
        ] {
            assert_eq!(of_long(&options, Some(10_800.0)), None);
        }
        let general = VideoOptions { max_frames: Some(5), ..VideoOptions::default() }.sampling(&layout::General).rate;
        assert_eq!(general, Rate::Fps { fps: 1.0, max_frames: 5 });
    }
}
