//! Every other model that mtmd loads: one line for each frame, `Frame from MM:SS: <image>`.

use super::{FrameCount, Frames, ImageSize, Layout, Part, Size, Slices, Tiles, clock};

/// The layout of families that have none of their own.
#[derive(Debug, Clone, Copy)]
pub struct General;

impl Layout for General {
    fn name(&self) -> &'static str {
        "general"
    }

    fn frames(&self) -> Frames {
        Frames::default()
    }

    fn image_size(&self, _size: Size, _n_frames: FrameCount) -> ImageSize {
        ImageSize::AsItIs
    }

    fn tiles(&self) -> Tiles {
        // Of several images, it is unknown which one shows the whole frame.
        Tiles::All
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        super::lines(slices, |_, time_s| format!("Frame from {}: ", clock(time_s)))
    }

    fn separator(&self) -> &'static str {
        "\n"
    }
}
