//! DivPrune: tokens that are as different from each other as possible.

use super::copied::{Copied, distance_square};
use crate::prune::method::{Algorithm, Pruner};
use crate::prune::{Decision, PruneParams, SliceDecision, SliceView, budget};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU32, Ordering};

/// Share of the tokens that is kept without a budget: the authors' own.
const KEPT: f64 = 0.098;

/// See [`DIVPRUNE`](super::DIVPRUNE).
pub(super) struct DivPrune;

impl Algorithm for DivPrune {
    fn name(&self) -> &'static str {
        "divprune"
    }

    fn pruner(&self, params: &PruneParams) -> Box<dyn Pruner> {
        Box::new(DivPruner { params: params.clone(), slices: Vec::new() })
    }

    fn scores_tokens(&self) -> bool {
        false
    }
}

/// Chooses among the tokens of all slices together.
struct DivPruner {
    params: PruneParams,
    /// Tokens as unit vectors.
    slices: Vec<Copied>,
}

impl Pruner for DivPruner {
    fn push(&mut self, slice: SliceView<'_>) {
        self.slices.push(units(&slice));
    }

    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        let slices: Vec<Copied> = slices.par_iter().map(units).collect();
        self.slices.extend(slices);
    }

    fn finish(self: Box<Self>) -> Decision {
        let n_tokens = self.slices.iter().map(|slice| slice.n_tokens).sum();
        let own = ((KEPT * n_tokens as f64).round_ties_even() as usize).max(1);
        let rows: Vec<&[f32]> = self.slices.iter().flat_map(Copied::rows).collect();
        let mut chosen = vec![false; rows.len()];
        most_diverse(&rows, budget::total(&self.params, n_tokens, own)).into_iter().for_each(|i| chosen[i] = true);

        let mut chosen = chosen.into_iter();
        let decide = |slice: &Copied| {
            let here = slice.usable.iter().zip(chosen.by_ref());
            let kept = here.filter_map(|(&index, chosen)| chosen.then_some(index)).collect();
            SliceDecision { kept, n_tokens: slice.n_tokens, ratio: KEPT as f32, importance: None }
        };
        let slices = self.slices.iter().map(decide).collect();
        Decision { slices, non_finite: self.slices.iter().map(Copied::n_non_finite).sum() }
    }
}

fn units(slice: &SliceView<'_>) -> Copied {
    Copied::new(slice, |data, row, inv_norm| data.extend(row.iter().map(|x| x * inv_norm)))
}

/// `1 − cos` of unit vectors, as bits that sort as integers: no distance is negative.
fn distance(a: &[f32], b: &[f32]) -> u32 {
    ((distance_square(a, b) / 2.0).min(2.0) as f32).to_bits()
}

const FAR: u32 = f32::INFINITY.to_bits();

/// Rows that are updated together. With more, more work may turn out to be needless; fewer would not pay for threads.
const BATCH: usize = 32;

/// `k` of the rows: the [`seed`], and then repeatedly the row that is farthest from all chosen ones, on a tie the
/// first.
///
/// A row's distance to the chosen ones only falls as more are chosen, so an earlier distance is an upper bound. Rows
/// wait in a heap by that bound. Only those on top are updated, until a row that is up to date stays on top: the result
/// equals that of comparing every row with every chosen one, for a fraction of the work.
fn most_diverse(rows: &[&[f32]], k: usize) -> Vec<usize> {
    let k = k.min(rows.len());
    if k == rows.len() || k == 0 {
        return (0..k).collect();
    }
    let seed = seed(rows);
    let mut chosen = vec![seed];
    let bounds: Vec<u32> = rows.par_iter().map(|row| distance(row, rows[seed])).collect();
    let others = bounds.into_iter().enumerate().filter(|&(i, _)| i != seed);
    let mut heap: BinaryHeap<(u32, Reverse<usize>)> = others.map(|(i, bound)| (bound, Reverse(i))).collect();
    // The number of chosen rows that each row was compared with.
    let mut compared = vec![1; rows.len()];
    while chosen.len() < k {
        let up_to_date = |&(_, Reverse(i)): &(u32, Reverse<usize>)| compared[i] == chosen.len();
        if heap.peek().is_some_and(up_to_date) {
            chosen.extend(heap.pop().map(|(_, Reverse(i))| i));
            continue;
        }
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH && heap.peek().is_some_and(|top| !up_to_date(top)) {
            batch.extend(heap.pop().map(|(bound, Reverse(i))| (bound, i, compared[i])));
        }
        let rest = heap.peek().copied();
        batch.par_iter_mut().with_min_len(4).for_each(|(bound, i, compared)| {
            while *compared < chosen.len() && rest.is_none_or(|rest| (*bound, Reverse(*i)) > rest) {
                *bound = (*bound).min(distance(rows[*i], rows[chosen[*compared]]));
                *compared += 1;
            }
        });
        for (bound, i, n) in batch {
            compared[i] = n;
            heap.push((bound, Reverse(i)));
        }
    }
    chosen
}

/// The row whose nearest neighbor is farthest, on a tie the first.
///
/// A row is abandoned as soon as it has a neighbor closer than the nearest neighbor of another row. Neighbors are tried
/// from near to far in the video, because near ones are the most likely. A distance updates both rows of the pair. The
/// result does not depend on the order of threads: the row that is sought is never abandoned, since no bound of it is
/// under the best.
fn seed(rows: &[&[f32]]) -> usize {
    let bounds: Vec<AtomicU32> = rows.iter().map(|_| AtomicU32::new(FAR)).collect();
    let best = AtomicU32::new(0);
    let beaten = |i: usize| bounds[i].load(Ordering::Relaxed) < best.load(Ordering::Relaxed);
    let nearest = |i: usize| {
        let mut nearest = FAR;
        for j in outwards(i, rows.len()) {
            if beaten(i) {
                return None;
            }
            let distance = distance(rows[i], rows[j]);
            nearest = nearest.min(distance);
            bounds[i].fetch_min(distance, Ordering::Relaxed);
            bounds[j].fetch_min(distance, Ordering::Relaxed);
        }
        best.fetch_max(nearest, Ordering::Relaxed);
        Some((nearest, Reverse(i)))
    };
    (0..rows.len()).into_par_iter().filter_map(nearest).max().map_or(0, |(_, Reverse(i))| i)
}

/// `0..n` without `i`, from near to far.
fn outwards(i: usize, n: usize) -> impl Iterator<Item = usize> {
    (1..n).flat_map(move |step| [i.checked_sub(step), Some(i + step).filter(|&j| j < n)]).flatten()
}
