//! Converts decoded images to upright RGB with square pixels.
//!
//! An FFmpeg filter graph does it: `scale` converts colors and makes pixels square, then `transpose` and flips turn the
//! image upright.

use ff::color::{Range, Space};
use ff::filter::{self, Graph};
use ff::format::Pixel;
use ff::frame::Video as Image;
use ffmpeg_next as ff;

use super::super::Frame;
use super::super::frame::over_white;
use super::super::heif::Turn;
use super::super::limits::MAX_VIDEO_PIXELS;

/// Sample aspect ratios above this, or below its inverse, are considered damaged.
const MAX_SAR: f64 = 16.0;

/// Without a color matrix, players assume BT.709 from this height on, and BT.601 below it.
const HD_HEIGHT: u32 = 720;

/// How to turn a stored image upright: first the transposition, then the flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation {
    /// Swaps rows and columns.
    pub(super) transpose: bool,
    /// Swaps left and right.
    pub(super) flip_horizontally: bool,
    /// Swaps top and bottom.
    pub(super) flip_vertically: bool,
}

impl Orientation {
    pub(super) const UPRIGHT: Self = Self { transpose: false, flip_horizontally: false, flip_vertically: false };

    /// From `AV_PKT_DATA_DISPLAYMATRIX`: nine native-endian 32-bit integers `a b u c d v x y w`. The point `(p, q)` of
    /// the stored image (q downward) is shown at `(a·p + c·q, b·p + d·q)`, up to scale and shift.
    ///
    /// Angles are rounded to the nearest multiple of 90°.
    pub(super) fn from_display_matrix(bytes: &[u8]) -> Self {
        let entry = |i: usize| {
            bytes.get(4 * i..4 * i + 4).and_then(|b| b.try_into().ok()).map_or(0, |b| i64::from(i32::from_ne_bytes(b)))
        };
        Self::from_turn(Turn { a: entry(0), b: entry(1), c: entry(3), d: entry(4) })
    }

    /// The orientation that is nearest to `turn`.
    pub(super) fn from_turn(Turn { a, b, c, d }: Turn) -> Self {
        if a.abs() + d.abs() >= b.abs() + c.abs() {
            Self { transpose: false, flip_horizontally: a < 0, flip_vertically: d < 0 }
        } else {
            Self { transpose: true, flip_horizontally: c < 0, flip_vertically: b < 0 }
        }
    }

    fn filters(self) -> String {
        let mut filters = String::new();
        if self.transpose {
            // Of this filter's four directions, `cclock_flip` is the plain transposition.
            filters.push_str(",transpose=cclock_flip");
        }
        if self.flip_horizontally {
            filters.push_str(",hflip");
        }
        if self.flip_vertically {
            // `vflip` returns the same image with a negative line size, so `copy` follows.
            filters.push_str(",vflip,copy");
        }
        filters
    }
}

/// Converts the images of one stream.
pub(super) struct Converter {
    orientation: Orientation,
    /// The container's sample aspect ratio; without it, each image's own applies.
    container_sar: Option<f64>,
    /// The filters for the last kind of image, which seldom changes within a stream.
    graph: Option<(Input, Graph)>,
}

/// The properties of an image that the filters depend on.
#[derive(Clone, Copy, PartialEq)]
struct Input {
    format: Pixel,
    width: u32,
    height: u32,
    space: Space,
    range: Range,
    sar: f64,
}

impl Converter {
    pub(super) fn new(orientation: Orientation, container_sar: Option<f64>) -> Self {
        Self { orientation, container_sar, graph: None }
    }

    pub(super) fn convert(&mut self, image: &Image) -> Result<Frame, ff::Error> {
        let input = Input {
            format: image.format(),
            width: image.width(),
            height: image.height(),
            space: image.color_space(),
            range: image.color_range(),
            sar: self.sar(image),
        };
        let mut graph = match self.graph.take() {
            Some((same, graph)) if same == input => graph,
            _ => input.graph(self.orientation)?,
        };

        // The filter takes ownership of its image, but the decoder may need the image again.
        let mut copy = image.clone();
        copy.set_pts(None);
        graph.get("in").ok_or(ff::Error::FilterNotFound)?.source().add(&copy)?;
        let mut converted = Image::empty();
        graph.get("out").ok_or(ff::Error::FilterNotFound)?.sink().frame(&mut converted)?;
        self.graph = Some((input, graph));
        to_frame(&converted, input.has_alpha())
    }

    fn sar(&self, image: &Image) -> f64 {
        let ratio = image.aspect_ratio();
        let own = (ratio.0 > 0 && ratio.1 > 0).then(|| f64::from(ratio.0) / f64::from(ratio.1));
        let sar = self.container_sar.or(own).unwrap_or(1.0);
        if (1.0 / MAX_SAR..=MAX_SAR).contains(&sar) { sar } else { 1.0 }
    }
}

impl Input {
    fn graph(&self, orientation: Orientation) -> Result<Graph, ff::Error> {
        let find = |name| filter::find(name).ok_or(ff::Error::FilterNotFound);
        let format = self.format.descriptor().ok_or(ff::Error::InvalidData)?.name();
        let source =
            format!("video_size={}x{}:pix_fmt={format}:time_base=1/1000:pixel_aspect=1/1", self.width, self.height);
        let mut graph = Graph::new();
        graph.add(&find("buffer")?, "in", &source)?;
        graph.add(&find("buffersink")?, "out", "")?;

        let (width, height) = self.square_pixels();
        let colors = self.color_options();
        let output = if self.has_alpha() { "rgba" } else { "rgb24" };
        let filters = format!(
            "scale=w={width}:h={height}{colors}:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp,\
             format={output}{}",
            orientation.filters()
        );
        graph.output("in", 0)?.input("out", 0)?.parse(&filters)?;
        graph.validate()?;
        Ok(graph)
    }

    /// The size with square pixels. Scales up the shorter side of the pixels, so that no detail is lost; if that would
    /// exceed the limit, scales down the longer one.
    fn square_pixels(&self) -> (u32, u32) {
        let scaled = |length: u32, by: f64| ((f64::from(length) * by).round() as u32).max(1);
        let by = self.sar.max(1.0 / self.sar);
        let enlarge = f64::from(self.width) * f64::from(self.height) * by <= MAX_VIDEO_PIXELS as f64;
        match (self.sar >= 1.0, enlarge) {
            (true, true) => (scaled(self.width, by), self.height),
            (true, false) => (self.width, scaled(self.height, 1.0 / by)),
            (false, true) => (self.width, scaled(self.height, by)),
            (false, false) => (scaled(self.width, 1.0 / by), self.height),
        }
    }

    /// The options of `scale` for the image's color matrix and range. Without a range, `scale` assumes full range for
    /// RGB, grey and the old `yuvj` formats, and limited range for others.
    fn color_options(&self) -> String {
        if self.is_rgb() {
            return String::new();
        }
        let matrix = match self.space {
            Space::BT709 => "bt709",
            Space::FCC => "fcc",
            Space::BT470BG | Space::SMPTE170M => "bt601",
            Space::SMPTE240M => "smpte240m",
            Space::BT2020NCL | Space::BT2020CL => "bt2020",
            _ if self.height >= HD_HEIGHT => "bt709",
            _ => "bt601",
        };
        let range = match self.range {
            Range::MPEG => ":in_range=limited",
            Range::JPEG => ":in_range=full",
            Range::Unspecified => "",
        };
        format!(":in_color_matrix={matrix}{range}")
    }

    fn name(&self) -> &'static str {
        self.format.descriptor().map_or("", |descriptor| descriptor.name())
    }

    fn is_rgb(&self) -> bool {
        let name = self.name();
        self.space == Space::RGB
            || name.contains("rgb")
            || name.contains("bgr")
            || name.contains("gbr")
            || name == "pal8"
    }

    fn has_alpha(&self) -> bool {
        let n_components = self.format.descriptor().map_or(0, |descriptor| descriptor.nb_components());
        matches!(n_components, 2 | 4) || self.name() == "pal8"
    }
}

/// Copies the rows of an RGB24 or RGBA image into a frame.
fn to_frame(image: &Image, has_alpha: bool) -> Result<Frame, ff::Error> {
    let (width, height) = (image.width(), image.height());
    // A negative line size wraps around to an immense one.
    if isize::try_from(image.stride(0)).is_err() {
        return Err(ff::Error::InvalidData);
    }
    let row_bytes = width as usize * if has_alpha { 4 } else { 3 };
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    for row in image.data(0).chunks(image.stride(0).max(1)).take(height as usize) {
        let row = &row[..row_bytes.min(row.len())];
        if has_alpha { rgb.extend(over_white(row)) } else { rgb.extend_from_slice(row) }
    }
    Ok(Frame { width, height, rgb, time_s: 0.0 })
}
