use crate::options::{AllEncodeOptions, EvictOptions, ModelOptions, VideoOptions};
use crate::values;
use clap::Args;
use sharpv::lab::cost::ScalingSize;
use sharpv::prune::Method;
use std::path::PathBuf;

/// See [`Command::Bench`](super::Command::Bench).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// A video, an animation, an image, or a folder of numbered images
    #[arg(value_name = "VIDEO", required_unless_present = "synthetic")]
    pub video: Option<PathBuf>,

    /// The question to answer
    #[arg(value_name = "QUESTION", default_value = "Describe in detail what happens in the video.")]
    pub question: String,

    /// Methods to compare; ratios are relative to the first
    #[arg(long, value_name = "METHOD,…", value_delimiter = ',', default_value = "dense,sharpv")]
    #[arg(value_parser = values::bench_method())]
    pub methods: Vec<Method>,

    /// Keep this share of the visual tokens with all methods but dense, 0 to 1
    ///
    /// [default: as much as each method decides]
    #[arg(long, value_name = "SHARE", value_parser = values::share)]
    pub keep: Option<f32>,

    /// Runs of each method
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub repeats: u16,

    /// The most tokens in an answer, which is generated at temperature 0
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub predict: u32,

    /// Also measure synthetic videos, without an encoder
    ///
    /// For each size, pruning, prefill and decoding of FRAMES frames with TOKENS visual tokens each.
    #[arg(long, value_name = "FRAMESxTOKENS,…", value_delimiter = ',')]
    pub synthetic: Vec<ScalingSize>,

    /// Print one JSON object instead of the tables
    #[arg(long)]
    pub json: bool,

    /// Write bench.json, bench.md, images and an HTML page to this folder
    #[arg(long, value_name = "DIR", value_parser = values::folder())]
    pub out: Option<PathBuf>,

    /// Decode each frame after the previous one is encoded, not meanwhile
    #[arg(long)]
    pub no_decode_ahead: bool,

    /// Measure the memory of one method and print it; the program runs itself with this option
    #[arg(long, value_name = "METHOD", value_parser = values::bench_method(), hide = true)]
    pub measure_memory: Option<Method>,

    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub frames: VideoOptions,
    #[command(flatten)]
    pub evict: EvictOptions,
    #[command(flatten)]
    pub encode: AllEncodeOptions,
}

const EXAMPLES: &str = "\
Examples:
  sharpv bench clip.mp4
  sharpv bench clip.mp4 --methods dense,sharpv,random,divprune --keep 0.2 --out results
  sharpv bench --synthetic 8x64,16x64,32x64,64x64 --out results
  sharpv bench clip.mp4 -m ggml-org/SmolVLM2-500M-Video-Instruct-GGUF --repeats 9 --json";
