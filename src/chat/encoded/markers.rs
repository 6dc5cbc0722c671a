//! The encoder's own markers: the text that mtmd puts around the images of a slice.

use super::arrangement::Arrangement;
use crate::error::{Error, Result};
use crate::layout::Tiles;
use crate::runtime::{Bitmap, Chunk, Model, Part, Token, Vision};

/// The text that mtmd puts before, after and between the images of a slice.
#[derive(Debug, Clone)]
pub(in crate::chat) struct Markers {
    pub begin: String,
    pub end: String,
    /// The tokens after each image except the last.
    pub between: Vec<Vec<Token>>,
}

impl Markers {
    pub fn of(model: &Model, vision: &Vision, arrangement: &Arrangement) -> Result<Self> {
        let texts = texts_around(vision, arrangement, &arrangement.placeholder()?)?;
        // If only the image of the whole frame is used, its markers are those of a frame that is too small to be cut
        // into tiles.
        let whole = match arrangement.tiles {
            Tiles::All => texts.clone(),
            Tiles::First | Tiles::Last => {
                texts_around(vision, arrangement, &Bitmap::placeholder(SMALL, SMALL, false)?)?
            }
        };
        let text = |tokens: Option<&Vec<Token>>| {
            let bytes =
                tokens.into_iter().flatten().flat_map(|&token| model.token_bytes(token, true)).collect::<Vec<_>>();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (begin, end) =
            if arrangement.encoder_markers { (text(whole.first()), text(whole.last())) } else { Default::default() };
        let between = texts.get(1..texts.len() - 1).unwrap_or_default().to_vec();
        Ok(Self { begin, end, between })
    }

    /// The number of images that mtmd makes of a slice.
    pub fn n_images(&self) -> usize {
        self.between.len() + 1
    }
}

/// The side, in pixels, of an image that is smaller than the tiles of all encoders.
const SMALL: u32 = 16;

/// The tokens before, between and after the images that mtmd makes of a frame. Many of these texts are empty.
fn texts_around(vision: &Vision, arrangement: &Arrangement, frame: &Bitmap) -> Result<Vec<Vec<Token>>> {
    let chunks = arrangement.tokenize(vision, &[Part::Image(frame)])?;
    let mut texts: Vec<Vec<Token>> = vec![Vec::new()];
    for chunk in chunks.iter() {
        match chunk {
            Chunk::Text(tokens) => texts.last_mut().ok_or_else(mismatch)?.extend_from_slice(tokens),
            Chunk::Image(_) => texts.push(Vec::new()),
        }
    }
    if texts.len() > 1 { Ok(texts) } else { Err(mismatch()) }
}

pub(in crate::chat) fn mismatch() -> Error {
    Error::Llama {
        action: "preparing the prompt",
        reason: "the frames of the encoder and of the prompt do not match; please report this".into(),
    }
}
