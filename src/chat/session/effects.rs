//! What visual tokens do in each layer, seen in the model's answers.

use super::Session;
use crate::chat::cache::profile::Loss;
use crate::chat::cache::trial::Difference;
use crate::error::{Error, Result};
use crate::observer::{Observer, Stage};

/// What hiding visual tokens did to one answer.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Effect {
    /// Tokens of the answer that were looked at, its end among them.
    pub tokens: usize,
    /// How many of them were not the likeliest any more.
    pub changed: usize,
    /// The Kullback–Leibler divergence of their distributions from those with nothing hidden, in nats: its sum.
    pub divergence: f64,
    /// What the likeliest tokens lost of their probability: its sum.
    pub lost: f64,
}

impl Effect {
    /// The mean over the tokens of several answers.
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
    /// Which layers of the model have a part of the KV cache that visual tokens can be taken out of; one entry for each
    /// layer. It is a matter of the cache, which is made for the prompt of `question`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn evictable_layers(&mut self, question: &str) -> Result<Vec<bool>> {
        self.prefill_question(question, &mut ())?;
        self.cache.evictable_layers()
    }

    /// What hiding all visual tokens from each of `sets` of layers does to the answer to `question`: to the first 16
    /// tokens that the model would write with nothing hidden. Visual tokens are hidden from the question as well, as
    /// for a later question behind an eviction. One entry for each set, which has one for each layer.
    ///
    /// The prompt is prefilled once, and the conversation stays as it is. Progress is that of [`Stage::Runs`], in sets.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`Error::InvalidParameter`] if the session was opened so that nothing is evicted, or by a
    /// threshold, or if its conversation has no video.
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
                "of a video in a session that evicts layers by a look at its answers, with a model that can go back"
                    .into(),
        })?;
        let effect = |m: Difference| Effect { tokens: m.tokens, changed: m.changed, divergence: m.sum, lost: m.lost };
        Ok(found.into_iter().map(effect).collect())
    }

    /// Brings the KV cache to the prompt of `question`, with nothing evicted in between. Returns its rows.
    fn prefill_question(&mut self, question: &str, observer: &mut dyn Observer) -> Result<usize> {
        let mut chat = self.chat();
        let plan = chat.plan(question)?;
        chat.prefill(&plan, observer)?;
        Ok(plan.rows.len())
    }
}
