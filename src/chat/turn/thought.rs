//! Tells the thought in what a model writes from the answer after it.

use super::generation::Piece;
use crate::chat::engine::Delimiters;
use std::ops::Range;

/// Where in its turn a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a thought or the answer.
    Start,
    Thought,
    Answer,
}

/// Splits text that comes in pieces into thought and answer. Delimiters may be split over pieces; they and the white
/// space around a thought are no part of either. Without a thought, every piece is the answer's.
#[derive(Debug, Clone)]
pub(super) struct Splitter {
    /// `None` if the model does not think.
    delimiters: Option<Delimiters>,
    state: State,
    /// Text that the next piece may make a delimiter.
    held: String,
    /// The parts of `held` that are not shown unless they are a delimiter, and then neither.
    unshown: Vec<Range<usize>>,
    has_thought: bool,
    /// Whether the thought has text.
    has_text: bool,
}

impl Splitter {
    /// A splitter of a turn whose prompt has opened a thought, or not.
    pub fn new(delimiters: Option<Delimiters>, is_open: bool) -> Self {
        let state = match (&delimiters, is_open) {
            (None, _) => State::Answer,
            (Some(_), true) => State::Thought,
            (Some(_), false) => State::Start,
        };
        let has_thought = state == State::Thought;
        Self { delimiters, state, held: String::new(), unshown: Vec::new(), has_thought, has_text: false }
    }

    /// Adds the next text. `is_shown` is false for a token whose name is shown nowhere. Returns what is certain now.
    pub fn push(&mut self, text: &str, is_shown: bool) -> Vec<Piece> {
        let start = self.held.len();
        self.held.push_str(text);
        if !is_shown && !text.is_empty() {
            self.unshown.push(start..self.held.len());
        }
        let mut pieces = Vec::new();
        while self.advance(&mut pieces) {}
        pieces
    }

    /// Takes one step. Returns whether another may follow.
    fn advance(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let Some(Delimiters { opener, closer, .. }) = &self.delimiters else {
            self.take_text(self.held.len(), pieces);
            return false;
        };
        match self.state {
            State::Start => {
                let text = self.held.trim_start();
                let space = self.held.len() - text.len();
                if text.starts_with(opener.as_str()) {
                    let length = space + opener.len();
                    self.drop_held(length);
                    (self.state, self.has_thought) = (State::Thought, true);
                    return true;
                }
                // A model may end a thought that the prompt has closed, or end it twice.
                if text.starts_with(closer.as_str()) {
                    let length = space + closer.len();
                    self.drop_held(length);
                    self.has_thought = true;
                    return true;
                }
                if opener.starts_with(text) || closer.starts_with(text) {
                    return false;
                }
                self.begin_text(space);
                true
            }
            State::Thought => match self.held.find(closer.as_str()) {
                Some(end) => {
                    let length = end + closer.len();
                    let sure = self.held[..end].trim_end().len();
                    self.take_thought(sure, pieces);
                    self.drop_held(length);
                    self.state = State::Start;
                    true
                }
                None => {
                    let is_begun = |&n: &usize| closer.starts_with(&self.held[n..]);
                    let sure = self.held.char_indices().map(|(n, _)| n).find(is_begun).unwrap_or(self.held.len());
                    // Hold white space, which the end of the thought may follow.
                    let sure = self.held[..sure].trim_end().len();
                    self.take_thought(sure, pieces);
                    self.drop_held(sure);
                    false
                }
            },
            State::Answer => {
                self.take_text(self.held.len(), pieces);
                false
            }
        }
    }

    /// Begins the answer, after white space of this length.
    fn begin_text(&mut self, space: usize) {
        if self.has_thought {
            self.drop_held(space);
        }
        self.state = State::Answer;
    }

    /// The end of the text. Returns what was held.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        match self.state {
            State::Thought => {
                let end = self.held.trim_end().len();
                self.take_thought(end, &mut pieces);
                self.drop_held(self.held.len());
            }
            State::Start | State::Answer => {
                if self.has_thought && self.state == State::Start {
                    self.drop_held(self.held.len() - self.held.trim_start().len());
                }
                if !self.held.is_empty() {
                    self.state = State::Answer;
                }
                self.take_text(self.held.len(), &mut pieces);
            }
        }
        pieces
    }

    /// Lets the answer begin here, whatever is held: it is no part of it.
    pub fn begin_answer(&mut self) {
        self.drop_held(self.held.len());
        self.state = State::Answer;
    }

    /// Forgets that the answer has begun.
    pub fn begin_again(&mut self) {
        self.drop_held(self.held.len());
        self.state = State::Start;
    }

    /// Whether the answer would begin if `text` came next, with `rest` as the first bytes of another character.
    pub fn would_answer(&self, text: &str, is_shown: bool, rest: &[u8]) -> bool {
        let mut then = self.clone();
        then.push(text, is_shown);
        let Some(Delimiters { opener, closer, .. }) = &then.delimiters else { return true };
        match then.state {
            State::Answer => true,
            State::Thought => false,
            State::Start => {
                let begun = [then.held.trim_start().as_bytes(), rest].concat();
                !rest.is_empty() && ![opener, closer].iter().any(|delimiter| delimiter.as_bytes().starts_with(&begun))
            }
        }
    }

    pub fn is_thinking(&self) -> bool {
        self.state == State::Thought
    }

    pub fn is_answering(&self) -> bool {
        self.state == State::Answer
    }

    /// Whether there was a thought, even an empty one.
    pub fn has_thought(&self) -> bool {
        self.has_thought
    }

    /// Adds the first `n` held bytes to the answer.
    fn take_text(&mut self, n: usize, pieces: &mut Vec<Piece>) {
        let text = self.shown(n);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        self.drop_held(n);
    }

    /// Adds the first `n` held bytes, which stay held, to the thought.
    fn take_thought(&mut self, n: usize, pieces: &mut Vec<Piece>) {
        let text = self.shown(n);
        let text = if self.has_text { text.as_str() } else { text.trim_start() };
        if !text.is_empty() {
            pieces.push(Piece::Thought(text.to_owned()));
            self.has_text = true;
        }
    }

    /// The first `n` held bytes without what is not shown.
    fn shown(&self, n: usize) -> String {
        let mut shown = String::new();
        let mut from = 0;
        for range in &self.unshown {
            shown.push_str(self.held.get(from..range.start.min(n)).unwrap_or_default());
            from = range.end;
        }
        shown + self.held.get(from..n).unwrap_or_default()
    }

    /// Drops the first `n` held bytes.
    fn drop_held(&mut self, n: usize) {
        self.held.drain(..n);
        self.unshown.retain_mut(|range| {
            *range = range.start.saturating_sub(n)..range.end.saturating_sub(n);
            range.start < range.end
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delimiters(opener: &str, closer: &str) -> Delimiters {
        Delimiters { opener: opener.into(), closer: closer.into(), end: closer.into() }
    }

    fn tags() -> Delimiters {
        delimiters("<think>", "</think>")
    }

    /// The thought and the answer of a text in pieces.
    fn split<'a>(
        delimiters: Delimiters,
        is_open: bool,
        pieces: impl IntoIterator<Item = (&'a str, bool)>,
    ) -> (String, String) {
        let mut splitter = Splitter::new(Some(delimiters), is_open);
        let mut found = Vec::new();
        for (text, is_shown) in pieces {
            found.extend(splitter.push(text, is_shown));
        }
        found.extend(splitter.finish());
        assert!(splitter.finish().is_empty());
        let (mut thought, mut answer) = (String::new(), String::new());
        for piece in found {
            match piece {
                Piece::Thought(text) => {
                    assert!(answer.is_empty() && !text.is_empty());
                    thought += &text;
                }
                Piece::Text(text) => {
                    assert!(!text.is_empty());
                    answer += &text;
                }
            }
        }
        (thought, answer)
    }

    fn whole(is_open: bool, text: &str) -> (String, String) {
        split(tags(), is_open, [(text, true)])
    }

    fn parts(thought: &str, answer: &str) -> (String, String) {
        (thought.to_owned(), answer.to_owned())
    }

    #[test]
    fn a_thought_is_no_part_of_the_answer() {
        assert_eq!(
            whole(false, "<think>\nA cat? Or\n\na dog.\n</think>\n\nA dog."),
            parts("A cat? Or\n\na dog.", "A dog.")
        );
        assert_eq!(whole(true, "\nA cat?\n</think>\n\nA cat. "), parts("A cat?", "A cat. "));
        assert_eq!(whole(false, "\n <think></think> Yes"), parts("", "Yes"));
    }

    #[test]
    fn a_text_without_a_thought_stays_as_it_is() {
        for text in ["", " ", " A cat.\n", "<", " <thin", "<thing>", "a <think>b</think>", "</", "<b> </think>"] {
            assert_eq!(whole(false, text), parts("", text), "{text}");
        }
        let mut splitter = Splitter::new(None, false);
        assert_eq!(splitter.push(" <think>", true), [Piece::Text(" <think>".into())]);
    }

    #[test]
    fn a_thought_that_does_not_end_has_no_answer() {
        assert_eq!(whole(false, "<think>Well, "), parts("Well,", ""));
        assert_eq!(whole(true, "Well</thin"), parts("Well</thin", ""));
        assert_eq!(whole(true, ""), parts("", ""));
        assert_eq!(whole(true, "Well</think>\n"), parts("Well", ""));
    }

    #[test]
    fn an_end_that_is_written_again_is_none() {
        assert_eq!(whole(true, "Well\n</think>\n\n</think>\n\nYes </think>"), parts("Well", "Yes </think>"));
        assert_eq!(whole(false, "\n</think>\n\nYes"), parts("", "Yes"));
        assert_eq!(whole(false, "<think>a</think><think>b</think>c"), parts("ab", "c"));
    }

    #[test]
    fn tokens_without_a_text_are_only_delimiters() {
        let channel = || delimiters("<|channel>thought", "<channel|>");
        let thought = [("<|channel>", false), ("thought", true), ("\n", true), ("Hm", true), ("<channel|>", false)];
        assert_eq!(split(channel(), false, thought.into_iter().chain([("Yes", true)])), parts("Hm", "Yes"));
        let other = [("<|channel>", false), ("final", true), ("<|channel>", false), ("!", true)];
        assert_eq!(split(channel(), false, other), parts("", "final!"));
        let inside = [("Hm", true), ("<|channel>", false), ("m", true), ("<channel|>", false), ("Yes", true)];
        assert_eq!(split(channel(), true, inside), parts("Hmm", "Yes"));
        // The names as text.
        let text = [("<|chan", true), ("nel>thought\nHm<chan", true), ("nel|>Yes", true)];
        assert_eq!(split(channel(), false, text), parts("Hm", "Yes"));
    }

    #[test]
    fn what_comes_next_would_begin_the_answer_or_not() {
        let mut splitter = Splitter::new(Some(delimiters("◁think▷", "◁/think▷")), false);
        let would = |splitter: &Splitter, text: &str, rest: &[u8]| splitter.would_answer(text, true, rest);
        assert!(!would(&splitter, "\n", &[]) && !would(&splitter, "◁think▷A", &[]) && would(&splitter, "Yes", &[]));
        // The first byte of ◁, and of another character.
        assert!(!would(&splitter, "", &"◁".as_bytes()[..1]) && would(&splitter, "", &"é".as_bytes()[..1]));
        assert_eq!(splitter.push(" ◁thin", true), []);
        assert!(!would(&splitter, "k", &[]) && would(&splitter, "g", &[]) && !would(&splitter, "k▷", &[]));
        assert!(would(&splitter, "k", &"é".as_bytes()[..1]) && !would(&splitter, "k", &"▷".as_bytes()[..2]));
        splitter.begin_answer();
        assert_eq!(splitter.push(" ◁think▷", true), [Piece::Text(" ◁think▷".into())]);
        assert!(splitter.is_answering() && !splitter.has_thought());
    }

    proptest! {
        #[test]
        fn any_cut_of_a_text_gives_the_same_thought_and_answer(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "<think>", "</think>", "<", "</", "think", ">", " ", "\n", "a", "é", "<thi", "nk>", "◁", "<</think>",
                ]),
                0..12,
            ),
            is_open in any::<bool>(),
            cuts in proptest::collection::vec(1_usize..5, 0..60),
        ) {
            let text = parts.concat();
            let chars: Vec<char> = text.chars().collect();
            let mut pieces = Vec::new();
            let mut rest = chars.as_slice();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece.iter().collect::<String>());
                rest = tail;
            }
            pieces.push(rest.iter().collect());
            let cut = split(tags(), is_open, pieces.iter().map(|piece| (piece.as_str(), true)));
            prop_assert_eq!(&cut, &whole(is_open, &text));
            let (thought, answer) = cut;
            prop_assert_eq!(thought.trim(), &thought);
            if !is_open && !text.trim_start().starts_with("<think>") && !text.trim_start().starts_with("</think>") {
                prop_assert_eq!(answer, text);
            }
        }
    }
}
