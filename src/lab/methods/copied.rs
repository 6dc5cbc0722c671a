//! Copies of the finite tokens of a slice, for methods that choose when they have all slices.

use crate::prune::SliceView;
use crate::prune::vector::{inverse_norm, sum_lanes};

/// A slice without its non-finite tokens.
pub(super) struct Copied {
    /// `[usable × n_embd]`.
    pub data: Vec<f32>,
    /// The indices of these tokens, ascending.
    pub usable: Vec<u32>,
    /// Tokens of the slice.
    pub n_tokens: usize,
    pub n_embd: usize,
    pub starts_video: bool,
}

impl Copied {
    /// `copy` appends a row, whose inverse norm it is passed.
    pub fn new(slice: &SliceView<'_>, mut copy: impl FnMut(&mut Vec<f32>, &[f32], f32)) -> Self {
        let (n_tokens, n_embd) = (slice.n_tokens(), slice.n_embd());
        let mut data = Vec::with_capacity(n_tokens * n_embd);
        let mut usable = Vec::with_capacity(n_tokens);
        for (index, row) in (0..).zip(slice.rows()) {
            if let Some(inv_norm) = inverse_norm(row) {
                copy(&mut data, row, inv_norm);
                usable.push(index);
            }
        }
        Self { data, usable, n_tokens, n_embd, starts_video: slice.starts_video() }
    }

    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.n_embd)
    }

    pub fn n_non_finite(&self) -> usize {
        self.n_tokens - self.usable.len()
    }
}

/// `‖a − b‖²`.
pub(super) fn distance_square(a: &[f32], b: &[f32]) -> f64 {
    sum_lanes(a, b, |a, b| {
        let difference = a - b;
        difference * difference
    })
}
