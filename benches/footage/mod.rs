//! Synthetic footage for measuring the encoder: of a still camera, and of a moving one.

use image::{Rgb, RgbImage};
use std::f32::consts::TAU;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The parameters of footage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Footage {
    /// Pixels per second by which the camera moves to the right.
    pub pan: f32,
    /// The maximum of pixels by which it shakes.
    pub shake: f32,
    /// Standard deviation of the noise, of 255.
    pub grain: f32,
    /// By how much it gets brighter per second, of 255.
    pub light: f32,
    /// The number of moving things.
    pub movers: usize,
}

/// A still camera, and two moving things.
pub const STATIC: Footage = Footage { pan: 0.0, shake: 0.0, grain: 0.0, light: 0.0, movers: 2 };

/// A moving camera.
pub const MOVING: Footage = Footage { pan: 40.0, ..STATIC };

/// A pseudorandom number between 0 and 1.
fn hash(x: i32, y: i32, z: i32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x9E37_79B1)
        ^ (y as u32).wrapping_mul(0x85EB_CA77)
        ^ (z as u32).wrapping_mul(0xC2B2_AE3D);
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    (h ^ (h >> 15)) as f32 / u32::MAX as f32
}

/// Smooth noise with bumps of `size` pixels.
fn bumps(x: f32, y: f32, size: f32, seed: i32) -> f32 {
    let (x, y) = (x / size, y / size);
    let (left, top) = (x.floor(), y.floor());
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (right, down) = (ease(x - left), ease(y - top));
    let at = |dx: i32, dy: i32| hash(left as i32 + dx, top as i32 + dy, seed);
    let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
    mix(mix(at(0, 0), at(1, 0), right), mix(at(0, 1), at(1, 1), right), down)
}

impl Footage {
    /// The frame at `time` seconds, `side` pixels wide and high.
    pub fn frame(&self, side: u32, time: f32, number: i32) -> RgbImage {
        let shake = |seed| (hash(number, seed, 7) - 0.5) * 2.0 * self.shake;
        let (left, top) = (self.pan * time + shake(1), shake(2));
        let whole = side as f32;
        let movers: Vec<(f32, f32, f32)> = (0..self.movers)
            .map(|i| {
                let phase = i as f32 / self.movers as f32;
                let x = whole * (0.5 + 0.4 * (TAU * (time / 8.0 + phase)).sin());
                let y = whole * (0.3 + 0.4 * phase + 0.1 * (TAU * time / 5.0).cos());
                (x, y, whole * 0.08)
            })
            .collect();
        RgbImage::from_fn(side, side, |x, y| {
            let (u, v) = (x as f32 + left, y as f32 + top);
            let mover = movers.iter().position(|&(mx, my, r)| (x as f32 - mx).hypot(y as f32 - my) < r);
            let noise = if self.grain > 0.0 {
                let (a, b) = (hash(x as i32, y as i32, 2 * number + 11), hash(x as i32, y as i32, 2 * number + 12));
                (-2.0 * a.max(1e-6).ln()).sqrt() * (TAU * b).cos() * self.grain
            } else {
                0.0
            };
            Rgb([0, 1, 2].map(|channel| {
                let value = match mover {
                    Some(i) => 60.0 + 150.0 * hash(channel, i as i32, 99) + 30.0 * bumps(u, v, 5.0, 50 + channel),
                    None => 40.0 + 120.0 * bumps(u, v, 60.0, channel) + 50.0 * bumps(u, v, 12.0, 10 + channel),
                };
                (value + self.light * time + noise).clamp(0.0, 255.0) as u8
            }))
        })
    }

    /// Writes `n` frames, `fps` per second, as a folder of images.
    pub fn write_folder(&self, folder: &Path, side: u32, n: usize, fps: f32) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for i in 0..n {
            let frame = self.frame(side, i as f32 / fps, i as i32);
            frame.save(folder.join(format!("{i:05}.png"))).map_err(std::io::Error::other)?;
        }
        Ok(())
    }

    /// Writes the same as a video, with x264 at quality `crf`.
    pub fn write_film(&self, path: &Path, side: u32, n: usize, fps: f32, crf: u32) -> std::io::Result<()> {
        let (size, rate, crf) = (format!("{side}x{side}"), fps.to_string(), crf.to_string());
        let mut ffmpeg = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", &size, "-r", &rate])
            .args(["-i", "-", "-c:v", "libx264", "-crf", &crf, "-pix_fmt", "yuv420p"])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()?;
        let mut input = ffmpeg.stdin.take().ok_or_else(|| std::io::Error::other("no pipe to ffmpeg"))?;
        for i in 0..n {
            input.write_all(&self.frame(side, i as f32 / fps, i as i32))?;
        }
        drop(input);
        if ffmpeg.wait()?.success() { Ok(()) } else { Err(std::io::Error::other("ffmpeg failed; it needs libx264")) }
    }
}
