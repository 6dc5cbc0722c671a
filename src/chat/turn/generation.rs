//! Generating: one token after the other, behind a prompt that is in the cache.

use super::Chat;
use super::utf8::Utf8Stream;
use crate::chat::cache::trial::N_COMPARED;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::{Sampler, Token};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// The model ended its turn.
    EndOfTurn,
    /// The number of tokens asked for was reached.
    Length,
    /// The context, or what the model was trained for, was full.
    ContextFull,
    /// It was stopped through the [`CancelToken`](crate::runtime::CancelToken).
    Cancelled,
}

/// An answer while it is written, step by step.
#[derive(Debug)]
pub(super) struct Generation {
    sampler: Sampler,
    utf8: Utf8Stream,
    text: String,
    n_tokens: usize,
    /// Those of them that went through the model.
    n_decoded: usize,
    /// The token that was chosen last and is not in the cache yet.
    chosen: Option<Token>,
    /// Where it will stand.
    position: i32,
    /// When there is enough of the answer to evict.
    evict_at: usize,
    evicted: bool,
    stop: Option<StopReason>,
    /// Time within steps: up to the first token, and all in all. Whoever takes the pieces may take his time.
    first_token: Duration,
    work: Duration,
    evict: Duration,
}

impl Generation {
    /// The answer that the prefilled prompt calls for. Its first token will stand at `position`.
    pub fn new(chat: &Chat<'_>, position: i32) -> Result<Self> {
        let calibrates = chat.learned.has_to_calibrate(chat.cache_params.evict.threshold);
        Ok(Self {
            sampler: Sampler::new(&chat.engine.model, &chat.params.sampler)?,
            utf8: Utf8Stream::default(),
            text: String::new(),
            n_tokens: 0,
            n_decoded: 0,
            chosen: None,
            position,
            // After the first token, which nobody has to wait for, or when there is enough of the answer to look at.
            evict_at: if calibrates { N_COMPARED } else { 1 },
            evicted: false,
            stop: None,
            first_token: Duration::ZERO,
            work: Duration::ZERO,
            evict: Duration::ZERO,
        })
    }

    /// The next piece of the answer, which is not empty; `None` when the model has ended it, or it had to end.
    pub fn next_piece(&mut self, chat: &mut Chat<'_>, observer: &mut dyn Observer) -> Result<Option<String>> {
        let start = Instant::now();
        let before = self.work;
        let piece = loop {
            if self.stop.is_some() {
                break None;
            }
            let result = self.step(chat, observer);
            self.work = before + start.elapsed();
            if self.first_token.is_zero() {
                self.first_token = self.work;
            }
            let piece = result?;
            if !piece.is_empty() {
                break Some(piece);
            }
        };
        if let Some(piece) = &piece {
            self.text.push_str(piece);
        }
        Ok(piece)
    }

    /// Puts the last token into the cache and chooses the next. Gives the text that is complete with it.
    fn step(&mut self, chat: &mut Chat<'_>, observer: &mut dyn Observer) -> Result<String> {
        if let Some(token) = self.chosen.take()
            && let Some(stop) = self.decode(token, chat, observer)?
        {
            return Ok(self.end(stop));
        }
        let token = chat.cache.read_logits(|context| self.sampler.sample(context))?;
        if chat.engine.model.is_end_of_generation(token) {
            return Ok(self.end(StopReason::EndOfTurn));
        }
        self.n_tokens += 1;
        self.chosen = Some(token);
        let mut piece = self.utf8.push(&chat.engine.model.token_bytes(token, false));
        if self.n_tokens >= chat.params.n_predict {
            piece += &self.end(StopReason::Length);
        }
        Ok(piece)
    }

    /// Puts `token` into the cache, behind which it evicts once. Gives why the answer has to end before it.
    fn decode(&mut self, token: Token, chat: &mut Chat<'_>, observer: &mut dyn Observer) -> Result<Option<StopReason>> {
        if !self.evicted && self.n_tokens >= self.evict_at {
            self.evicted = true;
            let start = Instant::now();
            let result = chat.cache.settle(chat.engine, &chat.cache_params, chat.learned, observer);
            self.evict = start.elapsed();
            match result {
                Ok(()) => {}
                Err(Error::Cancelled) => return Ok(Some(StopReason::Cancelled)),
                Err(error) => return Err(error),
            }
        }
        if !chat.cache.has_free_cell() || self.position as usize >= chat.engine.model.n_ctx_train() {
            return Ok(Some(StopReason::ContextFull));
        }
        match chat.cache.decode(token, self.position) {
            Ok(()) => {
                self.position += 1;
                self.n_decoded += 1;
                Ok(None)
            }
            Err(Error::Cancelled) => Ok(Some(StopReason::Cancelled)),
            Err(error) => Err(error),
        }
    }

    /// Ends the answer, and gives what is left of its text.
    fn end(&mut self, stop: StopReason) -> String {
        self.stop.get_or_insert(stop);
        self.utf8.finish()
    }

    /// Ends the answer here, if it has not ended.
    pub fn cut(&mut self) {
        if self.stop.is_none() {
            let rest = self.end(StopReason::Cancelled);
            self.text.push_str(&rest);
        }
    }

    /// The answer as it is now, ended if it had not.
    pub fn finish(mut self) -> Generated {
        self.cut();
        Generated {
            stop: self.stop.unwrap_or(StopReason::Cancelled),
            n_tokens: self.n_tokens,
            n_decoded: self.n_decoded,
            first_token: self.first_token,
            decode: self.work.saturating_sub(self.first_token + self.evict),
            evict: self.evict,
            text: self.text,
        }
    }

    /// Whether there is anything of it, if only its end.
    pub fn has_begun(&self) -> bool {
        self.n_tokens > 0 || self.stop.is_some()
    }
}

/// An answer as it came out of the model.
#[derive(Debug)]
pub(in crate::chat) struct Generated {
    pub text: String,
    pub stop: StopReason,
    pub n_tokens: usize,
    /// Those of them that went through the model: all, if it ended its turn; all but the last, if it was ended.
    pub n_decoded: usize,
    /// From the prompt to the first token.
    pub first_token: Duration,
    /// From there to the end, without evicting: putting each token through the model and choosing the next.
    pub decode: Duration,
    /// Choosing and evicting.
    pub evict: Duration,
}
