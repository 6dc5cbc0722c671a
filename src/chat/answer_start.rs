//! Putting the first words of an answer into the model's mouth.

use super::Session;

impl Session {
    /// Lets every answer from now on begin with `text`, which stands behind the prompt as if the model had written it. [`ask`](Self::ask)
    /// gives what comes behind it. An empty text leaves the beginning to the model.
    ///
    /// Benchmarks use it: after `Best option:(` hardly anything but a letter can follow.
    pub fn set_answer_start(&mut self, text: &str) {
        text.clone_into(&mut self.answer_start);
    }
}
