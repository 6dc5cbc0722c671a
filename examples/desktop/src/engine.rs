//! The requests of the window, and the updates that it gets.

use std::path::PathBuf;

/// Does the work. No method waits: the results of a request come out of [`receive`](Self::receive) later.
pub trait Engine {
    /// The available models.
    fn models(&self) -> Vec<Choice>;

    /// Sends a request.
    fn send(&mut self, request: Request);

    /// The next update, if there is one.
    fn receive(&mut self) -> Option<Update>;
}

/// An available model.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The name by which it is loaded.
    pub name: String,
    /// Whether it is known to be on this machine.
    pub is_here: bool,
}

/// The settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Frames per second of video.
    pub fps: f64,
    /// The share of visual tokens to keep; `None` lets SharpV decide.
    pub keep: Option<f32>,
    /// The similarity `M` below which a layer's visual tokens are evicted; `None` evicts as much as leaves answers
    /// unchanged.
    pub threshold: Option<f32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { fps: 2.0, keep: None, threshold: None }
    }
}

/// A request of the window.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Let the user choose a video: [`Update::Picked`].
    Pick,
    /// Load a model. Downloads it first if necessary.
    Load(String),
    /// Show the frames that will be taken, and their cost.
    Plan(PathBuf, Settings),
    /// Ask about a video. Encodes it first if necessary.
    Ask(PathBuf, Settings, String),
    /// Stop the current work. Of a question, only [`Update::Stopped`] follows.
    Stop,
}

/// The progress of the current work.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What the work is.
    pub what: &'static str,
    /// From 0 to 1.
    pub done: f32,
}

/// What a video will cost, before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    pub frames: usize,
    /// Visual tokens before pruning.
    pub visual_tokens: usize,
    /// The most visual tokens that are kept.
    pub kept: usize,
    /// The largest size of the KV cache, in bytes.
    pub kv: u64,
    /// Free memory for it, in bytes, if known.
    pub free: Option<u64>,
    pub fits: bool,
    /// What does not fit, and what is done about it.
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

/// The visual tokens of a frame, or of frames that the encoder merges.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The time of its first frame.
    pub time_s: f64,
    pub total: usize,
    /// Indices of the kept tokens, ascending, row by row from the top left.
    pub kept: Vec<u32>,
}

/// An update for the window.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// A video was chosen.
    Picked(PathBuf),
    /// The model of this name is loaded.
    Loaded(String),
    Progress(Progress),
    /// The frames that are taken of a video.
    Images(PathBuf, Vec<Image>),
    /// What a video would cost, and the settings of the plan.
    Planned(PathBuf, Settings, Cost),
    /// The kept tokens of its frames.
    Kept(Vec<Slice>),
    /// The next piece of the answer.
    Text(String),
    /// The answer is complete; a line about its cost.
    Answered(String),
    /// A message.
    Note(String),
    /// Something other than the request failed.
    Trouble(String),
    /// The request was stopped.
    Stopped,
    /// The request failed.
    Failed(String),
}
