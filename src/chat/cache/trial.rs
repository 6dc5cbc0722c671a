//! Trying evictions: a trial recomputes the rows after the last image, in a sequence of its own, with visual tokens
//! hidden from some layers, and compares the distributions of the answer's tokens.

use crate::chat::rows::{PlannedRow, RowKey};
use crate::error::Result;
use crate::runtime::{Context, Row, RowInput};

/// How many tokens of an answer are compared.
pub(in crate::chat) const N_COMPARED: usize = 16;

/// The sequence in which evictions are tried.
const TRIAL: usize = 1;

/// A text to try evictions with: the end of a prompt, and an answer to it.
#[derive(Debug, Clone)]
pub(super) struct Text {
    /// Rows of the prompt.
    n_prompt: usize,
    /// The rows of the prompt and of the answer.
    rows: Vec<PlannedRow>,
    /// How many tokens of the answer are not generated yet.
    generate: usize,
}

impl Text {
    /// A prompt with the beginning of its answer.
    pub fn with_answer(prompt: &[PlannedRow], answer: &[PlannedRow]) -> Self {
        let answer = &answer[..answer.len().min(N_COMPARED - 1)];
        Self { n_prompt: prompt.len(), rows: [prompt, answer].concat(), generate: 0 }
    }

    /// A prompt whose answer is not generated yet.
    pub fn unanswered(prompt: &[PlannedRow]) -> Self {
        Self { n_prompt: prompt.len(), rows: prompt.to_vec(), generate: N_COMPARED }
    }

    /// Generates the rest of the answer, always the likeliest token. Returns false if the model cannot remove its last
    /// rows.
    fn complete(&mut self, context: &mut Context, checkpoint: Option<&[u8]>) -> Result<bool> {
        if self.generate == 0 {
            return Ok(true);
        }
        let found = distributions(context, checkpoint, std::slice::from_ref(self))?;
        let Some(mut logits) = found.and_then(|mut found| found.pop()) else { return Ok(false) };
        for left in (0..self.generate).rev() {
            let Some(token) = likeliest(&logits).and_then(|token| i32::try_from(token).ok()) else { break };
            // The last token's row would only give logits that are not compared.
            if left == 0 || context.model().is_end_of_generation(token) {
                break;
            }
            let position = self.rows.last().map_or(0, |row| row.position[0] + 1);
            let row = PlannedRow { key: RowKey::Token(token), position: [position, 0, 0, 0] };
            let input = Row { input: RowInput::Token(token), position: row.position, logits: true };
            context.process_sequence(TRIAL, &[input])?;
            logits = log_softmax(context.logits()?);
            self.rows.push(row);
        }
        self.generate = 0;
        Ok(true)
    }
}

/// How much the tokens of answers change when visual tokens are hidden.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::chat) struct Difference {
    /// The number of tokens compared.
    pub tokens: usize,
    /// How many of them are no longer the likeliest.
    pub changed: usize,
    /// The Kullback–Leibler divergence of their distributions from those with nothing hidden, in nats: the sum.
    pub sum: f64,
    /// The same divergence: the largest of one token.
    pub max: f64,
    /// The probability that the likeliest tokens lost: the sum.
    pub lost: f64,
}

/// Answers with nothing hidden, to compare with those that the context gives when visual tokens are hidden.
pub(super) struct Trial<'a> {
    context: &'a mut Context,
    /// The state before the texts, for models that cannot remove their last rows.
    checkpoint: Option<&'a [u8]>,
    texts: Vec<Text>,
    reference: Vec<Vec<f64>>,
}

impl<'a> Trial<'a> {
    /// Answers `texts` with nothing hidden, calls `work` with the trial, and then restores the context. Returns `None`
    /// if the model cannot remove its last rows, and there is no `checkpoint` before the texts.
    pub fn run<T>(
        (context, checkpoint): (&'a mut Context, Option<&'a [u8]>),
        mut texts: Vec<Text>,
        work: impl FnOnce(&mut Trial<'_>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        context.copy_sequence(TRIAL)?;
        let run = || -> Result<Option<T>> {
            for text in &mut texts {
                if !text.complete(context, checkpoint)? {
                    return Ok(None);
                }
            }
            // Computed in the same batches as what it is compared with, because other batches round differently.
            let Some(reference) = distributions(context, checkpoint, &texts)? else { return Ok(None) };
            work(&mut Trial { context: &mut *context, checkpoint, texts: std::mem::take(&mut texts), reference })
        };
        let found = run();
        context.hide_layers(&[])?;
        let removed = context.truncate_sequence(TRIAL, 0);
        found.map(|found| found.filter(|_| removed))
    }

    /// How much the answers change when `hide` hides visual tokens. `None` if the model cannot remove its last rows.
    pub fn with(&mut self, hide: impl FnOnce(&mut Context) -> Result<()>) -> Result<Option<Difference>> {
        hide(self.context)?;
        let Some(tried) = distributions(self.context, self.checkpoint, &self.texts)? else { return Ok(None) };
        let mut difference = Difference { tokens: self.reference.len(), changed: 0, sum: 0.0, max: 0.0, lost: 0.0 };
        for (p, q) in self.reference.iter().zip(&tried) {
            let divergence = divergence(p, q);
            let token = likeliest(p);
            difference.changed += usize::from(token != likeliest(q));
            difference.lost += token.map_or(0.0, |token| (p[token].exp() - q[token].exp()).max(0.0));
            difference.sum += divergence;
            difference.max = difference.max.max(divergence);
        }
        Ok(Some(difference))
    }
}

/// The distributions of the answers' tokens with what is hidden now, as log probabilities. `None` if the model cannot
/// remove its last rows, and there is no `checkpoint`.
fn distributions(context: &mut Context, checkpoint: Option<&[u8]>, texts: &[Text]) -> Result<Option<Vec<Vec<f64>>>> {
    let mut found = Vec::new();
    for text in texts {
        let Some(start) = text.rows.first().map(|row| row.position[0]) else { return Ok(None) };
        let is_back = context.truncate_sequence(TRIAL, start)
            || checkpoint.is_some_and(|checkpoint| context.go_back(TRIAL, checkpoint, start));
        if !is_back {
            return Ok(None);
        }
        let mut rows = Vec::with_capacity(text.rows.len());
        for (i, row) in text.rows.iter().enumerate() {
            let RowKey::Token(token) = row.key else { return Ok(None) };
            // The prompt's last row predicts the answer's first token.
            let logits = i + 1 >= text.n_prompt;
            rows.push(Row { input: RowInput::Token(token), position: row.position, logits });
        }
        let n_ubatch = context.n_ubatch();
        for batch in rows.chunks(n_ubatch) {
            context.process_sequence(TRIAL, batch)?;
            for (i, _) in batch.iter().enumerate().filter(|(_, row)| row.logits) {
                found.push(log_softmax(context.logits_of(i)?));
            }
        }
    }
    Ok(Some(found))
}

fn likeliest(log_probabilities: &[f64]) -> Option<usize> {
    (0..log_probabilities.len()).max_by(|&a, &b| log_probabilities[a].total_cmp(&log_probabilities[b]))
}

pub(in crate::chat) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
    logits.iter().map(|&l| f64::from(l - max) - sum.ln()).collect()
}

/// KL(p ‖ q) in nats, of log probabilities.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(&p, &q)| if p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_does_not_differ_from_itself() {
        let p = log_softmax(&[1.0, 2.0, 3.0]);
        assert!((p.iter().map(|p| p.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(divergence(&p, &p), 0.0);
        // A certain token that becomes a coin toss: ln 2.
        let sure = log_softmax(&[0.0, f32::NEG_INFINITY]);
        assert!((divergence(&sure, &log_softmax(&[0.0, 0.0])) - 2.0_f64.ln()).abs() < 1e-12);
    }
}
