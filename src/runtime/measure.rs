//! What a model and its vision encoder would take of each device, told before they are loaded.

use super::memory::{DeviceMemory, by_device};
use super::vision::raw_params;
use super::{CancelToken, Context, ContextParams, Model, ModelParams, VisionParams, backend, device, log, model};
use crate::error::{Error, Result};
use crate::ffi;
use std::path::Path;

/// What a language model would take.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ModelNeed {
    /// Its layers, the output behind the last counted as one: what [`ModelParams::n_gpu_layers`] counts.
    pub n_layers: u32,
    /// Bytes by device: the weights, and the KV cache and the buffers of the context that was asked about.
    pub devices: Vec<DeviceMemory>,
}

impl ModelNeed {
    /// Reads the header of the GGUF file at `path`, and plans it and a context as they would be with `params` and
    /// `context`. Allocates nothing for weights, cells and buffers.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Context::new`].
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

/// What the vision encoder in the GGUF file at `path` would take of each device: weights, and the buffers for an image
/// of the size that llama.cpp plans with. Nothing is loaded.
///
/// # Errors
/// [`Error::Load`] if it cannot be told; [`Error::InvalidParameter`] for a number of threads out of range.
pub fn vision_need(path: &Path, params: &VisionParams) -> Result<Vec<DeviceMemory>> {
    backend::init()?;
    let c_path = model::c_path(path)?;
    let mut raw = raw_params(params)?;
    // Plans the buffers, without which they are not counted.
    raw.warmup = true;
    let _registry = device::hold_registry();
    let ask = |out, capacity, n, err, err_len| {
        // SAFETY: the path outlives the call; `by_device` gives an array with its length.
        unsafe { ffi::sharpv_vision_memory(c_path.as_ptr(), raw, out, capacity, n, err, err_len) }
    };
    let found = log::quietly(|| by_device(ask));
    let failed = |reason| Error::Load { what: "the mmproj of this model", path: path.to_owned(), reason };
    match found {
        Ok(found) if found.is_empty() => Err(failed("what it takes cannot be told".into())),
        found => found.map_err(failed),
    }
}
