//! What a run is, and who is told how it goes.

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

/// How a choice is read from the model. Open questions are always generated.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, strum::EnumString, strum::IntoStaticStr, strum::VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_score)]
pub enum Score {
    /// The model writes, and the letter is found in it.
    Generate,
    /// The likeliest letter, by the probabilities of the answer's first token.
    Likelihood,
}

impl Score {
    /// The name as written on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

fn unknown_score(name: &str) -> Error {
    Error::unknown_name::<Score>("how choices are read", name)
}

/// What to run.
#[derive(Debug)]
pub struct Run<'a> {
    /// How to ask and judge.
    pub task: Task,
    /// What to ask.
    pub questions: &'a [Question],
    /// The methods and budgets to compare.
    pub variants: &'a [Variant],
    /// How choices are read.
    pub score: Score,
    /// All other parameters of pruning.
    pub prune: PruneParams,
    /// Which frames to take; bounds are those of the questions.
    pub video: VideoOptions,
    /// What is evicted, as the session was told.
    pub evict: EvictParams,
    /// The parameters of what is not computed; the mode is that of the variants.
    pub encode: EncodeParams,
}

/// Is told what comes of a run, answer by answer. [`Stage::Answers`](crate::Stage::Answers) is its progress.
pub trait RunObserver: Observer {
    /// An answer was written.
    fn answered(&mut self, row: &Row) {
        let _ = row;
    }

    /// A question could not be asked. Its answers are missing from the results, and another run tries again.
    fn failed(&mut self, bad: &BadRow, n_answers: usize) {
        let _ = (bad, n_answers);
    }
}

impl Run<'_> {
    /// The answers that `results` does not have yet.
    pub fn missing(&self, results: &Results) -> usize {
        self.jobs(results).iter().map(Job::n_answers).sum()
    }

    /// The clips that answers are missing of: more sessions than these have nothing to do.
    pub fn missing_clips(&self, results: &Results) -> usize {
        self.jobs(results).len()
    }

    /// What is missing from `results`, clip by clip.
    pub(super) fn jobs(&self, results: &Results) -> Vec<Job<'_>> {
        job::missing(self.questions, self.variants, results)
    }

    pub(super) fn options(&self, clip: &Clip) -> VideoOptions {
        VideoOptions {
            start_s: clip.start_s,
            end_s: clip.end_s,
            folder_fps: clip.folder_fps.or(self.video.folder_fps),
            ..self.video
        }
    }
}
