//! Generation: decodes an answer token by token, after a prompt that is in the cache.

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
    /// The answer has the maximum number of tokens.
    Length,
    /// No cell of the context is free, or the model was trained for no more positions.
    ContextFull,
    /// The [`CancelToken`](crate::runtime::CancelToken) stopped it.
    Cancelled,
}

/// An answer that is being decoded.
#[derive(Debug)]
pub(super) struct Generation {
    sampler: Sampler,
    utf8: Utf8Stream,
    text: String,
    n_tokens: usize,
    /// How many of them were decoded.
    n_decoded: usize,
    /// The token that was sampled last. It is not in the cache yet.
    sampled: Option<Token>,
    /// The position of the next token.
    position: i32,
    /// The number of tokens after which to evict.
    evict_at: usize,
    evicted: bool,
    stop: Option<StopReason>,
    /// Time within steps: until the first token, and in total. The caller's time between pieces does not count.
    first_token: Duration,
    work: Duration,
    evict: Duration,
}

impl Generation {
    /// Begins the answer to the prefilled prompt. Its first token has position `position`.
    pub fn new(chat: &Chat<'_>, position: i32) -> Result<Self> {
        let calibrates = chat.learned.has_to_calibrate(chat.cache_params.evict.threshold);
        Ok(Self {
            sampler: Sampler::new(&chat.engine.model, &chat.params.sampler)?,
            utf8: Utf8Stream::default(),
            text: String::new(),
            n_tokens: 0,
            n_decoded: 0,
            sampled: None,
            position,
            // Evict after the first token, so that it does not wait for the eviction, or after as many as a trial
            // compares.
            evict_at: if calibrates { N_COMPARED } else { 1 },
            evicted: false,
            stop: None,
            first_token: Duration::ZERO,
            work: Duration::ZERO,
            evict: Duration::ZERO,
        })
    }

    /// Returns the next piece of the answer, which is not empty, or `None` after its end.
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

    /// Decodes the last token and samples the next. Returns the text that it completes.
    fn step(&mut self, chat: &mut Chat<'_>, observer: &mut dyn Observer) -> Result<String> {
        if let Some(token) = self.sampled.take()
            && let Some(stop) = self.decode(token, chat, observer)?
        {
            return Ok(self.end(stop));
        }
        let token = chat.cache.read_logits(|context| self.sampler.sample(context))?;
        if chat.engine.model.is_end_of_generation(token) {
            return Ok(self.end(StopReason::EndOfTurn));
        }
        self.n_tokens += 1;
        self.sampled = Some(token);
        let mut piece = self.utf8.push(&chat.engine.model.token_bytes(token, false));
        if self.n_tokens >= chat.params.n_predict {
            piece += &self.end(StopReason::Length);
        }
        Ok(piece)
    }

    /// Decodes `token`, and once in an answer evicts before that. Returns the reason if the answer must end before
    /// `token`.
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

    /// Ends the answer, and returns the rest of its text.
    fn end(&mut self, stop: StopReason) -> String {
        self.stop.get_or_insert(stop);
        self.utf8.finish()
    }

    /// Ends the answer if it goes on.
    pub fn cut(&mut self) {
        if self.stop.is_none() {
            let rest = self.end(StopReason::Cancelled);
            self.text.push_str(&rest);
        }
    }

    /// Returns the answer, and ends it if it goes on.
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

    /// Whether the answer has a token or has ended.
    pub fn has_begun(&self) -> bool {
        self.n_tokens > 0 || self.stop.is_some()
    }
}

/// A decoded answer.
#[derive(Debug)]
pub(in crate::chat) struct Generated {
    pub text: String,
    pub stop: StopReason,
    pub n_tokens: usize,
    /// How many of them were decoded: all if the model ended its turn, all but the last if the answer was cut off.
    pub n_decoded: usize,
    /// Time from the prompt to the first token.
    pub first_token: Duration,
    /// Time from the first token to the end, without evicting.
    pub decode: Duration,
    /// Time for deciding what to evict, and evicting it.
    pub evict: Duration,
}
