//! Visual SharpV slice by slice, for live video.

use super::cover::top_and_cover;
use super::score::{SliceScore, barred};
use super::sharpv::Scores;
use super::{Budget, PruneParams, SliceView};
use crate::error::{Error, Result};

/// Chooses the tokens of each slice when it arrives, from that slice and the previous ones alone.
///
/// The scores are those of [SharpV](super). Without a budget, so is the choice: of each slice the same tokens are kept
/// that [`Scorer`](super::Scorer) keeps of it. A share of all tokens ([`Budget::Keep`]) cannot be met exactly before
/// the end: slice `t` gets `r_t · share / r̄` of its tokens, where `r̄` is a running mean of the ratios, this one
/// included: `r̄ ← r̄ + (r_t − r̄) / min(t, 16)`.
///
/// The tokens of a *key slice* are chosen without regard to the previous slices, which may no longer be in the cache:
/// by their spatial importance, as in a first slice. Of a slice that equals the previous one nothing is kept, key slice
/// or not.
#[derive(Debug)]
pub struct CausalPruner {
    params: PruneParams,
    scores: Scores,
    width: Option<usize>,
    /// Whether a scene has begun of which no slice has kept enough tokens for a cover.
    is_cover_due: bool,
    /// `r̄`.
    mean_ratio: f64,
    n_slices: u32,
}

/// Slices that the running mean of the ratios is over, about.
const MEMORY: u32 = 16;

/// The kept tokens of a slice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CausalChoice {
    /// Indices of the kept tokens within the slice, ascending (grid order).
    pub kept: Vec<u32>,
    /// How much of the slice is new, 0 to 1: SharpV's ratio `r_t`, also of a key slice and without pruning. In the
    /// very first slice, how much its tokens differ from each other.
    pub novelty: f32,
    /// Whether a scene begins with it, as with the very first slice.
    pub opens_scene: bool,
    /// Tokens dropped because their embedding is not finite.
    pub non_finite: usize,
}

impl CausalPruner {
    /// For one video.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`], see [`PruneParams::validate`]; also for a method that chooses from the whole video,
    /// and for a number of tokens, which live video would use up sooner or later.
    pub fn new(params: &PruneParams) -> Result<Self> {
        params.validate()?;
        if params.method.prunes() && !params.method.is_causal() {
            return Err(Error::InvalidParameter {
                name: "the pruning method",
                value: params.method.name().into(),
                expected: "sharpv, sharpv-paper or off for live video: other methods choose after its end".into(),
            });
        }
        if let (Budget::MaxTokens(n), _) | (_, Some(n)) = (params.budget, params.cap) {
            return Err(Error::InvalidParameter {
                name: "the maximum of visual tokens",
                value: n.to_string(),
                expected: "left out for live video: its memory has a limit of its own".into(),
            });
        }
        let scores = Scores::new(params);
        Ok(Self { params: params.clone(), scores, width: None, is_cover_due: false, mean_ratio: 0.0, n_slices: 0 })
    }

    /// Chooses the tokens to keep of the next slice. `key` makes it a key slice.
    ///
    /// # Errors
    /// [`Error::SliceShape`] when `n_embd` differs from that of the previous slices.
    pub fn push(&mut self, slice: SliceView<'_>, key: bool) -> Result<CausalChoice> {
        let expected = *self.width.get_or_insert(slice.n_embd());
        if slice.n_embd() != expected {
            return Err(Error::SliceShape {
                what: "embedding width (n_embd)",
                expected: format!("{expected}, as in the slices before"),
                got: slice.n_embd(),
            });
        }
        let scored = self.scores.next(slice);
        let Some((score, cover, spread)) = scored else { return Ok(CausalChoice::default()) };
        let novelty = score.ratio;
        self.n_slices = (self.n_slices + 1).min(MEMORY);
        self.mean_ratio += (novelty - self.mean_ratio) / f64::from(self.n_slices);
        let opens_scene = cover.opens_scene;
        let non_finite = score.non_finite.len();
        let choice = |kept| CausalChoice { kept, novelty: novelty as f32, opens_scene, non_finite };
        if !self.params.method.prunes() {
            return Ok(CausalChoice { non_finite: 0, ..choice((0..slice.n_tokens() as u32).collect()) });
        }
        let score = match key && !score.first && novelty > 0.0 {
            true => SliceScore {
                importance: spread.spatial.iter().map(|s| s.unwrap_or(0.0) as f32).collect(),
                ratio: spread.rms.unwrap_or(0.0) / 2.0,
                first: true,
                barred: barred(&slice, &score.non_finite),
                non_finite: score.non_finite.clone(),
            },
            false => score,
        };
        let count = self.count(&score);
        if !self.params.covers() {
            return Ok(choice(super::select::top(&score, count)));
        }
        let mut cover = cover;
        cover.opens_scene |= self.is_cover_due || key;
        // As in `top_and_cover`: a slice that keeps a single token leaves the cover to the next slice.
        self.is_cover_due = cover.opens_scene && !(cover.typical.is_some() && count >= super::cover::LEAST);
        let kept = top_and_cover(std::slice::from_ref(&score), &[count], &[cover]);
        Ok(choice(kept.into_iter().next().unwrap_or_default()))
    }

    /// The number of kept tokens.
    fn count(&self, score: &SliceScore) -> usize {
        let n = score.n_tokens() as f64;
        let wanted = match self.params.budget {
            Budget::Threshold(k) => score.n_over(k),
            Budget::Keep(share) => {
                let factor = if self.mean_ratio > 0.0 { f64::from(share) / self.mean_ratio } else { 0.0 };
                (score.ratio * factor * n).round() as usize
            }
            Budget::Adaptive | Budget::MaxTokens(_) => (score.ratio * n).ceil() as usize,
        };
        let least = if score.first { self.params.min_keep.min(score.n_usable()) } else { 0 };
        wanted.clamp(least, score.n_usable())
    }
}
