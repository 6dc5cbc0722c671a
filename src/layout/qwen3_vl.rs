//! Qwen3-VL: frames in pairs, each pair after the mean of its times: `<1.2 seconds><|vision_start|>…<|vision_end|>`.
//!
//! Frames and image sizes are those of `Qwen3VLVideoProcessor`, with the limits in the models' files. Frames go from
//! the first to the last. All of them share a number of pixels, and none has more than 768 tokens
//! (`cap_pixels_per_frame`, as in `qwen_vl_utils`).
//!
//! The chat template also puts `<|vision_start|>` and `<|vision_end|>` around a video. The processor that was released
//! with the models replaces these markers, too, with the pairs, and so does vLLM. `transformers` from 5.12 on keeps
//! them around the pairs, which no model was trained on.

use super::size::{Pixels, smart_resize_all};
use super::{EncoderFacts, FrameCount, Frames, ImageSize, Layout, Part, Size, Slices, Tiles};
use crate::video::{Rate, Rounding, Spread};

/// The layout of Qwen3-VL.
#[derive(Debug, Clone, Copy)]
pub struct Qwen3Vl {
    /// The side of a visual token in pixels: two patches.
    token_side: u32,
    /// The most tokens of a pair.
    max_tokens: usize,
}

/// The most visual tokens of all frames, as if frames were not merged: 25,165,824 pixels in the model's configuration.
const ALL_FRAMES_TOKENS: f64 = 24_576.0;
/// The fewest visual tokens of all frames: 4,096 pixels.
const MIN_ALL_FRAMES_TOKENS: f64 = 4.0;
/// The most visual tokens of a pair.
const MAX_TOKENS: usize = 768;
/// The fewest visual tokens of a pair when a video is fitted to memory.
const MIN_TOKENS: usize = 64;

impl Qwen3Vl {
    /// The layout for an encoder.
    pub fn new(encoder: &EncoderFacts) -> Self {
        Self { token_side: 2 * encoder.patch_size.unwrap_or(16), max_tokens: MAX_TOKENS }
    }
}

impl Layout for Qwen3Vl {
    fn name(&self) -> &'static str {
        "qwen3-vl"
    }

    fn frames(&self) -> Frames {
        // The number of frames may be odd: the last frame is then paired with itself.
        let rate = Rate::Fps { fps: 2.0, max_frames: 768 };
        let spread = Spread::Ends { count: Rounding::Down, number: Rounding::Nearest, margin_s: 0.0 };
        Frames { rate, spread, min: 4, max: 768, per_slice: 2, multiple_of: 1 }
    }

    fn image_size(&self, size: Size, n_frames: FrameCount) -> ImageSize {
        let n = n_frames.0.max(1) as f64;
        let all = Pixels::of_tokens(MIN_ALL_FRAMES_TOKENS, ALL_FRAMES_TOKENS, self.token_side);
        let frame = Pixels::of_tokens(0.0, self.max_tokens as f64, self.token_side);
        let max = n * frame.max.min((all.max / n).floor());
        let pixels = Pixels { min: all.min.min(max), max };
        ImageSize::Exactly(smart_resize_all(size, self.token_side, n_frames.0, pixels))
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
