//! Makes a video fit the model's positions, the context and memory, before a frame is encoded.
//!
//! [`needed`] counts what a video needs in the prompt, and [`available`] the memory that there is. [`proposal`] reduces
//! the video if that is not enough, and [`plan`] reports the result to programs.

mod available;
mod capacity;
mod limits;
mod needed;
mod plan;
mod proposal;

pub(in crate::chat) use available::Available;
pub(in crate::chat) use capacity::Capacity;
pub(in crate::chat) use limits::Limits;
pub use needed::Need;
pub use plan::{MemoryNeed, Suggestions, VideoPlan};

use limits::{ANSWER_RESERVE, Shortage};

use super::conversation::Conversation;
use super::engine::Engine;
use super::prompt::PromptParams;
use crate::prune::PruneParams;
use crate::runtime::CancelToken;
use crate::skip::EncodeParams;

/// Tokens that are reserved for a question that is not known yet.
const QUESTION: usize = 32;

/// The parameters that decide whether a video fits: a part of [`SessionParams`](super::SessionParams).
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct FitParams<'a> {
    /// Reduce a video that does not fit, where the user did not request a number.
    pub fit: bool,
    /// Cells of the context, if the user set them.
    pub n_ctx: Option<usize>,
    pub n_predict: usize,
    pub prompt: PromptParams<'a>,
    pub prune: &'a PruneParams,
    pub encode: &'a EncodeParams,
    /// The number of layers that can do without visual tokens, if there is a layer profile.
    pub free_layers: Option<usize>,
    pub cancel: &'a CancelToken,
}

/// Fits a video into a conversation and the available memory.
#[derive(Debug)]
pub(in crate::chat) struct Fit<'a> {
    pub engine: &'a Engine,
    pub conversation: &'a Conversation,
    pub params: FitParams<'a>,
    pub available: Available<'a>,
}

impl Fit<'_> {
    /// The ubatch size that a video needs, if that is more than the user's.
    pub fn raised_ubatch(&self, need: &Need) -> Option<usize> {
        Some(need.at_once).filter(|&at_once| at_once > self.available.n_ubatch(0))
    }
}
