//! DyCoke's token temporal merging: in windows of four slices, tokens that repeat an earlier slice are dropped.

use super::spread;
use super::temporal::Temporal;
use crate::prune::budget::{self, Demand};
use crate::prune::method::{Algorithm, Pruner};
use crate::prune::score::SliceScore;
use crate::prune::select::top;
use crate::prune::{Budget, Decision, PruneParams, SliceView};

/// How far before it the slice is that each slice of a window is compared with: the third is compared with the first,
/// the second and the fourth with the previous one, the first with none.
const WINDOW: [usize; 4] = [0, 1, 2, 1];

/// Share of a slice's tokens that is dropped without a budget: `k` of the paper.
const PRUNED: f64 = 0.7;

/// See [`DYCOKE`](super::DYCOKE).
pub(super) struct DyCoke;

impl Algorithm for DyCoke {
    fn name(&self) -> &'static str {
        "dycoke"
    }

    fn pruner(&self, params: &PruneParams) -> Box<dyn Pruner> {
        let scores = Temporal::new(|index| WINDOW[index % WINDOW.len()], 2);
        Box::new(DyCokePruner { params: params.clone(), scores })
    }
}

/// Keeps the first slice of each window whole, and as many tokens of each other slice.
struct DyCokePruner {
    params: PruneParams,
    scores: Temporal,
}

impl DyCokePruner {
    /// First slices get tokens first, in proportion to their size if a total is too small for them. The others have no
    /// weight: what a total leaves is shared among them in proportion to their size.
    fn demand(&self, slice: &SliceScore) -> Demand {
        let (n_tokens, usable) = (slice.n_tokens(), slice.n_usable());
        if slice.first {
            return Demand { n_tokens, usable, own: usable, weight: usable as f64, least: usable };
        }
        let own = match self.params.budget {
            Budget::Threshold(k) => slice.n_over(k),
            _ => ((1.0 - PRUNED) * n_tokens as f64) as usize,
        };
        Demand { n_tokens, usable, own: own.min(usable), weight: 0.0, least: 0 }
    }
}

impl Pruner for DyCokePruner {
    fn push(&mut self, slice: SliceView<'_>) {
        self.scores.push(slice);
    }

    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        self.scores.push_all(slices);
    }

    fn finish(mut self: Box<Self>) -> Decision {
        let demands: Vec<Demand> = self.scores.slices.iter().map(|slice| self.demand(slice)).collect();
        let counts = budget::counts(&self.params, &demands);
        let kept = self.scores.slices.iter().zip(counts).map(|(slice, count)| choose(slice, count)).collect();
        for slice in &mut self.scores.slices {
            slice.ratio = if slice.first { 1.0 } else { 1.0 - PRUNED };
        }
        Decision::new(self.scores.slices, kept)
    }
}

/// The tokens of highest importance. In a slice that is compared with none all are equally important: evenly spaced
/// ones.
fn choose(slice: &SliceScore, count: usize) -> Vec<u32> {
    if !slice.first {
        return top(slice, count);
    }
    let usable = slice.usable();
    spread(count.min(usable.len()), usable.len()).into_iter().map(|place| usable[place]).collect()
}
