//! What a request says about videos: which frames to take, and the object `sharpv`.

use super::whole::Whole;
use serde::Deserialize;

/// Which frames of a video to take.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(in crate::serve) struct FrameParams {
    pub fps: Option<f64>,
    /// −1: as many as the server allows.
    #[serde(alias = "max_frames")]
    pub num_frames: Option<Whole>,
    pub start: Option<f64>,
    pub end: Option<f64>,
    pub frames_by: Option<FramesBy>,
}

/// How to choose the frames of a long video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::serve) enum FramesBy {
    Auto,
    Even,
    Changes,
}

impl FrameParams {
    /// Takes from `other` what is not set here.
    pub fn or(self, other: Self) -> Self {
        Self {
            fps: self.fps.or(other.fps),
            num_frames: self.num_frames.or(other.num_frames),
            start: self.start.or(other.start),
            end: self.end.or(other.end),
            frames_by: self.frames_by.or(other.frames_by),
        }
    }
}

/// The object `sharpv` of a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::serve) struct SharpvParams {
    pub fps: Option<f64>,
    #[serde(alias = "max_frames")]
    pub num_frames: Option<Whole>,
    pub start: Option<f64>,
    pub end: Option<f64>,
    pub frames_by: Option<FramesBy>,
    /// The keep ratio of visual tokens.
    pub keep: Option<f32>,
    pub max_visual_tokens: Option<Whole>,
    /// The pruning method.
    pub prune: Option<String>,
    /// What to evict from the KV cache.
    pub evict: Option<String>,
    /// Whether the images of a message are images or the frames of one video.
    pub images: Option<ImagesAre>,
    /// The rate of a list of frames, in frames per second.
    pub frames_fps: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::serve) enum ImagesAre {
    Images,
    Frames,
}

impl SharpvParams {
    pub fn frames(&self) -> FrameParams {
        let &Self { fps, num_frames, start, end, frames_by, .. } = self;
        FrameParams { fps, num_frames, start, end, frames_by }
    }
}
