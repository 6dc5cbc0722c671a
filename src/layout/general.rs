//! Any model that mtmd loads and that has no layout of its own: `Frame from MM:SS: <picture>`, a line for each frame.

use super::{Layout, Part, clock};
use crate::video::Rate;

/// The layout for families without one of their own.
#[derive(Debug, Clone, Copy)]
pub struct General;

impl Layout for General {
    fn name(&self) -> &'static str {
        "general"
    }

    fn default_rate(&self) -> Rate {
        Rate::Fps { fps: 1.0, max_frames: self.max_frames() }
    }

    fn max_frames(&self) -> usize {
        32
    }

    fn single_tile(&self) -> bool {
        false
    }

    fn parts(&self, times_s: &[f64]) -> Vec<Part> {
        super::lines(times_s, |_, time_s| format!("Frame from {}: ", clock(time_s)))
    }
}
