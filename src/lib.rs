//! Chat about video files on one's own machine, with quantized VideoLLMs in GGUF.
//!
//! sharpv builds a patched llama.cpp and drops the visual tokens that say nothing new before they reach the language
//! model (Visual SharpV, after [arXiv 2511.08003](https://arxiv.org/abs/2511.08003)): the prompt is prefilled sooner
//! and takes a smaller KV cache. Behind the prefill, visual tokens can leave the layers of the KV cache in which little
//! of them is left (Memory SharpV).
//!
//! ```no_run
//! use sharpv::{Session, VideoOptions};
//!
//! let files = sharpv::models::resolve("smol", None, &[])?; // after `sharpv pull smol`
//! let mut session = Session::builder(&files).open()?;
//! session.add_video("clip.mp4".as_ref(), &VideoOptions::default(), &mut ())?;
//! let answer = session.ask("What is in the video?", &mut |piece: &str| print!("{piece}"))?;
//! println!("\n{} of {} visual tokens kept", answer.visual_tokens.kept, answer.visual_tokens.total);
//! # Ok::<(), sharpv::Error>(())
//! ```
//!
//! # Modules
//! - [`chat`]: the session, which is all that most programs need, and the [`Worker`], a thread with a session, for
//!   programs that must not wait.
//! - [`models`]: where models come from. [`video`]: frames out of files. [`layout`]: how a model family wants a video
//!   in its prompt.
//! - [`prune`]: which visual tokens to keep. Plain arithmetic on slices of `f32`, of use without the rest.
//! - [`runtime`]: a safe wrapper over llama.cpp and its vision encoder. [`ffi`]: the C interfaces beneath.
//! - [`weights`]: copies of model files that a processor computes faster.
//! - `serve` (a feature): a server for OpenAI's chat completions.
//! - `lab` (a feature): measuring. How right answers are and what they cost, with methods side by side, and both as
//!   images and one HTML page.
//!
//! Dependencies go one way: `{lab, serve} → chat → {layout, models, runtime, prune, video} → error`. `prune` and
//! `video` know nothing of `runtime`. `unsafe` is in `ffi` and `runtime` only.

#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod chat;
pub mod error;
#[allow(unsafe_code)]
pub mod ffi;
#[cfg(all(any(test, fuzzing), feature = "lab"))]
#[allow(missing_docs)]
pub mod fuzzing;
#[cfg(feature = "lab")]
pub mod lab;
pub mod layout;
pub mod models;
mod names;
#[cfg(any(feature = "hub", feature = "serve"))]
mod net;
mod observer;
pub mod prune;
#[allow(unsafe_code)]
pub mod runtime;
#[cfg(feature = "serve")]
pub mod serve;
pub mod skip;
pub mod video;
pub mod weights;

pub use chat::{
    Answer, AnswerStream, Event, EventKind, LiveParams, LivePolicy, LiveSession, Session, SessionBuilder,
    SessionParams, Ticket, VideoOptions, Worker,
};
pub use error::{Error, Fix, Result};
pub use observer::{Observer, Stage};
pub use runtime::CancelToken;
