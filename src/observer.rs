//! Watching the library at work: one trait for everything that takes time.

/// What is being done, and what its steps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Fetching a file, in bytes.
    Download,
    /// Reading a file to see that it is what it should be, in bytes.
    Verify,
    /// Unpacking a file, in bytes.
    Unpack,
    /// Making a file out of others, in bytes.
    Assemble,
    /// Loading the language model, in thousandths.
    LoadModel,
    /// Loading the vision encoder, in thousandths.
    LoadVision,
    /// Looking over a long video to choose its frames, in images that are looked at.
    Survey,
    /// Decoding and encoding, in frames.
    Encode,
    /// Drawing frames, in frames.
    Draw,
    /// Feeding the prompt to the language model, in rows (text tokens and visual tokens).
    Prefill,
    /// Asking the parts of a video one by one, in parts.
    Search,
    /// Answering the questions of an evaluation, in answers.
    Answers,
    /// Measuring what methods cost, in runs, which are not equally long.
    Runs,
    /// The same, in thousandths of all the work.
    Work,
}

/// Is told what goes on. Every method may be left out; `()` leaves out all.
///
/// A closure that takes `&str` is an observer of an answer's text.
pub trait Observer {
    /// `done` of `total` steps of a stage are done. A stage that begins anew, with another file, has `done` less than
    /// before.
    fn progress(&mut self, stage: Stage, done: u64, total: u64) {
        let _ = (stage, done, total);
    }

    /// Something that is worth a line, for who looks on.
    fn message(&mut self, message: &str) {
        tracing::info!("{message}");
    }

    /// Something that the user should know, while the work goes on.
    fn warning(&mut self, message: &str) {
        tracing::warn!("{message}");
    }

    /// The next piece of an answer: valid UTF-8, to be written as it is.
    fn text(&mut self, piece: &str) {
        let _ = piece;
    }
}

impl<F: FnMut(&str)> Observer for F {
    fn text(&mut self, piece: &str) {
        self(piece);
    }
}

/// Shows nothing. Messages and warnings still go to `tracing`.
impl Observer for () {}
