//! No pruning.

use super::method::{Algorithm, Pruner};
use super::{Decision, PruneParams, SliceDecision, SliceView};

pub(super) const NAME: &str = "off";

/// Keeps all tokens.
pub(super) struct Off;

impl Algorithm for Off {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pruner(&self, _: &PruneParams) -> Box<dyn Pruner> {
        Box::<KeepAll>::default()
    }

    fn prunes(&self) -> bool {
        false
    }
}

/// Counts tokens, and never reads an embedding.
#[derive(Default)]
struct KeepAll {
    slices: Vec<SliceDecision>,
}

impl Pruner for KeepAll {
    fn push(&mut self, slice: SliceView<'_>) {
        let n_tokens = slice.n_tokens();
        // A `SliceView` has at most `u32::MAX` tokens.
        let kept = (0..n_tokens as u32).collect();
        self.slices.push(SliceDecision { kept, n_tokens, ratio: 1.0, importance: None });
    }

    fn finish(self: Box<Self>) -> Decision {
        Decision { slices: self.slices, non_finite: 0 }
    }
}
