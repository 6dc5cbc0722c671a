//! Backdrops: a color with a gradient, grain and sometimes a checkerboard, as in `smol`'s training data.

use super::random::Random;
use image::{Rgb, RgbImage};

/// Names of colors, and their red, green and blue.
pub const COLORS: [(&str, [f64; 3]); 10] = [
    ("red", [200.0, 40.0, 40.0]),
    ("green", [50.0, 160.0, 70.0]),
    ("blue", [50.0, 80.0, 200.0]),
    ("yellow", [230.0, 210.0, 60.0]),
    ("purple", [140.0, 60.0, 170.0]),
    ("orange", [240.0, 140.0, 40.0]),
    ("gray", [128.0, 128.0, 128.0]),
    ("white", [240.0, 240.0, 240.0]),
    ("black", [15.0, 15.0, 15.0]),
    ("pink", [245.0, 150.0, 190.0]),
];

/// Whether there is a checkerboard.
#[derive(Clone, Copy, PartialEq)]
pub enum Checks {
    /// In two of five backdrops, in any size.
    Sometimes,
    /// Always, and fine enough to show the camera's motion.
    Fine,
}

/// A backdrop of `width × height` pixels in color number `color`.
pub fn paint(color: usize, (width, height): (u32, u32), checks: Checks, random: &mut Random) -> RgbImage {
    let steepness = f64::from(random.between(0, 30));
    let slope = [random.between(-100, 100), random.between(-100, 100)].map(|s| f64::from(s) / 100.0 * steepness);
    let grain = 3.0 * f64::from(random.between(0, 60)) / 10.0;
    let (cell, contrast) = match checks {
        Checks::Fine => ([random.between(24, 56), random.between(24, 56)], random.between(9, 18)),
        Checks::Sometimes if random.below(5) < 2 => {
            ([random.between(32, 112), random.between(32, 112)], random.between(-18, 18))
        }
        Checks::Sometimes => ([1000, 1000], 0),
    };
    RgbImage::from_fn(width, height, |x, y| {
        let across = f64::from(x) / f64::from(width) * slope[0] + f64::from(y) / f64::from(height) * slope[1];
        let odd = (x / cell[0] as u32 + y / cell[1] as u32) % 2;
        let shade = across + random.bell() * grain + f64::from(odd as i32 * contrast);
        Rgb(COLORS[color].1.map(|channel| (channel + shade).clamp(0.0, 255.0) as u8))
    })
}
