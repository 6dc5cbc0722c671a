//! Confidence intervals of accuracies and of their differences.

/// The two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % interval of the share of `right` in `n`, after Wilson (1927):
///
/// `(p + z²/2n ± z·sqrt(p(1−p)/n + z²/4n²)) / (1 + z²/n)`
///
/// It is always within 0 to 1, and valid for few questions too. `(0, 1)` without questions.
pub fn wilson(right: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let (p, n) = (right as f64 / n as f64, n as f64);
    let center = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((center - half) / scale).max(0.0), ((center + half) / scale).min(1.0)]
}

/// Two methods on the same questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paired {
    /// Questions that both have answered.
    pub n: usize,
    /// Questions that only the first answered correctly.
    pub only_a: usize,
    /// Questions that only the second answered correctly.
    pub only_b: usize,
}

impl Paired {
    /// Adds one question.
    pub fn add(&mut self, a: bool, b: bool) {
        self.n += 1;
        self.only_a += usize::from(a && !b);
        self.only_b += usize::from(b && !a);
    }

    /// By how much the second is more accurate, as a share of the questions.
    pub fn difference(&self) -> f64 {
        if self.n == 0 { 0.0 } else { (self.only_b as f64 - self.only_a as f64) / self.n as f64 }
    }

    /// The 95 % interval of the difference, after Bonett and Price (2012): with `p = (only + 1)/(n + 2)` for each side,
    ///
    /// `(p_b − p_a) ± z·sqrt((p_a + p_b − (p_b − p_a)²)/(n + 2))`
    pub fn interval(&self) -> [f64; 2] {
        let n = self.n as f64 + 2.0;
        let (a, b) = ((self.only_a as f64 + 1.0) / n, (self.only_b as f64 + 1.0) / n);
        let half = Z * ((a + b - (b - a) * (b - a)) / n).max(0.0).sqrt();
        [(b - a - half).max(-1.0), (b - a + half).min(1.0)]
    }

    /// The exact two-sided p-value of McNemar's test: the probability that chance alone splits the questions on which
    /// the two differ at least as unevenly, `min(1, 2·Σ_{i≤k} C(m, i)/2^m)` with `m = only_a + only_b` and `k` the
    /// smaller of them.
    pub fn p_value(&self) -> f64 {
        let m = self.only_a + self.only_b;
        let k = self.only_a.min(self.only_b);
        // In logarithms, because 2^m overflows a float from m = 1024 on.
        let mut log_choose = 0.0;
        let mut sum = 0.0;
        for i in 0..=k {
            if i > 0 {
                log_choose += ((m - i + 1) as f64).ln() - (i as f64).ln();
            }
            sum += (log_choose - m as f64 * std::f64::consts::LN_2).exp();
        }
        (2.0 * sum).min(1.0)
    }
}

/// A mean with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean of all values.
    pub mean: f64,
    /// Bounds of the interval.
    pub interval: [f64; 2],
    /// Number of values.
    pub n: usize,
    /// Number of clusters.
    pub clusters: usize,
}

impl std::fmt::Display for Mean {
    /// `+1.50 (-0.20 to +3.20), n = 40 of 8`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mean, interval: [low, high], n, clusters } = self;
        write!(f, "{mean:+.2} ({low:+.2} to {high:+.2}), n = {n} of {clusters}")
    }
}

/// Resamples of [`clustered_mean`].
const RESAMPLES: usize = 10_000;

/// The mean of values that are clustered, such as questions about the same video, and its 95 % interval by the cluster
/// bootstrap. As many clusters as there are are drawn with replacement, 10,000 times; each time the values of the drawn
/// clusters are averaged. The interval holds the middle 95 % of these means. The seed is fixed.
///
/// With paired differences as values, it is the interval of a paired difference. With few clusters (under ten or so) it
/// is too narrow. `None` with fewer than two clusters.
pub fn clustered_mean<K: Ord>(values: impl IntoIterator<Item = (K, f64)>) -> Option<Mean> {
    let mut sums = std::collections::BTreeMap::<K, (f64, usize)>::new();
    for (cluster, value) in values {
        let sum = sums.entry(cluster).or_default();
        *sum = (sum.0 + value, sum.1 + 1);
    }
    let sums: Vec<(f64, usize)> = sums.into_values().collect();
    if sums.len() < 2 {
        return None;
    }
    let add = |a: (f64, usize), b: &(f64, usize)| (a.0 + b.0, a.1 + b.1);
    let mean = |(sum, n): (f64, usize)| sum / n as f64;
    let all = sums.iter().fold((0.0, 0), add);
    let mut draws = SplitMix(0);
    let draw = |draws: &mut SplitMix| (0..sums.len()).map(|_| &sums[draws.below(sums.len())]).fold((0.0, 0), add);
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| mean(draw(&mut draws))).collect();
    means.sort_unstable_by(f64::total_cmp);
    let cut = RESAMPLES * 25 / 1000;
    let interval = [means[cut], means[RESAMPLES - 1 - cut]];
    Some(Mean { mean: mean(all), interval, n: all.1, clusters: sums.len() })
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The high half of the product is as uniform as 64 bits allow.
        ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn independent_values_have_the_interval_of_a_mean() {
        // Half of 400 clusters of one value each: the standard error is that of a coin.
        let mean = clustered_mean((0..400).map(|i| (i, f64::from(i % 2)))).expect("clusters");
        assert_eq!((mean.mean, mean.n, mean.clusters), (0.5, 400, 400));
        let half = Z * 0.5 / 20.0;
        let [low, high] = mean.interval;
        assert!((low - (0.5 - half)).abs() < 0.005 && (high - (0.5 + half)).abs() < 0.005, "{mean}");
        assert_eq!(clustered_mean((0..400).map(|i| (i, f64::from(i % 2)))), Some(mean), "the same each time");
    }

    #[test]
    fn values_that_go_together_count_as_one() {
        // Four values a cluster, all the same: no more is known than from one of each.
        let of = |copies: u32| {
            let values = (0..100).flat_map(|i| (0..copies).map(move |_| (i, f64::from(i % 5))));
            clustered_mean(values).expect("clusters")
        };
        let (one, four) = (of(1), of(4));
        assert_eq!((one.mean, one.interval), (four.mean, four.interval));
        assert_eq!((one.n, four.n), (100, 400));
        // As independent values they would seem twice as sure.
        let apart = clustered_mean((0..400).map(|i| (i, f64::from(i / 4 % 5)))).expect("clusters");
        let width = |mean: &Mean| mean.interval[1] - mean.interval[0];
        assert!((width(&four) / width(&apart) - 2.0).abs() < 0.15, "{four} {apart}");
    }

    #[test]
    fn larger_clusters_weigh_more() {
        let mean = clustered_mean([("a", 1.0), ("a", 1.0), ("a", 1.0), ("b", 0.0)]).expect("clusters");
        assert_eq!((mean.mean, mean.interval), (0.75, [0.0, 1.0]));
        assert_eq!(clustered_mean([("a", 1.0), ("a", 0.0)]), None);
    }
}
