//! Clips with known answers. Clip `index` is determined by the seed, however many clips are made.

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

/// Width and height in pixels, as of images for `smol`'s encoder.
pub const SIDE: u32 = 224;
/// Frames per second.
pub const FPS: u32 = 8;
/// The number of frames in a clip: 8 seconds.
pub const FRAMES: usize = 64;

/// How the clips are encoded.
pub const FILM: Film = Film { fps: FPS, x264: &["-crf", "20"] };

/// The categories of clips, which take turns.
pub const CATEGORIES: [&str; 8] = ["move", "enter", "order", "still", "two", "cut", "pan", "noise"];

/// A clip and its questions.
pub struct Clip {
    /// The name of its file.
    pub video: String,
    /// One of [`CATEGORIES`].
    pub category: &'static str,
    /// Its content.
    pub scene: Scene,
    /// Different questions with their answers.
    pub questions: Vec<Question>,
}

/// Clip `index` of the set for `seed`.
pub fn clip(seed: u64, index: u64) -> Clip {
    let n = CATEGORIES.len() as u64;
    let (category, round) = (CATEGORIES[(index % n) as usize], index / n);
    let story = stories::tell(category, round, &mut Random::new(seed, index));
    Clip { video: format!("{category}-{round:03}.mp4"), category, scene: story.scene, questions: story.questions }
}

impl Clip {
    /// Its questions, as lines of JSON.
    pub fn rows(&self) -> String {
        self.questions.iter().map(|question| self.row(question, &[])).collect()
    }

    /// Its questions with choices, as lines of JSON.
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
