//! Video that does not end, read as it comes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ffmpeg::Endless;
use super::sniff::{self, Content};
use super::{Frame, Stop};
use crate::error::{Error, FileKind, MediaProblem, Result};

/// How often a file is looked at that may have grown.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What addresses begin with.
const SCHEMES: [&str; 7] = ["rtsp://", "rtsps://", "http://", "https://", "rtmp://", "tcp://", "udp://"];

/// Where video that does not end comes from.
pub enum LiveInput {
    /// Bytes of a container that can be read from its beginning to its end, such as MPEG-TS, Matroska, fragmented MP4,
    /// or yuv4mpeg. The name stands for a path.
    Reader(String, Box<dyn Read + Send>),
    /// A file.
    File(PathBuf),
    /// A file that another program writes: at its end, more is waited for.
    Growing(PathBuf),
    /// An address: `rtsp://`, `http://` and the like. FFmpeg connects to it, and to what it names. Take it from nobody
    /// but the user.
    Address(String),
}

impl LiveInput {
    /// Whether `source` is an address, rather than a file.
    pub fn is_address(source: &str) -> bool {
        SCHEMES.iter().any(|scheme| source.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
    }

    /// What stands for it in messages: of an address, all but the name and password in it.
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

/// Gives the images of video that does not end, one after the other, forward only.
///
/// Times are in seconds since the first image, and ascend whatever the source says: a time that is missing, goes
/// back, or jumps ahead by more than a minute is taken to be just behind the one before
/// ([`warnings`](Self::warnings) tells of it). Images are upright RGB with square pixels, as
/// [`FrameSource`](super::FrameSource) gives them, but in the size that each has.
pub struct LiveSource {
    name: PathBuf,
    endless: Endless,
}

impl LiveSource {
    /// Opens it, and reads its beginning. `stop` is asked while it waits and reads; a [`LiveInput::Reader`] that waits
    /// by itself is not interrupted.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Unusable`] for an address that is none or what comes from a reader and is no video,
    /// [`Error::Remote`] for an address at which there is none, [`Error::Media`], [`Error::NoVideoStream`],
    /// [`Error::UnsupportedCodec`], and [`Error::Cancelled`] if it was stopped.
    pub fn open(input: LiveInput, stop: impl Fn() -> bool + Send + Sync + 'static) -> Result<Self> {
        let (name, stop) = (input.name(), Stop::new(stop));
        let endless = match input {
            LiveInput::Reader(_, reader) => Endless::read(&name, reader, &stop)?,
            LiveInput::File(path) => {
                if matches!(sniff::content(&path)?, Content::Folder) {
                    let reason = "it is a folder".to_owned();
                    return Err(Error::Media { problem: MediaProblem::NotAVideo, path, reason });
                }
                Endless::file(&path, &stop)?
            }
            LiveInput::Growing(path) => Endless::read(&name, Tail { file: opened(&path)?, stop: stop.clone() }, &stop)?,
            LiveInput::Address(address) if LiveInput::is_address(&address) => Endless::address(&name, &address, &stop)?,
            LiveInput::Address(_) => {
                return Err(Error::Unusable {
                    what: FileKind::Video,
                    path: name,
                    reason: "not an address that video is read from".into(),
                    advice: format!("give one that begins with {}", SCHEMES.join(", ")),
                });
            }
        };
        Ok(Self { name, endless })
    }

    /// What stands for its path.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Images a second, where the source says so.
    pub fn fps(&self) -> Option<f64> {
        self.endless.fps()
    }

    /// The next image that is shown at `from_s` or later; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it was stopped; [`Error::Media`] for an image that cannot be converted, or where there
    /// is no way back to the images of an MP4 whose index stands at its end.
    pub fn next_from(&mut self, from_s: f64) -> Result<Option<Frame>> {
        self.endless.next_from(from_s)
    }

    /// What the user should know of what came so far.
    pub fn warnings(&self) -> Vec<String> {
        self.endless.warnings()
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

/// A file that is waited for at its end.
struct Tail {
    file: File,
    stop: Stop,
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.file.read(buffer)?;
            if n > 0 || self.stop.is_wanted() {
                return Ok(n);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// `scheme://name:password@host` without what stands before `@`.
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
