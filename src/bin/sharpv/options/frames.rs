//! Which frames of a video to take.

use crate::values;
use clap::{Args, ValueEnum};
use sharpv::chat::{self, FrameChoice};

/// The values of `--frames-by`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FramesBy {
    Auto,
    Even,
    Changes,
}

/// What all commands that read videos have in common.
#[derive(Debug, Args)]
#[command(next_help_heading = "Frames")]
pub struct FrameOptions {
    /// Frames to take for each second of video [default: the model family's]
    ///
    /// docs/layouts.md has that of each family.
    #[arg(long, value_name = "N", value_parser = values::rate)]
    fps: Option<f64>,

    /// Take no more frames than this; without --fps, the number of frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_frames: Option<u32>,

    /// Where they are fewer than one in two seconds: frames at even distances, or those that show what changes, found
    /// by looking the video over first; `auto` does that
    #[arg(long, value_name = "HOW", value_enum, default_value = "auto")]
    frames_by: FramesBy,

    /// Images for each second of a folder of numbered images [default: 1; `eval mvbench`: 3]
    #[arg(long, value_name = "N", value_parser = values::rate)]
    folder_fps: Option<f64>,
}

impl FrameOptions {
    /// These frames, of the whole video.
    pub fn of_whole_video(&self) -> chat::VideoOptions {
        let &Self { fps, max_frames, frames_by, folder_fps } = self;
        chat::VideoOptions {
            fps,
            max_frames: max_frames.map(|n| n as usize),
            folder_fps,
            choice: match frames_by {
                FramesBy::Auto => FrameChoice::Auto,
                FramesBy::Even => FrameChoice::Even,
                FramesBy::Changes => FrameChoice::Changes,
            },
            ..chat::VideoOptions::default()
        }
    }
}

/// Which part of a video a question is about.
#[derive(Debug, Args)]
#[command(next_help_heading = "Frames")]
pub struct ZoomOptions {
    /// A question that names a time (12:30, minute 5, from 1:00 to 1:20) gets more frames of that part, where a long
    /// video has few; not with this
    #[arg(long)]
    pub no_zoom: bool,

    /// Look for what a long video shows once ("Is there a dog?")
    ///
    /// Each part of the last video is asked about alone first, and the answer is given from the one that says something
    /// else than the others. Not for what all of it is about.
    #[arg(long)]
    pub search: bool,
}

/// Frames, the part of the video that they are taken of, and what to do where they are too many.
#[derive(Debug, Args)]
#[command(next_help_heading = "Frames")]
pub struct VideoOptions {
    #[command(flatten)]
    frames: FrameOptions,

    /// Where to begin: seconds or [H:]MM:SS [default: its start]
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    start: Option<f64>,

    /// Where to end: seconds or [H:]MM:SS [default: its end]
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    end: Option<f64>,

    /// Take fewer frames, smaller images or fewer visual tokens where a video does not fit; what is asked for stays
    /// [default]
    #[arg(long, overrides_with = "no_fit")]
    fit: bool,

    /// Refuse a video that does not fit
    #[arg(long, overrides_with = "fit")]
    no_fit: bool,

    /// Decode a frame when the one before is encoded, not while it is
    #[arg(long)]
    no_decode_ahead: bool,
}

impl VideoOptions {
    /// What they mean to the library.
    pub fn options(&self) -> chat::VideoOptions {
        chat::VideoOptions { start_s: self.start, end_s: self.end, ..self.frames.of_whole_video() }
    }

    /// Whether a video may be made to fit.
    pub fn fits(&self) -> bool {
        self.fit || !self.no_fit
    }

    /// Whether frames are decoded while others are encoded.
    pub fn decodes_ahead(&self) -> bool {
        !self.no_decode_ahead
    }
}
