//! Functions of FFmpeg that `ffmpeg-next` does not wrap safely.

use std::ffi::CStr;
use std::ptr;

use ffmpeg_next::format::context::Input;
use ffmpeg_next::{Rational, Stream, ffi};

/// Returns the sample aspect ratio (width to height of one pixel) of a stream in its container; `0/1` if there is none.
///
/// Matroska, WebM and QuickTime files often store it only there, not in the codec's parameters.
pub fn sample_aspect_ratio(stream: &Stream<'_>) -> Rational {
    // SAFETY: `Stream` borrows the format context that owns the `AVStream`, and its index was checked when it was made,
    // so the pointer is valid here; the field is plain data that FFmpeg does not write while the context is borrowed.
    unsafe { (*stream.as_ptr()).sample_aspect_ratio }.into()
}

/// Returns width and height of the frames of a stream, which come from the container or its first packets.
pub fn size(stream: &Stream<'_>) -> (u32, u32) {
    // SAFETY: as above; every `AVStream` has parameters, which live as long as it does, and the fields are plain data.
    let (width, height) = unsafe {
        let parameters = (*stream.as_ptr()).codecpar;
        ((*parameters).width, (*parameters).height)
    };
    (width.max(0).unsigned_abs(), height.max(0).unsigned_abs())
}

/// Returns how many entries of a stream's index are for frames that are shown, not only decoded.
///
/// In MP4 and QuickTime files the index has every frame once the file is open; in others it has some.
pub fn n_shown_in_index(stream: &Stream<'_>) -> u64 {
    // SAFETY: as above, the `AVStream` is valid, and nobody else uses its context, which is borrowed. Neither function
    // changes it, although one takes a mutable pointer. An entry is valid until the next call with the stream, and its
    // flags are copied before that.
    unsafe {
        let pointer = stream.as_ptr().cast_mut();
        let n = ffi::avformat_index_get_entries_count(pointer);
        let is_shown = |&i: &i32| {
            let entry = ffi::avformat_index_get_entry(pointer, i).as_ref();
            entry.is_some_and(|entry| entry.flags() & ffi::AVINDEX_DISCARD_FRAME == 0)
        };
        (0..n).filter(is_shown).count() as u64
    }
}

/// Whether the source of `input` is seekable, rather than readable only from beginning to end.
pub fn can_go_back(input: &Input) -> bool {
    // SAFETY: `Input` owns the format context, which lives as long as it; its `pb` is null or a valid `AVIOContext`
    // that belongs to it, and the field is plain data.
    unsafe {
        let io = (*input.as_ptr()).pb.as_ref();
        io.is_some_and(|io| io.seekable & ffi::AVIO_SEEKABLE_NORMAL != 0)
    }
}

/// Limits a single allocation of FFmpeg to `bytes`, for the whole process.
pub fn limit_allocations(bytes: usize) {
    // SAFETY: it atomically stores a number.
    unsafe { ffi::av_max_alloc(bytes) };
}

/// Returns a tag of a stream, if it is valid UTF-8. `Stream::metadata` assumes that it is, whatever the file contains.
pub fn metadata(stream: &Stream<'_>, key: &CStr) -> Option<String> {
    // SAFETY: as above, the `AVStream` and with it the dictionary (which may be null) live while the context is
    // borrowed; an entry of a dictionary has a value that ends in NUL, and it is copied before the borrow ends.
    let value = unsafe {
        let entry = ffi::av_dict_get((*stream.as_ptr()).metadata, key.as_ptr(), ptr::null(), 0);
        CStr::from_ptr(entry.as_ref()?.value)
    };
    value.to_str().ok().map(str::to_owned)
}
