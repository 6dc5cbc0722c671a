//! What a terminal shows of a thought that goes on: its last lines.

use crate::output;
use std::collections::VecDeque;
use std::io;
use unicode_width::UnicodeWidthChar;

/// How many lines are shown.
const LINES: usize = 3;

/// Columns of a terminal whose width is unknown.
const USUAL_COLUMNS: usize = 80;

/// The last lines of a text that grows, wrapped.
#[derive(Debug)]
pub struct Tail {
    columns: usize,
    /// At least one; the last is the one that grows.
    lines: VecDeque<String>,
}

impl Tail {
    /// An empty text, as wide as the terminal.
    pub fn of_terminal() -> Self {
        let size = terminal_size::terminal_size_of(io::stderr());
        Self::new(size.map_or(USUAL_COLUMNS, |(width, _)| usize::from(width.0)))
    }

    fn new(columns: usize) -> Self {
        // One column stays empty, as a full line may wrap.
        Self { columns: columns.saturating_sub(1).max(2), lines: VecDeque::from([String::new()]) }
    }

    /// Appends `piece`.
    pub fn push(&mut self, piece: &str) {
        piece.chars().filter(|&c| output::is_harmless(c)).for_each(|c| self.push_char(c));
    }

    /// The last lines, the oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    fn push_char(&mut self, c: char) {
        let c = if c == '\t' { ' ' } else { c };
        let Some(line) = self.lines.back_mut() else { return };
        if c == '\n' {
            // Empty lines would take the place of text.
            if !line.is_empty() {
                self.begin(String::new());
            }
        } else if c == ' ' && line.is_empty() {
            // No line begins with a space.
        } else if c == ' ' && width(line) >= self.columns {
            // The word before it fills the line, and stays there.
            self.begin(String::new());
        } else if width(line) + c.width().unwrap_or(0) > self.columns {
            // The last word moves to the next line, unless it fills this one.
            let word = line.rfind(' ').map(|space| line.split_off(space).trim_start().to_owned());
            self.begin(word.unwrap_or_default());
            self.push_char(c);
        } else {
            line.push(c);
        }
    }

    fn begin(&mut self, line: String) {
        self.lines.push_back(line);
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }
}

/// The columns that a line takes.
fn width(line: &str) -> usize {
    line.chars().map(|c| c.width().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(columns: usize, pieces: &[&str]) -> Vec<String> {
        let mut tail = Tail::new(columns);
        pieces.iter().for_each(|piece| tail.push(piece));
        tail.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_lines_stay_wrapped_at_words() {
        assert_eq!(shown(12, &["The te", "nt is ", "red."]), ["The tent is", "red."]);
        assert_eq!(shown(12, &["one two three four five six seven eight"]), ["three four", "five six", "seven eight"]);
        assert_eq!(shown(12, &["a\n\n\nb\n"]), ["a", "b", ""]);
        assert_eq!(shown(12, &["\n  a"]), ["a"]);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let texts = ["x".repeat(50), "日本語".repeat(20), "e\u{301} ".repeat(40), "a\tb".repeat(30)];
        for text in texts {
            for columns in [0, 1, 2, 5, 12, 80] {
                let lines = shown(columns, &[&text]);
                assert!(lines.iter().all(|line| width(line) < columns.max(3)), "{columns}: {lines:?}");
                assert!(lines.len() <= LINES);
            }
        }
    }

    #[test]
    fn a_thought_does_not_control_the_terminal() {
        assert_eq!(shown(20, &["a\u{1b}[2Jb\rc\u{7}\u{9b}"]), ["a[2Jbc"]);
    }
}
