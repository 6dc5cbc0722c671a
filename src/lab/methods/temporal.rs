//! How much each token differs from the one in the same cell of an earlier slice: the importance in EVS and DyCoke.

use crate::prune::SliceView;
use crate::prune::previous::Previous;
use crate::prune::score::SliceScore;
use crate::prune::vector::{dissim, inverse_norm};
use rayon::prelude::*;

/// Importance of a token that cannot be compared: the greatest possible distance.
pub(super) const NEW: f32 = 2.0;

/// The inverse norm of each token of a slice.
type Norms = Vec<Option<f32>>;

/// How far before it the slice is that a slice is compared with, by its index in a run of slices of one video and one
/// size. 0: it is compared with none.
pub(super) type Reference = fn(index: usize) -> usize;

/// Scores `1 − cos`, in `[0, 2]`, which is `dissim²/2`. Tokens score [`NEW`] in slices that are compared with none, and
/// if the earlier token is not finite.
pub(super) struct Temporal {
    reference: Reference,
    /// Copies of the last slices, in order.
    recent: Vec<Previous<Norms>>,
    /// The most that `reference` returns.
    depth: usize,
    /// Index of the last slice in its run.
    index: usize,
    /// The slices so far; the method sets their `ratio`.
    pub slices: Vec<SliceScore>,
}

impl Temporal {
    /// `depth` is the most that `reference` returns.
    pub fn new(reference: Reference, depth: usize) -> Self {
        Self { reference, recent: Vec::new(), depth, index: 0, slices: Vec::new() }
    }

    /// Scores the next slice.
    pub fn push(&mut self, slice: SliceView<'_>) {
        let norms = norms(&slice);
        let back = self.step(self.recent.last().map(|last| last.rows.len()), &slice);
        let score = compare(&slice, &norms, self.copy(back));
        self.slices.push(score);
        self.remember(&slice, norms);
    }

    /// Scores the next slices, in parallel.
    pub fn push_all(&mut self, slices: &[SliceView<'_>]) {
        let all_norms: Vec<Norms> = slices.par_iter().map(norms).collect();
        let mut before = self.recent.last().map(|last| last.rows.len());
        let mut backs = Vec::with_capacity(slices.len());
        for slice in slices {
            backs.push(self.step(before, slice));
            before = Some(slice.n_tokens());
        }
        let score = |(i, &back): (usize, &usize)| {
            let reference = match i.checked_sub(back) {
                Some(_) if back == 0 => None,
                Some(earlier) => Some((slices[earlier], &all_norms[earlier])),
                None => self.copy(back - i),
            };
            compare(&slices[i], &all_norms[i], reference)
        };
        let scores: Vec<SliceScore> = backs.par_iter().enumerate().map(score).collect();
        self.slices.extend(scores);
        let needed = slices.len().saturating_sub(self.depth);
        for (slice, norms) in slices.iter().zip(all_norms).skip(needed) {
            self.remember(slice, norms);
        }
    }

    /// Advances to the next slice, where the previous one has `before` tokens; returns its [`Reference`].
    fn step(&mut self, before: Option<usize>, slice: &SliceView<'_>) -> usize {
        let continues = !slice.starts_video() && before == Some(slice.n_tokens());
        self.index = if continues { self.index + 1 } else { 0 };
        (self.reference)(self.index)
    }

    /// The copy of the slice that is `back` slices before the next one.
    fn copy(&self, back: usize) -> Option<(SliceView<'_>, &Norms)> {
        let copy = self.recent.len().checked_sub(back).and_then(|index| self.recent.get(index))?;
        Some((copy.view()?, &copy.rows))
    }

    fn remember(&mut self, slice: &SliceView<'_>, norms: Norms) {
        let old = (self.recent.len() == self.depth).then(|| self.recent.remove(0));
        self.recent.push(Previous::new(slice, norms, old));
    }
}

fn norms(slice: &SliceView<'_>) -> Norms {
    slice.rows().map(inverse_norm).collect()
}

fn compare(slice: &SliceView<'_>, norms: &Norms, reference: Option<(SliceView<'_>, &Norms)>) -> SliceScore {
    let importance = match &reference {
        Some((earlier, earlier_norms)) => {
            let pairs = slice.rows().zip(earlier.rows()).zip(norms.iter().zip(*earlier_norms));
            let importances = pairs.map(|((a, b), norms)| match norms {
                (None, _) => 0.0,
                (Some(_), None) => NEW,
                (&Some(inv_a), &Some(inv_b)) => (dissim(a, inv_a, b, inv_b).powi(2) / 2.0) as f32,
            });
            importances.collect()
        }
        None => norms.iter().map(|norm| if norm.is_some() { NEW } else { 0.0 }).collect(),
    };
    let non_finite: Vec<u32> = (0..).zip(norms).filter_map(|(i, norm)| norm.is_none().then_some(i)).collect();
    SliceScore { importance, ratio: 0.0, first: reference.is_none(), barred: non_finite.clone(), non_finite }
}
