//! Generating: one token after the other, behind a prompt that is in the cache.

use super::plan::{Plan, PlannedRow, RowKey};
use super::utf8::Utf8Stream;
use super::{Observer, Session, StopReason, evict, no_context};
use crate::error::{Error, Result};
use crate::runtime::{Context, Row, RowInput, Sampler};
use std::time::{Duration, Instant};

impl Session {
    /// Writes the answer that the prefilled prompt of `plan` calls for, until the model ends it or it has to end.
    pub(super) fn generate(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<Generated> {
        let mut sampler = Sampler::new(&self.model, &self.params.sampler)?;
        let last_position = self.model.n_ctx_train();
        let mut utf8 = Utf8Stream::default();
        let mut text = String::new();
        let mut position = plan.next_position;
        let mut n_tokens = 0;
        let mut first_token_at = None;
        let mut evict = Duration::ZERO;
        let mut evicted = false;
        let looks = self.evicted.has_to_look(self.params.evict.threshold);
        let stop = loop {
            let token = self.read_logits(|context| sampler.sample(context))?;
            first_token_at.get_or_insert_with(Instant::now);
            if self.model.is_end_of_generation(token) {
                break StopReason::EndOfTurn;
            }
            n_tokens += 1;
            emit(utf8.push(&self.model.token_bytes(token, false)), &mut text, observer);
            if n_tokens >= self.params.n_predict {
                break StopReason::Length;
            }
            // Behind the first token, which nobody has to wait for, or when there is enough of the answer to look at.
            if !evicted && n_tokens >= if looks { evict::LOOKED_AT } else { 1 } {
                evicted = true;
                let start = Instant::now();
                let result = self.settle(observer);
                evict = start.elapsed();
                match result {
                    Ok(()) => {}
                    Err(Error::Cancelled) => break StopReason::Cancelled,
                    Err(error) => return Err(error),
                }
            }
            let cells_used = self.cells_used();
            let context = self.context.as_mut().ok_or_else(no_context)?;
            if cells_used >= context.n_ctx() || position as usize >= last_position {
                break StopReason::ContextFull;
            }
            let row = PlannedRow { key: RowKey::Token(token), position: [position, 0, 0, 0] };
            match context.process(&[Row { input: RowInput::Token(token), position: row.position, logits: true }]) {
                Ok(()) => self.cached.push(row),
                Err(error) => {
                    if !context.truncate(position) {
                        context.clear();
                        self.forget_cached();
                    }
                    match error {
                        Error::Cancelled => break StopReason::Cancelled,
                        error => return Err(error),
                    }
                }
            }
            position += 1;
        };
        emit(utf8.finish(), &mut text, observer);
        let generated = first_token_at.map_or(Duration::ZERO, |at| at.elapsed());
        let first_token_at = first_token_at.unwrap_or_else(Instant::now);
        let decode = generated.saturating_sub(evict);
        Ok(Generated { text, stop, n_tokens, first_token_at, decode, evict })
    }

    /// Reads logits with `read`. A cache that gives no numbers is dropped, so that the next question computes it anew.
    pub(super) fn read_logits<T>(&mut self, read: impl FnOnce(&mut Context) -> Result<T>) -> Result<T> {
        let result = read(self.context.as_mut().ok_or_else(no_context)?);
        if matches!(result, Err(Error::LogitsNotFinite)) {
            self.free_cache();
        }
        result
    }
}

/// An answer as it came out of the model.
pub(super) struct Generated {
    pub text: String,
    pub stop: StopReason,
    pub n_tokens: usize,
    pub first_token_at: Instant,
    /// From there to the last token, without evicting.
    pub decode: Duration,
    /// Choosing and evicting.
    pub evict: Duration,
}

/// Hands a piece of an answer on.
fn emit(piece: String, text: &mut String, observer: &mut dyn Observer) {
    if !piece.is_empty() {
        observer.text(&piece);
        text.push_str(&piece);
    }
}
