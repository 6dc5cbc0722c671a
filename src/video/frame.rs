//! One decoded image.

use image::{DynamicImage, RgbImage, imageops};

/// One decoded, upright image with square pixels.
#[derive(Clone, PartialEq)]
pub struct Frame {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `[height × width × 3]` bytes, row-major: red, green, blue.
    pub rgb: Vec<u8>,
    /// The moment that the image was sampled at, one of [`planned_times`](super::FrameSource::planned_times), in
    /// seconds since the first frame of the video.
    pub time_s: f64,
}

impl Frame {
    /// A frame at 0 s. Transparent pixels become white.
    pub(super) fn from_image(image: DynamicImage) -> Self {
        let (width, height) = (image.width(), image.height());
        let rgb = if image.color().has_alpha() {
            over_white(image.into_rgba8().as_raw())
        } else {
            image.into_rgb8().into_raw()
        };
        Self { width, height, rgb, time_s: 0.0 }
    }

    /// The image scaled to fit into `width` × `height`, with its aspect ratio kept and black borders.
    pub(crate) fn fitted(self, width: u32, height: u32) -> Self {
        if (self.width, self.height) == (width, height) {
            return self;
        }
        let Some(image) = RgbImage::from_raw(self.width, self.height, self.rgb) else {
            return Self { width, height, rgb: vec![0; width as usize * height as usize * 3], time_s: self.time_s };
        };
        let scale = (f64::from(width) / f64::from(self.width)).min(f64::from(height) / f64::from(self.height));
        let scaled = |length: u32, limit: u32| ((f64::from(length) * scale).round() as u32).clamp(1, limit);
        let (inner_width, inner_height) = (scaled(self.width, width), scaled(self.height, height));

        let image = imageops::resize(&image, inner_width, inner_height, imageops::FilterType::CatmullRom);
        let mut canvas = RgbImage::new(width, height);
        let (left, top) = ((width - inner_width) / 2, (height - inner_height) / 2);
        imageops::replace(&mut canvas, &image, left.into(), top.into());
        Self { width, height, rgb: canvas.into_raw(), time_s: self.time_s }
    }
}

impl std::fmt::Debug for Frame {
    /// Leaves out the pixels.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({}x{} at {:.3} s)", self.width, self.height, self.time_s)
    }
}

/// Converts RGBA (with straight alpha) to RGB on a white background.
pub(super) fn over_white(rgba: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for pixel in rgba.chunks_exact(4) {
        let alpha = u16::from(pixel[3]);
        rgb.extend(pixel[..3].iter().map(|&c| ((u16::from(c) * alpha + 255 * (255 - alpha) + 127) / 255) as u8));
    }
    rgb
}
