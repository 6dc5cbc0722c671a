//! The vision encoder at work on parts of images that follow each other.

use super::super::abort;
use super::super::call::{Outcome, guarded};
use super::{ImageChunk, Vision};
use crate::error::{Error, Result};
use crate::ffi;
use std::ptr::NonNull;

/// What the encoder keeps of the images of one video: keys, values and hidden states of all their patches, in the
/// memory of its device. With it the next image may be computed in part; what is left out is as it was.
///
/// The least part is a *cell*: the patches of one visual token where the encoder merges patches, else a single patch.
/// Cells are numbered row by row.
///
/// It belongs to the [`Vision`] that it is used with; [`look`](Self::look) comes first for each image.
#[derive(Debug)]
pub struct VisionStream {
    ptr: NonNull<ffi::sharpv_vision_stream>,
    /// Values of a cell's hidden states, of the image that was looked at last.
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

/// An image as the encoder sees it, and how it is divided.
///
/// It tells what is, and cannot be made to tell anything else:
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
    /// One image, or two that become one slice: `[height × width × 3]`, normalized.
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

    /// By how much to multiply a difference of normalized values to have it in pixels of 0 to 1, for each channel.
    pub fn scale(&self) -> [f32; 3] {
        self.raw.std
    }

    /// Side of a patch, in pixels.
    pub fn patch(&self) -> usize {
        self.raw.patch as usize
    }

    /// Patches on the side of a cell.
    pub fn merge(&self) -> usize {
        self.raw.merge as usize
    }

    /// Cells in a row.
    pub fn cells_x(&self) -> usize {
        self.raw.cells_x as usize
    }

    /// Rows of cells.
    pub fn cells_y(&self) -> usize {
        self.raw.cells_y as usize
    }

    /// How many cells it has.
    pub fn n_cells(&self) -> usize {
        self.cells_x() * self.cells_y()
    }

    /// Values of a patch's hidden state.
    pub fn n_embd(&self) -> usize {
        self.raw.n_embd as usize
    }

    /// Values of a cell's hidden states: `merge² · n_embd`.
    pub fn cell_len(&self) -> usize {
        self.merge() * self.merge() * self.n_embd()
    }

    /// Layers of the encoder that are run.
    pub fn n_layers(&self) -> usize {
        self.raw.n_layers as usize
    }

    /// Whether each cell becomes one visual token, in the same order.
    pub fn cells_are_tokens(&self) -> bool {
        self.raw.cells_are_tokens
    }

    /// Bytes that a stream takes on the encoder's device for images of this size.
    pub fn cache_bytes(&self) -> u64 {
        self.raw.cache_bytes
    }
}

/// What becomes of a cell in the last layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellState {
    /// It stays as it was; others see it.
    Kept,
    /// It stays as it was: it did not go through the last layers then, and is seen by none.
    Stopped,
    /// It goes through them now.
    Computed,
    /// It gets what it was before these layers, plus what the most alike row gained in them; it is seen by none.
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
    /// A stream that has seen nothing. It takes memory from the first image on.
    ///
    /// # Errors
    /// [`Error::Llama`] if there is no memory at all.
    pub fn new() -> Result<Self> {
        // SAFETY: no arguments; the result is ours.
        let ptr = NonNull::new(unsafe { ffi::sharpv_vision_stream_new() });
        let ptr = ptr.ok_or_else(|| Error::Llama { action: "encoding a frame", reason: "out of memory".into() })?;
        Ok(Self { ptr, cell_len: 0 })
    }

    /// Looks at the image of `chunk` and computes nothing. `None` if this encoder, or this image, cannot be
    /// computed in parts. An image of another size than the one before empties the stream.
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
        // SAFETY: the chunk owns the images, which have this size (our C++ looked) and are not changed.
        let images = pointers.map(|&image| unsafe { std::slice::from_raw_parts(image, len) }).collect();
        let image = Image { images, raw };
        self.cell_len = image.cell_len();
        Ok(Some(image))
    }

    /// Computes `cells` (ascending) through all layers. Returns the embeddings of all tokens of the image,
    /// `[n_tokens × n_embd_inp]`; they stay until the encoder's next call.
    ///
    /// # Errors
    /// [`Error::Llama`] if encoding fails, if there are no such cells, or if some are left out of a first image. The
    /// stream is empty then.
    pub fn encode<'v>(&mut self, vision: &'v mut Vision, chunk: &ImageChunk<'_>, cells: &[u32]) -> Result<&'v [f32]> {
        self.pass(vision, |vision, stream, err, err_len| {
            let (cells, n) = (cells.as_ptr(), cells.len());
            // SAFETY: all live.
            unsafe { ffi::sharpv_try_vision_encode(stream, vision, chunk.ptr.as_ptr(), cells, n, err, err_len) }
        })?;
        vision.output(chunk)
    }

    /// Computes `cells` (ascending) of the image of `chunk` through the first `layer` layers. Returns what enters the
    /// next one, `[cells × merge² × n_embd]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and if there is no such layer.
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
            // SAFETY: all live; both buffers are passed with their lengths, and ours looks whether `middle` has that of
            // the states.
            unsafe {
                ffi::sharpv_try_vision_begin(stream, vision, chunk.ptr.as_ptr(), cells, n, layer, to, len, err, err_len)
            }
        })?;
        Ok(middle)
    }

    /// Goes on behind [`begin`](Self::begin) with some of its cells. `states` has one for each cell of the image.
    /// Returns what [`encode`](Self::encode) does.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
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

    /// Calls one of our C functions.
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
