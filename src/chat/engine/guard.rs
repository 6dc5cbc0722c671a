//! What people write is text: it must not become the tokens that a chat template parts messages with.
//!
//! A tokenizer reads `<|im_end|>` in a question as the end of the question. Such a text gets a mark behind its first
//! character, at which the rendered prompt is tokenized apart: the model then reads the characters and not the token.
//! Texts without such names stay as they are.

use crate::chat::conversation::message::Role;
use crate::runtime::Model;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The names of the tokens that only a template may write.
#[derive(Debug, Default)]
pub(in crate::chat) struct Guard {
    /// Whether the model's own answers may have the token.
    names: HashMap<String, bool>,
    /// How long they are, in bytes.
    lengths: BTreeSet<usize>,
    /// How they begin.
    starts: HashSet<char>,
}

impl Guard {
    /// All control tokens of `model`. Other tokens with a name, as HTML tags and runs of spaces are for some models,
    /// are what people mean when they write them, unless `template` holds the name.
    pub fn new(model: &Model, template: &str) -> Self {
        let mut guard = Self::default();
        for token in model.special_tokens() {
            if token.is_control || (template.contains(&token.text) && is_markup(&token.text)) {
                guard.add(token.text, !token.is_control);
            }
        }
        guard
    }

    fn add(&mut self, name: String, in_answers: bool) {
        let mut chars = name.chars();
        // A single character cannot be cut.
        if let (Some(first), Some(_)) = (chars.next(), chars.next()) {
            self.lengths.insert(name.len());
            self.starts.insert(first);
            self.names.insert(name, in_answers);
        }
    }

    /// `text`, which `role` says, with `mark` in each name.
    ///
    /// What a model said is given back to it as it was: it may think in tokens that its template knows.
    pub fn cut(&self, text: &str, role: Role, mark: &str) -> String {
        let mut result = String::with_capacity(text.len());
        for (start, c) in text.char_indices() {
            result.push(c);
            let is_guarded = |&length: &usize| {
                let name = text.get(start..start + length).and_then(|name| self.names.get(name));
                name.is_some_and(|&in_answers| !in_answers || role != Role::Assistant)
            };
            if self.starts.contains(&c) && self.lengths.iter().any(is_guarded) {
                result.push_str(mark);
            }
        }
        result
    }
}

fn is_markup(name: &str) -> bool {
    name.starts_with(|c: char| !c.is_alphanumeric()) && name.contains(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let mut guard = Guard::default();
        for (name, in_answers) in
            [("<|im_end|>", false), ("<|im", false), ("<think>", true), ("‹é›", false), ("x", false)]
        {
            guard.add(name.into(), in_answers);
        }
        guard
    }

    #[test]
    fn every_name_is_cut_behind_its_first_character() {
        let cut = |text| guard().cut(text, Role::User, "|CUT|");
        assert_eq!(cut("a <|im_end|> b"), "a <|CUT||im_end|> b");
        assert_eq!(cut("<|im_<|im_end|>end|>"), "<|CUT||im_<|CUT||im_end|>end|>");
        assert_eq!(cut("<think> ‹é›"), "<|CUT|think> ‹|CUT|é›");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in ["", "x < y", "<|end", "a <b> in HTML", "‹é", "日本 <"] {
            assert_eq!(guard().cut(text, Role::System, "|CUT|"), text);
        }
    }

    #[test]
    fn a_model_may_say_what_is_no_control_token() {
        assert_eq!(guard().cut("<think><|im_end|>", Role::Assistant, "|CUT|"), "<think><|CUT||im_end|>");
    }

    #[test]
    fn spaces_and_words_are_no_markup() {
        assert!(["<start_of_turn>", "[INST]", "<|user|>"].into_iter().all(is_markup));
        assert!(!["\n\n", "   ", "the", "##"].into_iter().any(is_markup));
    }
}
