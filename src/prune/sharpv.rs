//! Visual SharpV.

use super::budget::{self, Demand};
use super::cover::{Cover, Scenes, top_and_cover};
use super::method::{Algorithm, Pruner};
use super::previous::Previous;
use super::score::{Rows, SliceScore, SliceScores, Spread, score};
use super::select::top;
use super::{Budget, Decision, PruneParams, SliceView};
use crate::error::Result;
use rayon::prelude::*;

pub(super) const NAME: &str = "sharpv";
pub(super) const PAPER_NAME: &str = "sharpv-paper";

/// With covers.
pub(super) struct SharpV;

impl Algorithm for SharpV {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pruner(&self, params: &PruneParams) -> Box<dyn Pruner> {
        Box::new(SharpVPruner { scores: Scores::new(params) })
    }

    fn is_causal(&self) -> bool {
        true
    }

    fn keeps_covers(&self) -> bool {
        true
    }
}

/// As in the paper.
pub(super) struct PaperSharpV;

impl Algorithm for PaperSharpV {
    fn name(&self) -> &'static str {
        PAPER_NAME
    }

    fn pruner(&self, params: &PruneParams) -> Box<dyn Pruner> {
        Box::new(SharpVPruner { scores: Scores::new(params) })
    }

    fn is_causal(&self) -> bool {
        true
    }

    fn needs_exact_embeddings(&self) -> bool {
        true
    }
}

/// Keeps the tokens of highest importance, and covers if [`PruneParams::covers`].
struct SharpVPruner {
    scores: Scores,
}

impl Pruner for SharpVPruner {
    fn push(&mut self, slice: SliceView<'_>) {
        self.scores.push(slice);
    }

    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        self.scores.push_all(slices);
    }

    fn finish(mut self: Box<Self>) -> Decision {
        if !self.scores.params.covers() {
            return self.scores.decide(|slices, counts| slices.iter().zip(counts).map(|(s, &k)| top(s, k)).collect());
        }
        let covers = std::mem::take(&mut self.scores.covers);
        self.scores.decide(|slices, counts| top_and_cover(slices, counts, &covers))
    }
}

/// SharpV's scores of slices as they arrive, for a caller that has to choose before it has all of them.
pub struct RunningScores {
    scores: Scores,
}

impl RunningScores {
    /// Scores for one video.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter), see [`PruneParams::validate`].
    pub fn new(params: &PruneParams) -> Result<Self> {
        params.validate()?;
        Ok(Self { scores: Scores::new(params) })
    }

    /// Scores the next slice.
    pub fn push(&mut self, slice: SliceView<'_>) -> SliceScores<'_> {
        self.scores.push_alone(slice);
        let covers = self.scores.params.covers();
        let Scores { slices, covers: found, last, .. } = &self.scores;
        let (Some(slice), Some(cover), Some(spread)) = (slices.first(), found.first(), last) else {
            return SliceScores { first: true, ..SliceScores::default() };
        };
        SliceScores {
            importance: &slice.importance,
            spatial: &spread.spatial,
            temporal: &spread.temporal,
            ratio: slice.ratio,
            first: slice.first,
            opens_scene: cover.opens_scene,
            typical: cover.typical.filter(|_| covers && cover.opens_scene),
        }
    }
}

impl std::fmt::Debug for RunningScores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningScores").finish_non_exhaustive()
    }
}

/// SharpV's scores of all slices so far. A method that keeps as many tokens as SharpV uses them too.
pub(crate) struct Scores {
    params: PruneParams,
    slices: Vec<SliceScore>,
    /// One for each of `slices`.
    covers: Vec<Cover>,
    scenes: Scenes,
    previous: Option<Previous<Rows>>,
    /// That of the last slice.
    last: Option<Spread>,
}

impl std::fmt::Debug for Scores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scores").finish_non_exhaustive()
    }
}

impl Scores {
    pub fn new(params: &PruneParams) -> Self {
        Self {
            params: params.clone(),
            slices: Vec::new(),
            covers: Vec::new(),
            scenes: Scenes::default(),
            previous: None,
            last: None,
        }
    }

    /// Scores the next slice.
    pub fn push(&mut self, slice: SliceView<'_>) {
        let rows = Rows::measure(&slice);
        let score = self.score_after_previous(&slice, &rows);
        self.add(&rows, score);
        self.remember(&slice, rows);
    }

    /// Scores the next slice, and drops the scores of the previous ones.
    fn push_alone(&mut self, slice: SliceView<'_>) {
        self.slices.clear();
        self.covers.clear();
        self.push(slice);
    }

    /// As [`push_alone`](Self::push_alone), and returns the scores.
    pub(super) fn next(&mut self, slice: SliceView<'_>) -> Option<(SliceScore, Cover, &Spread)> {
        self.push_alone(slice);
        Some((self.slices.pop()?, self.covers.pop()?, self.last.as_ref()?))
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
        let rest: Vec<Option<(SliceScore, Spread)>> = rest.collect();
        for (rows, score) in rows.iter().zip(std::iter::once(first).chain(rest.into_iter().flatten())) {
            self.add(rows, score);
        }
        if let Some(rows) = rows.pop() {
            self.remember(last, rows);
        }
    }

    /// Turns the scores into a decision. `choose` is passed the scores and, for each slice, SharpV's number of kept
    /// tokens; it returns the kept indices of each slice, ascending.
    pub fn decide(self, choose: impl FnOnce(&[SliceScore], &[usize]) -> Vec<Vec<u32>>) -> Decision {
        let demands: Vec<Demand> = self.slices.iter().map(|slice| self.demand(slice)).collect();
        let kept = choose(&self.slices, &budget::counts(&self.params, &demands));
        Decision::new(self.slices, kept)
    }

    fn demand(&self, slice: &SliceScore) -> Demand {
        let (n_tokens, usable) = (slice.n_tokens(), slice.n_usable());
        let least = if slice.first { self.params.min_keep.min(usable) } else { 0 };
        let weight = slice.ratio * n_tokens as f64;
        let own = match self.params.budget {
            Budget::Threshold(k) => slice.n_over(k),
            _ => weight.ceil() as usize,
        };
        Demand { n_tokens, usable, own: own.clamp(least, usable), weight, least }
    }

    fn add(&mut self, rows: &Rows, (slice, spread): (SliceScore, Spread)) {
        self.covers.push(self.scenes.next(rows, &slice, &spread));
        self.slices.push(slice);
        self.last = Some(spread);
    }

    fn score_after_previous(&self, slice: &SliceView<'_>, rows: &Rows) -> (SliceScore, Spread) {
        let view = self.previous.as_ref().and_then(Previous::view);
        let previous = view.as_ref().zip(self.previous.as_ref()).map(|(view, previous)| (view, &previous.rows));
        score(slice, rows, previous, self.params.spatial_weight)
    }

    fn remember(&mut self, slice: &SliceView<'_>, rows: Rows) {
        self.previous = Some(Previous::new(slice, rows, self.previous.take()));
    }
}
