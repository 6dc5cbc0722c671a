//! Which frames of a video are taken.

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

/// The options of every command that reads videos.
#[derive(Debug, Args)]
#[command(next_help_heading = "Frames")]
pub struct FrameOptions {
    /// Take N frames per second of video [default: as the model family does]
    ///
    /// docs/layouts.md lists what each family does.
    #[arg(long, value_name = "N", value_parser = values::rate)]
    fps: Option<f64>,

    /// Take at most N frames; without --fps, N frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_frames: Option<u32>,

    /// How frames are chosen: at equal distances (even); where the image changes, which a survey of the video finds
    /// (changes); where it changes if frames would be two seconds apart or more, else at equal distances (auto)
    #[arg(long, value_name = "HOW", value_enum, default_value = "auto")]
    frames_by: FramesBy,

    /// Images per second in a folder of numbered images [default: 1; `eval mvbench`: 3]
    #[arg(long, value_name = "N", value_parser = values::rate)]
    folder_fps: Option<f64>,
}

impl FrameOptions {
    /// The library's options for these frames, from the whole video.
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

/// How a question chooses the part of the video that it is about.
#[derive(Debug, Args)]
#[command(next_help_heading = "Frames")]
pub struct ZoomOptions {
    /// Do not add frames of the part that a question names (12:30, minute 5, from 1:00 to 1:20), which is done if a
    /// long video has few there
    #[arg(long)]
    pub no_zoom: bool,

    /// Search a long video for what it shows only briefly ("Is there a dog?")
    ///
    /// The model is first asked about each part of the last video alone, and then answers from the part whose answer
    /// differs from the others. Not for questions about the whole video.
    #[arg(long)]
    pub search: bool,
}

/// Which frames are taken, from which part of the video, and what happens if they do not fit.
#[derive(Debug, Args)]
#[command(next_help_heading = "Frames")]
pub struct VideoOptions {
    #[command(flatten)]
    frames: FrameOptions,

    /// Start here: seconds or [H:]MM:SS [default: the start of the video]
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    start: Option<f64>,

    /// End here: seconds or [H:]MM:SS [default: the end of the video]
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    end: Option<f64>,

    /// Fail if a video does not fit, instead of taking fewer frames, smaller images or fewer visual tokens
    #[arg(long)]
    no_fit: bool,
}

impl VideoOptions {
    /// The library's options for these frames.
    pub fn options(&self) -> chat::VideoOptions {
        chat::VideoOptions { start_s: self.start, end_s: self.end, ..self.frames.of_whole_video() }
    }

    /// Whether a video may be made to fit.
    pub fn fits(&self) -> bool {
        !self.no_fit
    }
}
