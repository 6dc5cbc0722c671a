use crate::options::{SessionArgs, ZoomOptions};
use clap::Args;
use std::path::PathBuf;

/// Chat about videos. `/help` lists the commands of the chat.
///
/// Ctrl-C stops an answer, Ctrl-D ends the chat. If stdin is not a terminal, every line is a question or a command, and
/// the first one that fails ends the chat.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ChatArgs {
    /// Videos to start with; `/video FILE` adds more
    #[arg(value_name = "VIDEO")]
    pub videos: Vec<PathBuf>,

    #[command(flatten)]
    pub zoom: ZoomOptions,

    #[command(flatten)]
    pub session: SessionArgs,
}

const EXAMPLES: &str = "\
Examples:
  sharpv chat
  sharpv chat clip.mp4 --keep 0.3
  sharpv chat clip.mp4 --max-frames 16 --system-prompt \"Answer in one sentence.\"
  printf 'What is in the video?\\nWhere is it?\\n' | sharpv chat clip.mp4";
