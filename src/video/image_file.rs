//! Still images.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::limits::{MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, check_size, too_large};
use super::sampling::Plan;
use super::{Frame, Images, Kind, Opened, Sampling, VideoInfo};
use crate::error::{Error, MediaProblem, Result};

/// Opens an image as a video of one frame.
pub(super) fn open(path: &Path, format: ImageFormat) -> Result<Opened> {
    let frame = read(path)?;
    let codec = format.extensions_str().first().copied().unwrap_or_default();
    let info = VideoInfo {
        path: path.to_owned(),
        kind: Kind::Image,
        width: frame.width,
        height: frame.height,
        duration_s: None,
        fps: None,
        n_frames: Some(1),
        container: codec.to_owned(),
        codec: codec.to_owned(),
    };
    let planner = Box::new(|_: &Sampling| Ok(Plan::image()));
    Ok(Opened { info, planner, images: Box::new(Single(Some(frame))), warnings: Vec::new() })
}

/// Decodes a JPEG, PNG or WebP image and applies its EXIF orientation. Decodes the first frame of an animation.
pub(super) fn read(path: &Path) -> Result<Frame> {
    let io = |error| Error::io("reading the image", path)(error);
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if length > MAX_IMAGE_BYTES {
        return Err(too_large(path, format!("{length} bytes, more than the limit of {MAX_IMAGE_BYTES} for an image")));
    }
    let failed = |e: image::ImageError| Error::Media {
        problem: MediaProblem::Image,
        path: path.to_owned(),
        reason: e.to_string(),
    };
    // Guessed by content, because images often have the wrong extension.
    let reader = ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(io)?;
    let mut decoder = reader.into_decoder().map_err(failed)?;
    // `from_decoder` does not check the size that a file claims. `ImageReader::decode` does, but hides the orientation.
    let (width, height) = decoder.dimensions();
    check_size(path, width.into(), height.into(), MAX_IMAGE_PIXELS)?;
    let decode = || {
        let mut limits = Limits::default();
        limits.reserve(decoder.total_bytes())?;
        decoder.set_limits(limits)?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(Frame::from_image(image))
    };
    decode().map_err(failed)
}

struct Single(Option<Frame>);

impl Images for Single {
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
