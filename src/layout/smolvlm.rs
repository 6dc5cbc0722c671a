//! SmolVLM2: a sentence with the number of frames and the video's length, then a time and one tile for each frame.
//!
//! The sentence is that of `SmolVLMProcessor`: "You are provided the following series of four frames from a 0:00:04
//! [H:MM:SS] video.".

use super::words::in_words;
use super::{EncoderFacts, FrameCount, Frames, ImageSize, Layout, Part, Size, Slices, Tiles};
use crate::video::{Rate, Rounding, Spread};

/// The layout of SmolVLM2.
#[derive(Debug, Clone, Copy)]
pub struct SmolVlm {
    image: ImageSize,
    tiled: bool,
}

impl SmolVlm {
    /// The layout for an encoder.
    pub fn new(encoder: &EncoderFacts) -> Self {
        Self { image: ImageSize::square(encoder.image_size), tiled: false }
    }
}

const MARKERS: (&str, &str) = ("<fake_token_around_image><global-img>", "<fake_token_around_image>");

impl Layout for SmolVlm {
    fn name(&self) -> &'static str {
        "smolvlm"
    }

    fn frames(&self) -> Frames {
        // Like `sample_frames` of `SmolVLMVideoProcessor`, leaves out the first and the last second of a long video.
        let rate = Rate::Fps { fps: 1.0, max_frames: 64 };
        let spread = Spread::Ends { count: Rounding::Nearest, number: Rounding::Down, margin_s: 1.0 };
        Frames { rate, spread, max: 64, ..Frames::default() }
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
        // mtmd's markers begin with an empty line, which is only right for images that are cut into tiles.
        self.tiled
    }

    fn video(&self, slices: &Slices) -> Vec<Part> {
        let (begin, end) = if self.tiled { ("", "") } else { MARKERS };
        let last_s = slices.times.last().map_or(0.0, |time| time.last_s);
        let length = slices.duration_s.unwrap_or(last_s).max(0.0) as u64;
        let mut text = format!(
            "You are provided the following series of {} frames from a {}:{:02}:{:02} [H:MM:SS] video.\n",
            in_words(slices.times.len()),
            length / 3600,
            length / 60 % 60,
            length % 60
        );
        let mut parts = Vec::with_capacity(2 * slices.times.len() + 1);
        for (i, time_s) in slices.each() {
            let seconds = time_s.max(0.0) as u64;
            text += &format!("\nFrame from {:02}:{:02}:{begin}", seconds / 60, seconds % 60);
            parts.extend([Part::Text(std::mem::take(&mut text)), Part::Slice(i)]);
            text += end;
        }
        parts.push(Part::Text(text + "\n\n"));
        parts
    }
}
