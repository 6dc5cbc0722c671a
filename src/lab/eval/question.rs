//! Questions, as read from any dataset.

use crate::lab::results::BadRow;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A video, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// A file, or a folder of frames.
    pub path: PathBuf,
    /// Start, in seconds; `None` for that of the video.
    pub start_s: Option<f64>,
    /// End, in seconds; `None` for that of the video.
    pub end_s: Option<f64>,
    /// Frames per second of a folder of frames.
    pub folder_fps: Option<f64>,
}

impl Clip {
    /// A whole video.
    pub fn whole(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), start_s: None, end_s: None, folder_fps: None }
    }
}

/// One question about a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Its id, unique within the dataset.
    pub id: String,
    /// The clip that it is about.
    pub clip: Clip,
    /// The text of the question, as in the dataset.
    pub question: String,
    /// The choices, without letters; empty for an open question.
    pub choices: Vec<String>,
    /// The right answer.
    pub answer: RightAnswer,
    /// Its categories by kind: `duration` → `short`.
    pub categories: BTreeMap<String, String>,
}

/// The right answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RightAnswer {
    /// The choice with this index.
    Choice(usize),
    /// Any of these texts.
    Text(Vec<String>),
}

impl Question {
    /// The right answer as a letter, or as text.
    pub fn right_answer(&self) -> String {
        match &self.answer {
            RightAnswer::Choice(index) => letter(*index).to_string(),
            RightAnswer::Text(texts) => texts.join(" | "),
        }
    }

    /// Whether one of its categories is `wanted`: `VALUE`, or `KIND=VALUE`.
    pub fn is_in(&self, wanted: &str) -> bool {
        self.categories.iter().any(|(kind, value)| value == wanted || *wanted == format!("{kind}={value}"))
    }
}

/// The maximum number of choices of a question: one for each letter.
pub const MAX_CHOICES: usize = 26;

/// The letter of the choice at this index; `?` beyond the last letter.
pub fn letter(index: usize) -> char {
    u8::try_from(index)
        .ok()
        .filter(|&index| usize::from(index) < MAX_CHOICES)
        .map_or('?', |index| char::from(b'A' + index))
}

/// The questions of a dataset, and the rows that cannot be used.
#[derive(Debug, Default)]
pub struct Dataset {
    /// In the order of the files.
    pub questions: Vec<Question>,
    /// The rows that cannot be used.
    pub bad_rows: Vec<BadRow>,
}

impl Dataset {
    /// Adds the result of reading the row at `place`.
    pub(super) fn add(&mut self, place: impl std::fmt::Display, row: Result<Question, String>) {
        let checked = row.and_then(check);
        match checked {
            Ok(question) => self.questions.push(question),
            Err(reason) => self.bad_rows.push(BadRow { place: place.to_string(), reason }),
        }
    }

    /// Turns questions with the id of an earlier one into bad rows, since results are found by id.
    pub(super) fn drop_doubles(&mut self) {
        let mut seen = std::collections::HashSet::new();
        let bad_rows = &mut self.bad_rows;
        self.questions.retain(|question| {
            let is_new = seen.insert(question.id.clone());
            if !is_new {
                let reason = "an earlier question has the same id".to_owned();
                bad_rows.push(BadRow { place: format!("question {}", question.id), reason });
            }
            is_new
        });
    }
}

fn check(question: Question) -> Result<Question, String> {
    let fail = |reason: &str| Err(reason.to_owned());
    if question.question.trim().is_empty() {
        return fail("the question is empty");
    }
    match &question.answer {
        RightAnswer::Choice(_) if question.choices.len() < 2 => return fail("there are fewer than two choices"),
        RightAnswer::Choice(_) if question.choices.len() > MAX_CHOICES => {
            return fail("there are more choices than letters");
        }
        RightAnswer::Choice(index) if *index >= question.choices.len() => {
            return fail("the answer is not one of the choices");
        }
        RightAnswer::Text(texts) if texts.iter().all(|text| text.trim().is_empty()) => {
            return fail("the answer is empty");
        }
        _ => {}
    }
    let bounds = [question.clip.start_s, question.clip.end_s];
    if bounds.into_iter().flatten().any(|bound| !bound.is_finite() || bound < 0.0) {
        return fail("start and end must be seconds from 0 up");
    }
    if let [Some(start), Some(end)] = bounds
        && start >= end
    {
        return Err(format!("the start, {start} s, is not before the end, {end} s"));
    }
    Ok(question)
}
