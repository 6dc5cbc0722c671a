//! Inputs that can only be read forward, such as pipes. Their beginning decides whether that suffices.

use std::io::{self, Cursor, Read};
use std::path::Path;

use super::sniff;
use crate::error::{Error, FileKind, MediaProblem, Result};

/// Bytes that are read to recognize the format.
const HEAD_BYTES: u64 = 64;

/// Bytes that are read at most to find the index of an MP4 file. If it comes later, FFmpeg searches for it.
const MAX_HEAD_BYTES: u64 = 1 << 20;

/// Checks the beginning of `reader`, and returns all of its bytes. Blocks until enough bytes have arrived.
///
/// # Errors
/// If the input cannot be read forward only: an MP4 file whose index is after its images, a playlist, a HEIC image.
/// FFmpeg would read all of the input before it failed.
pub(super) fn begun<R: Read>(path: &Path, mut reader: R) -> Result<impl Read + use<R>> {
    let mut head = Vec::new();
    let index_at_end = look(&mut reader, &mut head).map_err(Error::io("reading the video", path))?;
    if index_at_end {
        return Err(self::index_at_end(path));
    }
    if head.is_empty() {
        return Err(unusable(path, "nothing came from it", "check what writes it"));
    }
    sniff::reject_unsupported(path, &head)?;
    Ok(Cursor::new(head).chain(reader))
}

/// Reads the beginning into `head`. Returns whether it is an MP4 file whose index is after its images.
fn look(reader: &mut impl Read, head: &mut Vec<u8>) -> io::Result<bool> {
    let mut more = |head: &mut Vec<u8>, up_to: u64| {
        let missing = up_to.saturating_sub(head.len() as u64);
        reader.by_ref().take(missing).read_to_end(head).map(|n| n as u64 == missing)
    };
    if !more(head, HEAD_BYTES)? {
        return Ok(false);
    }
    // An MP4 file is a sequence of boxes, each with a length, a name and its content.
    let mut start = 0;
    while start < MAX_HEAD_BYTES && more(head, start + 8)? {
        let Some((length, name)) = header(head, start) else { break };
        match &name {
            b"mdat" => return Ok(true),
            b"ftyp" | b"free" | b"skip" | b"wide" | b"pnot" | b"uuid" if length >= 8 => start += u64::from(length),
            _ => break,
        }
    }
    Ok(false)
}

/// The length and name of the box at `start`.
fn header(head: &[u8], start: u64) -> Option<(u32, [u8; 4])> {
    let (length, rest) = head.get(usize::try_from(start).ok()?..)?.split_first_chunk()?;
    Some((u32::from_be_bytes(*length), *rest.first_chunk()?))
}

/// The error for an MP4 file whose index is after its images.
pub(super) fn index_at_end(path: &Path) -> Error {
    let reason = "its index (moov) is at its end".to_owned();
    Error::Media { problem: MediaProblem::Backward, path: path.to_owned(), reason }
}

/// The error for an input that FFmpeg cannot open.
pub(super) fn not_opened(path: &Path, said: String) -> Error {
    let reason = format!("the input is not a video in a format that can be read forward only ({said})");
    unusable(
        path,
        &reason,
        "give a file by its path, or send MPEG-TS, Matroska, fragmented MP4 or yuv4mpeg, for example",
    )
}

fn unusable(path: &Path, reason: &str, advice: &str) -> Error {
    let (reason, advice) = (reason.to_owned(), advice.to_owned());
    Error::Unusable { what: FileKind::Video, path: path.to_owned(), reason, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(names: &[(&[u8; 4], usize)]) -> Vec<u8> {
        let of = |(name, length): &(&[u8; 4], usize)| {
            [&((8 + length) as u32).to_be_bytes()[..], *name, &vec![7; *length]].concat()
        };
        names.iter().flat_map(of).collect()
    }

    #[test]
    fn an_index_behind_the_images_is_found_and_one_before_them_is_not() {
        type Boxes<'a> = &'a [(&'a [u8; 4], usize)];
        let cases: [(Boxes<'_>, bool); 7] = [
            (&[(b"ftyp", 24), (b"free", 0), (b"mdat", 900), (b"moov", 100)], true),
            (&[(b"wide", 0), (b"mdat", 900), (b"moov", 100)], true),
            (&[(b"ftyp", 24), (b"uuid", 5000), (b"mdat", 900)], true),
            (&[(b"ftyp", 24), (b"moov", 100), (b"mdat", 900)], false),
            (&[(b"ftyp", 24), (b"free", 2 << 20), (b"mdat", 900)], false),
            (&[(b"ftyp", 24), (b"meta", 100), (b"mdat", 900)], false),
            (&[(b"styp", 24), (b"moof", 100), (b"mdat", 900)], false),
        ];
        for (names, expected) in cases {
            let bytes = boxes(names);
            let begun = begun(Path::new("stdin"), &bytes[..]);
            assert_eq!(begun.is_err(), expected, "{names:?}");
            let mut all = Vec::new();
            if let Ok(mut begun) = begun {
                begun.read_to_end(&mut all).expect("it is in memory");
                assert!(all == bytes, "{names:?}");
            }
        }
    }

    #[test]
    fn anything_else_comes_as_it_is() {
        for bytes in [&b"YUV4MPEG2 W64 H48"[..], b"G", &[0x47; 500], &[0; 500], b"\0\0\0\0ftyp", &[0xff; 64]] {
            let mut all = Vec::new();
            begun(Path::new("stdin"), bytes).expect("it may be video").read_to_end(&mut all).expect("in memory");
            assert_eq!(all, bytes);
        }
    }
}
