//! A copy of a slice, for comparison with later ones.

use super::SliceView;

/// The embeddings of a slice, and a measurement of its rows.
pub(crate) struct Previous<R> {
    data: Vec<f32>,
    n_tokens: usize,
    n_embd: usize,
    /// For example their norms.
    pub rows: R,
}

impl<R> Previous<R> {
    /// Copies `slice` into the buffer of `old`, if there is one.
    pub fn new(slice: &SliceView<'_>, rows: R, old: Option<Self>) -> Self {
        let mut data = old.map(|old| old.data).unwrap_or_default();
        data.clear();
        data.reserve(slice.n_tokens() * slice.n_embd());
        slice.rows().for_each(|row| data.extend_from_slice(row));
        Self { data, n_tokens: slice.n_tokens(), n_embd: slice.n_embd(), rows }
    }

    pub fn view(&self) -> Option<SliceView<'_>> {
        SliceView::new(&self.data, self.n_tokens, self.n_embd).ok()
    }
}
