//! Control: whole slices at even distances, to the total that SharpV keeps.

use super::score::SliceScore;
use super::select::spread;
use super::sharpv::Scores;
use super::{Decision, PruneParams, Pruner, SliceView};

/// Subsamples slices instead of tokens.
pub(super) struct Uniform {
    scores: Scores,
}

impl Uniform {
    pub fn new(params: &PruneParams) -> Self {
        Self { scores: Scores::new(params) }
    }
}

impl Pruner for Uniform {
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

/// The fewest evenly spaced slices that hold `total` usable tokens; what they hold too much is cut from the last
/// ones.
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
