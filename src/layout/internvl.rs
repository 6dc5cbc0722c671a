//! InternVL 2.5 and 3, and `smol`: `Frame1: <img>…</img>\nFrame2: <img>…</img>\n…`, then the question.

use super::{Layout, Part};
use crate::video::Rate;

/// The layout of InternVL: numbered frames, uniform over the clip, one tile each.
#[derive(Debug, Clone, Copy)]
pub struct InternVl;

impl Layout for InternVl {
    fn name(&self) -> &'static str {
        "internvl"
    }

    fn default_rate(&self) -> Rate {
        // The family was trained on 8 to 32 frames; `smol` on up to 8.
        Rate::Uniform { frames: 8 }
    }

    fn max_frames(&self) -> usize {
        32
    }

    fn single_tile(&self) -> bool {
        true
    }

    fn parts(&self, times_s: &[f64]) -> Vec<Part> {
        super::lines(times_s, |i, _| format!("Frame{}: ", i + 1))
    }
}
