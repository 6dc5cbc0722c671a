//! Starting, listening, ending.

use super::cache::VideoCache;
use super::guard::Key;
use super::media::{MediaRoot, Remote, Sources};
use super::metrics::Metrics;
use super::options::ServeOptions;
use super::prepare::Base;
use super::queue::Queue;
use super::routes::{App, Door, id_prefix, router};
use super::slot::Slot;
use crate::chat::{Session, SessionParams};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::CancelToken;
use crate::video::Rate;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at once.
const MAX_CONNECTIONS: usize = 512;

/// How long a client may take to send the head of a request, or leave a connection idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

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
    grace: Duration,
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
        if !address.ip().is_loopback() && options.api_key.is_none() && !options.without_key {
            return Err(Error::InvalidParameter {
                name: "api-key",
                value: "missing".into(),
                expected: format!("given where other machines can ask ({})", address.ip()),
            });
        }
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
            body_memory: Semaphore::new(usize::try_from(2 * options.max_body.div_ceil(1 << 20)).unwrap_or(1).max(2)),
            fetching: Semaphore::new(parallel + options.queue.min(16) + 1),
            next_id: AtomicU64::new(0),
            id_prefix: id_prefix(),
        };
        let door = Door {
            key: options.api_key.as_deref().map(Key::new),
            hosts: options.hosts.iter().cloned().chain([host.to_owned()]).collect(),
            cors_origins: options.cors_origins,
        };
        Ok(Self {
            listener,
            address,
            router: router(Arc::new(app), door),
            queue,
            slots: started.map_err(Error::io("starting a thread", name()))?,
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
        let Self { listener, address, router, queue, slots, grace } = self;
        let failed = |action: &'static str| Error::io(action, address.to_string());
        listener.set_nonblocking(true).map_err(failed("listening"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(64)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(failed("starting threads"))?;
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            serve(listener, router, stop.0.subscribe(), &queue, grace).await;
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
    mut stop: watch::Receiver<bool>,
    queue: &Queue,
    grace: Duration,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((stream, place)) = accepted else { continue };
        let (service, stop) = (TowerToHyperService::new(router.clone()), stop.clone());
        connections.spawn(async move {
            connection(stream, service, stop).await;
            drop(place);
        });
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

type Place = tokio::sync::OwnedSemaphorePermit;

/// The next connection, when there is a place for it.
async fn accept(listener: &tokio::net::TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, Place)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(target: super::LOG, "a connection could not be accepted: {error}");
            // Out of descriptors, most likely: some get free.
            tokio::time::sleep(Duration::from_millis(200)).await;
            None
        }
    }
}

/// Waits for the wish to stop. Nobody can wish it any more if the sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|&stopped| stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn connection(stream: TcpStream, service: TowerToHyperService<Router>, mut stop: watch::Receiver<bool>) {
    // Tokens are small, and somebody waits for each.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(target: super::LOG, "a connection ended: {error}");
    }
}
