//! Synthetic embeddings, whose frames are as similar to each other as those of a video.

/// The share of a frame that moves.
const MOVING: f32 = 0.25;
/// The cosine of a resting token with its cell in the previous frame.
const RESTING: f32 = 0.98;
/// The cosine of a moving token with its cell in the previous frame.
const MOVED: f32 = 0.3;

/// Rows of `[tokens × width]`, one frame after the other.
pub(super) struct Frames {
    random: Random,
    tokens: usize,
    width: usize,
    frame: Vec<f32>,
}

impl Frames {
    /// Generates the same numbers for the same arguments.
    pub fn new(tokens: usize, width: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let frame = (0..tokens * width).map(|_| random.noise()).collect();
        Self { random, tokens, width, frame }
    }

    /// The next frame, whose values have mean square 1.
    pub fn next_frame(&mut self) -> Vec<f32> {
        let frame = self.frame.clone();
        // The moving tokens are one block, at another offset in each frame.
        let moving = ((self.tokens as f32 * MOVING) as usize).max(1);
        let start = if self.tokens == 0 { 0 } else { self.random.next() as usize % self.tokens };
        for (i, token) in self.frame.chunks_mut(self.width.max(1)).enumerate() {
            let moves = (i + self.tokens - start) % self.tokens < moving;
            let alike = if moves { MOVED } else { RESTING };
            let new = (1.0 - alike * alike).sqrt();
            for value in token {
                *value = alike * *value + new * self.random.noise();
            }
        }
        frame
    }
}

/// SplitMix64. Statistical quality does not matter here.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform around 0, with variance 1.
    fn noise(&mut self) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1_u64 << 24) as f32;
        (unit - 0.5) * 12.0_f32.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::{PruneParams, SliceView, prune};

    #[test]
    fn frames_are_alike_enough_to_be_pruned_and_repeat_with_the_seed() {
        let (tokens, width) = (64, 256);
        let mut source = Frames::new(tokens, width, 1);
        let frames: Vec<_> = (0..8).map(|_| source.next_frame()).collect();
        for frame in &frames {
            let square = frame.iter().map(|x| x * x).sum::<f32>() / frame.len() as f32;
            assert!((square - 1.0).abs() < 0.1, "{square}");
        }
        let views: Vec<_> = frames.iter().map(|frame| SliceView::new(frame, tokens, width).unwrap()).collect();
        let decision = prune(&PruneParams::default(), &views).unwrap();
        let kept: usize = decision.slices.iter().skip(1).map(|slice| slice.kept.len()).sum();
        let share = kept as f64 / (7 * tokens) as f64;
        assert!((0.1..0.6).contains(&share), "{share}");
        assert_eq!(Frames::new(tokens, width, 1).next_frame(), frames[0]);
        assert_ne!(Frames::new(tokens, width, 2).next_frame(), frames[0]);
    }
}
