//! What the window asks for, and what it is told.

use std::path::PathBuf;

/// Does the work. Nothing here waits: what comes of a request comes out of [`receive`](Self::receive), later.
pub trait Engine {
    /// The models that can be chosen.
    fn models(&self) -> Vec<Choice>;

    /// Asks for something.
    fn send(&mut self, request: Request);

    /// The next thing that happened, if there is one.
    fn receive(&mut self) -> Option<Update>;
}

/// A model that can be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// By which it is loaded.
    pub name: String,
    /// Whether it is on this machine, as far as that is known.
    pub is_here: bool,
}

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Frames for each second of video.
    pub fps: f64,
    /// The share of the visual tokens that is kept; `None` leaves it to the video.
    pub keep: Option<f32>,
    /// The similarity `M` below which a layer's visual tokens leave the KV cache; `None` leaves it to the model.
    pub threshold: Option<f32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { fps: 2.0, keep: None, threshold: None }
    }
}

/// What the window asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Let the user choose a video: [`Update::Picked`].
    Pick,
    /// Load a model, fetched first if it is not here.
    Load(String),
    /// Show the frames that will be taken, and say what they will cost.
    Plan(PathBuf, Settings),
    /// Ask about a video, which is read first if it was not.
    Ask(PathBuf, Settings, String),
    /// Stop what is being done. Nothing of a question comes behind it but [`Update::Stopped`].
    Stop,
}

/// How far something is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub what: &'static str,
    /// From 0 to 1.
    pub done: f32,
}

/// What a video will cost, told before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    pub frames: usize,
    /// Before pruning.
    pub visual_tokens: usize,
    /// The most that are kept of them.
    pub kept: usize,
    /// Bytes of the KV cache, at most.
    pub kv: u64,
    /// Bytes that are free for it, where that is known.
    pub free: Option<u64>,
    pub fits: bool,
    /// What is short, and what is done about it.
    pub notes: Vec<String>,
}

/// A frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub time_s: f64,
    pub width: usize,
    pub height: usize,
    /// `[height × width × 3]`: red, green, blue.
    pub rgb: Vec<u8>,
}

/// The visual tokens of a frame, or of frames that the model merges.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// When its first frame is shown.
    pub time_s: f64,
    pub total: usize,
    /// Ascending, row by row from the top left.
    pub kept: Vec<u32>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// A video was chosen.
    Picked(PathBuf),
    /// The model of this name is loaded.
    Loaded(String),
    Progress(Progress),
    /// The frames that are taken of a video.
    Images(PathBuf, Vec<Image>),
    /// What a video would cost, with the settings that it was planned with.
    Planned(PathBuf, Settings, Cost),
    /// What is kept of its frames.
    Kept(Vec<Slice>),
    /// The next piece of the answer.
    Text(String),
    /// The answer is complete, and what it cost.
    Answered(String),
    /// Something worth a line.
    Note(String),
    /// Something failed beside what was asked for.
    Trouble(String),
    /// What was asked for was stopped.
    Stopped,
    /// What was asked for failed.
    Failed(String),
}
