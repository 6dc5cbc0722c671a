//! Watching a session at work.

/// What a [`Session`](super::Session) is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Loading the language model, in thousandths.
    LoadModel,
    /// Loading the vision encoder, in thousandths.
    LoadVision,
    /// Decoding and encoding frames.
    Encode,
    /// Feeding the prompt to the language model, in rows (text tokens and visual tokens).
    Prefill,
}

/// Is told what a [`Session`](super::Session) does. Every method may be left out.
///
/// A closure that takes `&str` is an observer of the answer's text.
pub trait Observer {
    /// `done` of `total` steps of a stage are done.
    fn progress(&mut self, stage: Stage, done: u64, total: u64) {
        let _ = (stage, done, total);
    }

    /// Something that the user should know, while the work goes on.
    fn warning(&mut self, message: &str) {
        tracing::warn!("{message}");
    }

    /// The next piece of the answer: valid UTF-8, to be written as it is.
    fn text(&mut self, piece: &str) {
        let _ = piece;
    }
}

impl<F: FnMut(&str)> Observer for F {
    fn text(&mut self, piece: &str) {
        self(piece);
    }
}

/// An observer that looks away. Warnings still go to `tracing`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {}
