//! Files that can be decoded.

use super::content;
use super::data::Stored;
use super::local::LocalFile;
use crate::serve::api::error::ApiError;
use sha2::{Digest, Sha256};
use std::any::Any;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A video or image on this machine. Temporary files are deleted with it.
#[derive(Debug)]
pub(in crate::serve) struct MediaFile {
    path: PathBuf,
    /// The SHA-256 of the content.
    pub digest: [u8; 32],
    /// It is a folder with the frames of a video.
    pub is_frames: bool,
    /// The open or temporary file, or the temporary folder, that the path needs.
    _held: Box<dyn Any + Send + Sync>,
}

impl MediaFile {
    /// Where to read it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A temporary file.
    pub(super) fn own(stored: Stored) -> Result<Self, ApiError> {
        let Stored { file, digest } = stored;
        // Closed, because there may be many, and file descriptors are few.
        let file = file.into_temp_path();
        Self { path: file.to_path_buf(), digest, is_frames: false, _held: Box::new(file) }.checked()
    }

    /// A file of the media root.
    pub(super) fn local(file: LocalFile) -> Result<Self, ApiError> {
        let LocalFile { path, digest, file } = file;
        Self { path, digest, is_frames: false, _held: Box::new(file) }.checked()
    }

    /// The frames of a video, in order.
    pub(super) fn of_frames(frames: &[Self]) -> Result<Self, ApiError> {
        let disk = |error| {
            tracing::error!("a folder for frames cannot be written: {error}");
            ApiError::internal()
        };
        let folder = tempfile::Builder::new().prefix("sharpv-serve-").tempdir().map_err(disk)?;
        let mut hasher = Sha256::new();
        for (i, frame) in frames.iter().enumerate() {
            hasher.update(frame.digest);
            // The extension only marks an image: decoding goes by the content.
            fs::copy(&frame.path, folder.path().join(format!("{i:06}.jpg"))).map_err(disk)?;
        }
        let path = folder.path().to_owned();
        Ok(Self { path, digest: hasher.finalize().into(), is_frames: true, _held: Box::new(folder) })
    }

    /// Fails if the file is of no format that is served.
    fn checked(self) -> Result<Self, ApiError> {
        match File::open(&self.path).and_then(content::is_known) {
            Ok(true) => Ok(self),
            _ => Err(ApiError::media(
                "this is not a video or image in a supported format; send MP4, WebM, MKV, AVI, MPEG, GIF, PNG, JPEG or WebP",
            )),
        }
    }
}
