//! The text of an answer or a thought that a client gets: without white space around it, and up to the first stop text.

/// Takes pieces of text from the model, and returns what can be sent.
#[derive(Debug, Default)]
pub(super) struct Writer {
    stops: Vec<String>,
    /// Text that may begin a stop text, or be white space at the end.
    held: String,
    /// All text that was returned.
    text: String,
    stopped: bool,
    /// The answer continues a text, so white space at its beginning belongs to it.
    continues: bool,
}

impl Writer {
    /// `continues`: the answer continues a text that the request has.
    pub fn new(stops: Vec<String>, continues: bool) -> Self {
        Self { stops, continues, ..Self::default() }
    }

    /// Whether a stop text has ended the answer.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// All text that was returned.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Adds a piece. Returns what can be sent now, which may be empty.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let end = match found {
            Some(start) => start,
            None => self.held.len() - self.partial_stop(),
        };
        let out = self.release(end);
        if found.is_some() {
            self.stopped = true;
            self.held.clear();
        }
        out
    }

    /// Returns the rest, after the last piece.
    pub fn finish(&mut self) -> String {
        let out = self.release(self.held.len());
        self.held.clear();
        out
    }

    /// The bytes at the end of the held text that may begin a stop text.
    fn partial_stop(&self) -> usize {
        let begins = |n: usize| {
            let start = self.held.len() - n;
            self.held.is_char_boundary(start) && self.stops.iter().any(|stop| stop.starts_with(&self.held[start..]))
        };
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0).min(self.held.len());
        (1..=longest).rev().find(|&n| begins(n)).unwrap_or(0)
    }

    /// Returns the held text up to `end`, without white space at both ends of the answer.
    fn release(&mut self, end: usize) -> String {
        let end = self.held[..end].trim_end().len();
        let rest = self.held.split_off(end);
        let mut out = std::mem::replace(&mut self.held, rest);
        if self.text.is_empty() && !self.continues {
            out.drain(..out.len() - out.trim_start().len());
        }
        self.text.push_str(&out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut writer = Writer::new(stops.iter().map(|&stop| stop.to_owned()).collect(), false);
        let mut out: String = pieces.iter().map(|piece| writer.push(piece)).collect();
        out += &writer.finish();
        let stopped = writer.is_stopped();
        assert_eq!(writer.into_text(), out);
        (out, stopped)
    }

    #[test]
    fn white_space_around_an_answer_is_removed() {
        assert_eq!(write(&[], &[" ", "\n a", " b", " \n"]), ("a b".into(), false));
        assert_eq!(write(&[], &[" "]), (String::new(), false));
    }

    #[test]
    fn a_continued_text_keeps_the_white_space_before_it() {
        let mut writer = Writer::new(vec!["END".into()], true);
        let out: String = [" blue", " sky ", "END"].into_iter().map(|piece| writer.push(piece)).collect();
        assert_eq!(out + &writer.finish(), " blue sky");
    }

    #[test]
    fn an_answer_ends_before_a_stop_text() {
        assert_eq!(write(&["END"], &["a E", "N", "D b"]), ("a".into(), true));
        assert_eq!(write(&["END"], &["a E", "N", "d b"]), ("a ENd b".into(), false));
        assert_eq!(write(&["b", "a b"], &["x a", " b"]), ("x".into(), true));
        assert_eq!(write(&["\n"], &["one\ntwo"]), ("one".into(), true));
        assert_eq!(write(&["é!"], &["caf", "é", "!"]), ("caf".into(), true));
    }

    proptest! {
        #[test]
        fn how_a_text_is_cut_makes_no_difference(text in "[ab \n]{0,24}", stop in "[ab]{1,3}", cuts in proptest::collection::vec(1_usize..4, 0..24)) {
            let whole = write(&[&stop], &[&text]);
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(write(&[&stop], &pieces), whole.clone());
            prop_assert_eq!(whole.0, text.split(&stop).next().unwrap().trim());
        }
    }
}
