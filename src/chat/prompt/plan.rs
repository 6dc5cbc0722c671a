//! The prompt, row by row: what stands where in the KV cache.

use crate::chat::conversation::marks::Piece;
use crate::chat::encoded::arrangement::Arrangement;
use crate::chat::encoded::markers::{Markers, mismatch};
use crate::chat::encoded::{EncodedSlice, EncodedVideo};
use crate::chat::engine::Engine;
use crate::chat::rows::{PlannedRow, RowKey};
use crate::error::Result;
use crate::runtime::{Bitmap, Chunks, ImageChunk, Part, Position, Token, Vision};

/// A prompt, ready to be fed to the model.
#[derive(Debug, Default)]
pub(in crate::chat) struct Plan {
    pub rows: Vec<PlannedRow>,
    /// Where each chunk (piece of text, or image) begins in `rows`.
    pub chunk_starts: Vec<usize>,
    /// The position of the first row of the answer. It does not depend on how many tokens were kept.
    pub next_position: i32,
    /// How many rows the prompt would have if nothing had been pruned.
    pub dense_rows: usize,
}

/// How the text around frames becomes tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tokenization {
    /// Text and frame markers together, as the model's own processor does.
    #[default]
    Joined,
    /// Text and frame markers apart, as llama.cpp's mtmd does.
    Mtmd,
}

/// A video, as far as the prompt has to know it.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct Placed<'a> {
    pub arrangement: &'a Arrangement,
    /// What the encoder puts around its slices.
    pub markers: &'a Markers,
    /// Its slices with the tokens that are kept of each; all tokens, if it is not encoded yet.
    pub slices: Option<&'a [EncodedSlice]>,
}

impl<'a> From<&'a EncodedVideo> for Placed<'a> {
    fn from(video: &'a EncodedVideo) -> Self {
        Self { arrangement: &video.arrangement, markers: &video.markers, slices: Some(&video.slices) }
    }
}

/// Tokenizes `pieces` and puts the kept tokens of `videos` in their places.
///
/// Every row keeps the position it has in the unpruned prompt.
pub(super) fn of_pieces(
    engine: &Engine,
    pieces: &[Piece],
    videos: &[Placed<'_>],
    tokenization: Tokenization,
) -> Result<Plan> {
    let vision = &engine.vision;
    let items = items(engine, pieces, videos, tokenization)?;
    let (tiled, whole) = (image_chunks(vision, pieces, videos, false)?, image_chunks(vision, pieces, videos, true)?);
    let (mut tiled, mut whole) = (tiled.images(), whole.images());

    let mrope = vision.uses_mrope();
    let mut plan = Plan::default();
    let mut next_slice = vec![0; videos.len()];
    // Where the block of slices began that share their first position.
    let mut block: Option<(usize, i32)> = None;
    let unneeded = texts_of_gone(&items, videos);
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
                match visual.has_left {
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

/// Whether a [chunk](Plan::chunks) is an image, or the end of a line of one.
pub(in crate::chat) fn is_image(chunk: &[PlannedRow]) -> bool {
    matches!(chunk.first().map(|row| row.key), Some(RowKey::Visual { .. } | RowKey::Newline))
}

impl Plan {
    /// The rows from `first` on, cut where a piece of text or an image begins.
    pub fn chunks(&self, first: usize) -> impl Iterator<Item = &[PlannedRow]> {
        let ends = self.chunk_starts.iter().copied().skip(1).chain([self.rows.len()]);
        self.chunk_starts.iter().zip(ends).map(move |(&start, end)| &self.rows[start.max(first).min(end)..end]).filter(
            // An image that was pruned away entirely, or rows that are in the cache already.
            |chunk| !chunk.is_empty(),
        )
    }

    /// How many rows one batch has to take: those of the largest image, where the model of `engine` lets the tokens
    /// of an image see each other. Any number does for other models.
    pub fn rows_at_once(&self, engine: &Engine) -> usize {
        let images = self.chunks(0).filter(|chunk| engine.vision.uses_non_causal() && is_image(chunk));
        images.map(<[PlannedRow]>::len).max().unwrap_or(0)
    }

    fn push_text(&mut self, tokens: &[Token]) {
        self.chunk_starts.push(self.rows.len());
        for &token in tokens {
            self.push_row(RowKey::Token(token));
        }
    }

    /// Leaves the places of `n` tokens empty.
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

    /// The kept ones among the first `n` positions of an image, `step` later.
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

    /// The first position behind an image at `start` that is `step` later.
    fn block_end(&self, image: &ImageChunk<'_>, start: i32, step: i32) -> i32 {
        // An image is as many positions long as its longest side, and one in time.
        start + image.n_pos().max(step + 1)
    }
}

/// Goes through the tokens of a slice, kept or not.
struct VisualRows<'a> {
    video: usize,
    slice: usize,
    /// The kept tokens; `None` for all.
    kept: Option<&'a [u32]>,
    /// It left its video.
    has_left: bool,
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
        let has_left = encoded.is_some_and(|encoded| encoded.has_left);
        let n_tokens = encoded.map(|encoded| encoded.n_tokens);
        Ok(Self { video, slice, kept, has_left, n_tokens, token: 0, n_kept: 0 })
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
/// mtmd tokenizes the markers apart. Where they are control tokens that is the same; where they are plain text, as in
/// `smol`, the model was trained on `Frame1: <img>` in one piece, and apart it has other tokens (measured in
/// `docs/results.md`).
fn items(engine: &Engine, pieces: &[Piece], videos: &[Placed<'_>], tokenization: Tokenization) -> Result<Vec<Item>> {
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

/// Which of `items` are text in front of a slice that left its video, and behind another one of it.
///
/// What stands between two slices ends the one and begins the other, in the same words each time. So what stands in
/// front of a slice that left can go: the text behind it ends the slice that is still before it.
///
/// A slice of which nothing is kept is another thing: its text tells the model that what was seen before is still
/// there, and without it answers are worse (`docs/results.md`).
fn texts_of_gone(items: &[Item], videos: &[Placed<'_>]) -> Vec<bool> {
    let mut unneeded = vec![false; items.len()];
    let mut next_slice = vec![0; videos.len()];
    for (i, item) in items.iter().enumerate() {
        let Item::Slice { video } = *item else { continue };
        let slices = videos.get(video).and_then(|placed| placed.slices);
        let has_left = slices.and_then(|slices| slices.get(next_slice[video])).is_some_and(|slice| slice.has_left);
        next_slice[video] += 1;
        let follows = i >= 2
            && matches!(items[i - 1], Item::Text(_))
            && matches!(items[i - 2], Item::Slice { video: before } if before == video);
        if has_left && follows {
            unneeded[i - 1] = true;
        }
    }
    unneeded
}

/// Text between slices.
struct Run<'a> {
    engine: &'a Engine,
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

/// The images of the slices in prompt order, as mtmd makes them: of the videos that are used `whole`, or of the
/// others. All of these at once, because some models number them.
fn image_chunks(vision: &Vision, pieces: &[Piece], videos: &[Placed<'_>], whole: bool) -> Result<Chunks> {
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
