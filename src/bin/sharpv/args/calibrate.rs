use crate::options::{FrameOptions, ModelOptions, PruneOptions};
use clap::Args;
use sharpv::lab::calibrate::DEFAULT_MAX_LOSS;
use std::path::PathBuf;

/// See [`Command::Calibrate`](super::Command::Calibrate).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CalibrateArgs {
    /// At least 2 videos like those that the model will be asked about [default: 12 generated clips]
    #[arg(value_name = "VIDEO")]
    pub videos: Vec<PathBuf>,

    /// A question to ask about each video; repeatable
    ///
    /// [default: five questions of different kinds]
    #[arg(long = "question", value_name = "TEXT")]
    pub questions: Vec<String>,

    /// How much probability the tokens of answers may lose on average, 0 to 1; more frees more layers
    #[arg(long, value_name = "LOSS", default_value_t = DEFAULT_MAX_LOSS)]
    pub max_quality_loss: f64,

    /// Write the profile to this file instead of the cache folder
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Print the profile as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub frames: FrameOptions,
    #[command(flatten)]
    pub prune: PruneOptions,
    #[command(flatten)]
    pub model: ModelOptions,
}

const EXAMPLES: &str = "\
Examples:
  sharpv calibrate
  sharpv calibrate -m ggml-org/SmolVLM2-500M-Video-Instruct-GGUF
  sharpv calibrate one.mp4 two.mp4 three.mp4 four.mp4 --question \"What happens?\" --max-quality-loss 0.05";
