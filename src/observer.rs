//! Progress, messages and text: one trait for everything that takes time.

/// What the library is doing, and the unit that its progress is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Downloading a file, in bytes.
    Download,
    /// Verifying a file's checksum, in bytes.
    Verify,
    /// Unpacking a file, in bytes.
    Unpack,
    /// Assembling a file from others, in bytes.
    Assemble,
    /// Loading the language model, in thousandths.
    LoadModel,
    /// Loading the vision encoder, in thousandths.
    LoadVision,
    /// Surveying a long video to choose its frames, in images.
    Survey,
    /// Decoding and encoding a video, in frames.
    Encode,
    /// Drawing frames, in frames.
    Draw,
    /// Prefilling the prompt, in rows (text tokens and visual tokens).
    Prefill,
    /// Searching a video part by part, in parts.
    Search,
    /// Answering the questions of an evaluation, in answers.
    Answers,
    /// Benchmarking methods, in runs. Runs differ in length.
    Runs,
    /// Benchmarking methods, in thousandths of the total work.
    Work,
}

/// Receives progress, messages and text. Every method has a default; `()` implements none of them.
///
/// A closure that takes `&str` is an observer of an answer's text.
pub trait Observer {
    /// `done` of `total` steps of a stage are done. `done` drops when a stage starts again, for example with the next
    /// file.
    fn progress(&mut self, stage: Stage, done: u64, total: u64) {
        let _ = (stage, done, total);
    }

    /// A message about the progress of the work.
    fn message(&mut self, message: &str) {
        tracing::info!("{message}");
    }

    /// A problem that the user should know about, but that does not stop the work.
    fn warning(&mut self, message: &str) {
        tracing::warn!("{message}");
    }

    /// The next piece of what the model thinks before it answers. Concatenated, the pieces are the thought.
    fn thought(&mut self, piece: &str) {
        let _ = piece;
    }

    /// The next piece of an answer, without the thought before it. Concatenated, the pieces are the answer.
    fn text(&mut self, piece: &str) {
        let _ = piece;
    }
}

impl<F: FnMut(&str)> Observer for F {
    fn text(&mut self, piece: &str) {
        self(piece);
    }
}

/// Ignores everything. Messages and warnings still go to `tracing`.
impl Observer for () {}
