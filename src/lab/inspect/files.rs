//! Files that are there whole or not at all.

use crate::error::{Error, Result};
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes `content` to the file at `path`, in one step.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = beside(path)?;
    file.write_all(content).map_err(Error::io(WRITING, path))?;
    put(file, path)
}

/// A file without a name of its own in the folder of `path`, and with its ending.
pub fn beside(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let ending = path.extension().map_or_else(String::new, |ending| format!(".{}", ending.to_string_lossy()));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".sharpv-").suffix(&ending);
    // As any new file; those without a name are for their owner alone otherwise.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(Error::io(WRITING, path))
}

/// Gives it the name.
pub fn put(file: NamedTempFile, path: &Path) -> Result<()> {
    file.persist(path).map(|_| ()).map_err(|error| Error::io(WRITING, path)(error.error))
}

const WRITING: &str = "writing";
