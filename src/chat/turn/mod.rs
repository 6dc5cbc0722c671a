//! A turn: adds a question to a conversation, prefills the prompt, and decodes an answer.
//!
//! A turn works on a [`Chat`]: a conversation, the models that answer it, and the cache that holds its prompt. A
//! session, a search and live video each have their own.

mod generation;
mod thought;
mod utf8;

pub(in crate::chat) use generation::Generated;
pub use generation::{Piece, StopReason};

use super::cache::evict::DESCRIBE;
use super::cache::prefill::Inputs;
use super::cache::{Cache, CacheParams, Learned};
use super::conversation::Conversation;
use super::conversation::message::Message;
use super::engine::Engine;
use super::fit::Limits;
use super::params::SessionParams;
use super::prompt::{self, Plan, PromptParams};
use crate::error::Result;
use crate::observer::Observer;
use generation::Generation;
use std::time::{Duration, Instant};

/// A conversation, the models that answer it, and the cache that holds its prompt.
#[derive(Debug)]
pub(in crate::chat) struct Chat<'a> {
    pub engine: &'a Engine,
    pub params: &'a SessionParams,
    pub conversation: &'a Conversation,
    pub cache: &'a mut Cache,
    /// The parameters of `cache`.
    pub cache_params: CacheParams<'a>,
    /// The parameters of its prompts.
    pub prompt: PromptParams<'a>,
    /// What was learned about evicting from this cache.
    pub learned: &'a mut Learned,
}

impl<'a> Chat<'a> {
    /// A chat whose cache has the session's parameters.
    pub fn new(
        engine: &'a Engine,
        params: &'a SessionParams,
        conversation: &'a Conversation,
        cache: &'a mut Cache,
        learned: &'a mut Learned,
    ) -> Self {
        Self { engine, params, conversation, cache, cache_params: params.cache(), prompt: params.prompt(), learned }
    }

    /// The same chat with a cache that is as large as its prompt and never evicts, for a conversation that ends after
    /// one answer.
    pub fn small(self) -> Self {
        Self { cache_params: self.cache_params.small(), ..self }
    }

    /// The same chat with answers that begin with their first token, without a thought before it.
    pub fn without_thought(self) -> Self {
        Self { prompt: self.prompt.without_thought(), ..self }
    }

    /// Makes `question` the next message.
    pub fn message(&self, question: &str) -> Message {
        self.conversation.user_message(self.engine.layout.as_ref(), question)
    }

    /// Plans the prompt that ends with `question`, and checks that it fits.
    pub fn plan(&self, question: &str) -> Result<Plan> {
        let Self { engine, params, conversation, .. } = self;
        let message = self.message(question);
        let mut plan = prompt::plan(engine, conversation, &message, &self.prompt)?;
        let limits = Limits { positions: engine.model.n_ctx_train(), cells: self.cache_params.n_ctx };
        limits.check_prompt(&plan, params.n_predict)?;
        if engine.model.is_recurrent() && self.cache_params.checkpoint_memory != Some(0) {
            // A template may refuse a conversation of this form. Then the next turn goes back further.
            let rows = prompt::rows_for_next_turn(engine, conversation, &message, &self.prompt, &plan);
            plan.rows_for_next_turn = rows.inspect_err(|error| tracing::debug!("{error}")).ok();
        }
        Ok(plan)
    }

    /// Makes the cache hold `plan`. Returns how many of its rows were in the cache already.
    pub fn prefill(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<usize> {
        let videos = &self.conversation.videos;
        let inputs = Inputs { videos, newline: self.engine.newline.as_deref() };
        let first = self.cache.prefill(self.engine, &self.cache_params, self.learned, plan, inputs, observer)?;
        if self.cache.needs_description(&self.cache_params, self.learned) {
            match self.plan(DESCRIBE) {
                Ok(other) => self.cache.describe(&other, videos),
                // If it does not fit, or the template rejects it, the question alone has to do.
                Err(error) => tracing::debug!("no second question to try evictions with: {error}"),
            }
        }
        Ok(first)
    }

    /// Prefills the prompt of `question`, with no thought before the answer, and reads the logits of the answer's first
    /// token, `[n_vocab]`, with `read`.
    pub fn first_logits<T>(
        &mut self,
        question: &str,
        read: impl FnOnce(&[f32]) -> T,
        observer: &mut dyn Observer,
    ) -> Result<T> {
        self.prompt = self.prompt.without_thought();
        let plan = self.plan(question)?;
        self.prefill(&plan, observer)?;
        self.cache.read_logits(|context| context.logits().map(read))
    }

    /// Carries out the eviction that the last answer left pending.
    pub fn settle(&mut self, observer: &mut dyn Observer) -> Result<()> {
        // The pending eviction is for another conversation.
        if self.cache.is_of_others(&self.conversation.videos) {
            return Ok(());
        }
        self.cache.settle(self.engine, &self.cache_params, self.learned, observer)
    }

    /// Begins a turn: prefills the prompt of `question`.
    pub fn begin(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Turn> {
        self.settle(observer)?;
        let start = Instant::now();
        let plan = self.plan(question)?;
        let first = self.prefill(&plan, observer)?;
        let generation = Generation::new(self, &plan)?;
        let (prompt_rows, prompt_computed) = (plan.rows.len(), plan.rows.len() - first);
        Ok(Turn { prompt_rows, prompt_computed, prefill: start.elapsed(), generation })
    }
}

/// A turn whose prompt is in the cache.
#[derive(Debug)]
pub(in crate::chat) struct Turn {
    prompt_rows: usize,
    prompt_computed: usize,
    prefill: Duration,
    generation: Generation,
}

/// The result of a turn.
#[derive(Debug)]
pub(in crate::chat) struct Finished {
    /// Rows of the prompt.
    pub prompt_rows: usize,
    /// How many of them were computed; the others were in the cache.
    pub prompt_computed: usize,
    /// The time that planning and computing the prompt took.
    pub prefill: Duration,
    pub answer: Generated,
}

impl Turn {
    /// Returns the next piece of the answer, or `None` after its end. `chat` must be the one that began the turn.
    pub fn next_piece(&mut self, chat: &mut Chat<'_>, observer: &mut dyn Observer) -> Result<Option<Piece>> {
        self.generation.next_piece(chat, observer)
    }

    /// Whether the answer has a token or has ended.
    pub fn has_begun(&self) -> bool {
        self.generation.has_begun()
    }

    /// Ends the answer if it goes on.
    pub fn finish(self, chat: &mut Chat<'_>) -> Result<Finished> {
        // A short answer evicts nothing, but the similarity of the visual tokens can be measured.
        chat.cache.measure(chat.learned)?;
        let Self { prompt_rows, prompt_computed, prefill, generation } = self;
        Ok(Finished { prompt_rows, prompt_computed, prefill, answer: generation.finish() })
    }
}
