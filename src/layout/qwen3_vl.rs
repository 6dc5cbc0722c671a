//! Qwen3-VL: frames in pairs, each pair behind the mean of its times: `<1.2 seconds><|vision_start|>…<|vision_end|>`.
//!
//! Frames and image sizes are those of `Qwen3VLVideoProcessor`, with the limits in the files of the models: from the
//! first frame to the last, all of them within a number of pixels, and none of more than 768 tokens
//! (`cap_pixels_per_frame`, as in `qwen_vl_utils`).
//!
//! The chat template has `<|vision_start|>` and `<|vision_end|>` around a video, too. The processor that came with the
//! models puts the pairs in the place of all three, and so does vLLM; `transformers` from 5.12 on leaves two markers
//! around them, which no model was shown.

use super::size::{Pixels, smart_resize_all};
use super::{EncoderFacts, Frames, ImageSize, Layout, Part, Size, Slices, Tiles};
use crate::video::{Rate, Rounding, Spread};

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
/// Visual tokens of a pair, at most.
const MAX_TOKENS: usize = 768;
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
        // Their number may be odd: the last frame is a pair with itself.
        let rate = Rate::Fps { fps: 2.0, max_frames: 768 };
        let spread = Spread::Ends { count: Rounding::Down, number: Rounding::Nearest, margin_s: 0.0 };
        Frames { rate, spread, min: 4, max: 768, per_slice: 2, multiple_of: 1 }
    }

    fn image_size(&self, size: Size, n_frames: usize) -> ImageSize {
        let n = n_frames.max(1) as f64;
        let all = Pixels::of_tokens(MIN_ALL_FRAMES_TOKENS, ALL_FRAMES_TOKENS, self.token_side);
        let frame = Pixels::of_tokens(0.0, self.max_tokens as f64, self.token_side);
        let max = n * frame.max.min((all.max / n).floor());
        let pixels = Pixels { min: all.min.min(max), max };
        ImageSize::Exactly(smart_resize_all(size, self.token_side, n_frames, pixels))
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
