//! An OpenAI-compatible HTTP server over [`chat`](crate::chat): `/v1/chat/completions` with videos, `/v1/models`,
//! `/health`, `/metrics`. What it takes and gives is described in `docs/serve.md`.
//!
//! One model, and a session with its vision encoder for each slot. A request goes `conn` (the connection) → `guard`
//! (host, key) → `upload` (body) → `prepare` (messages, limits) and `media` (files that can be decoded) → `queue` →
//! `slot` (a session on a thread of its own; `cache` has videos that were encoded before) → `stream`.
//!
//! What comes in over the network is not trusted: text is tokenized as text, paths and URLs lead nowhere unless that
//! was allowed, a request can lower limits and not lift them, and no error repeats what a decoder said.

mod api;
mod authority;
mod cache;
mod conn;
mod cors;
mod gate;
mod guard;
mod job;
mod media;
mod metrics;
mod options;
mod prepare;
mod queue;
mod routes;
mod server;
mod slot;
mod stream;
mod upload;
mod writer;

pub use media::RemoteHost;
pub use options::ServeOptions;
pub use server::{Server, Stop};

/// The log's target.
const LOG: &str = "sharpv::serve";
