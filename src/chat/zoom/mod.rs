//! A closer look at the part of a video that a question names, or that its answer hangs on.
//!
//! A long video has a frame in some seconds or minutes. A question about `12:30` is answered from what happens to be
//! near; so frames of that part alone are added in front of the question, as many as a short video has.

mod named;
mod search;

pub(in crate::chat) use search::{LEAST_PARTS, PART};
pub use search::{Search, SearchedPart};

use super::answer::VideoReport;
use super::params::{FrameChoice, VideoOptions};
use super::session::Session;
use crate::error::{Error, Result};
use crate::layout::clock;
use crate::observer::Observer;
use crate::video::{Kind, Origin, VideoInfo};
use named::Named;
use serde::Serialize;
use std::ops::Range;

/// Seconds before and behind a moment that is named.
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

impl Session {
    /// Adds frames of the part of the last video that `question` names, for this question: around a moment (`12:30`,
    /// `at 90 s`, `minute 5`) or between two of them. Does nothing if it names none, if the video has enough frames
    /// there, or if it cannot be read again: frames in memory, or a video of a saved session whose file is gone.
    ///
    /// The frames are encoded as those of any video, and stay in the conversation.
    ///
    /// # Errors
    /// As [`add_video_for`](Self::add_video_for).
    pub fn zoom(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Option<Zoom>> {
        let videos = &self.conversation.videos;
        let is_whole = |info: &VideoInfo| matches!(info.kind, Kind::Video | Kind::Animation | Kind::FrameFolder);
        let Some(video) = videos.iter().rev().find(|video| is_whole(&video.info)) else {
            return Ok(None);
        };
        let info = video.info.clone();
        let Some(duration_s) = info.duration_s.filter(|_| info.path.exists()) else { return Ok(None) };
        let Some(part) = Named::of(question).and_then(|named| part(&named, duration_s)) else { return Ok(None) };
        let options = VideoOptions {
            fps: Some((MAX_FRAMES as f64 / (part.end - part.start)).min(FPS)),
            max_frames: Some(MAX_FRAMES),
            start_s: Some(part.start),
            end_s: Some(part.end),
            folder_fps: info.fps.filter(|_| info.kind == Kind::FrameFolder),
            choice: FrameChoice::Even,
        };
        let wanted = ((part.end - part.start) * options.fps.unwrap_or(FPS)).ceil();
        let of_path = videos.iter().filter(|video| video.info.path == info.path);
        let times = of_path.flat_map(|video| &video.slices).flat_map(|slice| &slice.times_s);
        let frames_before = times.filter(|time| part.contains(*time)).count();
        if frames_before as f64 >= ENOUGH * wanted {
            return Ok(None);
        }
        let added = match self.encode(Origin::Path(&info.path), &options, question, observer) {
            // The question can be answered from what is there.
            Err(error @ Error::PromptTooLong { .. }) => {
                observer.warning(&format!("frames around the time in the question were not added: {error}"));
                return Ok(None);
            }
            added => added?,
        };
        let report = self.add(added);
        let (start_s, end_s, frames) = (part.start, part.end, report.frames());
        Ok(Some(Zoom { start_s, end_s, frames_before, frames, report }))
    }
}

/// What to look at of a video of `duration_s`; `None` if it is behind the end.
fn part(named: &Named, duration_s: f64) -> Option<Range<f64>> {
    let (start, end) = match *named {
        Named::Moment(at) => (at - AROUND_S, at + AROUND_S),
        Named::Span(from, to) => (from, to),
    };
    let (start, end) = (start.max(0.0), end.min(duration_s));
    (end - start >= 1.0).then_some(start..end)
}
