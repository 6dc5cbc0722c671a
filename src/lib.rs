//! Chat about video files on your own machine, with quantized VideoLLMs in GGUF.
//!
//! sharpv builds a patched llama.cpp and prunes redundant visual tokens before they reach the language model (Visual
//! SharpV, after [arXiv 2511.08003](https://arxiv.org/abs/2511.08003)). Prefill is faster and the KV cache smaller.
//! After prefill, sharpv can also evict visual tokens from the layers of the KV cache that no longer need them (Memory
//! SharpV).
//!
//! ```no_run
//! use sharpv::{Session, VideoOptions};
//!
//! let files = sharpv::models::resolve("smol", None, &[])?; // after `sharpv pull smol`
//! let mut session = Session::builder(&files).open()?;
//! session.add_video("clip.mp4", &VideoOptions::default(), &mut ())?;
//! let answer = session.ask("What is in the video?", &mut |piece: &str| print!("{piece}"))?;
//! println!("\n{} of {} visual tokens kept", answer.visual_tokens.kept, answer.visual_tokens.total);
//! # Ok::<(), sharpv::Error>(())
//! ```
//!
//! # Modules
//! - [`chat`]: [`Session`], which is all that most programs need, and [`Worker`], which runs a session on a thread of
//!   its own, for programs that must not block.
//! - [`models`]: finds and downloads models. [`video`]: decodes frames. [`layout`]: how each model family arranges a
//!   video in its prompt.
//! - [`prune`]: which visual tokens to keep. Plain arithmetic on `f32` slices, usable on its own.
//! - [`skip`]: which parts of an image the vision encoder need not compute.
//! - [`runtime`]: a safe wrapper around llama.cpp and its vision encoder. [`ffi`]: the C interfaces below it.
//! - [`weights`]: copies of model files in a type that this processor computes faster.
//! - `serve` (a feature): a server for OpenAI's chat completions API.
//! - `lab` (a feature): evaluation and benchmarks. It compares the accuracy and cost of methods, and reports them as
//!   images and as one HTML page.
//!
//! Dependencies go one way: `{lab, serve} → chat → {layout, models, runtime, prune, video} → error`. `prune` and
//! `video` do not depend on `runtime`. Only `ffi` and `runtime` contain `unsafe`.

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
