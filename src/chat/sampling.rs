//! Which frames of a video are sampled: the user's options, and the defaults of the model's family.

use crate::layout::Layout;
use crate::video::{Rate, Sampling, Spread};

/// Which frames of a video to sample. The model's family decides what is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VideoOptions {
    /// Frames per second of video.
    pub fps: Option<f64>,
    /// The maximum number of frames. Without `fps`, families that sample a fixed number of frames sample
    /// this many.
    pub max_frames: Option<usize>,
    /// Where sampling begins, in seconds.
    pub start_s: Option<f64>,
    /// Where sampling ends, in seconds.
    pub end_s: Option<f64>,
    /// Frame rate of a folder of frames, in frames per second; 1 by default.
    pub folder_fps: Option<f64>,
    /// How frames are chosen where the limit does not allow the full rate.
    pub choice: FrameChoice,
    /// The question that will follow, as far as it is known. Its tokens are reserved, and if it is too long, the error
    /// comes before a frame is encoded.
    pub question: String,
}

/// Maximum seconds between the frames of a long video, for families that sample a fixed number of frames but can take
/// more.
const MAX_GAP_S: f64 = 30.0;

/// How frames are chosen in a video that is too long for the full rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FrameChoice {
    /// By what changes, if evenly spaced frames would be two seconds apart or more.
    #[default]
    Auto,
    /// Evenly spaced frames.
    Even,
    /// By what changes: a survey of the video comes first, so that what appears only briefly gets a frame too.
    Changes,
}

impl FrameChoice {
    /// Whether a survey, which looks at `n_looks` images, chooses the `n_frames` frames.
    pub(in crate::chat) fn needs_survey(self, n_frames: usize, n_looks: u64) -> bool {
        let n_frames = n_frames as u64;
        match self {
            Self::Auto => n_looks >= n_frames.saturating_mul(LOOKS_PER_FRAME),
            Self::Even => false,
            Self::Changes => n_looks > n_frames,
        }
    }
}

/// From this many looks per frame (a survey looks once a second), evenly spaced frames miss much.
const LOOKS_PER_FRAME: u64 = 2;

impl VideoOptions {
    /// The same options, with `question` as the question that will follow.
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
        // A requested rate is kept as it is, even if the number of frames is odd.
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

    /// More frames for a video of `duration_s` seconds that is too long for a family's fixed number of frames, up to
    /// the family's maximum. `None` if `sampling` stays: the video is not that long, or the user requested something
    /// else.
    pub(in crate::chat) fn for_long_video(
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
        let more = ((seconds / MAX_GAP_S).ceil() as usize).min(layout.frames().max);
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
        let for_long_video = |options: &VideoOptions, seconds| {
            options.for_long_video(&options.sampling(&internvl), &internvl, seconds).map(|sampling| sampling.rate)
        };
        let default = VideoOptions::default();
        assert_eq!([None, Some(240.0)].map(|seconds| for_long_video(&default, seconds)), [None, None]);
        assert_eq!(for_long_video(&default, Some(600.0)), Some(Rate::Uniform { frames: 20 }));
        assert_eq!(for_long_video(&default, Some(10_800.0)), Some(Rate::Uniform { frames: 32 }));
        let part = VideoOptions { start_s: Some(100.0), end_s: Some(200.0), ..default.clone() };
        assert_eq!(for_long_video(&part, Some(10_800.0)), None);
        for options in [
            VideoOptions { max_frames: Some(8), ..default.clone() },
            VideoOptions { choice: FrameChoice::Even, ..default.clone() },
            VideoOptions { fps: Some(0.1), ..default },
        ] {
            assert_eq!(for_long_video(&options, Some(10_800.0)), None);
        }
        let general = VideoOptions { max_frames: Some(5), ..VideoOptions::default() }.sampling(&layout::General).rate;
        assert_eq!(general, Rate::Fps { fps: 1.0, max_frames: 5 });
    }
}
