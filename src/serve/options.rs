//! What a server is started with.

use super::media::RemoteHost;
use crate::chat::{SessionParams, VideoOptions};
use crate::models::ModelFiles;
use std::path::PathBuf;
use std::time::Duration;

/// How to serve a model. A request may ask for less than what is allowed here, and never for more.
///
/// Write it with `..ServeOptions::new(files)`: any version may add fields.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The model's files.
    pub files: ModelFiles,
    /// How sessions are opened: what a request says nothing of is as it is here.
    pub params: SessionParams,
    /// Which frames of videos to take. [`max_frames`](VideoOptions::max_frames) is the most that a request may ask for.
    pub video: VideoOptions,
    /// The name that clients know the model by.
    pub model_id: String,
    /// Requests that are answered at once. Each has a KV cache and a vision encoder of its own.
    pub parallel: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// The key that clients must send: visible ASCII characters, at least one.
    pub api_key: Option<String>,
    /// Let other machines in without a key.
    pub without_key: bool,
    /// Names that this server goes by, beside `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Origins whose web pages may ask this server, as `https://page.example` or `http://localhost:3000`; `*` is all.
    pub cors_origins: Vec<String>,
    /// The folder that clients may name files of.
    pub media_root: Option<PathBuf>,
    /// Fetch media from hosts with public addresses.
    pub allow_remote: bool,
    /// Hosts that media may be fetched from whatever their addresses are.
    pub remote_hosts: Vec<RemoteHost>,
    /// Bytes of a request. All that come at once take at most four times that on disk, and twice that in memory.
    pub max_body: u64,
    /// How long a client may send, or read, next to nothing: less than 1 KiB a second. It may take as long as it needs
    /// otherwise.
    pub stall_timeout: Duration,
    /// Bytes of a file that is fetched.
    pub max_download: u64,
    /// The most time that fetching a file may take.
    pub download_timeout: Duration,
    /// The most time that an answer may take once the request is here, the wait for a slot included.
    pub timeout: Duration,
    /// Bytes of encoded videos that are kept.
    pub video_cache: u64,
    /// How long answers may go on when the server is stopped.
    pub grace: Duration,
}

impl ServeOptions {
    /// The defaults: one slot, nothing but what is in the requests themselves, no key.
    pub fn new(files: ModelFiles) -> Self {
        Self {
            model_id: files.name.clone(),
            files,
            params: SessionParams::default(),
            video: VideoOptions::default(),
            parallel: 1,
            queue: 16,
            api_key: None,
            without_key: false,
            hosts: Vec::new(),
            cors_origins: Vec::new(),
            media_root: None,
            allow_remote: false,
            remote_hosts: Vec::new(),
            max_body: 128 << 20,
            stall_timeout: Duration::from_secs(30),
            max_download: 128 << 20,
            download_timeout: Duration::from_secs(30),
            timeout: Duration::from_secs(600),
            video_cache: 512 << 20,
            grace: Duration::from_secs(10),
        }
    }
}

/// Without the key.
impl std::fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeOptions")
            .field("model_id", &self.model_id)
            .field("parallel", &self.parallel)
            .field("queue", &self.queue)
            .field("has_api_key", &self.api_key.is_some())
            .field("media_root", &self.media_root)
            .field("allow_remote", &self.allow_remote)
            .finish_non_exhaustive()
    }
}
