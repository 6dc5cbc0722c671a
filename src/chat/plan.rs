//! The prompt, row by row: what stands where in the KV cache.

use super::encode::EncodedVideo;
use crate::error::{Error, Result};
use crate::layout;
use crate::runtime::{Bitmap, Chunk, Model, Part, Position, Token, Vision};

/// What a row is. Rows with equal keys at equal positions have equal keys and values in the KV cache, if all rows before do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RowKey {
    /// A text token.
    Token(Token),
    /// A kept visual token.
    Visual {
        /// Index of the video in the session.
        video: usize,
        /// Index of the slice in the video.
        slice: usize,
        /// Index among the slice's kept tokens.
        kept: usize,
    },
}

/// One row of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PlannedRow {
    /// What it is.
    pub key: RowKey,
    /// Where it stands: its place in the prompt before pruning.
    pub position: Position,
}

/// A prompt, ready to be fed to the model.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub rows: Vec<PlannedRow>,
    /// Where each chunk (piece of text, or picture) begins in `rows`.
    pub chunk_starts: Vec<usize>,
    /// The position of the first row of the answer. It does not depend on how many tokens were kept.
    pub next_position: i32,
    /// How many rows the prompt would have if nothing had been pruned.
    pub dense_rows: usize,
}

/// How the text around frames becomes tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokenization {
    /// Text and frame markers together, as the model's own processor does.
    #[default]
    Joined,
    /// Text and frame markers apart, as llama.cpp's mtmd does.
    Mtmd,
}

/// A piece of the rendered prompt: text, or a frame of a video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Frame { video: usize },
}

/// The layout of a video as text, with a mark where each frame goes. [`split`] finds the marks again.
pub(super) fn marked_text(marks: &Marks, video: usize, parts: &[layout::Part]) -> String {
    parts
        .iter()
        .map(|part| match part {
            layout::Part::Text(text) => text.clone(),
            layout::Part::Frame(_) => marks.of(video),
        })
        .collect()
}

/// The text that stands for a frame while the chat template is rendered. It carries a number of the session's own, so that no question
/// holds it by chance.
#[derive(Debug)]
pub(super) struct Marks {
    prefix: String,
}

impl Marks {
    pub fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self { prefix: format!("[sharpv-frame-{:016x}-", RandomState::new().hash_one(0)) }
    }

    /// The marks of a saved session; `None` if no session makes such.
    pub fn with_prefix(prefix: String) -> Option<Self> {
        let number = prefix.strip_prefix("[sharpv-frame-")?.strip_suffix('-')?;
        let is_ours = number.len() == 16 && number.bytes().all(|b| b.is_ascii_hexdigit());
        is_ours.then_some(Self { prefix })
    }

    /// How every mark begins.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn of(&self, video: usize) -> String {
        format!("{}{video}]", self.prefix)
    }

    /// Cuts a rendered prompt at the marks.
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
            let Some((video, rest)) = after.split_once(']') else { continue };
            let Ok(video) = video.parse() else { continue };
            pieces.push(Piece::Frame { video });
            if !rest.is_empty() {
                pieces.push(Piece::Text(rest.to_owned()));
            }
        }
        pieces
    }
}

/// Tokenizes `pieces` and puts the kept tokens of `videos` in the places of their frames.
///
/// Every row keeps the position it has in the unpruned prompt.
pub(super) fn plan(
    model: &Model,
    vision: &Vision,
    pieces: &[Piece],
    videos: &[EncodedVideo],
    tokenization: Tokenization,
) -> Result<Plan> {
    let placeholders: Vec<Bitmap> = videos
        .iter()
        .map(|video| Bitmap::placeholder(video.frame_size.0, video.frame_size.1, false))
        .collect::<Result<_>>()?;
    let parts: Vec<Part<'_>> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Text(text) => Some(Part::Text(text)),
            Piece::Frame { video } => placeholders.get(*video).map(Part::Image),
        })
        .collect();
    let chunks = vision.tokenize(&parts, true)?;
    // Which slice each picture chunk belongs to, in prompt order.
    let mut pictures = pictures(pieces, videos).peekable();
    let mut runs = match tokenization {
        Tokenization::Joined => joined_text(model, vision, pieces, &placeholders)?.into_iter(),
        Tokenization::Mtmd => Vec::new().into_iter(),
    };

    let mrope = vision.uses_mrope();
    let mut plan = Plan::default();
    let mut inside_frame = false;
    for chunk in chunks.iter() {
        plan.chunk_starts.push(plan.rows.len());
        match chunk {
            Chunk::Text(tokens) => {
                // Text between the tiles of a frame is mtmd's own.
                let joined = if inside_frame { None } else { runs.next() };
                plan.push_text(joined.as_deref().unwrap_or(tokens));
            }
            Chunk::Image(image) => {
                let picture = pictures.next().filter(|p| p.n_tokens == image.n_tokens()).ok_or_else(mismatch)?;
                inside_frame = pictures.peek().is_some_and(|next| next.first_token > 0);
                let slice = &videos[picture.video].slices[picture.slice];
                let positions = image.positions(plan.next_position, mrope);
                for (kept, &token) in slice.kept.iter().enumerate() {
                    let Some(index) = (token as usize).checked_sub(picture.first_token) else { continue };
                    let Some(&position) = positions.get(index) else { break };
                    let key = RowKey::Visual { video: picture.video, slice: picture.slice, kept };
                    plan.rows.push(PlannedRow { key, position });
                }
                plan.dense_rows += image.n_tokens();
                plan.next_position += image.n_pos();
            }
        }
    }
    if pictures.next().is_some() || runs.next().is_some() {
        return Err(mismatch());
    }
    Ok(plan)
}

impl Plan {
    fn push_text(&mut self, tokens: &[Token]) {
        for &token in tokens {
            let position = [self.next_position, 0, 0, 0];
            self.rows.push(PlannedRow { key: RowKey::Token(token), position });
            self.next_position += 1;
        }
        self.dense_rows += tokens.len();
    }
}

/// The tokens of each run of text between frames, with the markers of the frames around it tokenized as one with it.
///
/// mtmd tokenizes the markers apart. Where they are control tokens that is the same; where they are plain text, as in `smol`, the model
/// was trained on `Frame1: <img>` in one piece, and apart it has other tokens (measured in `docs/results.md`).
fn joined_text(model: &Model, vision: &Vision, pieces: &[Piece], placeholders: &[Bitmap]) -> Result<Vec<Vec<Token>>> {
    let markers: Vec<(String, String)> =
        placeholders.iter().map(|bitmap| frame_markers(model, vision, bitmap)).collect::<Result<_>>()?;
    let mut runs = vec![String::new()];
    for piece in pieces {
        let Some(run) = runs.last_mut() else { break };
        match piece {
            Piece::Text(text) => run.push_str(text),
            Piece::Frame { video } => {
                let Some((begin, end)) = markers.get(*video) else { continue };
                run.push_str(begin);
                runs.push(end.clone());
            }
        }
    }
    let first = runs.iter().position(|run| !run.is_empty());
    let tokens = runs.iter().enumerate().filter(|(_, run)| !run.is_empty());
    tokens.map(|(i, run)| model.tokenize(run, Some(i) == first && i == 0, true)).collect()
}

/// The text that mtmd puts before and after a frame.
fn frame_markers(model: &Model, vision: &Vision, bitmap: &Bitmap) -> Result<(String, String)> {
    let chunks = vision.tokenize(&[Part::Image(bitmap)], false)?;
    let chunks: Vec<Chunk<'_>> = chunks.iter().collect();
    let text = |chunk: Option<&Chunk<'_>>| match chunk {
        Some(Chunk::Text(tokens)) => {
            let bytes: Vec<u8> = tokens.iter().flat_map(|&token| model.token_bytes(token, true)).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    };
    Ok((text(chunks.first()), text(chunks.last())))
}

/// A chunk of visual tokens: one tile of a slice, or all of it.
struct Picture {
    video: usize,
    slice: usize,
    /// Its first token, among those of the slice.
    first_token: usize,
    n_tokens: usize,
}

fn pictures<'a>(pieces: &'a [Piece], videos: &'a [EncodedVideo]) -> impl Iterator<Item = Picture> + 'a {
    let mut next_slice = vec![0; videos.len()];
    pieces.iter().flat_map(move |piece| {
        let mut pictures = Vec::new();
        if let Piece::Frame { video } = *piece
            && let Some(slice) = videos.get(video).and_then(|v| v.slices.get(next_slice[video]))
        {
            let mut first_token = 0;
            for &n_tokens in &slice.chunk_tokens {
                pictures.push(Picture { video, slice: next_slice[video], first_token, n_tokens });
                first_token += n_tokens;
            }
            next_slice[video] += 1;
        }
        pictures
    })
}

fn mismatch() -> Error {
    Error::Llama {
        action: "preparing the prompt",
        reason: "the encoder's frames and the prompt's do not match; please report this".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_again() {
        let marks = Marks::new();
        let parts = [layout::Part::Text("Frame1: ".into()), layout::Part::Frame(0), layout::Part::Text("\n".into())];
        let prompt = format!("<user>{}{}why?", marked_text(&marks, 0, &parts), marked_text(&marks, 1, &parts[1..2]));
        let text = |s: &str| Piece::Text(s.into());
        assert_eq!(
            marks.split(&prompt),
            [text("<user>Frame1: "), Piece::Frame { video: 0 }, text("\n"), Piece::Frame { video: 1 }, text("why?")]
        );
    }

    #[test]
    fn marks_can_be_made_again() {
        let marks = Marks::new();
        let again = Marks::with_prefix(marks.prefix().to_owned()).expect("its own prefix");
        assert_eq!(again.split(&marks.of(3)), [Piece::Frame { video: 3 }]);
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
