//! A run: each video once, all methods on it, each answer written as it comes.

use super::likelihood::Letters;
use super::question::{Clip, Question};
use super::task::Task;
use super::variant::Variant;
use super::worker::{Event, Job, Shared, Worker};
use crate::chat::{EvictParams, Session, VideoOptions};
use crate::error::{Error, Result};
use crate::lab::results::{BadRow, Results, Row};
use crate::prune::PruneParams;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// How a choice is read from the model. Open questions are always generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Score {
    /// The model writes, and the letter is found in it.
    Generate,
    /// The likeliest letter, by the probabilities of the answer's first token.
    Likelihood,
}

impl Score {
    /// The name as written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Likelihood => "likelihood",
        }
    }
}

impl FromStr for Score {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Generate, Self::Likelihood].into_iter().find(|score| score.name() == name).ok_or_else(|| {
            Error::InvalidParameter {
                name: "--score",
                value: format!("\"{name}\""),
                expected: "generate or likelihood".into(),
            }
        })
    }
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
}

/// Is told how a run goes.
pub trait RunObserver {
    /// A clip is opened, decoded and encoded.
    fn clip(&mut self, clip: &Clip) {
        let _ = clip;
    }

    /// An answer was written.
    fn answered(&mut self, row: &Row) {
        let _ = row;
    }

    /// A question could not be asked. Its answers are missing from the results, and another run tries again.
    fn failed(&mut self, bad: &BadRow, n_answers: usize) {
        let _ = (bad, n_answers);
    }

    /// Something that the user should know, while the run goes on.
    fn warning(&mut self, message: &str) {
        tracing::warn!("{message}");
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

    /// Asks what is missing from `results`, with all `sessions` side by side, each with clips of its own. They must be alike, and opened with
    /// [`keep_unpruned`](crate::chat::SessionParams::keep_unpruned). Returns what could not be asked.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it was stopped: what was answered is in `results`. [`Error::Io`] if results cannot be written,
    /// and [`Error::Llama`] if computing fails. A video that cannot be read is no error.
    pub fn run(
        &self,
        sessions: &mut [Session],
        results: &mut Results,
        observer: &mut dyn RunObserver,
    ) -> Result<Vec<BadRow>> {
        let jobs = self.jobs(results);
        let letters = match (self.score, sessions.first()) {
            (Score::Likelihood, Some(session)) => Some(Letters::new(session.model())?),
            _ => None,
        };
        let shared =
            Shared { run: self, letters, jobs: &jobs, next: AtomicUsize::new(0), stop: AtomicBool::new(false) };
        let mut bad_rows = Vec::new();
        // Only the first failure is told: what it stopped is not worth telling.
        let mut broke: Option<Error> = None;
        std::thread::scope(|scope| {
            let (sender, events) = mpsc::channel();
            for session in sessions {
                let worker = Worker { shared: &shared, session, events: sender.clone() };
                scope.spawn(move || worker.work());
            }
            drop(sender);
            // Until the last of the workers has ended.
            for event in events {
                let written = match event {
                    Event::Clip(clip) => {
                        observer.clip(clip);
                        Ok(())
                    }
                    Event::Answered(row) => results.add(row).map(|()| {
                        if let Some(row) = results.rows().last() {
                            observer.answered(row);
                        }
                    }),
                    Event::Failed(bad, n_answers) => {
                        observer.failed(&bad, n_answers);
                        bad_rows.push(bad);
                        Ok(())
                    }
                    Event::Warning(message) => {
                        observer.warning(&message);
                        Ok(())
                    }
                    Event::Broke(error) => Err(error),
                };
                if let Err(error) = written {
                    shared.stop.store(true, Ordering::Relaxed);
                    broke.get_or_insert(error);
                }
            }
        });
        broke.map_or(Ok(bad_rows), Err)
    }

    /// What is missing from `results`, clip by clip.
    fn jobs(&self, results: &Results) -> Vec<Job<'_>> {
        let jobs = by_clip(self.questions).into_iter().filter_map(|group| {
            let missing = |variant: &Variant| -> Vec<&Question> {
                group.iter().copied().filter(|question| !is_there(results, question, variant)).collect()
            };
            let asks = self.variants.iter().map(|variant| (variant, missing(variant)));
            let asks: Vec<_> = asks.filter(|(_, questions)| !questions.is_empty()).collect();
            let clip = &asks.first()?.1.first()?.clip;
            Some(Job { clip, asks })
        });
        jobs.collect()
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

fn is_there(results: &Results, question: &Question, variant: &Variant) -> bool {
    results.find(&question.id, variant.method_name(), &variant.budget_name()).is_some()
}

/// The questions of each clip together, clips in the order of their first questions.
fn by_clip(questions: &[Question]) -> Vec<Vec<&Question>> {
    let key = |clip: &Clip| {
        let bits = |seconds: Option<f64>| seconds.map(f64::to_bits);
        (clip.path.clone(), bits(clip.start_s), bits(clip.end_s), bits(clip.folder_fps))
    };
    let mut groups: Vec<Vec<&Question>> = Vec::new();
    let mut places = HashMap::new();
    for question in questions {
        let place = *places.entry(key(&question.clip)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(question),
            None => groups.push(vec![question]),
        }
    }
    groups
}

/// Leaves the questions of a category, in an order that `shuffle` is the seed of, and the first `limit` of those.
pub fn select(questions: &mut Vec<Question>, category: Option<&str>, shuffle: Option<u64>, limit: Option<usize>) {
    if let Some(category) = category {
        questions.retain(|question| question.is_in(category));
    }
    if let Some(seed) = shuffle {
        // By the ids, so that a question's place depends on nothing but them and the seed.
        questions.sort_by_cached_key(|question| Sha256::digest(format!("{seed} {}", question.id)).to_vec());
    }
    questions.truncate(limit.unwrap_or(usize::MAX));
}

/// The categories of `questions`, separated by commas.
pub fn category_names(questions: &[Question]) -> String {
    let names: BTreeSet<&str> = questions.iter().flat_map(|q| q.categories.values().map(String::as_str)).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// A number that changes with anything about the questions of a dataset, but where their videos lie.
pub fn fingerprint(task: Task, questions: &[Question]) -> String {
    let mut hasher = Sha256::new();
    for question in questions {
        let Clip { start_s, end_s, folder_fps, .. } = &question.clip;
        let facts = (&question.id, task.prompt(question), question.right_answer(), start_s, end_s, folder_fps);
        hasher.update(format!("{facts:?}\n"));
    }
    let digest = hasher.finalize();
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{} questions, {hex}", questions.len())
}
