use crate::options::SessionArgs;
use crate::values;
use clap::Args;
use std::path::PathBuf;

/// See [`Command::Inspect`](super::Command::Inspect).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, mut_arg("prune", |arg| arg.value_parser(values::inspect_method())))]
pub struct InspectArgs {
    /// A video, an animation, an image, or a folder of numbered images
    #[arg(value_name = "VIDEO")]
    pub video: PathBuf,

    /// Also show the answer to this question and what happens in each layer; `-` reads it from stdin
    #[arg(short, long, value_name = "QUESTION")]
    pub question: Option<String>,

    /// Write the page to this file
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["png", "film", "json"], value_parser = values::file())]
    pub out: Option<PathBuf>,

    /// Write each frame, with dropped tokens dimmed, to this folder
    #[arg(long, value_name = "DIR", value_parser = values::folder())]
    pub png: Option<PathBuf>,

    /// Write these frames as a video: .mp4, .mov or .mkv
    #[arg(id = "film", long = "video", value_name = "FILE", value_parser = values::film())]
    pub film: Option<PathBuf>,

    /// Do not also run the video with all tokens for comparison
    ///
    /// That run takes as long as stock llama.cpp.
    #[arg(long)]
    pub no_dense: bool,

    /// Print the data of the page as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Print only errors
    // Here, the short form -q is the question.
    #[arg(id = "quiet", long, display_order = 1000, conflicts_with = "verbose")]
    pub quiet: bool,

    #[command(flatten)]
    pub session: SessionArgs,
}

const EXAMPLES: &str = "\
Examples:
  sharpv inspect clip.mp4 -o clip.html
  sharpv inspect clip.mp4 -q \"What moves in the video?\" -o clip.html
  sharpv inspect clip.mp4 --keep 0.1 --png frames --video kept.mp4
  sharpv inspect clip.mp4 -q \"What is in the video?\" -o clip.html -m MODEL.gguf --mmproj MMPROJ.gguf --no-dense";
