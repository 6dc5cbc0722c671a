use crate::options::{SessionArgs, ZoomOptions};
use clap::Args;
use std::path::PathBuf;

/// Ask one question about a video. The answer streams to stdout; a line of statistics follows on stderr.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AskArgs {
    /// A video, an animation, an image, or a folder of numbered images
    #[arg(value_name = "VIDEO")]
    pub video: PathBuf,

    /// The question; `-` reads it from stdin
    #[arg(value_name = "QUESTION")]
    pub question: String,

    /// Add another video after VIDEO; repeatable
    #[arg(long = "video", value_name = "FILE")]
    pub more_videos: Vec<PathBuf>,

    /// Print one JSON object instead of the answer and the statistics
    ///
    /// It contains the answer, visual tokens, timings and KV cache (docs/ask-json.md).
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub zoom: ZoomOptions,

    #[command(flatten)]
    pub session: SessionArgs,
}

const EXAMPLES: &str = "\
Examples:
  sharpv ask clip.mp4 \"What moves in the video?\"
  sharpv ask clip.mp4 \"What is said on the sign?\" --start 1:30 --end 1:40 --fps 2
  sharpv ask clip.mp4 \"Is there a dog?\" --grammar 'root ::= \"Yes.\" | \"No.\"'
  sharpv ask clip.mp4 \"Describe the video.\" --prune off --json
  sharpv ask clip.mp4 \"Describe the video.\" -m ggml-org/SmolVLM2-500M-Video-Instruct-GGUF
  sharpv ask clip.mp4 \"Describe the video.\" -m MODEL.gguf --mmproj MMPROJ.gguf";
