//! The results of a benchmark of cost, in `bench.json`.

use super::answers::RunSettings;
use super::spread::Spread;
use crate::chat::{Kv, VisualTokens};
use crate::prune::Budget;
use serde::{Deserialize, Serialize};

/// The format of `bench.json`. It is incremented when a key changes its meaning.
pub const BENCH_FORMAT: u32 = 1;

/// The results of one benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bench {
    /// The kind of the file: `bench`.
    pub kind: String,
    /// [`BENCH_FORMAT`].
    pub format: u32,
    /// The version of sharpv.
    pub version: String,
    /// The machine that it ran on.
    pub machine: Machine,
    /// The cost of methods on a video.
    pub video: Option<VideoBench>,
    /// Time and memory over the length of a video.
    pub scaling: Option<Scaling>,
}

impl Bench {
    /// A benchmark on `machine` without results yet.
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

/// What the times of a benchmark depend on, besides its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The operating system.
    pub os: String,
    /// The processor's architecture.
    pub arch: String,
    /// The processor's name; empty if the system does not report it.
    pub cpu: String,
    /// Cores that the process may use.
    pub cores: usize,
    /// Processes that were running or waiting in the minute before the benchmark, on average; `null` if the system does
    /// not report it.
    pub load_before: Option<f64>,
    /// Its GPUs, used or not.
    pub gpus: Vec<GpuFacts>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuFacts {
    /// Its name in ggml.
    pub name: String,
    /// The name of the product.
    pub description: String,
    /// Its total memory, in bytes.
    pub memory_bytes: u64,
}

/// The cost of methods on a video.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VideoBench {
    /// The name of the video's file.
    pub video: String,
    /// The question.
    pub question: String,
    /// The model's description.
    pub model: String,
    /// Number of frames.
    pub frames: usize,
    /// Runs of each method.
    pub repeats: usize,
    /// The budget of visual tokens of all methods but dense.
    pub budget: Budget,
    /// The settings of the answers, as in an answer's [`Settings`](crate::chat::Settings); `prune` and `evict` are
    /// those of the last method.
    #[serde(default)]
    pub settings: RunSettings,
    /// The method that ratios refer to.
    pub base: String,
    /// One entry for each method, in the requested order.
    pub methods: Vec<MethodCost>,
}

/// The cost of one method.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MethodCost {
    /// Its name.
    pub name: String,
    /// Visual tokens of the video.
    pub visual_tokens: VisualTokens,
    /// The share of the vision encoder's work that was computed, 0 to 1.
    #[serde(default = "super::answers::everything")]
    pub computed: f64,
    /// Rows of the prompt: text and kept visual tokens.
    pub prompt_rows: usize,
    /// Tokens of the answer; fewer than requested if the model ended it.
    pub generated: usize,
    /// Wall time.
    pub timings_ms: StageSpreads,
    /// The speed of decoding ([`Answer::tokens_per_second`](crate::chat::Answer::tokens_per_second)); `null` if no
    /// token was decoded.
    pub decode_tokens_per_second: Option<Spread>,
    /// The KV cache after the answer.
    pub kv: Kv,
    /// The memory that a process of its own took.
    pub memory: MemoryUse,
    /// This method's medians divided by those of the base.
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
    /// Prefill of the prompt.
    pub prefill: Spread,
    /// Everything up to the first token.
    pub ttft: Spread,
    /// Evicting visual tokens after the first token.
    pub evict: Spread,
    /// From the first token to the last.
    pub generate: Spread,
}

/// Memory that a method takes, measured in a process that runs nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// The peak of the process's resident memory; `null` if it was not measured.
    pub peak_rss_bytes: Option<u64>,
    /// The memory of all GPUs that was used after the answer, model included; `null` without a GPU.
    pub device_bytes: Option<u64>,
}

/// Medians divided by those of the base: under 1 is less time or memory. `null` if that of the base is 0, or if nothing
/// was measured.
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

/// Time and memory over the length of a video.
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
    /// The budget of visual tokens of all methods but dense.
    pub budget: Budget,
    /// The measurements, by size.
    pub points: Vec<ScalingPoint>,
}

/// One size with one method.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScalingPoint {
    /// The method's name.
    pub method: String,
    /// Number of frames.
    pub frames: usize,
    /// Visual tokens of a frame.
    pub tokens_per_frame: usize,
    /// Visual tokens of all frames.
    pub visual_tokens: usize,
    /// Kept visual tokens.
    pub kept: usize,
    /// Rows of the prompt: text and kept visual tokens.
    pub prompt_rows: usize,
    /// Choosing visual tokens.
    pub prune_ms: Spread,
    /// Prefill of the prompt, with the allocation of the context.
    pub prefill_ms: Spread,
    /// Decode speed after the prompt.
    pub decode_tokens_per_second: Option<Spread>,
    /// Bytes of the KV cache: the prompt and the decoded tokens.
    pub kv_bytes: u64,
}
