//! Generation: decodes an answer token by token, after a prompt that is in the cache.

use super::Chat;
use super::thought::Splitter;
use super::utf8::Utf8Stream;
use crate::chat::cache::trial::N_COMPARED;
use crate::chat::engine::{Engine, Thinking};
use crate::chat::prompt::Plan;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::{Sampler, SamplerParams, Token};
use serde::Serialize;
use std::collections::VecDeque;
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

/// A piece of what a model writes: see [`AnswerStream`](crate::chat::AnswerStream).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// A piece of the thought before the answer.
    Thought(String),
    /// A piece of the answer.
    Text(String),
}

impl Piece {
    /// Passes it on to `observer`.
    pub(in crate::chat) fn report(&self, observer: &mut dyn Observer) {
        match self {
            Self::Thought(piece) => observer.thought(piece),
            Self::Text(piece) => observer.text(piece),
        }
    }
}

/// An answer that is being decoded, and the thought before it.
#[derive(Debug)]
pub(super) struct Generation {
    sampler: Sampler,
    /// Samples what comes before an answer with a grammar. `None` if the grammar holds from here on, or if there is
    /// none.
    before_grammar: Option<Sampler>,
    utf8: Utf8Stream,
    splitter: Splitter,
    /// The most tokens of the thought.
    budget: Option<usize>,
    /// The tokens of the thought so far, without those of its delimiters.
    n_thought: usize,
    /// Tokens that come next, whatever the model would choose: the rest of the end of a thought.
    forced: VecDeque<Token>,
    /// Pieces that were not taken yet.
    ready: VecDeque<Piece>,
    text: String,
    thought: String,
    n_tokens: usize,
    /// How many of them came before the answer.
    n_before_answer: usize,
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
    /// Time within steps: until the first token, until the first token of the answer, and in total. The caller's time
    /// between pieces does not count.
    first_token: Duration,
    first_answer: Option<Duration>,
    work: Duration,
    evict: Duration,
}

impl Generation {
    /// Begins the answer to the prefilled prompt `plan`.
    pub fn new(chat: &Chat<'_>, plan: &Plan) -> Result<Self> {
        let Chat { engine, params, .. } = chat;
        let calibrates = chat.learned.has_to_calibrate(chat.cache_params.evict.threshold);
        let thinking = chat.prompt.thinking_in(chat.conversation);
        let delimiters = engine.template.thoughts().delimiters.clone();
        let expects_thought = plan.in_thought || matches!(thinking, Thinking::On | Thinking::Budget(1..));
        let mut splitter = Splitter::new(delimiters, plan.in_thought);
        let has_grammar = params.sampler.grammar.is_some();
        if !chat.conversation.answer_start.is_empty() || (has_grammar && !expects_thought) {
            splitter.begin_answer();
        }
        let before_grammar = match has_grammar && !splitter.is_answering() {
            true => Some(Sampler::new(&engine.model, &SamplerParams { grammar: None, ..params.sampler.clone() })?),
            false => None,
        };
        Ok(Self {
            sampler: Sampler::new(&engine.model, &params.sampler)?,
            before_grammar,
            utf8: Utf8Stream::default(),
            splitter,
            budget: thinking.budget(),
            n_thought: 0,
            forced: VecDeque::new(),
            ready: VecDeque::new(),
            text: String::new(),
            thought: String::new(),
            n_tokens: 0,
            n_before_answer: 0,
            n_decoded: 0,
            sampled: None,
            position: plan.next_position,
            // Evict after the first token, so that it does not wait for the eviction, or after as many as a trial
            // compares.
            evict_at: if calibrates { N_COMPARED } else { 1 },
            evicted: false,
            stop: None,
            first_token: Duration::ZERO,
            first_answer: None,
            work: Duration::ZERO,
            evict: Duration::ZERO,
        })
    }

    /// Returns the next piece, which is not empty, or `None` after the end of the answer.
    pub fn next_piece(&mut self, chat: &mut Chat<'_>, observer: &mut dyn Observer) -> Result<Option<Piece>> {
        let start = Instant::now();
        let before = self.work;
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if self.stop.is_some() {
                return Ok(None);
            }
            let result = self.step(chat, observer);
            self.work = before + start.elapsed();
            if self.first_token.is_zero() {
                self.first_token = self.work;
            }
            if self.splitter.is_answering() {
                self.first_answer.get_or_insert(self.work);
            }
            result?;
        }
    }

    /// Decodes the last token and samples the next.
    fn step(&mut self, chat: &mut Chat<'_>, observer: &mut dyn Observer) -> Result<()> {
        if let Some(token) = self.sampled.take()
            && let Some(stop) = self.decode(token, chat, observer)?
        {
            self.end(stop);
            return Ok(());
        }
        let is_forced = !self.forced.is_empty();
        let token = match self.forced.pop_front() {
            Some(token) => token,
            None => self.sample(chat)?,
        };
        if chat.engine.model.is_end_of_generation(token) {
            self.end(StopReason::EndOfTurn);
            return Ok(());
        }
        let was_thinking = self.splitter.is_thinking();
        let (text, is_shown) = self.text_of(token, chat.engine);
        let pieces = self.splitter.push(&text, is_shown);
        self.n_tokens += 1;
        self.sampled = Some(token);
        if self.splitter.is_answering() && self.before_grammar.is_some() {
            // The token that ended the thought has the beginning of an answer that the grammar does not know.
            self.splitter.begin_again();
            self.take(pieces.into_iter().filter(|piece| matches!(piece, Piece::Thought(_))));
        } else {
            self.take(pieces);
        }
        if !self.splitter.is_answering() {
            self.n_before_answer = self.n_tokens;
        }
        self.n_thought += usize::from(was_thinking && self.splitter.is_thinking());
        self.keep_to_budget(is_forced, chat.engine)?;
        if self.n_tokens >= chat.params.n_predict {
            self.end(StopReason::Length);
        }
        Ok(())
    }

    /// Chooses the next token from the last logits. Before an answer with a grammar, the model is free to think.
    fn sample(&mut self, chat: &mut Chat<'_>) -> Result<Token> {
        let engine = chat.engine;
        if let Some(free) = &mut self.before_grammar {
            let token = chat.cache.read_logits(|context| free.sample(context))?;
            if self.splitter.is_thinking() || !self.would_answer(token, engine) {
                return Ok(token);
            }
            self.before_grammar = None;
            self.splitter.begin_answer();
        }
        chat.cache.read_logits(|context| self.sampler.sample(context))
    }

    /// Whether the answer would begin with `token`.
    fn would_answer(&self, token: Token, engine: &Engine) -> bool {
        let mut utf8 = self.utf8.clone();
        let (text, is_shown) = text_of(token, &mut utf8, engine);
        engine.model.is_end_of_generation(token) || self.splitter.would_answer(&text, is_shown, utf8.pending())
    }

    /// Ends the thought if it has as many tokens as it may have.
    fn keep_to_budget(&mut self, is_forced: bool, engine: &Engine) -> Result<()> {
        let is_over = self.budget.is_some_and(|budget| self.n_thought >= budget);
        if !is_over || !self.splitter.is_thinking() || !self.forced.is_empty() {
            return Ok(());
        }
        match &engine.template.thoughts().delimiters {
            // The vocabulary cannot write the end.
            _ if is_forced => self.budget = None,
            Some(delimiters) => self.forced = engine.model.tokenize(&delimiters.end, false, true)?.into(),
            None => {}
        }
        Ok(())
    }

    /// The text that `token` completes, and whether it is shown.
    fn text_of(&mut self, token: Token, engine: &Engine) -> (String, bool) {
        text_of(token, &mut self.utf8, engine)
    }

    /// Adds `pieces` to the answer and to those that can be taken.
    fn take(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        for piece in pieces {
            match &piece {
                Piece::Thought(thought) => self.thought.push_str(thought),
                Piece::Text(text) => self.text.push_str(text),
            }
            self.ready.push_back(piece);
        }
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

    /// Ends the answer, with the rest of its text.
    fn end(&mut self, stop: StopReason) {
        self.stop.get_or_insert(stop);
        let rest = self.utf8.finish();
        let pieces = self.splitter.push(&rest, true);
        self.take(pieces);
        let pieces = self.splitter.finish();
        self.take(pieces);
    }

    /// Ends the answer if it goes on.
    pub fn cut(&mut self) {
        if self.stop.is_none() {
            self.end(StopReason::Cancelled);
        }
    }

    /// Returns the answer, and ends it if it goes on.
    pub fn finish(mut self) -> Generated {
        self.cut();
        let has_thought = self.splitter.has_thought();
        Generated {
            stop: self.stop.unwrap_or(StopReason::Cancelled),
            n_tokens: self.n_tokens,
            n_reasoning: if has_thought { self.n_before_answer } else { 0 },
            n_decoded: self.n_decoded,
            first_token: self.first_token,
            first_answer: if has_thought { self.first_answer } else { Some(self.first_token) },
            decode: self.work.saturating_sub(self.first_token + self.evict),
            evict: self.evict,
            text: self.text,
            thought: self.thought,
        }
    }

    /// Whether the answer has a token or has ended.
    pub fn has_begun(&self) -> bool {
        self.n_tokens > 0 || self.stop.is_some()
    }
}

/// The text that `token` completes, and whether it is shown.
fn text_of(token: Token, utf8: &mut Utf8Stream, engine: &Engine) -> (String, bool) {
    match engine.template.thoughts().unshown.get(&token) {
        Some(name) => (name.clone(), false),
        None => (utf8.push(&engine.model.token_bytes(token, false)), true),
    }
}

/// A decoded answer.
#[derive(Debug)]
pub(in crate::chat) struct Generated {
    /// The answer alone.
    pub text: String,
    /// The thought before it.
    pub thought: String,
    pub stop: StopReason,
    pub n_tokens: usize,
    /// How many of them are the thought and its delimiters.
    pub n_reasoning: usize,
    /// How many of them were decoded: all if the model ended its turn, all but the last if the answer was cut off.
    pub n_decoded: usize,
    /// Time from the prompt to the first token.
    pub first_token: Duration,
    /// Time from the prompt to the first token of the answer; `None` if there is only a thought.
    pub first_answer: Option<Duration>,
    /// Time from the first token to the end, without evicting.
    pub decode: Duration,
    /// Time for deciding what to evict, and evicting it.
    pub evict: Duration,
}

impl Generated {
    /// The thought without the white space around it; `None` if there is none.
    pub fn reasoning(&self) -> Option<String> {
        Some(self.thought.trim().to_owned()).filter(|thought| !thought.is_empty())
    }
}
