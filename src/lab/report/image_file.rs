//! Image files: SVG, and PNG that is rendered from it.

use super::draw::DrawError;
use crate::error::Error;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use std::sync::Arc;

/// Pixels of a PNG for each pixel of the drawing: enough for print and high-resolution screens.
const SCALE: f32 = 2.0;

/// The font of PNGs, on any system.
const FONT: &str = "DejaVu Sans";

/// A format of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_format)]
pub enum ImageFormat {
    /// Vector graphics: sharp at any size, with text in the reader's own sans-serif font.
    Svg,
    /// Pixels, on white.
    Png,
}

impl ImageFormat {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::Svg, Self::Png];

    /// Its name, and the extension of its files.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

fn unknown_format(name: &str) -> Error {
    Error::unknown_name::<ImageFormat>("the format of images", name)
}

/// Renders an SVG as a PNG file.
pub fn png(svg: &str) -> std::result::Result<Vec<u8>, DrawError> {
    let mut options = Options { font_family: FONT.to_owned(), ..Options::default() };
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.set_sans_serif_family(FONT);
    let tree = Tree::from_str(svg, &options)?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or("the image has no size")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or("the image is too large")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    Ok(pixels.encode_png()?)
}
