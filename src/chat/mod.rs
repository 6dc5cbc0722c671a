//! The session: videos and questions in, answers out.
//!
//! A turn goes plan → encode → prune → prefill → decode. A session keeps the KV cache and the embeddings of the kept
//! visual tokens, so that a second question about a video neither encodes nor prefills it again.
//!
//! A [`Session`] is thin: what is loaded (`engine`), what was said (`conversation`) and what is in the KV cache (`kv`),
//! none of which knows the others. `prompt` makes rows of a conversation, `fit` makes a video fit before it is encoded,
//! `video` encodes and prunes it, `generate` writes the answer, `stream` makes turns of all that, `save` puts a session
//! into a file. A [`Worker`] is a thread with a session, for programs that must not wait. [`live`] is for video that
//! does not end.

mod answer;
mod builder;
mod conversation;
mod effects;
mod engine;
mod fit;
mod generate;
mod inspect;
mod kept;
mod kv;
pub mod live;
mod params;
mod prompt;
mod save;
mod session;
mod several;
mod shared;
mod stream;
mod utf8;
mod video;
mod worker;
mod zoom;

pub use answer::{
    Answer, EncoderWork, Kv, Settings, SliceReport, StopReason, Timings, Tokens, VideoReport, VisualTokens,
};
pub use builder::SessionBuilder;
pub use effects::Effect;
pub use fit::{MemoryNeed, Need, Suggestions, VideoPlan};
pub use inspect::{Area, CellWork, EncoderCells, Grid, SliceInspection, TokenScores, VideoInspection};
pub use kept::KeptTokens;
pub use kv::evict::{EvictMode, EvictParams};
pub use kv::prefill::PrefillMode;
pub use kv::profile::{LayerProfile, Loss, ProfileStep, order_of};
pub use live::{AskAt, Condition, LiveParams, LivePolicy, LiveSession, LiveState, Pushed, Trigger};
pub use params::{FrameChoice, SessionParams, VideoOptions};
pub use prompt::message::{Media, Message, Role};
pub use prompt::plan::{PlannedRow, RowKey, Tokenization};
pub use session::Session;
pub use shared::{EncodedVideo, TurnParams};
pub use stream::AnswerStream;
pub use worker::{Event, EventKind, Loaded, Ticket, Worker, WorkerBuilder};
pub use zoom::{Search, SearchedPart, Zoom};
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) use {prompt::template::fuzz_template, save::fuzz_saved_session};
