//! SharpV's scores of a slice: importance of each token and retention ratio.
//!
//! Each embedding is read twice. The first pass ([`Rows::measure`]) computes the norms and the mean; the norms are used
//! again when the next slice is compared with this one. The second pass ([`score`]) computes the dissimilarities.
//!
//! Sums over tokens run in f64.

use super::SliceView;
use super::vector::{dissim, inverse_norm};

/// SharpV's scores of one slice.
#[derive(Debug, Clone, Copy, Default)]
pub struct SliceScores<'a> {
    /// Importance of each token, 0 for one that is not finite.
    pub importance: &'a [f32],
    /// Spatial importance of each token, `S`; `None` for one that is not finite.
    pub spatial: &'a [Option<f64>],
    /// Temporal importance, `T`; empty in a first slice.
    pub temporal: &'a [Option<f64>],
    /// The adaptive ratio `r_t`, 0 to 1.
    pub ratio: f64,
    /// Whether it is a first slice.
    pub first: bool,
    /// Whether a scene begins with it.
    pub opens_scene: bool,
    /// The candidate for the cover; only if a scene begins here.
    pub typical: Option<u32>,
}

/// The first pass over a slice.
pub(crate) struct Rows {
    /// `1/‖x‖` of each token: 0 without a direction, `None` when not finite.
    inv_norms: Vec<Option<f32>>,
    /// Mean over the finite tokens: `[n_embd]`.
    mean: Vec<f32>,
}

/// The scores of one slice, of any method that gives tokens an importance.
pub(crate) struct SliceScore {
    /// `[n_tokens]`, 0 for non-finite tokens.
    pub importance: Vec<f32>,
    /// Share of the slice that the method keeps without a budget, 0 to 1: SharpV's `r_t`.
    pub ratio: f64,
    /// Whether there was no slice to compare with.
    pub first: bool,
    /// Indices of non-finite tokens, ascending; almost always empty.
    pub non_finite: Vec<u32>,
    /// Indices of all tokens that may not be kept, ascending: non-finite and unfinished ones.
    pub barred: Vec<u32>,
}

impl SliceScore {
    pub fn n_tokens(&self) -> usize {
        self.importance.len()
    }

    /// Tokens that may be kept.
    pub fn n_usable(&self) -> usize {
        self.n_tokens() - self.barred.len()
    }

    /// Usable tokens of an importance over `k`, where `k ≥ 0`.
    pub fn n_over(&self, k: f32) -> usize {
        let is_over = |index: &u32| self.importance.get(*index as usize).is_some_and(|&importance| importance > k);
        (0..self.n_tokens() as u32).filter(is_over).count() - self.barred.iter().filter(|index| is_over(index)).count()
    }

    /// Indices of the tokens that may be kept, ascending.
    pub fn usable(&self) -> Vec<u32> {
        let all = 0..self.n_tokens() as u32;
        if self.barred.is_empty() {
            return all.collect();
        }
        all.filter(|index| self.barred.binary_search(index).is_err()).collect()
    }
}

/// How the tokens of a slice are spread around their mean.
pub(crate) struct Spread {
    /// `RMS(S)`; `None` if no token is finite.
    pub rms: Option<f64>,
    /// The usable token closest to the mean, on a tie the first one. `None` if closer tokens may not be kept and this
    /// one is far from the mean for a token of this slice.
    pub typical: Option<u32>,
    /// `S` of each token; `None` for non-finite ones.
    pub spatial: Vec<Option<f64>>,
    /// `T`; empty in a first slice.
    pub temporal: Vec<Option<f64>>,
}

impl Rows {
    /// First pass over a slice.
    pub fn measure(slice: &SliceView<'_>) -> Self {
        /// Rows that are added to the sum together, so that it is loaded and stored once for all of them.
        const BLOCK: usize = 4;

        let mut inv_norms = Vec::with_capacity(slice.n_tokens());
        // In f64, so that the mean of equal tokens is exactly that token.
        let mut sum = vec![0.0_f64; slice.n_embd()];
        let mut block: [&[f32]; BLOCK] = [&[]; BLOCK];
        let mut filled = 0;
        for row in slice.rows() {
            let inv_norm = inverse_norm(row);
            inv_norms.push(inv_norm);
            if inv_norm.is_some() {
                block[filled] = row;
                filled += 1;
            }
            if filled == BLOCK {
                let [a, b, c, d] = block;
                for ((((sum, &a), &b), &c), &d) in sum.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    *sum += (f64::from(a) + f64::from(b)) + (f64::from(c) + f64::from(d));
                }
                filled = 0;
            }
        }
        for row in &block[..filled] {
            for (sum, &x) in sum.iter_mut().zip(*row) {
                *sum += f64::from(x);
            }
        }
        let n = inv_norms.iter().flatten().count().max(1) as f64;
        Self { inv_norms, mean: sum.into_iter().map(|sum| (sum / n) as f32).collect() }
    }

    /// Mean over the finite tokens: `[n_embd]`.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }
}

/// The second pass over a slice. `rows` is its first pass; `previous` is the previous slice, if any, with its own.
pub(crate) fn score(
    slice: &SliceView<'_>,
    rows: &Rows,
    previous: Option<(&SliceView<'_>, &Rows)>,
    spatial_weight: f32,
) -> (SliceScore, Spread) {
    let spatial = spatial(slice, rows);
    let temporal = previous
        .filter(|(previous, _)| !slice.starts_video() && previous.n_tokens() == slice.n_tokens())
        .map(|(previous, previous_rows)| temporal(slice, rows, previous, previous_rows))
        // Two slices may have no pair of finite tokens.
        .and_then(|temporal| Some((half_rms(&temporal)?, temporal)));

    let w = f64::from(spatial_weight);
    let (ratio, importance) = match &temporal {
        Some((ratio, temporal)) => {
            let sum = |(s, t): (&Option<f64>, &Option<f64>)| t.unwrap_or(0.0) + w * s.unwrap_or(0.0);
            (*ratio, spatial.iter().zip(temporal).map(sum).map(|i| i as f32).collect())
        }
        None => {
            let importance = spatial.iter().map(|s| s.unwrap_or(0.0) as f32).collect();
            (half_rms(&spatial).unwrap_or(0.0), importance)
        }
    };
    let non_finite: Vec<u32> = (0..).zip(&rows.inv_norms).filter_map(|(i, norm)| norm.is_none().then_some(i)).collect();
    let barred = barred(slice, &non_finite);
    let (rms, typical) = spread(&spatial, &barred);
    let slice = SliceScore { importance, ratio, first: temporal.is_none(), non_finite, barred };
    let temporal = temporal.map_or_else(Vec::new, |(_, temporal)| temporal);
    (slice, Spread { rms, typical, spatial, temporal })
}

/// [`Spread::rms`] and [`Spread::typical`], from `S_t`.
fn spread(spatial: &[Option<f64>], barred: &[u32]) -> (Option<f64>, Option<u32>) {
    let finite = || (0..).zip(spatial).filter_map(|(i, s)| Some((i, (*s)?)));
    let rms = half_rms(spatial).map(|half| 2.0 * half);
    // If all tokens are equally far, rounding may put their root mean square below that distance.
    let near = nearest(finite()).map_or(0.0, |(_, least)| least).max(rms.unwrap_or(0.0));
    let usable = finite().filter(|(i, _)| barred.binary_search(i).is_err());
    let typical = nearest(usable).and_then(|(i, distance)| (distance <= near).then_some(i));
    (rms, typical)
}

/// The token of least distance, on a tie the first one.
fn nearest(tokens: impl Iterator<Item = (u32, f64)>) -> Option<(u32, f64)> {
    tokens.min_by(|(_, a), (_, b)| a.total_cmp(b))
}

/// The tokens of `slice` that may not be kept, ascending.
pub(crate) fn barred(slice: &SliceView<'_>, non_finite: &[u32]) -> Vec<u32> {
    let mut barred = [slice.unfinished(), non_finite].concat();
    barred.sort_unstable();
    barred.dedup();
    barred.retain(|&index| (index as usize) < slice.n_tokens());
    barred
}

/// `S_t`; `None` for non-finite tokens.
fn spatial(slice: &SliceView<'_>, rows: &Rows) -> Vec<Option<f64>> {
    // The mean of finite tokens within range is itself finite and within range.
    let inv_mean = inverse_norm(&rows.mean).unwrap_or(0.0);
    let dissim = |(row, &inv_norm): (&[f32], &Option<f32>)| Some(dissim(row, inv_norm?, &rows.mean, inv_mean));
    slice.rows().zip(&rows.inv_norms).map(dissim).collect()
}

/// `T_t`; `None` for grid cells that are not finite in both slices.
fn temporal(slice: &SliceView<'_>, rows: &Rows, previous: &SliceView<'_>, previous_rows: &Rows) -> Vec<Option<f64>> {
    let current = slice.rows().zip(&rows.inv_norms);
    let previous = previous.rows().zip(&previous_rows.inv_norms);
    current.zip(previous).map(|((a, &inv_a), (b, &inv_b))| Some(dissim(a, inv_a?, b, inv_b?))).collect()
}

/// `‖v‖₂ / (2·sqrt(n))` over the `n` values that are not `None`, at most 1; `None` if there are none.
fn half_rms(values: &[Option<f64>]) -> Option<f64> {
    let (n, sum) = values.iter().flatten().fold((0_usize, 0.0), |(n, sum), v| (n + 1, sum + v * v));
    (n > 0).then(|| ((sum / n as f64).sqrt() / 2.0).min(1.0))
}
