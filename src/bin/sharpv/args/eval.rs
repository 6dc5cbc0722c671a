use crate::options::{EncoderOptions, EvictOptions, FrameOptions, ModelOptions, WeightOptions};
use crate::values;
use clap::Args;
use sharpv::chat::Thinking;
use sharpv::lab::eval::{Score, Task};
use sharpv::prune::PruneParams;
use sharpv::skip::EncodeMode;
use std::path::PathBuf;

/// See [`Command::Eval`](super::Command::Eval).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// The benchmark; jsonl is a file of your own
    #[arg(value_name = "TASK", value_parser = values::one_of::<Task>())]
    pub task: Task,

    /// The dataset: its folder, or the file with the questions
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,

    /// The folder to look for videos in first [default: next to the questions]
    ///
    /// Videos are expected where the dataset puts them. In jsonl, absolute paths may point into this folder.
    #[arg(long, value_name = "DIR")]
    pub videos: Option<PathBuf>,

    /// The folder for results, including those of a stopped run [default: sharpv-eval-TASK]
    #[arg(long, value_name = "DIR", value_parser = values::folder())]
    pub out: Option<PathBuf>,

    /// Pruning methods to compare; `dense` keeps all visual tokens
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "dense,sharpv")]
    pub methods: Vec<String>,

    /// Shares of the visual tokens that each method keeps
    ///
    /// With `auto`, the method decides how much each video needs.
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',', default_value = "auto")]
    pub budgets: Vec<String>,

    /// Ways to encode frames, each with every method: all of each frame (exact), only what changed since the previous
    /// frame (reuse), to the last layer only what may be kept (stop), both (fast), what the model's encoder supports
    /// (auto)
    #[arg(long, value_name = "HOW,…", value_delimiter = ',', default_value = "exact",
        value_parser = values::one_of::<EncodeMode>())]
    pub encode: Vec<EncodeMode>,

    /// How the model's choice is determined
    ///
    /// By the letter that it generates, or by the letter that it finds likeliest, which is steadier with small models.
    #[arg(long, value_name = "HOW", default_value = "generate", value_parser = values::one_of::<Score>())]
    pub score: Score,

    /// Work on N videos in parallel
    ///
    /// Each takes the memory of a session, and --threads threads or its share of the cores.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = values::jobs())]
    pub jobs: usize,

    /// Ask only the first N questions
    ///
    /// Applies after --category and --shuffle.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,

    /// Ask only the questions of this category: its name, or KIND=NAME
    #[arg(long, value_name = "NAME")]
    pub category: Option<String>,

    /// Ask in random order; with --limit, a random sample
    ///
    /// The same SEED gives the same order.
    #[arg(long, value_name = "SEED")]
    pub shuffle: Option<u64>,

    /// The most tokens in an answer [default: 16 for a choice, 64 for an open answer]
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub predict: Option<u32>,

    /// Let the model think before it answers: off, on, or for at most N tokens, which are added to those of an answer
    ///
    /// `on` requires -n, and with -n, N is part of it. A model that thinks cannot be scored by likelihood.
    #[arg(long, value_name = "off|on|N", default_value = "off", value_parser = values::thinking,
        allow_negative_numbers = true)]
    pub think: Thinking,

    /// The seed of the method random
    #[arg(short, long, value_name = "N", default_value_t = PruneParams::default().seed)]
    pub seed: u64,

    #[command(flatten)]
    pub frames: FrameOptions,
    #[command(flatten)]
    pub weights: WeightOptions,
    #[command(flatten)]
    pub evict: EvictOptions,
    #[command(flatten)]
    pub encoder: EncoderOptions,
    #[command(flatten)]
    pub model: ModelOptions,
}

const EXAMPLES: &str = "\
Examples:
  sharpv eval videomme --data VideoMME -m MODEL.gguf --max-frames 32
  sharpv eval mvbench --data MVBench --methods dense,sharpv,random,uniform --budgets 0.05,0.1,0.25 --score likelihood
  sharpv eval nextqa --data NExTQA/test.csv --videos NExTQA/NExTVideo --limit 500 --shuffle 1
  sharpv eval jsonl --data questions.jsonl --methods dense,sharpv --out results

A line of a file of your own (paths are relative to the file; choices, start, end and category are optional):
  {\"video\": \"a.mp4\", \"question\": \"What moves?\", \"choices\": [\"a cat\", \"a car\"], \"answer\": \"a car\", \"category\": \"motion\"}";
