//! When needles and scenes begin and end.

use super::super::random::Random;
use super::super::scene::{Place, Sprite, Way, along, stay};
use super::super::stories::{across, anywhere};
use super::super::things::sprite;
use super::{FPS, second};
use std::ops::Range;

/// Nothing else begins or ends within this many frames before and after a needle.
const MARGIN: usize = 2 * FPS as usize;

/// A thing that is visible once.
pub struct Needle {
    /// Its name.
    pub thing: &'static str,
    /// The frames that show it.
    pub frames: Range<usize>,
    pub(super) sprite: Sprite,
    way: Way,
}

impl Needle {
    /// The times at which it appears and disappears, in seconds.
    pub fn seconds(&self) -> [f64; 2] {
        [self.frames.start, self.frames.end].map(second)
    }

    /// Its place in frame `t` of the clip, which must show it.
    pub(super) fn place(&self, t: usize) -> Place {
        along(self.way, t - self.frames.start, self.frames.len())
    }
}

/// Makes five to eight of `things` needles, one in each equal part of the clip, for four to eight seconds. Half of them
/// cross the image.
pub fn needles(things: &[&'static str], frames: usize, random: &mut Random) -> Vec<Needle> {
    let n = random.between(5, 8) as usize;
    let part = frames / n;
    let needle = |(i, &thing): (usize, &&'static str)| {
        let side = random.between(48, 111);
        let length = random.between(4 * FPS as i32, 8 * FPS as i32) as usize;
        let latest = (part - length - MARGIN) as i32;
        let begin = i * part + random.between(MARGIN as i32, latest) as usize;
        let way = match random.one_in(2) {
            true => across(random.below(4), side, random),
            false => stay(anywhere(side, random)),
        };
        Needle { thing, frames: begin..begin + length, sprite: sprite(thing, side as u32), way }
    };
    things.iter().take(n).enumerate().map(needle).collect()
}

/// Scenes without gaps: three to five, and one more per 20 minutes. None ends while a needle is visible.
pub fn scenes(minutes: u32, frames: usize, needles: &[Needle], random: &mut Random) -> Vec<Range<usize>> {
    let n = random.between(3, 5) as usize + minutes as usize / 20;
    let mut cuts = vec![0, frames];
    while cuts.len() <= n {
        let cut = random.below(frames);
        let far = |other: usize| cut.abs_diff(other) >= 5 * MARGIN;
        let clear = |needle: &Needle| cut + MARGIN < needle.frames.start || cut >= needle.frames.end + MARGIN;
        if cuts.iter().all(|&other| far(other)) && needles.iter().all(clear) {
            cuts.push(cut);
        }
    }
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}
