//! Converting the weights of a model file to another type.

use super::call::guarded;
use super::model::c_path;
use super::{abort, backend};
use crate::error::{Error, Result};
use crate::ffi;
use std::path::Path;

/// A type in which the matrices of a model are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, strum::Display)]
#[non_exhaustive]
pub enum WeightType {
    /// bfloat16: the range of a 32-bit float, and 8 bits of precision.
    #[strum(serialize = "BF16")]
    #[serde(rename = "BF16")]
    Bf16,
    /// Blocks of 32 signed bytes with a scale.
    #[strum(serialize = "Q8_0")]
    #[serde(rename = "Q8_0")]
    Q8_0,
}

/// Writes the GGUF file `source`, a language model or a multimodal projector, to `target` with its matrices in the type
/// `weights`. Tensors that llama.cpp's own tool does not convert (vectors, convolutions, tables of positions) stay as
/// they are. `label` is a key and a value for the metadata of the copy, each at most 127 bytes long.
///
/// Converting some hundred megabytes takes a second, and cannot be cancelled.
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened; [`Error::Unusable`] with llama.cpp's reason if it cannot be converted or
/// `target` cannot be written. The file at `target` is unusable then.
pub fn convert(source: &Path, target: &Path, weights: WeightType, label: Option<(&str, &str)>) -> Result<()> {
    backend::init()?;
    std::fs::File::open(source).map_err(Error::io("opening the model", source))?;
    let (input, output) = (c_path(source)?, c_path(target)?);
    // SAFETY: returns a plain struct.
    let mut params = unsafe { ffi::llama_model_quantize_default_params() };
    params.ftype = match weights {
        WeightType::Bf16 => ffi::LLAMA_FTYPE_MOSTLY_BF16,
        WeightType::Q8_0 => ffi::LLAMA_FTYPE_MOSTLY_Q8_0,
    };
    params.allow_requantize = true;
    // An empty key ends the list.
    let mut overrides = [ffi::llama_model_kv_override::default(), ffi::llama_model_kv_override::default()];
    if let Some((key, value)) = label {
        overrides[0].tag = ffi::LLAMA_KV_OVERRIDE_TYPE_STR;
        copy_text(&mut overrides[0].key, key)?;
        let mut text = [0; 128];
        copy_text(&mut text, value)?;
        overrides[0].__bindgen_anon_1.val_str = text;
        params.kv_overrides = overrides.as_ptr();
    }
    // SAFETY: the strings and the parameters outlive the call, which keeps none of them.
    let call = |status: &mut u32, err, err_len| unsafe {
        ffi::sharpv_try_model_quantize(input.as_ptr(), output.as_ptr(), &params, status, err, err_len)
    };
    let outcome = abort::at_work_on(source, || guarded(1, call));
    match outcome.value {
        Some(0) => Ok(()),
        _ => Err(Error::Unusable {
            what: crate::error::FileKind::Weights,
            path: source.to_owned(),
            reason: format!("its weights cannot be written as {weights}: {}", outcome.reason),
            advice: "use the file as it is".into(),
        }),
    }
}

/// Copies `text` into `target` as a C string.
fn copy_text(target: &mut [std::ffi::c_char; 128], text: &str) -> Result<()> {
    if text.len() >= target.len() || text.contains('\0') {
        return Err(Error::InvalidParameter {
            name: "label",
            value: text.to_owned(),
            expected: "at most 127 bytes, none of them zero".into(),
        });
    }
    for (to, from) in target.iter_mut().zip(text.bytes()) {
        *to = std::ffi::c_char::from_ne_bytes([from]);
    }
    Ok(())
}
