//! The format of a file, by its first bytes.

use std::io::{self, Read};

/// Bytes that are read: one packet of a transport stream, and the first byte of the next.
const HEAD: u64 = 189;

/// Whether a file begins like a video or image in a supported format. FFmpeg knows hundreds more, and some of them,
/// such as playlists, make it open other files.
pub(super) fn is_known(content: impl Read) -> io::Result<bool> {
    let mut head = Vec::with_capacity(HEAD as usize);
    content.take(HEAD).read_to_end(&mut head)?;
    Ok(has_known_start(&head))
}

fn has_known_start(head: &[u8]) -> bool {
    match head {
        // MP4 and QuickTime: the name of their first box.
        [0, _, _, _, b'f', b't', b'y', b'p', ..]
        | [0, _, _, _, b'm', b'o', b'o', b'v', ..]
        | [0, _, _, _, b'm', b'd', b'a', b't', ..]
        | [0, _, _, _, b'w', b'i', b'd', b'e', ..]
        | [0, _, _, _, b'f', b'r', b'e', b'e', ..]
        | [0, _, _, _, b's', b'k', b'i', b'p', ..]
        // Matroska and WebM.
        | [0x1a, 0x45, 0xdf, 0xa3, ..]
        // MPEG program streams and video, ASF, FLV, Ogg.
        | [0, 0, 1, 0xba | 0xb3, ..]
        | [0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, ..]
        | [b'F', b'L', b'V', 1, ..]
        | [b'O', b'g', b'g', b'S', 0, ..]
        // Animations and images.
        | [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..]
        | [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..]
        | [0xff, 0xd8, 0xff, ..] => true,
        [b'R', b'I', b'F', b'F', _, _, _, _, kind @ ..] => kind.starts_with(b"AVI ") || kind.starts_with(b"WEBP"),
        // A transport stream, whose packets have 188 bytes.
        [0x47, ..] => head.get(188) == Some(&0x47),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_name_other_files_are_unknown() {
        for text in [
            "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
            "ffconcat version 1.0\nfile '/etc/passwd'\n",
            "v=0\no=- 0 0 IN IP4 1.1.1.1\n",
            "<?xml version=\"1.0\"?><MPD profiles=\"urn:mpeg:dash:profile:isoff-live:2011\">",
            "<svg/>",
            "root:x:0:0",
            "",
            "subfile,,start,0",
        ] {
            assert!(!has_known_start(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn common_formats_are_known() {
        let mut ts = vec![0; 189];
        (ts[0], ts[188]) = (0x47, 0x47);
        assert!(has_known_start(&ts));
        for head in [
            &b"\0\0\0\x20ftypisom"[..],
            b"\x1a\x45\xdf\xa3\x01",
            b"RIFF\0\0\0\0AVI LIST",
            b"RIFF\0\0\0\0WEBPVP8 ",
            b"GIF89a\x01",
            b"\x89PNG\r\n\x1a\n\0",
            b"\xff\xd8\xff\xe0",
        ] {
            assert!(has_known_start(head), "{head:?}");
        }
        assert!(!has_known_start(b"RIFF\0\0\0\0WAVEfmt "));
    }
}
