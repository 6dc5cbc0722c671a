//! Texts that were tokenized before.

use crate::error::Result;
use crate::runtime::{Model, Token};
#[cfg(test)]
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;

/// The longest text that is remembered, in bytes: what stands between frames is short.
const LONGEST: usize = 256;

/// Texts that are remembered at most; then all are forgotten.
const MOST: usize = 4096;

/// The tokens of short texts. The prompt of video that goes on is the same again with each frame, and a little longer.
#[derive(Debug, Default)]
pub(in crate::chat) struct Texts {
    known: RefCell<HashMap<String, Vec<Token>>>,
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
        } else if text.len() <= LONGEST {
            if known.len() >= MOST {
                known.clear();
            }
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
