//! Bodies of requests: on disk while they arrive, in memory when they are complete.
//!
//! axum's and tower-http's body limits bound one body in memory; here all bodies share a budget of disk space, and of
//! memory. When the disk budget is used up, the slowest body is cancelled, not the newest: otherwise a client could
//! keep others out by sending a lot and then next to nothing.

use super::api::error::ApiError;
use super::conn::{Pace, Patience};
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Bytes that are written to disk at once. A smaller body stays in memory.
const BLOCK: usize = 128 << 10;

/// The disk budget, in requests of the largest size.
const ON_DISK: u64 = 4;

/// The memory budget, in requests of the largest size.
const IN_MEMORY: u64 = 2;

/// Bodies up to this many bytes need no share of the memory budget.
const SMALL: u64 = 1 << 20;

/// Seconds after which bytes count half for the rate of a body.
const HALF_LIFE: f64 = 5.0;

/// The bodies that arrive.
#[derive(Debug)]
pub(super) struct Uploads {
    /// The most bytes of one body, and of all bodies on disk.
    most: u64,
    most_on_disk: u64,
    patience: Patience,
    /// The memory budget, in MiB.
    memory: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    on_disk: u64,
    uploads: BTreeMap<u64, Upload>,
}

/// A body on disk.
#[derive(Debug)]
struct Upload {
    bytes: u64,
    rate: Rate,
    is_complete: bool,
    cancel: CancellationToken,
}

/// How fast a body arrives.
#[derive(Debug)]
struct Rate {
    bytes: f64,
    at: Instant,
}

impl Rate {
    fn now(&self, now: Instant) -> f64 {
        self.bytes * (-now.duration_since(self.at).as_secs_f64() / HALF_LIFE).exp2()
    }

    fn add(&mut self, bytes: u64, now: Instant) {
        *self = Self { bytes: self.now(now) + bytes as f64, at: now };
    }
}

/// A complete body.
#[derive(Debug)]
pub(super) struct Received {
    length: u64,
    /// The bytes after those in the file.
    rest: Vec<u8>,
    file: Option<Stored>,
}

/// The file of a large body. It is deleted when dropped.
#[derive(Debug)]
struct Stored {
    file: File,
    share: Share,
}

/// A share of the disk budget.
#[derive(Debug)]
struct Share {
    uploads: Arc<Uploads>,
    id: u64,
    cancel: CancellationToken,
}

impl Uploads {
    pub fn new(max_body: u64, patience: Patience) -> Arc<Self> {
        let mebibytes = usize::try_from(IN_MEMORY.saturating_mul(max_body.div_ceil(1 << 20))).unwrap_or(usize::MAX);
        Arc::new(Self {
            most: max_body,
            most_on_disk: max_body.saturating_mul(ON_DISK),
            patience,
            memory: Arc::new(Semaphore::new(mebibytes.clamp(2, Semaphore::MAX_PERMITS))),
            state: Mutex::default(),
        })
    }

    /// Receives a body. It may take any time, as long as bytes keep arriving.
    pub async fn receive(self: &Arc<Self>, mut body: Body) -> Result<Received, ApiError> {
        let mut pace = Pace::new(self.patience);
        let mut received = Received { length: 0, rest: Vec::new(), file: None };
        loop {
            let frame = tokio::select! {
                frame = next_frame(&mut body) => frame,
                () = pace.too_slow() => return Err(ApiError::slow_body()),
                () = cancelled(received.file.as_ref()) => return Err(ApiError::crowded()),
            };
            let Some(frame) = frame else { break };
            let Ok(bytes) = frame.map_err(|_| ApiError::broken_body())?.into_data() else { continue };
            received.length += bytes.len() as u64;
            if received.length > self.most {
                return Err(ApiError::too_large("the request", self.most));
            }
            received.rest.extend_from_slice(&bytes);
            pace.moved(bytes.len() as u64);
            if received.rest.len() >= BLOCK {
                received = self.write(received).await?;
                // The time of the write does not count as the client's.
                pace.rest();
            }
        }
        if let Some(stored) = &received.file {
            stored.share.complete();
        }
        Ok(received)
    }

    /// Appends the bytes in memory to the file.
    async fn write(self: &Arc<Self>, mut received: Received) -> Result<Received, ApiError> {
        if received.file.is_none() {
            let file = blocking(tempfile::tempfile).await?;
            received.file = Some(Stored { file, share: self.share() });
        }
        if let Some(stored) = &received.file {
            stored.share.grow(received.rest.len() as u64)?;
        }
        blocking(move || {
            if let Some(stored) = &mut received.file {
                stored.file.write_all(&received.rest)?;
                received.rest.clear();
            }
            Ok(received)
        })
        .await
    }

    /// Waits for a share of the memory budget for `received`. `None` if it is so small that it needs none.
    pub async fn memory(&self, received: &Received) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if received.length <= SMALL {
            return Ok(None);
        }
        let mebibytes = u32::try_from(received.length.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.memory).acquire_many_owned(mebibytes).await;
        share.map(Some).map_err(|_| ApiError::shutting_down())
    }

    fn share(self: &Arc<Self>) -> Share {
        let cancel = CancellationToken::new();
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let rate = Rate { bytes: 0.0, at: Instant::now() };
        state.uploads.insert(id, Upload { bytes: 0, rate, is_complete: false, cancel: cancel.clone() });
        Share { uploads: Arc::clone(self), id, cancel }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Cancels the slowest body other than `except`. Complete bodies stay: they are read soon.
    fn cancel_slowest(&mut self, except: u64, now: Instant) -> bool {
        let those = self.uploads.iter().filter(|&(&id, upload)| id != except && !upload.is_complete);
        let rates = those.map(|(&id, upload)| (id, upload.rate.now(now)));
        let slowest = rates.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(id, _)| id);
        let Some(upload) = slowest.and_then(|id| self.uploads.remove(&id)) else { return false };
        self.on_disk -= upload.bytes;
        upload.cancel.cancel();
        true
    }
}

impl Share {
    /// Reserves more bytes. Cancels slower bodies if there is no space left.
    fn grow(&self, bytes: u64) -> Result<(), ApiError> {
        let now = Instant::now();
        let mut state = self.uploads.lock();
        while state.on_disk + bytes > self.uploads.most_on_disk {
            if !state.cancel_slowest(self.id, now) {
                return Err(ApiError::crowded());
            }
        }
        let state = &mut *state;
        let upload = state.uploads.get_mut(&self.id).ok_or_else(ApiError::crowded)?;
        upload.bytes += bytes;
        upload.rate.add(bytes, now);
        state.on_disk += bytes;
        Ok(())
    }

    /// The body is complete.
    fn complete(&self) {
        if let Some(upload) = self.uploads.lock().uploads.get_mut(&self.id) {
            upload.is_complete = true;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.uploads.lock();
        if let Some(upload) = state.uploads.remove(&self.id) {
            state.on_disk -= upload.bytes;
        }
    }
}

impl Received {
    /// Reads the body into memory. Blocks.
    pub fn into_bytes(self) -> Result<Vec<u8>, ApiError> {
        let Some(Stored { mut file, share }) = self.file else { return Ok(self.rest) };
        let mut bytes = Vec::with_capacity(usize::try_from(self.length).unwrap_or(0));
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|error| disk(&error))?;
        drop(share);
        bytes.extend_from_slice(&self.rest);
        Ok(bytes)
    }
}

async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Waits until a body is cancelled.
async fn cancelled(stored: Option<&Stored>) {
    match stored {
        Some(stored) => stored.share.cancel.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Runs work that waits for the disk on a thread for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal())?;
    done.map_err(|error| disk(&error))
}

fn disk(error: &io::Error) -> ApiError {
    tracing::error!("writing or reading the temporary file of a request's body failed: {error}");
    ApiError::internal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
    }

    fn uploads(max_body: u64) -> Arc<Uploads> {
        Uploads::new(max_body, Patience::new(Duration::from_secs(30)))
    }

    #[test]
    fn a_body_comes_back_as_it_was() {
        run(async {
            for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7] {
                let uploads = uploads(1 << 20);
                let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
                let received = uploads.receive(Body::from(bytes.clone())).await.expect("a body");
                assert_eq!(received.file.is_some(), length >= BLOCK, "{length}");
                assert_eq!(received.into_bytes().expect("bytes"), bytes, "{length}");
                assert_eq!(uploads.lock().on_disk, 0, "{length}");
            }
            let error = uploads(100).receive(Body::from(vec![0; 101])).await.expect_err("too large");
            assert_eq!(error.status(), 413);
        });
    }

    #[test]
    fn the_slowest_body_is_cancelled() {
        let uploads = uploads(100);
        let shares: Vec<Share> = (0..4).map(|_| uploads.share()).collect();
        shares.iter().for_each(|share| share.grow(100).expect("there is space"));
        // The first still arrives, the second is complete, and of the other two the last was faster.
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).expect("a time");
        for share in &shares[1..] {
            uploads.lock().uploads.get_mut(&share.id).expect("an upload").rate.at = long_ago;
        }
        shares[1].complete();
        uploads.lock().uploads.get_mut(&shares[3].id).expect("an upload").rate.bytes *= 2.0;
        let newest = uploads.share();
        newest.grow(1).expect("the space of the slowest");
        let is_there = |share: &Share| uploads.lock().uploads.contains_key(&share.id);
        assert_eq!(shares.iter().map(is_there).collect::<Vec<_>>(), [true, true, false, true]);
        assert!(shares[2].grow(1).is_err(), "it was cancelled");
        assert_eq!(uploads.lock().on_disk, 301);
        drop(shares);
        assert_eq!(uploads.lock().on_disk, 1);
    }

    #[test]
    fn complete_bodies_are_not_cancelled() {
        let uploads = uploads(100);
        let shares: Vec<Share> = (0..4).map(|_| uploads.share()).collect();
        for share in &shares {
            share.grow(100).expect("there is space");
            share.complete();
        }
        assert_eq!(uploads.share().grow(1).expect_err("no space left").status(), 503);
    }
}
