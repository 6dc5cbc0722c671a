//! The memory for checkpoints: copies of the state of a model that cannot remove the last rows of its cache.

use crate::runtime::free_system_bytes;

/// How many checkpoints are usually kept, and the bytes that they may occupy if that holds at least [`LEAST`] of them.
const USUAL: u64 = 8;
const USUAL_BYTES: u64 = 512 << 20;
const LEAST: u64 = 2;

/// The bytes that checkpoints of `size` bytes may occupy together if the user set no limit.
pub fn usual_budget(size: u64) -> u64 {
    (USUAL * size).min(USUAL_BYTES.max(LEAST * size))
}

/// The bytes of as many checkpoints of `size` bytes as a conversation about one video goes on from.
pub fn least_budget(size: u64) -> u64 {
    LEAST * size
}

/// The bytes that another checkpoint may occupy: half of what is free, because other things grow too.
pub fn free_bytes() -> u64 {
    free_system_bytes().map_or(u64::MAX >> 1, |bytes| bytes / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_states_are_kept_often_and_large_ones_twice() {
        assert_eq!(usual_budget(50 << 20), 8 * (50 << 20));
        assert_eq!(usual_budget(100 << 20), 512 << 20);
        assert_eq!(usual_budget(600 << 20), 2 * (600 << 20));
        assert_eq!(usual_budget(0), 0);
    }
}
