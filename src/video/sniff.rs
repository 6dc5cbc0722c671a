//! Chooses the decoder for a path by its content.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use image::ImageFormat;
use image::codecs::png::PngDecoder;

use super::heif::{self, Heif, Turn};
use crate::error::{Error, FileKind, MediaProblem, Result};

/// Bytes that are read to recognize the content.
const HEAD_BYTES: usize = 1024;

/// The beginnings of files that only name a video, which FFmpeg would then open.
const PLAYLISTS: [(&str, &str); 6] = [
    ("#EXTM3U", "an HLS playlist"),
    ("ffconcat version", "a concat list of FFmpeg"),
    ("v=0", "an SDP description of a stream"),
    ("[playlist]", "a playlist"),
    ("[Reference]", "a playlist"),
    ("<smil", "a SMIL playlist"),
];

/// The decoder for a path.
pub(super) enum Content {
    Folder,
    /// A still image in a format that the `image` crate reads, with its EXIF orientation.
    Image(ImageFormat),
    /// Animated WebP, which FFmpeg before 8 cannot decode.
    AnimatedWebp,
    ForFfmpeg(Nature),
}

/// Whether a file is a video, or images in a video's container. FFmpeg does not report this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// FFmpeg's format decides.
    Open,
    /// A still image, to be shown with this orientation.
    Image(Turn),
    /// An animation, like a GIF.
    Animation,
}

/// Reads the first bytes of a file, and chooses its decoder.
pub(super) fn content(path: &Path) -> Result<Content> {
    let not_a_video = |reason: &str| Error::Media {
        problem: MediaProblem::NotAVideo,
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let io_error = Error::io("opening the video", path);
    let kind = fs::metadata(path).map_err(|error| not_a_path(path).unwrap_or_else(|| io_error(error)))?.file_type();
    if kind.is_dir() {
        return Ok(Content::Folder);
    }
    if !kind.is_file() {
        return Err(not_a_video("it is neither a file nor a folder"));
    }
    let file = File::open(path).map_err(Error::io("opening the video", path))?;
    let mut file = BufReader::new(file);
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(Error::io("reading the video", path))?;
    file.rewind().map_err(Error::io("reading the video", path))?;
    if head.is_empty() {
        return Err(not_a_video("the file is empty"));
    }

    let still = |format| Ok(Content::Image(format));
    match head.as_slice() {
        // Raw Motion JPEG starts with the same bytes, so the extension decides.
        [0xff, 0xd8, 0xff, ..] if !has_extension(path, &["mjpeg", "mjpg"]) => still(ImageFormat::Jpeg),
        [0x89, b'P', b'N', b'G', ..] => match PngDecoder::new(file).and_then(|png| png.is_apng()) {
            Ok(true) => Ok(Content::ForFfmpeg(Nature::Open)),
            // The decoder reports damaged files.
            Ok(false) | Err(_) => still(ImageFormat::Png),
        },
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', chunk @ ..] => {
            // Bit 1 of the extended header's flags marks an animation.
            let animated = matches!(chunk, [b'V', b'P', b'8', b'X', _, _, _, _, flags, ..] if flags & 2 != 0);
            if animated { Ok(Content::AnimatedWebp) } else { still(ImageFormat::WebP) }
        }
        _ => {
            reject_unsupported(path, &head)?;
            Ok(Content::ForFfmpeg(match heif::look(&head, file) {
                Some(Heif::Avif(turn)) => Nature::Image(turn),
                Some(Heif::Sequence) => Nature::Animation,
                Some(Heif::Unsupported(what)) => return Err(unsupported(path, what)),
                None => Nature::Open,
            }))
        }
    }
}

/// Fails if a file that begins with `head` must not or cannot be read.
pub(super) fn reject_unsupported(path: &Path, head: &[u8]) -> Result<()> {
    if let Some(what) = playlist(head) {
        return Err(Error::Unusable {
            what: FileKind::Video,
            path: path.to_owned(),
            reason: format!("this is {what}, and files that it names are not opened"),
            advice: "give the video itself".to_owned(),
        });
    }
    match heif::look(head, head) {
        Some(Heif::Unsupported(what)) => Err(unsupported(path, what)),
        _ => Ok(()),
    }
}

/// The error for an image of an unsupported kind.
fn unsupported(path: &Path, what: &str) -> Error {
    Error::Media { problem: MediaProblem::NotRead, path: path.to_owned(), reason: what.to_owned() }
}

/// The kind of playlist that begins with `head`; `None` if it is not a playlist.
fn playlist(head: &[u8]) -> Option<&'static str> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins = |text: &str| head.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()));
    let contains = |text: &str| head.windows(text.len()).any(|window| window == text.as_bytes());
    if begins("<") && contains("<MPD") {
        return Some("a DASH manifest");
    }
    PLAYLISTS.iter().find(|(start, _)| begins(start)).map(|&(_, what)| what)
}

/// The error for a `path` that does not exist because it is a URL or `-`.
fn not_a_path(path: &Path) -> Option<Error> {
    let name = path.to_str()?;
    let (reason, advice) = if name == "-" {
        ("standard input cannot be read here, because videos are read in any order", "write it to a file".to_owned())
    } else {
        let (scheme, rest) = name.split_once("://")?;
        if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
            return None;
        }
        if scheme.eq_ignore_ascii_case("file") {
            let local = rest.strip_prefix("localhost").unwrap_or(rest);
            // With escaped characters, this is not the path.
            let is_path = local.starts_with('/') && !local.contains('%');
            ("this is a URL", if is_path { format!("give its path: {local}") } else { "give its path".to_owned() })
        } else {
            ("this is a URL, and videos are not downloaded", "download it and give the local file".to_owned())
        }
    };
    Some(Error::Unusable { what: FileKind::Video, path: path.to_owned(), reason: reason.to_owned(), advice })
}

/// Whether the file has one of these lower-case extensions, in any case.
pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    extensions.contains(&extension.as_str())
}
