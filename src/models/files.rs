//! Files of a cache: verified, complete or missing, and locked while a model is downloaded.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::observer::{Observer, Stage};

/// A folder with a cache of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// This library's own.
    Sharpv,
    /// The one that tools of the hub share.
    #[cfg(feature = "hub")]
    Hub,
}

impl Home {
    /// An [`Error::CacheDir`] for `path`, to be used with `map_err`.
    pub fn error(self, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        let variable = match self {
            Self::Sharpv => "SHARPV_HOME",
            #[cfg(feature = "hub")]
            Self::Hub => "HF_HOME",
        };
        move |source| Error::CacheDir { path, source, variable }
    }

    /// Creates a folder, unless it exists.
    pub fn create_dir(self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).map_err(self.error(path))
    }

    /// Removes a file, if it exists.
    pub fn remove(self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(path)(error)),
            _ => Ok(()),
        }
    }
}

/// A file that a model needs, wherever it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// The cache that it belongs to.
    pub home: Home,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal. The hub has none for small files; only their size is verified.
    pub sha256: Option<&'a str>,
}

/// What is found in the place of an expected file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Missing,
    /// The file, complete and unchanged.
    Intact,
    /// Another file.
    Other,
}

impl Expected<'_> {
    /// Verifies the file at `path`, if there is one, and reports the result.
    pub fn find(&self, path: &Path, observer: &mut dyn Observer) -> Result<Found> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Missing),
            Err(error) => Err(self.home.error(path)(error)),
            Ok(meta) if meta.len() == self.bytes && self.other_sum(path, observer)?.is_none() => {
                observer.message(&format!("{} is already here and intact", path.display()));
                Ok(Found::Intact)
            }
            Ok(_) => {
                observer
                    .message(&format!("{} is damaged or from another version, and will be replaced", path.display()));
                Ok(Found::Other)
            }
        }
    }

    /// Puts the file at `target`. `fetch` completes it at `part`; it is moved once it is verified, so that `target` is
    /// complete or does not exist.
    ///
    /// # Errors
    /// Those of `fetch`, after which `part` is left as it is, and [`Error::Checksum`], which calls the file `what`.
    pub fn bring(
        &self,
        what: &str,
        part: &Path,
        target: &Path,
        observer: &mut dyn Observer,
        fetch: impl FnOnce(&mut dyn Observer) -> Result<()>,
    ) -> Result<()> {
        fetch(observer)?;
        if let Some(got) = self.other_sum(part, observer)? {
            self.home.remove(part)?;
            let expected = self.sha256.unwrap_or_default().to_owned();
            return Err(Error::Checksum { what: what.to_owned(), expected, got });
        }
        let sync = File::options().append(true).open(part).and_then(|file| file.sync_all());
        sync.map_err(self.home.error(part))?;
        fs::rename(part, target).map_err(self.home.error(target))
    }

    /// The SHA-256 of the file at `path`, if it is not the expected one.
    fn other_sum(&self, path: &Path, observer: &mut dyn Observer) -> Result<Option<String>> {
        match self.sha256 {
            Some(expected) => Ok(Some(sha256_of(path, observer)?).filter(|got| got != expected)),
            None => Ok(None),
        }
    }
}

/// The SHA-256 of a file, in lower-case hexadecimal.
pub(super) fn sha256_of(path: &Path, observer: &mut dyn Observer) -> Result<String> {
    let read_error = |source| Error::Io { action: "reading it to verify it", path: path.to_owned(), source };
    let file = File::open(path).map_err(read_error)?;
    let total = file.metadata().map_err(read_error)?.len();
    observer.progress(Stage::Verify, 0, total);
    let (mut hasher, mut done) = (Sha256::new(), 0);
    for_each_chunk(file, read_error, |chunk| {
        hasher.update(chunk);
        done += chunk.len() as u64;
        observer.progress(Stage::Verify, done.min(total), total);
        Ok(())
    })?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The extension of a file that is being written.
const PARTIAL: &str = "partial";

/// Where a file is written before it is moved to `path`. The caller holds the lock, so one name is enough.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".");
    partial.push(PARTIAL);
    PathBuf::from(partial)
}

/// Makes a file that is complete or does not exist: `make` writes it under another name, under which it is deleted on
/// failure.
pub(super) fn make_whole(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = partial(path);
    let finish = || {
        make(&partial)?;
        fs::rename(&partial, path).map_err(Home::Sharpv.error(path))
    };
    // The error at hand says more than one about the clean-up would; the next pull cleans up again.
    finish().inspect_err(|_| drop(fs::remove_file(&partial)))
}

/// Removes what a killed process was writing.
pub(super) fn remove_partial_files(folder: &Path) -> Result<()> {
    for entry in folder.read_dir().map_err(Home::Sharpv.error(folder))? {
        let path = entry.map_err(Home::Sharpv.error(folder))?.path();
        if path.extension().is_some_and(|extension| extension == PARTIAL) {
            Home::Sharpv.remove(&path)?;
        }
    }
    Ok(())
}

/// A lock file, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone is not enough: a process that another thread is starting at this moment holds a copy of the
        // file until it runs its program. If unlocking fails, the system frees the lock when the last copy is closed.
        let _ = self.0.unlock();
    }
}

/// Locks the file at `path` until the result is dropped. The system frees the lock if the process dies.
pub(super) fn lock(path: &Path, name: &str, observer: &mut dyn Observer) -> io::Result<Lock> {
    let file = File::options().create(true).append(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => {
            observer.message(&format!("waiting for another process that is working on {name}"));
            file.lock()?;
            Ok(Lock(file))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Reads all of `reader` in chunks, for work that shows progress.
pub(super) fn for_each_chunk<E>(
    mut reader: impl Read,
    read_error: impl Fn(io::Error) -> E,
    mut handle: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => handle(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(read_error(error)),
        }
    }
}
