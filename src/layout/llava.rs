//! LLaVA-OneVision: frames back to back, each pooled two by two, then one newline embedding. Other LLaVAs: frames back
//! to back.

use super::{EncoderFacts, FrameCount, Frames, ImageSize, Layout, Part, Size, Slices, Tiles};
use crate::video::{Rate, Rounding, Spread};

/// The layout of the LLaVAs.
#[derive(Debug, Clone, Copy)]
pub struct Llava {
    image: ImageSize,
    one_vision: bool,
    tiled: bool,
}

impl Llava {
    /// The layout of LLaVA-OneVision, which was trained on videos.
    pub fn one_vision(encoder: &EncoderFacts) -> Self {
        Self { image: ImageSize::square(encoder.image_size), one_vision: true, tiled: false }
    }

    /// The layout of LLaVA-1.5 and its likes. The encoder pads frames to a square.
    pub fn new(_encoder: &EncoderFacts) -> Self {
        Self { image: ImageSize::AsItIs, one_vision: false, tiled: false }
    }
}

impl Layout for Llava {
    fn name(&self) -> &'static str {
        if self.one_vision { "llava-onevision" } else { "llava" }
    }

    fn frames(&self) -> Frames {
        if !self.one_vision {
            return Frames { rate: Rate::Uniform { frames: 8 }, ..Frames::default() };
        }
        // The training code has `np.linspace(0, N - 1, 32, dtype=int)`.
        let spread = Spread::Ends { count: Rounding::Down, number: Rounding::Down, margin_s: 0.0 };
        Frames { rate: Rate::Uniform { frames: 32 }, spread, ..Frames::default() }
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

    fn uses_encoder_markers(&self) -> bool {
        false
    }

    fn pools(&self) -> bool {
        self.one_vision && !self.tiled
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        let newline = self.one_vision.then_some(Part::Newline);
        (0..slices.times.len()).map(Part::Slice).chain(newline).collect()
    }

    fn separator(&self) -> &'static str {
        "\n"
    }
}
