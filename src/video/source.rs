//! Where frames come from.

use std::path::{Path, PathBuf};

use super::{Frames, LiveInput};

/// Where frames come from: a path, an address, or frames in memory.
///
/// A path, a string and [`Frames`] with a name become one by `into()`, so that `session.add_video("clip.mp4", …)` and
/// `session.add_video(("camera", &frames), …)` work. A string that begins as an address does (`rtsp://`, `https://`) is
/// an [`Address`](Self::Address).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// A video file, an animation, an image, or a folder of numbered images.
    Path(PathBuf),
    /// An address. Only [`LiveSource`](super::LiveSource) opens one; a [`FrameSource`](super::FrameSource) says so.
    Address(String),
    /// Frames in memory, with a name that stands for the path.
    Frames(String, Frames),
}

impl Source {
    /// The path, the address, or the name of frames in memory.
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Address(name) | Self::Frames(name, _) => Path::new(name),
        }
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&PathBuf> for Source {
    fn from(path: &PathBuf) -> Self {
        Self::Path(path.clone())
    }
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&String> for Source {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        if LiveInput::is_address(&text) { Self::Address(text) } else { Self::Path(text.into()) }
    }
}

impl From<Frames> for Source {
    fn from(frames: Frames) -> Self {
        Self::Frames("frames".to_owned(), frames)
    }
}

impl From<&Frames> for Source {
    /// Shares the images.
    fn from(frames: &Frames) -> Self {
        frames.clone().into()
    }
}

impl<N: Into<String>> From<(N, Frames)> for Source {
    fn from((name, frames): (N, Frames)) -> Self {
        Self::Frames(name.into(), frames)
    }
}

impl<N: Into<String>> From<(N, &Frames)> for Source {
    /// Shares the images.
    fn from((name, frames): (N, &Frames)) -> Self {
        Self::Frames(name.into(), frames.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::video::{FrameSource, Sampling};

    #[test]
    fn a_string_is_an_address_where_it_begins_as_one() {
        for (text, is_address) in [
            ("clip.mp4", false),
            ("rtsp://camera/stream", true),
            ("HTTPS://host/clip.mp4", true),
            ("a folder/rtsp:", false),
            ("file:///clip.mp4", false),
        ] {
            let source = Source::from(text);
            assert_eq!(matches!(source, Source::Address(_)), is_address, "{text}");
            assert_eq!(source.path(), Path::new(text));
        }
        // A path is what its caller says it is.
        assert!(matches!(Source::from(Path::new("rtsp://camera")), Source::Path(_)));
    }

    #[test]
    fn frames_have_a_name() {
        let mut frames = Frames::new(1, 1);
        frames.push(vec![0; 3], 0.0).expect("a frame");
        assert_eq!(Source::from(("camera", &frames)).path(), Path::new("camera"));
        assert_eq!(Source::from(frames).path(), Path::new("frames"));
    }

    #[test]
    fn an_address_is_not_opened_as_a_video_with_an_end() {
        let opened = FrameSource::of(&"https://host.invalid/clip.mp4".into(), &Sampling::default(), || false);
        let error = opened.map(|_| ()).expect_err("it is not downloaded");
        assert!(matches!(&error, Error::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("https://host.invalid/clip.mp4"), "{error}");
    }
}
