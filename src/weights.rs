//! Weights in the type that the processor computes fastest.
//!
//! The type of a model file is chosen for size or precision; which type is fastest depends on the processor. A
//! processor with BF16 instructions runs an encoder in BF16 in two thirds to three quarters of the time that F16 takes,
//! and llama.cpp has no matrix kernel for Q4_1. [`faster`] encodes the measurements in docs/results.md, "Types of
//! weights". A copy is made once, in the cache folder, and is used when the CPU does the computing. The original file
//! stays as it is.

use crate::error::{Error, Result};
use crate::models::gguf::{self, Kind};
use crate::models::{self, ModelFiles, Store};
use crate::observer::Observer;
use crate::runtime::{self, DeviceKind, ModelParams, VisionParams, WeightType};
use std::path::{Path, PathBuf};

/// Which weights to compute with.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_choice)]
#[non_exhaustive]
pub enum Weights {
    /// Use the faster copies that exist.
    #[default]
    Auto,
    /// Use the original files.
    Exact,
    /// Use faster copies, and make those that are missing.
    Fast,
}

fn unknown_choice(name: &str) -> Error {
    Error::unknown_name::<Weights>("weights", name)
}

/// Language models of more bytes than this are not copied: decoding reads all weights for each token, so a copy in a
/// larger type would lose more time in reading than it gains in computing. Measured at 98 MB: decoding is as fast.
const SMALL_MODEL: u64 = 256 << 20;

/// The processor features that decide which type is fastest, as far as this build's CPU code uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// AVX-512 BF16: multiplies BF16.
    pub bf16: bool,
    /// AMX INT8: multiplies tiles of bytes. llama.cpp has AMX kernels for the quantized types.
    pub amx: bool,
}

impl Processor {
    /// The processor of this machine.
    pub fn here() -> Self {
        let info = runtime::system_info();
        let has = |feature: &str| info.contains(&format!("{feature} = 1"));
        Self { bf16: has("AVX512_BF16"), amx: has("AMX_INT8") }
    }
}

/// The type in which `processor` computes a file of `kind` faster than in its own; `None` if no type was measured to be
/// faster. `stored` is GGUF's number for the type of most of the file's values, `bytes` the file's size.
pub fn faster(kind: Kind, stored: u32, bytes: u64, processor: Processor) -> Option<WeightType> {
    const F32: u32 = 0;
    const F16: u32 = 1;
    const Q4_1: u32 = 3;
    const Q8_0: u32 = 8;
    if processor.amx {
        return None;
    }
    match (kind, stored) {
        (Kind::Mmproj, F32 | F16 | Q8_0) if processor.bf16 => Some(WeightType::Bf16),
        (Kind::Model, Q4_1) if bytes <= SMALL_MODEL => Some(WeightType::Q8_0),
        _ => None,
    }
}

/// A copy of a model file in a faster type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The original file.
    pub source: PathBuf,
    /// Where the copy is, or will be.
    pub path: PathBuf,
    /// The type of its weights.
    pub weights: WeightType,
}

impl Copy {
    /// Whether the copy was made.
    pub fn exists(&self) -> bool {
        self.path.is_file()
    }
}

/// The faster copies in the cache folder of a [`Store`].
#[derive(Debug)]
pub struct Copies<'a> {
    store: &'a Store,
    processor: Processor,
}

impl<'a> Copies<'a> {
    /// The copies for this machine's processor.
    pub fn new(store: &'a Store) -> Self {
        Self { store, processor: Processor::here() }
    }

    /// The copies of `files` that this processor would compute faster, whether they exist yet or not. Files that a GPU
    /// computes need none.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::NotGguf`] when a file cannot be read.
    pub fn of(&self, files: &ModelFiles, model: &ModelParams, vision: &VisionParams) -> Result<Vec<Copy>> {
        let gpus: Vec<String> = runtime::devices()
            .into_iter()
            .filter(|d| matches!(d.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu))
            .map(|d| d.name)
            .collect();
        let mut copies = Vec::new();
        if !gpus.iter().any(|gpu| model.uses_gpu(gpu)) {
            copies.extend(self.of_file(&files.model, Kind::Model)?);
        }
        if let Some(mmproj) = &files.mmproj
            && (gpus.is_empty() || !vision.use_gpu)
        {
            copies.extend(self.of_file(mmproj, Kind::Mmproj)?);
        }
        Ok(copies)
    }

    fn of_file(&self, source: &Path, kind: Kind) -> Result<Option<Copy>> {
        let bytes = std::fs::metadata(source).map_err(Error::io("looking at the model file", source))?.len();
        // Reading the header of a language model takes a while, because it holds the vocabulary.
        if kind == Kind::Model && bytes > SMALL_MODEL {
            return Ok(None);
        }
        let stored = gguf::main_type(source)?;
        let Some(weights) = stored.and_then(|stored| faster(kind, stored, bytes, self.processor)) else {
            return Ok(None);
        };
        let path = self.store.copy_path(source, &weights.to_string())?;
        Ok(Some(Copy { source: source.to_owned(), path, weights }))
    }

    /// Makes a copy unless it exists.
    ///
    /// # Errors
    /// [`Error::CacheDir`] when the cache cannot be written or the disk is full; [`Error::Unusable`] and
    /// [`Error::BadModel`] when the file cannot be converted.
    pub fn make(&self, copy: &Copy, observer: &mut dyn Observer) -> Result<()> {
        self.store.make_copy(&copy.path, observer, |partial, observer| {
            let name = copy.source.file_name().unwrap_or_default().to_string_lossy();
            observer.message(&format!(
                "writing a copy of {name} in {}, which this processor computes faster",
                copy.weights
            ));
            models::check(&copy.source)?;
            let digest = models::fingerprint(&copy.source)?;
            runtime::convert(&copy.source, partial, copy.weights, Some((models::COPY_OF, &digest)))
        })
    }
}

/// `files`, each replaced by its copy if the copy exists.
pub fn in_place(mut files: ModelFiles, copies: &[Copy]) -> ModelFiles {
    for copy in copies.iter().filter(|copy| copy.exists()) {
        tracing::info!("using {}, a copy of {}", copy.path.display(), copy.source.display());
        if files.model == copy.source {
            files.model.clone_from(&copy.path);
        } else if files.mmproj.as_ref() == Some(&copy.source) {
            files.mmproj = Some(copy.path.clone());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_is_copied() {
        let zen4 = Processor { bf16: true, amx: false };
        let haswell = Processor { bf16: false, amx: false };
        let sapphire_rapids = Processor { bf16: true, amx: true };
        let of = |kind, stored| [zen4, haswell, sapphire_rapids].map(|cpu| faster(kind, stored, 100 << 20, cpu));
        for stored in [0, 1, 8] {
            assert_eq!(of(Kind::Mmproj, stored), [Some(WeightType::Bf16), None, None]);
        }
        assert_eq!(of(Kind::Model, 3), [Some(WeightType::Q8_0), Some(WeightType::Q8_0), None]);
        // BF16 itself, Q4_K, and an adapter.
        assert_eq!(of(Kind::Mmproj, 30), [None; 3]);
        assert_eq!(of(Kind::Model, 12), [None; 3]);
        assert_eq!(of(Kind::Adapter, 1), [None; 3]);
        assert_eq!(faster(Kind::Model, 3, 1 << 30, zen4), None, "decoding would take longer");
    }
}
