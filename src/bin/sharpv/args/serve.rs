use crate::options::SessionArgs;
use crate::values::{self, CacheSize};
use clap::Args;
use sharpv::serve::RemoteHost;
use std::path::PathBuf;

/// See [`Command::Serve`](super::Command::Serve).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// The address or host name to listen on; 0.0.0.0 is every interface, and requires a key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Server")]
    pub host: String,

    /// The port; 0 picks a free one
    #[arg(short, long, value_name = "N", default_value_t = 8080, help_heading = "Server")]
    pub port: u16,

    /// Answer N requests in parallel; each takes the memory of a session, and --threads threads or its share of the
    /// cores
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = values::jobs(), help_heading = "Server")]
    pub parallel: usize,

    /// Let N more requests wait; others get 429 and the time after which to retry
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Server")]
    pub queue: usize,

    /// The key that clients must send; SHARPV_API_KEY sets it without showing it in the process list
    #[arg(long, value_name = "KEY", help_heading = "Server")]
    pub api_key: Option<String>,

    /// Serve other machines without a key
    #[arg(long, conflicts_with = "api_key", help_heading = "Server")]
    pub no_api_key: bool,

    /// The model name that clients see [default: the model's name]
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub alias: Option<String>,

    /// Accept requests for this host name, besides localhost and this machine's addresses; repeatable
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub allow_host: Vec<String>,

    /// Accept requests from web pages of this origin (https://page.example); `*` is any; repeatable
    #[arg(long, value_name = "ORIGIN", help_heading = "Server")]
    pub cors_origin: Vec<String>,

    /// The most seconds that an answer may take after its request has arrived, including the wait for a slot
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Server")]
    pub timeout: u32,

    /// The most seconds that a client may send or read less than 1 KiB per second
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Server")]
    pub stall_timeout: u32,

    /// The largest request: bytes, or a number with K, M or G; all requests together take at most four times as much
    /// disk (TMPDIR)
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = values::bytes, help_heading = "Server")]
    pub max_body: u64,

    /// Cache this much of encoded videos, so that another question about one encodes nothing: bytes, or a number with
    /// K, M or G; 0 is off
    #[arg(long, value_name = "SIZE", default_value = "512M", help_heading = "Server")]
    pub video_cache: CacheSize,

    /// Allow requests to name files in this folder
    #[arg(long, value_name = "DIR", help_heading = "Media")]
    pub media_root: Option<PathBuf>,

    /// Allow requests to name http and https addresses, on hosts with public addresses
    #[arg(long, help_heading = "Media")]
    pub allow_remote: bool,

    /// Allow requests to name addresses on this host, public or not; repeatable
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Media")]
    pub remote_host: Vec<RemoteHost>,

    /// The most to download for a request
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = values::bytes, help_heading = "Media")]
    pub max_download: u64,

    /// The most seconds that a download may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Media")]
    pub download_timeout: u32,

    #[command(flatten)]
    pub session: SessionArgs,
}

const EXAMPLES: &str = "\
Examples:
  sharpv serve -m MODEL --media-root ~/Videos
  SHARPV_API_KEY=… sharpv serve -m MODEL --host 0.0.0.0 --allow-host media.local --parallel 2
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' -d '{\"messages\": [{\"role\": \"user\", \"content\": [
    {\"type\": \"video_url\", \"video_url\": {\"url\": \"file://clip.mp4\"}}, {\"type\": \"text\", \"text\": \"What happens?\"}]}]}'";
