//! Bodies of requests: onto disk as they come, into memory when they are whole.
//!
//! What has not come yet costs nothing. Where more has come than may lie on disk at once, the body that comes the
//! slowest is given up, not the one that came last: nobody keeps others out by sending a lot and then next to nothing.

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
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A body of so few bytes stays in memory; of a larger one so many are written at once.
const BLOCK: usize = 128 << 10;

/// Largest requests that may lie on disk at once.
const ON_DISK: u64 = 4;

/// Largest requests that may be in memory at once.
const IN_MEMORY: u64 = 2;

/// Below this no memory has to be waited for.
const SMALL: u64 = 1 << 20;

/// After so many seconds what came counts half.
const HALF_LIFE: f64 = 5.0;

/// Bodies on their way.
#[derive(Debug)]
pub(super) struct Uploads {
    /// Bytes of one body, and of all on disk.
    most: u64,
    most_on_disk: u64,
    patience: Patience,
    /// MiB of bodies in memory.
    memory: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    on_disk: u64,
    uploads: BTreeMap<u64, Upload>,
}

/// A body that lies on disk, as far as it has come.
#[derive(Debug)]
struct Upload {
    bytes: u64,
    rate: Rate,
    is_whole: bool,
    give_up: Arc<Notify>,
}

/// What came lately.
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

/// A body that is whole.
#[derive(Debug)]
pub(super) struct Received {
    length: u64,
    /// What comes behind what is in the file.
    rest: Vec<u8>,
    file: Option<Stored>,
}

/// Where a large one lies. Gone with the value.
#[derive(Debug)]
struct Stored {
    file: File,
    place: Place,
}

/// A share of the disk.
#[derive(Debug)]
struct Place {
    uploads: Arc<Uploads>,
    id: u64,
    give_up: Arc<Notify>,
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

    /// Takes a body, however long that takes, as long as it comes.
    pub async fn receive(self: &Arc<Self>, mut body: Body) -> Result<Received, ApiError> {
        let mut pace = Pace::new(self.patience);
        let mut received = Received { length: 0, rest: Vec::new(), file: None };
        loop {
            let frame = tokio::select! {
                frame = next_frame(&mut body) => frame,
                () = pace.too_slow() => return Err(ApiError::slow_body()),
                () = given_up(received.file.as_ref()) => return Err(ApiError::crowded()),
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
                // That was this machine's time.
                pace.rest();
            }
        }
        if let Some(stored) = &received.file {
            stored.place.is_whole();
        }
        Ok(received)
    }

    /// Writes what is in memory behind what is in the file.
    async fn write(self: &Arc<Self>, mut received: Received) -> Result<Received, ApiError> {
        if received.file.is_none() {
            let file = blocking(tempfile::tempfile).await?;
            received.file = Some(Stored { file, place: self.place() });
        }
        if let Some(stored) = &received.file {
            stored.place.grow(received.rest.len() as u64)?;
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

    /// A share of the memory for bodies, as large as `received`. Small ones need none.
    pub async fn memory(&self, received: &Received) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if received.length <= SMALL {
            return Ok(None);
        }
        let mebibytes = u32::try_from(received.length.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.memory).acquire_many_owned(mebibytes).await;
        share.map(Some).map_err(|_| ApiError::shutting_down())
    }

    fn place(self: &Arc<Self>) -> Place {
        let give_up = Arc::new(Notify::new());
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let rate = Rate { bytes: 0.0, at: Instant::now() };
        state.uploads.insert(id, Upload { bytes: 0, rate, is_whole: false, give_up: Arc::clone(&give_up) });
        Place { uploads: Arc::clone(self), id, give_up }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives up the body that comes the slowest, `but` for one. Whole ones are soon gone by themselves.
    fn give_up_slowest(&mut self, but: u64, now: Instant) -> bool {
        let those = self.uploads.iter().filter(|&(&id, upload)| id != but && !upload.is_whole);
        let rates = those.map(|(&id, upload)| (id, upload.rate.now(now)));
        let slowest = rates.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(id, _)| id);
        let Some(upload) = slowest.and_then(|id| self.uploads.remove(&id)) else { return false };
        self.on_disk -= upload.bytes;
        upload.give_up.notify_one();
        true
    }
}

impl Place {
    /// More bytes are to be written.
    fn grow(&self, bytes: u64) -> Result<(), ApiError> {
        let now = Instant::now();
        let mut state = self.uploads.lock();
        while state.on_disk + bytes > self.uploads.most_on_disk {
            if !state.give_up_slowest(self.id, now) {
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

    /// Nothing more comes.
    fn is_whole(&self) {
        if let Some(upload) = self.uploads.lock().uploads.get_mut(&self.id) {
            upload.is_whole = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.uploads.lock();
        if let Some(upload) = state.uploads.remove(&self.id) {
            state.on_disk -= upload.bytes;
        }
    }
}

impl Received {
    /// All of it, in memory. Blocks.
    pub fn into_bytes(self) -> Result<Vec<u8>, ApiError> {
        let Some(Stored { mut file, place }) = self.file else { return Ok(self.rest) };
        let mut bytes = Vec::with_capacity(usize::try_from(self.length).unwrap_or(0));
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|error| disk(&error))?;
        drop(place);
        bytes.extend_from_slice(&self.rest);
        Ok(bytes)
    }
}

async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Waits until the place of a body is needed by others.
async fn given_up(stored: Option<&Stored>) {
    match stored {
        Some(stored) => stored.place.give_up.notified().await,
        None => std::future::pending().await,
    }
}

/// What may wait for the disk, on a thread for such things.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal())?;
    done.map_err(|error| disk(&error))
}

fn disk(error: &io::Error) -> ApiError {
    tracing::error!(target: super::LOG, "a temporary file for a request's body failed: {error}");
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
    fn the_slowest_makes_room() {
        let uploads = uploads(100);
        let places: Vec<Place> = (0..4).map(|_| uploads.place()).collect();
        places.iter().for_each(|place| place.grow(100).expect("there is room"));
        // The first goes on, the second has come to its end, and of the other two the last came in a burst.
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).expect("a time");
        for place in &places[1..] {
            uploads.lock().uploads.get_mut(&place.id).expect("an upload").rate.at = long_ago;
        }
        places[1].is_whole();
        uploads.lock().uploads.get_mut(&places[3].id).expect("an upload").rate.bytes *= 2.0;
        let newest = uploads.place();
        newest.grow(1).expect("the place of the slowest");
        let is_there = |place: &Place| uploads.lock().uploads.contains_key(&place.id);
        assert_eq!(places.iter().map(is_there).collect::<Vec<_>>(), [true, true, false, true]);
        assert!(places[2].grow(1).is_err(), "it was given up");
        assert_eq!(uploads.lock().on_disk, 301);
        drop(places);
        assert_eq!(uploads.lock().on_disk, 1);
    }

    #[test]
    fn whole_bodies_are_not_given_up() {
        let uploads = uploads(100);
        let places: Vec<Place> = (0..4).map(|_| uploads.place()).collect();
        for place in &places {
            place.grow(100).expect("there is room");
            place.is_whole();
        }
        assert_eq!(uploads.place().grow(1).expect_err("no room").status(), 503);
    }
}
