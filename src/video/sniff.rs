//! What a path holds, by content: which of the decoders gets it.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use image::ImageFormat;
use image::codecs::png::PngDecoder;

use super::heif::{self, Heif, Turn};
use crate::error::{Error, FileKind, MediaProblem, Result};

/// How much of a file tells what it holds.
const HEAD_BYTES: usize = 1024;

/// How the text of a file begins that only names where a video is: FFmpeg would go and read that.
const PLAYLISTS: [(&str, &str); 6] = [
    ("#EXTM3U", "an HLS playlist"),
    ("ffconcat version", "a concat list of FFmpeg"),
    ("v=0", "an SDP description of a stream"),
    ("[playlist]", "a playlist"),
    ("[Reference]", "a playlist"),
    ("<smil", "a SMIL playlist"),
];

/// Which decoder a path is for.
pub(super) enum Content {
    Folder,
    /// A still image in one of the formats that the `image` crate reads, with its EXIF orientation.
    Image(ImageFormat),
    /// FFmpeg before 8 cannot decode it.
    AnimatedWebp,
    ForFfmpeg(Nature),
}

/// What FFmpeg cannot tell of a file: whether it is a video, or images in the container of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Whatever FFmpeg takes it for.
    Open,
    /// A still image, to be shown turned.
    Image(Turn),
    /// Images that are a file's of its own, as those of a GIF.
    Animation,
}

/// Looks at the first bytes of a file. Fails if there is nothing to read.
pub(super) fn content(path: &Path) -> Result<Content> {
    let not_a_video = |reason: &str| Error::Media {
        problem: MediaProblem::NotAVideo,
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let io_error = Error::io("opening the video", path);
    let kind = fs::metadata(path).map_err(|error| no_path(path).unwrap_or_else(|| io_error(error)))?.file_type();
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
        // Raw Motion JPEG looks the same; there only the name tells.
        [0xff, 0xd8, 0xff, ..] if !has_extension(path, &["mjpeg", "mjpg"]) => still(ImageFormat::Jpeg),
        [0x89, b'P', b'N', b'G', ..] => match PngDecoder::new(file).and_then(|png| png.is_apng()) {
            Ok(true) => Ok(Content::ForFfmpeg(Nature::Open)),
            // A damaged file gets its error from the decoder.
            Ok(false) | Err(_) => still(ImageFormat::Png),
        },
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', chunk @ ..] => {
            // The extended header's flags: bit 1 says that there is an animation.
            let animated = matches!(chunk, [b'V', b'P', b'8', b'X', _, _, _, _, flags, ..] if flags & 2 != 0);
            if animated { Ok(Content::AnimatedWebp) } else { still(ImageFormat::WebP) }
        }
        _ => {
            refuse(path, &head)?;
            Ok(Content::ForFfmpeg(match heif::look(&head, file) {
                Some(Heif::Avif(turn)) => Nature::Image(turn),
                Some(Heif::Sequence) => Nature::Animation,
                Some(Heif::NotRead(what)) => return Err(not_read(path, what)),
                None => Nature::Open,
            }))
        }
    }
}

/// Fails if what begins with `head` is nothing to be read, whatever comes behind.
pub(super) fn refuse(path: &Path, head: &[u8]) -> Result<()> {
    if let Some(what) = playlist(head) {
        return Err(Error::Unusable {
            what: FileKind::Video,
            path: path.to_owned(),
            reason: format!("this is {what}, and nothing is read that another file names"),
            advice: "give the video itself".to_owned(),
        });
    }
    match heif::look(head, head) {
        Some(Heif::NotRead(what)) => Err(not_read(path, what)),
        _ => Ok(()),
    }
}

/// The error for an image of a kind that is not read.
fn not_read(path: &Path, what: &str) -> Error {
    Error::Media { problem: MediaProblem::NotRead, path: path.to_owned(), reason: what.to_owned() }
}

/// What kind of list of other places a file is, if it is one.
fn playlist(head: &[u8]) -> Option<&'static str> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins = |text: &str| head.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()));
    let contains = |text: &str| head.windows(text.len()).any(|window| window == text.as_bytes());
    if begins("<") && contains("<MPD") {
        return Some("a DASH manifest");
    }
    PLAYLISTS.iter().find(|(start, _)| begins(start)).map(|&(_, what)| what)
}

/// The error for what cannot be a path, to be asked if there is nothing at `path`.
fn no_path(path: &Path) -> Option<Error> {
    let name = path.to_str()?;
    let (reason, advice) = if name == "-" {
        ("the standard input cannot be read as a video, which is read back and forth", "write it to a file".to_owned())
    } else {
        let (scheme, rest) = name.split_once("://")?;
        if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
            return None;
        }
        if scheme.eq_ignore_ascii_case("file") {
            let local = rest.strip_prefix("localhost").unwrap_or(rest);
            // Where characters are escaped, this is not the path.
            let is_path = local.starts_with('/') && !local.contains('%');
            ("this is a URL", if is_path { format!("give its path: {local}") } else { "give its path".to_owned() })
        } else {
            ("this is a URL, and nothing is fetched from the network", "download it and give the local file".to_owned())
        }
    };
    Some(Error::Unusable { what: FileKind::Video, path: path.to_owned(), reason: reason.to_owned(), advice })
}

/// Whether the name ends in one of these (lower-case) extensions, in any case.
pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    extensions.contains(&extension.as_str())
}
