//! The marks that stand for slices while a prompt is text.

use crate::layout;

/// A piece of the rendered prompt: text, the next slice of a video, the end of a line in a video, or a cut, which no
/// token may span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::chat) enum Piece {
    Text(String),
    Slice { video: usize },
    Newline { video: usize },
    Cut,
}

/// The arrangement of a video as text, with a mark for each slice. [`Marks::split`] finds the marks.
pub(in crate::chat) fn marked_text(marks: &Marks, video: usize, parts: &[layout::Part]) -> String {
    parts
        .iter()
        .map(|part| match part {
            layout::Part::Text(text) => text.clone(),
            layout::Part::Slice(_) => marks.of(video),
            layout::Part::Newline => marks.newline_of(video),
        })
        .collect()
}

/// The texts that stand for slices while the chat template is rendered. They contain a random number, so that a
/// question does not contain one by chance.
#[derive(Debug)]
pub(in crate::chat) struct Marks {
    prefix: String,
}

impl Marks {
    pub fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self { prefix: format!("[sharpv-frame-{:016x}-", RandomState::new().hash_one(0)) }
    }

    /// The marks of a saved session; `None` if no session would create such a `prefix`.
    pub fn with_prefix(prefix: String) -> Option<Self> {
        let number = prefix.strip_prefix("[sharpv-frame-")?.strip_suffix('-')?;
        let is_ours = number.len() == 16 && number.bytes().all(|b| b.is_ascii_hexdigit());
        is_ours.then_some(Self { prefix })
    }

    /// The text that every mark begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn of(&self, video: usize) -> String {
        format!("{}{video}]", self.prefix)
    }

    fn newline_of(&self, video: usize) -> String {
        format!("{}{video}n]", self.prefix)
    }

    /// The mark at which the text before it and the text after it are tokenized separately.
    pub fn cut(&self) -> String {
        format!("{}cut]", self.prefix)
    }

    /// Splits a rendered prompt at its marks.
    pub fn split(&self, prompt: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut text = |text: &str| {
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
        };
        let mut found = prompt.split(&self.prefix);
        text(found.next().unwrap_or_default());
        for after in found {
            let Some((mark, rest)) = after.split_once(']') else { continue };
            let (number, is_newline) = mark.strip_suffix('n').map_or((mark, false), |number| (number, true));
            pieces.push(match number.parse() {
                Ok(video) if is_newline => Piece::Newline { video },
                Ok(video) => Piece::Slice { video },
                Err(_) if mark == "cut" => Piece::Cut,
                Err(_) => continue,
            });
            if !rest.is_empty() {
                pieces.push(Piece::Text(rest.to_owned()));
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_again() {
        let marks = Marks::new();
        let parts = [layout::Part::Text("Frame1: ".into()), layout::Part::Slice(0), layout::Part::Text("\n".into())];
        let prompt = format!("<user>{}{}why?", marked_text(&marks, 0, &parts), marked_text(&marks, 1, &parts[1..2]));
        let text = |s: &str| Piece::Text(s.into());
        assert_eq!(
            marks.split(&prompt),
            [text("<user>Frame1: "), Piece::Slice { video: 0 }, text("\n"), Piece::Slice { video: 1 }, text("why?")]
        );
    }

    #[test]
    fn a_cut_is_a_piece_of_its_own() {
        let marks = Marks::new();
        let text = |s: &str| Piece::Text(s.into());
        assert_eq!(marks.split(&format!("a <{}s>", marks.cut())), [text("a <"), Piece::Cut, text("s>")]);
    }

    #[test]
    fn marks_can_be_made_again() {
        let marks = Marks::new();
        let again = Marks::with_prefix(marks.prefix().to_owned()).expect("its own prefix");
        assert_eq!(again.split(&marks.of(3)), [Piece::Slice { video: 3 }]);
        for other in ["", "x", "[sharpv-frame-", "[sharpv-frame-0123-", "[sharpv-frame-0123456789abcde]-"] {
            assert!(Marks::with_prefix(other.to_owned()).is_none(), "{other}");
        }
    }

    #[test]
    fn a_question_with_brackets_is_text() {
        let marks = Marks::new();
        assert_eq!(marks.split("a [sharpv-frame-0] b"), [Piece::Text("a [sharpv-frame-0] b".into())]);
        assert!(marks.split("").is_empty());
    }
}
