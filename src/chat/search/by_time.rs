//! Zoom: adds frames of the part of a video that a question names.
//!
//! Frames of a long video are seconds or minutes apart, and a question about `12:30` is answered from whichever is
//! nearest. So frames of that part alone are added before the question, as many as of a short video.

use super::named::Named;
use crate::chat::encoded::EncodedVideo;
use crate::chat::report::VideoReport;
use crate::chat::sampling::{FrameChoice, VideoOptions};
use crate::layout::clock;
use crate::video::{Kind, VideoInfo};
use serde::Serialize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Seconds of video before and after a named moment.
const AROUND_S: f64 = 8.0;

/// The maximum number of frames of a part.
const MAX_FRAMES: usize = 16;

/// Frames per second of a part, if that is at most [`MAX_FRAMES`] in all.
const FPS: f64 = 1.0;

/// A part is not zoomed if it already has this share of the frames that zooming would add.
const ENOUGH: f64 = 0.5;

/// The part of a video that was zoomed.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Zoom {
    /// The start of the part, in seconds.
    pub start_s: f64,
    /// The end of the part, in seconds.
    pub end_s: f64,
    /// Frames of the part that the conversation had before.
    pub frames_before: usize,
    /// Frames that were added.
    pub frames: usize,
    /// The report of the frames that were added.
    #[serde(skip)]
    pub report: VideoReport,
}

impl std::fmt::Display for Zoom {
    /// The times of the part: `12:22 to 12:38`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", clock(self.start_s), clock(self.end_s))
    }
}

/// Frames to add to a conversation.
#[derive(Debug)]
pub(in crate::chat) struct CloserLook {
    pub path: PathBuf,
    pub options: VideoOptions,
    pub part: Range<f64>,
    /// Frames of the part that the conversation has already.
    pub frames_before: usize,
}

impl CloserLook {
    /// Returns the frames to add for `question`, from the last of `videos`. `None` if the question names no part, if
    /// the conversation has enough frames of it, or if the video cannot be read again.
    pub fn of(question: &str, videos: &[Arc<EncodedVideo>]) -> Option<Self> {
        let is_whole = |info: &VideoInfo| matches!(info.kind, Kind::Video | Kind::Animation | Kind::FrameFolder);
        let info = &videos.iter().rev().find(|video| is_whole(&video.info))?.info;
        let duration_s = info.duration_s.filter(|_| info.path.exists())?;
        let part = part(&Named::of(question)?, duration_s)?;
        let fps = (MAX_FRAMES as f64 / (part.end - part.start)).min(FPS);
        let wanted = ((part.end - part.start) * fps).ceil();
        let of_path = videos.iter().filter(|video| video.info.path == info.path);
        let times = of_path.flat_map(|video| &video.slices).flat_map(|slice| &slice.times_s);
        let frames_before = times.filter(|time| part.contains(*time)).count();
        if frames_before as f64 >= ENOUGH * wanted {
            return None;
        }
        let options = VideoOptions {
            fps: Some(fps),
            max_frames: Some(MAX_FRAMES),
            start_s: Some(part.start),
            end_s: Some(part.end),
            folder_fps: info.fps.filter(|_| info.kind == Kind::FrameFolder),
            choice: FrameChoice::Even,
            question: question.to_owned(),
        };
        Some(Self { path: info.path.clone(), options, part, frames_before })
    }
}

/// The part of a video of `duration_s` seconds that `named` means; `None` if less than a second of it is in the video.
fn part(named: &Named, duration_s: f64) -> Option<Range<f64>> {
    let (start, end) = match *named {
        Named::Moment(at) => (at - AROUND_S, at + AROUND_S),
        Named::Span(from, to) => (from, to),
    };
    let (start, end) = (start.max(0.0), end.min(duration_s));
    (end - start >= 1.0).then_some(start..end)
}
