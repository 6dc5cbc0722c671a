//! How sure an accuracy is, and a difference of two.

/// The two-sided 95 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % interval of a share of `right` in `n`, after Wilson (1927):
///
/// `(p + z²/2n ± z·sqrt(p(1−p)/n + z²/4n²)) / (1 + z²/n)`
///
/// It never leaves 0 to 1, and holds for few questions too. `(0, 1)` without questions.
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
    /// Questions that both answered.
    pub n: usize,
    /// Those that only the first got right.
    pub only_a: usize,
    /// Those that only the second got right.
    pub only_b: usize,
}

impl Paired {
    /// Counts one question.
    pub fn add(&mut self, a: bool, b: bool) {
        self.n += 1;
        self.only_a += usize::from(a && !b);
        self.only_b += usize::from(b && !a);
    }

    /// How much more the second gets right, as a share of the questions.
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

    /// The exact p-value of McNemar's test, two-sided: how often chance alone would part the questions on which the two
    /// differ at least as unevenly, `min(1, 2·Σ_{i≤k} C(m, i)/2^m)` with `m = only_a + only_b` and `k` the smaller of
    /// them.
    pub fn p_value(&self) -> f64 {
        let m = self.only_a + self.only_b;
        let k = self.only_a.min(self.only_b);
        // By logarithms: 2^m is more than a float holds from m = 1024 on.
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
