//! Starting, listening, ending.

use super::cache::VideoCache;
use super::conn::{self, Crowd, Patience, stopped};
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
use serde_json::json;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections at once, beside those of requests that are answered or wait for it.
const MAX_CONNECTIONS: usize = 512;

/// Connections that ask nothing.
const MAX_IDLE: usize = 128;

/// Requests whose media are fetched from other servers at once, and those whose files of this machine are read.
const FETCHING: usize = 32;
const READING: usize = 8;

/// Threads for what blocks, beside those: bodies are written and read.
const BLOCKING: usize = 64;

/// Stops a server from anywhere. Clones stop the same one.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stop {
    /// A server that runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the server to end: no more connections, and what is at work may go on for a while
    /// ([`ServeOptions::grace`]).
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// A server that listens, with its model loaded.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    queue: Arc<Queue>,
    slots: Vec<JoinHandle<()>>,
    doors: Doors,
    grace: Duration,
}

/// How connections are taken.
struct Doors {
    crowd: Arc<Crowd>,
    patience: Patience,
    max_body: u64,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the address and loads the model. Port 0 is any free one.
    ///
    /// # Errors
    /// [`Error::Io`] if the address cannot be listened at, or the folder for media is none;
    /// [`Error::InvalidParameter`] if other machines could reach it without a key and that was not allowed; and those
    /// of [`Session::open`].
    pub fn open(host: &str, port: u16, options: ServeOptions, observer: &mut dyn Observer) -> Result<Self> {
        let name = || PathBuf::from(format!("{host}:{port}"));
        let listener = TcpListener::bind((host, port)).map_err(Error::io("listening", name()))?;
        let address = listener.local_addr().map_err(Error::io("listening", name()))?;
        check_key(&options, address.ip())?;
        let cors = cors::layer(&options.cors_origins)?;
        let root = options
            .media_root
            .as_ref()
            .map(|folder| MediaRoot::new(folder).map_err(Error::io("opening the folder for media", folder)));
        let sources = Sources {
            root: root.transpose()?,
            remote: Remote::new(
                options.allow_remote,
                options.remote_hosts.clone(),
                options.max_download,
                options.download_timeout,
            ),
        };

        // Each is stopped by itself.
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
        let model = first.model();
        let model = json!({
            "id": options.model_id,
            "object": "model",
            "created": super::api::response::now(),
            "owned_by": "sharpv",
            "meta": {
                "description": model.description(),
                "n_ctx_train": model.n_ctx_train(),
                "size": model.size_bytes(),
                "layout": first.layout().name(),
                "max_frames": base.max_frames,
            },
        });

        let parallel = sessions.len();
        let (patience, max_body) = (Patience::new(options.stall_timeout), options.max_body);
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
        // At work are those in the slots and in line, those whose media are fetched or read, and those in line for it.
        let at_work = parallel.saturating_add(options.queue.saturating_mul(3)).saturating_add(FETCHING + READING);
        Ok(Self {
            listener,
            address,
            router: router(Arc::new(app), door),
            queue,
            slots: started.map_err(Error::io("starting a thread", name()))?,
            doors: Doors { crowd: Crowd::new(at_work.saturating_add(MAX_CONNECTIONS), MAX_IDLE), patience, max_body },
            grace: options.grace,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// [`Error::Io`] if the system gives no threads, or the listener breaks.
    pub fn run(self, stop: &Stop) -> Result<()> {
        let Self { listener, address, router, queue, slots, doors, grace } = self;
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
            serve(listener, router, doors, stop.0.subscribe(), &queue, grace).await;
            std::io::Result::Ok(())
        });
        queue.close();
        queue.stop();
        // Reads of other servers may hang for as long as they may take.
        runtime.shutdown_timeout(Duration::from_secs(1));
        for slot in slots {
            // A slot that panicked has nothing to say.
            let _ = slot.join();
        }
        served.map_err(failed("listening"))
    }
}

/// Accepts until it is stopped, then waits for what is at work.
async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    doors: Doors,
    mut stop: watch::Receiver<bool>,
    queue: &Queue,
    grace: Duration,
) {
    let Doors { crowd, patience, max_body } = doors;
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(target: super::LOG, "a connection could not be accepted: {error}");
                // Out of descriptors, most likely: one gets free.
                crowd.shrink();
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let seat = tokio::select! {
            () = stopped(&mut stop) => break,
            seat = crowd.enter() => seat,
        };
        connections.spawn(conn::serve(stream, seat, router.clone(), patience, max_body, stop.clone()));
    }
    drop(listener);
    // Streams would be waited for as long as they last.
    queue.close();
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all_done).await.is_err() {
        queue.stop();
        let rest = async { while connections.join_next().await.is_some() {} };
        // What was stopped still tells its client.
        let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
    }
    connections.abort_all();
}

/// Whether who may ask is as it should be for a server at this address.
fn check_key(options: &ServeOptions, address: IpAddr) -> Result<()> {
    let wrong =
        |value: &str, expected: String| Error::InvalidParameter { name: "api-key", value: value.into(), expected };
    match options.api_key.as_deref() {
        None if address.is_loopback() || options.without_key => Ok(()),
        None => Err(wrong("missing", format!("given where other machines can ask (at {address})"))),
        // Neither is what was meant: a server that all can use, and one that nobody can.
        Some("") => Err(wrong("empty", "a key that clients can send".into())),
        Some(key) if key.trim() != key || !key.bytes().all(|byte| matches!(byte, b' '..=b'~')) => {
            Err(wrong("one that no client can send", "visible ASCII characters, with no spaces around them".into()))
        }
        Some(_) => Ok(()),
    }
}
