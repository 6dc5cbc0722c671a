//! The session: videos and questions in, answers out.
//!
//! A turn plans the prompt, encodes and prunes the video, prefills the prompt and decodes the answer. A session keeps
//! the KV cache and the embeddings of the kept visual tokens, so a second question about a video does not encode or
//! prefill it again.
//!
//! The modules, from the bottom up: all others use `rows`, `encoded` and `conversation`. `engine` holds the loaded
//! models. `prompt` plans the rows of a conversation, `fit` makes a video fit before it is encoded, `encode` encodes
//! and prunes it. `cache` holds the computed rows. `turn` puts a question to a conversation and its cache; [`Session`],
//! `search` and [`live`] video call it. `report` describes an answer and its cost. A [`Worker`] runs a session on its
//! own thread, for programs that must not block.

mod cache;
mod conversation;
mod encode;
mod encoded;
mod engine;
mod fit;
pub mod live;
mod params;
mod prompt;
mod report;
mod rows;
mod sampling;
mod search;
mod session;
mod turn;

pub use cache::Kv;
pub use cache::evict::{EvictMode, EvictParams};
pub use cache::prefill::PrefillMode;
pub use cache::profile::{LayerProfile, Loss, ProfileStep, order_of};
pub use conversation::message::{Media, Message, Role};
pub use encoded::notes::{Area, CellWork, EncoderCells, Grid, TokenScores};
pub use engine::Thinking;
pub use fit::{MemoryNeed, Need, Suggestions, VideoPlan};
pub use live::{AskAt, Condition, LiveParams, LivePolicy, LiveSession, LiveState, Pushed, Trigger};
pub use params::SessionParams;
pub use prompt::Tokenization;
pub use report::{Answer, EncoderWork, Settings, SliceReport, Timings, Tokens, VideoReport, VisualTokens};
pub use rows::{PlannedRow, RowKey};
pub use sampling::{FrameChoice, VideoOptions};
pub use search::{Question, Search, SearchedPart, Zoom};
pub use session::{
    AnswerStream, Effect, EncodedVideo, Event, EventKind, KeptTokens, Loaded, Session, SessionBuilder, SliceInspection,
    Ticket, TurnParams, VideoInspection, Worker, WorkerBuilder,
};
pub use turn::{Piece, StopReason};
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) use {engine::fuzz_template, session::save::fuzz_saved_session};
