//! Visual SharpV, and the part of it that its controls share.

use rayon::prelude::*;

use super::score::{Rows, SliceScore, score};
use super::select::top;
use super::{Decision, PruneParams, Pruner, SliceDecision, SliceView, budget};

/// Keeps the tokens of highest importance.
pub(super) struct SharpV {
    scores: Scores,
}

impl SharpV {
    pub fn new(params: &PruneParams) -> Self {
        Self { scores: Scores::new(params) }
    }
}

impl Pruner for SharpV {
    fn push(&mut self, slice: SliceView<'_>) {
        self.scores.push(slice);
    }

    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        self.scores.push_all(slices);
    }

    fn finish(self: Box<Self>) -> Decision {
        self.scores.decide(|slices, counts| slices.iter().zip(counts).map(|(slice, &k)| top(slice, k)).collect())
    }
}

/// SharpV's scores of all slices so far. A control method that must match SharpV's counts holds one of these too.
pub(super) struct Scores {
    params: PruneParams,
    slices: Vec<SliceScore>,
    previous: Option<Previous>,
}

/// A copy of the last slice, to compare the next one with.
struct Previous {
    data: Vec<f32>,
    n_tokens: usize,
    n_embd: usize,
    rows: Rows,
}

impl Previous {
    fn view(&self) -> Option<SliceView<'_>> {
        SliceView::new(&self.data, self.n_tokens, self.n_embd).ok()
    }
}

impl Scores {
    pub fn new(params: &PruneParams) -> Self {
        Self { params: params.clone(), slices: Vec::new(), previous: None }
    }

    /// Scores the next slice.
    pub fn push(&mut self, slice: SliceView<'_>) {
        let rows = Rows::measure(&slice);
        self.slices.push(self.score_after_previous(&slice, &rows));
        self.remember(&slice, rows);
    }

    /// Scores the next slices, in parallel.
    pub fn push_all(&mut self, slices: &[SliceView<'_>]) {
        let mut rows: Vec<Rows> = slices.par_iter().map(Rows::measure).collect();
        let (Some(first), Some(last), Some(first_rows)) = (slices.first(), slices.last(), rows.first()) else { return };
        let first = self.score_after_previous(first, first_rows);
        let weight = self.params.spatial_weight;
        let rest = slices.par_windows(2).zip(rows.par_windows(2)).map(|(slices, rows)| {
            let ([previous, slice], [previous_rows, rows]) = (slices, rows) else { return None };
            Some(score(slice, rows, Some((previous, previous_rows)), weight))
        });
        let rest: Vec<Option<SliceScore>> = rest.collect();
        self.slices.push(first);
        self.slices.extend(rest.into_iter().flatten());
        if let Some(rows) = rows.pop() {
            self.remember(last, rows);
        }
    }

    /// Turns the scores into a decision: `choose` gets them with SharpV's number of kept tokens a slice, and
    /// returns kept indices a slice, ascending.
    pub fn decide(self, choose: impl FnOnce(&[SliceScore], &[usize]) -> Vec<Vec<u32>>) -> Decision {
        let counts = budget::counts(&self.params, &self.slices);
        let kept = choose(&self.slices, &counts);
        let non_finite = self.slices.iter().map(|slice| slice.non_finite.len()).sum();
        let slices = self.slices.into_iter().zip(kept).map(|(slice, kept)| SliceDecision {
            kept,
            n_tokens: slice.n_tokens(),
            ratio: slice.ratio as f32,
            importance: Some(slice.importance),
        });
        Decision { slices: slices.collect(), non_finite }
    }

    fn score_after_previous(&self, slice: &SliceView<'_>, rows: &Rows) -> SliceScore {
        let view = self.previous.as_ref().and_then(Previous::view);
        let previous = view.as_ref().zip(self.previous.as_ref()).map(|(view, previous)| (view, &previous.rows));
        score(slice, rows, previous, self.params.spatial_weight)
    }

    fn remember(&mut self, slice: &SliceView<'_>, rows: Rows) {
        // The buffer of the slice before serves again.
        let mut data = self.previous.take().map(|previous| previous.data).unwrap_or_default();
        data.clear();
        data.reserve(slice.n_tokens() * slice.n_embd());
        slice.rows().for_each(|row| data.extend_from_slice(row));
        self.previous = Some(Previous { data, n_tokens: slice.n_tokens(), n_embd: slice.n_embd(), rows });
    }
}
