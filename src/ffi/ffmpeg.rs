//! What `ffmpeg-next` has no safe function for.

use ffmpeg_next::{Rational, Stream};

/// The sample aspect ratio (width to height of one pixel) that the container gives a stream; `0/1` if it gives none.
///
/// Matroska, WebM and QuickTime files often have it only here, not in the codec's parameters.
pub fn sample_aspect_ratio(stream: &Stream<'_>) -> Rational {
    // SAFETY: `Stream` borrows the format context that owns the `AVStream`, and its index was checked when it was made,
    // so the pointer is valid here; the field is plain data that FFmpeg does not write while the context is borrowed.
    unsafe { (*stream.as_ptr()).sample_aspect_ratio }.into()
}
