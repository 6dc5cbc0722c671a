//! What methods cost. Written to `bench.json`.

use super::answers::RunSettings;
use super::spread::Spread;
use crate::chat::{Kv, VisualTokens};
use crate::prune::Budget;
use serde::{Deserialize, Serialize};

/// The format of `bench.json`; it grows when a key changes its meaning.
pub const BENCH_FORMAT: u32 = 1;

/// Everything that one benchmark measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bench {
    /// What this is: `bench`.
    pub kind: String,
    /// [`BENCH_FORMAT`].
    pub format: u32,
    /// The version of sharpv.
    pub version: String,
    /// Where it ran.
    pub machine: Machine,
    /// Methods on a video.
    pub video: Option<VideoBench>,
    /// Time and memory against length.
    pub scaling: Option<Scaling>,
}

impl Bench {
    /// A bench without results yet, on `machine`.
    pub fn new(machine: Machine) -> Self {
        Self {
            kind: "bench".to_owned(),
            format: BENCH_FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine,
            video: None,
            scaling: None,
        }
    }
}

/// What the times of a bench depend on, besides its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The operating system.
    pub os: String,
    /// The processor's architecture.
    pub arch: String,
    /// The processor's name; empty where the system does not tell.
    pub cpu: String,
    /// Cores that the process may use.
    pub cores: usize,
    /// Processes that were running or waiting in the minute before the bench, on average; `null` where the system does
    /// not tell.
    pub load_before: Option<f64>,
    /// Its GPUs, whether they were used or not.
    pub gpus: Vec<GpuFacts>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuFacts {
    /// ggml's name.
    pub name: String,
    /// The product's name.
    pub description: String,
    /// All its memory.
    pub memory_bytes: u64,
}

/// What methods cost on a video.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VideoBench {
    /// The name of the video's file.
    pub video: String,
    /// The question.
    pub question: String,
    /// The model's description.
    pub model: String,
    /// Frames taken.
    pub frames: usize,
    /// Runs of each method.
    pub repeats: usize,
    /// How many visual tokens all methods but dense may keep.
    pub budget: Budget,
    /// What the answers were made with, as in an answer's [`Settings`](crate::chat::Settings); `prune` and `evict` are
    /// those of the last method.
    #[serde(default)]
    pub settings: RunSettings,
    /// The method that the ratios are to.
    pub base: String,
    /// One entry for each method, in the order asked for.
    pub methods: Vec<MethodCost>,
}

/// What one method costs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MethodCost {
    /// Its name.
    pub name: String,
    /// Visual tokens of the video.
    pub visual_tokens: VisualTokens,
    /// The share of the vision encoder's work that was done, 0 to 1.
    #[serde(default = "super::answers::everything")]
    pub computed: f64,
    /// Rows of the prompt: text and kept visual tokens.
    pub prompt_rows: usize,
    /// Tokens of the answer; fewer than asked for if the model ended it.
    pub generated: usize,
    /// Wall time.
    pub timings_ms: StageSpreads,
    /// The speed of decoding ([`Answer::tokens_per_second`](crate::chat::Answer::tokens_per_second)); `null` if no
    /// token was decoded.
    pub decode_tokens_per_second: Option<Spread>,
    /// The KV cache behind the answer.
    pub kv: Kv,
    /// What a process of its own took.
    pub memory: MemoryUse,
    /// This method's medians over those of the base.
    pub ratios: Ratios,
}

/// Milliseconds of each stage, as in [`Timings`](crate::chat::Timings).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct StageSpreads {
    /// Opening the video and waiting for its frames.
    pub decode_video: Spread,
    /// The vision encoder.
    pub encode: Spread,
    /// Scoring and choosing visual tokens.
    pub prune: Spread,
    /// The prompt through the language model.
    pub prefill: Spread,
    /// All of it, to the first token.
    pub ttft: Spread,
    /// Evicting visual tokens behind the first token.
    pub evict: Spread,
    /// From the first token to the last.
    pub generate: Spread,
}

/// Memory that a method needs, measured in a process that runs nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// The most that the process held at once; `null` if it was not measured.
    pub peak_rss_bytes: Option<u64>,
    /// What of the GPUs' memory was taken behind the answer, with the model; `null` without a GPU.
    pub device_bytes: Option<u64>,
}

/// Medians over those of the base: under 1 is less time, or less memory. `null` where the base has 0 or nothing was
/// measured.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Ratios {
    /// Of the kept visual tokens.
    pub visual_tokens: Option<f64>,
    /// Of [`StageSpreads::encode`].
    pub encode: Option<f64>,
    /// Of [`StageSpreads::prefill`].
    pub prefill: Option<f64>,
    /// Of [`StageSpreads::ttft`].
    pub ttft: Option<f64>,
    /// Of [`MethodCost::decode_tokens_per_second`]: over 1 is faster.
    pub decode_tokens_per_second: Option<f64>,
    /// Of the KV cache's bytes.
    pub kv_bytes: Option<f64>,
    /// Of [`MemoryUse::peak_rss_bytes`].
    pub peak_rss_bytes: Option<f64>,
    /// Of [`MemoryUse::device_bytes`].
    pub device_bytes: Option<f64>,
}

/// Time and memory against length.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scaling {
    /// The model's description.
    pub model: String,
    /// The context that the model was trained for, in positions.
    pub trained_for: usize,
    /// Runs of each size and method.
    pub repeats: usize,
    /// Tokens decoded in each run.
    pub decoded: usize,
    /// How many visual tokens all methods but dense may keep.
    pub budget: Budget,
    /// What was measured, size by size.
    pub points: Vec<ScalingPoint>,
}

/// One size under one method.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScalingPoint {
    /// The method's name.
    pub method: String,
    /// Frames.
    pub frames: usize,
    /// Visual tokens of a frame.
    pub tokens_per_frame: usize,
    /// Visual tokens of all frames.
    pub visual_tokens: usize,
    /// Those that were kept.
    pub kept: usize,
    /// Rows of the prompt: text and kept visual tokens.
    pub prompt_rows: usize,
    /// Choosing visual tokens.
    pub prune_ms: Spread,
    /// The prompt through the language model, with the allocation of the context.
    pub prefill_ms: Spread,
    /// Speed behind the prompt.
    pub decode_tokens_per_second: Option<Spread>,
    /// Bytes of the KV cache: the prompt and the decoded tokens.
    pub kv_bytes: u64,
}
