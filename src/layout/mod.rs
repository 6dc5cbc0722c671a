//! How each model family wants a video in its prompt.
//!
//! A layout says how many frames to take, and which text stands between them. The begin and end markers around one picture (`<img>`,
//! `<|vision_start|>`, …) are not part of it: mtmd puts them there.

mod general;
mod internvl;

pub use general::General;
pub use internvl::InternVl;

use crate::error::{Error, Result};
use crate::video::Rate;

/// One part of a video's text in the prompt.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Part {
    /// Text, which may name control tokens.
    Text(String),
    /// The frame with this index.
    Frame(usize),
}

/// A model family's way to lay out a video.
pub trait Layout: std::fmt::Debug + Send + Sync {
    /// The name that `--layout` takes.
    fn name(&self) -> &'static str;

    /// The frames to take when the user asks for nothing else.
    fn default_rate(&self) -> Rate;

    /// The most frames to take when the user gives a rate only.
    fn max_frames(&self) -> usize;

    /// Whether a frame is one tile, whatever its size. Frames that the encoder would cut up are then resized to
    /// its tile first.
    fn single_tile(&self) -> bool;

    /// The text and the frames of a video, in order. `times_s` holds the time of each frame in seconds.
    fn parts(&self, times_s: &[f64]) -> Vec<Part>;
}

/// The names of all layouts.
pub const NAMES: &[&str] = &["internvl", "general"];

/// The layout with this name.
///
/// # Errors
/// [`Error::InvalidParameter`] if there is none.
pub fn by_name(name: &str) -> Result<Box<dyn Layout>> {
    match name {
        "internvl" => Ok(Box::new(InternVl)),
        "general" => Ok(Box::new(General)),
        _ => Err(Error::InvalidParameter {
            name: "layout",
            value: name.to_owned(),
            expected: format!("one of {}", NAMES.join(", ")),
        }),
    }
}

/// The layout for a projector, by the name that the mmproj gives it (`clip.projector_type`). Families without a layout of their own
/// get the [`General`] one.
pub fn for_projector(projector: &str) -> Box<dyn Layout> {
    match projector {
        "internvl" => Box::new(InternVl),
        _ => Box::new(General),
    }
}

/// A line for each frame: its label, the frame, and a line end. Texts that meet are one part, so that they are tokenized as one.
fn lines(times_s: &[f64], label: impl Fn(usize, f64) -> String) -> Vec<Part> {
    let mut parts = Vec::with_capacity(2 * times_s.len() + 1);
    for (i, &time_s) in times_s.iter().enumerate() {
        let line_end = if i == 0 { "" } else { "\n" };
        parts.push(Part::Text(format!("{line_end}{}", label(i, time_s))));
        parts.push(Part::Frame(i));
    }
    if !times_s.is_empty() {
        parts.push(Part::Text("\n".into()));
    }
    parts
}

/// `MM:SS`, or `H:MM:SS` from an hour on. Whole seconds, rounded down, as players show them.
fn clock(time_s: f64) -> String {
    let seconds = time_s.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes:02}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internvl_numbers_its_frames_and_ends_each_line() {
        let text = |s: &str| Part::Text(s.into());
        assert_eq!(
            InternVl.parts(&[0.5, 1.5]),
            [text("Frame1: "), Part::Frame(0), text("\nFrame2: "), Part::Frame(1), text("\n")]
        );
    }

    #[test]
    fn general_names_the_time_of_each_frame() {
        let text = |s: &str| Part::Text(s.into());
        assert_eq!(
            General.parts(&[7.9, 65.0, 3600.0]),
            [
                text("Frame from 00:07: "),
                Part::Frame(0),
                text("\nFrame from 01:05: "),
                Part::Frame(1),
                text("\nFrame from 1:00:00: "),
                Part::Frame(2),
                text("\n")
            ]
        );
    }

    #[test]
    fn every_name_has_a_layout_of_that_name() {
        for name in NAMES {
            assert_eq!(by_name(name).unwrap().name(), *name);
        }
        assert!(by_name("nonsense").unwrap_err().to_string().contains("internvl"));
    }

    #[test]
    fn projectors_without_a_layout_get_the_general_one() {
        assert_eq!(for_projector("internvl").name(), "internvl");
        assert_eq!(for_projector("pixtral").name(), "general");
    }
}
