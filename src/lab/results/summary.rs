//! The summary of an evaluation, in `summary.json`: accuracies, and comparisons of methods.

use super::answers::{Judge, RunSettings};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// The format of `summary.json`. It is incremented when a key changes its meaning.
pub const SUMMARY_FORMAT: u32 = 1;

/// The summary of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// [`SUMMARY_FORMAT`].
    pub format: u32,
    /// The benchmark's name.
    pub task: String,
    /// Whether every question has an answer of every variant.
    pub complete: bool,
    /// Number of questions.
    pub questions: usize,
    /// How many answers were judged in which way.
    #[serde(default)]
    pub judges: BTreeMap<Judge, usize>,
    /// The settings that the answers depend on.
    #[serde(default)]
    pub settings: RunSettings,
    /// One entry for each variant, in the requested order; dense comes first.
    pub variants: Vec<VariantSummary>,
    /// Pairs of variants on the questions that both have answered: dense with each, and those of the same budget.
    #[serde(default)]
    pub comparisons: Vec<Comparison>,
    /// The rows that could not be used.
    #[serde(default)]
    pub bad_rows: Vec<BadRow>,
}

/// The results of one variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VariantSummary {
    /// `dense`, or method and budget: `sharpv@0.1`.
    pub name: String,
    /// The method's name.
    pub method: String,
    /// The budget.
    pub budget: String,
    /// Over all questions.
    #[serde(flatten)]
    pub all: Accuracy,
    /// Generated texts without an answer. They count as wrong.
    pub no_answer: usize,
    /// Share of the visual tokens that was kept, over all answers.
    pub kept_share: f64,
    /// Kept visual tokens of a video, mean over all answers.
    pub kept_mean: f64,
    /// Share of the vision encoder's work that was computed, mean over all answers.
    #[serde(default = "super::answers::everything")]
    pub computed_share: f64,
    /// Accuracies by kind of category, then category.
    pub categories: BTreeMap<String, BTreeMap<String, Accuracy>>,
}

/// Correct answers, and the interval of their share.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Accuracy {
    /// Number of answers.
    pub n: usize,
    /// Correct answers.
    pub correct: usize,
    /// `correct / n`; 0 without answers.
    pub accuracy: f64,
    /// The 95 % interval after Wilson.
    pub interval: [f64; 2],
}

/// Two variants on the same questions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    /// The name of the first.
    pub a: String,
    /// The name of the second.
    pub b: String,
    /// Questions that both have answered.
    pub n: usize,
    /// Questions that only the first answered correctly.
    pub only_a: usize,
    /// Questions that only the second answered correctly.
    pub only_b: usize,
    /// Accuracy of the second minus that of the first.
    pub difference: f64,
    /// The 95 % interval of the difference, after Bonett and Price.
    pub interval: [f64; 2],
    /// The exact p-value of McNemar's test, two-sided.
    pub p: f64,
}

impl Comparison {
    /// The head of a table with [`cells`](Self::cells).
    pub(in crate::lab) const HEAD: [&str; 6] =
        ["same questions", "points", "95 % interval", "only one right", "questions", "p"];

    /// A row of a table.
    pub(in crate::lab) fn cells(&self) -> Vec<String> {
        let points = |share: f64| format!("{:+.1}", share * 100.0);
        vec![
            format!("{} − {}", self.b, self.a),
            points(self.difference),
            format!("{} to {}", points(self.interval[0]), points(self.interval[1])),
            format!("{} : {}", self.only_b, self.only_a),
            self.n.to_string(),
            if self.p < 0.001 { "< 0.001".to_owned() } else { format!("{:.3}", self.p) },
        ]
    }
}

/// A row or question that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// Its location: file and line or row, or the question.
    pub place: String,
    /// The reason.
    pub reason: String,
}

impl Summary {
    /// Writes it to the file at `path`, completely or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let io = |error| Error::io("writing the summary", path)(error);
        let text = serde_json::to_string_pretty(self).map_err(|error| io(error.into()))? + "\n";
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.persist(path).map_err(|error| io(error.error))?;
        Ok(())
    }
}
