//! What `ffmpeg-next` has no safe function for.

use std::ffi::CStr;
use std::ptr;

use ffmpeg_next::format::context::Input;
use ffmpeg_next::{Rational, Stream, ffi};

/// The sample aspect ratio (width to height of one pixel) that the container gives a stream; `0/1` if it gives none.
///
/// Matroska, WebM and QuickTime files often have it only here, not in the codec's parameters.
pub fn sample_aspect_ratio(stream: &Stream<'_>) -> Rational {
    // SAFETY: `Stream` borrows the format context that owns the `AVStream`, and its index was checked when it was made,
    // so the pointer is valid here; the field is plain data that FFmpeg does not write while the context is borrowed.
    unsafe { (*stream.as_ptr()).sample_aspect_ratio }.into()
}

/// Width and height of the images of a stream as the container, or a look at its first packets, tells them.
pub fn size(stream: &Stream<'_>) -> (u32, u32) {
    // SAFETY: as above; every `AVStream` has parameters, which live as long as it does, and the fields are plain data.
    let (width, height) = unsafe {
        let parameters = (*stream.as_ptr()).codecpar;
        ((*parameters).width, (*parameters).height)
    };
    (width.max(0).unsigned_abs(), height.max(0).unsigned_abs())
}

/// How many entries the index of a stream has, those left out that are decoded and not shown.
///
/// In MP4 and QuickTime files it has one for each frame, once the file is open; in others, for some.
pub fn n_shown_in_index(stream: &Stream<'_>) -> u64 {
    // SAFETY: as above, the `AVStream` is valid, and nobody else uses its context, which is borrowed. FFmpeg changes
    // nothing of it here, whatever the type of the second function says. An entry is valid until the next call with
    // the stream, and what is read of it is copied before.
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

/// Whether what `input` is read from can be read from any place in it, not only from its beginning to its end.
pub fn can_go_back(input: &Input) -> bool {
    // SAFETY: `Input` owns the format context, which lives as long as it; its `pb` is null or a valid `AVIOContext`
    // that belongs to it, and the field is plain data.
    unsafe {
        let io = (*input.as_ptr()).pb.as_ref();
        io.is_some_and(|io| io.seekable & ffi::AVIO_SEEKABLE_NORMAL != 0)
    }
}

/// Lets FFmpeg allocate no more than `bytes` at once, in this process.
pub fn limit_allocations(bytes: usize) {
    // SAFETY: it stores a number that FFmpeg compares with, atomically.
    unsafe { ffi::av_max_alloc(bytes) };
}

/// A tag of a stream, if it is UTF-8. `Stream::metadata` takes for granted that it is, whatever the file holds.
pub fn metadata(stream: &Stream<'_>, key: &CStr) -> Option<String> {
    // SAFETY: as above, the `AVStream` and with it the dictionary (which may be null) live while the context is
    // borrowed; an entry of a dictionary has a value that ends in NUL, and it is copied before the borrow ends.
    let value = unsafe {
        let entry = ffi::av_dict_get((*stream.as_ptr()).metadata, key.as_ptr(), ptr::null(), 0);
        CStr::from_ptr(entry.as_ref()?.value)
    };
    value.to_str().ok().map(str::to_owned)
}
