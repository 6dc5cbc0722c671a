//! Chooses the tokens that go through all layers of the vision encoder.

use super::Stop;
use crate::prune::{Budget, PruneParams, SliceScores};

/// Estimates how many tokens of each slice will be kept, before the later slices are known.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    budget: Budget,
    min_keep: usize,
    /// The planned number of slices in the video.
    n_slices: usize,
    /// The sum of the keep ratios of the slices so far, without first slices.
    later: f64,
    n_later: usize,
}

impl Demand {
    /// For a video of `n_slices` slices.
    pub fn new(prune: &PruneParams, n_slices: usize) -> Self {
        Self { budget: prune.budget, min_keep: prune.min_keep, n_slices: n_slices.max(1), later: 0.0, n_later: 0 }
    }

    /// An estimate of the tokens of the next slice that will be kept.
    ///
    /// If the budget is a total, a slice gets an even share, or its own demand if that is larger. The own demand is
    /// scaled down if the slices so far demand more than an even share on average. A first slice is not scaled down,
    /// because it needs more tokens than later ones.
    pub fn of(&mut self, scores: &SliceScores<'_>) -> usize {
        let n = scores.importance.len();
        let own = scores.ratio * n as f64;
        if !scores.first {
            self.later += scores.ratio;
            self.n_later += 1;
        }
        let of_total = |even: f64| {
            let usual = if scores.first { 0.0 } else { self.later / self.n_later as f64 * n as f64 };
            let scale = if usual > even { even / usual } else { 1.0 };
            (own * scale).max(even).ceil() as usize
        };
        let kept = match self.budget {
            Budget::Threshold(k) => scores.importance.iter().filter(|&&importance| importance > k).count(),
            Budget::Keep(share) => of_total(f64::from(share * n as f32)),
            Budget::MaxTokens(total) => of_total(total as f64 / self.n_slices as f64),
            Budget::Adaptive => own.ceil() as usize,
        };
        kept.max(if scores.first { self.min_keep } else { 0 }).min(n)
    }
}

/// The indices, ascending, of the tokens that go through all layers: the most important of the `changed` tokens
/// (ascending), and the typical token of a scene. `kept` is how many tokens will be kept; [`Stop::multiple`] and
/// [`Stop::least`] say how many go on.
pub fn candidates(stop: &Stop, scores: &SliceScores<'_>, changed: &[u32], kept: usize) -> Vec<u32> {
    let n = scores.importance.len() as f32;
    let count = (kept as f32 * stop.multiple).max(n * stop.least).ceil() as usize;
    let mut tokens = changed.to_vec();
    if count < tokens.len() {
        let importance = |token: u32| scores.importance.get(token as usize).copied().unwrap_or(0.0);
        tokens.sort_by(|&a, &b| importance(b).total_cmp(&importance(a)).then(a.cmp(&b)));
        let (_, dropped) = tokens.split_at(count);
        let typical = scores.typical.filter(|token| kept > 0 && dropped.contains(token));
        tokens.truncate(count);
        tokens.extend(typical);
        tokens.sort_unstable();
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(importance: &[f32], ratio: f64, first: bool) -> SliceScores<'_> {
        SliceScores { importance, ratio, first, ..SliceScores::default() }
    }

    #[test]
    fn the_most_important_changed_tokens_go_on() {
        let scores = scores(&[0.1, 0.9, 0.5, 0.9, 0.8], 0.2, false);
        let stop = Stop { multiple: 2.0, least: 0.0, ..Stop::default() };
        assert_eq!(candidates(&stop, &scores, &[0, 2, 3, 4], 1), [3, 4]);
        assert_eq!(candidates(&stop, &scores, &[0, 2, 3, 4], 2), [0, 2, 3, 4]);
        assert_eq!(candidates(&stop, &scores, &[0, 1, 3], 1), [1, 3]);
        assert!(candidates(&stop, &scores, &[0, 1], 0).is_empty());
        let typical = SliceScores { typical: Some(0), ..scores };
        assert_eq!(candidates(&stop, &typical, &[0, 2, 3, 4], 1), [0, 3, 4]);
        assert_eq!(candidates(&stop, &typical, &[2, 3, 4], 1), [3, 4], "it did not change");
        assert!(candidates(&stop, &typical, &[0, 1], 0).is_empty());
        let least = Stop { least: 0.5, ..stop };
        assert_eq!(candidates(&least, &scores, &[0, 1, 2, 3, 4], 0), [1, 3, 4]);
    }

    #[test]
    fn demand_follows_the_budget() {
        let importance = [1.0; 10];
        let kept = |budget, ratios: &[f64]| {
            let mut demand = Demand::new(&PruneParams { budget, ..PruneParams::default() }, 4);
            let slices = ratios.iter().enumerate().map(|(i, &ratio)| scores(&importance, ratio, i == 0));
            slices.map(|slice| demand.of(&slice)).collect::<Vec<_>>()
        };
        assert_eq!(kept(Budget::Adaptive, &[0.0, 0.31, 0.0]), [1, 4, 0]);
        assert_eq!(kept(Budget::Keep(0.2), &[0.4, 0.1, 0.2]), [4, 2, 2]);
        // The slices demand twice the budget, then three times; a slice that demands more than others gets more.
        assert_eq!(kept(Budget::Keep(0.2), &[0.4, 0.4, 0.8]), [4, 2, 3]);
        assert_eq!(kept(Budget::MaxTokens(8), &[0.3, 0.0]), [3, 2]);
        assert_eq!(kept(Budget::Threshold(0.5), &[0.2, 0.0]), [10, 10]);
    }
}
