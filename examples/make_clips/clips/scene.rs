//! What a clip shows, frame by frame. Places are whole pixels, so that nothing depends on rounding.

use super::random::Random;
use super::{FRAMES, SIDE};
use image::{Rgb, RgbImage};

/// An image with opacity.
pub type Sprite = image::Rgba32FImage;

/// A place in pixels: right, down.
pub type Place = [i32; 2];

/// A straight way from one place to another, taken at an even pace.
pub type Way = [Place; 2];

/// A way that stays where it is.
pub fn stay(place: Place) -> Way {
    [place, place]
}

/// Where one is at step `t` of `n`.
pub fn along([from, to]: Way, t: usize, n: usize) -> Place {
    let steps = n.max(2) as i32 - 1;
    [0, 1].map(|axis| from[axis] + (to[axis] - from[axis]) * t as i32 / steps)
}

/// A thing in the image.
pub struct Actor {
    /// What it looks like.
    pub sprite: Sprite,
    /// The way of its upper left corner over the backdrop.
    pub way: Way,
    /// The first frame in which it is to be seen, counted from the shot's first.
    pub from: usize,
}

/// A part of a clip without a cut.
pub struct Shot {
    /// How many frames it takes.
    pub frames: usize,
    /// What is behind: at least as large as a frame.
    pub backdrop: RgbImage,
    /// The way of the frame's upper left corner over the backdrop.
    pub camera: Way,
    /// What is in front, the hindmost first.
    pub actors: Vec<Actor>,
}

/// What a camera adds in the dark.
pub struct Noise {
    /// Where its random numbers begin.
    pub seed: u64,
    /// How far pixels stray: their standard deviation.
    pub strength: i32,
    /// How far the brightness of whole frames strays at most.
    pub flicker: i32,
}

/// All of a clip: shots that follow each other without a gap.
pub struct Scene {
    /// They take [`FRAMES`] together.
    pub shots: Vec<Shot>,
    /// Camera noise, if any.
    pub noise: Option<Noise>,
}

impl Scene {
    /// One shot without noise.
    pub fn of(backdrop: RgbImage, camera: Way, actors: Vec<Actor>) -> Self {
        Self { shots: vec![Shot { frames: FRAMES, backdrop, camera, actors }], noise: None }
    }

    /// Frame after frame.
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

/// Draws a sprite, as much of it as is within the frame.
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
            // Bells have a standard deviation of a third.
            let shade = brightness + random.bell() * 3.0 * f64::from(self.strength);
            pixel.0 = pixel.0.map(|channel| (f64::from(channel) + shade).clamp(0.0, 255.0) as u8);
        }
    }
}
