//! Finds the files of a model by name or path.

use std::path::{Path, PathBuf};

use super::gguf::{self, Kind};
use super::{KnownModel, ModelFiles, Store};
use crate::error::{Error, Result};
#[cfg(feature = "hub")]
use crate::observer::Observer;

impl Store {
    /// The files of a model. `spec` is the name of a known model that has been pulled, or the path of a language model
    /// in GGUF; `./smol` is a path although `smol` is a name.
    ///
    /// `mmproj` replaces a known model's own projector. It may be `None` with a path if the folder contains exactly one
    /// `*mmproj*.gguf`. `lora` follows a known model's own adapters.
    ///
    /// Every file outside the cache must exist and be a GGUF file of the right kind.
    ///
    /// # Errors
    /// - [`Error::UnknownModel`]: `spec` is neither a known name nor a file.
    /// - [`Error::ModelNotPulled`]: the known model is missing or incomplete in the cache; [`Error::ModelNotCarried`]
    ///   if this build cannot download it either.
    /// - [`Error::Io`], [`Error::NotGguf`], [`Error::WrongModelFile`]: a file is missing, not a GGUF file, or of
    ///   another kind.
    /// - [`Error::MmprojNotFound`]: `mmproj` is `None`, and the folder contains no projector or several.
    pub fn resolve(&self, spec: &str, mmproj: Option<&Path>, lora: &[PathBuf]) -> Result<ModelFiles> {
        check_additions(mmproj, lora)?;
        let path = Path::new(spec);
        match KnownModel::find(spec) {
            Ok(known) => {
                let mut files = self.files(known).ok_or_else(|| match known.is_carried() {
                    true => Error::ModelNotPulled { name: known.name },
                    false => Error::ModelNotCarried { name: known.name },
                })?;
                files.mmproj = mmproj.map(Path::to_owned).or(files.mmproj);
                files.lora.extend_from_slice(lora);
                Ok(files)
            }
            // A missing file is reported as such if `spec` looks like a path.
            Err(unknown) if !path.exists() && path.extension().is_none() && path.components().count() == 1 => {
                Err(unknown)
            }
            Err(_) => {
                check_kind(path, Kind::Model)?;
                let mmproj = mmproj.map_or_else(|| find_mmproj(path), |mmproj| Ok(mmproj.to_owned()))?;
                let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
                Ok(ModelFiles { name, model: path.to_owned(), mmproj: Some(mmproj), lora: lora.to_vec() })
            }
        }
    }
}

/// The files of a model on the hub. Downloads them if necessary, after checking the additional files.
#[cfg(feature = "hub")]
pub(super) fn from_hub(
    hub: &super::hub::Hub,
    spec: &super::hub::HubSpec,
    (mmproj, lora): (Option<&Path>, &[PathBuf]),
    memory: Option<u64>,
    observer: &mut dyn Observer,
) -> Result<ModelFiles> {
    check_additions(mmproj, lora)?;
    let wish = super::hub::Wish { memory, mmproj: mmproj.is_none() };
    let mut files = hub.resolve(spec, wish, observer)?;
    check_kind(&files.model, Kind::Model)?;
    if let Some(own) = &files.mmproj {
        check_kind(own, Kind::Mmproj)?;
    }
    files.mmproj = mmproj.map(Path::to_owned).or(files.mmproj);
    files.lora.extend_from_slice(lora);
    Ok(files)
}

fn check_additions(mmproj: Option<&Path>, lora: &[PathBuf]) -> Result<()> {
    if let Some(mmproj) = mmproj {
        check_kind(mmproj, Kind::Mmproj)?;
    }
    lora.iter().try_for_each(|adapter| check_kind(adapter, Kind::Adapter))
}

fn check_kind(path: &Path, expected: Kind) -> Result<()> {
    let found = gguf::read_metadata(path)?.kind();
    if found == expected {
        return Ok(());
    }
    Err(Error::WrongModelFile { path: path.to_owned(), found: found.describe(), expected: expected.describe() })
}

/// The only projector in the folder of a model.
fn find_mmproj(model: &Path) -> Result<PathBuf> {
    let folder = match model.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(Error::io("looking for the multimodal projector", folder))? {
        let path = entry.map_err(Error::io("looking for the multimodal projector", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.contains("mmproj") && name.ends_with(".gguf") && path != model && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    match <[PathBuf; 1]>::try_from(found) {
        Ok([mmproj]) => {
            check_kind(&mmproj, Kind::Mmproj)?;
            Ok(mmproj)
        }
        Err(found) => Err(Error::MmprojNotFound { model: model.to_owned(), found }),
    }
}
