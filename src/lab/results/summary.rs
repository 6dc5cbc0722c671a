//! What an evaluation found: accuracies, and the methods against each other. Written to `summary.json`.

use super::answers::{Judge, RunSettings};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// The format of `summary.json`; it grows when a key changes its meaning.
pub const SUMMARY_FORMAT: u32 = 1;

/// A run in numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// [`SUMMARY_FORMAT`].
    pub format: u32,
    /// The benchmark's name.
    pub task: String,
    /// Whether every question has an answer of every variant.
    pub complete: bool,
    /// Questions asked for.
    pub questions: usize,
    /// How answers were judged, and how often in that way.
    #[serde(default)]
    pub judges: BTreeMap<Judge, usize>,
    /// The settings that the answers depend on.
    #[serde(default)]
    pub settings: RunSettings,
    /// One entry for each method and budget, in the order asked for; dense comes first.
    pub variants: Vec<VariantSummary>,
    /// Pairs of variants on the questions that both answered: dense against each, and those of the same budget.
    #[serde(default)]
    pub comparisons: Vec<Comparison>,
    /// What could not be asked.
    #[serde(default)]
    pub bad_rows: Vec<BadRow>,
}

/// How one variant did.
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
    /// Answers in which no answer was found. They count as wrong.
    pub no_answer: usize,
    /// Share of the visual tokens that was kept, over all answers.
    pub kept_share: f64,
    /// Visual tokens kept of a video, mean over all answers.
    pub kept_mean: f64,
    /// Share of the vision encoder's work that was done, mean over all answers.
    #[serde(default = "super::answers::everything")]
    pub computed_share: f64,
    /// By kind of category, then category.
    pub categories: BTreeMap<String, BTreeMap<String, Accuracy>>,
}

/// Right answers, and how sure their share is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Accuracy {
    /// Answers.
    pub n: usize,
    /// Right ones.
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
    /// Questions that both answered.
    pub n: usize,
    /// Those that only the first got right.
    pub only_a: usize,
    /// Those that only the second got right.
    pub only_b: usize,
    /// Accuracy of the second less that of the first.
    pub difference: f64,
    /// The 95 % interval of the difference, after Bonett and Price.
    pub interval: [f64; 2],
    /// The exact p-value of McNemar's test, two-sided.
    pub p: f64,
}

impl Comparison {
    /// What stands over the [`cells`](Self::cells) of a table.
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

/// A row that cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// Where it is: file and line or row, or the question.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Summary {
    /// Writes it to the file at `path`, in one step.
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
