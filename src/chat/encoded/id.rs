//! Which encoded video is which.

use std::sync::atomic::{AtomicU64, Ordering};

/// Tells encoded videos of a process apart: rows of the KV cache name a video by its place in the conversation, and
/// another conversation may have another video there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::chat) struct VideoId(u64);

impl VideoId {
    /// One that no other video has.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
