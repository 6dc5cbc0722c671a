//! The description of a run, and its observer.

use super::job::{self, Job};
use super::question::{Clip, Question};
use super::task::Task;
use super::variant::Variant;
use crate::chat::{EvictParams, VideoOptions};
use crate::error::Error;
use crate::lab::results::{BadRow, Results, Row};
use crate::observer::Observer;
use crate::prune::PruneParams;
use crate::skip::EncodeParams;

/// How the model's choice is determined. Answers to open questions are always generated.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, strum::EnumString, strum::IntoStaticStr, strum::VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_score)]
pub enum Score {
    /// The model generates an answer, and the letter is extracted from it.
    Generate,
    /// The letter of highest probability as the answer's first token.
    Likelihood,
}

impl Score {
    /// Its name in options and results.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

fn unknown_score(name: &str) -> Error {
    Error::unknown_name::<Score>("how choices are read", name)
}

/// A run.
#[derive(Debug)]
pub struct Run<'a> {
    /// The benchmark, which gives the prompts and judges the answers.
    pub task: Task,
    /// The questions.
    pub questions: &'a [Question],
    /// The variants to compare.
    pub variants: &'a [Variant],
    /// How choices are determined.
    pub score: Score,
    /// The other parameters of pruning.
    pub prune: PruneParams,
    /// Which frames are used; start and end are those of the questions.
    pub video: VideoOptions,
    /// The eviction, as the sessions were opened with.
    pub evict: EvictParams,
    /// The parameters of the encoder; the mode is that of the variants.
    pub encode: EncodeParams,
}

/// Observes a run, answer by answer. Progress is reported as [`Stage::Answers`](crate::Stage::Answers).
pub trait RunObserver: Observer {
    /// An answer was added to the results.
    fn answered(&mut self, row: &Row) {
        let _ = row;
    }

    /// A question failed. Its `n_answers` answers are missing from the results, and another run tries again.
    fn failed(&mut self, bad: &BadRow, n_answers: usize) {
        let _ = (bad, n_answers);
    }
}

impl Run<'_> {
    /// The number of answers that `results` lacks.
    pub fn missing(&self, results: &Results) -> usize {
        self.jobs(results).iter().map(Job::n_answers).sum()
    }

    /// The number of clips with missing answers. More sessions than that would be idle.
    pub fn missing_clips(&self, results: &Results) -> usize {
        self.jobs(results).len()
    }

    /// The missing answers, by clip.
    pub(super) fn jobs(&self, results: &Results) -> Vec<Job<'_>> {
        job::missing(self.questions, self.variants, results)
    }

    pub(super) fn options(&self, clip: &Clip) -> VideoOptions {
        VideoOptions {
            start_s: clip.start_s,
            end_s: clip.end_s,
            folder_fps: clip.folder_fps.or(self.video.folder_fps),
            ..self.video.clone()
        }
    }
}
