//! The prompt, row by row, with the positions of its rows.

use crate::chat::conversation::marks::Piece;
use crate::chat::encoded::arrangement::Arrangement;
use crate::chat::encoded::markers::{Markers, mismatch};
use crate::chat::encoded::{EncodedSlice, EncodedVideo};
use crate::chat::engine::Engine;
use crate::chat::rows::{PlannedRow, RowKey};
use crate::error::Result;
use crate::runtime::{Bitmap, Chunks, ImageChunk, Part, Position, Token, Vision};

/// A prompt that can be fed to the model.
#[derive(Debug, Default)]
pub(in crate::chat) struct Plan {
    pub rows: Vec<PlannedRow>,
    /// The index in `rows` at which each chunk begins: a piece of text, an image or the end of a line.
    pub chunk_starts: Vec<usize>,
    /// The position of the answer's first row. Pruning does not change it.
    pub next_position: i32,
    /// The number of rows of the unpruned prompt.
    pub dense_rows: usize,
    /// How many rows the next turn's prompt will begin with; `None` if it does not matter.
    pub rows_for_next_turn: Option<usize>,
    /// Whether the prompt ends in a thought that has begun.
    pub in_thought: bool,
}

/// How the text around frames is tokenized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tokenization {
    /// Text and frame markers together, as the model's own processor does it.
    #[default]
    Joined,
    /// Text and frame markers separately, as llama.cpp's mtmd does it.
    Mtmd,
}

/// The part of a video that a prompt is planned from.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct PromptVideo<'a> {
    pub arrangement: &'a Arrangement,
    /// The encoder's markers around its slices.
    pub markers: &'a Markers,
    /// Its slices with their kept tokens. `None` if it is not encoded yet: then all tokens count as kept.
    pub slices: Option<&'a [EncodedSlice]>,
}

impl<'a> From<&'a EncodedVideo> for PromptVideo<'a> {
    fn from(video: &'a EncodedVideo) -> Self {
        Self { arrangement: &video.arrangement, markers: &video.markers, slices: Some(&video.slices) }
    }
}

/// Plans the prompt of `pieces`: tokenizes the text, and replaces each slice with its kept tokens.
///
/// Every row has the position that it would have in the unpruned prompt.
pub(super) fn of_pieces(
    engine: &Engine,
    pieces: &[Piece],
    videos: &[PromptVideo<'_>],
    tokenization: Tokenization,
) -> Result<Plan> {
    let vision = &engine.vision;
    let items = items(engine, pieces, videos, tokenization)?;
    let (tiled, whole) = (image_chunks(vision, pieces, videos, false)?, image_chunks(vision, pieces, videos, true)?);
    let (mut tiled, mut whole) = (tiled.images(), whole.images());

    let mrope = vision.uses_mrope();
    let mut plan = Plan::default();
    let mut next_slice = vec![0; videos.len()];
    // The video and the first position of a block of slices that all begin at that position.
    let mut block: Option<(usize, i32)> = None;
    let unneeded = texts_before_removed(&items, videos);
    for (i, item) in items.into_iter().enumerate() {
        let video_index = match item {
            Item::Text(tokens) => {
                block = None;
                match unneeded[i] {
                    true => plan.skip_text(tokens.len()),
                    false => plan.push_text(&tokens),
                }
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
        let n_images = video.markers.n_images();
        let all: Vec<ImageChunk<'_>> = match arrangement.is_whole() {
            true => whole.by_ref().take(n_images).collect(),
            false => tiled.by_ref().take(n_images).collect(),
        };
        if all.len() != n_images {
            return Err(mismatch());
        }
        let mut visual = VisualRows::of(video, video_index, slice)?;
        for (i, image) in arrangement.used(all).into_iter().enumerate() {
            if let Some(between) = video.markers.between.get(i.wrapping_sub(1)) {
                match visual.is_removed {
                    true => plan.skip_text(between.len()),
                    false => plan.push_text(between),
                }
            }
            let n_tokens = arrangement.tokens_left(image.n_tokens());
            match step {
                Some((start, step)) => {
                    plan.push_visual(image.positions(start, mrope), n_tokens, step, &mut visual);
                    let end = plan.block_end(&image, start, step);
                    plan.next_position = plan.next_position.max(end);
                }
                None => {
                    let positions = image.positions(plan.next_position, mrope);
                    plan.push_visual(positions, n_tokens, 0, &mut visual);
                    plan.next_position += if arrangement.pools { n_tokens as i32 } else { image.n_pos() };
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

/// Whether a [chunk](Plan::chunks) is an image, or the end of a line after one.
pub(in crate::chat) fn is_image(chunk: &[PlannedRow]) -> bool {
    matches!(chunk.first().map(|row| row.key), Some(RowKey::Visual { .. } | RowKey::Newline))
}

impl Plan {
    /// The rows from index `first` to `end`, chunk by chunk.
    pub fn chunks(&self, first: usize, end: usize) -> impl Iterator<Item = &[PlannedRow]> {
        let ends = self.chunk_starts.iter().copied().skip(1).chain([self.rows.len()]);
        let within = move |(&start, last): (&usize, usize)| &self.rows[start.clamp(first, end)..last.clamp(first, end)];
        // Skips an image without kept tokens, and rows that are not within.
        self.chunk_starts.iter().zip(ends).map(within).filter(|chunk| !chunk.is_empty())
    }

    /// The number of rows that one batch must hold: the rows of the largest image, if the attention of `engine`'s model
    /// is not causal within an image. 0 for other models, which accept any batch size.
    pub fn rows_at_once(&self, engine: &Engine) -> usize {
        let images = self.chunks(0, self.rows.len()).filter(|chunk| engine.vision.uses_non_causal() && is_image(chunk));
        images.map(<[PlannedRow]>::len).max().unwrap_or(0)
    }

    fn push_text(&mut self, tokens: &[Token]) {
        self.chunk_starts.push(self.rows.len());
        for &token in tokens {
            self.push_row(RowKey::Token(token));
        }
    }

    /// Advances the position by `n` tokens, without rows.
    fn skip_text(&mut self, n: usize) {
        self.chunk_starts.push(self.rows.len());
        self.next_position += n as i32;
        self.dense_rows += n;
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

    /// Adds the kept tokens among the first `n` of an image, at its `positions`, `step` later in time.
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

    /// The first position after an image that begins at `start` and is `step` later in time.
    fn block_end(&self, image: &ImageChunk<'_>, start: i32, step: i32) -> i32 {
        // An image takes as many positions as its longest side has tokens, and one in time.
        start + image.n_pos().max(step + 1)
    }
}

/// Iterates over the tokens of a slice, kept and dropped.
struct VisualRows<'a> {
    video: usize,
    slice: usize,
    /// The kept tokens; `None` if all are kept.
    kept: Option<&'a [u32]>,
    /// The slice was removed from live video.
    is_removed: bool,
    n_tokens: Option<usize>,
    token: usize,
    n_kept: usize,
}

impl<'a> VisualRows<'a> {
    fn of(source: &PromptVideo<'a>, video: usize, slice: usize) -> Result<Self> {
        let encoded = match source.slices {
            Some(slices) => Some(slices.get(slice).ok_or_else(mismatch)?),
            None => None,
        };
        let kept = encoded.map(|encoded| encoded.kept.as_slice());
        let is_removed = encoded.is_some_and(|encoded| encoded.is_removed);
        let n_tokens = encoded.map(|encoded| encoded.n_tokens);
        Ok(Self { video, slice, kept, is_removed, n_tokens, token: 0, n_kept: 0 })
    }

    /// Advances to the next token. Returns its key if it is kept.
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

/// An item of the prompt: text as tokens, a slice, or the end of a line.
enum Item {
    Text(Vec<Token>),
    /// The next slice of a video.
    Slice {
        video: usize,
    },
    Newline,
}

/// Adds the encoder's markers around the slices of `pieces`, and tokenizes the text.
///
/// mtmd tokenizes the markers separately. If they are control tokens, the result is the same. If they are plain text,
/// as in `smol`, it is not: the model was trained on `Frame1: <img>` as one text, and the parts have other tokens
/// (measured in `docs/results.md`).
fn items(
    engine: &Engine,
    pieces: &[Piece],
    videos: &[PromptVideo<'_>],
    tokenization: Tokenization,
) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut run = Run { engine, text: String::new(), tokens: Vec::new(), is_first: true };
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
        let Some(markers) = videos.get(video).map(|video| video.markers) else { continue };
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

/// For each of `items`, whether it is text between a slice and a removed slice of the same video, which is dropped.
///
/// The text between two slices ends the first and begins the second, always in the same words. So the text before a
/// removed slice can be dropped: the text after that slice then ends the slice before it.
///
/// If a slice has no kept tokens but was not removed, its text stays: it tells the model that nothing changed. Without
/// it, answers are worse (`docs/results.md`).
fn texts_before_removed(items: &[Item], videos: &[PromptVideo<'_>]) -> Vec<bool> {
    let mut unneeded = vec![false; items.len()];
    let mut next_slice = vec![0; videos.len()];
    for (i, item) in items.iter().enumerate() {
        let Item::Slice { video } = *item else { continue };
        let slices = videos.get(video).and_then(|video| video.slices);
        let is_removed = slices.and_then(|slices| slices.get(next_slice[video])).is_some_and(|slice| slice.is_removed);
        next_slice[video] += 1;
        let follows = i >= 2
            && matches!(items[i - 1], Item::Text(_))
            && matches!(items[i - 2], Item::Slice { video: before } if before == video);
        if is_removed && follows {
            unneeded[i - 1] = true;
        }
    }
    unneeded
}

/// A run of text between slices.
struct Run<'a> {
    engine: &'a Engine,
    /// Text that is not tokenized yet.
    text: String,
    tokens: Vec<Token>,
    /// Whether the prompt begins with this run.
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
            let Engine { model, texts, .. } = self.engine;
            self.tokens.extend(texts.tokens(model, &self.text, self.is_first)?);
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

/// The images that mtmd makes of the slices, in prompt order: of the videos whose frames are used
/// [`whole`](Arrangement::is_whole), or of the other videos. One call makes all of them, because some models number
/// the images.
fn image_chunks(vision: &Vision, pieces: &[Piece], videos: &[PromptVideo<'_>], whole: bool) -> Result<Chunks> {
    let placeholders: Vec<Bitmap> =
        videos.iter().map(|video| video.arrangement.placeholder()).collect::<Result<_>>()?;
    let mut next_slice = vec![0; videos.len()];
    let mut parts = Vec::new();
    for piece in pieces {
        let Piece::Slice { video: index } = *piece else { continue };
        let Some(video) = videos.get(index).filter(|video| video.arrangement.is_whole() == whole) else { continue };
        // Without text between slices, mtmd would merge frames of neighboring slices.
        parts.push(Part::Text("\n"));
        let n_frames = video.arrangement.frames_of(next_slice[index]);
        next_slice[index] += 1;
        parts.extend(std::iter::repeat_n(Part::Image(&placeholders[index]), n_frames));
    }
    if whole { vision.tokenize_whole(&parts) } else { vision.tokenize(&parts, false) }
}
