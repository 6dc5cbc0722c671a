//! What a KV cache holds, or what a request needs in it: a hash for each message and each video, in order.
//!
//! A request can reuse as much of a cache as the two trails have in common from their beginning.

use super::api::request::Speaker;
use super::cache::VideoKey;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Hashes of the messages and videos of a conversation.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail(Vec<Step>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    hash: u64,
    is_video: bool,
}

/// What a video is worth, where a message is worth 1.
const VIDEO_WORTH: isize = 100;

impl Trail {
    /// Adds a message.
    pub fn message(&mut self, speaker: Speaker, text: &str) {
        self.push((speaker, text), false);
    }

    /// Adds a video.
    pub fn video(&mut self, key: &VideoKey) {
        self.push(key, true);
    }

    fn push(&mut self, what: impl Hash, is_video: bool) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        self.0.push(Step { hash: hasher.finish(), is_video });
    }

    /// What a cache with this trail is worth to a request: what the request reuses, less the videos that it removes.
    pub fn worth_to(&self, request: &Self) -> isize {
        let common = self.0.iter().zip(&request.0).take_while(|(a, b)| a == b).count();
        let gain: isize = self.0[..common].iter().map(|step| if step.is_video { VIDEO_WORTH } else { 1 }).sum();
        let loss: isize = self.0[common..].iter().map(|step| if step.is_video { VIDEO_WORTH } else { 0 }).sum();
        gain - loss
    }

    /// A trail of the given hashes, each with whether it is a video.
    #[cfg(test)]
    pub fn of(steps: &[(u64, bool)]) -> Self {
        Self(steps.iter().map(|&(hash, is_video)| Step { hash, is_video }).collect())
    }
}
