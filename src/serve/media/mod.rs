//! From the videos and images of a message to files that can be decoded.

mod address;
mod content;
mod data;
mod file;
mod limits;
mod local;
mod remote;

pub(super) use file::MediaFile;
pub(super) use limits::MediaLimits;
pub(super) use local::MediaRoot;
pub(super) use remote::Remote;
pub use remote::RemoteHost;

use super::api::error::ApiError;
use super::api::request::MediaSource;
use data::{DataUri, data_uri, store_base64};

/// The most frames of a list of frames.
const MAX_FRAMES: usize = 512;

/// Where media may be fetched from.
#[derive(Debug)]
pub(super) struct Sources {
    pub root: Option<MediaRoot>,
    pub remote: Option<Remote>,
}

/// A video or image of a message.
#[derive(Debug)]
pub(super) enum MediaInput {
    /// It came with the request.
    File(MediaFile),
    /// It still has to be fetched.
    Url(String),
    /// The frames of a video.
    Frames(Vec<MediaInput>),
}

/// Where media are. The slowest to fetch is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Location {
    Request,
    ThisMachine,
    Network,
}

impl MediaInput {
    /// Where it is; of frames, where the slowest is.
    pub fn location(&self) -> Location {
        match self {
            Self::File(_) => Location::Request,
            Self::Url(url) if matches!(scheme(url).as_deref(), Some("http" | "https")) => Location::Network,
            Self::Url(_) => Location::ThisMachine,
            Self::Frames(frames) => frames.iter().map(Self::location).max().unwrap_or(Location::Request),
        }
    }
}

fn scheme(url: &str) -> Option<String> {
    url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase())
}

/// Writes media that came with the request to temporary files. Does not look at URLs and paths.
pub(super) fn take(source: &MediaSource<'_>, limits: &MediaLimits) -> Result<MediaInput, ApiError> {
    match source {
        MediaSource::Url(url) => take_url(url, limits),
        MediaSource::Data(data) => take_data(data_uri(data).unwrap_or(Ok(DataUri::File(data)))?, limits),
        MediaSource::Frames(frames) => {
            if frames.is_empty() || frames.len() > MAX_FRAMES {
                return Err(ApiError::media(format!("a list of frames must have 1 to {MAX_FRAMES} frames")));
            }
            let frames = frames.iter().map(|frame| take_url(frame, limits)).collect::<Result<_, _>>()?;
            Ok(MediaInput::Frames(frames))
        }
    }
}

fn take_url(url: &str, limits: &MediaLimits) -> Result<MediaInput, ApiError> {
    limits.check()?;
    if let Some(uri) = data_uri(url) {
        return take_data(uri?, limits);
    }
    limits.count()?;
    Ok(MediaInput::Url(url.to_owned()))
}

fn take_data(uri: DataUri<'_>, limits: &MediaLimits) -> Result<MediaInput, ApiError> {
    let one = |text| {
        limits.count()?;
        MediaFile::own(store_base64(text, limits)?).map(MediaInput::File)
    };
    match uri {
        DataUri::File(text) => one(text),
        DataUri::Frames(frames) if frames.len() > MAX_FRAMES => {
            Err(ApiError::media(format!("a list of frames can have at most {MAX_FRAMES} frames")))
        }
        DataUri::Frames(frames) => Ok(MediaInput::Frames(frames.into_iter().map(one).collect::<Result<_, _>>()?)),
    }
}

impl Sources {
    /// Fetches what is not on this machine yet. Blocks.
    pub fn fetch(&self, input: MediaInput, limits: &MediaLimits) -> Result<MediaFile, ApiError> {
        limits.check()?;
        match input {
            MediaInput::File(file) => Ok(file),
            MediaInput::Url(url) => self.fetch_url(&url, limits),
            MediaInput::Frames(frames) => {
                let frames: Vec<_> =
                    frames.into_iter().map(|frame| self.fetch(frame, limits)).collect::<Result<_, _>>()?;
                MediaFile::of_frames(&frames)
            }
        }
    }

    fn fetch_url(&self, url: &str, limits: &MediaLimits) -> Result<MediaFile, ApiError> {
        let forbidden = |message| ApiError::forbidden_media(message);
        match scheme(url).as_deref() {
            Some("http" | "https") => {
                let expected = "this server fetches nothing from the network; send the file itself as a data URI";
                let remote = self.remote.as_ref().ok_or_else(|| forbidden(expected))?;
                MediaFile::own(remote.fetch(url, limits)?)
            }
            None | Some("file") => {
                let expected = "this server offers no files of its own; send the file itself as a data URI";
                let root = self.root.as_ref().ok_or_else(|| forbidden(expected))?;
                MediaFile::local(root.open(url, limits)?)
            }
            Some(_) => Err(forbidden("the URL of a video or image must begin with data:, http:, https: or file:")),
        }
    }
}
