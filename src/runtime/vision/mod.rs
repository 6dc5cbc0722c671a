//! The vision encoder (mtmd): turns images into one embedding for each visual token.

mod stream;

pub use stream::{CellState, Image, VisionStream};

use super::call::{Outcome, guarded};
use super::context::{FlashAttention, Position, threads};
use super::model::{OnProgress, c_path, report_progress};
use super::{Model, Token, abort, device};
use crate::error::{Error, Result};
use crate::ffi;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// How to load and run the vision encoder.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct VisionParams {
    /// Run it on the GPU, if there is one.
    pub use_gpu: bool,
    /// Threads, up to 512; `None` means one for each core.
    pub n_threads: Option<usize>,
    /// When to use flash attention in the encoder.
    pub flash_attention: FlashAttention,
}

impl Default for VisionParams {
    fn default() -> Self {
        Self { use_gpu: true, n_threads: None, flash_attention: FlashAttention::Auto }
    }
}

/// Converts `params` for mtmd.
pub(super) fn raw_params(params: &VisionParams) -> Result<ffi::mtmd_context_params> {
    // SAFETY: returns a plain struct.
    let mut raw = unsafe { ffi::mtmd_context_params_default() };
    raw.use_gpu = params.use_gpu;
    raw.n_threads = threads(params.n_threads)?;
    raw.flash_attn_type = params.flash_attention.as_raw();
    raw.print_timings = false;
    // The warm-up encodes a blank image. It would cost a second at every start, and the first frame does the same.
    raw.warmup = false;
    Ok(raw)
}

/// A loaded `mmproj` file: vision encoder and projector, bound to the language model that they belong to.
#[derive(Debug)]
pub struct Vision {
    ptr: NonNull<ffi::mtmd_context>,
    model: Model,
    path: PathBuf,
    has_encoded: bool,
}

// SAFETY: an mtmd context is tied to no thread; encoding takes `&mut self`.
unsafe impl Send for Vision {}

impl Drop for Vision {
    fn drop(&mut self) {
        // SAFETY: ours, made in `load`.
        unsafe { ffi::mtmd_free(self.ptr.as_ptr()) };
    }
}

impl Vision {
    /// Loads the `mmproj` GGUF file at `path` for `model`. `on_progress` is called with values from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened; [`Error::Load`] if it is no mmproj, belongs to another model, or has
    /// only an audio encoder; [`Error::InvalidParameter`] for a number of threads out of range.
    pub fn load(path: &Path, model: &Model, params: &VisionParams, mut on_progress: impl FnMut(f32)) -> Result<Self> {
        std::fs::File::open(path).map_err(Error::io("opening the mmproj", path))?;
        let c_path = c_path(path)?;
        let mut report: OnProgress<'_> = &mut on_progress;
        let mut raw = raw_params(params)?;
        raw.progress_callback = Some(report_progress);
        raw.progress_callback_user_data = (&raw mut report).cast();
        let failed = |reason| Error::Load { what: "the mmproj of this model", path: path.to_owned(), reason };
        let _registry = device::hold_registry();
        // SAFETY: path and callback outlive the call; the model outlives the context, which holds a clone.
        let load = |result: &mut _, err, err_len| unsafe {
            ffi::sharpv_try_mtmd_init_from_file(c_path.as_ptr(), model.as_ptr(), raw, result, err, err_len)
        };
        let loaded = abort::at_work_on(path, || guarded(std::ptr::null_mut(), load));
        let reason = if loaded.reason.contains("mismatch between text model") {
            let width = model.n_embd_inp();
            let model = model.path().display();
            format!(
                "it was made for another model: {model} takes embeddings of {width} values; use the mmproj that came with it"
            )
        } else {
            loaded.reason
        };
        let vision = Self {
            ptr: loaded.value.and_then(NonNull::new).ok_or_else(|| failed(reason))?,
            model: model.clone(),
            path: path.to_owned(),
            has_encoded: false,
        };
        // SAFETY: a getter.
        if !unsafe { ffi::mtmd_support_vision(vision.ptr.as_ptr()) } {
            return Err(failed("it has only an audio encoder; use the mmproj of a model with a vision encoder".into()));
        }
        Ok(vision)
    }

    /// The file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has begun to encode an image, and so has allocated its buffers, which it keeps.
    pub fn has_encoded(&self) -> bool {
        self.has_encoded
    }

    /// Whether visual tokens have positions in time, height and width (M-RoPE) rather than a running number.
    pub fn uses_mrope(&self) -> bool {
        // SAFETY: a getter.
        unsafe { ffi::mtmd_decode_use_mrope(self.ptr.as_ptr()) }
    }

    /// Whether attention within an image is not causal, so that an image must be one batch.
    pub fn uses_non_causal(&self) -> bool {
        // SAFETY: a getter; null means any image.
        unsafe { ffi::mtmd_decode_use_non_causal(self.ptr.as_ptr(), std::ptr::null()) }
    }

    /// Splits a prompt into chunks of text tokens and of visual tokens, as mtmd does, which puts the model's own begin
    /// and end markers around each image.
    ///
    /// Images may be [placeholders](Bitmap::placeholder). Their chunks have counts and positions, but cannot be
    /// encoded.
    ///
    /// # Errors
    /// [`Error::Llama`] if an image cannot be preprocessed.
    pub fn tokenize(&self, parts: &[Part<'_>], add_special: bool) -> Result<Chunks> {
        self.tokenize_as(parts, add_special, false)
    }

    /// As [`tokenize`](Self::tokenize), for frames that need not be cut into tiles. For models that scale images up to
    /// cut them into many tiles and an overview (SmolVLM), the overview is the last chunk; one tile may precede it.
    ///
    /// # Errors
    /// Those of [`tokenize`](Self::tokenize).
    pub fn tokenize_whole(&self, parts: &[Part<'_>]) -> Result<Chunks> {
        self.tokenize_as(parts, false, true)
    }

    fn tokenize_as(&self, parts: &[Part<'_>], add_special: bool, whole: bool) -> Result<Chunks> {
        let texts: Vec<_> = parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => ffi::mtmd_input_text {
                    text: text.as_ptr().cast(),
                    text_len: text.len(),
                    add_special: false,
                    parse_special: true,
                },
                Part::Image(_) => ffi::mtmd_input_text::default(),
            })
            .collect();
        let raw_parts: Vec<_> = parts
            .iter()
            .zip(&texts)
            .map(|(part, text)| match part {
                Part::Text(_) => ffi::mtmd_input_part { text, bitmap: std::ptr::null() },
                Part::Image(bitmap) => {
                    ffi::mtmd_input_part { text: std::ptr::null(), bitmap: bitmap.ptr.as_ptr().cast_const() }
                }
            })
            .collect();
        let pointers: Vec<*const ffi::mtmd_input_part> = raw_parts.iter().map(|p| p as *const _).collect();
        let failed = |reason| Error::Llama { action: "preparing the prompt", reason };
        // SAFETY: the result is ours.
        let made = guarded(std::ptr::null_mut(), |result, err, err_len| unsafe {
            ffi::sharpv_try_mtmd_input_chunks_init(result, err, err_len)
        });
        let ptr = made.value.and_then(NonNull::new).ok_or_else(|| failed(made.reason))?;
        let chunks = Chunks { ptr };
        // SAFETY: parts, texts and bitmaps outlive the call.
        let Outcome { value, reason } = guarded(0, |status, err, err_len| unsafe {
            ffi::sharpv_try_mtmd_tokenize_from_parts(
                self.ptr.as_ptr(),
                chunks.ptr.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                add_special,
                whole,
                status,
                err,
                err_len,
            )
        });
        if value == Some(0) { Ok(chunks) } else { Err(failed(reason)) }
    }

    /// Encodes the image of `chunk`. Returns its embeddings, `[n_tokens × n_embd_inp]`, valid until the next call.
    ///
    /// # Errors
    /// [`Error::Llama`] if encoding fails, for example because memory runs out, or if the chunk is a placeholder.
    pub fn encode(&mut self, chunk: &ImageChunk<'_>) -> Result<&[f32]> {
        self.has_encoded = true;
        // SAFETY: context and chunk live.
        let encode = |result: &mut _, err, err_len| unsafe {
            ffi::sharpv_try_mtmd_encode_chunk(self.ptr.as_ptr(), chunk.ptr.as_ptr(), result, err, err_len)
        };
        let Outcome { value, reason } = abort::at_work_on(&self.path, || guarded(0, encode));
        if value != Some(0) {
            return Err(Error::Llama { action: "encoding a frame", reason });
        }
        self.output(chunk)
    }

    /// Returns the embeddings of `chunk`, which was just encoded.
    fn output(&mut self, chunk: &ImageChunk<'_>) -> Result<&[f32]> {
        // SAFETY: the context lives and has just encoded.
        let data = unsafe { ffi::mtmd_get_output_embd(self.ptr.as_ptr()) };
        if data.is_null() {
            return Err(Error::Llama { action: "encoding a frame", reason: "there are no embeddings".into() });
        }
        // SAFETY: mtmd documents the size: n_embd_inp floats for each token of the chunk.
        Ok(unsafe { std::slice::from_raw_parts(data, chunk.n_tokens() * self.model.n_embd_inp()) })
    }

    /// Prefills `chunks` into `context` exactly as llama.cpp's own tools do: one call for each chunk of text and each
    /// image, nothing pruned. Tests compare the one-pass prefill with this.
    ///
    /// Returns the next position.
    ///
    /// # Errors
    /// [`Error::Llama`] if encoding or computing fails.
    pub fn eval_stock(
        &mut self,
        context: &mut super::Context,
        chunks: &Chunks,
        position: i32,
        n_batch: usize,
    ) -> Result<i32> {
        let mut next = position;
        let n_batch = i32::try_from(n_batch.max(1)).unwrap_or(i32::MAX);
        let pointer = context.as_ptr();
        // SAFETY: all objects live and belong together.
        let Outcome { value, reason } = context.guarded(0, |result, err, err_len| unsafe {
            ffi::sharpv_try_mtmd_helper_eval_chunks(
                self.ptr.as_ptr(),
                pointer,
                chunks.ptr.as_ptr(),
                position,
                0,
                n_batch,
                true,
                &mut next,
                result,
                err,
                err_len,
            )
        });
        context.note_logits(value == Some(0));
        if value == Some(0) { Ok(next) } else { Err(Error::Llama { action: "evaluating the prompt", reason }) }
    }
}

/// One part of a prompt.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Text. Names of control tokens in it become these tokens.
    Text(&'a str),
    /// An image.
    Image(&'a Bitmap),
}

/// An image for the vision encoder.
#[derive(Debug)]
pub struct Bitmap {
    ptr: NonNull<ffi::mtmd_bitmap>,
}

// SAFETY: a bitmap owns its pixels and is only read after it was made.
unsafe impl Send for Bitmap {}
// SAFETY: see above.
unsafe impl Sync for Bitmap {}

impl Drop for Bitmap {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::mtmd_bitmap_free(self.ptr.as_ptr()) };
    }
}

impl Bitmap {
    /// Copies an image of `width × height` RGB pixels, `width * height * 3` bytes. Models that merge pairs of frames
    /// (Qwen-VL) make one slice of two adjacent images that are `mergeable`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if `rgb` has another length, or the image is empty.
    pub fn rgb(width: u32, height: u32, rgb: &[u8], mergeable: bool) -> Result<Self> {
        let expected = [height as usize, 3].iter().try_fold(width as usize, |n, &side| n.checked_mul(side));
        if expected != Some(rgb.len()) || rgb.is_empty() {
            return Err(Error::InvalidParameter {
                name: "image",
                value: format!("{width}×{height} with {} bytes", rgb.len()),
                expected: "at least 1×1, three bytes per pixel".into(),
            });
        }
        // SAFETY: the data has the size that the dimensions imply; it is copied.
        unsafe { Self::make(width, height, rgb.as_ptr(), mergeable) }
    }

    /// Makes an image without pixels, to find out how many tokens it would have.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the image is empty.
    pub fn placeholder(width: u32, height: u32, mergeable: bool) -> Result<Self> {
        if width == 0 || height == 0 {
            return Self::rgb(width, height, &[], mergeable);
        }
        // SAFETY: null data makes a placeholder.
        unsafe { Self::make(width, height, std::ptr::null(), mergeable) }
    }

    /// # Safety
    /// `data` must be null, or point to `width * height * 3` bytes.
    unsafe fn make(width: u32, height: u32, data: *const u8, mergeable: bool) -> Result<Self> {
        // SAFETY: as for this function.
        let made = guarded(std::ptr::null_mut(), |result, err, err_len| unsafe {
            ffi::sharpv_try_mtmd_bitmap_init(width, height, data, result, err, err_len)
        });
        let reason = made.reason;
        let ptr = made.value.and_then(NonNull::new).ok_or(Error::Llama { action: "making an image", reason })?;
        // SAFETY: just made.
        unsafe { ffi::mtmd_bitmap_set_mergeable(ptr.as_ptr(), mergeable) };
        Ok(Self { ptr })
    }
}

/// A prompt split into chunks.
#[derive(Debug)]
pub struct Chunks {
    ptr: NonNull<ffi::mtmd_input_chunks>,
}

// SAFETY: chunks own their data and are only read after `Vision::tokenize` made them.
unsafe impl Send for Chunks {}

impl Drop for Chunks {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::mtmd_input_chunks_free(self.ptr.as_ptr()) };
    }
}

impl Chunks {
    /// The chunks in prompt order. None of them is audio, because no [`Part`] is.
    pub fn iter(&self) -> impl Iterator<Item = Chunk<'_>> {
        // SAFETY: a getter.
        let n = unsafe { ffi::mtmd_input_chunks_size(self.ptr.as_ptr()) };
        (0..n).filter_map(|i| {
            // SAFETY: the index is below the size; the chunk lives as long as `self`.
            unsafe {
                let ptr = ffi::mtmd_input_chunks_get(self.ptr.as_ptr(), i);
                if ffi::mtmd_input_chunk_get_type(ptr) == ffi::MTMD_INPUT_CHUNK_TYPE_TEXT {
                    let mut n_tokens = 0;
                    let tokens = ffi::mtmd_input_chunk_get_tokens_text(ptr, &mut n_tokens);
                    let tokens = if n_tokens == 0 { &[] } else { std::slice::from_raw_parts(tokens, n_tokens) };
                    Some(Chunk::Text(tokens))
                } else {
                    NonNull::new(ptr.cast_mut()).map(|ptr| Chunk::Image(ImageChunk { ptr, _chunks: PhantomData }))
                }
            }
        })
    }

    /// The chunks that hold images.
    pub fn images(&self) -> impl Iterator<Item = ImageChunk<'_>> {
        self.iter().filter_map(|chunk| match chunk {
            Chunk::Image(image) => Some(image),
            Chunk::Text(_) => None,
        })
    }
}

/// One chunk of a prompt.
#[derive(Debug)]
pub enum Chunk<'a> {
    /// Text tokens.
    Text(&'a [Token]),
    /// The visual tokens of one image, of one merged pair, or of one tile.
    Image(ImageChunk<'a>),
}

/// A chunk of visual tokens.
#[derive(Debug)]
pub struct ImageChunk<'a> {
    ptr: NonNull<ffi::mtmd_input_chunk>,
    _chunks: PhantomData<&'a Chunks>,
}

impl ImageChunk<'_> {
    /// The number of its visual tokens.
    pub fn n_tokens(&self) -> usize {
        // SAFETY: a getter; the chunk lives as long as its list.
        unsafe { ffi::mtmd_input_chunk_get_n_tokens(self.ptr.as_ptr()) }
    }

    /// By how much it advances the position of what follows: the number of its tokens, or under M-RoPE its longest
    /// side.
    pub fn n_pos(&self) -> i32 {
        // SAFETY: as above.
        unsafe { ffi::mtmd_input_chunk_get_n_pos(self.ptr.as_ptr()) }
    }

    /// Returns the position of each token if the chunk begins at `first`.
    pub fn positions(&self, first: i32, mrope: bool) -> Vec<Position> {
        if !mrope {
            return (first..).take(self.n_tokens()).map(|p| [p, 0, 0, 0]).collect();
        }
        (0..self.n_tokens())
            .map(|i| {
                // SAFETY: the index is below the number of tokens; an image chunk has image tokens.
                let p = unsafe {
                    let tokens = ffi::mtmd_input_chunk_get_tokens_image(self.ptr.as_ptr());
                    ffi::mtmd_image_tokens_get_decoder_pos(tokens, first, i)
                };
                // The order of M-RoPE's sections in llama.cpp.
                [p.t as i32, p.y as i32, p.x as i32, p.z as i32]
            })
            .collect()
    }
}
