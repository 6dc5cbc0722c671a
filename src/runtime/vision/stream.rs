//! Encoding parts of an image, with what the encoder computed of earlier images.

use super::super::abort;
use super::super::call::{Outcome, guarded};
use super::{ImageChunk, Vision};
use crate::error::{Error, Result};
use crate::ffi;
use std::ptr::NonNull;

/// A cache of the vision encoder for the images of one video: keys, values and hidden states of all patches, in the
/// memory of its device. With it, only a part of the next image need be computed; the rest stays as it was.
///
/// The smallest part is a *cell*: the patches of one visual token if the encoder merges patches, else a single patch.
/// Cells are numbered row by row.
///
/// Use a stream with one [`Vision`] only, and call [`look`](Self::look) first for each image.
#[derive(Debug)]
pub struct VisionStream {
    ptr: NonNull<ffi::sharpv_vision_stream>,
    /// The number of values of a cell's hidden states, for the image of the last [`look`](Self::look).
    cell_len: usize,
}

// SAFETY: a stream is tied to no thread; whatever uses it takes `&mut self`.
unsafe impl Send for VisionStream {}

impl Drop for VisionStream {
    fn drop(&mut self) {
        // SAFETY: ours, made in `new`.
        unsafe { ffi::sharpv_vision_stream_free(self.ptr.as_ptr()) };
    }
}

/// A preprocessed image, and how the encoder divides it.
///
/// The fields are private, because the size of buffers depends on them:
///
/// ```compile_fail
/// fn forge(image: &mut sharpv::runtime::Image<'_>) {
///     image.n_embd = 1;
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Image<'a> {
    images: Vec<&'a [f32]>,
    raw: ffi::sharpv_image,
}

impl<'a> Image<'a> {
    /// The normalized values, `[height × width × 3]`, of one image, or of two that become one slice.
    pub fn images(&self) -> &[&'a [f32]] {
        &self.images
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.raw.width as usize
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.raw.height as usize
    }

    /// The factor, for each channel, that turns a difference of normalized values into one of pixel values from 0 to 1.
    pub fn scale(&self) -> [f32; 3] {
        self.raw.std
    }

    /// The side of a patch, in pixels.
    pub fn patch(&self) -> usize {
        self.raw.patch as usize
    }

    /// The side of a cell, in patches.
    pub fn merge(&self) -> usize {
        self.raw.merge as usize
    }

    /// The number of cells in a row.
    pub fn cells_x(&self) -> usize {
        self.raw.cells_x as usize
    }

    /// The number of rows of cells.
    pub fn cells_y(&self) -> usize {
        self.raw.cells_y as usize
    }

    /// The number of cells.
    pub fn n_cells(&self) -> usize {
        self.cells_x() * self.cells_y()
    }

    /// The number of values of a patch's hidden state.
    pub fn n_embd(&self) -> usize {
        self.raw.n_embd as usize
    }

    /// The number of values of a cell's hidden states: `merge² · n_embd`.
    pub fn cell_len(&self) -> usize {
        self.merge() * self.merge() * self.n_embd()
    }

    /// The number of layers that the encoder runs.
    pub fn n_layers(&self) -> usize {
        self.raw.n_layers as usize
    }

    /// Whether each cell becomes one visual token, in the same order.
    pub fn cells_are_tokens(&self) -> bool {
        self.raw.cells_are_tokens
    }

    /// The bytes that a stream allocates on the encoder's device for images of this size.
    pub fn cache_bytes(&self) -> u64 {
        self.raw.cache_bytes
    }
}

/// What happens to a cell in the last layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellState {
    /// It stays as it was, and other cells attend to it.
    Kept,
    /// It stays as it was. It has no keys and values in the last layers, so no other cell attends to it.
    Stopped,
    /// It is computed.
    Computed,
    /// Its output is its state before these layers, plus what the most similar row gained in them. No other cell
    /// attends to it.
    Filled,
}

impl CellState {
    fn as_raw(self) -> u8 {
        let raw = match self {
            Self::Kept => ffi::SHARPV_CELL_KEPT,
            Self::Stopped => ffi::SHARPV_CELL_STOPPED,
            Self::Computed => ffi::SHARPV_CELL_COMPUTED,
            Self::Filled => ffi::SHARPV_CELL_FILLED,
        };
        raw as u8
    }
}

impl VisionStream {
    /// Makes an empty stream. It allocates its cache with the first image.
    ///
    /// # Errors
    /// [`Error::Llama`] if memory runs out.
    pub fn new() -> Result<Self> {
        // SAFETY: no arguments; the result is ours.
        let ptr = NonNull::new(unsafe { ffi::sharpv_vision_stream_new() });
        let ptr = ptr.ok_or_else(|| Error::Llama { action: "encoding a frame", reason: "out of memory".into() })?;
        Ok(Self { ptr, cell_len: 0 })
    }

    /// Describes the image of `chunk`, and computes nothing. `None` if the encoder does not support partial computation
    /// or the image cannot be computed in parts. Empties the stream if the size differs from the previous image's.
    ///
    /// # Errors
    /// [`Error::Llama`] if the chunk is a placeholder.
    pub fn look<'a>(&mut self, vision: &mut Vision, chunk: &'a ImageChunk<'_>) -> Result<Option<Image<'a>>> {
        vision.has_encoded = true;
        self.cell_len = 0;
        let mut raw = ffi::sharpv_image::default();
        self.pass(vision, |vision, stream, err, err_len| {
            // SAFETY: all live; `raw` is written to.
            unsafe { ffi::sharpv_try_vision_look(stream, vision, chunk.ptr.as_ptr(), &mut raw, err, err_len) }
        })?;
        if raw.width == 0 {
            return Ok(None);
        }
        let len = 3 * raw.width as usize * raw.height as usize;
        let pointers = raw.images.iter().take(raw.n_images as usize);
        // SAFETY: the chunk owns the images, which have this size (our C++ checks it) and are not changed.
        let images = pointers.map(|&image| unsafe { std::slice::from_raw_parts(image, len) }).collect();
        let image = Image { images, raw };
        self.cell_len = image.cell_len();
        Ok(Some(image))
    }

    /// Computes `cells` (ascending) through all layers. Returns the embeddings of all tokens of the image,
    /// `[n_tokens × n_embd_inp]`, valid until the encoder's next call.
    ///
    /// # Errors
    /// [`Error::Llama`] if encoding fails, which empties the stream; if a cell does not exist; or if the stream is
    /// empty and `cells` are not all cells.
    pub fn encode<'v>(&mut self, vision: &'v mut Vision, chunk: &ImageChunk<'_>, cells: &[u32]) -> Result<&'v [f32]> {
        self.pass(vision, |vision, stream, err, err_len| {
            let (cells, n) = (cells.as_ptr(), cells.len());
            // SAFETY: all live.
            unsafe { ffi::sharpv_try_vision_encode(stream, vision, chunk.ptr.as_ptr(), cells, n, err, err_len) }
        })?;
        vision.output(chunk)
    }

    /// Computes `cells` (ascending) of the image of `chunk` through the first `layer` layers. Returns the hidden states
    /// that enter the next layer, `[cells × merge² × n_embd]`.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode), and [`Error::Llama`] if there is no such layer.
    pub fn begin(
        &mut self,
        vision: &mut Vision,
        chunk: &ImageChunk<'_>,
        cells: &[u32],
        layer: usize,
    ) -> Result<Vec<f32>> {
        let layer = u32::try_from(layer).unwrap_or(u32::MAX);
        let mut middle = vec![0.0; cells.len() * self.cell_len];
        self.pass(vision, |vision, stream, err, err_len| {
            let (cells, n, to, len) = (cells.as_ptr(), cells.len(), middle.as_mut_ptr(), middle.len());
            // SAFETY: all live; both buffers are passed with their lengths, and our C++ checks that `middle` has the
            // length of the states.
            unsafe {
                ffi::sharpv_try_vision_begin(stream, vision, chunk.ptr.as_ptr(), cells, n, layer, to, len, err, err_len)
            }
        })?;
        Ok(middle)
    }

    /// Computes the remaining layers for some of the cells of [`begin`](Self::begin). `states` has one entry for each
    /// cell of the image. Returns the embeddings of all tokens, as [`encode`](Self::encode) does.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn finish<'v>(
        &mut self,
        vision: &'v mut Vision,
        chunk: &ImageChunk<'_>,
        states: &[CellState],
    ) -> Result<&'v [f32]> {
        let states: Vec<u8> = states.iter().map(|state| state.as_raw()).collect();
        self.pass(vision, |vision, stream, err, err_len| {
            let (states, n) = (states.as_ptr(), states.len());
            // SAFETY: all live.
            unsafe { ffi::sharpv_try_vision_finish(stream, vision, chunk.ptr.as_ptr(), states, n, err, err_len) }
        })?;
        vision.output(chunk)
    }

    /// Calls one of our C functions with the encoder and the stream.
    fn pass(
        &mut self,
        vision: &mut Vision,
        call: impl FnOnce(*mut ffi::mtmd_context, *mut ffi::sharpv_vision_stream, *mut std::ffi::c_char, usize) -> i32,
    ) -> Result<()> {
        let (context, stream) = (vision.ptr.as_ptr(), self.ptr.as_ptr());
        let Outcome { value, reason } =
            abort::at_work_on(&vision.path, || guarded((), |(), err, err_len| call(context, stream, err, err_len)));
        value.ok_or(Error::Llama { action: "encoding a frame", reason })
    }
}
