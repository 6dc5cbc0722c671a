//! A closer look at the part of a video that a question names.
//!
//! A long video has a frame in some seconds or minutes. A question about `12:30` is answered from what happens to be
//! near; so frames of that part alone are added before the question, as many as a short video has.

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

/// Seconds before and after a moment that is named.
const AROUND_S: f64 = 8.0;

/// The most frames of a part.
const MAX_FRAMES: usize = 16;

/// Frames for each second of a part, if that is not more than there may be.
const FPS: f64 = 1.0;

/// A part that has this share of the frames already that it would be given is not looked at again.
const ENOUGH: f64 = 0.5;

/// The part of a video that was looked at again.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Zoom {
    /// Where the part begins, in seconds.
    pub start_s: f64,
    /// Where it ends, in seconds.
    pub end_s: f64,
    /// Frames that were there of it.
    pub frames_before: usize,
    /// Frames that were added.
    pub frames: usize,
    /// What was added.
    #[serde(skip)]
    pub report: VideoReport,
}

impl std::fmt::Display for Zoom {
    /// The part: `12:22 to 12:38`.
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
    /// Frames of the part that the conversation has.
    pub frames_before: usize,
}

impl CloserLook {
    /// The frames to add for `question`, of the last of `videos`; `None` if it names no part, if the video has enough
    /// frames there, or if it cannot be read again.
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

/// What to look at of a video of `duration_s`; `None` if it is after the end.
fn part(named: &Named, duration_s: f64) -> Option<Range<f64>> {
    let (start, end) = match *named {
        Named::Moment(at) => (at - AROUND_S, at + AROUND_S),
        Named::Span(from, to) => (from, to),
    };
    let (start, end) = (start.max(0.0), end.min(duration_s));
    (end - start >= 1.0).then_some(start..end)
}
