//! Any model that mtmd loads and that has no layout of its own: `Frame from MM:SS: <picture>`, a line for each frame.

use super::{Frames, Layout, Part, PictureSize, Size, Slices, Tiles, clock};

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

    fn picture_size(&self, _size: Size, _n_frames: usize) -> PictureSize {
        PictureSize::AsItIs
    }

    fn tiles(&self) -> Tiles {
        // Which of several pictures shows the whole frame is not known.
        Tiles::All
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        super::lines(slices, |_, time_s| format!("Frame from {}: ", clock(time_s)))
    }

    fn separator(&self) -> &'static str {
        "\n"
    }
}
