//! What pruning decided.

use serde::Serialize;

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
    /// Adaptive retention ratio `r_t`, 0 to 1, before any budget scales it. 1 with
    /// [`Method::Off`](super::Method::Off).
    pub ratio: f32,
    /// SharpV's importance of each token: `[n_tokens]`. `None` with [`Method::Off`](super::Method::Off), which
    /// scores nothing.
    pub importance: Option<Vec<f32>>,
}
