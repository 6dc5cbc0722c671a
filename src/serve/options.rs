//! The options of a server.

use super::media::RemoteHost;
use crate::chat::{SessionParams, VideoOptions};
use crate::models::ModelFiles;
use std::path::PathBuf;
use std::time::Duration;

/// How to serve a model. A request can lower the limits, but not raise them.
///
/// Start from [`ServeOptions::new`] and set fields: any version may add some.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The model's files.
    pub files: ModelFiles,
    /// How to open the sessions. They also are the defaults of requests.
    pub params: SessionParams,
    /// Which frames of videos to take. [`max_frames`](VideoOptions::max_frames) is the limit for requests.
    pub video: VideoOptions,
    /// The name of the model for clients.
    pub model_id: String,
    /// The number of slots: requests that are answered at once. Each slot has its own KV cache and vision encoder.
    pub parallel: usize,
    /// The most requests that wait for a slot.
    pub queue: usize,
    /// The key that clients must send: one or more visible ASCII characters.
    pub api_key: Option<String>,
    /// Let in other machines without a key.
    pub without_key: bool,
    /// Host names of this server, besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Origins whose web pages may use this server, such as `https://page.example` or `http://localhost:3000`; `*` is
    /// all of them.
    pub cors_origins: Vec<String>,
    /// The folder whose files clients may name.
    pub media_root: Option<PathBuf>,
    /// Fetch media from hosts with public addresses.
    pub allow_remote: bool,
    /// Hosts from which media may be fetched even if their addresses are not public.
    pub remote_hosts: Vec<RemoteHost>,
    /// The most bytes of a request. All requests together take at most four times as much on disk, and twice as much in
    /// memory.
    pub max_body: u64,
    /// How long a client may send or read less than 1 KiB per second. Its total time is not limited.
    pub stall_timeout: Duration,
    /// The most bytes that are fetched for a request.
    pub max_download: u64,
    /// The time limit for fetching a file.
    pub download_timeout: Duration,
    /// The time limit for an answer, from when the request has arrived, with the wait for a slot.
    pub timeout: Duration,
    /// The most bytes of encoded videos in the cache.
    pub video_cache: u64,
    /// How long answers may go on after [`Stop::stop`](super::Stop::stop).
    pub grace: Duration,
}

impl ServeOptions {
    /// The defaults: one slot, no key, and only media that are in the requests themselves.
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

/// Omits the key.
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
