//! Any model that mtmd loads and that has no layout of its own: `Frame from MM:SS: <image>`, a line for each frame.

use super::{Frames, ImageSize, Layout, Part, Size, Slices, Tiles, clock};

/// The layout for families without one of their own.
#[derive(Debug, Clone, Copy)]
pub struct General;

impl Layout for General {
    fn name(&self) -> &'static str {
        "general"
    }

    fn frames(&self) -> Frames {
        Frames::default()
    }

    fn image_size(&self, _size: Size, _n_frames: usize) -> ImageSize {
        ImageSize::AsItIs
    }

    fn tiles(&self) -> Tiles {
        // Which of several images shows the whole frame is not known.
        Tiles::All
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        super::lines(slices, |_, time_s| format!("Frame from {}: ", clock(time_s)))
    }

    fn separator(&self) -> &'static str {
        "\n"
    }
}
