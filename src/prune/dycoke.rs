//! DyCoke's token temporal merging: in windows of four slices, tokens that repeat an earlier slice of the window go.

use super::budget::{self, Claim};
use super::score::SliceScore;
use super::select::{spread, top};
use super::temporal::Temporal;
use super::{Budget, Decision, PruneParams, Pruner, SliceView};

/// The slice that each slice of a window is compared with: the third with the first, the second and the fourth with
/// the one before; the first with none.
const WINDOW: [usize; 4] = [0, 1, 2, 1];

/// Share of a slice's tokens that goes where no budget is given: `k` of the paper.
const PRUNED: f64 = 0.7;

/// Keeps the first slice of each window whole, and as many tokens of each other one.
pub(super) struct DyCoke {
    params: PruneParams,
    scores: Temporal,
}

impl DyCoke {
    pub fn new(params: &PruneParams) -> Self {
        Self { params: params.clone(), scores: Temporal::new(|place| WINDOW[place % WINDOW.len()], 2) }
    }

    /// First slices come first, in proportion to their size where a total is too small for them. The others have no
    /// weight: what a total leaves is shared among them in proportion to their size.
    fn claim(&self, slice: &SliceScore) -> Claim {
        let (n_tokens, usable) = (slice.n_tokens(), slice.n_usable());
        if slice.first {
            return Claim { n_tokens, usable, own: usable, weight: usable as f64, least: usable };
        }
        let own = match self.params.budget {
            Budget::Threshold(k) => slice.n_over(k),
            _ => ((1.0 - PRUNED) * n_tokens as f64) as usize,
        };
        Claim { n_tokens, usable, own: own.min(usable), weight: 0.0, least: 0 }
    }
}

impl Pruner for DyCoke {
    fn push(&mut self, slice: SliceView<'_>) {
        self.scores.push(slice);
    }

    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        self.scores.push_all(slices);
    }

    fn finish(mut self: Box<Self>) -> Decision {
        let claims: Vec<Claim> = self.scores.slices.iter().map(|slice| self.claim(slice)).collect();
        let counts = budget::counts(&self.params, &claims);
        let kept = self.scores.slices.iter().zip(counts).map(|(slice, count)| choose(slice, count)).collect();
        for slice in &mut self.scores.slices {
            slice.ratio = if slice.first { 1.0 } else { 1.0 - PRUNED };
        }
        Decision::new(self.scores.slices, kept)
    }
}

/// In a slice that is compared with none all tokens are equal: a part of it is an even one.
fn choose(slice: &SliceScore, count: usize) -> Vec<u32> {
    if !slice.first {
        return top(slice, count);
    }
    let usable = slice.usable();
    spread(count.min(usable.len()), usable.len()).into_iter().map(|place| usable[place]).collect()
}
