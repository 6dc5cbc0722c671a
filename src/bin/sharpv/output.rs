//! What goes to stdout. A closed stdout is an error here, never a panic.

use std::io::{self, IsTerminal, Write};

/// Writes `text` to stdout.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes `value` to stdout as one line of JSON.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(print(&(serde_json::to_string(value)? + "\n"))?)
}

/// Whether a terminal may get a character that a model wrote: the model must not control the terminal.
pub fn is_harmless(c: char) -> bool {
    !c.is_control() || matches!(c, '\n' | '\t')
}

/// Streams an answer to stdout without leading and trailing white space.
#[derive(Debug)]
pub struct AnswerWriter {
    to_terminal: bool,
    started: bool,
    /// White space that is written once more text follows it.
    held_back: String,
}

impl AnswerWriter {
    pub fn new() -> Self {
        Self { to_terminal: io::stdout().is_terminal(), started: false, held_back: String::new() }
    }

    /// Writes the next piece.
    pub fn write(&mut self, piece: &str) -> io::Result<()> {
        let ready = self.ready(piece);
        if ready.is_empty() {
            return Ok(());
        }
        let visible = |c: &char| !self.to_terminal || is_harmless(*c);
        print(&ready.chars().filter(visible).collect::<String>())
    }

    /// Whether a terminal shows the answer.
    pub fn is_to_terminal(&self) -> bool {
        self.to_terminal
    }

    /// Whether anything was written.
    pub fn has_started(&self) -> bool {
        self.started
    }

    /// Ends the answer's last line.
    pub fn finish(self) -> io::Result<()> {
        print("\n")
    }

    /// What can be written after `piece` has arrived.
    fn ready(&mut self, piece: &str) -> String {
        let mut text = std::mem::take(&mut self.held_back) + piece;
        if !self.started {
            text = text.trim_start().to_owned();
        }
        self.held_back = text.split_off(text.trim_end().len());
        self.started |= !text.is_empty();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_an_answer_is_left_out_and_kept_inside() {
        let mut writer = AnswerWriter::new();
        let pieces = [" \n", " Two", " ", "\n", "words.", "\n", "\n"];
        assert_eq!(pieces.map(|piece| writer.ready(piece)), ["", "Two", "", "", " \nwords.", "", ""]);
    }
}
