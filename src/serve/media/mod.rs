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
use super::api::request::Place;
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
        Err(ApiError::media(format!("a request has at most {MAX_FILES} pictures and frames; send them as a video")))
    }

    fn check(&self) -> Result<(), ApiError> {
        if self.given_up.load(Ordering::Relaxed) { Err(ApiError::cancelled()) } else { Ok(()) }
    }
}

/// A video or picture that is here. Files of its own are deleted with it.
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
            // The name is that of any picture: what it is is told by its content.
            fs::copy(&frame.path, folder.path().join(format!("{i:06}.jpg"))).map_err(disk)?;
        }
        let path = folder.path().to_owned();
        Ok(Self { path, digest: hasher.finalize().into(), is_frames: true, _held: Held::Folder { _folder: folder } })
    }
}

impl Sources {
    /// Brings what is at `place` here.
    pub fn fetch(&self, place: &Place<'_>, limits: &MediaLimits) -> Result<MediaFile, ApiError> {
        match place {
            Place::Url(url) => self.fetch_url(url, limits),
            Place::Data(data) => match data_uri(data) {
                Some(uri) => self.fetch_data(uri?, limits),
                None => self.fetch_data(DataUri::File(data), limits),
            },
            Place::Frames(frames) => {
                if frames.is_empty() || frames.len() > MAX_FRAMES {
                    return Err(ApiError::media(format!("a list of frames has 1 to {MAX_FRAMES} of them")));
                }
                let frames = frames.iter().map(|frame| self.fetch_url(frame, limits)).collect::<Result<_, _>>()?;
                MediaFile::of_frames(frames)
            }
        }
    }

    fn fetch_url(&self, url: &str, limits: &MediaLimits) -> Result<MediaFile, ApiError> {
        limits.check()?;
        if let Some(uri) = data_uri(url) {
            return self.fetch_data(uri?, limits);
        }
        limits.count()?;
        let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let file = match scheme.as_deref() {
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

    fn fetch_data(&self, uri: DataUri<'_>, limits: &MediaLimits) -> Result<MediaFile, ApiError> {
        let one = |text| {
            limits.count()?;
            checked(MediaFile::own(store_base64(text, limits)?))
        };
        match uri {
            DataUri::File(text) => one(text),
            DataUri::Frames(frames) if frames.len() > MAX_FRAMES => {
                Err(ApiError::media(format!("a list of frames has at most {MAX_FRAMES} of them")))
            }
            DataUri::Frames(frames) => MediaFile::of_frames(frames.into_iter().map(one).collect::<Result<_, _>>()?),
        }
    }
}

/// `file`, if it is of a kind that is served.
fn checked(file: MediaFile) -> Result<MediaFile, ApiError> {
    let is_known = File::open(&file.path).and_then(content::is_known);
    match is_known {
        Ok(true) => Ok(file),
        _ => Err(ApiError::media(
            "this is no video or picture of a format that is served; send MP4, WebM, MKV, AVI, MPEG, GIF, PNG, JPEG or WebP",
        )),
    }
}
