//! Control: whole slices, evenly spaced, up to the total that SharpV keeps.

use super::spread;
use crate::prune::method::{Algorithm, Pruner};
use crate::prune::score::SliceScore;
use crate::prune::sharpv::Scores;
use crate::prune::{Decision, PruneParams, SliceView};

/// See [`UNIFORM`](super::UNIFORM).
pub(super) struct Uniform;

impl Algorithm for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn pruner(&self, params: &PruneParams) -> Box<dyn Pruner> {
        Box::new(UniformPruner { scores: Scores::new(params) })
    }
}

/// Subsamples slices instead of tokens.
struct UniformPruner {
    scores: Scores,
}

impl Pruner for UniformPruner {
    fn push(&mut self, slice: SliceView<'_>) {
        self.scores.push(slice);
    }

    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        self.scores.push_all(slices);
    }

    fn finish(self: Box<Self>) -> Decision {
        self.scores.decide(|slices, counts| choose(slices, counts.iter().sum()))
    }
}

/// The fewest evenly spaced slices that hold `total` usable tokens; the excess is cut from the last ones.
fn choose(slices: &[SliceScore], total: usize) -> Vec<Vec<u32>> {
    let mut kept = vec![Vec::new(); slices.len()];
    let holds = |places: &[usize]| places.iter().map(|&place| slices[place].n_usable()).sum::<usize>() >= total;
    let Some(places) = (0..=slices.len()).map(|m| spread(m, slices.len())).find(|places| holds(places)) else {
        return kept;
    };
    let mut left = total;
    for place in places {
        let usable = slices[place].usable();
        let count = usable.len().min(left);
        kept[place] = spread(count, usable.len()).into_iter().map(|i| usable[i]).collect();
        left -= count;
    }
    kept
}
