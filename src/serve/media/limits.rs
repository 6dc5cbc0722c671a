//! What bounds the media of one request.

use crate::serve::api::error::ApiError;
use crate::serve::cancel::Cancellation;
use std::cell::Cell;
use std::sync::Arc;

/// The most files of a request, the frames of lists included.
const MAX_FILES: usize = 1024;

/// The limits of one request.
#[derive(Debug)]
pub(in crate::serve) struct MediaLimits {
    /// The most bytes of one file.
    pub(super) max_bytes: u64,
    pub(super) cancellation: Arc<Cancellation>,
    files: Cell<usize>,
    /// Bytes that came from other servers.
    pub(super) downloaded: Cell<u64>,
}

impl MediaLimits {
    pub fn new(max_bytes: u64, cancellation: Arc<Cancellation>) -> Self {
        Self { max_bytes, cancellation, files: Cell::new(0), downloaded: Cell::new(0) }
    }

    /// Counts another file. Fails if there are too many.
    pub(super) fn count(&self) -> Result<(), ApiError> {
        self.files.set(self.files.get() + 1);
        if self.files.get() <= MAX_FILES {
            return Ok(());
        }
        Err(ApiError::media(format!("a request can have at most {MAX_FILES} images and frames; send them as a video")))
    }

    /// Fails if the request was cancelled.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        if self.cancellation.reason().is_some() { Err(ApiError::cancelled()) } else { Ok(()) }
    }
}
