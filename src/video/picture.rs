//! Single still pictures.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{Frame, Kind, Opened, Pictures, VideoInfo};
use crate::error::{Error, MediaProblem, Result};

/// One picture as a video of one frame.
pub(super) fn open(path: &Path, format: ImageFormat) -> Result<Opened> {
    let frame = read(path)?;
    let codec = format.extensions_str().first().copied().unwrap_or_default();
    let info = VideoInfo {
        path: path.to_owned(),
        kind: Kind::Picture,
        width: frame.width,
        height: frame.height,
        duration_s: None,
        fps: None,
        n_frames: Some(1),
        container: codec.to_owned(),
        codec: codec.to_owned(),
    };
    Ok(Opened { info, times: vec![0.0], pictures: Box::new(Single(Some(frame))), warnings: Vec::new() })
}

/// Decodes a JPEG, PNG or WebP picture (the first one, if it is animated), upright by its EXIF orientation.
pub(super) fn read(path: &Path) -> Result<Frame> {
    let bytes = std::fs::read(path).map_err(Error::io("reading the picture", path))?;
    let decode = || {
        // By content, not by name: pictures are often named wrongly.
        let mut decoder = ImageReader::new(Cursor::new(&bytes)).with_guessed_format()?.into_decoder()?;
        // `from_decoder` believes any size that a file claims; only `ImageReader::decode`, which hides the orientation,
        // looks first.
        Limits::default().reserve(decoder.total_bytes())?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(Frame::from_image(image))
    };
    decode().map_err(|e: image::ImageError| Error::Media {
        problem: MediaProblem::Picture,
        path: path.to_owned(),
        reason: e.to_string(),
    })
}

struct Single(Option<Frame>);

impl Pictures for Single {
    fn at(&mut self, _time_s: f64) -> Result<Option<Frame>> {
        Ok(self.0.take())
    }

    fn frames_decoded(&self) -> u64 {
        1
    }

    fn warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}
