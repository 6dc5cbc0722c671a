//! The benchmarks: their prompts, and how answers are judged.
//!
//! The prompts are those of lmms-eval, except for the start of the answer in MVBench, which is that of MVBench's own
//! script.

use super::extract;
use super::question::{Question, RightAnswer, letter};
use crate::error::Error;

/// A benchmark.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, strum::EnumString, strum::IntoStaticStr, strum::VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_task)]
pub enum Task {
    /// Video-MME: parquet or TSV.
    VideoMme,
    /// MVBench: JSON, one file for each task.
    MvBench,
    /// NExT-QA: CSV, multiple choice or open-ended.
    NextQa,
    /// ActivityNet-QA: two JSON files.
    ActivityNetQa,
    /// Your own questions, as JSONL.
    Jsonl,
}

impl Task {
    /// All benchmarks.
    pub const ALL: [Self; 5] = [Self::VideoMme, Self::MvBench, Self::NextQa, Self::ActivityNetQa, Self::Jsonl];

    /// The name as written on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The prompt of a question.
    pub fn prompt(self, question: &Question) -> String {
        let text = question.question.as_str();
        let is_open = question.choices.is_empty();
        match self {
            Self::VideoMme => format!(
                "Select the best answer to the following multiple-choice question based on the video and the subtitles. \
                 Respond with only the letter (A, B, C, or D) of the correct option.\n{text}\n{}\nThe best answer is:",
                lettered(question, |letter, choice| format!("{letter}. {choice}"))
            ),
            Self::MvBench => format!(
                "Question:{text}\nOption:\n{}\nOnly give the best option.\n",
                lettered(question, |letter, choice| format!("({letter}) {choice}"))
            ),
            Self::NextQa if is_open => format!("{text}\nAnswer a question using a short phrase or sentence."),
            Self::ActivityNetQa => {
                let mark = if text.ends_with('?') { "" } else { "?" };
                format!("{text}{mark} Answer the question using a single word or phrase.")
            }
            Self::Jsonl if is_open => text.to_owned(),
            Self::NextQa | Self::Jsonl => format!(
                "{text}\n{}\nAnswer with the option's letter from the given choices directly.",
                lettered(question, |letter, choice| format!("{letter}. {choice}"))
            ),
        }
    }

    /// The start of the answer, which the model continues.
    pub fn answer_start(self) -> &'static str {
        if self == Self::MvBench { "Best option:(" } else { "" }
    }

    /// The maximum number of tokens of an answer to `question`.
    pub fn n_predict(self, question: &Question) -> usize {
        if question.choices.is_empty() { 64 } else { 16 }
    }
}

fn lettered(question: &Question, line: impl Fn(char, &str) -> String) -> String {
    let lines = question.choices.iter().enumerate().map(|(index, choice)| line(letter(index), choice));
    lines.collect::<Vec<_>>().join("\n")
}

fn unknown_task(name: &str) -> Error {
    Error::unknown_name::<Task>("the task", name)
}

/// The judgment of a model's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The answer that was found in the text: a letter, or the normalized text. `None` if there was none, which counts
    /// as wrong.
    pub predicted: Option<String>,
    /// Whether it is correct.
    pub correct: bool,
}

impl Question {
    /// Judges the text of an answer.
    pub fn judge(&self, text: &str) -> Judged {
        match &self.answer {
            RightAnswer::Choice(right) => {
                let chosen = extract::choice(text, &self.choices);
                Judged { predicted: chosen.map(|index| letter(index).to_string()), correct: chosen == Some(*right) }
            }
            RightAnswer::Text(right) => {
                let predicted = extract::normalized(text);
                let correct = right.iter().any(|right| extract::matches(&predicted, right));
                Judged { predicted: Some(predicted).filter(|text| !text.is_empty()), correct }
            }
        }
    }
}
