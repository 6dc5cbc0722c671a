//! Live video: frames are pushed as they arrive, and questions are answered from the frames that are held.
//!
//! A [`LiveSession`] holds one growing video. Each frame is encoded as far as it differs from earlier ones, pruned
//! against the frame before it, and appended to the KV cache. When the cache holds too much, a [`LivePolicy`] chooses
//! whole frames to evict. So memory, the time for a frame and the time for a question do not grow with the length of
//! the video.
//!
//! # Positions
//! Evicting never moves the rows that stay. An evicted frame keeps its positions in the arrangement, with no tokens, so
//! all other rows keep theirs: evicting it only removes its cells, and nothing is computed. Shifting could close the
//! gap: it rotates the keys of all rows after the gap by its length (`llama_memory_seq_add`). But M-RoPE rotates by
//! three numbers, of which only time may change; keys in a quantized cache would be rounded again with each evicted
//! frame; and some caches cannot shift at all. The model also knows gaps from pruning.
//!
//! So positions grow with the video, until they reach what the model was trained for: after minutes in a model of 8192
//! positions with 74 for a frame, after hours in one that counts half seconds. Then, and whenever four times as many
//! frames have arrived as are held, the session *rebases*: it arranges the held frames anew, from position 0, and
//! prefills them from their embeddings. These are few rows, a fraction of the work of encoding one frame.
//!
//! Rows that stay attended to evicted rows when they were computed, and so carry information about them. Every
//! streaming transformer remembers in this way; a rebase clears it.
//!
//! # Recall
//! In addition to the held frames, a session can remember parts of the whole video ([`LiveParams::recall`]). They are
//! in no prompt until [`search`](LiveSession::search) asks about each of them alone, in a separate cache.

mod arrangement;
mod fit;
mod held;
mod params;
mod policy;
mod recall;
mod search;
mod session;
mod state;
mod when;

pub use params::{LiveParams, LivePolicy};
pub use session::LiveSession;
pub use state::{LiveState, Pushed};
pub use when::{AskAt, Condition, Trigger};
