//! Pruning while slices stream in.

use super::method::Pruner;
use super::{Decision, PruneParams, SliceView};
use crate::error::{Error, Result};

/// Scores slices as they arrive, and chooses when all have arrived.
///
/// A slice is borrowed only during [`push`](Self::push): the scorer keeps its scores, and SharpV a copy of the last
/// slice for comparison with the next one. The result equals that of [`prune`](super::prune).
pub struct Scorer {
    pruner: Box<dyn Pruner>,
    n_embd: Option<usize>,
}

impl Scorer {
    /// A scorer for one video, or for the videos of one prompt (see [`SliceView::starting_video`]).
    ///
    /// # Errors
    /// [`Error::InvalidParameter`], see [`PruneParams::validate`].
    pub fn new(params: &PruneParams) -> Result<Self> {
        params.validate()?;
        Ok(Self { pruner: params.method.pruner(params), n_embd: None })
    }

    /// Scores the next slice.
    ///
    /// # Errors
    /// [`Error::SliceShape`] when `n_embd` differs from that of the previous slices. Then the scorer is unchanged.
    pub fn push(&mut self, slice: SliceView<'_>) -> Result<()> {
        self.check_width(&[slice])?;
        self.pruner.push(slice);
        Ok(())
    }

    /// Scores several slices, in parallel if the method can.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_all(&mut self, slices: &[SliceView<'_>]) -> Result<()> {
        self.check_width(slices)?;
        self.pruner.push_all(slices);
        Ok(())
    }

    /// Chooses the tokens to keep of all slices that were pushed.
    pub fn finish(self) -> Decision {
        self.pruner.finish()
    }

    /// All slices of one model have the same width; another one is a mistake of the caller, which scores would hide.
    fn check_width(&mut self, slices: &[SliceView<'_>]) -> Result<()> {
        let Some(expected) = self.n_embd.or_else(|| slices.first().map(SliceView::n_embd)) else { return Ok(()) };
        if let Some(other) = slices.iter().find(|slice| slice.n_embd() != expected) {
            return Err(Error::SliceShape {
                what: "embedding width (n_embd)",
                expected: format!("{expected}, as in the slices before"),
                got: other.n_embd(),
            });
        }
        self.n_embd = Some(expected);
        Ok(())
    }
}

impl std::fmt::Debug for Scorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scorer").field("n_embd", &self.n_embd).finish_non_exhaustive()
    }
}
