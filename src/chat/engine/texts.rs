//! Texts that were tokenized before.

use crate::error::Result;
use crate::runtime::{Model, Token};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Bytes of texts that are remembered at most; then all are forgotten.
const MOST_BYTES: usize = 1 << 20;

/// The tokens of texts. The prompt of live video is the same again with each frame, and a little longer; and that of a
/// video is planned several times until it fits.
#[derive(Debug, Default)]
pub(in crate::chat) struct Texts {
    known: RefCell<HashMap<String, Vec<Token>>>,
    /// Bytes of the texts in `known`.
    bytes: Cell<usize>,
    /// What the last prompt began with.
    first: RefCell<(String, Vec<Token>)>,
    /// Tokens that were not known.
    #[cfg(test)]
    tokenized: Cell<usize>,
}

impl Texts {
    /// The tokens of `text`; `is_first`: the prompt begins with it.
    pub fn tokens(&self, model: &Model, text: &str, is_first: bool) -> Result<Vec<Token>> {
        let (mut known, mut first) = (self.known.borrow_mut(), self.first.borrow_mut());
        let found = if is_first { Some(&first.1).filter(|_| first.0 == text) } else { known.get(text) };
        if let Some(tokens) = found {
            return Ok(tokens.clone());
        }
        let tokens = model.tokenize(text, is_first, true)?;
        #[cfg(test)]
        self.tokenized.set(self.tokenized.get() + tokens.len());
        if is_first {
            *first = (text.to_owned(), tokens.clone());
        } else if text.len() <= MOST_BYTES {
            if self.bytes.get() + text.len() > MOST_BYTES {
                known.clear();
                self.bytes.set(0);
            }
            self.bytes.set(self.bytes.get() + text.len());
            known.insert(text.to_owned(), tokens.clone());
        }
        Ok(tokens)
    }

    /// How many tokens there were that had to be found.
    #[cfg(test)]
    pub fn tokenized(&self) -> usize {
        self.tokenized.get()
    }
}
