//! From the parts of a message to files that can be decoded.

mod address;
mod content;
mod data;
mod local;
mod remote;

pub(super) use local::MediaRoot;
pub(super) use remote::Remote;
pub use remote::RemoteHost;

use super::api::error::ApiError;
use super::api::request::Place as Named;
use data::{DataUri, Stored, data_uri, store_base64};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::{TempDir, TempPath};

/// Frames in a list of frames.
const MAX_FRAMES: usize = 512;

/// Where media may come from.
#[derive(Debug)]
pub(super) struct Sources {
    pub root: Option<MediaRoot>,
    pub remote: Option<Remote>,
}

/// Files of a request, frames of lists included.
const MAX_FILES: usize = 1024;

/// What bounds the fetching of a request's files.
#[derive(Debug, Clone)]
pub(super) struct MediaLimits {
    /// Bytes of one file.
    max_bytes: u64,
    /// Set when nobody waits any more.
    given_up: Arc<AtomicBool>,
    /// Files that were fetched.
    files: Cell<usize>,
    /// Bytes that came from other servers.
    downloaded: Cell<u64>,
}

impl MediaLimits {
    pub fn new(max_bytes: u64, given_up: Arc<AtomicBool>) -> Self {
        Self { max_bytes, given_up, files: Cell::new(0), downloaded: Cell::new(0) }
    }

    /// Another file is to be fetched.
    fn count(&self) -> Result<(), ApiError> {
        self.files.set(self.files.get() + 1);
        if self.files.get() <= MAX_FILES {
            return Ok(());
        }
        Err(ApiError::media(format!("a request has at most {MAX_FILES} images and frames; send them as a video")))
    }

    fn check(&self) -> Result<(), ApiError> {
        if self.given_up.load(Ordering::Relaxed) { Err(ApiError::cancelled()) } else { Ok(()) }
    }
}

/// A video or image that is here. Files of its own are deleted with it.
#[derive(Debug)]
pub(super) struct MediaFile {
    path: PathBuf,
    /// What is in it.
    pub digest: [u8; 32],
    /// It is a folder with the frames of a video.
    pub is_frames: bool,
    _held: Held,
}

/// What must stay for as long as the path is used.
#[derive(Debug)]
enum Held {
    Local { _file: File },
    Own { _file: TempPath },
    Folder { _folder: TempDir },
}

impl MediaFile {
    /// Where to read it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn own(stored: Stored) -> Self {
        let Stored { file, digest } = stored;
        // Closed: there may be many, and descriptors are few.
        let file = file.into_temp_path();
        Self { path: file.to_path_buf(), digest, is_frames: false, _held: Held::Own { _file: file } }
    }

    /// The frames of a video, in order.
    pub fn of_frames(frames: Vec<Self>) -> Result<Self, ApiError> {
        let disk = |error| {
            tracing::error!(target: super::LOG, "a folder for frames cannot be written: {error}");
            ApiError::internal()
        };
        let folder = tempfile::Builder::new().prefix("sharpv-serve-").tempdir().map_err(disk)?;
        let mut hasher = Sha256::new();
        for (i, frame) in frames.iter().enumerate() {
            hasher.update(frame.digest);
            // The name is that of any image: what it is is told by its content.
            fs::copy(&frame.path, folder.path().join(format!("{i:06}.jpg"))).map_err(disk)?;
        }
        let path = folder.path().to_owned();
        Ok(Self { path, digest: hasher.finalize().into(), is_frames: true, _held: Held::Folder { _folder: folder } })
    }
}

/// Media of a message: here, as far as they came with it, and else by name.
#[derive(Debug)]
pub(super) enum Found {
    File(MediaFile),
    Url(String),
    /// The frames of a video.
    Frames(Vec<Found>),
}

/// Where something is that has to be brought here, the farthest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Here,
    ThisMachine,
    Elsewhere,
}

impl Found {
    /// Where the farthest of it is.
    pub fn farthest(&self) -> Place {
        match self {
            Self::File(_) => Place::Here,
            Self::Url(url) if is_remote(url) => Place::Elsewhere,
            Self::Url(_) => Place::ThisMachine,
            Self::Frames(frames) => frames.iter().map(Self::farthest).max().unwrap_or(Place::Here),
        }
    }
}

fn scheme(url: &str) -> Option<String> {
    url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase())
}

fn is_remote(url: &str) -> bool {
    matches!(scheme(url).as_deref(), Some("http" | "https"))
}

/// Takes what came with the request out of it. What is only named is not looked at.
pub(super) fn take(named: &Named<'_>, limits: &MediaLimits) -> Result<Found, ApiError> {
    match named {
        Named::Url(url) => take_url(url, limits),
        Named::Data(data) => match data_uri(data) {
            Some(uri) => take_data(uri?, limits),
            None => take_data(DataUri::File(data), limits),
        },
        Named::Frames(frames) => {
            if frames.is_empty() || frames.len() > MAX_FRAMES {
                return Err(ApiError::media(format!("a list of frames has 1 to {MAX_FRAMES} of them")));
            }
            let frames = frames.iter().map(|frame| take_url(frame, limits)).collect::<Result<_, _>>()?;
            Ok(Found::Frames(frames))
        }
    }
}

impl Sources {
    /// Brings here what is not.
    pub fn fetch(&self, found: Found, limits: &MediaLimits) -> Result<MediaFile, ApiError> {
        limits.check()?;
        match found {
            Found::File(file) => Ok(file),
            Found::Url(url) => self.fetch_url(&url, limits),
            Found::Frames(frames) => MediaFile::of_frames(
                frames.into_iter().map(|frame| self.fetch(frame, limits)).collect::<Result<_, _>>()?,
            ),
        }
    }

    fn fetch_url(&self, url: &str, limits: &MediaLimits) -> Result<MediaFile, ApiError> {
        let file = match scheme(url).as_deref() {
            Some("http" | "https") => {
                let remote = self.remote.as_ref().ok_or_else(|| {
                    ApiError::forbidden_media(
                        "this server fetches nothing from the network; send the file itself as a data URI",
                    )
                })?;
                MediaFile::own(remote.fetch(url, limits)?)
            }
            None | Some("file") => {
                let root = self.root.as_ref().ok_or_else(|| {
                    ApiError::forbidden_media(
                        "this server offers no files of its own; send the file itself as a data URI",
                    )
                })?;
                let local::LocalFile { path, digest, file } = root.open(url, limits)?;
                MediaFile { path, digest, is_frames: false, _held: Held::Local { _file: file } }
            }
            Some(_) => return Err(ApiError::forbidden_media("URLs of media are data:, http:, https: or file:")),
        };
        checked(file)
    }
}

fn take_url(url: &str, limits: &MediaLimits) -> Result<Found, ApiError> {
    limits.check()?;
    if let Some(uri) = data_uri(url) {
        return take_data(uri?, limits);
    }
    limits.count()?;
    Ok(Found::Url(url.to_owned()))
}

fn take_data(uri: DataUri<'_>, limits: &MediaLimits) -> Result<Found, ApiError> {
    let one = |text| {
        limits.count()?;
        checked(MediaFile::own(store_base64(text, limits)?)).map(Found::File)
    };
    match uri {
        DataUri::File(text) => one(text),
        DataUri::Frames(frames) if frames.len() > MAX_FRAMES => {
            Err(ApiError::media(format!("a list of frames has at most {MAX_FRAMES} of them")))
        }
        DataUri::Frames(frames) => Ok(Found::Frames(frames.into_iter().map(one).collect::<Result<_, _>>()?)),
    }
}

/// `file`, if it is of a kind that is served.
fn checked(file: MediaFile) -> Result<MediaFile, ApiError> {
    let is_known = File::open(&file.path).and_then(content::is_known);
    match is_known {
        Ok(true) => Ok(file),
        _ => Err(ApiError::media(
            "this is no video or image of a format that is served; send MP4, WebM, MKV, AVI, MPEG, GIF, PNG, JPEG or WebP",
        )),
    }
}
