//! Measures what the visual tokens of each layer contribute to answers.

use super::Session;
use crate::chat::cache::profile::Loss;
use crate::chat::cache::trial::Difference;
use crate::error::{Error, Result};
use crate::observer::{Observer, Stage};

/// How much hiding visual tokens changes one answer.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Effect {
    /// The number of tokens of the answer that were compared, including its end.
    pub tokens: usize,
    /// How many of them are no longer the likeliest.
    pub changed: usize,
    /// The Kullback–Leibler divergence of their distributions from those with nothing hidden, in nats: the sum.
    pub divergence: f64,
    /// The probability that the likeliest tokens lose: the sum.
    pub lost: f64,
}

impl Effect {
    /// Returns the mean over the tokens of several answers; `None` if there are no answers.
    pub fn mean(effects: impl IntoIterator<Item = Self>) -> Option<Loss> {
        let sum = effects.into_iter().reduce(|a, b| Self {
            tokens: a.tokens + b.tokens,
            changed: a.changed + b.changed,
            divergence: a.divergence + b.divergence,
            lost: a.lost + b.lost,
        })?;
        let n = sum.tokens.max(1) as f64;
        Some(Loss { divergence: sum.divergence / n, changed: sum.changed as f64 / n, lost: sum.lost / n })
    }
}

impl Session {
    /// Returns for each layer whether visual tokens can be evicted from its part of the KV cache, `[n_layer]`. It
    /// depends on the cache, so this prefills the prompt of `question`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn evictable_layers(&mut self, question: &str) -> Result<Vec<bool>> {
        self.prefill_question(question, &mut ())?;
        self.cache.evictable_layers()
    }

    /// Measures how hiding all visual tokens from each of `sets` of layers, `[n_layer]` each, changes the answer to
    /// `question`: the first 16 tokens that the model would decode with nothing hidden. The question cannot attend to
    /// the hidden tokens either, like a later question after an eviction. Returns one effect for each set.
    ///
    /// Prefills the prompt once; the conversation does not change. Reports progress as [`Stage::Runs`], in sets.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`Error::InvalidParameter`] if the session evicts nothing or evicts by a threshold, if
    /// its conversation has no video, or if the model cannot remove its last rows.
    pub fn layer_effects(
        &mut self,
        question: &str,
        sets: &[Vec<bool>],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Effect>> {
        let n_rows = self.prefill_question(question, observer)?;
        let found = self.cache.effects(sets, |done| observer.progress(Stage::Runs, done as u64, sets.len() as u64))?;
        let found = found.ok_or_else(|| Error::InvalidParameter {
            name: "layer effects",
            value: format!("of a prompt of {n_rows} rows"),
            expected:
                "of a video, in a session that evicts without a threshold, with a model that can remove its last rows"
                    .into(),
        })?;
        let effect = |m: Difference| Effect { tokens: m.tokens, changed: m.changed, divergence: m.sum, lost: m.lost };
        Ok(found.into_iter().map(effect).collect())
    }

    /// Prefills the prompt of `question` without evicting. Returns the number of its rows.
    fn prefill_question(&mut self, question: &str, observer: &mut dyn Observer) -> Result<usize> {
        let mut chat = self.chat().without_thought();
        let plan = chat.plan(question)?;
        chat.prefill(&plan, observer)?;
        Ok(plan.rows.len())
    }
}
