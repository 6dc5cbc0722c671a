//! Running: several videos at once, each with all variants; every answer is written immediately.

use super::likelihood::Letters;
use super::run::{Run, RunObserver, Score};
use super::worker::{Event, Shared, Worker};
use crate::chat::Session;
use crate::error::{Error, Result};
use crate::lab::results::{BadRow, Results};
use crate::observer::Stage;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

impl Run<'_> {
    /// Adds the missing answers to `results`, with all `sessions` at once, each on clips of its own. The sessions must
    /// have the same parameters, and [`keep_unpruned`](crate::chat::SessionParams::keep_unpruned). Returns the
    /// questions that failed.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; `results` has the answers so far. [`Error::Io`] if results cannot be written, and
    /// [`Error::Llama`] if computing fails. An unreadable video is not an error.
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
        let total = (self.questions.len() * self.variants.len()) as u64;
        let mut done = total.saturating_sub(self.missing(results) as u64);
        // Only the first failure is reported: it cancels the other workers.
        let mut broke: Option<Error> = None;
        std::thread::scope(|scope| {
            let (sender, events) = mpsc::channel();
            for session in sessions {
                let worker = Worker { shared: &shared, session, events: sender.clone() };
                scope.spawn(move || worker.work());
            }
            drop(sender);
            // Ends when the last worker has ended.
            for event in events {
                let written = match event {
                    Event::Clip => Ok(()),
                    Event::Answered(row) => results.add(row).map(|()| {
                        done += 1;
                        if let Some(row) = results.rows().last() {
                            observer.answered(row);
                        }
                    }),
                    Event::Failed(bad, n_answers) => {
                        done += n_answers as u64;
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
                observer.progress(Stage::Answers, done, total);
                if let Err(error) = written {
                    shared.stop.store(true, Ordering::Relaxed);
                    broke.get_or_insert(error);
                }
            }
        });
        broke.map_or(Ok(bad_rows), Err)
    }
}
