//! Qwen2-VL and Qwen2.5-VL: one block of all frames, merged in pairs, without times in the text. The positions encode
//! time: in slices in Qwen2-VL, in seconds in Qwen2.5-VL.
//!
//! Frames and image sizes are those of `qwen_vl_utils`, which Qwen's examples use: an even number of frames, from the
//! first to the last; 128 to 768 tokens a pair, and fewer if all frames together would exceed 115,200 tokens.

use super::size::{Pixels, smart_resize};
use super::{EncoderFacts, FrameCount, Frames, ImageSize, Layout, Part, Size, Slices, Tiles};
use crate::video::{Rate, Rounding, Spread};

/// The layout of Qwen2-VL and Qwen2.5-VL.
#[derive(Debug, Clone, Copy)]
pub struct Qwen2Vl {
    /// The side of a visual token in pixels: two patches.
    token_side: u32,
    /// The most tokens of a pair.
    max_tokens: usize,
    /// Positions count seconds.
    real_time: bool,
}

const MIN_TOKENS: usize = 128;
const MAX_TOKENS: usize = 768;
/// The most visual tokens of all pairs: 90 % of 128,000, which leaves some for text.
const ALL_TOKENS: f64 = 115_200.0;
/// The limit of a pair never falls below this multiple of `MIN_TOKENS`, however many frames there are.
const LEAST_MAX: f64 = 1.05;
/// Qwen2.5-VL's positions per second (`tokens_per_second` in its configuration).
const POSITIONS_PER_SECOND: f64 = 2.0;

impl Qwen2Vl {
    /// The layout of Qwen2-VL.
    pub fn new(encoder: &EncoderFacts) -> Self {
        Self { token_side: 2 * encoder.patch_size.unwrap_or(14), max_tokens: MAX_TOKENS, real_time: false }
    }

    /// The layout of Qwen2.5-VL.
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

    fn image_size(&self, size: Size, n_frames: FrameCount) -> ImageSize {
        let shared = ALL_TOKENS * 2.0 / n_frames.0.max(1) as f64;
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
        // One pair of markers for the whole video, not one for each slice.
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
        // Rounds down, as `get_rope_index` does; 1e-4 makes up for rounding errors just below a whole number.
        Some((0..slices.times.len()).map(|i| (i as f64 * step + 1e-4) as i32).collect())
    }

    fn time_step(&self, index: usize, seconds: f64) -> Option<i32> {
        Some(if self.real_time { (seconds * POSITIONS_PER_SECOND + 1e-4) as i32 } else { index as i32 })
    }
}
