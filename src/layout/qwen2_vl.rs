//! Qwen2-VL and Qwen2.5-VL: one block of all frames, in pairs, with no time in words. Time is in the positions: slice
//! after slice in Qwen2-VL, in seconds in Qwen2.5-VL.
//!
//! Frames and image sizes are those of `qwen_vl_utils`, which Qwen's examples read videos with: an even number, from
//! the first frame to the last; 128 to 768 tokens a pair, and fewer where many frames would pass 115,200 tokens in all.

use super::size::{Pixels, smart_resize};
use super::{EncoderFacts, Frames, ImageSize, Layout, Part, Size, Slices, Tiles};
use crate::video::{Rate, Rounding, Spread};

/// The layout of Qwen2-VL and Qwen2.5-VL.
#[derive(Debug, Clone, Copy)]
pub struct Qwen2Vl {
    /// Pixels of the side of a visual token: a patch, two by two of them merged.
    token_side: u32,
    /// Tokens of a pair, at most.
    max_tokens: usize,
    /// Positions tell seconds.
    real_time: bool,
}

const MIN_TOKENS: usize = 128;
const MAX_TOKENS: usize = 768;
/// Visual tokens of all pairs: 128,000 with room for text.
const ALL_TOKENS: f64 = 115_200.0;
/// However many frames there are, a pair may have that much more than the fewest tokens.
const LEAST_MAX: f64 = 1.05;
/// Positions for a second, of Qwen2.5-VL (`tokens_per_second` in its configuration).
const POSITIONS_PER_SECOND: f64 = 2.0;

impl Qwen2Vl {
    /// Qwen2-VL.
    pub fn new(encoder: &EncoderFacts) -> Self {
        Self { token_side: 2 * encoder.patch_size.unwrap_or(14), max_tokens: MAX_TOKENS, real_time: false }
    }

    /// Qwen2.5-VL.
    pub fn with_real_time(encoder: &EncoderFacts) -> Self {
        Self { real_time: true, ..Self::new(encoder) }
    }
}

impl Layout for Qwen2Vl {
    fn name(&self) -> &'static str {
        if self.real_time { "qwen2.5-vl" } else { "qwen2-vl" }
    }

    fn frames(&self) -> Frames {
        let rate = Rate::Fps { fps: 2.0, max_frames: 768 };
        let spread = Spread::Ends { count: Rounding::Down, number: Rounding::Nearest, margin_s: 0.0 };
        Frames { rate, spread, min: 4, max: 768, per_slice: 2, multiple_of: 2 }
    }

    fn image_size(&self, size: Size, n_frames: usize) -> ImageSize {
        let shared = ALL_TOKENS * 2.0 / n_frames.max(1) as f64;
        let max = (self.max_tokens as f64).min(shared.max(MIN_TOKENS as f64 * LEAST_MAX));
        let pixels = Pixels::of_tokens((MIN_TOKENS as f64).min(max), max, self.token_side);
        ImageSize::Exactly(smart_resize(size, self.token_side, pixels))
    }

    fn slice_tokens(&self) -> Option<(usize, usize)> {
        Some((MIN_TOKENS / 2, self.max_tokens))
    }

    fn with_slice_tokens(&self, max: usize) -> Option<Box<dyn Layout>> {
        Some(Box::new(Self { max_tokens: max.clamp(1, self.max_tokens), ..*self }))
    }

    fn tiles(&self) -> Tiles {
        Tiles::All
    }

    fn uses_encoder_markers(&self) -> bool {
        // One pair for the whole video, not one for each slice.
        false
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        let all = (0..slices.times.len()).map(Part::Slice);
        std::iter::once(Part::text("<|vision_start|>")).chain(all).chain([Part::text("<|vision_end|>")]).collect()
    }

    fn time_steps(&self, slices: &Slices) -> Option<Vec<i32>> {
        let step = match slices.frame_distance_s() {
            Some(distance_s) if self.real_time => 2.0 * distance_s * POSITIONS_PER_SECOND,
            _ => 1.0,
        };
        // As `get_rope_index` rounds: down. Times are sums of fractions, so a whole number may come out a little less.
        Some((0..slices.times.len()).map(|i| (i as f64 * step + 1e-4) as i32).collect())
    }

    fn time_step(&self, index: usize, seconds: f64) -> Option<i32> {
        Some(if self.real_time { (seconds * POSITIONS_PER_SECOND + 1e-4) as i32 } else { index as i32 })
    }
}
