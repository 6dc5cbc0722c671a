//! An OpenAI-compatible HTTP server over [`chat`](crate::chat): `/v1/chat/completions` with videos, `/v1/models`,
//! `/health`, `/metrics`. `docs/serve.md` describes requests and answers.
//!
//! There is one model, and for each slot a session with its own vision encoder. A request passes through `conn` (the
//! connection), `guard` (host, key), `upload` (the body), `prepare` (messages and limits) and `media` (files that can
//! be decoded). Then it is a `job` in the `queue`, until a `slot` answers it. `routes` or `stream` sends the answer;
//! `ticket` cancels the job if the client disconnects.
//!
//! The network is not trusted. Text is tokenized as text. Paths and URLs lead nowhere unless the options allow it. A
//! request can lower limits, but not raise them. No error quotes a decoder.

mod api;
mod authority;
mod cache;
mod cancel;
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
mod ticket;
mod trail;
mod upload;
mod writer;

pub use media::RemoteHost;
pub use options::ServeOptions;
pub use server::{Server, Stop};
