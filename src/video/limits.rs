//! Limits on the memory that a file can make this process allocate. A small file can claim any size.

use std::path::Path;

use crate::error::{Error, MediaProblem, Result};

/// The most pixels of a frame of a video or an animation. Several frames are in memory at once. 8K has 33 million
/// pixels, video for headsets up to 66 million.
pub(super) const MAX_VIDEO_PIXELS: u64 = 1 << 26;

/// The most pixels of a still image. Photographs have up to 108 million.
pub(super) const MAX_IMAGE_PIXELS: u64 = 1 << 27;

/// The largest file of a still image in bytes. Some decoders read the whole file into memory.
pub(super) const MAX_IMAGE_BYTES: u64 = 1 << 28;

/// Fails if an image has more than `max` pixels.
pub(super) fn check_size(path: &Path, width: u64, height: u64, max: u64) -> Result<()> {
    if width.saturating_mul(height) <= max {
        return Ok(());
    }
    Err(too_large(path, format!("{width}x{height} pixels, more than the limit of {} million", max / 1_000_000)))
}

pub(super) fn too_large(path: &Path, reason: String) -> Error {
    Error::Media { problem: MediaProblem::TooLarge, path: path.to_owned(), reason }
}
