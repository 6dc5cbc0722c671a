//! A worker of a run: one session, which takes clip after clip and sends the results.

use super::job::Job;
use super::likelihood::{Letters, likeliest};
use super::question::{Question, RightAnswer, letter};
use super::run::Run;
use super::variant::Variant;
use crate::chat::{EvictMode, Session, StopReason};
use crate::error::{Error, Result};
use crate::lab::results::{BadRow, Judge, Row};
use crate::observer::Observer;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

/// What the workers of a run share.
#[derive(Debug)]
pub struct Shared<'a> {
    pub run: &'a Run<'a>,
    pub letters: Option<Letters>,
    pub jobs: &'a [Job<'a>],
    /// The index of the next job.
    pub next: AtomicUsize,
    /// Set to make workers stop after their current answer.
    pub stop: AtomicBool,
}

/// A message of a worker.
#[derive(Debug)]
pub enum Event {
    Clip,
    Answered(Row),
    /// A question that failed, and how many answers it would have had.
    Failed(BadRow, usize),
    Warning(String),
    /// An error that ends the run.
    Broke(Error),
}

/// A worker, with its session.
#[derive(Debug)]
pub struct Worker<'a> {
    pub shared: &'a Shared<'a>,
    pub session: &'a mut Session,
    pub events: Sender<Event>,
}

/// Forwards a session's warnings.
struct Warnings<'w>(&'w Sender<Event>);

impl Observer for Warnings<'_> {
    fn warning(&mut self, message: &str) {
        // Without a receiver the run has ended.
        let _ = self.0.send(Event::Warning(message.to_owned()));
    }
}

impl<'a> Worker<'a> {
    /// Processes clips until none is left.
    pub fn work(mut self) {
        self.session.set_answer_start(self.shared.run.task.answer_start());
        let outcome = loop {
            let next = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = self.shared.jobs.get(next).filter(|_| !self.is_stopped()) else { break Ok(()) };
            if let Err(error) = self.clip(job) {
                break Err(error);
            }
        };
        self.session.clear();
        if let Err(error) = outcome {
            self.send(Event::Broke(error));
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Asks all questions about a clip with all variants.
    fn clip(&mut self, job: &'a Job<'a>) -> Result<()> {
        let run = self.shared.run;
        self.send(Event::Clip);
        // In the mode `stop`, the encoder's work depends on which tokens are kept: such a variant is encoded by itself.
        let alone = |variant: &Variant| run.encode.in_mode(variant.encode).stop().is_some();
        let mut order: Vec<&(&Variant, Vec<&Question>)> = job.asks.iter().collect();
        order.sort_by_key(|(variant, _)| (variant.encode as u8, variant.method.prunes()));
        for group in order.chunk_by(|(a, _), (b, _)| a.encode == b.encode && !alone(a)) {
            // The last variant prunes, unless all keep everything: a context that is too small for all tokens may be
            // large enough for its tokens.
            let Some((last, _)) = group.last() else { continue };
            self.session.clear();
            self.session.set_prune(last.params(&run.prune))?;
            self.session.set_encode(run.encode.in_mode(last.encode))?;
            let added = self.session.add_video(&job.clip.path, &run.options(job.clip), &mut Warnings(&self.events));
            if let Err(error) = added {
                let reason = excused(error)?;
                for (question, n_answers) in job.questions() {
                    let bad = BadRow { place: format!("question {}", question.id), reason: reason.clone() };
                    self.send(Event::Failed(bad, n_answers));
                }
                return Ok(());
            }
            for (variant, questions) in group {
                self.session.set_prune(variant.params(&run.prune))?;
                for question in questions {
                    if self.is_stopped() {
                        return Ok(());
                    }
                    match self.ask(question, variant) {
                        Ok(row) => self.send(Event::Answered(row)),
                        Err(error @ (Error::PromptTooLong { .. } | Error::ContextFull { .. })) => {
                            let place = format!("question {}, {variant}", question.id);
                            self.send(Event::Failed(BadRow { place, reason: error.to_string() }, 1));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, question: &Question, variant: &Variant) -> Result<Row> {
        let run = self.shared.run;
        let prompt = run.task.prompt(question);
        self.session.restart();
        if run.evict.mode(variant.method.prunes()) != EvictMode::Off {
            // The eviction that another question caused must not affect this one.
            self.session.set_evict(run.evict)?;
        }
        let mut row = Row {
            id: question.id.clone(),
            method: variant.method_name(),
            budget: variant.budget_name(),
            correct: false,
            predicted: None,
            answer: question.right_answer(),
            judge: Judge::Match,
            text: None,
            log_probabilities: Vec::new(),
            visual_tokens: 0,
            kept: 0,
            computed: self.session.encoder_work().computed,
            categories: question.categories.clone(),
        };
        let mut warnings = Warnings(&self.events);
        match (&self.shared.letters, &question.answer) {
            (Some(letters), RightAnswer::Choice(right)) => {
                let logits = self.session.first_logits(&prompt, &mut warnings)?;
                row.log_probabilities = letters.log_probabilities(&logits, question.choices.len());
                let chosen = likeliest(&row.log_probabilities);
                row.predicted = chosen.map(|index| letter(index).to_string());
                row.correct = chosen == Some(*right);
                row.judge = Judge::Likelihood;
            }
            (_, right) => {
                let answer = self.session.ask(&prompt, &mut warnings)?;
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

/// The reason why a video cannot be used. Other errors end the run.
fn excused(error: Error) -> Result<String> {
    match error {
        Error::Cancelled | Error::Llama { .. } => Err(error),
        error => Ok(error.to_string()),
    }
}
