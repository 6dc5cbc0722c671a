//! InternVL 2.5 and 3, and `smol`: `Frame1: <img>…</img>\nFrame2: <img>…</img>\n…`, then the question.

use super::{EncoderFacts, FrameCount, Frames, ImageSize, Layout, Part, Size, Slices, Tiles};
use crate::video::Rate;

/// The layout of InternVL: numbered frames, uniformly sampled, one tile each.
#[derive(Debug, Clone, Copy)]
pub struct InternVl {
    image: ImageSize,
    tiled: bool,
}

impl InternVl {
    /// The layout for an encoder.
    pub fn new(encoder: &EncoderFacts) -> Self {
        Self { image: ImageSize::square(encoder.image_size), tiled: false }
    }
}

impl Layout for InternVl {
    fn name(&self) -> &'static str {
        "internvl"
    }

    fn frames(&self) -> Frames {
        // The family was trained on 8 to 32 frames, `smol` on up to 8. Like `InternVLVideoProcessor`, the layout takes
        // the middles of equal parts.
        Frames { rate: Rate::Uniform { frames: 8 }, ..Frames::default() }
    }

    fn image_size(&self, _size: Size, _n_frames: FrameCount) -> ImageSize {
        if self.tiled { ImageSize::AsItIs } else { self.image }
    }

    fn tiles(&self) -> Tiles {
        if self.tiled { Tiles::All } else { Tiles::Last }
    }

    fn tiled(&self) -> Option<Box<dyn Layout>> {
        Some(Box::new(Self { tiled: true, ..*self }))
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        super::lines(slices, |i, _| format!("Frame{}: ", i + 1))
    }

    fn separator(&self) -> &'static str {
        "\n"
    }
}
