//! The arrangement of a video in the prompt. It is known before a frame is encoded.

use crate::error::Result;
use crate::layout::{FrameCount, ImageSize, Layout, Part, Size, SliceCount, Slices, Tiles, pool, pooled_len};
use crate::runtime::{self, Bitmap, Chunks, Vision};
use crate::video::{Kind, VideoInfo};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The longest side of an image, in pixels, that is accepted from a saved session.
const MAX_SIDE: u32 = 1 << 16;

/// The text and slices of a video, and how the slices are encoded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::chat) struct Arrangement {
    /// Text and slices in prompt order.
    pub parts: Vec<Part>,
    /// The size of the images that the encoder is given, in pixels.
    pub image_size: Size,
    pub n_frames: FrameCount,
    /// Frames per slice. The last slice may have fewer.
    pub frames_per_slice: usize,
    /// Which of the encoder's images of a slice are used.
    pub tiles: Tiles,
    /// Whether the encoder's markers go around each slice.
    pub encoder_markers: bool,
    /// Whether visual tokens are pooled two by two.
    pub pools: bool,
    /// How many positions in time each slice is after the first, if all slices begin at the same position (M-RoPE).
    pub time_steps: Option<Vec<i32>>,
}

impl Arrangement {
    /// Arranges the frames of a video at `times`, in seconds, by `layout`. `sampled_fps` is their rate, if they were
    /// sampled at one. `mrope` says that visual tokens have positions in time.
    pub fn new(layout: &dyn Layout, info: &VideoInfo, times: &[f64], sampled_fps: Option<f64>, mrope: bool) -> Self {
        let own_size = (info.width, info.height);
        if info.kind == Kind::Image {
            return Self {
                parts: layout.image(),
                image_size: own_size,
                n_frames: FrameCount(1),
                frames_per_slice: 1,
                tiles: Tiles::All,
                encoder_markers: true,
                pools: false,
                time_steps: None,
            };
        }
        let slices = Slices::new(times, layout.frames().per_slice, info.duration_s, sampled_fps);
        Self {
            parts: layout.video(&slices),
            image_size: match layout.image_size(own_size, slices.n_frames) {
                ImageSize::AsItIs => own_size,
                ImageSize::Exactly(size) => size,
            },
            n_frames: slices.n_frames,
            frames_per_slice: layout.frames().per_slice.max(1),
            tiles: layout.tiles(),
            encoder_markers: layout.uses_encoder_markers(),
            pools: layout.pools(),
            time_steps: layout.time_steps(&slices).filter(|_| mrope),
        }
    }

    pub fn n_slices(&self) -> SliceCount {
        self.n_frames.slices(self.frames_per_slice)
    }

    /// The number of frames of the slice with the index `slice`.
    pub fn frames_of(&self, slice: usize) -> usize {
        self.n_frames.0.saturating_sub(slice * self.frames_per_slice).min(self.frames_per_slice)
    }

    /// Whether the encoder merges neighboring frames to one slice.
    pub fn merges(&self) -> bool {
        self.frames_per_slice > 1
    }

    /// A bitmap without pixels, of [`image_size`](Self::image_size).
    pub fn placeholder(&self) -> Result<Bitmap> {
        Bitmap::placeholder(self.image_size.0, self.image_size.1, self.merges())
    }

    /// Tokenizes `parts`, which contain images of this video, without tiles that are not used.
    pub fn tokenize(&self, vision: &Vision, parts: &[runtime::Part<'_>]) -> Result<Chunks> {
        if self.is_whole() { vision.tokenize_whole(parts) } else { vision.tokenize(parts, false) }
    }

    /// Whether the encoder's image of the whole frame is used alone, without tiles.
    pub fn is_whole(&self) -> bool {
        self.tiles != Tiles::All
    }

    /// The used ones of a slice's `images`, which are in the encoder's order.
    pub fn used<T>(&self, mut images: Vec<T>) -> Vec<T> {
        match self.tiles {
            Tiles::All => images,
            Tiles::First => {
                images.truncate(1);
                images
            }
            Tiles::Last => images.pop().into_iter().collect(),
        }
    }

    /// The number of visual tokens of an image after pooling, from `n` before.
    pub fn tokens_left(&self, n: usize) -> usize {
        if self.pools { pooled_len(n) } else { n }
    }

    /// The embeddings of an image after pooling; `rows` has `n_embd` values per visual token.
    pub fn rows_left<'a>(&self, rows: &'a [f32], n_embd: usize) -> Cow<'a, [f32]> {
        if self.pools { pool(rows, n_embd).into() } else { rows.into() }
    }

    /// Whether the arrangement, which may be from a file, is valid for `n_slices` slices.
    pub fn is_valid(&self, n_slices: SliceCount) -> bool {
        let sides = [self.image_size.0, self.image_size.1];
        let known = |part: &Part| !matches!(part, Part::Slice(slice) if *slice >= n_slices.0);
        sides.iter().all(|side| (1..=MAX_SIDE).contains(side))
            && [1, 2].contains(&self.frames_per_slice)
            && self.n_slices() == n_slices
            && self.parts.iter().all(known)
            && self.time_steps.as_ref().is_none_or(|steps| {
                steps.len() == n_slices.0 && steps.is_sorted() && steps.iter().all(|step| (0..1 << 24).contains(step))
            })
    }
}
