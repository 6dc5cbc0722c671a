//! A borrowed view of one slice's embeddings.

use crate::error::{Error, Result};

/// The embeddings of one slice: a frame, or a merged pair of frames. Tokens are in grid order.
///
/// Layout: `n_tokens` rows of `stride` floats, of which the first `n_embd` are scored. The two differ for models
/// whose rows hold more than the embedding (Qwen3-VL appends its deepstack features).
#[derive(Debug, Clone, Copy)]
pub struct SliceView<'a> {
    data: &'a [f32],
    n_tokens: usize,
    n_embd: usize,
    stride: usize,
    starts_video: bool,
    unfinished: &'a [u32],
}

impl<'a> SliceView<'a> {
    /// A slice of `n_tokens` rows of `n_embd` floats: `data` is `[n_tokens × n_embd]`.
    ///
    /// # Errors
    /// [`Error::SliceShape`] as for [`with_stride`](Self::with_stride).
    pub fn new(data: &'a [f32], n_tokens: usize, n_embd: usize) -> Result<Self> {
        Self::with_stride(data, n_tokens, n_embd, n_embd)
    }

    /// A slice whose rows are `stride` floats long: `data` is `[n_tokens × stride]`, the first `n_embd` of each row
    /// are scored.
    ///
    /// # Errors
    /// [`Error::SliceShape`] when there are no tokens, when `n_embd` is 0 or over `stride`, or when the length of
    /// `data` is not `n_tokens · stride`.
    pub fn with_stride(data: &'a [f32], n_tokens: usize, n_embd: usize, stride: usize) -> Result<Self> {
        let shape = |what, expected: String, got: usize| Err(Error::SliceShape { what, expected, got });
        if n_tokens == 0 || u32::try_from(n_tokens).is_err() {
            return shape("number of tokens (n_tokens)", format!("1 to {}", u32::MAX), n_tokens);
        }
        if n_embd == 0 {
            return shape("embedding width (n_embd)", "at least 1".into(), n_embd);
        }
        if stride < n_embd {
            return shape("row length (stride)", format!("at least n_embd = {n_embd}"), stride);
        }
        if n_tokens.checked_mul(stride) != Some(data.len()) {
            return shape("number of floats", format!("n_tokens · stride = {n_tokens} · {stride}"), data.len());
        }
        Ok(Self { data, n_tokens, n_embd, stride, starts_video: false, unfinished: &[] })
    }

    /// Marks the slice as the first of a video: it has no temporal term, whatever the previous slice is. Required only
    /// if one prompt holds several videos; the very first slice is always a first slice.
    #[must_use]
    pub fn starting_video(self) -> Self {
        Self { starts_video: true, ..self }
    }

    /// Tokens, ascending, that may not be kept: their embeddings are estimates, which serve only for comparison. SharpV
    /// respects them.
    #[must_use]
    pub fn with_unfinished(self, unfinished: &'a [u32]) -> Self {
        Self { unfinished, ..self }
    }

    /// The tokens of [`with_unfinished`](Self::with_unfinished).
    pub fn unfinished(&self) -> &'a [u32] {
        self.unfinished
    }

    /// Tokens in this slice.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Floats of a row that are scored.
    pub fn n_embd(&self) -> usize {
        self.n_embd
    }

    /// Floats from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All rows: `[n_tokens × stride]`.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// Whether [`starting_video`](Self::starting_video) marked this slice.
    pub fn starts_video(&self) -> bool {
        self.starts_video
    }

    /// The scored part of each row, in grid order: `n_tokens` slices of `n_embd` floats.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &'a [f32]> + Clone {
        let n_embd = self.n_embd;
        self.data.chunks_exact(self.stride).map(move |row| &row[..n_embd])
    }
}
