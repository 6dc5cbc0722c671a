//! No pruning.

use super::{Decision, Pruner, SliceDecision, SliceView};

/// Keeps everything, and never reads an embedding.
#[derive(Default)]
pub(super) struct Off {
    slices: Vec<SliceDecision>,
}

impl Pruner for Off {
    fn push(&mut self, slice: SliceView<'_>) {
        let n_tokens = slice.n_tokens();
        // `SliceView` admits no more than `u32::MAX` tokens.
        let kept = (0..n_tokens as u32).collect();
        self.slices.push(SliceDecision { kept, n_tokens, ratio: 1.0, importance: None });
    }

    fn finish(self: Box<Self>) -> Decision {
        Decision { slices: self.slices, non_finite: 0 }
    }
}
