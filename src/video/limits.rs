//! What a file may make this process allocate: its claims cost nothing to make.

use std::path::Path;

use crate::error::{Error, MediaProblem, Result};

/// Pixels of an image of a video or an animation, of which several are in memory at once. 8K has 33 million, cameras
/// for headsets 66 million.
pub(super) const MAX_VIDEO_PIXELS: u64 = 1 << 26;

/// Pixels of an image alone; photographs have up to 108 million.
pub(super) const MAX_IMAGE_PIXELS: u64 = 1 << 27;

/// Bytes of the file of an image, which some decoders read at once.
pub(super) const MAX_IMAGE_BYTES: u64 = 1 << 28;

/// Refuses images of more than `max` pixels.
pub(super) fn check_size(path: &Path, width: u64, height: u64, max: u64) -> Result<()> {
    if width.saturating_mul(height) <= max {
        return Ok(());
    }
    Err(too_large(path, format!("images of {width}x{height} pixels, and {} million are read", max / 1_000_000)))
}

pub(super) fn too_large(path: &Path, reason: String) -> Error {
    Error::Media { problem: MediaProblem::TooLarge, path: path.to_owned(), reason }
}
