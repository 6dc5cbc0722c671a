//! Visual token pruning before the language model: embeddings in, kept indices out.
//!
//! A method sees the embeddings that leave the projector, one *slice* (a frame, or a merged pair of frames) after the
//! other. It returns, for each slice, the indices of the tokens that the language model is given. Kept tokens keep
//! their original positions: this module renumbers nothing.
//!
//! # Visual SharpV
//! From "Sharp Eyes and Memory for VideoLLMs" (arXiv 2511.08003). With `x̂ = x/‖x‖` and `n` tokens in a slice:
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
//! Slice `t` keeps its `ceil(r_t·n)` tokens of highest `I`; on a tie, the token of lower index. Published notes of the
//! paper call `r_t` a threshold. As a cut-off for `I` it would prune almost nothing; as a ratio it gives the retention
//! that the paper reports. [`Budget`] lists the other ways to turn importance into a selection.
//!
//! The cover replaces the least important of the kept tokens of its slice, unless it is kept anyway. The number of kept
//! tokens stays the same. The cover represents what importance leaves out: the background of an image is close to the
//! mean and to the previous slice, so none of it is kept if few tokens are. A scene lasts as long as the mean of a
//! slice is no farther from that of the scene's first slice than the tokens of a slice are from their own mean.
//! [`Method::SHARPV_PAPER`] is the paper's own method, without covers; [`Budget::Threshold`] has none either.
//!
//! # Special cases
//! - **First slice**: the first slice of a video, a slice whose size differs from that of the previous one, and a slice
//!   that shares no usable token with the previous one. None of them has a temporal term. [`PruneParams::min_keep`]
//!   applies to first slices only, so a slice that equals the previous one costs nothing.
//! - **Cover that may not be kept**: the usable token closest to the mean replaces it, if its `S` is at most `RMS(S)`.
//!   Otherwise the next slice of the scene gets the cover.
//! - **Token without a direction** (norm under 1e-30): `dissim` is 0 to another such token, 1 to any other.
//! - **Non-finite token** (NaN or infinity in its row, or a norm over 1e30): it would poison the context of the
//!   language model, so every method but [`Method::OFF`] drops it. The mean of its slice excludes it, its importance is
//!   0, and its cell has no temporal term in the next slice. [`Decision::non_finite`] counts it. All other tokens score
//!   as if it were absent.
//! - **No slices** give an empty [`Decision`].
//!
//! Results depend neither on the number of threads, nor on whether slices are passed at once ([`prune`]) or one by one
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

pub(crate) mod budget;
mod causal;
mod cover;
mod decision;
pub(crate) mod method;
mod off;
mod params;
pub(crate) mod previous;
pub(crate) mod score;
mod scorer;
pub(crate) mod select;
pub(crate) mod sharpv;
mod slice;
pub(crate) mod vector;

pub use causal::{CausalChoice, CausalPruner};
pub use decision::{Decision, SliceDecision};
pub use method::Method;
pub use params::{Budget, DEFAULT_THRESHOLD, PruneParams};
pub use score::SliceScores;
pub use scorer::Scorer;
pub use sharpv::RunningScores;
pub use slice::SliceView;

use crate::error::Result;

/// Chooses the tokens to keep of one video whose slices are all available. Scores slices in parallel on rayon's current
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
