//! The size of the images that the encoder gets.

/// Width and height in pixels.
pub type Size = (u32, u32);

/// The size to which a frame is scaled before the encoder gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSize {
    /// The frame's own size. The encoder's preprocessing scales the frame.
    AsItIs,
    /// This size, whatever the aspect ratio of the frame.
    Exactly(Size),
}

impl ImageSize {
    /// A square of this side; [`AsItIs`](Self::AsItIs) if the encoder's file has no side.
    pub(super) fn square(side: Option<u32>) -> Self {
        side.filter(|&side| side > 0).map_or(Self::AsItIs, |side| Self::Exactly((side, side)))
    }
}

/// The fewest and the most pixels of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pixels {
    pub min: f64,
    pub max: f64,
}

impl Pixels {
    /// The pixels of `min` to `max` tokens, which are squares with sides of `side` pixels.
    pub fn of_tokens(min: f64, max: f64, side: u32) -> Self {
        let square = f64::from(side).powi(2);
        Self { min: min * square, max: max * square }
    }

    fn over(self, n: f64) -> Self {
        Self { min: self.min / n, max: self.max / n }
    }
}

/// The size that has about the aspect ratio of `size`, sides that are multiples of `factor`, and an area within
/// `pixels`. Like Qwen's `smart_resize`, rounds the sides to the nearest multiples, then scales them down or up if the
/// area is out of range.
pub(super) fn smart_resize(size: Size, factor: u32, pixels: Pixels) -> Size {
    resize(size, factor, pixels, pixels)
}

/// [`smart_resize`] for a video of `n` frames, which share `pixels`. Like Qwen3-VL's `smart_resize`, decides by the
/// number of whole pairs whether to scale, and by the number of frames by how much. A frame with a side shorter than
/// `factor` is scaled up first.
pub(super) fn smart_resize_all((width, height): Size, factor: u32, n: usize, pixels: Pixels) -> Size {
    let up = f64::from(factor) / f64::from(width.min(height).max(1));
    let size =
        if up > 1.0 { [width, height].map(|side| (f64::from(side) * up) as u32).into() } else { (width, height) };
    let whole_pairs = (n as f64 / 2.0).round_ties_even().max(1.0) * 2.0;
    resize(size, factor, pixels.over(whole_pairs), pixels.over(n.max(1) as f64))
}

fn resize((width, height): Size, factor: u32, allowed: Pixels, target: Pixels) -> Size {
    let (factor, sides) = (f64::from(factor), [f64::from(width), f64::from(height)]);
    // Python rounds halves to even.
    let nearest = sides.map(|side| ((side / factor).round_ties_even() * factor).max(factor));
    let area = nearest[0] * nearest[1];
    let own = sides[0] * sides[1];
    let whole = |tokens: f64| (tokens * factor).max(factor);
    // The operations are in Python's order, because the last bit may decide.
    let [width, height] = if area > allowed.max {
        let scale = (own / target.max).sqrt();
        sides.map(|side| whole((side / scale / factor).floor()))
    } else if area < allowed.min {
        let scale = (target.min / own).sqrt();
        sides.map(|side| whole((side * scale / factor).ceil()))
    } else {
        nearest
    };
    (width as u32, height as u32)
}
