//! The content of a clip, frame by frame. Places are whole pixels, so that nothing depends on rounding.

use super::random::Random;
use super::{FRAMES, SIDE};
use image::{Rgb, RgbImage};

/// An image with opacity.
pub type Sprite = image::Rgba32FImage;

/// A place in pixels: right, down.
pub type Place = [i32; 2];

/// A straight path from one place to another, at constant speed.
pub type Way = [Place; 2];

/// A path that stays in one place.
pub fn stay(place: Place) -> Way {
    [place, place]
}

/// The place on a path at step `t` of `n`.
pub fn along([from, to]: Way, t: usize, n: usize) -> Place {
    let steps = n.max(2) as i32 - 1;
    [0, 1].map(|axis| from[axis] + (to[axis] - from[axis]) * t as i32 / steps)
}

/// A thing in the image.
pub struct Actor {
    /// Its image.
    pub sprite: Sprite,
    /// The path of its upper left corner over the backdrop.
    pub way: Way,
    /// The first frame that shows it, counted from the start of the shot.
    pub from: usize,
}

/// A part of a clip without a cut.
pub struct Shot {
    /// Its number of frames.
    pub frames: usize,
    /// The backdrop, at least as large as a frame.
    pub backdrop: RgbImage,
    /// The path of the frame's upper left corner over the backdrop.
    pub camera: Way,
    /// The things before the backdrop, from back to front.
    pub actors: Vec<Actor>,
}

/// The noise of a camera in the dark.
pub struct Noise {
    /// The seed of its random numbers.
    pub seed: u64,
    /// The standard deviation of pixels.
    pub strength: i32,
    /// The largest deviation of the brightness of whole frames.
    pub flicker: i32,
}

/// The content of a clip: shots without gaps.
pub struct Scene {
    /// Together, they have [`FRAMES`] frames.
    pub shots: Vec<Shot>,
    /// Camera noise, if any.
    pub noise: Option<Noise>,
}

impl Scene {
    /// One shot without noise.
    pub fn of(backdrop: RgbImage, camera: Way, actors: Vec<Actor>) -> Self {
        Self { shots: vec![Shot { frames: FRAMES, backdrop, camera, actors }], noise: None }
    }

    /// The frames, in order.
    pub fn frames(&self) -> impl Iterator<Item = RgbImage> + '_ {
        let shown = self.shots.iter().flat_map(|shot| (0..shot.frames).map(move |t| shot.frame(t)));
        shown.zip(0..).map(|(mut frame, t)| {
            if let Some(noise) = &self.noise {
                noise.add(&mut frame, t);
            }
            frame
        })
    }
}

impl Shot {
    fn frame(&self, t: usize) -> RgbImage {
        let [left, top] = along(self.camera, t, self.frames);
        let mut frame = RgbImage::from_fn(SIDE, SIDE, |x, y| {
            *self.backdrop.get_pixel((left + x as i32) as u32, (top + y as i32) as u32)
        });
        for actor in self.actors.iter().filter(|actor| t >= actor.from) {
            let [x, y] = along(actor.way, t - actor.from, self.frames - actor.from);
            put(&mut frame, &actor.sprite, [x - left, y - top]);
        }
        frame
    }
}

/// Draws the part of a sprite that is within the frame.
pub fn put(frame: &mut RgbImage, sprite: &Sprite, [left, top]: Place) {
    for (x, y, &image::Rgba([r, g, b, opacity])) in sprite.enumerate_pixels() {
        let (x, y) = (left + x as i32, top + y as i32);
        if x < 0 || y < 0 {
            continue;
        }
        if let Some(Rgb(below)) = frame.get_pixel_mut_checked(x as u32, y as u32) {
            for (below, above) in below.iter_mut().zip([r, g, b]) {
                *below = (above * 255.0 + f32::from(*below) * (1.0 - opacity)).clamp(0.0, 255.0) as u8;
            }
        }
    }
}

impl Noise {
    fn add(&self, frame: &mut RgbImage, t: u64) {
        let mut random = Random::new(self.seed, t);
        let brightness = f64::from(random.between(-self.flicker, self.flicker));
        for pixel in frame.pixels_mut() {
            // Numbers from `bell` have a standard deviation of a third.
            let shade = brightness + random.bell() * 3.0 * f64::from(self.strength);
            pixel.0 = pixel.0.map(|channel| (f64::from(channel) + shade).clamp(0.0, 255.0) as u8);
        }
    }
}
