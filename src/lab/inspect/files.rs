//! Atomic file writes.

use crate::error::{Error, Result};
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes `content` to the file at `path`, all of it or nothing.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = beside(path)?;
    file.write_all(content).map_err(Error::io(WRITING, path))?;
    put(file, path)
}

/// A temporary file in the folder of `path`, with its extension.
pub fn beside(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let ending = path.extension().map_or_else(String::new, |ending| format!(".{}", ending.to_string_lossy()));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".sharpv-").suffix(&ending);
    // The permissions of a new file; those of temporary files are for their owner alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(Error::io(WRITING, path))
}

/// Renames the temporary file to `path`.
pub fn put(file: NamedTempFile, path: &Path) -> Result<()> {
    file.persist(path).map(|_| ()).map_err(|error| Error::io(WRITING, path)(error.error))
}

const WRITING: &str = "writing";
