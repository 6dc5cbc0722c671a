//! Opening, running and stopping a server.

use super::api::response::now;
use super::cache::VideoCache;
use super::conn::{self, ConnectionLimit, Patience};
use super::cors;
use super::gate::Gate;
use super::guard::Key;
use super::media::{MediaRoot, Remote, Sources};
use super::metrics::Metrics;
use super::options::ServeOptions;
use super::prepare::Base;
use super::queue::Queue;
use super::routes::{App, Door, id_prefix, router};
use super::slot::Slot;
use super::upload::Uploads;
use crate::chat::{Session, SessionParams};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::CancelToken;
use crate::video::Rate;
use axum::Router;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The most connections at once, beyond those of requests that are answered or wait.
const MAX_CONNECTIONS: usize = 512;

/// The most connections without a request.
const MAX_IDLE: usize = 128;

/// The most requests at once whose media are fetched from other servers, and whose files of this machine are read.
const FETCHING: usize = 32;
const READING: usize = 8;

/// More threads for blocking work: bodies are written to disk and read.
const BLOCKING: usize = 64;

/// Stops a server from any thread. Clones stop the same server.
#[derive(Debug, Clone, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// A stop for one server.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the server to end. It takes no more connections, and answers may go on for [`ServeOptions::grace`].
    pub fn stop(&self) {
        self.0.cancel();
    }
}

/// A server that listens at its address, with its model loaded.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    queue: Arc<Queue>,
    slots: Vec<JoinHandle<()>>,
    connections: Arc<ConnectionLimit>,
    limits: conn::Limits,
    grace: Duration,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds the address and loads the model. Port 0 is any free port.
    ///
    /// # Errors
    /// [`Error::Io`] if the address cannot be bound, or the media root is not a folder; [`Error::InvalidParameter`] if
    /// other machines could reach the server without a key and [`without_key`](ServeOptions::without_key) is not set;
    /// and those of [`Session::open`].
    pub fn open(host: &str, port: u16, options: ServeOptions, observer: &mut dyn Observer) -> Result<Self> {
        let name = || PathBuf::from(format!("{host}:{port}"));
        let listener = TcpListener::bind((host, port)).map_err(Error::io("listening", name()))?;
        let address = listener.local_addr().map_err(Error::io("listening", name()))?;
        check_key(&options, address.ip())?;
        let cors = cors::layer(&options.cors_origins)?;
        let sources = sources(&options)?;
        // Each slot is cancelled by itself.
        let params = |_| SessionParams { cancel: CancelToken::new(), ..options.params.clone() };
        let sessions = Session::open_several(&options.files, (0..options.parallel).map(params).collect(), observer)?;
        let Some(first) = sessions.first() else {
            let expected = "at least 1".into();
            return Err(Error::InvalidParameter { name: "parallel", value: "0".into(), expected });
        };
        let frames = first.layout().frames();
        let of_rate = match frames.rate {
            Rate::Uniform { frames } => frames,
            Rate::Fps { max_frames, .. } => max_frames,
        };
        let base = Base {
            model_id: options.model_id.clone(),
            turn: first.turn_params(),
            max_frames: options.video.max_frames.unwrap_or(frames.max.max(of_rate)),
            video: options.video,
        };
        let model = model_entry(first, &base);

        let parallel = sessions.len();
        let patience = Patience::new(options.stall_timeout);
        let queue = Arc::new(Queue::new(parallel, options.queue));
        let cache = Arc::new(VideoCache::new(options.video_cache));
        let metrics = Arc::new(Metrics::new());
        let slots = sessions.into_iter().enumerate().map(|(number, session)| Slot {
            number,
            session,
            system: options.params.system.clone(),
            timeout: options.timeout,
            queue: Arc::clone(&queue),
            cache: Arc::clone(&cache),
            metrics: Arc::clone(&metrics),
        });
        let start = |slot: Slot| thread::Builder::new().name(format!("slot-{}", slot.number)).spawn(move || slot.run());
        let started: std::result::Result<_, _> = slots.map(start).collect();
        let app = App {
            base,
            model,
            sources: Arc::new(sources),
            queue: Arc::clone(&queue),
            cache,
            metrics,
            max_body: options.max_body,
            timeout: options.timeout,
            uploads: Uploads::new(options.max_body, patience),
            fetching: Gate::new(FETCHING, options.queue),
            reading: Gate::new(READING, options.queue),
            next_id: AtomicU64::new(0),
            id_prefix: id_prefix(),
        };
        let door = Door {
            key: options.api_key.as_deref().map(Key::new),
            hosts: options.hosts.iter().cloned().chain([host.to_owned()]).collect(),
            cors,
        };
        // Requests are in a slot, are fetched or read, or wait for one of the three.
        let requests = parallel.saturating_add(options.queue.saturating_mul(3)).saturating_add(FETCHING + READING);
        Ok(Self {
            listener,
            address,
            router: router(Arc::new(app), door),
            queue,
            slots: started.map_err(Error::io("starting a thread", name()))?,
            connections: ConnectionLimit::new(requests.saturating_add(MAX_CONNECTIONS), MAX_IDLE),
            limits: conn::Limits::new(patience, options.max_body),
            grace: options.grace,
        })
    }

    /// The address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` stops it.
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started, or the listener fails.
    pub fn run(self, stop: &Stop) -> Result<()> {
        let Self { listener, address, router, queue, slots, connections, limits, grace } = self;
        let failed = |action: &'static str| Error::io(action, address.to_string());
        listener.set_nonblocking(true).map_err(failed("listening"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(FETCHING + READING + BLOCKING)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(failed("starting threads"))?;
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let open = accept(listener, router, connections, limits, &stop.0).await;
            // Requests that wait fail now: the grace is for those in slots.
            queue.close();
            finish(open, &queue, grace).await;
            std::io::Result::Ok(())
        });
        queue.close();
        queue.cancel();
        // Downloads may hang until their own time limit.
        runtime.shutdown_timeout(Duration::from_secs(1));
        for slot in slots {
            // Its panic has been logged.
            let _ = slot.join();
        }
        served.map_err(failed("listening"))
    }
}

/// Accepts connections until `stop`. Returns those that are open.
async fn accept(
    listener: tokio::net::TcpListener,
    router: Router,
    limit: Arc<ConnectionLimit>,
    limits: conn::Limits,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return open,
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                // Most likely there are no file descriptors left, so one is freed.
                limit.close_idle();
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let permit = tokio::select! {
            () = stop.cancelled() => return open,
            permit = limit.enter() => permit,
        };
        open.spawn(conn::serve(stream, permit, router.clone(), limits, stop.clone()));
    }
}

/// Waits until all answers are complete, and cancels them after `grace`.
async fn finish(mut open: JoinSet<()>, queue: &Queue, grace: Duration) {
    if tokio::time::timeout(grace, async { while open.join_next().await.is_some() {} }).await.is_err() {
        queue.cancel();
        // Cancelled answers still send an error to their clients.
        let rest = async { while open.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
    }
    open.abort_all();
}

/// Where media may come from.
fn sources(options: &ServeOptions) -> Result<Sources> {
    let open = |folder| MediaRoot::new(folder).map_err(Error::io("opening the media root", folder));
    let hosts = options.remote_hosts.clone();
    Ok(Sources {
        root: options.media_root.as_deref().map(open).transpose()?,
        remote: Remote::new(options.allow_remote, hosts, options.max_download, options.download_timeout),
    })
}

/// The entry of `/v1/models`.
fn model_entry(session: &Session, base: &Base) -> Value {
    let model = session.model();
    json!({
        "id": base.model_id,
        "object": "model",
        "created": now(),
        "owned_by": "sharpv",
        "meta": {
            "description": model.description(),
            "n_ctx_train": model.n_ctx_train(),
            "size": model.size_bytes(),
            "layout": session.layout().name(),
            "max_frames": base.max_frames,
        },
    })
}

/// Fails if the key is not one that clients can send, or if a server at this address needs a key.
fn check_key(options: &ServeOptions, address: IpAddr) -> Result<()> {
    let wrong =
        |value: &str, expected: String| Error::InvalidParameter { name: "api-key", value: value.into(), expected };
    match options.api_key.as_deref() {
        None if address.is_loopback() || options.without_key => Ok(()),
        None => Err(wrong("missing", format!("set, because other machines can reach {address}"))),
        // An empty key could mean a server for everybody, or for nobody.
        Some("") => Err(wrong("empty", "a key that clients can send".into())),
        Some(key) if key.trim() != key || !key.bytes().all(|byte| matches!(byte, b' '..=b'~')) => {
            Err(wrong("unusable", "visible ASCII characters, without spaces around them".into()))
        }
        Some(_) => Ok(()),
    }
}
