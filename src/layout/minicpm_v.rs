//! MiniCPM-V: one line for each frame, `<image>…</image>`. Frames keep their aspect ratio.

use super::{EncoderFacts, FrameCount, Frames, ImageSize, Layout, Part, Size, Slices, Tiles};
use crate::video::{Rate, Spread};

/// The layout of MiniCPM-V.
#[derive(Debug, Clone, Copy)]
pub struct MiniCpmV {
    /// The side of a square that has as many pixels as a frame.
    side: u32,
    /// Both sides of an image are multiples of this.
    patch: u32,
    tiled: bool,
}

impl MiniCpmV {
    /// The layout for an encoder.
    pub fn new(encoder: &EncoderFacts) -> Self {
        Self { side: encoder.image_size.unwrap_or(448), patch: encoder.patch_size.unwrap_or(14), tiled: false }
    }
}

impl Layout for MiniCpmV {
    fn name(&self) -> &'static str {
        "minicpm-v"
    }

    fn frames(&self) -> Frames {
        // As `encode_video` in the model's examples.
        let rate = Rate::Fps { fps: 1.0, max_frames: 64 };
        Frames { rate, spread: Spread::WholeSteps, max: 64, ..Frames::default() }
    }

    /// The frame's aspect ratio with as many pixels as the square, as `find_best_resize` in the model's processor. mtmd
    /// makes a square of a frame that fits into the square, which is off by one patch for nearly square frames.
    fn image_size(&self, (width, height): Size, _n_frames: FrameCount) -> ImageSize {
        if self.tiled {
            return ImageSize::AsItIs;
        }
        let ratio = f64::from(width) / f64::from(height.max(1));
        let height = (f64::from(self.side) / ratio.sqrt()).floor();
        let sides = [(height * ratio).floor(), height];
        let patch = f64::from(self.patch);
        // Python rounds halves to even.
        let [width, height] = sides.map(|side| ((side / patch).round_ties_even() * patch).max(patch) as u32);
        ImageSize::Exactly((width, height))
    }

    fn tiles(&self) -> Tiles {
        if self.tiled { Tiles::All } else { Tiles::First }
    }

    fn tiled(&self) -> Option<Box<dyn Layout>> {
        Some(Box::new(Self { tiled: true, ..*self }))
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        super::lines(slices, |_, _| String::new()).into_iter().filter(|part| *part != Part::text("")).collect()
    }

    fn separator(&self) -> &'static str {
        "\n"
    }
}
