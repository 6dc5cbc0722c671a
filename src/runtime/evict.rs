//! Memory SharpV on a context: how similar visual tokens still are to their embeddings at each layer, and evicting them
//! from the KV cache.

use super::call::Outcome;
use super::context::Context;
use crate::error::{Error, Result};
use crate::ffi;

/// How similar the visual tokens in a cache still are to their embeddings, layer by layer.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Similarity {
    /// For each layer of the model, the cosine similarity of a token's hidden state that enters the layer and the
    /// token's embedding, averaged over the visual tokens. The first is 1. NaN if nothing was measured.
    pub layers: Vec<f32>,
    /// How many visual tokens were measured.
    pub n_tokens: usize,
}

/// A layer's part of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct KvLayer {
    /// Whether it has cells that can be evicted. Recurrent layers and layers with a sliding window have none.
    pub has_cells: bool,
    /// Whether visual tokens were evicted from it.
    pub evicted: bool,
    /// The allocated rows: one for each cell of the context, or fewer after an eviction.
    pub rows: usize,
    /// The allocated bytes.
    pub bytes: u64,
}

impl Context {
    /// Whether visual tokens can be evicted from layers of this context. It must be
    /// [`evictable`](super::ContextParams::evictable), and its model must cache keys and values.
    pub fn can_evict(&self) -> bool {
        // SAFETY: the context lives; a getter.
        unsafe { ffi::sharpv_can_evict(self.ptr()) }
    }

    /// Describes the KV cache, layer by layer.
    ///
    /// # Errors
    /// [`Error::Llama`] if the context is not [`evictable`](super::ContextParams::evictable).
    pub fn kv_layers(&self) -> Result<Vec<KvLayer>> {
        let mut layers = vec![ffi::sharpv_kv_layer::default(); self.model().n_layer()];
        let (pointer, n) = (layers.as_mut_ptr(), layers.len());
        // SAFETY: an array with its length.
        self.checked("inspecting the KV cache", |err, err_len| unsafe {
            ffi::sharpv_kv_layers(self.ptr(), pointer, n, err, err_len)
        })?;
        let layer = |l: ffi::sharpv_kv_layer| KvLayer {
            has_cells: l.has_kv,
            evicted: l.evicted,
            rows: l.rows as usize,
            bytes: l.bytes,
        };
        Ok(layers.into_iter().map(layer).collect())
    }

    /// Returns the similarity of the visual tokens that are in the cache now, over all sequences. Waits for the device.
    ///
    /// # Errors
    /// [`Error::Llama`] if the context is not [`evictable`](super::ContextParams::evictable).
    pub fn similarity(&mut self) -> Result<Similarity> {
        let mut layers = vec![f32::NAN; self.model().n_layer()];
        let mut n_tokens = 0;
        let (pointer, n) = (layers.as_mut_ptr(), layers.len());
        // SAFETY: an array with its length, and a place for one number.
        self.checked("measuring similarities", |err, err_len| unsafe {
            ffi::sharpv_similarity(self.ptr(), pointer, n, &mut n_tokens, err, err_len)
        })?;
        Ok(Similarity { layers, n_tokens })
    }

    /// Evicts the visual tokens that are in the cache from the marked layers, and from the layers that were evicted
    /// before, and frees their memory. Rows that are computed later are stored in all layers. At least one layer must
    /// keep its cells.
    ///
    /// # Errors
    /// [`Error::Llama`] if no layer would keep its cells, if the model's cache cannot be evicted layer by layer, or if
    /// memory runs out. The cache is unchanged then.
    pub fn evict_layers(&mut self, layers: &[bool]) -> Result<()> {
        // SAFETY: an array with its length.
        self.checked("evicting layers", |err, err_len| unsafe {
            ffi::sharpv_evict_layers(self.ptr(), layers.as_ptr(), layers.len(), err, err_len)
        })
    }

    /// Masks the visual tokens that are in the cache in the marked layers, for every later query. Answers are then what
    /// they would be after [`evict_layers`](Self::evict_layers), but no memory is freed. An empty list ends the mask.
    ///
    /// # Errors
    /// [`Error::Llama`] if the context is not [`evictable`](super::ContextParams::evictable).
    pub fn hide_layers(&mut self, layers: &[bool]) -> Result<()> {
        self.hide(layers, f32::INFINITY)
    }

    /// Masks the visual tokens that [`evict_tokens`](Self::evict_tokens) would evict, for every later query.
    /// [`hide_layers`](Self::hide_layers) with an empty list ends the mask.
    ///
    /// # Errors
    /// [`Error::Llama`] if the context is not [`evictable`](super::ContextParams::evictable).
    pub fn hide_tokens(&mut self, threshold: f32) -> Result<()> {
        self.hide(&vec![true; self.model().n_layer()], threshold)
    }

    fn hide(&mut self, layers: &[bool], below: f32) -> Result<()> {
        // SAFETY: an array with its length.
        self.checked("masking visual tokens", |err, err_len| unsafe {
            ffi::sharpv_hide_layers(self.ptr(), layers.as_ptr(), layers.len(), below, err, err_len)
        })
    }

    /// Evicts the visual tokens whose similarity, averaged over the layers, is less than `threshold` from all layers.
    /// Their cells are free for other rows; the memory of the cache stays allocated.
    ///
    /// Returns the evicted rows, ascending: their indices among the rows that were in the cache, in order of arrival.
    /// (Positions would be ambiguous: under M-RoPE, frames less than half a second apart share theirs.)
    ///
    /// # Errors
    /// [`Error::Llama`] if the context is not [`evictable`](super::ContextParams::evictable).
    pub fn evict_tokens(&mut self, threshold: f32) -> Result<Vec<usize>> {
        let capacity = self.similarity()?.n_tokens;
        let mut rows = vec![0_u32; capacity];
        let mut n = 0;
        let pointer = rows.as_mut_ptr();
        // SAFETY: an array with its length, and a place for one number.
        self.checked("evicting tokens", |err, err_len| unsafe {
            ffi::sharpv_evict_tokens(self.ptr(), threshold, pointer, capacity, &mut n, err, err_len)
        })?;
        rows.truncate(n);
        Ok(rows.into_iter().map(|row| row as usize).collect())
    }

    /// Returns a copy of the cache's contents, which [`set_state`](Self::set_state) restores. llama.cpp's own state
    /// comes first. For an [`evictable`](super::ContextParams::evictable) context, the evicted layers and their rows
    /// follow.
    ///
    /// # Errors
    /// [`Error::Llama`] if llama.cpp cannot copy it.
    pub fn state(&mut self) -> Result<Vec<u8>> {
        const ACTION: &str = "saving the state";
        let failed = |reason| Error::Llama { action: ACTION, reason };
        let context = self.ptr();
        // SAFETY: the context lives and is borrowed mutably.
        let size = self.guarded(0, |result, err, err_len| unsafe {
            ffi::sharpv_try_state_get_size(context, result, err, err_len)
        });
        let mut data = vec![0_u8; size.into_result().map_err(failed)?];
        let (output, capacity) = (data.as_mut_ptr(), data.len());
        // SAFETY: the buffer is passed with its length.
        let written = self.guarded(0, |result, err, err_len| unsafe {
            ffi::sharpv_try_state_get_data(context, output, capacity, result, err, err_len)
        });
        let Some(written @ 1..) = written.value else { return Err(failed(written.reason)) };
        data.truncate(written);

        let mut ours = (std::ptr::null_mut::<u8>(), 0_usize);
        // SAFETY: places for a pointer and a length.
        self.checked(ACTION, |err, err_len| unsafe {
            ffi::sharpv_state_get(context, &mut ours.0, &mut ours.1, err, err_len)
        })?;
        if !ours.0.is_null() {
            // SAFETY: the call returned a buffer of that length, which is ours until it is freed.
            unsafe {
                data.extend_from_slice(std::slice::from_raw_parts(ours.0, ours.1));
                ffi::sharpv_bytes_free(ours.0);
            }
            data.extend_from_slice(&(ours.1 as u64).to_le_bytes());
            data.extend_from_slice(STATE_MARK);
        }
        Ok(data)
    }

    /// Replaces the cache's contents with `state`, which must come from a context with the same model, KV types and
    /// flash attention setting. A state with evicted layers requires a context from which nothing was evicted yet, and
    /// the same [`evictable`](super::ContextParams::evictable).
    ///
    /// # Errors
    /// [`Error::Llama`] if the state does not fit this context. The cache is empty then.
    pub fn set_state(&mut self, state: &[u8]) -> Result<()> {
        const ACTION: &str = "restoring a saved state";
        self.clear();
        let (theirs, ours) = split_state(state)
            .ok_or_else(|| Error::Llama { action: ACTION, reason: "the saved state is damaged".into() })?;
        if !theirs.starts_with(&state_start(&self.model().metadata("general.architecture").unwrap_or_default())) {
            return Err(Error::Llama { action: ACTION, reason: "the saved state is for another architecture".into() });
        }
        // SAFETY: both buffers are passed with their lengths; llama.cpp and our part check what they read.
        let result = self.checked(ACTION, |err, err_len| unsafe {
            ffi::sharpv_state_set(self.ptr(), theirs.as_ptr(), theirs.len(), ours.as_ptr(), ours.len(), err, err_len)
        });
        if result.is_err() {
            self.clear();
        }
        result
    }

    fn checked(&self, action: &'static str, call: impl FnOnce(*mut std::ffi::c_char, usize) -> i32) -> Result<()> {
        let Outcome { value, reason } = self.guarded((), |(), err, err_len| call(err, err_len));
        value.ok_or(Error::Llama { action, reason })
    }
}

/// The last bytes of a state that includes our part. The length of our part precedes them.
const STATE_MARK: &[u8; 8] = b"sharpv\0\x01";

/// Returns the beginning of llama.cpp's part of a state: the length of the architecture's name, and the name. llama.cpp
/// would allocate a string of any length that stands there.
pub(super) fn state_start(architecture: &str) -> Vec<u8> {
    let length = u32::try_from(architecture.len()).unwrap_or(u32::MAX);
    [&length.to_ne_bytes(), architecture.as_bytes()].concat()
}

/// Splits a state into llama.cpp's part and ours, which may be empty.
pub(super) fn split_state(state: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(rest) = state.strip_suffix(STATE_MARK) else { return Some((state, &[])) };
    let (rest, length) = rest.split_last_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.split_at_checked(rest.len().checked_sub(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_split_where_its_end_says() {
        let mut state = b"llama".to_vec();
        assert_eq!(split_state(&state), Some((&b"llama"[..], &b""[..])));
        state.extend_from_slice(b"ours");
        state.extend_from_slice(&4_u64.to_le_bytes());
        state.extend_from_slice(STATE_MARK);
        assert_eq!(split_state(&state), Some((&b"llama"[..], &b"ours"[..])));
        let length_at = state.len() - 16;
        state[length_at..length_at + 8].copy_from_slice(&1000_u64.to_le_bytes());
        assert_eq!(split_state(&state), None);
    }
}
