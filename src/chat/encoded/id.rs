//! The identity of an encoded video.

use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies an encoded video within the process. Rows of the KV cache name a video by its index in the conversation,
/// and another conversation may have another video at that index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::chat) struct VideoId(u64);

impl VideoId {
    /// A new identity, which no other video has.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
