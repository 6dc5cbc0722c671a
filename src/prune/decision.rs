//! What pruning decided.

use serde::Serialize;

use super::score::SliceScore;

/// The kept tokens of all slices.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Decision {
    /// One entry a slice, in the order given.
    pub slices: Vec<SliceDecision>,
    /// Tokens dropped because their embedding is not finite. More than 0 means that the encoder is broken or its
    /// precision too low: worth a warning. [`Method::Off`](super::Method::Off) does not look, so it reports 0.
    pub non_finite: usize,
}

impl Decision {
    /// Of scored slices, `kept` are kept.
    pub(super) fn new(slices: Vec<SliceScore>, kept: Vec<Vec<u32>>) -> Self {
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
    /// Share of the slice that the method keeps when no budget is given, 0 to 1: SharpV's adaptive ratio `r_t`, before
    /// rounding; for other methods see [`Method`](super::Method). Random and uniform report SharpV's.
    pub ratio: f32,
    /// The method's importance of each token: `[n_tokens]`, 0 for a token that is not finite. Random and uniform report
    /// SharpV's. `None` with [`Method::Off`](super::Method::Off) and [`Method::DivPrune`](super::Method::DivPrune),
    /// which score no token by itself.
    pub importance: Option<Vec<f32>>,
}
