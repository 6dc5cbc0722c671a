//! How each model family wants a video in its prompt.
//!
//! A [`Layout`] says how many frames to take, how large their images are, which frames make one slice, what text
//! stands between the slices, and where they stand in time. One file a family. What a family was trained with is in its
//! Hugging Face processor; every layout is compared with that (`tests/it/prompts.rs`).
//!
//! A *slice* is what the encoder gives one set of visual tokens for: a frame, or a pair of frames in families that
//! merge them.

mod gemma3;
mod general;
mod internvl;
mod llava;
mod minicpm_v;
mod pooling;
mod qwen2_vl;
mod qwen3_vl;
mod size;
mod smolvlm;
mod words;

pub use gemma3::Gemma3;
pub use general::General;
pub use internvl::InternVl;
pub use llava::Llava;
pub use minicpm_v::MiniCpmV;
pub use pooling::{pool, pooled_from, pooled_len};
pub use qwen2_vl::Qwen2Vl;
pub use qwen3_vl::Qwen3Vl;
pub use size::{ImageSize, Size};
pub use smolvlm::SmolVlm;

use crate::error::{Error, Result};
use crate::video::{Rate, Spread};

/// One part of a video in the prompt.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Part {
    /// Text, which may name control tokens.
    Text(String),
    /// The visual tokens of the slice with this index.
    Slice(usize),
    /// The encoder's embedding of a line end (LLaVA's `image_newline`): one row, which is never pruned.
    Newline,
}

impl Part {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// What a layout may look at to know the encoder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncoderFacts {
    /// The mmproj's projector, by the name that it gives it (`clip.projector_type`).
    pub projector: String,
    /// The language model's architecture (`general.architecture`).
    pub architecture: String,
    /// The side of the encoder's square image in pixels, or of its tile (`clip.vision.image_size`).
    pub image_size: Option<u32>,
    /// The side of a patch in pixels (`clip.vision.patch_size`).
    pub patch_size: Option<u32>,
    /// Whether the mmproj has an embedding for line ends.
    pub has_newline: bool,
}

/// How many frames a family wants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frames {
    /// How many to take when the user asks for nothing else.
    pub rate: Rate,
    /// Which of them.
    pub spread: Spread,
    /// The fewest to take of a longer video.
    pub min: usize,
    /// The most to take when the user gives a rate only.
    pub max: usize,
    /// How many of them make one slice: 1, or 2.
    pub per_slice: usize,
    /// What their number is a multiple of.
    pub multiple_of: usize,
}

impl Default for Frames {
    /// One a second, 32 at most.
    fn default() -> Self {
        let rate = Rate::Fps { fps: 1.0, max_frames: 32 };
        Self { rate, spread: Spread::Middles, min: 1, max: 32, per_slice: 1, multiple_of: 1 }
    }
}

/// A moment, or the moments of a pair of frames, that a slice shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SliceTime {
    /// The first frame, in seconds.
    pub first_s: f64,
    /// The last frame, in seconds; the same if there is one only.
    pub last_s: f64,
}

/// The slices of a video, and what a prompt may tell of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Slices {
    /// When each is, ascending.
    pub times: Vec<SliceTime>,
    /// Frames in all.
    pub n_frames: usize,
    /// The video's length in seconds, where it is known.
    pub duration_s: Option<f64>,
    /// How many frames were taken of each second, where they were taken evenly.
    pub sampled_fps: Option<f64>,
}

impl Slices {
    /// The slices that frames at `frame_times` (in seconds) make, `per_slice` each; the last may have fewer.
    pub fn new(frame_times: &[f64], per_slice: usize, duration_s: Option<f64>, sampled_fps: Option<f64>) -> Self {
        let time = |frames: &[f64]| SliceTime {
            first_s: frames.first().copied().unwrap_or_default(),
            last_s: frames.last().copied().unwrap_or_default(),
        };
        let times = frame_times.chunks(per_slice.max(1)).map(time).collect();
        Self { times, n_frames: frame_times.len(), duration_s, sampled_fps }
    }

    /// Each slice with its index and its first frame's time in seconds.
    fn each(&self) -> impl Iterator<Item = (usize, f64)> {
        self.times.iter().map(|time| time.first_s).enumerate()
    }

    /// Seconds of video for each frame: as it was sampled, or from one to the next on average; `None` for a single
    /// frame.
    fn frame_distance_s(&self) -> Option<f64> {
        if let Some(fps) = self.sampled_fps {
            return (fps > 0.0).then(|| 1.0 / fps);
        }
        let (first, last) = (self.times.first()?.first_s, self.times.last()?.last_s);
        (self.n_frames > 1).then(|| (last - first) / (self.n_frames - 1) as f64)
    }
}

/// Which of the images that the encoder makes of a frame are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Tiles {
    /// All of them.
    All,
    /// The first, which shows the whole frame.
    First,
    /// The last, which shows the whole frame.
    Last,
}

/// A model family's way to lay out a video.
pub trait Layout: std::fmt::Debug + Send + Sync {
    /// The name that [`by_name`] takes.
    fn name(&self) -> &'static str;

    /// How many frames to take.
    fn frames(&self) -> Frames;

    /// The size in which the encoder is given frames of `size`, `n_frames` in all.
    fn image_size(&self, size: Size, n_frames: usize) -> ImageSize;

    /// The fewest and the most visual tokens of a slice, where a slice can be made smaller by
    /// [`image_size`](Self::image_size).
    fn slice_tokens(&self) -> Option<(usize, usize)> {
        None
    }

    /// The same layout with at most this many visual tokens a slice, if it can have fewer.
    fn with_slice_tokens(&self, max: usize) -> Option<Box<dyn Layout>> {
        let _ = max;
        None
    }

    /// Which of the images that the encoder makes of a frame are used.
    fn tiles(&self) -> Tiles;

    /// The same layout with frames cut into tiles as single images are, each tile encoded; `None` if it never cuts
    /// them, or always.
    fn tiled(&self) -> Option<Box<dyn Layout>> {
        None
    }

    /// Whether the begin and end markers that mtmd puts around an image (`<img>`, `<|vision_start|>`, …) go around
    /// each slice. A layout that says no has its own in [`video`](Self::video).
    fn uses_encoder_markers(&self) -> bool {
        true
    }

    /// Whether two by two visual tokens of a frame are merged into one behind the projector.
    fn pools(&self) -> bool {
        false
    }

    /// Text and slices of a video, in order.
    fn video(&self, slices: &Slices) -> Vec<Part>;

    /// What stands between a video or image and the text behind it, unless the model's chat template says it.
    fn separator(&self) -> &'static str {
        ""
    }

    /// Text and slice of a single image, in order. It is encoded as mtmd does: tiles, markers and all.
    fn image(&self) -> Vec<Part> {
        vec![Part::Slice(0)]
    }

    /// For models with positions in time (M-RoPE): by how much each slice is later than the first, in positions, where
    /// all slices begin at one position. `None` where each slice begins behind what stands before it.
    fn time_steps(&self, slices: &Slices) -> Option<Vec<i32>> {
        let _ = slices;
        None
    }

    /// As [`time_steps`](Self::time_steps), of one slice of a video whose end is not known: slice number `index`, which
    /// comes `seconds` behind the first. The same as there if the slices follow each other at even distances.
    fn time_step(&self, index: usize, seconds: f64) -> Option<i32> {
        let _ = (index, seconds);
        None
    }
}

/// The names of all layouts.
pub const NAMES: &[&str] = &[
    "smolvlm",
    "qwen2-vl",
    "qwen2.5-vl",
    "qwen3-vl",
    "llava-onevision",
    "llava",
    "internvl",
    "minicpm-v",
    "gemma3",
    "general",
];

/// The layout with this name, for an encoder.
///
/// # Errors
/// [`Error::InvalidParameter`] if there is none.
pub fn by_name(name: &str, encoder: &EncoderFacts) -> Result<Box<dyn Layout>> {
    Ok(match name {
        "smolvlm" => Box::new(SmolVlm::new(encoder)),
        "qwen2-vl" => Box::new(Qwen2Vl::new(encoder)),
        "qwen2.5-vl" => Box::new(Qwen2Vl::with_real_time(encoder)),
        "qwen3-vl" => Box::new(Qwen3Vl::new(encoder)),
        "llava-onevision" => Box::new(Llava::one_vision(encoder)),
        "llava" => Box::new(Llava::new(encoder)),
        "internvl" => Box::new(InternVl::new(encoder)),
        "minicpm-v" => Box::new(MiniCpmV::new(encoder)),
        "gemma3" => Box::new(Gemma3),
        "general" => Box::new(General),
        _ => {
            return Err(Error::InvalidParameter {
                name: "layout",
                value: name.to_owned(),
                expected: format!("one of {}", NAMES.join(", ")),
            });
        }
    })
}

/// The name of the layout that a model's family has; `general` for families without one of their own.
pub fn name_for(encoder: &EncoderFacts) -> &'static str {
    let is_qwen2 = encoder.architecture.starts_with("qwen2");
    match encoder.projector.as_str() {
        "idefics3" => "smolvlm",
        "qwen2vl_merger" => "qwen2-vl",
        // Qwen2.5-Omni sees as Qwen2.5-VL does.
        "qwen2.5vl_merger" | "qwen2.5o" => "qwen2.5-vl",
        "qwen3vl_merger" => "qwen3-vl",
        // LLaVA-NeXT has line ends too, but another language model, and was trained on images alone.
        "mlp" if encoder.has_newline && is_qwen2 => "llava-onevision",
        "mlp" => "llava",
        "internvl" => "internvl",
        "resampler" | "minicpmv4_6" => "minicpm-v",
        "gemma3" => "gemma3",
        _ => "general",
    }
}

/// A line for each slice: its label and the slice. Texts that meet are one part, so that they are tokenized as one.
fn lines(slices: &Slices, label: impl Fn(usize, f64) -> String) -> Vec<Part> {
    let mut parts = Vec::with_capacity(2 * slices.times.len());
    for (i, time_s) in slices.each() {
        let line_end = if i == 0 { "" } else { "\n" };
        parts.push(Part::Text(format!("{line_end}{}", label(i, time_s))));
        parts.push(Part::Slice(i));
    }
    parts
}

/// `MM:SS`, or `H:MM:SS` from an hour on. Whole seconds, rounded down, as players show them.
pub(crate) fn clock(time_s: f64) -> String {
    let seconds = time_s.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes:02}:{seconds:02}") }
}

#[cfg(test)]
mod tests;
