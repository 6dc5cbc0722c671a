//! Live video, read as it arrives.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ffmpeg::LiveDecoder;
use super::sniff::{self, Content};
use super::{Frame, Stop};
use crate::error::{Error, FileKind, MediaProblem, Result};

/// How often a growing file is checked for more data.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The prefixes of addresses.
const SCHEMES: [&str; 7] = ["rtsp://", "rtsps://", "http://", "https://", "rtmp://", "tcp://", "udp://"];

/// The input of a [`LiveSource`].
pub enum LiveInput {
    /// A name for messages, and the bytes of a container that can be read forward only, such as MPEG-TS, Matroska,
    /// fragmented MP4 or yuv4mpeg.
    Reader(String, Box<dyn Read + Send>),
    /// A file.
    File(PathBuf),
    /// A file that another program is writing. At its end, the source waits for more.
    Growing(PathBuf),
    /// An address: `rtsp://`, `http://` and the like. FFmpeg connects to it, and to the addresses that it refers to.
    /// Accept an address from the user only.
    Address(String),
}

impl LiveInput {
    /// Whether `source` is an address rather than a file.
    pub fn is_address(source: &str) -> bool {
        SCHEMES.iter().any(|scheme| source.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
    }

    /// The name of the input in messages: an address without its user name and password.
    pub fn name(&self) -> PathBuf {
        match self {
            Self::Reader(name, _) => name.into(),
            Self::File(path) | Self::Growing(path) => path.clone(),
            Self::Address(address) => without_password(address).into(),
        }
    }
}

impl std::fmt::Debug for LiveInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LiveInput({})", self.name().display())
    }
}

/// Decodes the frames of live video, forward only.
///
/// Times are in seconds since the first frame and always ascend. If the source's timestamp is missing, goes back, or
/// jumps ahead by more than a minute, the frame gets a time just after that of the previous frame, and
/// [`warnings`](Self::warnings) reports it. Frames are upright RGB with square pixels, as those of
/// [`FrameSource`](super::FrameSource), but keep their own sizes.
pub struct LiveSource {
    name: PathBuf,
    decoder: LiveDecoder,
}

impl LiveSource {
    /// Opens the input and reads its beginning. Stops when `stop` returns true, which is called during waits and reads.
    /// A [`LiveInput::Reader`] that blocks is not interrupted.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unusable`] for an invalid address, or if a reader has no video; [`Error::Remote`] if an
    /// address cannot be opened; [`Error::Media`], [`Error::NoVideoStream`], [`Error::UnsupportedCodec`]; and
    /// [`Error::Cancelled`] if `stop` returned true.
    pub fn open(input: LiveInput, stop: impl Fn() -> bool + Send + Sync + 'static) -> Result<Self> {
        let (name, stop) = (input.name(), Stop::new(stop));
        let decoder = match input {
            LiveInput::Reader(_, reader) => LiveDecoder::read(&name, reader, &stop)?,
            LiveInput::File(path) => {
                if matches!(sniff::content(&path)?, Content::Folder) {
                    let reason = "it is a folder".to_owned();
                    return Err(Error::Media { problem: MediaProblem::NotAVideo, path, reason });
                }
                LiveDecoder::file(&path, &stop)?
            }
            LiveInput::Growing(path) => {
                LiveDecoder::read(&name, Tail { file: opened(&path)?, stop: stop.clone() }, &stop)?
            }
            LiveInput::Address(address) if LiveInput::is_address(&address) => {
                LiveDecoder::address(&name, &address, &stop)?
            }
            LiveInput::Address(_) => {
                return Err(Error::Unusable {
                    what: FileKind::Video,
                    path: name,
                    reason: "not an address of a video".into(),
                    advice: format!("give one that starts with {}", SCHEMES.join(", ")),
                });
            }
        };
        Ok(Self { name, decoder })
    }

    /// The input's name in messages.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Frames per second, if the source states it.
    pub fn fps(&self) -> Option<f64> {
        self.decoder.fps()
    }

    /// The next frame at `from_s` seconds or later; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it was stopped; [`Error::Media`] if a frame cannot be converted, or if the input is an
    /// MP4 with its index at its end and cannot be read backward.
    pub fn next_from(&mut self, from_s: f64) -> Result<Option<Frame>> {
        self.decoder.next_from(from_s)
    }

    /// Problems in the input so far that the user should know about.
    pub fn warnings(&self) -> Vec<String> {
        self.decoder.warnings()
    }
}

impl std::fmt::Debug for LiveSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LiveSource({})", self.name.display())
    }
}

fn opened(path: &Path) -> Result<File> {
    File::open(path).map_err(Error::io("opening the video", path))
}

/// Reads a growing file. At its end, waits for more.
struct Tail {
    file: File,
    stop: Stop,
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.file.read(buffer)?;
            if n > 0 || self.stop.is_requested() {
                return Ok(n);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Removes the user name and password from `scheme://name:password@host`.
fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_files() {
        for address in ["rtsp://camera/1", "RTSP://camera", "http://host/a.ts", "udp://@:1234", "https://h"] {
            assert!(LiveInput::is_address(address), "{address}");
        }
        for file in ["clip.mp4", "-", "/dev/video0", "file:///etc/passwd", "concat:a|b", "http:/x", "ü", ""] {
            assert!(!LiveInput::is_address(file), "{file}");
        }
    }

    #[test]
    fn passwords_are_not_told() {
        let told = |address: &str| LiveInput::Address(address.into()).name().display().to_string();
        assert_eq!(told("rtsp://me:secret@camera:554/a@b"), "rtsp://camera:554/a@b");
        assert_eq!(told("rtsp://me:se@cret@camera"), "rtsp://camera");
        assert_eq!(told("http://camera/?a=b@c"), "http://camera/?a=b@c");
    }

    #[test]
    fn what_is_no_address_is_not_opened() {
        let error = LiveSource::open(LiveInput::Address("file:///etc/passwd".into()), || false).expect_err("no");
        assert!(error.to_string().contains("not an address"), "{error}");
    }
}
