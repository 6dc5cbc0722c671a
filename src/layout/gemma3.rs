//! Gemma 3, which was trained on images only: each frame is a line with its time and then an image, with the empty
//! lines that `Gemma3Processor` puts around images.

use super::{FrameCount, Frames, ImageSize, Layout, Part, Size, Slices, Tiles, clock};

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

    fn image_size(&self, _size: Size, _n_frames: FrameCount) -> ImageSize {
        // Like the processor, the encoder scales every image to its square, whatever the image's shape.
        ImageSize::AsItIs
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

    fn image(&self) -> Vec<Part> {
        vec![Part::text("\n\n"), Part::Slice(0), Part::text("\n\n")]
    }
}
