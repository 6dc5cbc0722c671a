//! The memory that a model and its vision encoder would need on each device, before they are loaded.

use super::memory::{DeviceMemory, by_device};
use super::vision::raw_params;
use super::{CancelToken, Context, ContextParams, Model, ModelParams, VisionParams, backend, device, log, model};
use crate::error::{Error, Result};
use crate::ffi;
use std::path::Path;

/// The memory that a language model would need.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ModelNeed {
    /// Its layers, with the output counted as one, as [`ModelParams::n_gpu_layers`] counts them.
    pub n_layers: u32,
    /// Bytes by device: the weights, and the KV cache and the buffers of the context.
    pub devices: Vec<DeviceMemory>,
}

impl ModelNeed {
    /// Reads the header of the GGUF file at `path`, and plans the model with `params` and a context with `context`.
    /// Allocates no weights, cells or buffers.
    ///
    /// # Errors
    /// Those of [`Model::load`] and [`Context::new`].
    pub fn of(path: &Path, params: &ModelParams, context: &ContextParams) -> Result<Self> {
        log::quietly(|| Self::plan(path, params, context))
    }

    fn plan(path: &Path, params: &ModelParams, context: &ContextParams) -> Result<Self> {
        let shadow = Model::load_shadow(path, params)?;
        let n_ctx = context.n_ctx.min(shadow.n_ctx_train().max(1));
        let context = ContextParams { n_ctx, ..context.clone() };
        let context = Context::new(&shadow, &context, &[], &CancelToken::new())?;
        Ok(Self { n_layers: shadow.n_layer() as u32 + 1, devices: context.memory_by_device()? })
    }
}

/// Returns the memory that the vision encoder in the GGUF file at `path` would need on each device: its weights, and
/// the buffers for an image of the size that llama.cpp plans with. Loads nothing.
///
/// # Errors
/// [`Error::Load`] if the file has no vision encoder; [`Error::InvalidParameter`] for a number of threads out of range.
pub fn vision_need(path: &Path, params: &VisionParams) -> Result<Vec<DeviceMemory>> {
    backend::init()?;
    let c_path = model::c_path(path)?;
    let mut raw = raw_params(params)?;
    // The buffers are counted only if they are planned, and the warm-up plans them.
    raw.warmup = true;
    let _registry = device::hold_registry();
    let ask = |out, capacity, n, err, err_len| {
        // SAFETY: the path outlives the call; `by_device` passes an array with its length.
        unsafe { ffi::sharpv_vision_memory(c_path.as_ptr(), raw, out, capacity, n, err, err_len) }
    };
    let found = log::quietly(|| by_device(ask));
    let failed = |reason| Error::Load { what: "the mmproj of this model", path: path.to_owned(), reason };
    match found {
        Ok(found) if found.is_empty() => Err(failed("llama.cpp finds no encoder in it".into())),
        found => found.map_err(failed),
    }
}
