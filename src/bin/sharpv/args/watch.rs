use crate::options::{EncodeOptions, ModelOptions, PruneOptions, SamplerOptions};
use crate::values;
use clap::{Args, ValueEnum};

/// See [`Command::Watch`](super::Command::Watch).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct WatchArgs {
    /// A file, an address (rtsp://, http://, …), or `-` for a pipe
    ///
    /// A pipe must carry a container that can be read from start to end, such as MPEG-TS, Matroska or yuv4mpeg.
    #[arg(value_name = "SOURCE")]
    pub source: String,

    /// The question to ask at the end, or repeatedly with --every
    #[arg(value_name = "QUESTION")]
    pub question: Option<String>,

    /// Ask QUESTION each time this much video has passed: 10s, 2m, 1:30
    #[arg(long, value_name = "TIME", value_parser = values::duration, requires = "question")]
    pub every: Option<f64>,

    /// Report when WHAT becomes true; repeatable
    ///
    /// Each time the image changes, the model answers whether it is true.
    #[arg(long, value_name = "WHAT", value_parser = values::some_text)]
    pub when: Vec<String>,

    /// The share of a frame that must be new, as SharpV sees it, for the image to count as changed, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = values::share)]
    pub when_change: f32,

    /// At which frames the model is asked about --when
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = WhenAt::Change)]
    pub when_at: WhenAt,

    /// End after this much video
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
    pub for_s: Option<f64>,

    /// Print one line of JSON per answer, event and warning
    ///
    /// The last line summarizes the run (docs/watch.md).
    #[arg(long)]
    pub json: bool,

    /// Take N frames per second of video
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = values::rate, help_heading = "Video")]
    pub fps: f64,

    /// Hold the last N frames that show something new [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
        conflicts_with = "memory", help_heading = "Video")]
    pub window: Option<u32>,

    /// Hold at most N visual tokens: the newest frames, and of the older ones those that showed the most new
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Video")]
    pub memory: Option<u32>,

    /// With --memory, the time after which a frame counts half
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::duration, help_heading = "Video")]
    pub half_life: f64,

    /// Also remember N frames from the whole video, for searching
    ///
    /// When you type "/search QUESTION", and for QUESTION at the end, the model is asked about each two of these
    /// frames.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(8..), help_heading = "Video")]
    pub recall: Option<u32>,

    /// At the end of the file, wait for another program to write more
    #[arg(long, help_heading = "Video", conflicts_with = "realtime")]
    pub follow: bool,

    /// Play a file in real time, like a camera: frames that arrive too fast are dropped
    #[arg(long, help_heading = "Video")]
    pub realtime: bool,

    /// Drop no frame; the source has to wait
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
    /// Each frame that changes the image
    Change,
    /// The frame after a change, or every 10 s while it lasts: fewer questions
    End,
}

const EXAMPLES: &str = "\
Examples:
  sharpv watch rtsp://camera/stream --every 10s \"What is going on?\"
  sharpv watch rtsp://camera/stream --when \"a person is in the image\" --json
  ffmpeg -loglevel error -f v4l2 -i /dev/video0 -pix_fmt yuv420p -f yuv4mpegpipe - | sharpv watch - --every 5s \"What is it?\"
  sharpv watch recording.ts --follow --memory 2000
  sharpv watch clip.mp4 --realtime --for 1m \"What happened?\"";
