//! Clips with known answers. Clip `index` of a seed is always the same, however many others are made.

mod backdrop;
pub mod film;
pub mod long;
mod questions;
mod random;
pub mod scene;
mod stories;
pub mod things;

pub use questions::Question;

use film::Film;
use random::Random;
use scene::Scene;

/// Width and height in pixels: what `smol`'s encoder sees.
pub const SIDE: u32 = 224;
/// Frames a second.
pub const FPS: u32 = 8;
/// Frames of a clip: 8 seconds.
pub const FRAMES: usize = 64;

/// How they are encoded.
pub const FILM: Film = Film { fps: FPS, x264: &["-crf", "20"] };

/// What clips are about. They take turns.
pub const CATEGORIES: [&str; 8] = ["move", "enter", "order", "still", "two", "cut", "pan", "noise"];

/// A clip and what can be asked about it.
pub struct Clip {
    /// Its file's name.
    pub video: String,
    /// One of [`CATEGORIES`].
    pub category: &'static str,
    /// What is to be seen.
    pub scene: Scene,
    /// Questions with their answers; no question twice.
    pub questions: Vec<Question>,
}

/// Clip `index` of the set that belongs to `seed`.
pub fn clip(seed: u64, index: u64) -> Clip {
    let n = CATEGORIES.len() as u64;
    let (category, round) = (CATEGORIES[(index % n) as usize], index / n);
    let story = stories::tell(category, round, &mut Random::new(seed, index));
    Clip { video: format!("{category}-{round:03}.mp4"), category, scene: story.scene, questions: story.questions }
}

impl Clip {
    /// Its questions as lines of JSON.
    pub fn rows(&self) -> String {
        self.questions.iter().map(|question| self.row(question, &[])).collect()
    }

    /// Those of its questions that have choices, with them.
    pub fn rows_with_choices(&self) -> String {
        let closed = self.questions.iter().filter(|question| !question.choices.is_empty());
        closed.map(|question| self.row(question, &question.choices)).collect()
    }

    fn row(&self, Question { question, answer, .. }: &Question, choices: &[String]) -> String {
        #[derive(serde::Serialize)]
        struct Row<'a> {
            video: &'a str,
            category: &'a str,
            question: &'a str,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            choices: &'a [String],
            answer: &'a str,
        }
        let row = Row { video: &self.video, category: self.category, question, choices, answer };
        serde_json::to_string(&row).expect("text and lists are JSON") + "\n"
    }
}
