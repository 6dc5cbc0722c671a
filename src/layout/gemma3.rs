//! Gemma 3, which was trained on pictures alone: a time and a picture for each frame, in the lines that
//! `Gemma3Processor` puts around pictures.

use super::{Frames, Layout, Part, PictureSize, Size, Slices, Tiles, clock};

/// The layout of Gemma 3.
#[derive(Debug, Clone, Copy)]
pub struct Gemma3;

impl Layout for Gemma3 {
    fn name(&self) -> &'static str {
        "gemma3"
    }

    fn frames(&self) -> Frames {
        Frames::default()
    }

    fn picture_size(&self, _size: Size, _n_frames: usize) -> PictureSize {
        // The encoder squeezes every picture into its square, as the processor does.
        PictureSize::AsItIs
    }

    fn tiles(&self) -> Tiles {
        Tiles::All
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        let mut parts = Vec::with_capacity(2 * slices.times.len() + 1);
        for (i, time_s) in slices.each() {
            let before = if i == 0 { "" } else { "\n\n" };
            parts.extend([Part::Text(format!("{before}Frame from {}:\n\n", clock(time_s))), Part::Slice(i)]);
        }
        parts.push(Part::text("\n\n"));
        parts
    }

    fn picture(&self) -> Vec<Part> {
        vec![Part::text("\n\n"), Part::Slice(0), Part::text("\n\n")]
    }
}
