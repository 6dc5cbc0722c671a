//! A cache of tokenized texts.

use crate::error::Result;
use crate::runtime::{Model, Token};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// The maximum bytes of cached texts. When they exceed it, the cache is cleared.
const MAX_BYTES: usize = 1 << 20;

/// The tokens of texts. With each frame of live video, the prompt repeats and becomes a little longer, and the prompt
/// of a video is planned several times until it fits.
#[derive(Debug, Default)]
pub(in crate::chat) struct Texts {
    /// First the texts inside a prompt, then those at its start, where a tokenizer may add a token or a space.
    known: RefCell<[HashMap<String, Vec<Token>>; 2]>,
    /// Bytes of the texts in `known`.
    bytes: Cell<usize>,
    /// The number of tokens that were not cached.
    #[cfg(test)]
    tokenized: Cell<usize>,
}

impl Texts {
    /// The tokens of `text`. `is_first` says that the prompt begins with it.
    pub fn tokens(&self, model: &Model, text: &str, is_first: bool) -> Result<Vec<Token>> {
        let mut known = self.known.borrow_mut();
        if let Some(tokens) = known[usize::from(is_first)].get(text) {
            return Ok(tokens.clone());
        }
        let tokens = model.tokenize(text, is_first, true)?;
        #[cfg(test)]
        self.tokenized.set(self.tokenized.get() + tokens.len());
        if self.bytes.get() + text.len() > MAX_BYTES {
            known.iter_mut().for_each(HashMap::clear);
            self.bytes.set(0);
        }
        if text.len() <= MAX_BYTES {
            self.bytes.set(self.bytes.get() + text.len());
            known[usize::from(is_first)].insert(text.to_owned(), tokens.clone());
        }
        Ok(tokens)
    }

    /// The number of tokens that were not cached.
    #[cfg(test)]
    pub fn tokenized(&self) -> usize {
        self.tokenized.get()
    }
}
