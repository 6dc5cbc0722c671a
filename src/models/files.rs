//! Files of a cache: written whole or not at all, and locked while a model is fetched.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::observer::Observer;

/// What is written next to a file before it takes the file's name.
const PARTIAL: &str = "partial";

/// Writes a file so that it appears under its name complete or not at all. The caller holds the lock, so one name
/// for the unfinished file is enough.
pub(super) fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    make_whole(path, |partial| {
        let mut file = File::create(partial).map_err(cache_error(partial))?;
        write(&mut file)?;
        file.sync_all().map_err(cache_error(partial))
    })
}

/// The same for a file that `make` makes under the name that it is given.
pub(super) fn make_whole(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".");
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    let finish = || {
        make(&partial)?;
        fs::rename(&partial, path).map_err(cache_error(path))
    };
    finish().inspect_err(|_| {
        // The error at hand says more than one about the clean-up would; the next pull cleans up again.
        let _ = fs::remove_file(&partial);
    })
}

pub(super) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(cache_error(path))
}

/// An [`Error::CacheDir`] for `path`, to be used with `map_err`.
pub(super) fn cache_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::CacheDir { path, source, variable: "SHARPV_HOME" }
}

/// What a process that was killed left behind.
pub(super) fn remove_partial_files(folder: &Path) -> Result<()> {
    for entry in folder.read_dir().map_err(cache_error(folder))? {
        let path = entry.map_err(cache_error(folder))?.path();
        if path.extension().is_some_and(|extension| extension == PARTIAL) {
            fs::remove_file(&path).map_err(cache_error(&path))?;
        }
    }
    Ok(())
}

/// A lock file, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would not do where another thread starts a process at this moment: that holds a copy until it
        // runs its program. What cannot be freed here is freed by the system when the last copy is closed.
        let _ = self.0.unlock();
    }
}

/// Holds the lock file at `path` until the result is dropped; the system frees it if the process dies.
pub(super) fn lock(path: &Path, name: &str, observer: &mut dyn Observer) -> io::Result<Lock> {
    let file = File::options().create(true).append(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => {
            observer.message(&format!("waiting for another process that is at work on {name}"));
            file.lock()?;
            Ok(Lock(file))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Reads all of `reader` in pieces, for work that shows its progress.
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
