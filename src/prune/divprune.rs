//! DivPrune: tokens that are as different from each other as can be.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::copied::Copied;
use super::vector::distance_square;
use super::{Decision, PruneParams, Pruner, SliceDecision, SliceView, budget};

/// Share of the tokens that is kept where no budget is given: the authors' own.
const KEPT: f64 = 0.098;

/// Chooses among the tokens of all slices together.
pub(super) struct DivPrune {
    params: PruneParams,
    /// Tokens as unit vectors.
    slices: Vec<Copied>,
}

impl DivPrune {
    pub fn new(params: &PruneParams) -> Self {
        Self { params: params.clone(), slices: Vec::new() }
    }
}

impl Pruner for DivPrune {
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

/// `1 − cos` of unit vectors, in a form that sorts as integers do: no distance is negative.
fn distance(a: &[f32], b: &[f32]) -> u32 {
    ((distance_square(a, b) / 2.0).min(2.0) as f32).to_bits()
}

const FAR: u32 = f32::INFINITY.to_bits();

/// Rows that are brought up to date together. More would be work that may turn out to be needless, fewer would not pay
/// for threads.
const BATCH: usize = 32;

/// `k` of the rows: the [`seed`], and then again and again the row that is farthest from all those chosen, of equals
/// the first.
///
/// A row's distance to the chosen ones only falls as more are chosen, so what was known of it earlier bounds it. Rows
/// wait in a heap by that bound, and only those on top are brought up to date, until one that is stays on top: the
/// result is the same as that of comparing every row with every chosen one, for a part of the work.
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
    // How many of the chosen ones each row was compared with.
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

/// The row whose nearest neighbour is farthest, of equals the first.
///
/// Rows are given up as soon as a neighbour shows that another row is farther from its own. Neighbours are tried from
/// near to far in the video, because those are the likely ones. What is found of one row serves the other of the pair,
/// too. None of this depends on the order of threads: the row sought is never given up, for no bound of it is under
/// the best.
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

/// All of `0..n` but `i`, from near to far.
fn outwards(i: usize, n: usize) -> impl Iterator<Item = usize> {
    (1..n).flat_map(move |step| [i.checked_sub(step), Some(i + step).filter(|&j| j < n)]).flatten()
}
