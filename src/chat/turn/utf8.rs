//! Makes valid UTF-8 of tokens that may end in the middle of a character.

/// Joins the bytes of tokens, and returns whole characters only.
#[derive(Debug, Clone, Default)]
pub(super) struct Utf8Stream {
    /// The beginning of an incomplete character: at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Adds the bytes of a token and returns the text that they complete. Bytes that are not UTF-8 become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(n) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &invalid[n..];
                        }
                        None => {
                            rest = invalid;
                            break;
                        }
                    }
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }

    /// The bytes of an incomplete character so far.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Returns the rest after the last token: U+FFFD for an incomplete character.
    pub fn finish(&mut self) -> String {
        if std::mem::take(&mut self.pending).is_empty() { String::new() } else { char::REPLACEMENT_CHARACTER.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_in_pieces_comes_out_whole() {
        let mut stream = Utf8Stream::default();
        let bytes = "🦊".as_bytes();
        assert_eq!(stream.push(&bytes[..2]), "");
        assert_eq!(stream.push(&bytes[2..]), "🦊");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn an_unfinished_character_is_replaced_at_the_end() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(b"a\xf0\x9f"), "a");
        assert_eq!(stream.finish(), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_cut_of_a_text_gives_the_text(text in ".*", cuts in proptest::collection::vec(1_usize..5, 0..40)) {
            let mut stream = Utf8Stream::default();
            let mut rest = text.as_bytes();
            let mut joined = String::new();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                joined += &stream.push(piece);
                rest = tail;
            }
            joined += &stream.push(rest);
            joined += &stream.finish();
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn any_bytes_in_one_piece_read_like_the_standard_library(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut stream = Utf8Stream::default();
            let joined = stream.push(&bytes) + &stream.finish();
            prop_assert_eq!(joined, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
