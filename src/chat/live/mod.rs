//! Live video: frames are pushed as they come, and questions answered from what is held of them.
//!
//! A [`LiveSession`] holds one video that grows. Each frame is encoded as far as it differs from what was encoded
//! before, pruned against the frame before it, and its rows go into the KV cache after those that are there. When
//! there are too many, whole frames leave by a [`LivePolicy`]. Memory and the cost of a frame and of a question do not
//! grow with the length of the video.
//!
//! # Positions
//! No row that stays is ever moved. A frame that left keeps its place in the arrangement, empty, and so the positions
//! of all other rows are what they were: that frame leaves by removing its cells, and nothing is computed. A cache can
//! also be made gapless by shifting: turning the keys of all rows after a gap by as many positions
//! (`llama_memory_seq_add`). But M-RoPE turns by three numbers, of which only time may move; keys in a quantized cache
//! would be rounded anew with each frame that leaves; and caches of other kinds cannot do it at all. A gap is also what
//! the model knows from pruning.
//!
//! So positions grow, as slowly as the video does, and come to the end of what the model was trained for: after
//! minutes in a model of 8192 positions and 74 for a frame, after hours in one that counts half seconds. Then, and when
//! four times as many frames have come as are held, the session *rebases*: what is held is arranged anew, from position
//! 0, and prefilled from its embeddings. These are few rows, a fraction of the work of encoding one frame.
//!
//! Rows that stay were computed when those that left were there, and know what they took from them. That is the memory
//! of every streaming transformer; a rebase clears it.
//!
//! # What is remembered
//! Beside what is held, parts of all that went by can be remembered ([`LiveParams::recall`]), which stand in no prompt
//! until [`search`](LiveSession::search) asks about each alone, in a cache of its own.

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
