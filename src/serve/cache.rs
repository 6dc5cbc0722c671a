//! Encoded videos, by their content: the next question about a video decodes and encodes nothing.

use crate::chat::EncodedVideo;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The content of a video, and how it is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct VideoKey {
    pub digest: [u8; 32],
    /// Everything else that the result depends on: the frames, and the pruning.
    pub how: String,
}

/// A cache of encoded videos. It drops the least recently used ones when it holds too many bytes.
#[derive(Debug)]
pub(super) struct VideoCache {
    max_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<VideoKey, Entry>,
    bytes: u64,
    /// The number of uses so far.
    clock: u64,
}

#[derive(Debug)]
enum Entry {
    /// A slot encodes it.
    Pending,
    Ready {
        video: EncodedVideo,
        used: u64,
        bytes: u64,
    },
}

/// How a video was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Hit,
    /// It had to be encoded.
    Miss,
}

/// How often a slot that waits for another's encoding checks whether it is cancelled.
const POLL: Duration = Duration::from_millis(50);

impl VideoCache {
    pub fn new(max_bytes: u64) -> Self {
        Self { max_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The number of videos in the cache, and their bytes.
    pub fn size(&self) -> (usize, u64) {
        let state = self.lock();
        (state.entries.values().filter(|entry| matches!(entry, Entry::Ready { .. })).count(), state.bytes)
    }

    /// The video with this key, from the cache or else from `encode`.
    ///
    /// If another slot encodes it, this call waits for it, unless `is_cancelled` is true. Then it calls `encode`, which
    /// is to fail for the same reason.
    pub fn get_or_encode<E>(
        &self,
        key: &VideoKey,
        is_cancelled: impl Fn() -> bool,
        encode: impl FnOnce() -> Result<EncodedVideo, E>,
    ) -> Result<(EncodedVideo, Lookup), E> {
        let mut state = self.lock();
        let is_ours = loop {
            let state_now = &mut *state;
            state_now.clock += 1;
            match state_now.entries.get_mut(key) {
                Some(Entry::Ready { video, used, .. }) => {
                    *used = state_now.clock;
                    return Ok((video.clone(), Lookup::Hit));
                }
                None => {
                    state_now.entries.insert(key.clone(), Entry::Pending);
                    break true;
                }
                Some(Entry::Pending) if is_cancelled() => break false,
                Some(Entry::Pending) => {
                    state = self.changed.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        };
        drop(state);
        // Removes the entry if encoding fails or panics.
        let mut pending = Pending { cache: self, key: is_ours.then_some(key) };
        let video = encode()?;
        if is_ours {
            pending.key = None;
            self.insert(key, &video);
        }
        Ok((video, Lookup::Miss))
    }

    fn insert(&self, key: &VideoKey, video: &EncodedVideo) {
        let bytes = video.bytes() as u64;
        let mut state = self.lock();
        let state_now = &mut *state;
        state_now.entries.remove(key);
        if bytes <= self.max_bytes {
            state_now.clock += 1;
            let entry = Entry::Ready { video: video.clone(), used: state_now.clock, bytes };
            state_now.entries.insert(key.clone(), entry);
            state_now.bytes += bytes;
            while state_now.bytes > self.max_bytes && state_now.drop_oldest() {}
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_oldest(&mut self) -> bool {
        let ready = self.entries.iter().filter_map(|(key, entry)| match entry {
            Entry::Ready { used, bytes, .. } => Some((*used, *bytes, key.clone())),
            Entry::Pending => None,
        });
        let Some((_, bytes, key)) = ready.min_by_key(|(used, ..)| *used) else { return false };
        self.entries.remove(&key);
        self.bytes -= bytes;
        true
    }
}

/// Removes a pending entry when it is dropped.
struct Pending<'a> {
    cache: &'a VideoCache,
    key: Option<&'a VideoKey>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.cache.lock().entries.remove(key);
            self.cache.changed.notify_all();
        }
    }
}
