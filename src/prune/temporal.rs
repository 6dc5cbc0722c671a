//! How much each token differs from the one in the same cell of an earlier slice: what EVS and DyCoke score.

use rayon::prelude::*;

use super::SliceView;
use super::previous::Previous;
use super::score::SliceScore;
use super::vector::{dissim, inverse_norm};

/// Importance of a token that there is nothing to compare with: as far from it as anything can be.
pub(super) const NEW: f32 = 2.0;

/// The inverse norm of each token of a slice.
type Norms = Vec<Option<f32>>;

/// How many slices before it the slice is that a slice is compared with, by its place in a run of slices of one video
/// and one size. 0: it is compared with none.
pub(super) type Reference = fn(place: usize) -> usize;

/// Scores `1 − cos`, in `[0, 2]`, which is `dissim²/2`. In slices that are compared with none, and where the earlier
/// token is not finite, tokens score [`NEW`].
pub(super) struct Temporal {
    reference: Reference,
    /// Copies of the last slices, the last one last.
    recent: Vec<Previous<Norms>>,
    /// How many `reference` may look back.
    depth: usize,
    /// Of the last slice in its run.
    place: usize,
    /// The slices so far; their `ratio` is left to the method.
    pub slices: Vec<SliceScore>,
}

impl Temporal {
    /// `depth` is the most that `reference` gives.
    pub fn new(reference: Reference, depth: usize) -> Self {
        Self { reference, recent: Vec::new(), depth, place: 0, slices: Vec::new() }
    }

    /// Scores the next slice.
    pub fn push(&mut self, slice: SliceView<'_>) {
        let norms = norms(&slice);
        let back = self.step(self.recent.last().map(Previous::n_tokens), &slice);
        let score = compare(&slice, &norms, self.copy(back));
        self.slices.push(score);
        self.remember(&slice, norms);
    }

    /// Scores the next slices, in parallel.
    pub fn push_all(&mut self, slices: &[SliceView<'_>]) {
        let all_norms: Vec<Norms> = slices.par_iter().map(norms).collect();
        let mut before = self.recent.last().map(Previous::n_tokens);
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

    /// Takes the place of the next slice, the one before it having so many tokens; returns how far back it looks.
    fn step(&mut self, before: Option<usize>, slice: &SliceView<'_>) -> usize {
        let continues = !slice.starts_video() && before == Some(slice.n_tokens());
        self.place = if continues { self.place + 1 } else { 0 };
        (self.reference)(self.place)
    }

    /// The copy of the slice that was `back` slices before the next one.
    fn copy(&self, back: usize) -> Option<(SliceView<'_>, &Norms)> {
        let copy = self.recent.len().checked_sub(back).and_then(|place| self.recent.get(place))?;
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
