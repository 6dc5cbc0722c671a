//! What an encoded video is: its arrangement in the prompt, and the embeddings of the visual tokens that are kept.
//!
//! The ground of this folder: prompt, cache, session and live video all work with it, and it knows none of them.

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

/// A video as the prompt needs it: its arrangement, and the embeddings of the kept tokens.
#[derive(Debug, Clone)]
pub(in crate::chat) struct EncodedVideo {
    /// Tells it from others.
    pub id: VideoId,
    /// What was opened.
    pub info: VideoInfo,
    /// How it stands in the prompt.
    pub arrangement: Arrangement,
    /// What the encoder puts around its slices.
    pub markers: Markers,
    /// One for each slice.
    pub slices: Vec<EncodedSlice>,
    /// How long each step took.
    pub timings: EncodeTimings,
    /// Tokens that are kept at most, whatever the pruning wants: what there was room for when it was planned.
    pub max_kept: Option<usize>,
    /// The embeddings of all tokens, slice by slice, for selecting anew; empty if they were not to be kept.
    pub unpruned: Vec<Vec<f32>>,
    /// Which frames were taken; `None` if it was encoded in another session.
    pub sampling: Option<Sampling>,
    /// How its frames were chosen, if it was by what changes.
    pub survey: Option<SurveyReport>,
}

impl EncodedVideo {
    /// One whose slices are still to come.
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

/// The visual tokens of a frame, or of a merged pair of frames.
#[derive(Debug, Clone, Default)]
pub(in crate::chat) struct EncodedSlice {
    /// Where in the video its frames are, in seconds, ascending: one for each, so that their number is that of its
    /// frames.
    pub times_s: Vec<f64>,
    /// Visual tokens before pruning.
    pub n_tokens: usize,
    /// The kept tokens, ascending, numbered over all images that the encoder made of the slice.
    pub kept: Vec<u32>,
    /// Their embeddings, `[kept × n_embd_inp]`.
    pub rows: Vec<f32>,
    /// Tokens, ascending, that did not go through all of the encoder and may not be kept.
    pub unfinished: Vec<u32>,
    /// The share of the encoder's work that was done, 0 to 1; 0 if the slice before had the same pixels.
    pub computed: f32,
    /// What the encoder did of it, where it can leave out something.
    pub cells: Option<EncoderCells>,
    /// What is kept for looking at, if that was asked for.
    pub notes: Option<Box<Notes>>,
    /// It left video that goes on: nothing is kept of it, and the text around it goes as well.
    pub has_left: bool,
}

impl EncodedSlice {
    /// Where in the video its first frame is, in seconds.
    pub fn time_s(&self) -> f64 {
        self.times_s.first().copied().unwrap_or_default()
    }

    /// Whether some of its embeddings are what the encoder gave for a slice before, or did not finish.
    pub fn is_estimated(&self) -> bool {
        self.cells.is_some() && self.computed < 1.0
    }

    /// How many frames it shows.
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

/// Runs `work` and adds the time it takes to `total`.
pub(in crate::chat) fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}
