//! The language model: weights, vocabulary, metadata, and LoRA adapters.

use super::call::{Outcome, guarded};
use super::{abort, backend, device};
use crate::error::{Error, Result};
use crate::ffi;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// The id of a token in a model's vocabulary.
pub type Token = i32;

/// How to load a model.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ModelParams {
    /// How many layers are offloaded to the GPU, with the output counted as one. `None` means all of them, or as many
    /// as fit if a session loads the model. Has no effect without a GPU.
    pub n_gpu_layers: Option<u32>,
    /// The devices to use, by [`Device::name`](super::Device::name); empty means all GPUs.
    pub devices: Vec<String>,
    /// Map the file into memory rather than read it. This is faster, and pages that are not used occupy no memory.
    pub mmap: bool,
    /// Bytes to leave free on each GPU when the number of offloaded layers is chosen, for what cannot be planned: a
    /// display, drivers and libraries. `None` leaves a gigabyte, or an eighth of a small GPU's memory.
    pub gpu_margin: Option<u64>,
}

impl Default for ModelParams {
    fn default() -> Self {
        Self { n_gpu_layers: None, devices: Vec::new(), mmap: true, gpu_margin: None }
    }
}

impl ModelParams {
    /// Whether layers are offloaded to the GPU with this name, if it exists.
    pub fn uses_gpu(&self, name: &str) -> bool {
        let is_named = || self.devices.iter().any(|device| device.eq_ignore_ascii_case(name));
        self.n_gpu_layers != Some(0) && (self.devices.is_empty() || is_named())
    }
}

/// A loaded language model. Clones share it. It is freed with the last clone and the last context made from it.
#[derive(Debug, Clone)]
pub struct Model(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ptr: NonNull<ffi::llama_model>,
    vocab: *const ffi::llama_vocab,
    path: PathBuf,
    params: ModelParams,
    /// Guards llama.cpp's list of all adapters of a model. Loading an adapter writes to the list; planning the graphs
    /// of any context reads it.
    adapters: RwLock<()>,
}

// SAFETY: after loading, llama.cpp only reads a model, from any number of contexts and threads at once. What changes,
// its list of adapters, is written and read under `adapters`: see `Model::hold_adapters`.
unsafe impl Send for Inner {}
// SAFETY: see above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the pointer came from llama_model_load_from_file and nothing else frees it. Contexts and adapters
        // hold an `Arc` of this, so none is left.
        unsafe { ffi::llama_model_free(self.ptr.as_ptr()) };
    }
}

/// Converts `path` to a C string.
pub(super) fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Error::InvalidParameter {
        name: "path",
        value: path.display().to_string(),
        expected: "a path without a NUL byte".into(),
    })
}

/// A closure that receives the progress of loading, from 0 to 1.
pub(super) type OnProgress<'a> = &'a mut dyn FnMut(f32);

/// llama.cpp's callback for [`OnProgress`]. Never stops loading.
pub(super) unsafe extern "C" fn report_progress(progress: f32, user_data: *mut c_void) -> bool {
    // SAFETY: `user_data` is the `OnProgress` that the caller of the load function keeps on its stack during the call.
    let report = unsafe { &mut *user_data.cast::<OnProgress<'_>>() };
    // A panic must not unwind into C++, and a broken progress bar is no reason to stop.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| report(progress)));
    true
}

impl Model {
    /// Loads the GGUF file at `path`. `on_progress` is called with values from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened, [`Error::Load`] if llama.cpp cannot use it, and
    /// [`Error::InvalidParameter`] for a device that does not exist.
    pub fn load(path: &Path, params: &ModelParams, mut on_progress: impl FnMut(f32)) -> Result<Self> {
        Self::load_as(path, params, false, &mut on_progress)
    }

    /// As [`load`](Self::load), but reads and allocates no weights. The model reports the memory that it would need,
    /// and cannot compute.
    pub(super) fn load_shadow(path: &Path, params: &ModelParams) -> Result<Self> {
        Self::load_as(path, params, true, &mut |_| {})
    }

    fn load_as(path: &Path, params: &ModelParams, shadow: bool, on_progress: OnProgress<'_>) -> Result<Self> {
        backend::init()?;
        // llama.cpp's own message for a missing file does not say why.
        std::fs::File::open(path).map_err(Error::io("opening the model", path))?;
        let c_path = c_path(path)?;
        let mut devices = if params.devices.is_empty() { Vec::new() } else { device::by_names(&params.devices)? };
        let mut report: OnProgress<'_> = on_progress;

        // SAFETY: returns a plain struct.
        let mut raw = unsafe { ffi::llama_model_default_params() };
        raw.n_gpu_layers = params.n_gpu_layers.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
        raw.load_mode = if params.mmap && !shadow { ffi::LLAMA_LOAD_MODE_AUTO } else { ffi::LLAMA_LOAD_MODE_NONE };
        raw.no_alloc = shadow;
        if !devices.is_empty() {
            raw.devices = devices.as_mut_ptr();
        }
        raw.progress_callback = Some(report_progress);
        raw.progress_callback_user_data = (&raw mut report).cast();
        let _registry = device::hold_registry();
        // SAFETY: `c_path`, `devices` and `report` outlive the call; llama.cpp keeps none of them.
        let load = |result: &mut _, err, err_len| unsafe {
            ffi::sharpv_try_model_load_from_file(c_path.as_ptr(), raw, result, err, err_len)
        };
        let loaded = abort::at_work_on(path, || guarded(std::ptr::null_mut(), load));
        let ptr = loaded.value.and_then(NonNull::new).ok_or_else(|| Error::Load {
            what: "a language model",
            path: path.to_owned(),
            reason: loaded.reason,
        })?;
        // SAFETY: the model was just loaded; its vocabulary lives as long as it does.
        let vocab = unsafe { ffi::llama_model_get_vocab(ptr.as_ptr()) };
        let (path, params) = (path.to_owned(), params.clone());
        Ok(Self(Arc::new(Inner { ptr, vocab, path, params, adapters: RwLock::new(()) })))
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::llama_model {
        self.0.ptr.as_ptr()
    }

    pub(super) fn vocab(&self) -> *const ffi::llama_vocab {
        self.0.vocab
    }

    /// Keeps the list of the model's adapters from changing. Every call that makes or uses a context holds this guard.
    pub(super) fn hold_adapters(&self) -> RwLockReadGuard<'_, ()> {
        // A poisoned lock is as good as another: it guards no Rust data.
        self.0.adapters.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// How it was loaded.
    pub fn params(&self) -> &ModelParams {
        &self.0.params
    }

    /// The context length, in positions, that the model was trained with.
    pub fn n_ctx_train(&self) -> usize {
        // SAFETY: the model lives; this and the getters below only read it.
        unsafe { ffi::llama_model_n_ctx_train(self.as_ptr()) }.max(0) as usize
    }

    /// The width of a hidden state.
    pub fn n_embd(&self) -> usize {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::llama_model_n_embd(self.as_ptr()) }.max(0) as usize
    }

    /// The width of an input embedding: [`n_embd`](Self::n_embd), plus the deepstack features of models that have them
    /// (Qwen3-VL).
    pub fn n_embd_inp(&self) -> usize {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::llama_model_n_embd_inp(self.as_ptr()) }.max(0) as usize
    }

    /// The number of decoder layers.
    pub fn n_layer(&self) -> usize {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::llama_model_n_layer(self.as_ptr()) }.max(0) as usize
    }

    /// The number of tokens in the vocabulary.
    pub fn n_vocab(&self) -> usize {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::llama_vocab_n_tokens(self.vocab()) }.max(0) as usize
    }

    /// The size of all its tensors in bytes.
    pub fn size_bytes(&self) -> u64 {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::llama_model_size(self.as_ptr()) }
    }

    /// Whether it has recurrent layers, whose state cannot be truncated to an earlier position.
    pub fn is_recurrent(&self) -> bool {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::llama_model_is_recurrent(self.as_ptr()) || ffi::llama_model_is_hybrid(self.as_ptr()) }
    }

    /// The rows that layers with a sliding window attend to; 0 if no layer has one.
    pub fn window(&self) -> usize {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::llama_model_n_swa(self.as_ptr()) }.max(0) as usize
    }

    /// Whether it needs an encoder pass before decoding (T5-like); such models are not supported.
    pub fn has_encoder(&self) -> bool {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::llama_model_has_encoder(self.as_ptr()) }
    }

    /// Whether one batch may mix text tokens and embeddings. A few architectures do not support that.
    pub fn supports_mixed_batch(&self) -> bool {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::sharpv_supports_mixed_batch(self.as_ptr()) }
    }

    /// Whether its rows have positions in time, height and width (M-RoPE) rather than a running number.
    pub fn uses_mrope(&self) -> bool {
        // SAFETY: see `n_ctx_train`.
        let rope = unsafe { ffi::llama_model_rope_type(self.as_ptr()) };
        matches!(rope, ffi::LLAMA_ROPE_TYPE_MROPE | ffi::LLAMA_ROPE_TYPE_IMROPE)
    }

    /// A one-line description: architecture, size, quantization. The size is the one that the file states, or else
    /// llama.cpp's guess.
    pub fn description(&self) -> String {
        // SAFETY: the model lives, and the buffer's length is passed along.
        let known = read_string(|buffer, len, n, err, err_len| unsafe {
            ffi::sharpv_try_model_desc(self.as_ptr(), buffer, len, n, err, err_len)
        });
        let known = known.unwrap_or_default();
        // llama.cpp guesses the size from the number of layers.
        let size = self.metadata("general.size_label").filter(|label| is_size(label));
        match (size, known.splitn(3, ' ').collect::<Vec<_>>().as_slice()) {
            (Some(size), [architecture, _, quantization]) => format!("{architecture} {size} {quantization}"),
            _ => known,
        }
    }

    /// A value of the GGUF metadata as text; `None` if it is missing.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        // SAFETY: `key` lives during the call; the buffer's length is passed along.
        read_string(|buffer, len, n, err, err_len| unsafe {
            ffi::sharpv_try_model_meta_val_str(self.as_ptr(), key.as_ptr(), buffer, len, n, err, err_len)
        })
    }

    /// The chat template (Jinja) in the model's file; `None` if it has none.
    pub fn chat_template(&self) -> Option<String> {
        // SAFETY: a null name asks for the default template; the string belongs to the model.
        let found = guarded(std::ptr::null(), |text, err, err_len| unsafe {
            ffi::sharpv_try_model_chat_template(self.as_ptr(), std::ptr::null(), text, err, err_len)
        });
        let text = found.value.filter(|text| !text.is_null())?;
        // SAFETY: not null, NUL-terminated, owned by the model.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    /// The token that begins a text (BOS) and the token that ends it (EOS), if the model has them.
    pub fn bos_eos(&self) -> (Option<Token>, Option<Token>) {
        let some = |token: Token| (token >= 0).then_some(token);
        // SAFETY: see `n_ctx_train`.
        unsafe { (some(ffi::llama_vocab_bos(self.vocab())), some(ffi::llama_vocab_eos(self.vocab()))) }
    }

    /// Whether a prompt of this model begins with its BOS token.
    pub fn adds_bos(&self) -> bool {
        // SAFETY: see `n_ctx_train`.
        unsafe { ffi::llama_vocab_get_add_bos(self.vocab()) }
    }

    /// Whether `token` ends a generation (end of text, of turn, …).
    pub fn is_end_of_generation(&self, token: Token) -> bool {
        // SAFETY: llama.cpp checks the range of the id.
        unsafe { ffi::llama_vocab_is_eog(self.vocab(), token) }
    }

    /// Turns text into tokens. `add_special` adds BOS and EOS if the model is configured to; `parse_special` reads the
    /// names of control tokens, such as `<|im_end|>`, as these tokens.
    ///
    /// # Errors
    /// [`Error::Llama`] if the text is too long (2 GiB).
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<Token>> {
        let too_long = || Error::Llama { action: "tokenizing", reason: format!("{} bytes are too many", text.len()) };
        let len = i32::try_from(text.len()).map_err(|_| too_long())?;
        let mut tokens = vec![0; text.len() + 2];
        for _ in 0..2 {
            let capacity = i32::try_from(tokens.len()).map_err(|_| too_long())?;
            let (input, output) = (text.as_ptr().cast(), tokens.as_mut_ptr());
            // SAFETY: both buffers are passed with their lengths.
            let n = guarded(0, |result, err, err_len| unsafe {
                ffi::sharpv_try_tokenize(
                    self.vocab(),
                    input,
                    len,
                    output,
                    capacity,
                    add_special,
                    parse_special,
                    result,
                    err,
                    err_len,
                )
            })
            .into_result()
            .map_err(|reason| Error::Llama { action: "tokenizing", reason })?;
            if n >= 0 {
                tokens.truncate(n as usize);
                return Ok(tokens);
            }
            // A negative count is the number of tokens that the buffer must hold.
            tokens.resize(n.checked_neg().ok_or_else(too_long)? as usize, 0);
        }
        Err(too_long())
    }

    /// Returns the bytes of a token, which may be a part of a UTF-8 sequence. Empty for control tokens, unless
    /// `special` is set.
    pub fn token_bytes(&self, token: Token, special: bool) -> Vec<u8> {
        let mut buffer = vec![0_u8; 64];
        for _ in 0..2 {
            let (output, capacity) = (buffer.as_mut_ptr().cast(), buffer.len() as i32);
            // SAFETY: the buffer is passed with its length, which is small.
            let piece = guarded(0, |result, err, err_len| unsafe {
                ffi::sharpv_try_token_to_piece(self.vocab(), token, output, capacity, 0, special, result, err, err_len)
            });
            let Some(n) = piece.value else { break };
            if n >= 0 {
                buffer.truncate(n as usize);
                return buffer;
            }
            buffer.resize(n.unsigned_abs() as usize, 0);
        }
        Vec::new()
    }

    /// The tokens that the tokenizer finds by their name before it splits the rest of the text.
    pub fn special_tokens(&self) -> Vec<SpecialToken> {
        const CONTROL: ffi::llama_token_attr = ffi::LLAMA_TOKEN_ATTR_CONTROL | ffi::LLAMA_TOKEN_ATTR_UNKNOWN;
        let special = |token: Token| {
            // SAFETY: see `n_ctx_train`; the id is one of the vocabulary's.
            let attr = unsafe { ffi::llama_vocab_get_attr(self.vocab(), token) };
            if attr & (CONTROL | ffi::LLAMA_TOKEN_ATTR_USER_DEFINED) == 0 {
                return None;
            }
            // SAFETY: as before.
            let text = unsafe { ffi::llama_vocab_get_text(self.vocab(), token) };
            // SAFETY: the string is NUL-terminated and belongs to the vocabulary.
            let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })?;
            let text = text.to_str().ok().filter(|text| !text.is_empty())?.to_owned();
            Some(SpecialToken { token, text, is_control: attr & CONTROL != 0 })
        };
        (0..self.n_vocab()).filter_map(|token| special(token as Token)).collect()
    }

    /// Loads a LoRA adapter for this model. It stays in memory as long as the model does. Contexts of the model may
    /// compute in other threads: this call waits for their current batches, and their next batches wait for it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened, [`Error::Load`] if it is no adapter for this model.
    pub fn load_lora(&self, path: &Path, scale: f32) -> Result<LoraAdapter> {
        std::fs::File::open(path).map_err(Error::io("opening the LoRA adapter", path))?;
        let c_path = c_path(path)?;
        let _registry = device::hold_registry();
        let _adapters = self.0.adapters.write().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the model lives, `c_path` outlives the call, and the lock excludes all calls that read the adapters.
        let load = |result: &mut _, err, err_len| unsafe {
            ffi::sharpv_try_adapter_lora_init(self.as_ptr(), c_path.as_ptr(), result, err, err_len)
        };
        let loaded = abort::at_work_on(path, || guarded(std::ptr::null_mut(), load));
        let ptr = loaded.value.and_then(NonNull::new).ok_or_else(|| Error::Load {
            what: "a LoRA adapter of this model",
            path: path.to_owned(),
            reason: loaded.reason,
        })?;
        Ok(LoraAdapter { ptr, scale, path: path.to_owned(), _model: self.clone() })
    }
}

/// A token of [`Model::special_tokens`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecialToken {
    /// Its id.
    pub token: Token,
    /// Its name, for example `<|im_end|>`.
    pub text: String,
    /// Whether [`Model::tokenize`] reads it as a token only with `parse_special`; others it always reads as tokens.
    pub is_control: bool,
}

/// A LoRA adapter, to apply to a [`Context`](super::Context).
#[derive(Debug, Clone)]
pub struct LoraAdapter {
    /// Freed by llama.cpp together with the model.
    pub(super) ptr: NonNull<ffi::llama_adapter_lora>,
    pub(super) scale: f32,
    path: PathBuf,
    _model: Model,
}

impl LoraAdapter {
    /// The file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

// SAFETY: an adapter is read-only after loading, like its model, which it keeps alive.
unsafe impl Send for LoraAdapter {}
// SAFETY: see above.
unsafe impl Sync for LoraAdapter {}

/// Whether `label`, which comes from a file, looks like the size of a model: `135M`, `1.5B`, `8x7B`, `30B-A3B`.
fn is_size(label: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    label.len() <= 16 && label.starts_with(|c: char| c.is_ascii_digit()) && label.chars().all(is_part)
}

/// Reads a string with a guarded getter of llama.cpp that writes to a buffer and returns the full length, or a negative
/// number if there is no string.
fn read_string(get: impl Fn(*mut c_char, usize, *mut i32, *mut c_char, usize) -> i32) -> Option<String> {
    let mut buffer = vec![0_u8; 256];
    for _ in 0..2 {
        let (pointer, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        let Outcome { value, .. } = guarded(-1, |n, err, err_len| get(pointer, len, n, err, err_len));
        let n = usize::try_from(value?).ok()?;
        if n < buffer.len() {
            buffer.truncate(n);
            return Some(String::from_utf8_lossy(&buffer).into_owned());
        }
        buffer.resize(n + 1, 0);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_size_is_not_shown() {
        for label in ["135M", "1.5B", "8x7B", "30B-A3B"] {
            assert!(is_size(label), "{label}");
        }
        for label in ["", "large", "7B\x1b[2J", "7 B", "12345678901234567"] {
            assert!(!is_size(label), "{label}");
        }
    }
}
