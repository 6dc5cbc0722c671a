//! A moving background: a swaying camera, drifting shades, changing light, and camera noise. It contains nothing that
//! `smol` knows.

use super::super::SIDE;
use super::super::backdrop::{Checks, paint};
use super::super::random::Random;
use super::super::scene::{Place, Sprite, put};
use image::{RgbImage, Rgba};

const EDGE: i32 = SIDE as i32;

/// How far the camera sways, in pixels.
const SWAY: i32 = 24;

/// Noise for more pixels than a frame has. Each frame starts at another place in it.
const GRAINS: usize = 1 << 16;

/// A scene without needles.
pub struct Scenery {
    backdrop: RgbImage,
    camera: [Swing; 2],
    shades: Vec<Shade>,
    light: Swing,
    grains: Vec<i8>,
    /// Where the noise of each frame starts.
    seed: u64,
}

/// A triangle wave from 0 to `height` and back in `period` frames.
struct Swing {
    height: i32,
    period: usize,
    begin: usize,
}

impl Swing {
    fn at(&self, t: usize) -> i32 {
        let half = (self.period / 2).max(1);
        let place = (t + self.begin) % (2 * half);
        (self.height as i64 * place.min(2 * half - place) as i64 / half as i64) as i32
    }
}

/// A soft spot that crosses the image again and again.
struct Shade {
    sprite: Sprite,
    begin: Place,
    /// Its speed, in pixels per 20 frames.
    speed: [i32; 2],
}

impl Shade {
    fn new(random: &mut Random) -> Self {
        let [width, height] = [(); 2].map(|()| random.between(50, 120));
        let [light, opacity] = [if random.one_in(2) { 0.0 } else { 1.0 }, f64::from(random.between(15, 35)) / 100.0];
        let sprite = Sprite::from_fn(width as u32, height as u32, |x, y| {
            let from_middle = |at: u32, length: i32| (2.0 * f64::from(at) + 1.0) / f64::from(length) - 1.0;
            let [x, y] = [from_middle(x, width), from_middle(y, height)];
            let here = (1.0 - x * x - y * y).max(0.0) * opacity;
            let color = (light * here) as f32;
            Rgba([color, color, color, here as f32])
        });
        let begin = [random.between(0, EDGE + width), random.between(0, EDGE + height)];
        let speed = [(); 2].map(|()| random.between(4, 60) * if random.one_in(2) { 1 } else { -1 });
        Self { sprite, begin, speed }
    }

    /// Wraps around at the edges.
    fn place(&self, t: usize) -> Place {
        let size = [self.sprite.width(), self.sprite.height()].map(i64::from);
        [0, 1].map(|axis| {
            let gone = i64::from(self.begin[axis]) + t as i64 * i64::from(self.speed[axis]) / 20;
            (gone.rem_euclid(i64::from(SIDE) + size[axis]) - size[axis]) as i32
        })
    }
}

impl Scenery {
    /// A scene in color number `color`.
    pub fn new(color: usize, random: &mut Random) -> Self {
        let side = SIDE + SWAY as u32;
        let mut swing = |height, seconds: [i32; 2]| {
            let period = random.between(seconds[0], seconds[1]) as usize * super::FPS as usize;
            Swing { height, period, begin: random.below(period) }
        };
        let camera = [swing(SWAY, [40, 200]), swing(SWAY, [40, 200])];
        let mut light = swing(0, [120, 900]);
        light.height = random.between(20, 50);
        let backdrop = paint(color, (side, side), Checks::Sometimes, random);
        let shades = (0..random.between(2, 4)).map(|_| Shade::new(random)).collect();
        let strength = 3.0 * f64::from(random.between(1, 3));
        let grains = (0..GRAINS).map(|_| (random.bell() * strength) as i8).collect();
        Self { backdrop, camera, shades, light, grains, seed: random.bits() }
    }

    /// The background of the needles in frame `t` of the scene.
    pub fn background(&self, t: usize) -> RgbImage {
        let [left, top] = [0, 1].map(|axis| self.camera[axis].at(t) as u32);
        let mut frame = image::imageops::crop_imm(&self.backdrop, left, top, SIDE, SIDE).to_image();
        for shade in &self.shades {
            put(&mut frame, &shade.sprite, shade.place(t));
        }
        frame
    }

    /// Adds light and noise over the needles.
    pub fn before(&self, frame: &mut RgbImage, t: usize) {
        let light = self.light.at(t) - self.light.height / 2;
        let begin = Random::new(self.seed, t as u64).below(GRAINS);
        for (pixel, &grain) in frame.pixels_mut().zip(self.grains[begin..].iter().chain(&self.grains)) {
            let shade = light + i32::from(grain);
            pixel.0 = pixel.0.map(|channel| (i32::from(channel) + shade).clamp(0, 255) as u8);
        }
    }
}
