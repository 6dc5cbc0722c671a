//! What a live session tells of itself.

use serde::Serialize;

/// What a [`LiveSession`](super::LiveSession) holds, and what became of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct LiveState {
    /// Frames that were pushed.
    pub frames: u64,
    /// Frames of which nothing was kept, because they told nothing that the frame before had not.
    pub repeats: u64,
    /// Frames that are held.
    pub held: usize,
    /// Frames that were held once and left.
    pub evicted: u64,
    /// Frames that wait for another one to be merged with.
    pub pending: usize,
    /// Visual tokens that are held.
    pub tokens: usize,
    /// Visual tokens of all frames that were pushed, before pruning.
    pub tokens_seen: u64,
    /// When the oldest frame was shown that is held, in seconds; `None` if none is.
    pub oldest_s: Option<f64>,
    /// When the newest frame was shown that is held.
    pub newest_s: Option<f64>,
    /// When the newest frame was shown that was pushed: until then, what the newest that is held shows has not changed.
    pub now_s: Option<f64>,
    /// Bytes of the embeddings that are held.
    pub embedding_bytes: usize,
    /// Frames that are remembered beside those that are held, for searching.
    pub recalled: usize,
    /// Bytes of their embeddings.
    pub recalled_bytes: usize,
    /// Cells of the KV cache that hold something.
    pub cells_used: usize,
    /// Cells of the KV cache.
    pub cells: usize,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Positions that the prompt has come to, without a question.
    pub positions: usize,
    /// How often the frames that are held were arranged anew, because positions came to an end.
    pub rebases: u64,
    /// The share of the vision encoder's work that was done, 0 to 1; 1 before the first frame.
    pub computed: f64,
}

/// What became of a frame: given by [`LiveSession::push`](super::LiveSession::push).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Pushed {
    /// When it was shown, in seconds; of a merged pair, the second frame.
    pub time_s: f64,
    /// How much of it was new, 0 to 1: [`CausalChoice::novelty`](crate::prune::CausalChoice::novelty). A jump of it is
    /// the cheapest sign that something happened.
    pub novelty: f32,
    /// A scene begins with it.
    pub opens_scene: bool,
    /// Its visual tokens.
    pub total: usize,
    /// How many of them are kept; with none it is a repeat, and not held.
    pub kept: usize,
    /// The share of the encoder's work that was done for it, 0 to 1.
    pub computed: f32,
    /// Frames that left for it.
    pub evicted: usize,
}
