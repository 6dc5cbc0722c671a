//! VidCom²: the tokens that stand out from their slice and from the video, more of slices that stand out.

use super::copied::{Copied, distance_square};
use crate::prune::budget::{self, Demand};
use crate::prune::method::{Algorithm, Pruner};
use crate::prune::score::SliceScore;
use crate::prune::select::top;
use crate::prune::vector::inverse_norm;
use crate::prune::{Budget, Decision, PruneParams, SliceView};
use rayon::prelude::*;

/// Share of the tokens that is kept without a budget: `R` of the paper's main results.
const KEPT: f64 = 0.25;

/// Temperature of the softmax over slices.
const TEMPERATURE: f64 = 0.01;

/// The greatest similarity to a center: 1 for each `α`.
const MOST_SIMILAR: f64 = 5.0;

/// See [`VIDCOM2`](super::VIDCOM2).
pub(super) struct VidCom2;

impl Algorithm for VidCom2 {
    fn name(&self) -> &'static str {
        "vidcom2"
    }

    fn pruner(&self, params: &PruneParams) -> Box<dyn Pruner> {
        Box::new(VidCom2Pruner { params: params.clone(), slices: Vec::new() })
    }
}

/// Chooses when it has all slices: which channels count depends on the whole video.
struct VidCom2Pruner {
    params: PruneParams,
    slices: Vec<Slice>,
}

struct Slice {
    copied: Copied,
    /// Sum of the usable tokens, by channel.
    sum: Vec<f64>,
    /// Sum of their squares.
    squares: Vec<f64>,
}

impl VidCom2Pruner {
    fn demand(&self, slice: &SliceScore, weight: f64) -> Demand {
        let (n_tokens, usable) = (slice.n_tokens(), slice.n_usable());
        let own = match self.params.budget {
            Budget::Threshold(k) => slice.n_over(k),
            _ => ((slice.ratio * n_tokens as f64).round_ties_even() as usize).max(1),
        };
        Demand { n_tokens, usable, own: own.min(usable), weight: weight * n_tokens as f64, least: usable.min(1) }
    }
}

impl Pruner for VidCom2Pruner {
    fn push(&mut self, slice: SliceView<'_>) {
        self.slices.push(Slice::new(&slice));
    }

    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        let slices: Vec<Slice> = slices.par_iter().map(Slice::new).collect();
        self.slices.extend(slices);
    }

    fn finish(mut self: Box<Self>) -> Decision {
        let mut slices = std::mem::take(&mut self.slices);
        let videos = slices.chunk_by_mut(|_, next| !next.copied.starts_video);
        let (scores, weights): (Vec<SliceScore>, Vec<f64>) = videos.flat_map(score_video).unzip();
        let demands: Vec<Demand> =
            scores.iter().zip(weights).map(|(slice, weight)| self.demand(slice, weight)).collect();
        let counts = budget::counts(&self.params, &demands);
        let kept = scores.iter().zip(counts).map(|(slice, count)| top(slice, count)).collect();
        Decision::new(scores, kept)
    }
}

impl Slice {
    fn new(slice: &SliceView<'_>) -> Self {
        let copied = Copied::new(slice, |data, row, _| data.extend_from_slice(row));
        let (mut sum, mut squares) = (vec![0.0; slice.n_embd()], vec![0.0; slice.n_embd()]);
        // Rows that are added to the sums together, so that these are loaded and stored once for all of them.
        let mut blocks = copied.data.chunks_exact(4 * slice.n_embd());
        for block in blocks.by_ref() {
            let rows: Vec<&[f32]> = block.chunks_exact(slice.n_embd()).collect();
            let [a, b, c, d] = rows[..] else { continue };
            let sums = sum.iter_mut().zip(&mut squares);
            for (((((sum, square), &a), &b), &c), &d) in sums.zip(a).zip(b).zip(c).zip(d) {
                let [a, b, c, d] = [a, b, c, d].map(f64::from);
                *sum += (a + b) + (c + d);
                *square += (a * a + b * b) + (c * c + d * d);
            }
        }
        for row in blocks.remainder().chunks_exact(slice.n_embd()) {
            for ((sum, square), &x) in sum.iter_mut().zip(&mut squares).zip(row) {
                let x = f64::from(x);
                *sum += x;
                *square += x * x;
            }
        }
        Self { copied, sum, squares }
    }
}

/// The scores of the slices of one video, each with its weight in a total: `1 + softmax − mean of softmax`.
fn score_video(slices: &mut [Slice]) -> Vec<(SliceScore, f64)> {
    let channels = steady_channels(slices);
    let units: Vec<Units> = slices.par_iter_mut().map(|slice| Units::new(&mut slice.copied, &channels)).collect();
    let n: usize = units.iter().map(|units| units.n).sum();
    let video_center = center(channels.len(), units.iter().map(|units| &units.sum), n);
    let similar: Vec<Similar> = units.par_iter().map(|units| units.compare(&video_center)).collect();
    let weights = weights(&similar);
    let score = |((slice, similar), weight): ((&mut Slice, Similar), f64)| {
        let mut importance = vec![0.0; slice.copied.n_tokens];
        for (&index, both) in slice.copied.usable.iter().zip(&similar.both) {
            importance[index as usize] = (1.0 - both / (2.0 * MOST_SIMILAR)) as f32;
        }
        let usable = &slice.copied.usable;
        let all = 0..slice.copied.n_tokens as u32;
        let non_finite: Vec<u32> = all.filter(|index| usable.binary_search(index).is_err()).collect();
        let ratio = (KEPT * weight).min(1.0);
        (SliceScore { importance, ratio, first: false, barred: non_finite.clone(), non_finite }, weight)
    };
    slices.iter_mut().zip(similar).zip(weights).map(score).collect()
}

/// The half of the channels that varies least over all tokens, ascending; on a tie, the first.
fn steady_channels(slices: &[Slice]) -> Vec<usize> {
    let n_embd = slices.first().map_or(0, |slice| slice.copied.n_embd);
    let n = slices.iter().map(|slice| slice.copied.usable.len()).sum::<usize>().max(1) as f64;
    let variance = |channel: usize| {
        let mean = |sums: fn(&Slice) -> &[f64]| slices.iter().map(|slice| sums(slice)[channel]).sum::<f64>() / n;
        mean(|slice| &slice.squares) - mean(|slice| &slice.sum).powi(2)
    };
    let mut channels: Vec<(f64, usize)> = (0..n_embd).map(|channel| (variance(channel), channel)).collect();
    channels.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut channels: Vec<usize> = channels.into_iter().map(|(_, channel)| channel).collect();
    channels.truncate((n_embd / 2).max(1));
    channels.sort_unstable();
    channels
}

/// The tokens of a slice in the channels that count, as unit vectors.
struct Units {
    data: Vec<f32>,
    width: usize,
    n: usize,
    sum: Vec<f64>,
}

/// How similar the tokens of a slice are to the centers.
struct Similar {
    /// To the center of the video plus that of the slice, for each usable token.
    both: Vec<f64>,
    /// To the center of the video, the mean over the tokens; `None` without tokens.
    mean_to_video: Option<f64>,
}

impl Units {
    /// Takes the tokens of `slice`, and reuses its memory.
    fn new(slice: &mut Copied, channels: &[usize]) -> Self {
        let (width, n) = (channels.len(), slice.usable.len());
        let mut data = std::mem::take(&mut slice.data);
        let mut sum = vec![0.0; width];
        let mut unit = vec![0.0; width];
        for token in 0..n {
            let row = &data[token * slice.n_embd..][..slice.n_embd];
            for (x, &channel) in unit.iter_mut().zip(channels) {
                *x = row[channel];
            }
            // Part of a finite row is finite.
            let inv_norm = inverse_norm(&unit).unwrap_or(0.0);
            for (x, sum) in unit.iter_mut().zip(&mut sum) {
                *x *= inv_norm;
                *sum += f64::from(*x);
            }
            // A token has become shorter, so this overwrites no row that is still to be read.
            data[token * width..][..width].copy_from_slice(&unit);
        }
        data.truncate(n * width);
        Self { data, width, n, sum }
    }

    fn compare(&self, video: &[f32]) -> Similar {
        let own = center(self.width, [&self.sum].into_iter(), self.n);
        let rows = self.data.chunks_exact(self.width.max(1));
        let to_video: Vec<f64> = rows.clone().map(|row| similarity(row, video)).collect();
        let both = rows.zip(&to_video).map(|(row, to_video)| to_video + similarity(row, &own)).collect();
        let mean_to_video = (self.n > 0).then(|| to_video.iter().sum::<f64>() / self.n as f64);
        Similar { both, mean_to_video }
    }
}

fn center<'a>(width: usize, sums: impl Iterator<Item = &'a Vec<f64>>, n: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    for sum in sums {
        total.iter_mut().zip(sum).for_each(|(total, x)| *total += x);
    }
    total.into_iter().map(|x| (x / n.max(1) as f64) as f32).collect()
}

/// `Σ_α exp(−‖x − c‖²/(2α))` over `α = 2⁻³ … 2¹`. Each exponential is the square of that of twice its `α`.
fn similarity(x: &[f32], center: &[f32]) -> f64 {
    let mut term = (-distance_square(x, center) / 4.0).exp();
    let mut sum = term;
    for _ in 0..4 {
        term *= term;
        sum += term;
    }
    sum
}

/// The weight of each slice, 1 on average: more for the slices least similar to the video, 0 for those without tokens.
fn weights(slices: &[Similar]) -> Vec<f64> {
    let means = slices.iter().filter_map(|slice| slice.mean_to_video);
    let least = means.clone().fold(f64::INFINITY, f64::min);
    let raise = |mean: f64| ((least - mean) / TEMPERATURE).exp();
    let (n, total) = means.fold((0_usize, 0.0), |(n, total), mean| (n + 1, total + raise(mean)));
    let weight = |mean: f64| 1.0 + raise(mean) / total - 1.0 / n as f64;
    slices.iter().map(|slice| slice.mean_to_video.map_or(0.0, weight)).collect()
}
