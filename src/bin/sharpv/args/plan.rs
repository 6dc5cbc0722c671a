use crate::options::SessionArgs;
use clap::Args;
use std::path::PathBuf;

/// See [`Command::Plan`](super::Command::Plan).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    /// A video, an animation, an image, or a folder of numbered images
    #[arg(value_name = "VIDEO")]
    pub video: PathBuf,

    /// A question, which takes tokens as well
    #[arg(value_name = "QUESTION", default_value = "", hide_default_value = true)]
    pub question: String,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub session: SessionArgs,
}

const EXAMPLES: &str = "\
Examples:
  sharpv plan lecture.mp4
  sharpv plan lecture.mp4 --fps 2 --max-frames 256 --prune off
  sharpv plan lecture.mp4 -m MODEL.gguf --mmproj MMPROJ.gguf --max-memory 4G";
