//! Synthetic clips for measuring a model: shapes of different colors that stand, move, appear and cross on plain and
//! patterned backgrounds. The answers have to depend on what is seen, and not always in the same way.

use crate::error::{Error, Result};
use image::{Rgb, RgbImage};
use std::path::{Path, PathBuf};

/// Pixels on each side.
const SIDE: u32 = 224;

/// Frames of a clip, one for each second.
const FRAMES: u32 = 8;

const COLORS: [[u8; 3]; 8] = [
    [220, 40, 40],
    [40, 90, 220],
    [40, 170, 70],
    [240, 200, 40],
    [250, 250, 250],
    [20, 20, 20],
    [150, 60, 190],
    [240, 130, 30],
];

#[derive(Debug, Clone, Copy)]
enum Shape {
    Disc,
    Square,
    Triangle,
    Cross,
    Ring,
}

const SHAPES: [Shape; 5] = [Shape::Disc, Shape::Square, Shape::Triangle, Shape::Cross, Shape::Ring];

impl Shape {
    /// Whether it covers the point, given relative to its center, in radii.
    fn covers(self, x: f32, y: f32) -> bool {
        match self {
            Self::Disc => x.hypot(y) <= 1.0,
            Self::Square => x.abs().max(y.abs()) <= 0.85,
            Self::Triangle => (-0.9..=0.8).contains(&y) && x.abs() <= (y + 0.9) * 0.6,
            Self::Cross => x.abs().max(y.abs()) <= 1.0 && x.abs().min(y.abs()) <= 0.3,
            Self::Ring => (0.55..=1.0).contains(&x.hypot(y)),
        }
    }
}

/// An object, and its position in shares of the image, at the beginning and at the end.
#[derive(Debug, Clone, Copy)]
struct Thing {
    shape: Shape,
    color: [u8; 3],
    from: (f32, f32),
    to: (f32, f32),
}

/// The content of a clip.
#[derive(Debug)]
struct Clip {
    things: Vec<Thing>,
    background: [u8; 3],
    /// Whether the background has moving stripes.
    stripes: bool,
}

impl Clip {
    fn number(n: usize) -> Self {
        let pick = |i: usize| (n * 7 + i * 11 + n * n * 3 + i) as u32;
        let color = |i: usize| COLORS[pick(i) as usize % COLORS.len()];
        let background = color(0);
        // An object of the background's color would be invisible.
        let visible = |i: usize| (i..).map(color).find(|&c| c != background).unwrap_or(background);
        let shape = |i: usize| SHAPES[pick(i + 3) as usize % SHAPES.len()];
        let height = 0.3 + 0.1 * (pick(5) % 5) as f32;
        let thing = |i: usize, from, to| Thing { shape: shape(i), color: visible(i + 1), from, to };
        let things = match n % 6 {
            // One stands; two stand; one moves right; one falls; one appears later; two cross.
            0 => vec![thing(0, (0.5, height), (0.5, height))],
            1 => vec![thing(0, (0.25, height), (0.25, height)), thing(1, (0.75, 1.0 - height), (0.75, 1.0 - height))],
            2 => vec![thing(0, (0.15, height), (0.85, height))],
            3 => vec![thing(0, (0.5, 0.15), (0.5, 0.85))],
            4 => vec![thing(0, (1.9, height), (0.4, height)), thing(1, (0.2, 0.8), (0.2, 0.8))],
            _ => vec![thing(0, (0.1, height), (0.9, height)), thing(1, (0.9, 0.75), (0.1, 0.75))],
        };
        Self { things, background, stripes: n % 4 == 3 }
    }

    fn frame(&self, time: f32) -> RgbImage {
        let side = SIDE as f32;
        RgbImage::from_fn(SIDE, SIDE, |x, y| {
            let (u, v) = (x as f32 / side, y as f32 / side);
            let at = |thing: &&Thing| {
                let mix = |a: f32, b: f32| a + (b - a) * time;
                let center = (mix(thing.from.0, thing.to.0), mix(thing.from.1, thing.to.1));
                thing.shape.covers((u - center.0) / 0.16, (v - center.1) / 0.16)
            };
            if let Some(thing) = self.things.iter().rev().find(at) {
                return Rgb(thing.color);
            }
            let dark = self.stripes && ((u + v + time) * 5.0).fract() < 0.5;
            Rgb(if dark { self.background.map(|c| (f32::from(c) * 0.7) as u8) } else { self.background })
        })
    }
}

/// Writes `n` clips as folders of images into `folder`, and returns their paths. The clips are always the same.
///
/// # Errors
/// [`Error::Io`].
pub fn write_clips(folder: &Path, n: usize) -> Result<Vec<PathBuf>> {
    let write = |number: usize| {
        let clip = Clip::number(number);
        let path = folder.join(format!("clip-{number:02}"));
        std::fs::create_dir_all(&path).map_err(Error::io("making a folder for a clip", &path))?;
        for i in 0..FRAMES {
            let file = path.join(format!("{i:02}.png"));
            let saved = clip.frame(i as f32 / (FRAMES - 1) as f32).save(&file);
            saved.map_err(|error| Error::io("writing a frame", &file)(std::io::Error::other(error)))?;
        }
        Ok(path)
    };
    (0..n).map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_differ_and_things_are_seen() {
        let frames: Vec<RgbImage> = (0..12).map(|n| Clip::number(n).frame(1.0)).collect();
        for (i, frame) in frames.iter().enumerate() {
            assert!(frames[..i].iter().all(|other| other != frame), "clip {i} is another one");
            let colors: std::collections::BTreeSet<_> = frame.pixels().map(|pixel| pixel.0).collect();
            assert!(colors.len() >= 2, "clip {i} is empty at its end");
        }
        let moving = Clip::number(2);
        assert_ne!(moving.frame(0.0), moving.frame(0.5));
    }
}
