//! Several sessions that share the weights of one language model and run at the same time.

use super::Session;
use crate::chat::fit::Capacity;
use crate::chat::params::SessionParams;
use crate::error::{Error, Result};
use crate::models::ModelFiles;
use crate::observer::Observer;
use crate::runtime::default_threads;

impl Session {
    /// Opens a session with `files` for each of `params`. The sessions share the language model, which is loaded once,
    /// and split the processor's threads unless they set a number. Each has its own vision encoder, KV cache and
    /// buffers.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::InvalidParameter`] if they do not fit in memory, with what each takes and how
    /// many fit.
    pub fn open_several(
        files: &ModelFiles,
        params: Vec<SessionParams>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Self>> {
        let n = params.len();
        let share = (default_threads() / n.max(1)).max(1);
        let mut sessions: Vec<Self> = Vec::with_capacity(n);
        for mut params in params {
            if n > 1 {
                for threads in [&mut params.compute.n_threads, &mut params.vision.n_threads] {
                    threads.get_or_insert(share);
                }
            }
            let builder = Self::builder(files).params(params).observer(&mut *observer);
            let session = match sessions.first() {
                Some(first) => builder.model(first.engine.model.clone()).open()?,
                None => builder.open()?,
            };
            if sessions.is_empty() && n > 1 {
                check_capacity(session.fit().capacity()?, n)?;
            }
            sessions.push(session);
        }
        Ok(sessions)
    }
}

/// Fails if `n` sessions exceed `capacity`.
fn check_capacity(capacity: Option<Capacity>, n: usize) -> Result<()> {
    let Some(capacity) = capacity.filter(|capacity| capacity.sessions() < n) else { return Ok(()) };
    let Capacity { free, place, context, encoder } = &capacity;
    let megabytes = |bytes: u64| bytes >> 20;
    Err(Error::InvalidParameter {
        name: "the number of sessions",
        value: n.to_string(),
        expected: format!(
            "at most {}: each takes about {} MB for its cache, and another encoder {} MB, of {} MB that are free ({place})",
            capacity.sessions().max(1),
            megabytes(*context),
            megabytes(*encoder),
            megabytes(*free),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sessions_than_fit_are_refused_with_the_number_that_does() {
        let capacity = || Some(Capacity { free: 5 << 30, place: "CUDA0".into(), context: 1 << 30, encoder: 1 << 29 });
        // 1 + 1.5 + 1.5 GB
        assert!(check_capacity(capacity(), 3).is_ok());
        let error = check_capacity(capacity(), 4).unwrap_err().to_string();
        for part in ["at most 3", "1024 MB", "512 MB", "5120 MB", "CUDA0"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(check_capacity(None, 100).is_ok());
        let none = Capacity { free: 1, place: "RAM".into(), context: 10, encoder: 10 };
        assert!(check_capacity(Some(none), 2).unwrap_err().to_string().contains("at most 1"));
    }
}
