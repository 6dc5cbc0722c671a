//! Qwen3-VL: frames in pairs, each pair behind the mean of its times: `<1.2 seconds><|vision_start|>…<|vision_end|>`.
//!
//! Picture sizes are those of `Qwen3VLVideoProcessor`: all frames together stay within a number of pixels.

use super::size::{Pixels, smart_resize_all};
use super::{EncoderFacts, Frames, Layout, Part, PictureSize, Size, Slices, Tiles};
use crate::video::Rate;

/// The layout of Qwen3-VL.
#[derive(Debug, Clone, Copy)]
pub struct Qwen3Vl {
    /// Pixels of the side of a visual token: a patch, two by two of them merged.
    token_side: u32,
    /// Tokens of a pair, at most.
    max_tokens: usize,
}

/// Visual tokens of all frames, counted one by one: 25,165,824 pixels in the model's configuration.
const ALL_FRAMES_TOKENS: f64 = 24_576.0;
/// The same, at least: 4,096 pixels.
const MIN_ALL_FRAMES_TOKENS: f64 = 4.0;
/// Visual tokens of a pair, at most: llama.cpp's encoder takes no more.
const MAX_TOKENS: usize = 4096;
/// What fitting a video to memory may go down to.
const MIN_TOKENS: usize = 64;

impl Qwen3Vl {
    /// For an encoder.
    pub fn new(encoder: &EncoderFacts) -> Self {
        Self { token_side: 2 * encoder.patch_size.unwrap_or(16), max_tokens: MAX_TOKENS }
    }
}

impl Layout for Qwen3Vl {
    fn name(&self) -> &'static str {
        "qwen3-vl"
    }

    fn frames(&self) -> Frames {
        Frames { rate: Rate::Fps { fps: 2.0, max_frames: 768 }, min: 4, max: 768, per_slice: 2 }
    }

    fn picture_size(&self, size: Size, n_frames: usize) -> PictureSize {
        let max = ALL_FRAMES_TOKENS.min((self.max_tokens * n_frames.max(1)) as f64);
        let pixels = Pixels::of_tokens(MIN_ALL_FRAMES_TOKENS.min(max), max, self.token_side);
        PictureSize::Exactly(smart_resize_all(size, self.token_side, n_frames, pixels))
    }

    fn slice_tokens(&self) -> Option<(usize, usize)> {
        Some((MIN_TOKENS, self.max_tokens))
    }

    fn with_slice_tokens(&self, max: usize) -> Option<Box<dyn Layout>> {
        Some(Box::new(Self { max_tokens: max.clamp(1, self.max_tokens), ..*self }))
    }

    fn tiles(&self) -> Tiles {
        Tiles::All
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        let time = |i: usize| (slices.times[i].first_s + slices.times[i].last_s) / 2.0;
        (0..slices.times.len())
            .flat_map(|i| [Part::Text(format!("<{:.1} seconds>", time(i))), Part::Slice(i)])
            .collect()
    }
}
