//! Numbers of frames and of slices: not the same where an encoder merges frames.

use serde::{Deserialize, Serialize};

/// A number of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrameCount(pub usize);

/// A number of slices: of what the encoder makes of one frame, or of a group of frames that it merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SliceCount(pub usize);

impl FrameCount {
    /// The slices that hold so many frames, `per_slice` frames each; the last may have fewer.
    pub fn slices(self, per_slice: usize) -> SliceCount {
        SliceCount(self.0.div_ceil(per_slice.max(1)))
    }
}

impl SliceCount {
    /// The frames of so many full slices, `per_slice` frames each.
    pub fn frames(self, per_slice: usize) -> FrameCount {
        FrameCount(self.0.saturating_mul(per_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_may_have_fewer_frames() {
        assert_eq!([0, 1, 2, 5].map(|n| FrameCount(n).slices(2).0), [0, 1, 1, 3]);
        assert_eq!(FrameCount(5).slices(0), SliceCount(5), "without a number, each frame is a slice");
        assert_eq!(SliceCount(3).frames(2), FrameCount(6));
        assert_eq!(SliceCount(usize::MAX).frames(2).0, usize::MAX);
    }
}
