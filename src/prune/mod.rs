//! Visual token pruning before the LLM: embeddings in, kept indices out.
//!
//! The methods here see only the embeddings that leave the projector, one *slice* (a frame, or a merged pair of
//! frames) after the other, and name the tokens of each slice that the LLM gets to see. Kept tokens keep their
//! original positions; this module never renumbers anything.
//!
//! # Visual SharpV
//! From "Sharp Eyes and Memory for VideoLLMs" (arXiv 2511.08003). With `x̂ = x/‖x‖` and `n` tokens a slice:
//!
//! | | |
//! |---|---|
//! | dissimilarity | `dissim(a, b) = ‖â − b̂‖ = sqrt(2 − 2·cos(a, b))`, in `[0, 2]` |
//! | spatial importance | `S_t[i] = dissim(x_t[i], mean_j x_t[j])` |
//! | temporal importance | `T_t[i] = dissim(x_t[i], x_{t−1}[i])`: same grid cell, previous slice, unpruned |
//! | importance | `I = T + w·S`; first slice: `I = S` |
//! | retention ratio | `r_t = RMS(T_t)/2`; first slice: `RMS(S_1)/2` |
//! | scene (ours) | opens at a first slice, and where `dissim(mean x_t, mean x_a) > RMS(S_t)`; `a` opened the last one |
//! | cover (ours) | the token of lowest `S`, in the first slice of a scene that keeps at least two tokens |
//!
//! Slice `t` keeps its `ceil(r_t·n)` tokens of highest `I`; of equals the one of lower index. Published notes of
//! the paper call `r_t` a threshold. As a cut-off for `I` it would prune almost nothing; read as a ratio it gives
//! the retention that the paper reports. [`Budget`] lists the other ways to turn importance into a selection.
//!
//! The cover takes the place of the last of its slice's tokens, unless it is one of them, so that as many are kept as
//! without it. It stands for what importance leaves out: what fills an image is near to its mean and to the slice
//! before, so that nothing of it is kept where few tokens are. A scene lasts as long as the means of its slices are no
//! farther from the first one than the tokens of a slice are from their own mean. [`Method::SharpVPaper`] is the
//! paper's own, without covers; [`Budget::Threshold`] has none either.
//!
//! # Other methods
//! What SharpV is compared with, each from its formula on the same embeddings. A budget or a cap means to them what it
//! means to SharpV: the same total, met exactly. `1 − cos` is computed as `dissim²/2`.
//!
//! | | importance | keeps without a budget |
//! |---|---|---|
//! | EVS (arXiv 2510.14624) | `1 − cos` with the same cell of the previous slice; 2 in a first slice | first slices whole, and the best of the video up to 25 % |
//! | VidCom² (arXiv 2505.14454) | `1 − (g(x, video) + g(x, slice))/10` | `0.25·(1 + p_t − mean p)` of slice `t`, at least one token |
//! | DyCoke TTM (arXiv 2411.15024) | `1 − cos` with an earlier slice of its window; 2 in a first slice | first slices whole, 30 % of others |
//! | DivPrune (arXiv 2503.02175) | none | 9.8 % of the video |
//!
//! - **EVS** ranks the tokens of all slices together. It follows the authors' released code in comparing embeddings.
//! - **VidCom²** looks at the half of the channels that varies least over the video, as unit vectors.
//!   `g(x, c) = Σ_α exp(−‖x − c‖²/(2α))`, `α = 2⁻³ … 2¹`, is a token's similarity to the mean `c` of the video or of
//!   its slice; `p` is the softmax over slices of `−mean g(x, video)/0.01`. A total is shared in proportion to the
//!   ratios.
//! - **DyCoke**'s window is four slices: the second is compared with the first, the third with the first, the fourth
//!   with the third. Only the first stage of DyCoke is here; its second works in the KV cache. What a total leaves
//!   after the first slices is shared evenly among the others.
//! - **DivPrune** takes the token whose nearest neighbour is farthest, and then again and again the one that is
//!   farthest from all those taken. It chooses among the tokens of all slices together, as its authors do.
//!
//! To EVS and DyCoke a *first slice* is one that is compared with none. Where a total is too small for first slices,
//! evenly spaced tokens of them are kept, and nothing else. VidCom² and DivPrune keep a copy of all embeddings until
//! the end, so that they need twice the memory of the video's embeddings; others keep one slice, or DyCoke two.
//! DivPrune's time grows with the number of tokens times that of those kept, and for the first one up to its square
//! (less the more tokens are alike); that of others with the number of tokens.
//!
//! # Special cases
//! - **First slice**: the first of a video, one whose size differs from the slice before it, and one that shares no
//!   usable token with the slice before it. None of them has a temporal term. [`PruneParams::min_keep`] holds for
//!   these only, so a slice that equals the one before it costs nothing. EVS and DyCoke count the last kind as a slice
//!   like any other: each token is new to them.
//! - **Cover that may not be kept**: the nearest to the mean of those that may, if its `S` is no higher than `RMS(S)`.
//!   Otherwise the next slice of the scene is asked.
//! - **Token without a direction** (norm under 1e-30): `dissim` is 0 to another such token, 1 to any other.
//! - **Non-finite token** (NaN or infinity in its row, or a norm over 1e30): it would poison the LLM's whole context,
//!   so every method but [`Method::Off`] drops it. It takes no part in the mean of its slice, its importance is 0, the
//!   cell has no temporal term in the next slice (to EVS and DyCoke it is new: 2), and [`Decision::non_finite`] counts
//!   it. All other tokens score as if it were absent.
//! - **No slices** give an empty [`Decision`].
//!
//! Results do not depend on the number of threads, nor on whether slices come at once ([`prune`]) or one by one
//! ([`Scorer`]).
//!
//! # Example
//! ```
//! use sharpv::prune::{PruneParams, SliceView, prune};
//!
//! let still = [1.0, 0.0, 0.0, 1.0_f32]; // two tokens of two floats
//! let moved = [1.0, 0.0, -1.0, 0.0_f32]; // the second token has changed
//! let slices = [SliceView::new(&still, 2, 2)?, SliceView::new(&still, 2, 2)?, SliceView::new(&moved, 2, 2)?];
//! let decision = prune(&PruneParams::default(), &slices)?;
//! assert!(decision.slices[1].kept.is_empty()); // nothing new
//! assert_eq!(decision.slices[2].kept, [1]);
//! # Ok::<(), sharpv::Error>(())
//! ```

#![forbid(unsafe_code)]

mod budget;
mod causal;
mod copied;
mod cover;
mod decision;
mod divprune;
mod dycoke;
mod evs;
mod off;
mod params;
mod previous;
mod random;
mod score;
mod scorer;
mod select;
mod sharpv;
mod slice;
mod temporal;
mod uniform;
mod vector;
mod vidcom2;

pub use causal::{CausalChoice, CausalPruner};
pub use decision::{Decision, SliceDecision};
pub use params::{Budget, DEFAULT_THRESHOLD, Method, PruneParams};
pub use score::SliceScores;
pub use scorer::Scorer;
pub use sharpv::RunningScores;
pub use slice::SliceView;

use crate::error::Result;

/// Chooses the tokens to keep of one video, all its slices at hand. Scores slices in parallel on rayon's current
/// thread pool.
///
/// # Errors
/// [`Error::InvalidParameter`](crate::Error::InvalidParameter) when `params` are out of range, and
/// [`Error::SliceShape`](crate::Error::SliceShape) when slices differ in `n_embd`.
pub fn prune(params: &PruneParams, slices: &[SliceView<'_>]) -> Result<Decision> {
    let mut scorer = Scorer::new(params)?;
    scorer.push_all(slices)?;
    Ok(scorer.finish())
}

/// One pruning method at work on one video.
///
/// A method sees slices in order and may keep of them what it needs. Shapes were checked by [`Scorer`].
trait Pruner: Send {
    /// Takes the next slice.
    fn push(&mut self, slice: SliceView<'_>);

    /// Takes several slices; a method that can score them in parallel does it here. Must equal [`push`](Self::push)
    /// one by one.
    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        for &slice in slices {
            self.push(slice);
        }
    }

    /// Decides, all slices seen.
    fn finish(self: Box<Self>) -> Decision;
}

impl Method {
    /// The one place that knows which code a method's name stands for.
    fn pruner(self, params: &PruneParams) -> Box<dyn Pruner> {
        match self {
            Self::Off => Box::<off::Off>::default(),
            Self::SharpV | Self::SharpVPaper => Box::new(sharpv::SharpV::new(params)),
            Self::Random => Box::new(random::Random::new(params)),
            Self::Uniform => Box::new(uniform::Uniform::new(params)),
            Self::Evs => Box::new(evs::Evs::new(params)),
            Self::VidCom2 => Box::new(vidcom2::VidCom2::new(params)),
            Self::DyCoke => Box::new(dycoke::DyCoke::new(params)),
            Self::DivPrune => Box::new(divprune::DivPrune::new(params)),
        }
    }
}
