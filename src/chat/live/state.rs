//! The state that a live session reports.

use serde::Serialize;

/// What a [`LiveSession`](super::LiveSession) holds, and what it counted.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct LiveState {
    /// Frames that were pushed.
    pub frames: u64,
    /// Frames of which no token was kept, because they repeat the frame before.
    pub repeats: u64,
    /// Frames that are held.
    pub held: usize,
    /// Frames that were evicted.
    pub evicted: u64,
    /// Frames that wait for another one to be merged with them.
    pub pending: usize,
    /// Visual tokens that are held.
    pub tokens: usize,
    /// Visual tokens of all frames that were pushed, before pruning.
    pub tokens_seen: u64,
    /// The time of the oldest held frame, in seconds; `None` if none is held.
    pub oldest_s: Option<f64>,
    /// The time of the newest held frame, in seconds.
    pub newest_s: Option<f64>,
    /// The time of the newest pushed frame, in seconds. The image has not changed from the newest held frame until
    /// then.
    pub now_s: Option<f64>,
    /// Bytes of the held embeddings.
    pub embedding_bytes: usize,
    /// Frames that are remembered for search.
    pub recalled: usize,
    /// Bytes of their embeddings.
    pub recalled_bytes: usize,
    /// Cells of the KV cache in use.
    pub cells_used: usize,
    /// Cells of the KV cache.
    pub cells: usize,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Positions of the prompt without a question.
    pub positions: usize,
    /// How often the held frames were arranged anew, from position 0.
    pub rebases: u64,
    /// The share of the vision encoder's work that was done, 0 to 1; 1 before the first frame.
    pub computed: f64,
}

/// What became of a pushed frame: returned by [`LiveSession::push`](super::LiveSession::push).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Pushed {
    /// The time of the frame, in seconds; of frames that were merged, that of the last.
    pub time_s: f64,
    /// How much of it is new, 0 to 1: [`CausalChoice::novelty`](crate::prune::CausalChoice::novelty). A jump is the
    /// cheapest sign that something happened.
    pub novelty: f32,
    /// Whether a scene begins with it.
    pub opens_scene: bool,
    /// The number of its visual tokens.
    pub total: usize,
    /// How many of them are kept. If none is, it is a repeat and not held.
    pub kept: usize,
    /// The share of the encoder's work that was done for it, 0 to 1.
    pub computed: f32,
    /// Frames that were evicted for it.
    pub evicted: usize,
}
