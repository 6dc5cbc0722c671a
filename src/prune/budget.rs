//! The number of kept tokens of each slice.

use super::{Budget, PruneParams};

/// What one slice requests of the total.
pub(crate) struct Demand {
    /// Tokens of the slice.
    pub n_tokens: usize,
    /// Tokens that may be kept.
    pub usable: usize,
    /// Tokens to keep if the budget sets no total, at most `usable`.
    pub own: usize,
    /// The slice's part of a total, relative to the other slices.
    pub weight: f64,
    /// Tokens that the slice gets before a total is shared, at most `usable`.
    pub least: usize,
}

/// The number of kept tokens of each slice, at most its usable ones.
pub(crate) fn counts(params: &PruneParams, demands: &[Demand]) -> Vec<usize> {
    let own = demands.iter().map(|demand| demand.own).sum();
    let target = total(params, demands.iter().map(|demand| demand.n_tokens).sum(), own);
    if matches!(params.budget, Budget::Adaptive | Budget::Threshold(_)) && own <= target {
        return demands.iter().map(|demand| demand.own).collect();
    }
    let share = |demand: &Demand| {
        // A threshold decides on each token: no slice gets more tokens than are over it, and the rest goes to others.
        let most = if matches!(params.budget, Budget::Threshold(_)) { demand.own } else { demand.usable };
        Share { weight: demand.weight, least: demand.least.min(most), most }
    };
    let mut shares: Vec<Share> = demands.iter().map(share).collect();
    if shares.iter().map(|share| share.least).sum::<usize>() > target {
        shares.iter_mut().for_each(|share| share.least = 0);
    }
    apportion(&shares, target)
}

/// The total for `n_tokens` tokens, whether or not so many are usable. `own` applies if the budget sets no total.
pub(crate) fn total(params: &PruneParams, n_tokens: usize, own: usize) -> usize {
    let total = match params.budget {
        Budget::Adaptive | Budget::Threshold(_) => own,
        Budget::Keep(share) => ((f64::from(share) * n_tokens as f64).round() as usize).max(1),
        Budget::MaxTokens(n) => n,
    };
    total.min(params.cap.unwrap_or(usize::MAX))
}

/// One slice's share of a total, and its bounds.
#[derive(Clone, Copy)]
struct Share {
    /// The share at factor 1, before the bounds.
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
    // With an infinite factor every share with a weight is full. What even that leaves goes to the shares without
    // weight, in proportion to their size: the limit of equally small ratios.
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

/// [`apportion`], if some factor meets the target.
fn apportion_weighted(shares: &[Share], target: usize) -> Vec<usize> {
    let factor = largest_factor(shares, target as f64);
    let quotas: Vec<f64> = shares.iter().map(|share| share.at(factor)).collect();
    let mut counts: Vec<usize> = quotas.iter().map(|quota| quota.floor() as usize).collect();

    // Largest remainders first; the sort is stable, so the earlier slice wins a tie. The remainders sum to what is
    // left and each is under 1, so there are enough of them; a share with a remainder is not full.
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| quotas[b].fract().total_cmp(&quotas[a].fract()));
    let left = target.saturating_sub(counts.iter().sum());
    for &index in order.iter().take(left) {
        counts[index] += 1;
    }
    counts
}

/// The largest factor, to f64 precision, at which the shares sum to at most `target`. The sum grows with the factor,
/// so bisection finds it.
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
