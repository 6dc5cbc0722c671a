//! Random numbers that do not depend on the machine or the version.

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    /// The numbers of the clip with this index.
    pub fn new(seed: u64, index: u64) -> Self {
        // The index passes through the generator, so that neighboring seeds do not share clips.
        Self(seed ^ Self(index).bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `n - 1`.
    pub fn below(&mut self, n: usize) -> usize {
        // The high half of the product: no modulo bias that matters at these sizes.
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// From `low` to `high`, inclusive.
    pub fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low).max(0) as usize + 1) as i32
    }

    /// True with probability 1/`n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Nearly normal around 0, with a standard deviation of a third: a sum of four uniform numbers, because logarithms
    /// and sines differ between machines.
    pub fn bell(&mut self) -> f64 {
        let bits = self.bits();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xFFFF).sum();
        // The sum of four uniform numbers of width 1 has a standard deviation of 0.577.
        (sum as f64 / 65535.0 - 2.0) * (1.0 / 3.0 / 0.577_350_269)
    }
}
