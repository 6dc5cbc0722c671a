//! EVS: the tokens of the whole video that differ most from the same cell of the previous slice.

use super::spread;
use super::temporal::{NEW, Temporal};
use crate::prune::method::{Algorithm, Pruner};
use crate::prune::{Budget, Decision, PruneParams, SliceView, budget};

/// Share of the tokens that is dropped without a budget: `q` of the paper.
const PRUNED: f64 = 0.75;

/// See [`EVS`](super::EVS).
pub(super) struct Evs;

impl Algorithm for Evs {
    fn name(&self) -> &'static str {
        "evs"
    }

    fn pruner(&self, params: &PruneParams) -> Box<dyn Pruner> {
        Box::new(EvsPruner { params: params.clone(), scores: Temporal::new(|index| index.min(1), 1) })
    }
}

/// Ranks the tokens of all slices together.
struct EvsPruner {
    params: PruneParams,
    scores: Temporal,
}

impl EvsPruner {
    /// The number of tokens that EVS keeps without a budget: all of first slices, whatever the rate.
    fn own(&self, n_tokens: usize) -> usize {
        let first: usize = self.scores.slices.iter().filter(|slice| slice.first).map(|slice| slice.n_usable()).sum();
        first.max(((1.0 - PRUNED) * n_tokens as f64) as usize)
    }
}

impl Pruner for EvsPruner {
    fn push(&mut self, slice: SliceView<'_>) {
        self.scores.push(slice);
    }

    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        self.scores.push_all(slices);
    }

    fn finish(mut self: Box<Self>) -> Decision {
        let ranking = Ranking::new(&self.scores);
        let n_tokens = self.scores.slices.iter().map(|slice| slice.n_tokens()).sum();
        let by_rate = self.own(n_tokens);
        for (slice, kept) in self.scores.slices.iter_mut().zip(ranking.best(by_rate)) {
            slice.ratio = kept.len() as f64 / slice.n_tokens() as f64;
        }
        let own = match self.params.budget {
            Budget::Threshold(k) => ranking.n_over(k),
            _ => by_rate,
        };
        let kept = ranking.best(budget::total(&self.params, n_tokens, own));
        Decision::new(self.scores.slices, kept)
    }
}

/// All usable tokens, best first. New ones come before all others, in grid order.
struct Ranking {
    tokens: Vec<Token>,
    /// The number of new ones.
    n_new: usize,
    n_slices: usize,
}

struct Token {
    importance: f32,
    slice: usize,
    index: u32,
}

impl Ranking {
    fn new(scores: &Temporal) -> Self {
        let mut tokens = Vec::new();
        for (slice, score) in scores.slices.iter().enumerate() {
            let token = |index: u32| Token { importance: score.importance[index as usize], slice, index };
            tokens.extend(score.usable().into_iter().map(token));
        }
        // Stable: on a tie the earlier token comes first.
        tokens.sort_by(|a, b| b.importance.total_cmp(&a.importance));
        let n_new = tokens.partition_point(|token| token.importance >= NEW);
        Self { tokens, n_new, n_slices: scores.slices.len() }
    }

    /// Tokens of an importance over `k`; new ones count whatever `k` is.
    fn n_over(&self, k: f32) -> usize {
        self.tokens.partition_point(|token| token.importance > k).max(self.n_new)
    }

    /// The best `n` tokens, by slice, ascending. If not even the new ones fit, evenly spaced ones of them.
    fn best(&self, n: usize) -> Vec<Vec<u32>> {
        let mut kept = vec![Vec::new(); self.n_slices];
        let mut keep = |token: &Token| kept[token.slice].push(token.index);
        if n < self.n_new {
            spread(n, self.n_new).into_iter().for_each(|place| keep(&self.tokens[place]));
        } else {
            self.tokens.iter().take(n).for_each(keep);
        }
        kept.iter_mut().for_each(|slice| slice.sort_unstable());
        kept
    }
}
