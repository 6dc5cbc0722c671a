//! How each model family arranges a video in its prompt.
//!
//! A [`Layout`] decides how many frames to take, how large the images are, which frames form a slice, what text stands
//! between the slices, and their positions in time. Each family has a file. The reference for each layout is the
//! family's Hugging Face processor; `tests/it/prompts.rs` compares the two.
//!
//! A *slice* is what the encoder makes of one frame, or of a pair of frames in families that merge them.

mod counts;
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

pub use counts::{FrameCount, SliceCount};
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
    /// Text, which may contain control tokens.
    Text(String),
    /// The visual tokens of the slice with this index.
    Slice(usize),
    /// The encoder's newline embedding (LLaVA's `image_newline`): one row, which is never pruned.
    Newline,
}

impl Part {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// The properties of an encoder that a layout depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncoderFacts {
    /// The mmproj's name for its projector (`clip.projector_type`).
    pub projector: String,
    /// The language model's architecture (`general.architecture`).
    pub architecture: String,
    /// The side in pixels of the encoder's square image or tile (`clip.vision.image_size`).
    pub image_size: Option<u32>,
    /// The side of a patch in pixels (`clip.vision.patch_size`).
    pub patch_size: Option<u32>,
    /// Whether the mmproj has a newline embedding.
    pub has_newline: bool,
}

/// Which frames a family takes of a video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frames {
    /// How many frames to take by default.
    pub rate: Rate,
    /// Which frames to take.
    pub spread: Spread,
    /// The fewest frames, unless the video has fewer.
    pub min: usize,
    /// The most frames when the user sets only a rate.
    pub max: usize,
    /// Frames in a slice: 1 or 2.
    pub per_slice: usize,
    /// The number of frames is a multiple of this.
    pub multiple_of: usize,
}

impl Default for Frames {
    /// One frame per second, at most 32.
    fn default() -> Self {
        let rate = Rate::Fps { fps: 1.0, max_frames: 32 };
        Self { rate, spread: Spread::Middles, min: 1, max: 32, per_slice: 1, multiple_of: 1 }
    }
}

/// The times of a slice's first and last frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SliceTime {
    /// The time of the first frame, in seconds.
    pub first_s: f64,
    /// The time of the last frame, in seconds; equal to `first_s` if the slice has one frame.
    pub last_s: f64,
}

/// The slices of a video, with what a prompt may say about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Slices {
    /// The time of each slice, ascending.
    pub times: Vec<SliceTime>,
    /// The number of frames in all slices.
    pub n_frames: FrameCount,
    /// The video's length in seconds, if known.
    pub duration_s: Option<f64>,
    /// Sampled frames per second of video, if they were sampled evenly.
    pub sampled_fps: Option<f64>,
}

impl Slices {
    /// The slices of frames at `frame_times` (in seconds), `per_slice` frames each. The last slice may have fewer.
    pub fn new(frame_times: &[f64], per_slice: usize, duration_s: Option<f64>, sampled_fps: Option<f64>) -> Self {
        let time = |frames: &[f64]| SliceTime {
            first_s: frames.first().copied().unwrap_or_default(),
            last_s: frames.last().copied().unwrap_or_default(),
        };
        let times = frame_times.chunks(per_slice.max(1)).map(time).collect();
        Self { times, n_frames: FrameCount(frame_times.len()), duration_s, sampled_fps }
    }

    /// Each slice with its index and its first frame's time in seconds.
    fn each(&self) -> impl Iterator<Item = (usize, f64)> {
        self.times.iter().map(|time| time.first_s).enumerate()
    }

    /// Seconds of video per frame: by the sampling rate, or else the mean distance between frames; `None` for a single
    /// frame.
    fn frame_distance_s(&self) -> Option<f64> {
        if let Some(fps) = self.sampled_fps {
            return (fps > 0.0).then(|| 1.0 / fps);
        }
        let (first, last) = (self.times.first()?.first_s, self.times.last()?.last_s);
        (self.n_frames.0 > 1).then(|| (last - first) / (self.n_frames.0 - 1) as f64)
    }
}

/// Which of the images that mtmd cuts a frame into are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Tiles {
    /// All of them.
    All,
    /// The first image, which shows the whole frame.
    First,
    /// The last image, which shows the whole frame.
    Last,
}

/// How a model family samples and sizes frames, and what text it puts around its slices.
pub trait Layout: std::fmt::Debug + Send + Sync {
    /// The layout's name, for [`by_name`].
    fn name(&self) -> &'static str;

    /// Which frames to take.
    fn frames(&self) -> Frames;

    /// The size of the images that the encoder gets, for a video of `n_frames` frames of `size`.
    fn image_size(&self, size: Size, n_frames: FrameCount) -> ImageSize;

    /// The fewest and the most visual tokens of a slice, if [`image_size`](Self::image_size) can vary their number.
    fn slice_tokens(&self) -> Option<(usize, usize)> {
        None
    }

    /// The same layout with at most `max` visual tokens a slice; `None` if their number is fixed.
    fn with_slice_tokens(&self, max: usize) -> Option<Box<dyn Layout>> {
        let _ = max;
        None
    }

    /// Which of the images that mtmd cuts a frame into are used.
    fn tiles(&self) -> Tiles;

    /// The same layout with each frame cut into tiles, as single images are, and all tiles encoded. `None` if the
    /// family never cuts frames, or always does.
    fn tiled(&self) -> Option<Box<dyn Layout>> {
        None
    }

    /// Whether the markers that mtmd puts around an image (`<img>`, `<|vision_start|>`, …) go around each slice. If
    /// not, [`video`](Self::video) writes the layout's own markers.
    fn uses_encoder_markers(&self) -> bool {
        true
    }

    /// Whether each two by two visual tokens of a frame are pooled into one after the projector.
    fn pools(&self) -> bool {
        false
    }

    /// The text and slices of a video, in order.
    fn video(&self, slices: &Slices) -> Vec<Part>;

    /// The text between a video or image and the question after it, unless the model's chat template adds it.
    fn separator(&self) -> &'static str {
        ""
    }

    /// Text and slice of a single image, in order. It is encoded as mtmd does: tiles, markers and all.
    fn image(&self) -> Vec<Part> {
        vec![Part::Slice(0)]
    }

    /// For models with positions in time (M-RoPE): the distance of each slice from the first, in positions of time, for
    /// families whose slices all start at the same position. `None` if each slice starts after the part before it.
    fn time_steps(&self, slices: &Slices) -> Option<Vec<i32>> {
        let _ = slices;
        None
    }

    /// [`time_steps`](Self::time_steps) for one slice of a video of unknown length: the slice with the index `index`,
    /// `seconds` after the first. Agrees with `time_steps` if the slices are evenly spaced.
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

/// The layout of this name, for an encoder.
///
/// # Errors
/// [`Error::InvalidParameter`] if the name is unknown.
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

/// The name of the layout of a model's family; `general` for families that have none of their own.
pub fn name_for(encoder: &EncoderFacts) -> &'static str {
    let is_qwen2 = encoder.architecture.starts_with("qwen2");
    match encoder.projector.as_str() {
        "idefics3" => "smolvlm",
        "qwen2vl_merger" => "qwen2-vl",
        // Qwen2.5-Omni takes videos as Qwen2.5-VL does.
        "qwen2.5vl_merger" | "qwen2.5o" => "qwen2.5-vl",
        "qwen3vl_merger" => "qwen3-vl",
        // LLaVA-NeXT has a newline embedding, too, but another language model, and was trained on images only.
        "mlp" if encoder.has_newline && is_qwen2 => "llava-onevision",
        "mlp" => "llava",
        "internvl" => "internvl",
        "resampler" | "minicpmv4_6" => "minicpm-v",
        "gemma3" => "gemma3",
        _ => "general",
    }
}

/// One line for each slice: its label, then the slice. A line end and the next label are one part, so that they are
/// tokenized together.
fn lines(slices: &Slices, label: impl Fn(usize, f64) -> String) -> Vec<Part> {
    let mut parts = Vec::with_capacity(2 * slices.times.len());
    for (i, time_s) in slices.each() {
        let line_end = if i == 0 { "" } else { "\n" };
        parts.push(Part::Text(format!("{line_end}{}", label(i, time_s))));
        parts.push(Part::Slice(i));
    }
    parts
}

/// `MM:SS`, or `H:MM:SS` from one hour on, in whole seconds rounded down.
pub(crate) fn clock(time_s: f64) -> String {
    let seconds = time_s.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes:02}:{seconds:02}") }
}

#[cfg(test)]
mod tests;
