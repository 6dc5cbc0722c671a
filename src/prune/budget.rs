//! How many tokens of each slice are kept.

use super::score::SliceScore;
use super::{Budget, PruneParams};

/// SharpV's number of kept tokens of each slice, never more than it has usable ones.
pub(super) fn counts(params: &PruneParams, slices: &[SliceScore]) -> Vec<usize> {
    let least = |slice: &SliceScore| if slice.first { params.min_keep.min(slice.n_usable()) } else { 0 };
    let each = |count: &dyn Fn(&SliceScore) -> usize| -> Vec<usize> {
        slices.iter().map(|slice| count(slice).clamp(least(slice), slice.n_usable())).collect()
    };
    let total = slices.iter().map(SliceScore::n_tokens).sum::<usize>();
    let cap = params.cap.unwrap_or(usize::MAX);
    let within_cap = |counts: Vec<usize>| if counts.iter().sum::<usize>() > cap { Err(cap) } else { Ok(counts) };
    let wanted = match params.budget {
        Budget::Adaptive => within_cap(each(&|slice| (slice.ratio * slice.n_tokens() as f64).ceil() as usize)),
        Budget::Threshold(k) => within_cap(each(&|slice| slice.importance.iter().filter(|&&i| i > k).count())),
        Budget::Keep(share) => Err(((f64::from(share) * total as f64).round() as usize).max(1).min(cap)),
        Budget::MaxTokens(n) => Err(n.min(cap)),
    };
    let target = match wanted {
        Ok(counts) => return counts,
        Err(target) => target,
    };
    let mut shares: Vec<Share> = slices
        .iter()
        .map(|slice| Share {
            weight: slice.ratio * slice.n_tokens() as f64,
            least: least(slice),
            most: slice.n_usable(),
        })
        .collect();
    if shares.iter().map(|share| share.least).sum::<usize>() > target {
        shares.iter_mut().for_each(|share| share.least = 0);
    }
    apportion(&shares, target)
}

/// One slice's claim on a total.
#[derive(Clone, Copy)]
struct Share {
    /// Tokens it would get, were there no total to meet.
    weight: f64,
    least: usize,
    most: usize,
}

impl Share {
    fn at(&self, factor: f64) -> f64 {
        (self.weight * factor).clamp(self.least as f64, self.most as f64)
    }
}

/// Splits `target` in proportion to the weights, within each share's bounds. The sum is `target`, or the sum of
/// `most` if that is less. The sum of `least` may not be over `target`.
fn apportion(shares: &[Share], target: usize) -> Vec<usize> {
    let most: usize = shares.iter().map(|share| share.most).sum();
    if most <= target {
        return shares.iter().map(|share| share.most).collect();
    }
    // With an endless factor every share with any weight is full. If even that leaves something, the shares without
    // weight get it, in proportion to their size: the limit of equally small ratios.
    let full: usize = shares.iter().map(|share| if share.weight > 0.0 { share.most } else { share.least }).sum();
    if full <= target {
        let in_limit = |share: &Share| match share.weight > 0.0 {
            true => Share { least: share.most, ..*share },
            false => Share { weight: share.most as f64, ..*share },
        };
        return apportion_weighted(&shares.iter().map(in_limit).collect::<Vec<_>>(), target);
    }
    apportion_weighted(shares, target)
}

/// [`apportion`], when some factor meets the target.
fn apportion_weighted(shares: &[Share], target: usize) -> Vec<usize> {
    let factor = largest_factor(shares, target as f64);
    let quotas: Vec<f64> = shares.iter().map(|share| share.at(factor)).collect();
    let mut counts: Vec<usize> = quotas.iter().map(|quota| quota.floor() as usize).collect();

    // Largest remainders first; a stable sort, so the earlier slice wins a tie. The remainders add up to what is
    // left and each is under 1, so there are enough of them; and a share with a remainder is not full.
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| quotas[b].fract().total_cmp(&quotas[a].fract()));
    let left = target.saturating_sub(counts.iter().sum());
    for &index in order.iter().take(left) {
        counts[index] += 1;
    }
    counts
}

/// The largest factor, to f64 precision, at which the shares sum up to no more than `target`. The sum grows with
/// the factor, so bisection finds it.
fn largest_factor(shares: &[Share], target: f64) -> f64 {
    let sum = |factor: f64| shares.iter().map(|share| share.at(factor)).sum::<f64>();
    let fill = |share: &Share| if share.weight > 0.0 { share.most as f64 / share.weight } else { 0.0 };
    let (mut low, mut high) = (0.0, shares.iter().map(fill).fold(0.0, f64::max));
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return low;
        }
        if sum(middle) <= target { low = middle } else { high = middle }
    }
}
