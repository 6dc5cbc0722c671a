//! The result of pruning.

use serde::Serialize;

use super::score::SliceScore;

/// The kept tokens of all slices.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Decision {
    /// One entry for each slice, in order.
    pub slices: Vec<SliceDecision>,
    /// Tokens dropped because their embedding is not finite. More than 0 means that the encoder is broken, or that its
    /// precision is too low. [`Method::OFF`](super::Method::OFF) does not read embeddings, so it reports 0.
    pub non_finite: usize,
}

impl Decision {
    /// For scored slices, and the tokens that are kept of each.
    pub(crate) fn new(slices: Vec<SliceScore>, kept: Vec<Vec<u32>>) -> Self {
        let non_finite = slices.iter().map(|slice| slice.non_finite.len()).sum();
        let slices = slices.into_iter().zip(kept).map(|(slice, kept)| SliceDecision {
            kept,
            n_tokens: slice.n_tokens(),
            ratio: slice.ratio as f32,
            importance: Some(slice.importance),
        });
        Self { slices: slices.collect(), non_finite }
    }

    /// Visual tokens before pruning.
    pub fn total(&self) -> usize {
        self.slices.iter().map(|slice| slice.n_tokens).sum()
    }

    /// Visual tokens kept.
    pub fn kept(&self) -> usize {
        self.slices.iter().map(|slice| slice.kept.len()).sum()
    }

    /// Share of visual tokens kept, 0 to 1; 1 when there were none.
    pub fn keep_ratio(&self) -> f64 {
        match self.total() {
            0 => 1.0,
            total => self.kept() as f64 / total as f64,
        }
    }
}

/// The kept tokens of one slice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SliceDecision {
    /// Indices of the kept tokens within the slice, ascending (grid order).
    pub kept: Vec<u32>,
    /// Tokens of the slice before pruning.
    pub n_tokens: usize,
    /// Share of the slice that the method keeps with [`Budget::Adaptive`](super::Budget::Adaptive), 0 to 1: SharpV's
    /// ratio `r_t`, before rounding.
    pub ratio: f32,
    /// The method's importance of each token: `[n_tokens]`, 0 for a token that is not finite. `None` if the method
    /// gives tokens no importance, as [`Method::OFF`](super::Method::OFF).
    pub importance: Option<Vec<f32>>,
}
