//! Finds and downloads models: names, paths, downloads, checksums.
//!
//! A model consists of up to three kinds of GGUF files ([`ModelFiles`]). [`resolve`] finds them by a known name
//! ([`known`]) or by path. [`pull`] downloads a known model to the cache folder ([`cache_dir`]); the files trained for
//! it are compiled in with the feature of the model's name. The module `hub` (feature `hub`) provides models from
//! Hugging Face, `ORG/REPO[:QUANT]`. `obtain` accepts all three. [`video_llms`] lists VideoLLMs on Hugging Face and
//! what they need.
//!
//! ```no_run
//! use sharpv::models;
//!
//! models::pull("smol", &mut ())?; // `()` shows no progress
//! let files = models::resolve("smol", None, &[])?;
//! println!("{}", files.model.display());
//! # Ok::<(), sharpv::Error>(())
//! ```

mod assemble;
mod check;
mod download;
mod files;
mod fingerprint;
pub mod gguf;
#[cfg(feature = "hub")]
pub mod hub;
mod known;
mod resolve;
mod store;
mod video_llms;

use std::path::{Path, PathBuf};

pub use crate::names::ModelDigest;
pub use assemble::Recipe;
pub use check::check;
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) use check::fuzz_header;
pub use download::PyPiSource;
pub use fingerprint::digest;
pub(crate) use fingerprint::{COPY_OF, fingerprint};
pub use known::{Content, KnownFile, KnownModel, Origin, known};
pub use store::Store;
pub use video_llms::{FrameTokens, VideoLlm, video_llms};

use crate::error::Result;
use crate::observer::Observer;

/// The files of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFiles {
    /// The name of a known model, `ORG/REPO:QUANT` on a hub, or the file name of the language model without its
    /// extension.
    pub name: String,
    /// The language model.
    pub model: PathBuf,
    /// The multimodal projector: the vision encoder and the connector to the language model.
    pub mmproj: Option<PathBuf>,
    /// LoRA adapters of the language model, in the order in which they are applied.
    pub lora: Vec<PathBuf>,
}

/// The folder for models and downloads: `SHARPV_HOME`, or `sharpv` in the user's cache folder (`$XDG_CACHE_HOME` or
/// `~/.cache` on Linux, `~/Library/Caches` on macOS). It may not exist yet.
///
/// # Errors
/// [`Error::NoCacheDir`](crate::Error::NoCacheDir) if `SHARPV_HOME` is not set and the user has no home.
pub fn cache_dir() -> Result<PathBuf> {
    Ok(Store::from_env()?.root().to_owned())
}

/// The files of a model, by name or path, with the cache at [`cache_dir`]. See [`Store::resolve`].
///
/// # Errors
/// As [`Store::resolve`].
pub fn resolve(spec: &str, mmproj: Option<&Path>, lora: &[PathBuf]) -> Result<ModelFiles> {
    Store::from_env()?.resolve(spec, mmproj, lora)
}

/// The files of a model, by known name, path, or `ORG/REPO[:QUANT]` on the hub, from which it is downloaded if
/// necessary. A path that exists is never taken for a repository.
///
/// `memory` is the memory for the model, in bytes. It limits the quantizations to choose from if none is named; `None`
/// ignores memory.
///
/// # Errors
/// As [`Store::resolve`] and [`hub::Hub::pull`].
#[cfg(feature = "hub")]
pub fn obtain(
    spec: &str,
    mmproj: Option<&Path>,
    lora: &[PathBuf],
    memory: Option<u64>,
    observer: &mut dyn Observer,
) -> Result<ModelFiles> {
    match hub::HubSpec::parse(spec) {
        Some(name) if KnownModel::find(spec).is_err() && !Path::new(spec).exists() => {
            resolve::from_hub(&hub::Hub::from_env()?, &name, (mmproj, lora), memory, observer)
        }
        _ => resolve(spec, mmproj, lora),
    }
}

/// Downloads the known model `name` to the cache at [`cache_dir`]. See [`Store::pull`].
///
/// # Errors
/// [`Error::UnknownModel`](crate::Error::UnknownModel), or as [`Store::pull`].
pub fn pull(name: &str, observer: &mut dyn Observer) -> Result<ModelFiles> {
    Store::from_env()?.pull(KnownModel::find(name)?, observer)
}

/// The known models that are complete in the cache at [`cache_dir`].
///
/// # Errors
/// As [`cache_dir`].
pub fn installed() -> Result<Vec<ModelFiles>> {
    let store = Store::from_env()?;
    Ok(known().iter().filter_map(|model| store.files(model)).collect())
}
