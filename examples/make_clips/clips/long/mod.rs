//! Long clips with needles: things that are visible once, for some seconds, before a moving background.
//!
//! They show whether a choice of frames includes the needles, and whether a model sees them. Clip `index` is determined
//! by the seed and the length, however many clips are made.

mod plan;
mod scenery;

pub use plan::Needle;

use super::backdrop::COLORS;
use super::film::Film;
use super::questions::{self, Question};
use super::random::Random;
use super::scene::put;
use super::things::THINGS;
use image::RgbImage;
use scenery::Scenery;
use std::ops::Range;

/// Frames per second.
pub const FPS: u32 = 5;

/// A keyframe every 10 seconds, so that single frames can be decoded without minutes of video before them.
pub const FILM: Film = Film { fps: FPS, x264: &["-preset", "superfast", "-crf", "25", "-g", "50"] };

/// The length of a needle's cut in seconds, as of the short clips.
const CUT: f64 = 8.0;

/// The kind of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Whether a needle is there.
    Needle,
    /// Whether an absent thing is there.
    Absent,
    /// Which needle is the last.
    Last,
}

/// A question and the number of the needle that it requires, or of the needle in its cut.
pub struct Asked {
    /// Its kind.
    pub kind: Kind,
    /// The needle.
    pub needle: usize,
    /// The question and its answer.
    pub question: Question,
}

/// A long clip and its questions.
pub struct LongClip {
    /// The name of its file.
    pub video: String,
    /// Its number of frames.
    pub frames: usize,
    /// The needles, in order of time, without overlap.
    pub needles: Vec<Needle>,
    /// Different questions with their answers.
    pub asked: Vec<Asked>,
    scenes: Vec<(Range<usize>, Scenery)>,
}

/// Clip `index`, `minutes` long, of the set for `seed`.
pub fn long_clip(minutes: u32, seed: u64, index: u64) -> LongClip {
    let frames = (minutes * 60 * FPS) as usize;
    // Clips of other lengths, and the short clips, have other random numbers.
    let mut random = Random::new(Random::new(seed, u64::from(minutes) << 32).bits(), index);
    let things = shuffled(&mut random);
    let needles = plan::needles(&things, frames, &mut random);
    let scenes = plan::scenes(minutes, frames, &needles, &mut random);
    let absent = &things[needles.len()..2 * needles.len()];
    let mut color = random.below(COLORS.len());
    let scene = |range| {
        // Another color than in the previous scene.
        color = (color + 1 + random.below(COLORS.len() - 1)) % COLORS.len();
        (range, Scenery::new(color, &mut random))
    };
    let scenes = scenes.into_iter().map(scene).collect();
    let asked = (0..needles.len()).flat_map(|needle| {
        let of = |kind, thing, answer| Asked { kind, needle, question: questions::is_this_there(thing, answer) };
        [of(Kind::Needle, needles[needle].thing, true), of(Kind::Absent, absent[needle], false)]
    });
    let last = questions::last_of(&things[..needles.len()]);
    let asked = asked.chain([Asked { kind: Kind::Last, needle: needles.len() - 1, question: last }]).collect();
    LongClip { video: format!("long-{minutes:03}min-{index:03}.mp4"), frames, needles, asked, scenes }
}

/// All things in random order.
fn shuffled(random: &mut Random) -> Vec<&'static str> {
    let mut things = THINGS.map(|(name, _)| name);
    for i in (1..things.len()).rev() {
        things.swap(i, random.below(i + 1));
    }
    things.into()
}

/// The time of a frame, in seconds.
fn second(frame: usize) -> f64 {
    frame as f64 / f64::from(FPS)
}

impl LongClip {
    /// The frames, in order.
    pub fn frames(&self) -> impl Iterator<Item = RgbImage> + '_ {
        (0..self.frames).map(|t| self.frame(t))
    }

    /// The frame with this number.
    pub fn frame(&self, t: usize) -> RgbImage {
        let Some((range, scenery)) = self.scenes.iter().find(|(range, _)| range.contains(&t)) else {
            panic!("frame {t} of {}", self.frames);
        };
        let mut frame = scenery.background(t - range.start);
        if let Some(needle) = self.needles.iter().find(|needle| needle.frames.contains(&t)) {
            put(&mut frame, &needle.sprite, needle.place(t));
        }
        scenery.before(&mut frame, t - range.start);
        frame
    }

    /// The questions about the whole clip, as lines of JSON.
    pub fn rows(&self) -> String {
        self.asked.iter().map(|asked| self.row(asked, None)).collect()
    }

    /// The questions about 8 seconds with a needle, as lines of JSON.
    pub fn rows_of_cuts(&self) -> String {
        let cut = |asked: &Asked| {
            let middle = self.needles[asked.needle].seconds().iter().sum::<f64>() / 2.0;
            let start = (middle - CUT / 2.0).clamp(0.0, second(self.frames) - CUT);
            self.row(asked, Some([start, start + CUT]))
        };
        self.asked.iter().filter(|asked| asked.kind != Kind::Last).map(cut).collect()
    }

    /// When needles are visible, as lines of JSON.
    pub fn rows_of_needles(&self) -> String {
        #[derive(serde::Serialize)]
        struct Row<'a> {
            video: &'a str,
            thing: &'a str,
            start: f64,
            end: f64,
        }
        let row = |needle: &Needle| {
            let [start, end] = needle.seconds();
            json(&Row { video: &self.video, thing: needle.thing, start, end })
        };
        self.needles.iter().map(row).collect()
    }

    fn row(&self, asked: &Asked, part: Option<[f64; 2]>) -> String {
        #[derive(serde::Serialize)]
        struct Row<'a> {
            video: &'a str,
            category: Kind,
            question: &'a str,
            answer: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            start: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            end: Option<f64>,
        }
        let Question { question, answer, .. } = &asked.question;
        let [start, end] = part.map_or([None; 2], |part| part.map(Some));
        json(&Row { video: &self.video, category: asked.kind, question, answer, start, end })
    }
}

fn json(row: &impl serde::Serialize) -> String {
    serde_json::to_string(row).expect("text and numbers are JSON") + "\n"
}
