//! Fitting a video to what there is: the model's positions, the context, memory. All before a frame of it is encoded.
//!
//! [`needed`] is what a video takes of the prompt, [`available`] what there is of memory, [`proposal`] what is done where
//! that is not enough, and [`plan`] what a program is told of it.

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

use limits::{ANSWER_ROOM, Shortage};

use super::conversation::Conversation;
use super::engine::Engine;
use super::prompt::Tokenization;
use crate::prune::PruneParams;
use crate::runtime::CancelToken;
use crate::skip::EncodeParams;

/// Tokens of a question that is not asked yet.
const QUESTION: usize = 32;

/// What decides whether a video fits, as [`SessionParams`](super::SessionParams) have it.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct FitParams<'a> {
    /// Take less where a video does not fit and nothing else was asked for.
    pub fit: bool,
    /// Cells of the context, if the user fixed them.
    pub n_ctx: Option<usize>,
    pub n_predict: usize,
    pub tokenization: Tokenization,
    pub prune: &'a PruneParams,
    pub encode: &'a EncodeParams,
    /// In how many layers the model can do without visual tokens, if a profile says so.
    pub free_layers: Option<usize>,
    pub cancel: &'a CancelToken,
}

/// A conversation that a video is to be added to, and what there is for it.
#[derive(Debug)]
pub(in crate::chat) struct Fit<'a> {
    pub engine: &'a Engine,
    pub conversation: &'a Conversation,
    pub params: FitParams<'a>,
    pub available: Available<'a>,
}

impl Fit<'_> {
    /// Rows that are computed at once, where a video needs more than was asked for.
    pub fn raised_ubatch(&self, need: &Need) -> Option<usize> {
        Some(need.at_once).filter(|&at_once| at_once > self.available.n_ubatch(0))
    }
}
