//! The parameters of a live session.

use crate::error::{Error, Result};
use serde::Serialize;

/// Which frames of live video are held.
///
/// Frames that repeat the one before them are neither held nor counted. [`CausalPruner`](crate::prune::CausalPruner)
/// chooses which tokens of the others to keep. A frame is held with all of its kept tokens, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LivePolicy {
    /// The newest `frames` frames: SimpleStream (arXiv 2604.02317).
    Window {
        /// The number of frames, at least 1.
        frames: usize,
    },
    /// At most `tokens` visual tokens: when there are more, the frames of least worth are evicted.
    ///
    /// The worth of a frame is `r · 2^(−a/h)`: its novelty `r`
    /// ([`CausalChoice::novelty`](crate::prune::CausalChoice::novelty), 0 to 1), halved for every `h` seconds of its
    /// age `a`, the time from it to the newest frame. Of equal frames, the older is evicted. The first frame has no
    /// privilege: attention sinks into the text before it, which always stays.
    Memory {
        /// The number of visual tokens, at least 1.
        tokens: usize,
        /// How many of the newest frames are never evicted, at least 1. If they alone have more than `tokens` tokens,
        /// only they are held.
        recent: usize,
        /// `h`, in seconds, more than 0.
        half_life_s: f64,
    },
}

impl LivePolicy {
    /// A memory of `tokens` visual tokens, which never evicts the four newest frames, with a half-life of five minutes.
    pub fn memory(tokens: usize) -> Self {
        Self::Memory { tokens, recent: 4, half_life_s: 300.0 }
    }

    /// How many of the newest frames are never evicted.
    pub fn recent(&self) -> usize {
        match *self {
            Self::Window { frames } => frames,
            Self::Memory { recent, .. } => recent,
        }
    }
}

impl Default for LivePolicy {
    fn default() -> Self {
        Self::Window { frames: 8 }
    }
}

/// The parameters of a [`LiveSession`](super::LiveSession).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LiveParams {
    /// A name in place of the video's path, for errors and reports.
    pub name: String,
    /// Which frames are held.
    pub policy: LivePolicy,
    /// The approximate number of frames pushed per second. The layouts of some families state the number of frames and
    /// the duration.
    pub fps: f64,
    /// How many frames of the whole video to remember in addition to those that the policy holds, so that
    /// [`search`](super::LiveSession::search) can ask about them; 0 for none. They take no KV cache, only memory for
    /// the embeddings of their kept tokens. They are remembered in parts of two slices, at least four parts: when there
    /// are more, the two neighbors in time that look most alike become one.
    pub recall: usize,
    /// Whether to prefill each frame when it is pushed, so that a question waits only for its own rows. If false,
    /// frames are prefilled with the next question, which saves work for frames that are evicted before it.
    pub prefill: bool,
}

impl Default for LiveParams {
    fn default() -> Self {
        Self { name: "live".into(), policy: LivePolicy::default(), fps: 1.0, recall: 0, prefill: true }
    }
}

impl LiveParams {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`], naming the parameter, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let check = |valid: bool, name: &'static str, value: &dyn std::fmt::Display, expected: &str| match valid {
            true => Ok(()),
            false => Err(Error::InvalidParameter { name, value: value.to_string(), expected: expected.into() }),
        };
        let is_positive = |x: f64| x.is_finite() && x > 0.0;
        match self.policy {
            LivePolicy::Window { frames } => check(frames > 0, "the window", &frames, "at least 1 frame")?,
            LivePolicy::Memory { tokens, recent, .. } => {
                check(tokens > 0, "the memory", &tokens, "at least 1 token")?;
                check(recent > 0, "the newest frames to hold", &recent, "at least 1")?;
            }
        }
        if let LivePolicy::Memory { half_life_s, .. } = self.policy {
            check(is_positive(half_life_s), "the half-life", &half_life_s, "more than 0 seconds")?;
        }
        check(is_positive(self.fps), "frames a second", &self.fps, "more than 0")
    }
}
