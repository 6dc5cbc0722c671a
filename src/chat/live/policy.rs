//! Chooses which frames to evict.

use super::params::LivePolicy;
use crate::layout::{FrameCount, SliceCount};

/// A held slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Held {
    /// Its index in the arrangement.
    pub slice: usize,
    /// The time of its last frame, in seconds.
    pub time_s: f64,
    /// The number of its kept tokens.
    pub kept: usize,
    /// How much of it was new, 0 to 1.
    pub novelty: f32,
    /// The number of its frames.
    pub frames: FrameCount,
}

impl LivePolicy {
    /// Returns how many slices of `per_slice` frames there are from one key slice to the next: those of half of the
    /// newest frames. At least two if that half has two frames: if every merged pair were a key slice, none would be
    /// compared with the pair before it.
    pub(super) fn key_distance(&self, per_slice: usize) -> SliceCount {
        let half = FrameCount(self.recent().div_ceil(2));
        half.slices(per_slice).max(SliceCount(half.0.min(2)))
    }

    /// Returns which of the `held` slices, oldest first, to evict so that at most `most` stay: indices into `held`,
    /// ascending. Never evicts the newest.
    pub(super) fn evictions(&self, held: &[Held], most: SliceCount) -> Vec<usize> {
        let most = most.0.max(1);
        match *self {
            Self::Window { frames } => {
                (0..held.len() - newest(held, FrameCount(frames)).0.min(most).min(held.len())).collect()
            }
            Self::Memory { tokens, recent, half_life_s } => {
                let newest_s = held.last().map_or(0.0, |held| held.time_s);
                let worth = |held: &Held| f64::from(held.novelty) * (-(newest_s - held.time_s) / half_life_s).exp2();
                // The sort is stable and the slices are sorted by age, so of equals the oldest comes first.
                let stay = newest(held, FrameCount(recent)).0.min(most).min(held.len());
                let mut order: Vec<usize> = (0..held.len() - stay).collect();
                order.sort_by(|&a, &b| worth(&held[a]).total_cmp(&worth(&held[b])));
                let (mut left, mut n) = (held.iter().map(|held| held.kept).sum::<usize>(), held.len());
                let is_over = |&place: &usize| {
                    let over = left > tokens || n > most;
                    left -= held[place].kept;
                    n -= 1;
                    over
                };
                let mut to_evict: Vec<usize> = order.into_iter().take_while(is_over).collect();
                to_evict.sort_unstable();
                to_evict
            }
        }
    }
}

/// Returns how many of the newest slices have at most `frames` frames together; at least 1.
fn newest(held: &[Held], frames: FrameCount) -> SliceCount {
    let mut left = frames.0;
    let is_within = |held: &&Held| {
        let fits = held.frames.0 <= left;
        left = left.saturating_sub(held.frames.0);
        fits
    };
    SliceCount(held.iter().rev().take_while(is_within).count().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(slice: usize, time_s: f64, kept: usize, novelty: f32) -> Held {
        Held { slice, time_s, kept, novelty, frames: FrameCount(1) }
    }

    #[test]
    fn a_window_holds_the_newest() {
        let slices: Vec<Held> = (0..5).map(|i| held(i, i as f64, 10, 0.5)).collect();
        let window = LivePolicy::Window { frames: 3 };
        assert_eq!(window.evictions(&slices, SliceCount(usize::MAX)), [0, 1]);
        assert_eq!(window.evictions(&slices, SliceCount(1)), [0, 1, 2, 3]);
        assert_eq!(window.evictions(&slices, SliceCount(0)), [0, 1, 2, 3], "the newest stays");
        assert!(
            window.evictions(&slices[..3], SliceCount(usize::MAX)).is_empty()
                && window.evictions(&[], SliceCount(1)).is_empty()
        );
    }

    #[test]
    fn a_memory_loses_the_least_worth_first() {
        let memory = |tokens, half_life_s| LivePolicy::Memory { tokens, recent: 1, half_life_s };
        let slices = [held(0, 0.0, 10, 0.9), held(1, 1.0, 10, 0.1), held(2, 2.0, 10, 0.3), held(3, 3.0, 10, 0.0)];
        assert!(memory(40, 1e9).evictions(&slices, SliceCount(usize::MAX)).is_empty());
        assert_eq!(memory(30, 1e9).evictions(&slices, SliceCount(usize::MAX)), [1]);
        assert_eq!(memory(29, 1e9).evictions(&slices, SliceCount(usize::MAX)), [1, 2]);
        // Halved every half second, the first is worth 0.9/64, the third 0.3/4.
        assert_eq!(memory(20, 0.5).evictions(&slices, SliceCount(usize::MAX)), [0, 1]);
        // The newest stays, whatever its worth and its tokens.
        assert_eq!(memory(1, 1e9).evictions(&slices, SliceCount(usize::MAX)), [0, 1, 2]);
        assert_eq!(memory(40, 1e9).evictions(&slices, SliceCount(2)), [1, 2]);
    }

    #[test]
    fn pairs_count_as_two_frames() {
        let pairs: Vec<Held> = (0..4).map(|i| Held { frames: FrameCount(2), ..held(i, i as f64, 10, 0.5) }).collect();
        let to_evict = |frames| LivePolicy::Window { frames }.evictions(&pairs, SliceCount(usize::MAX));
        assert_eq!([to_evict(4), to_evict(5), to_evict(1)], [vec![0, 1], vec![0, 1], vec![0, 1, 2]]);
    }

    #[test]
    fn key_slices_are_half_of_the_newest_frames_apart() {
        let window = |frames| LivePolicy::Window { frames };
        assert_eq!([1, 2, 3, 8, 9].map(|frames| window(frames).key_distance(1).0), [1, 1, 2, 4, 5]);
        // Eight frames are four merged pairs.
        assert_eq!([1, 2, 3, 8, 9, 16].map(|frames| window(frames).key_distance(2).0), [1, 1, 2, 2, 3, 4]);
        assert_eq!([1, 2].map(|per_slice| LivePolicy::memory(100).key_distance(per_slice).0), [2, 2]);
    }

    #[test]
    fn of_equals_the_older_leaves() {
        let slices: Vec<Held> = (0..4).map(|i| held(i, 5.0, 10, 0.5)).collect();
        let memory = LivePolicy::Memory { tokens: 20, recent: 1, half_life_s: 1.0 };
        assert_eq!(memory.evictions(&slices, SliceCount(usize::MAX)), [0, 1]);
    }
}
