//! The prompt, row by row: what stands where in the KV cache.

use super::arrangement::Arrangement;
use super::encode::{EncodedSlice, EncodedVideo};
use crate::error::{Error, Result};
use crate::layout::{self, Tiles};
use crate::runtime::{Bitmap, Chunk, Chunks, ImageChunk, Model, Part, Position, Token, Vision};

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
    /// The encoder's embedding of a line end.
    Newline,
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

/// A piece of the rendered prompt: text, or the next slice of a video, or its line end, or a place where no token may reach across.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Slice { video: usize },
    Newline { video: usize },
    Cut,
}

/// The arrangement of a video as text, with a mark where each slice goes. [`split`](Marks::split) finds the marks again.
pub(super) fn marked_text(marks: &Marks, video: usize, parts: &[layout::Part]) -> String {
    parts
        .iter()
        .map(|part| match part {
            layout::Part::Text(text) => text.clone(),
            layout::Part::Slice(_) => marks.of(video),
            layout::Part::Newline => marks.newline_of(video),
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

    fn newline_of(&self, video: usize) -> String {
        format!("{}{video}n]", self.prefix)
    }

    /// A mark that parts the text before it from the text behind it.
    pub fn cut(&self) -> String {
        format!("{}cut]", self.prefix)
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

/// A video, as far as the prompt has to know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub arrangement: &'a Arrangement,
    /// Its slices with the tokens that are kept of each; all tokens, if it is not encoded yet.
    pub slices: Option<&'a [EncodedSlice]>,
}

impl<'a> From<&'a EncodedVideo> for Placed<'a> {
    fn from(video: &'a EncodedVideo) -> Self {
        Self { arrangement: &video.arrangement, slices: Some(&video.slices) }
    }
}

/// Tokenizes `pieces` and puts the kept tokens of `videos` in their places.
///
/// Every row keeps the position it has in the unpruned prompt.
pub(super) fn plan(
    model: &Model,
    vision: &Vision,
    pieces: &[Piece],
    videos: &[Placed<'_>],
    tokenization: Tokenization,
) -> Result<Plan> {
    let markers: Vec<Markers> =
        videos.iter().map(|video| Markers::of(model, vision, video.arrangement)).collect::<Result<_>>()?;
    let items = items(model, pieces, &markers, tokenization)?;
    let (tiled, whole) =
        (picture_chunks(vision, pieces, videos, false)?, picture_chunks(vision, pieces, videos, true)?);
    let (mut tiled, mut whole) = (tiled.images(), whole.images());

    let mrope = vision.uses_mrope();
    let mut plan = Plan::default();
    let mut next_slice = vec![0; videos.len()];
    // Where the block of slices began that share their first position.
    let mut block: Option<(usize, i32)> = None;
    for item in items {
        let video_index = match item {
            Item::Text(tokens) => {
                block = None;
                plan.push_text(&tokens);
                continue;
            }
            Item::Newline => {
                block = None;
                plan.push_one(RowKey::Newline);
                continue;
            }
            Item::Slice { video } => video,
        };
        let (video, slice) = (&videos[video_index], next_slice[video_index]);
        next_slice[video_index] += 1;
        let arrangement = video.arrangement;
        let step = match arrangement.time_steps.as_ref().and_then(|steps| steps.get(slice)) {
            Some(&step) => {
                let start = block.filter(|(of, _)| *of == video_index).map_or(plan.next_position, |(_, start)| start);
                block = Some((video_index, start));
                Some((start, step))
            }
            None => None,
        };
        let n_pictures = markers[video_index].n_pictures();
        let all: Vec<ImageChunk<'_>> = match arrangement.is_whole() {
            true => whole.by_ref().take(n_pictures).collect(),
            false => tiled.by_ref().take(n_pictures).collect(),
        };
        if all.len() != n_pictures {
            return Err(mismatch());
        }
        let mut visual = VisualRows::of(video, video_index, slice)?;
        for (i, picture) in arrangement.used(all).into_iter().enumerate() {
            if let Some(between) = markers[video_index].between.get(i.wrapping_sub(1)) {
                plan.push_text(between);
            }
            let n_tokens = arrangement.tokens_left(picture.n_tokens());
            match step {
                Some((start, step)) => {
                    plan.push_visual(picture.positions(start, mrope), n_tokens, step, &mut visual);
                    let end = plan.block_end(&picture, start, step);
                    plan.next_position = plan.next_position.max(end);
                }
                None => {
                    let positions = picture.positions(plan.next_position, mrope);
                    plan.push_visual(positions, n_tokens, 0, &mut visual);
                    plan.next_position += if arrangement.pools { n_tokens as i32 } else { picture.n_pos() };
                }
            }
        }
        visual.finish()?;
    }
    if tiled.next().is_some() || whole.next().is_some() {
        return Err(mismatch());
    }
    Ok(plan)
}

impl Plan {
    fn push_text(&mut self, tokens: &[Token]) {
        self.chunk_starts.push(self.rows.len());
        for &token in tokens {
            self.push_row(RowKey::Token(token));
        }
    }

    fn push_one(&mut self, key: RowKey) {
        self.chunk_starts.push(self.rows.len());
        self.push_row(key);
    }

    fn push_row(&mut self, key: RowKey) {
        self.rows.push(PlannedRow { key, position: [self.next_position, 0, 0, 0] });
        self.next_position += 1;
        self.dense_rows += 1;
    }

    /// The kept ones among the first `n` positions of a picture, `step` later.
    fn push_visual(&mut self, positions: Vec<Position>, n: usize, step: i32, visual: &mut VisualRows<'_>) {
        self.chunk_starts.push(self.rows.len());
        for mut position in positions.into_iter().take(n) {
            position[0] += step;
            if let Some(key) = visual.next_token() {
                self.rows.push(PlannedRow { key, position });
            }
        }
        self.dense_rows += n;
    }

    /// The first position behind a picture at `start` that is `step` later.
    fn block_end(&self, picture: &ImageChunk<'_>, start: i32, step: i32) -> i32 {
        // A picture is as many positions long as its longest side, and one in time.
        start + picture.n_pos().max(step + 1)
    }
}

/// Goes through the tokens of a slice, kept or not.
struct VisualRows<'a> {
    video: usize,
    slice: usize,
    /// The kept tokens; `None` for all.
    kept: Option<&'a [u32]>,
    n_tokens: Option<usize>,
    token: usize,
    n_kept: usize,
}

impl<'a> VisualRows<'a> {
    fn of(placed: &Placed<'a>, video: usize, slice: usize) -> Result<Self> {
        let encoded = match placed.slices {
            Some(slices) => Some(slices.get(slice).ok_or_else(mismatch)?),
            None => None,
        };
        let kept = encoded.map(|encoded| encoded.kept.as_slice());
        Ok(Self { video, slice, kept, n_tokens: encoded.map(|encoded| encoded.n_tokens), token: 0, n_kept: 0 })
    }

    /// The key of the next token, if it is kept.
    fn next_token(&mut self) -> Option<RowKey> {
        let token = self.token;
        self.token += 1;
        let is_kept = self.kept.is_none_or(|kept| kept.get(self.n_kept).is_some_and(|&kept| kept as usize == token));
        is_kept.then(|| {
            self.n_kept += 1;
            RowKey::Visual { video: self.video, slice: self.slice, kept: self.n_kept - 1 }
        })
    }

    fn finish(self) -> Result<()> {
        if self.n_tokens.is_none_or(|n| n == self.token) { Ok(()) } else { Err(mismatch()) }
    }
}

/// What stands in the prompt, text already as tokens.
enum Item {
    Text(Vec<Token>),
    /// The next slice of a video.
    Slice {
        video: usize,
    },
    Newline,
}

/// `pieces` with the markers around the slices, tokenized.
///
/// mtmd tokenizes the markers apart. Where they are control tokens that is the same; where they are plain text, as in `smol`, the model
/// was trained on `Frame1: <img>` in one piece, and apart it has other tokens (measured in `docs/results.md`).
fn items(model: &Model, pieces: &[Piece], markers: &[Markers], tokenization: Tokenization) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut run = Run { model, text: String::new(), tokens: Vec::new(), is_first: true };
    for piece in pieces {
        let video = match piece {
            Piece::Text(text) => {
                run.push(text, tokenization)?;
                continue;
            }
            Piece::Cut => {
                run.tokenize()?;
                continue;
            }
            Piece::Slice { video } | Piece::Newline { video } => *video,
        };
        let Some(markers) = markers.get(video) else { continue };
        let is_slice = matches!(piece, Piece::Slice { .. });
        if is_slice {
            run.push(&markers.begin, tokenization)?;
        }
        items.extend(run.take()?.map(Item::Text));
        items.push(if is_slice { Item::Slice { video } } else { Item::Newline });
        if is_slice {
            run.push(&markers.end, tokenization)?;
        }
    }
    items.extend(run.take()?.map(Item::Text));
    Ok(items)
}

/// Text between slices.
struct Run<'a> {
    model: &'a Model,
    /// Text that is not tokenized yet.
    text: String,
    tokens: Vec<Token>,
    /// The prompt begins here.
    is_first: bool,
}

impl Run<'_> {
    fn push(&mut self, text: &str, tokenization: Tokenization) -> Result<()> {
        self.text.push_str(text);
        match tokenization {
            Tokenization::Joined => Ok(()),
            Tokenization::Mtmd => self.tokenize(),
        }
    }

    fn tokenize(&mut self) -> Result<()> {
        if !self.text.is_empty() {
            self.tokens.extend(self.model.tokenize(&self.text, self.is_first, true)?);
            self.is_first = false;
            self.text.clear();
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Vec<Token>>> {
        self.tokenize()?;
        self.is_first = false;
        Ok(Some(std::mem::take(&mut self.tokens)).filter(|tokens| !tokens.is_empty()))
    }
}

/// What mtmd puts around and between the pictures that it makes of a slice.
struct Markers {
    begin: String,
    end: String,
    /// Behind each picture but the last.
    between: Vec<Vec<Token>>,
}

impl Markers {
    fn of(model: &Model, vision: &Vision, arrangement: &Arrangement) -> Result<Self> {
        let texts = texts_around(vision, arrangement, &arrangement.placeholder()?)?;
        // Of a frame that is cut up, only the picture of the whole is used: its markers are those of a frame too small to be cut up.
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

    /// How many pictures mtmd makes of a slice.
    fn n_pictures(&self) -> usize {
        self.between.len() + 1
    }
}

/// A side in pixels that is smaller than any encoder's tile.
const SMALL: u32 = 16;

/// The text before, between and behind the pictures that mtmd makes of a frame; many are empty.
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

/// The pictures of the slices in prompt order, as mtmd makes them: of the videos that are used `whole`, or of the others. All of these at once,
/// because some models number them.
fn picture_chunks(vision: &Vision, pieces: &[Piece], videos: &[Placed<'_>], whole: bool) -> Result<Chunks> {
    let placeholders: Vec<Bitmap> =
        videos.iter().map(|video| video.arrangement.placeholder()).collect::<Result<_>>()?;
    let mut next_slice = vec![0; videos.len()];
    let mut parts = Vec::new();
    for piece in pieces {
        let Piece::Slice { video } = *piece else { continue };
        let Some(placed) = videos.get(video).filter(|placed| placed.arrangement.is_whole() == whole) else { continue };
        // Text between slices, or frames of neighboring slices would be merged.
        parts.push(Part::Text("\n"));
        let n_frames = placed.arrangement.frames_of(next_slice[video]);
        next_slice[video] += 1;
        parts.extend(std::iter::repeat_n(Part::Image(&placeholders[video]), n_frames));
    }
    if whole { vision.tokenize_whole(&parts) } else { vision.tokenize(&parts, false) }
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
