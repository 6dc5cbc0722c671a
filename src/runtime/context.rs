//! A context: a KV cache, and the computation that fills and reads it.

use super::call::{Outcome, guarded};
use super::memory::{DeviceMemory, KvType, MemoryUsage, by_device};
use super::{CancelToken, LoraAdapter, Model, Token, device, sampler};
use crate::error::{Error, Result};
use crate::ffi;
use std::ffi::{c_char, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

/// The position of a row: time, height, width, and a fourth value that few models use. Text, and models without M-RoPE,
/// use only the first.
pub type Position = [i32; 4];

/// When to use flash attention, which computes attention without storing the matrix of scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, strum::EnumString, strum::VariantNames)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_attention)]
pub enum FlashAttention {
    /// If the device supports it.
    #[default]
    Auto,
    /// Always; loading fails if the device does not support it.
    On,
    /// Never.
    Off,
}

impl FlashAttention {
    pub(super) fn as_raw(self) -> ffi::llama_flash_attn_type {
        match self {
            Self::Auto => ffi::LLAMA_FLASH_ATTN_TYPE_AUTO,
            Self::On => ffi::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            Self::Off => ffi::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        }
    }
}

fn unknown_attention(name: &str) -> Error {
    Error::unknown_name::<FlashAttention>("when to use flash attention", name)
}

/// How a language model computes.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ComputeParams {
    /// The most rows that are computed at once, up to 65536.
    pub n_ubatch: usize,
    /// Threads, up to 512; `None` means one for each core.
    pub n_threads: Option<usize>,
    /// When to use flash attention.
    pub flash_attention: FlashAttention,
    /// The type of the cached keys.
    pub type_k: KvType,
    /// The type of the cached values. A quantized type requires flash attention.
    pub type_v: KvType,
    /// Keep the KV cache on the GPU, if there is one.
    pub offload_kv: bool,
}

impl Default for ComputeParams {
    fn default() -> Self {
        Self {
            n_ubatch: 512,
            n_threads: None,
            flash_attention: FlashAttention::Auto,
            type_k: KvType::F16,
            type_v: KvType::F16,
            offload_kv: true,
        }
    }
}

impl ComputeParams {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for the first value out of range.
    pub fn validate(&self) -> Result<()> {
        count("ubatch-size", self.n_ubatch, MAX_UBATCH)?;
        threads(self.n_threads).map(drop)
    }
}

/// How to make a context.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ContextParams {
    /// Cells of the KV cache: the most rows (text tokens and kept visual tokens) that it can hold.
    pub n_ctx: usize,
    /// How the model computes.
    pub compute: ComputeParams,
    /// Sequences that rows can belong to. They share the cells.
    pub n_sequences: usize,
    /// The most rows of one batch whose logits can be read. Each occupies `n_vocab` floats.
    pub n_outputs: usize,
    /// Measure similarities, and allow visual tokens to be evicted layer by layer ([`Context::similarity`],
    /// [`Context::evict_layers`]). Without it, the context is stock llama.cpp.
    pub evictable: bool,
    /// Layers that hold the visual tokens of only one batch; requires `evictable`.
    pub window: Option<KvWindow>,
    /// Keep all rows also in layers with a sliding window. Without it, they keep little more than the window, and the
    /// last rows can be removed only with the help of [checkpoints](Context::checkpoint).
    pub full_windows: bool,
}

/// Layers of a KV cache that hold visual tokens only while their own batch is computed: later batches do not see them
/// there, and the layers need no rows for all of them. The window ends with [`Context::evict_layers`]: later rows stay
/// in all layers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KvWindow {
    /// Which layers, with one entry for each layer of the model. If all are marked, one keeps its visual tokens anyway.
    pub layers: Vec<bool>,
    /// The rows of each such layer: for all text, and for the visual tokens of one batch.
    pub rows: usize,
}

impl Default for ContextParams {
    fn default() -> Self {
        Self {
            n_ctx: 4096,
            compute: ComputeParams::default(),
            n_sequences: 1,
            n_outputs: 1,
            evictable: false,
            window: None,
            full_windows: true,
        }
    }
}

/// The largest count that llama.cpp accepts.
const MAX_COUNT: usize = i32::MAX as usize;

/// The most rows that are computed at once. Buffers are allocated for all of them.
const MAX_UBATCH: usize = 1 << 16;

/// llama.cpp's own limit.
const MAX_SEQUENCES: usize = 256;

/// Returns `value`, which must be from 1 to `most`.
fn count(name: &'static str, value: usize, most: usize) -> Result<u32> {
    let good = u32::try_from(value).ok().filter(|_| (1..=most).contains(&value));
    good.ok_or_else(|| Error::InvalidParameter {
        name,
        value: value.to_string(),
        expected: format!("from 1 to {most}"),
    })
}

/// Returns the requested number of threads, or the default.
///
/// # Errors
/// [`Error::InvalidParameter`] for 0, and for more than ggml can start.
pub(super) fn threads(wanted: Option<usize>) -> Result<i32> {
    const MOST: usize = ffi::GGML_MAX_N_THREADS as usize;
    let threads = wanted.unwrap_or_else(|| default_threads().min(MOST));
    Ok(count("threads", threads, MOST)? as i32)
}

/// Returns the default number of threads: one for each core that the process may use.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One row of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// What enters the model.
    pub input: RowInput<'a>,
    /// Its position.
    pub position: Position,
    /// Whether its logits are requested.
    pub logits: bool,
}

/// The input of a [`Row`].
#[derive(Debug, Clone, Copy)]
pub enum RowInput<'a> {
    /// A text token.
    Token(Token),
    /// A visual token: an embedding of [`Model::n_embd_inp`] values.
    Embedding(&'a [f32]),
}

/// A model's KV cache and compute buffers.
#[derive(Debug)]
pub struct Context {
    ptr: NonNull<ffi::llama_context>,
    batch: NonNull<ffi::llama_batch_ext>,
    params: ContextParams,
    model: Model,
    /// Kept because llama.cpp holds pointers into them.
    _adapters: Vec<LoraAdapter>,
    cancel: CancelToken,
    has_logits: bool,
}

// SAFETY: a context is tied to no thread; every call that changes it takes `&mut self`.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: both are ours, made in `new`; the batch refers to the context, so it goes first.
        unsafe {
            ffi::llama_batch_ext_free(self.batch.as_ptr());
            ffi::sharpv_free(self.ptr.as_ptr());
        }
    }
}

/// llama.cpp's abort callback. The CPU backend calls it between the nodes of a graph.
unsafe extern "C" fn is_cancelled(flag: *mut c_void) -> bool {
    // SAFETY: the flag belongs to the `CancelToken` that the context holds.
    unsafe { &*flag.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}

impl Context {
    /// Allocates a context for `model` with `adapters` applied. Computation stops when `cancel` is set.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a number out of range; [`Error::Llama`] if memory runs out, or if the model or
    /// the device does not support the parameters.
    pub fn new(model: &Model, params: &ContextParams, adapters: &[LoraAdapter], cancel: &CancelToken) -> Result<Self> {
        let compute = &params.compute;
        let threads = threads(compute.n_threads)?;
        // SAFETY: returns a plain struct.
        let mut raw = unsafe { ffi::llama_context_default_params() };
        raw.n_ctx = count("ctx-size", params.n_ctx, MAX_COUNT)?;
        // A batch is one ubatch: every call computes a full one, and cancelling waits for one at most.
        raw.n_ubatch = count("ubatch-size", compute.n_ubatch, MAX_UBATCH)?;
        raw.n_batch = raw.n_ubatch;
        raw.n_seq_max = count("sequences", params.n_sequences, MAX_SEQUENCES)?;
        raw.kv_unified = true;
        raw.swa_full = params.full_windows;
        // llama.cpp requires at least one for each sequence.
        raw.n_outputs_max = count("outputs", params.n_outputs, MAX_UBATCH)?.max(raw.n_seq_max);
        raw.n_threads = threads;
        raw.n_threads_batch = threads;
        raw.flash_attn_type = compute.flash_attention.as_raw();
        raw.type_k = compute.type_k.as_raw();
        raw.type_v = compute.type_v.as_raw();
        raw.offload_kqv = compute.offload_kv;
        raw.no_perf = true;
        raw.abort_callback = Some(is_cancelled);
        raw.abort_callback_data = cancel.as_ptr().cast_mut().cast();

        let window = params.window.as_ref().filter(|_| params.evictable);
        let window_rows = window.map_or(Ok(0), |window| count("window", window.rows, MAX_COUNT))?;
        let (window_layers, n_layer) =
            window.map_or((std::ptr::null(), 0), |window| (window.layers.as_ptr(), window.layers.len()));
        let (_registry, adapters_held) = (device::hold_registry(), model.hold_adapters());
        // SAFETY: the window is an array with its length; the model lives as long as `self.model`; the flag lives as
        // long as `self.cancel`.
        let made = guarded(std::ptr::null_mut(), |result, err, err_len| unsafe {
            ffi::sharpv_try_init_from_model(
                model.as_ptr(),
                raw,
                params.evictable,
                window_layers,
                n_layer,
                window_rows,
                result,
                err,
                err_len,
            )
        });
        let ptr = made
            .value
            .and_then(NonNull::new)
            .ok_or(Error::Llama { action: "allocating the context", reason: made.reason })?;
        drop(adapters_held);
        // SAFETY: the context was just made; the batch is freed before it.
        let batch = guarded(std::ptr::null_mut(), |result, err, err_len| unsafe {
            ffi::sharpv_try_batch_ext_init(ptr.as_ptr(), result, err, err_len)
        });
        let Some(batch_ptr) = batch.value.and_then(NonNull::new) else {
            // SAFETY: nothing refers to the context yet.
            unsafe { ffi::sharpv_free(ptr.as_ptr()) };
            return Err(Error::Llama { action: "allocating a batch", reason: batch.reason });
        };
        let mut context = Self {
            ptr,
            batch: batch_ptr,
            params: params.clone(),
            model: model.clone(),
            _adapters: adapters.to_vec(),
            cancel: cancel.clone(),
            has_logits: false,
        };
        context.apply_adapters(adapters)?;
        Ok(context)
    }

    fn apply_adapters(&mut self, adapters: &[LoraAdapter]) -> Result<()> {
        if adapters.is_empty() {
            return Ok(());
        }
        let mut pointers: Vec<_> = adapters.iter().map(|a| a.ptr.as_ptr()).collect();
        let mut scales: Vec<_> = adapters.iter().map(|a| a.scale).collect();
        let (n, pointers, scales) = (adapters.len(), pointers.as_mut_ptr(), scales.as_mut_ptr());
        // SAFETY: two arrays of the given length; the adapters live as long as `self._adapters`.
        let Outcome { value, reason } = self.guarded(0, |result, err, err_len| unsafe {
            ffi::sharpv_try_set_adapters_lora(self.ptr.as_ptr(), pointers, n, scales, result, err, err_len)
        });
        if value == Some(0) { Ok(()) } else { Err(Error::Llama { action: "applying a LoRA adapter", reason }) }
    }

    /// As [`guarded`], for calls that may plan graphs, which reads the model's list of adapters. Every call that
    /// computes with this context uses this function.
    pub(super) fn guarded<T>(&self, initial: T, call: impl FnOnce(&mut T, *mut c_char, usize) -> i32) -> Outcome<T> {
        let _adapters = self.model.hold_adapters();
        guarded(initial, call)
    }

    pub(super) fn ptr(&self) -> *mut ffi::llama_context {
        self.ptr.as_ptr()
    }

    pub(super) fn as_ptr(&mut self) -> *mut ffi::llama_context {
        self.ptr.as_ptr()
    }

    /// The model of this context.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The parameters that it was made with.
    pub fn params(&self) -> &ContextParams {
        &self.params
    }

    /// Returns the memory of the context and its model, by device.
    ///
    /// # Errors
    /// [`Error::Llama`] if memory runs out.
    pub fn memory_by_device(&self) -> Result<Vec<DeviceMemory>> {
        // SAFETY: the context lives; `by_device` passes an array with its length.
        by_device(|out, capacity, n, err, err_len| unsafe {
            ffi::sharpv_memory_by_device(self.ptr.as_ptr(), out, capacity, n, err, err_len)
        })
        .map_err(|reason| Error::Llama { action: "adding up memory", reason })
    }

    /// The allocated cells of the KV cache: [`ContextParams::n_ctx`], rounded up by llama.cpp.
    pub fn n_ctx(&self) -> usize {
        // SAFETY: the context lives; a getter.
        unsafe { ffi::llama_n_ctx(self.ptr.as_ptr()) as usize }
    }

    /// The most rows that [`process`](Self::process) accepts.
    pub fn n_ubatch(&self) -> usize {
        // SAFETY: the context lives; a getter.
        unsafe { ffi::llama_n_ubatch(self.ptr.as_ptr()) as usize }
    }

    /// Computes one batch of rows, text tokens and visual tokens in any order, and stores their keys and values in the
    /// cache. At most [`n_ubatch`](Self::n_ubatch) rows, of which at most [`ContextParams::n_outputs`] request logits.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::ContextFull`] if the cache has too few free cells; [`Error::Llama`] otherwise.
    /// Rows of this call may then be in the cache: remove them with [`truncate`](Self::truncate).
    pub fn process(&mut self, rows: &[Row<'_>]) -> Result<()> {
        self.process_sequence(0, rows)
    }

    /// As [`process`](Self::process), for a sequence below [`ContextParams::n_sequences`]. Rows attend to those of
    /// their own sequence.
    ///
    /// # Errors
    /// Those of [`process`](Self::process), and [`Error::InvalidParameter`] if there is no such sequence.
    pub fn process_sequence(&mut self, sequence: usize, rows: &[Row<'_>]) -> Result<()> {
        if sequence >= self.params.n_sequences {
            return Err(Error::InvalidParameter {
                name: "sequence",
                value: sequence.to_string(),
                expected: format!("less than {}, the context's number of sequences", self.params.n_sequences),
            });
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.cancel.check()?;
        self.has_logits = false;
        let batch = self.batch.as_ptr();
        // SAFETY: the batch is ours.
        unsafe { ffi::llama_batch_ext_clear(batch) };
        for row in rows {
            self.add_row(sequence as i32, row)?;
        }
        let context = self.ptr.as_ptr();
        // SAFETY: context and batch live and belong to each other.
        let Outcome { value, reason } = self.guarded(0, |result, err, err_len| unsafe {
            ffi::sharpv_try_process(context, ffi::LLAMA_PROCESS_TYPE_DECODE, batch, result, err, err_len)
        });
        match value {
            Some(0) => {
                self.has_logits = rows.iter().any(|row| row.logits);
                Ok(())
            }
            Some(1) => Err(Error::ContextFull { n_ctx: self.n_ctx(), n_rows: rows.len() }),
            Some(2) => Err(Error::Cancelled),
            _ if self.cancel.is_cancelled() => Err(Error::Cancelled),
            _ => Err(Error::Llama { action: "computing a batch", reason }),
        }
    }

    fn add_row(&mut self, sequence: i32, row: &Row<'_>) -> Result<()> {
        let batch = self.batch.as_ptr();
        let (token, embedding) = match row.input {
            RowInput::Token(token) => (token, ffi::llama_embd::default()),
            RowInput::Embedding(values) => {
                (0, ffi::llama_embd { data: values.as_ptr(), n_rows: 1, n_embd: values.len() })
            }
        };
        let (position, logits) = (row.position.as_ptr(), row.logits);
        // SAFETY: the batch is ours; an embedding is copied during the call, and its length is passed along; four
        // positions are what the model with the most reads.
        let Outcome { value, reason } = guarded(0, |index, err, err_len| unsafe {
            ffi::sharpv_try_batch_ext_add(batch, sequence, token, embedding, position, logits, index, err, err_len)
        });
        let reason = match value {
            Some(0..) => return Ok(()),
            Some(-1) => format!("more than {} rows", self.n_ubatch()),
            _ => reason,
        };
        Err(Error::Llama { action: "filling a batch", reason })
    }

    /// Returns the logits of the last row that requested them, `[n_vocab]`.
    ///
    /// # Errors
    /// [`Error::Llama`] if no row of the last batch requested them; [`Error::LogitsNotFinite`].
    pub fn logits(&mut self) -> Result<&[f32]> {
        let missing = || Error::Llama { action: "reading logits", reason: "the last batch requested none".into() };
        if !self.has_logits {
            return Err(missing());
        }
        let pointer = self.logits_pointer(-1)?;
        if pointer.is_null() {
            return Err(missing());
        }
        // SAFETY: a row of logits has one value for each token of the vocabulary, and stays until the next batch.
        sampler::checked(unsafe { std::slice::from_raw_parts(pointer, self.model.n_vocab()) })
    }

    /// Returns the logits of row `row` of the last batch, `[n_vocab]`, unchecked: they may not be finite.
    ///
    /// # Errors
    /// [`Error::Llama`] if that row did not request them.
    pub fn logits_of(&mut self, row: usize) -> Result<&[f32]> {
        let missing = || Error::Llama { action: "reading logits", reason: format!("row {row} requested none") };
        if !self.has_logits || row >= self.n_ubatch() {
            return Err(missing());
        }
        let pointer = self.logits_pointer(row as i32)?;
        if pointer.is_null() {
            return Err(missing());
        }
        // SAFETY: a row of logits has one value for each token of the vocabulary, and stays until the next batch.
        Ok(unsafe { std::slice::from_raw_parts(pointer, self.model.n_vocab()) })
    }

    /// Returns where the logits of a row are, null if there are none; row -1 is the last. Waits for all devices.
    fn logits_pointer(&mut self, row: i32) -> Result<*mut f32> {
        // SAFETY: the last batch had an output; llama.cpp checks the index.
        let pointer = self.guarded(std::ptr::null_mut(), |result, err, err_len| unsafe {
            ffi::sharpv_try_get_logits_ith(self.ptr.as_ptr(), row, result, err, err_len)
        });
        pointer.into_result().map_err(|reason| Error::Llama { action: "reading logits", reason })
    }

    /// Records whether a call that bypassed [`process`](Self::process) left logits.
    pub(super) fn note_logits(&mut self, has_logits: bool) {
        self.has_logits = has_logits;
    }

    /// Sets whether a row of the next batches attends only to earlier rows (causal), or also to later rows of its batch
    /// (non-causal), as some models require within an image.
    pub fn set_causal(&mut self, causal: bool) {
        // SAFETY: the context lives and is borrowed mutably.
        unsafe { ffi::llama_set_causal_attn(self.ptr.as_ptr(), causal) };
    }

    /// Removes all rows at `position` and after it from the cache. Returns false if the model cannot continue from
    /// there, because it has recurrent layers, or a sliding window whose rows were overwritten since. Then only
    /// [`clear`](Self::clear) helps.
    #[must_use]
    pub fn truncate(&mut self, position: i32) -> bool {
        self.truncate_sequence(0, position)
    }

    /// As [`truncate`](Self::truncate), for one sequence. Cells that it shares with other sequences stay in those.
    #[must_use]
    pub fn truncate_sequence(&mut self, sequence: usize, position: i32) -> bool {
        self.has_logits = false;
        if sequence >= self.params.n_sequences {
            return false;
        }
        self.remove_from(sequence, position, -1) && self.has_window_before(sequence, position)
    }

    /// Removes the rows at positions `first..end` of a sequence, which must exist; -1 for `end` means no limit.
    fn remove_from(&mut self, sequence: usize, first: i32, end: i32) -> bool {
        // SAFETY: the context lives and is borrowed mutably; the sequence exists.
        let removed = guarded(false, |result, err, err_len| unsafe {
            ffi::sharpv_try_memory_seq_rm(self.ptr.as_ptr(), sequence as i32, first, end, result, err, err_len)
        });
        removed.value.unwrap_or(false)
    }

    /// Removes the rows at positions `first..end` from the cache; the others keep their positions. Returns false if the
    /// model has recurrent layers, which hold all rows in one state.
    #[must_use]
    pub fn remove(&mut self, first: i32, end: i32) -> bool {
        self.has_logits = false;
        self.remove_from(0, first, end)
    }

    /// Whether the cache still holds the rows in the sliding window before `position`. llama.cpp reuses the cells of
    /// rows that have left the window, and does not report it when rows are removed.
    fn has_window_before(&self, sequence: usize, position: i32) -> bool {
        let window = self.model.window() as i32;
        if window <= 0 || position <= 0 {
            return true;
        }
        // SAFETY: the context lives; a getter. It returns -1 for an empty sequence.
        let first = unsafe { ffi::llama_memory_seq_pos_min(ffi::llama_get_memory(self.ptr.as_ptr()), sequence as i32) };
        (0..=(position - window).max(0)).contains(&first)
    }

    /// Adds all cells of sequence 0 to sequence `to`, which shares them.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there is no such sequence; [`Error::Llama`] if memory runs out.
    pub fn copy_sequence(&mut self, to: usize) -> Result<()> {
        if to == 0 || to >= self.params.n_sequences {
            return Err(Error::InvalidParameter {
                name: "sequence",
                value: to.to_string(),
                expected: format!("from 1 to {}", self.params.n_sequences - 1),
            });
        }
        // SAFETY: the context lives and is borrowed mutably; the sequence exists.
        let copied = guarded((), |(), err, err_len| unsafe {
            ffi::sharpv_try_memory_seq_cp(self.ptr.as_ptr(), 0, to as i32, -1, -1, err, err_len)
        });
        copied.into_result().map_err(|reason| Error::Llama { action: "copying a sequence", reason })
    }

    /// Empties the cache.
    pub fn clear(&mut self) {
        self.has_logits = false;
        // SAFETY: the context lives and is borrowed mutably.
        unsafe { ffi::llama_memory_clear(ffi::llama_get_memory(self.ptr.as_ptr()), false) };
    }

    /// The highest position in the cache; `None` if it is empty.
    pub fn last_position(&self) -> Option<i32> {
        // SAFETY: the context lives; a getter.
        let position = unsafe { ffi::llama_memory_seq_pos_max(ffi::llama_get_memory(self.ptr.as_ptr()), 0) };
        (position >= 0).then_some(position)
    }

    /// Returns the bytes that the context and its model have allocated.
    pub fn memory_usage(&self) -> MemoryUsage {
        MemoryUsage::of(self.ptr.as_ptr())
    }
}
