//! Files of this machine, in one folder.

use super::limits::MediaLimits;
use crate::serve::api::error::ApiError;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The folder whose files clients may name.
#[derive(Debug)]
pub(in crate::serve) struct MediaRoot {
    folder: PathBuf,
    /// A file is read again only if it changed.
    digests: Mutex<HashMap<Identity, [u8; 32]>>,
}

/// An open file of the folder.
#[derive(Debug)]
pub(super) struct LocalFile {
    /// Where to read it: on Linux through its descriptor, so that nobody can replace the file meanwhile.
    pub path: PathBuf,
    pub digest: [u8; 32],
    /// Stays open while `path` is used.
    pub file: File,
}

/// What changes when a file does.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    numbers: [u64; 3],
    times: [i64; 4],
}

/// The most digests that are kept.
const MAX_DIGESTS: usize = 4096;

impl MediaRoot {
    /// `folder`, which must exist.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let folder = fs::canonicalize(folder)?;
        if !folder.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder"));
        }
        Ok(Self { folder, digests: Mutex::default() })
    }

    /// Opens a regular file of the folder. `name` is a `file://` URL or a path, absolute or relative to the folder.
    ///
    /// All errors have the same message: it must not show which files exist elsewhere.
    pub(super) fn open(&self, name: &str, limits: &MediaLimits) -> Result<LocalFile, ApiError> {
        let found = self.find(name).and_then(|(file, canonical)| {
            let meta = file.metadata()?;
            if meta.is_file() { Ok((file, canonical, meta)) } else { Err(io::ErrorKind::InvalidInput.into()) }
        });
        let (file, canonical, meta) = found
            .map_err(|_| ApiError::forbidden_media("there is no such file in the folder that this server offers"))?;
        let digest = self.digest(&file, &meta, limits)?;
        Ok(LocalFile { path: readable_path(&file, canonical), digest, file })
    }

    fn find(&self, name: &str) -> io::Result<(File, PathBuf)> {
        let rejected = || io::Error::from(io::ErrorKind::InvalidInput);
        let path = path_of(name).ok_or_else(rejected)?;
        if path.components().any(|part| matches!(part, Component::ParentDir)) || path.as_os_str().is_empty() {
            return Err(rejected());
        }
        let canonical = fs::canonicalize(self.folder.join(path))?;
        if !canonical.starts_with(&self.folder) {
            return Err(rejected());
        }
        let file = open_without_following(&canonical)?;
        // A folder of the path may have become a link meanwhile.
        if self.holds(&file, &canonical)? { Ok((file, canonical)) } else { Err(rejected()) }
    }

    /// Whether an open file is in the folder.
    #[cfg(target_os = "linux")]
    fn holds(&self, file: &File, _: &Path) -> io::Result<bool> {
        Ok(fs::read_link(descriptor(file))?.starts_with(&self.folder))
    }

    #[cfg(not(target_os = "linux"))]
    fn holds(&self, file: &File, canonical: &Path) -> io::Result<bool> {
        let again = fs::canonicalize(canonical)?;
        let (open, there) = (file.metadata()?, fs::metadata(&again)?);
        Ok(again.starts_with(&self.folder) && Identity::of(&open) == Identity::of(&there))
    }

    fn digest(&self, file: &File, meta: &Metadata, limits: &MediaLimits) -> Result<[u8; 32], ApiError> {
        let identity = Identity::of(meta);
        let lock = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = identity.as_ref().and_then(|identity| lock().get(identity).copied()) {
            return Ok(known);
        }
        let digest = digest_of(file, limits)?;
        if let Some(identity) = identity {
            let mut digests = lock();
            if digests.len() >= MAX_DIGESTS {
                digests.clear();
            }
            digests.insert(identity, digest);
        }
        Ok(digest)
    }
}

fn digest_of(mut file: &File, limits: &MediaLimits) -> Result<[u8; 32], ApiError> {
    let unreadable = |_| ApiError::media("the file cannot be read");
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        limits.check()?;
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    file.rewind().map_err(unreadable)?;
    Ok(hasher.finalize().into())
}

/// The path that `name` means. `None` if it contains NUL, or is not a path of this system.
fn path_of(name: &str) -> Option<PathBuf> {
    let Some(rest) = name.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("file://")).map(|_| &name[7..]) else {
        return Some(name).filter(|name| !name.contains('\0')).map(PathBuf::from);
    };
    let local = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    let bytes: Vec<u8> = percent_decode_str(local).collect();
    if bytes.contains(&0) {
        return None;
    }
    path_from(bytes)
}

#[cfg(unix)]
fn path_from(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Some(OsStr::from_bytes(&bytes).into())
}

#[cfg(not(unix))]
fn path_from(bytes: Vec<u8>) -> Option<PathBuf> {
    String::from_utf8(bytes).ok().map(|text| OsStr::new(&text).into())
}

/// Opens a file that is not a link, without waiting for the other end of a pipe.
#[cfg(unix)]
fn open_without_following(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

#[cfg(not(unix))]
fn open_without_following(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

#[cfg(target_os = "linux")]
fn readable_path(file: &File, _: PathBuf) -> PathBuf {
    descriptor(file)
}

#[cfg(not(target_os = "linux"))]
fn readable_path(_: &File, canonical: PathBuf) -> PathBuf {
    canonical
}

#[cfg(target_os = "linux")]
fn descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

impl Identity {
    #[cfg(unix)]
    fn of(meta: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self {
            numbers: [meta.dev(), meta.ino(), meta.len()],
            times: [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()],
        })
    }

    /// Other systems have no such numbers, so every file is read each time.
    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        for (name, path) in [
            ("clip.mp4", "clip.mp4"),
            ("/videos/a b.mp4", "/videos/a b.mp4"),
            ("file:///videos/a%20b.mp4", "/videos/a b.mp4"),
            ("FILE://localhost/a.mp4", "/a.mp4"),
            ("file://clip.mp4", "clip.mp4"),
            ("a%20b.mp4", "a%20b.mp4"),
        ] {
            assert_eq!(path_of(name), Some(PathBuf::from(path)), "{name}");
        }
        assert_eq!(path_of("a\0b"), None);
        assert_eq!(path_of("file:///a%00b"), None);
    }
}
