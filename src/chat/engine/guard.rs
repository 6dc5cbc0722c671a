//! Keeps users' text from becoming the control tokens that a chat template separates messages with.
//!
//! A tokenizer reads `<|im_end|>` in a question as the end of the question. [`Guard::cut`] inserts a mark after the
//! first character of such a name. The rendered prompt is split there, and the two halves are tokenized separately, so
//! the model reads the characters, not the token. Text without such names does not change.

use crate::chat::conversation::message::Role;
use crate::runtime::SpecialToken;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The names of the tokens that only a chat template may write.
#[derive(Debug, Default)]
pub(in crate::chat) struct Guard {
    /// For each name, whether the model's own answers may contain the token.
    names: HashMap<String, bool>,
    /// The lengths of the names, in bytes.
    lengths: BTreeSet<usize>,
    /// The first characters of the names.
    starts: HashSet<char>,
}

impl Guard {
    /// Guards all control tokens among a model's special `tokens`, and others that look like markup if `template` uses
    /// them. The rest may be written as text: some models have special tokens for HTML tags and runs of spaces.
    pub fn new(tokens: &[SpecialToken], template: &str) -> Self {
        let mut guard = Self::default();
        for token in tokens {
            if token.is_control || (template.contains(&token.text) && is_markup(&token.text)) {
                guard.add(token.text.clone(), !token.is_control);
            }
        }
        guard
    }

    fn add(&mut self, name: String, in_answers: bool) {
        let mut chars = name.chars();
        // A single character cannot be split.
        if let (Some(first), Some(_)) = (chars.next(), chars.next()) {
            self.lengths.insert(name.len());
            self.starts.insert(first);
            self.names.insert(name, in_answers);
        }
    }

    /// The `text` of a message by `role`, with `mark` inside each guarded name.
    ///
    /// The assistant's text keeps special tokens that are not control tokens, because a model may write such tokens
    /// itself, for example `<think>`.
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
    fn every_name_is_cut_after_its_first_character() {
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
