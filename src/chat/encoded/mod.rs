//! An encoded video: its arrangement in the prompt, and the embeddings of its kept visual tokens.
//!
//! The prompt, the cache, the session and live video use this module. It depends on none of them.

pub(in crate::chat) mod arrangement;
mod id;
pub(in crate::chat) mod markers;
pub(in crate::chat) mod notes;

pub(in crate::chat) use id::VideoId;

use crate::error::Result;
use crate::runtime::{Model, Vision};
use crate::video::{Sampling, SurveyReport, VideoInfo};
use arrangement::Arrangement;
use markers::Markers;
use notes::{EncoderCells, Notes};
use std::time::{Duration, Instant};

/// An encoded video: its arrangement in the prompt, and the embeddings of its kept tokens.
#[derive(Debug, Clone)]
pub(in crate::chat) struct EncodedVideo {
    /// Distinguishes it from other videos.
    pub id: VideoId,
    /// The video that was opened.
    pub info: VideoInfo,
    /// Its text and slices in the prompt.
    pub arrangement: Arrangement,
    /// The encoder's markers around its slices.
    pub markers: Markers,
    /// Its slices, in order of time.
    pub slices: Vec<EncodedSlice>,
    /// The time that each step took.
    pub timings: EncodeTimings,
    /// The maximum number of kept tokens, whatever the pruning method decides: as many as fit when the video was
    /// planned.
    pub max_kept: Option<usize>,
    /// The embeddings of all tokens, slice by slice, for pruning again; empty unless the session keeps them.
    pub unpruned: Vec<Vec<f32>>,
    /// Which frames were sampled; `None` if another session encoded the video.
    pub sampling: Option<Sampling>,
    /// The survey that its frames were chosen by, if there was one.
    pub survey: Option<SurveyReport>,
}

impl EncodedVideo {
    /// A video without slices, which are added later.
    pub fn empty(model: &Model, vision: &Vision, info: &VideoInfo, arrangement: Arrangement) -> Result<Self> {
        Ok(Self {
            id: VideoId::new(),
            info: info.clone(),
            markers: Markers::of(model, vision, &arrangement)?,
            arrangement,
            slices: Vec::new(),
            timings: EncodeTimings::default(),
            max_kept: None,
            unpruned: Vec::new(),
            sampling: None,
            survey: None,
        })
    }
}

/// The visual tokens of a frame, or of a pair of frames that the encoder merges.
#[derive(Debug, Clone, Default)]
pub(in crate::chat) struct EncodedSlice {
    /// The times of its frames in the video, in seconds, ascending, one per frame.
    pub times_s: Vec<f64>,
    /// Visual tokens before pruning.
    pub n_tokens: usize,
    /// The indices of the kept tokens, ascending, counted over all images of the slice.
    pub kept: Vec<u32>,
    /// The embeddings of the kept tokens, `[kept × n_embd_inp]`.
    pub rows: Vec<f32>,
    /// The indices, ascending, of tokens that did not pass all layers of the encoder and must not be kept.
    pub unfinished: Vec<u32>,
    /// The share of the encoder's work that was done, 0 to 1; 0 if the previous slice had the same pixels.
    pub computed: f32,
    /// What the encoder did with each cell, if it can skip cells.
    pub cells: Option<EncoderCells>,
    /// Notes for inspection, if the session takes them.
    pub notes: Option<Box<Notes>>,
    /// It was removed from live video: none of its tokens is kept, and its text is dropped too.
    pub is_removed: bool,
}

impl EncodedSlice {
    /// The time of its first frame in the video, in seconds.
    pub fn time_s(&self) -> f64 {
        self.times_s.first().copied().unwrap_or_default()
    }

    /// Whether the encoder reused some of its embeddings from an earlier slice, or did not finish them.
    pub fn is_estimated(&self) -> bool {
        self.cells.is_some() && self.computed < 1.0
    }

    /// The number of its frames.
    pub fn n_frames(&self) -> usize {
        self.times_s.len()
    }
}

/// Wall time of the steps before prefill.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::chat) struct EncodeTimings {
    pub decode_video: Duration,
    pub encode: Duration,
    pub prune: Duration,
}

impl std::ops::AddAssign for EncodeTimings {
    fn add_assign(&mut self, other: Self) {
        self.decode_video += other.decode_video;
        self.encode += other.encode;
        self.prune += other.prune;
    }
}

/// Runs `work` and adds its wall time to `total`.
pub(in crate::chat) fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}
