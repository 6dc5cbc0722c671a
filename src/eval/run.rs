//! A run: each video once, all methods on it, each answer written as it comes.

use super::likelihood::{Letters, likeliest};
use super::question::{BadRow, Clip, Question, RightAnswer, letter};
use super::results::{Judge, Results, Row};
use super::task::Task;
use super::variant::Variant;
use crate::chat::{EvictMode, EvictParams, Observer, Session, StopReason, VideoOptions};
use crate::error::{Error, Result};
use crate::prune::{Method, PruneParams};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;

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
pub trait RunObserver: Observer {
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
}

impl Run<'_> {
    /// The answers that `results` does not have yet.
    pub fn missing(&self, results: &Results) -> usize {
        let missing = |question: &Question| self.missing_of(question, results).count();
        self.questions.iter().map(missing).sum()
    }

    fn missing_of<'s>(&'s self, question: &'s Question, results: &'s Results) -> impl Iterator<Item = &'s Variant> {
        self.variants.iter().filter(move |variant| !is_there(results, question, variant))
    }

    /// Asks what is missing from `results`. `session` must have been opened with
    /// [`keep_unpruned`](crate::chat::SessionParams::keep_unpruned). Returns what could not be asked.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it was stopped: what was answered is in `results`. [`Error::Io`] if results cannot be written,
    /// and [`Error::Llama`] if computing fails. A video that cannot be read is no error.
    pub fn run(
        &self,
        session: &mut Session,
        results: &mut Results,
        observer: &mut dyn RunObserver,
    ) -> Result<Vec<BadRow>> {
        let letters = match self.score {
            Score::Likelihood => Some(Letters::new(session.model())?),
            Score::Generate => None,
        };
        session.set_answer_start(self.task.answer_start());
        let mut running = Running { run: self, session, results, observer, letters, bad_rows: Vec::new() };
        for group in by_clip(self.questions) {
            running.clip(&group)?;
        }
        running.session.clear();
        Ok(running.bad_rows)
    }

    fn options(&self, clip: &Clip) -> VideoOptions {
        VideoOptions {
            start_s: clip.start_s,
            end_s: clip.end_s,
            folder_fps: clip.folder_fps.or(self.video.folder_fps),
            ..self.video
        }
    }
}

struct Running<'a> {
    run: &'a Run<'a>,
    session: &'a mut Session,
    results: &'a mut Results,
    observer: &'a mut dyn RunObserver,
    letters: Option<Letters>,
    bad_rows: Vec<BadRow>,
}

impl Running<'_> {
    /// All questions about a clip, all variants.
    fn clip(&mut self, group: &[&Question]) -> Result<()> {
        let run = self.run;
        let missing = |question: &&&Question| run.missing_of(question, self.results).next().is_some();
        let Some(clip) = group.iter().find(missing).map(|question| &question.clip) else { return Ok(()) };
        self.observer.clip(clip);
        self.session.clear();
        // The last variant is not the dense one: a context that has no room for all tokens may have it for this one's.
        if let Some(variant) = run.variants.last() {
            self.session.set_prune(variant.params(&run.prune))?;
        }
        let added = self.session.add_video(&clip.path, &run.options(clip), &mut *self.observer);
        if let Err(error) = added {
            let reason = excused(error)?;
            for question in group {
                let n_answers = run.missing_of(question, self.results).count();
                if n_answers > 0 {
                    self.failed(format!("question {}", question.id), reason.clone(), n_answers);
                }
            }
            return Ok(());
        }
        for variant in run.variants {
            let open: Vec<&Question> =
                group.iter().copied().filter(|question| !is_there(self.results, question, variant)).collect();
            if open.is_empty() {
                continue;
            }
            self.session.set_prune(variant.params(&run.prune))?;
            for question in open {
                match self.ask(question, variant) {
                    Ok(row) => {
                        self.results.add(row)?;
                        if let Some(row) = self.results.rows().last() {
                            self.observer.answered(row);
                        }
                    }
                    Err(error @ (Error::PromptTooLong { .. } | Error::ContextFull { .. })) => {
                        self.failed(format!("question {}, {variant}", question.id), error.to_string(), 1);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, place: String, reason: String, n_answers: usize) {
        let bad = BadRow { place, reason };
        self.observer.failed(&bad, n_answers);
        self.bad_rows.push(bad);
    }

    fn ask(&mut self, question: &Question, variant: &Variant) -> Result<Row> {
        let prompt = self.run.task.prompt(question);
        self.session.restart();
        if self.run.evict.mode(variant.method != Method::Off) != EvictMode::Off {
            // An eviction that another question led to must not show in this one.
            self.session.set_evict(self.run.evict)?;
        }
        let mut row = Row {
            id: question.id.clone(),
            method: variant.method_name().to_owned(),
            budget: variant.budget_name(),
            correct: false,
            predicted: None,
            answer: question.right_answer(),
            judge: Judge::Match,
            text: None,
            log_probabilities: Vec::new(),
            visual_tokens: 0,
            kept: 0,
            categories: question.categories.clone(),
        };
        match (&self.letters, &question.answer) {
            (Some(letters), RightAnswer::Choice(right)) => {
                let logits = self.session.first_logits(&prompt, &mut *self.observer)?;
                row.log_probabilities = letters.log_probabilities(&logits, question.choices.len());
                let chosen = likeliest(&row.log_probabilities);
                row.predicted = chosen.map(|index| letter(index).to_string());
                row.correct = chosen == Some(*right);
                row.judge = Judge::Likelihood;
            }
            (_, right) => {
                let answer = self.session.ask(&prompt, &mut *self.observer)?;
                if answer.stop == StopReason::Cancelled {
                    return Err(Error::Cancelled);
                }
                let judged = question.judge(&answer.answer);
                (row.predicted, row.correct) = (judged.predicted, judged.correct);
                row.judge = if matches!(right, RightAnswer::Choice(_)) { Judge::Letter } else { Judge::Match };
                row.text = Some(answer.answer);
            }
        }
        let tokens = self.session.visual_tokens();
        (row.visual_tokens, row.kept) = (tokens.total, tokens.kept);
        Ok(row)
    }
}

fn is_there(results: &Results, question: &Question, variant: &Variant) -> bool {
    results.find(&question.id, variant.method_name(), &variant.budget_name()).is_some()
}

/// Why a video cannot be used; what says nothing about the video is an error of the run.
fn excused(error: Error) -> Result<String> {
    match error {
        Error::Cancelled | Error::Llama { .. } => Err(error),
        error => Ok(error.to_string()),
    }
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
