//! What the caller of a live session can choose.

use crate::error::{Error, Result};
use serde::Serialize;

/// Which frames of video that does not end stay.
///
/// Frames that repeat the one before them are neither kept nor counted. What is kept of the others is what
/// [`CausalPruner`](crate::prune::CausalPruner) chooses. A frame is held with all tokens that were kept of it, or not
/// at all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LivePolicy {
    /// The last `frames` frames, and nothing else: SimpleStream (arXiv 2604.02317).
    Window {
        /// At least 1.
        frames: usize,
    },
    /// At most `tokens` visual tokens, by worth: when there are more, the frames of least worth leave.
    ///
    /// The worth of a frame is `r · 2^(−a/h)`: its novelty `r`
    /// ([`CausalChoice::novelty`](crate::prune::CausalChoice::novelty), 0 to 1), halved for every `h` seconds of its
    /// age `a`, the time since it was shown until the newest frame was. Of equals the older leaves. The first frame has
    /// no privilege: the text in front of it is what attention sinks into, and always stays.
    Memory {
        /// Visual tokens, at least 1.
        tokens: usize,
        /// The newest frames, which never leave, at least 1; if they have more than `tokens` tokens, they are all that
        /// is held.
        recent: usize,
        /// `h`, in seconds, more than 0.
        half_life_s: f64,
    },
}

impl LivePolicy {
    /// A memory of `tokens` visual tokens, with the four newest frames and a half-life of five minutes.
    pub fn memory(tokens: usize) -> Self {
        Self::Memory { tokens, recent: 4, half_life_s: 300.0 }
    }

    /// The newest frames, which never leave.
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

/// How a [`LiveSession`](super::LiveSession) holds its video.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LiveParams {
    /// What stands for the video's path, in errors and reports.
    pub name: String,
    /// Which frames stay.
    pub policy: LivePolicy,
    /// Frames that will be pushed for each second, about. Some families tell the model how many frames it sees, and
    /// over how long.
    pub fps: f64,
    /// Frames that are remembered beside what the policy holds, of all that went by, so that
    /// [`search`](super::LiveSession::search) can ask about them; 0 for none. They are in no KV cache: what they take
    /// are the embeddings of the tokens that are kept of them. They come in pairs, of which at least four are
    /// remembered: where more came, neighbors in time that look most alike became one.
    pub recall: usize,
    /// Compute each frame's rows when it comes, so that a question waits for its own rows alone. Without it, they are
    /// computed with the next question: less work where frames leave unasked.
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
                check(recent > 0, "the newest frames that stay", &recent, "at least 1")?;
            }
        }
        if let LivePolicy::Memory { half_life_s, .. } = self.policy {
            check(is_positive(half_life_s), "the half-life", &half_life_s, "more than 0 seconds")?;
        }
        check(is_positive(self.fps), "frames a second", &self.fps, "more than 0")
    }
}
