//! Control: random tokens, as many of each slice as SharpV keeps.

use crate::prune::method::{Algorithm, Pruner};
use crate::prune::sharpv::Scores;
use crate::prune::{Decision, PruneParams, SliceView};

/// See [`RANDOM`](super::RANDOM).
pub(super) struct Random;

impl Algorithm for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn pruner(&self, params: &PruneParams) -> Box<dyn Pruner> {
        Box::new(RandomPruner { scores: Scores::new(params), seed: params.seed })
    }
}

/// Draws uniformly, without replacement. The draw of a slice depends on the seed and its index in the video alone.
struct RandomPruner {
    scores: Scores,
    seed: u64,
}

impl Pruner for RandomPruner {
    fn push(&mut self, slice: SliceView<'_>) {
        self.scores.push(slice);
    }

    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        self.scores.push_all(slices);
    }

    fn finish(self: Box<Self>) -> Decision {
        let Self { scores, seed } = *self;
        scores.decide(|slices, counts| {
            let draws = (0..).zip(slices).zip(counts).map(|((index, slice), &k)| {
                // The index passes through the generator, so that neighboring seeds do not share draws.
                let start = SplitMix64(index).next();
                draw(slice.usable(), k, SplitMix64(seed ^ start))
            });
            draws.collect()
        })
    }
}

/// `k` of `indices`, ascending: the first `k` steps of a Fisher–Yates shuffle.
fn draw(mut indices: Vec<u32>, k: usize, mut rng: SplitMix64) -> Vec<u32> {
    let n = indices.len();
    for i in 0..k.min(n) {
        indices.swap(i, i + rng.below((n - i) as u64) as usize);
    }
    indices.truncate(k);
    indices.sort_unstable();
    indices
}

/// SplitMix64 (Steele, Lea, Flood 2014). Written out here, so that a seed gives the same draw in every version of this
/// library.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number under `n`. Its bias, under `n / 2^64`, is far below what a test could detect.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}
