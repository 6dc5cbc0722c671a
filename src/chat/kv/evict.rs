//! Memory SharpV in a session: which visual tokens leave the KV cache behind a prefill.
//!
//! Source: stage 2 of "Sharp Eyes and Memory for VideoLLMs" (arXiv 2511.08003). A layer in which the visual tokens'
//! states have little in common with their embeddings any more holds little visual information: `s_l < M`. `M` differs
//! between models. Where it is not given, the layers are taken in the order of their similarity, as many as do not
//! change what the model is about to say.

use crate::chat::prompt::plan::{Plan, PlannedRow, RowKey};
use crate::error::{Error, Result};
use crate::runtime::{Context, KvLayer, Position, Row, RowInput, Similarity};
use std::collections::HashSet;

/// What leaves the KV cache after the prefill.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, strum::EnumString, strum::VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_mode)]
#[non_exhaustive]
pub enum EvictMode {
    /// All visual tokens, in the layers in which little of them is left. Their memory is returned.
    Layers,
    /// The visual tokens of which little is left, in all layers.
    Tokens,
    /// Nothing: the cache is stock llama.cpp's.
    Off,
}

fn unknown_mode(name: &str) -> Error {
    Error::unknown_name::<EvictMode>("what to evict", name)
}

/// How a session evicts.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct EvictParams {
    /// What is evicted; `None` is [`EvictMode::Layers`] if visual tokens are pruned, and nothing if they are not.
    pub mode: Option<EvictMode>,
    /// The similarity below which a layer, or a token, is evicted: the paper's `M`, which has 0.2. `None` finds out how
    /// much can be evicted without changing what the model says.
    pub threshold: Option<f32>,
}

impl EvictParams {
    /// Nothing is evicted.
    pub fn off() -> Self {
        Self { mode: Some(EvictMode::Off), threshold: None }
    }

    /// The mode for a session that prunes, or does not.
    pub fn mode(&self, prunes: bool) -> EvictMode {
        self.mode.unwrap_or(if prunes { EvictMode::Layers } else { EvictMode::Off })
    }

    /// Checks the threshold.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if it is no cosine.
    pub fn validate(&self) -> Result<()> {
        match self.threshold {
            Some(m) if !(-1.0..=1.0).contains(&m) => Err(Error::InvalidParameter {
                name: "evict-threshold",
                value: m.to_string(),
                expected: "a similarity, from -1 to 1".into(),
            }),
            _ => Ok(()),
        }
    }
}

/// What an eviction took out.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(in crate::chat) enum Choice {
    /// The marked layers.
    Layers(Vec<bool>),
    /// Tokens with less than this mean similarity.
    Tokens(f32),
}

/// What a session knows of the evictions from its cache.
#[derive(Debug, Default)]
pub(in crate::chat) struct Evicted {
    /// Where the tokens stand that left all layers: temporal, vertical, horizontal.
    pub tokens: HashSet<[i32; 3]>,
    /// The rows behind the last picture, if the cache holds visual tokens that were not looked at yet.
    pub pending: Option<Tail>,
    /// The curve as it was measured last.
    pub similarity: Similarity,
    /// What was found out without a threshold: a property of the model more than of a video.
    pub calibrated: Option<Choice>,
}

impl Evicted {
    /// Cells that rows before `position` do not take any more.
    pub fn tokens_before(&self, position: i32) -> usize {
        self.tokens.iter().filter(|p| p[0] < position).count()
    }

    /// Forgets the rows at `position` and behind it, which left the cache.
    pub fn truncate(&mut self, position: i32) {
        self.tokens.retain(|p| p[0] < position);
    }

    /// The whole cache is gone.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.pending = None;
        self.similarity = Similarity::default();
    }

    /// Whether an eviction has to look at answers first.
    pub fn has_to_look(&self, threshold: Option<f32>) -> bool {
        threshold.is_none() && self.calibrated.is_none()
    }

    /// Measures and evicts what the cache holds; `answer` are the rows of the answer so far. Returns how many tokens
    /// left all layers.
    pub fn evict(
        &mut self,
        mode: EvictMode,
        threshold: Option<f32>,
        context: &mut Context,
        answer: &[PlannedRow],
    ) -> Result<usize> {
        let Some(tail) = self.pending.take() else { return Ok(0) };
        // Stopped, or failed: it can be done later.
        self.evict_behind(&tail, mode, threshold, context, answer).inspect_err(|_| self.pending = Some(tail))
    }

    /// Measures what is in the cache, without touching it.
    pub fn measure(&mut self, context: &mut Context) -> Result<()> {
        match context.similarity() {
            Ok(similarity) => self.similarity = similarity,
            Err(error) if context.can_evict() => return Err(error),
            // Some kinds of cache cannot be looked into.
            Err(error) => tracing::debug!("{error}"),
        }
        Ok(())
    }

    fn evict_behind(
        &mut self,
        tail: &Tail,
        mode: EvictMode,
        threshold: Option<f32>,
        context: &mut Context,
        answer: &[PlannedRow],
    ) -> Result<usize> {
        self.measure(context)?;
        if !context.can_evict() {
            tracing::debug!("this model has no KV cache that could be evicted layer by layer");
            return Ok(0);
        }
        if self.similarity.n_tokens == 0 {
            return Ok(0);
        }
        let layers = context.kv_layers()?;
        let choice = match (threshold, &self.calibrated) {
            (Some(threshold), _) => Some(by_threshold(mode, threshold, &self.similarity, &layers)),
            (None, Some(choice)) => Some(choice.clone()),
            (None, None) => {
                let found = calibrate(mode, context, tail.texts(answer), &self.similarity, &layers)?;
                // A layer without its visual tokens does not show what evicting them does: that holds for this cache
                // only.
                if layers.iter().all(|layer| !layer.evicted) {
                    self.calibrated.clone_from(&found);
                }
                found
            }
        };
        match choice {
            None => tracing::debug!("nothing was evicted: there was no room to find out what can be"),
            Some(Choice::Layers(layers)) => context.evict_layers(&layers)?,
            Some(Choice::Tokens(threshold)) => {
                let gone = context.evict_tokens(threshold)?;
                self.tokens.extend(gone.iter().map(|&[t, y, x, _]: &Position| [t, y, x]));
                return Ok(gone.len());
            }
        }
        Ok(0)
    }
}

/// What stands behind the last picture of a prompt.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(in crate::chat) struct Tail {
    /// The rest of the prompt.
    pub question: Vec<PlannedRow>,
    /// The same rest with [`DESCRIBE`] in place of the question; empty if that is no continuation of the same pictures.
    pub describe: Vec<PlannedRow>,
}

/// A question whose answer draws on everything in the pictures. A user's own question may need little of them, and the
/// next one more.
pub(in crate::chat) const DESCRIBE: &str = "What is in the video? Describe what you see in detail.";

impl Tail {
    /// The rows of `plan` from `start` on.
    pub fn of(plan: &Plan, start: usize) -> Self {
        Self { question: plan.rows[start..].to_vec(), describe: Vec::new() }
    }

    fn texts(&self, answer: &[PlannedRow]) -> Vec<Text> {
        let mut texts = vec![Text { n_prompt: self.question.len(), rows: self.question.clone(), generate: 0 }];
        texts[0].rows.extend_from_slice(&answer[..answer.len().min(LOOKED_AT - 1)]);
        if !self.describe.is_empty() {
            texts.push(Text { n_prompt: self.describe.len(), rows: self.describe.clone(), generate: LOOKED_AT });
        }
        texts
    }
}

/// A text in which evictions are tried: the end of a prompt, and an answer to it.
#[derive(Debug, Clone)]
struct Text {
    /// Rows of the prompt.
    n_prompt: usize,
    /// Those rows, and those of the answer.
    rows: Vec<PlannedRow>,
    /// How many tokens of the answer are still to be generated.
    generate: usize,
}

/// How far the distribution of any token that is looked at may move if no threshold is given: the Kullback–Leibler
/// divergence in nats. Not the mean: most tokens of an answer follow from the language alone, and those that the
/// pictures decide are few. The likeliest token must stay the same in each place. Chosen on `smol` (docs/results.md).
const MAX_DIVERGENCE: f64 = 0.01;

/// Tokens of an answer that are looked at.
pub(in crate::chat) const LOOKED_AT: usize = 16;

/// Steps in which the number of layers is searched for, if not all can go.
const STEPS: usize = 8;

/// Without a threshold no layer or token is evicted that the paper would not evict from any model.
const PAPER_THRESHOLD: f32 = 0.2;

/// What a threshold means for this context.
pub(in crate::chat) fn by_threshold(
    mode: EvictMode,
    threshold: f32,
    similarity: &Similarity,
    layers: &[KvLayer],
) -> Choice {
    match mode {
        EvictMode::Tokens => Choice::Tokens(threshold),
        _ => Choice::Layers(mark(&candidates(threshold, similarity, layers), layers.len())),
    }
}

/// The layers with less similarity than `threshold`, the least similar first. One layer with cells is always left.
fn candidates(threshold: f32, similarity: &Similarity, layers: &[KvLayer]) -> Vec<usize> {
    let value = |il: usize| similarity.layers.get(il).copied().unwrap_or(f32::NAN);
    let mut found: Vec<usize> = (0..layers.len()).filter(|&il| layers[il].has_cells && value(il) < threshold).collect();
    found.sort_by(|&a, &b| value(a).total_cmp(&value(b)));
    let with_cells = layers.iter().filter(|layer| layer.has_cells).count();
    found.truncate(with_cells.saturating_sub(1));
    found
}

fn mark(chosen: &[usize], n_layer: usize) -> Vec<bool> {
    (0..n_layer).map(|il| chosen.contains(&il)).collect()
}

/// Finds out how much can be evicted: what stands behind the last picture (the question and the beginning of its
/// answer, and another question that asks for everything) is computed again, in a sequence of its own, with the visual
/// tokens hidden from more or fewer layers, and the distributions of the answers' tokens compared. It is what a later
/// question would meet.
///
/// `None` if this context cannot tell: it has no room for the rows, or its model cannot go back.
fn calibrate(
    mode: EvictMode,
    context: &mut Context,
    texts: Vec<Text>,
    similarity: &Similarity,
    layers: &[KvLayer],
) -> Result<Option<Choice>> {
    let nothing = Choice::Layers(vec![false; layers.len()]);
    let mut choices: Vec<Choice> = match mode {
        EvictMode::Tokens => (1..=STEPS).map(|i| Choice::Tokens(PAPER_THRESHOLD * i as f32 / STEPS as f32)).collect(),
        _ => {
            let order = candidates(PAPER_THRESHOLD, similarity, layers);
            let sizes = (1..=STEPS).map(|i| (order.len() * i).div_ceil(STEPS)).filter(|&n| n > 0);
            sizes.map(|n| Choice::Layers(mark(&order[..n], layers.len()))).collect()
        }
    };
    choices.dedup();
    if choices.is_empty() {
        return Ok(Some(nothing));
    }
    context.copy_sequence(TRIAL)?;
    let found = search(context, texts, &choices);
    context.hide_layers(&[])?;
    let removed = context.truncate_sequence(TRIAL, 0);
    match found {
        Ok(Some(n)) if removed => Ok(Some(if n == 0 { nothing } else { choices.swap_remove(n - 1) })),
        Ok(_) | Err(Error::ContextFull { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The sequence in which evictions are tried.
const TRIAL: usize = 1;

/// How many of `choices` leave the answers as they are; more is assumed to change them more.
fn search(context: &mut Context, mut texts: Vec<Text>, choices: &[Choice]) -> Result<Option<usize>> {
    for text in &mut texts {
        if !complete(context, text)? {
            return Ok(None);
        }
    }
    // In the same batches as the trials: other batches round in other ways.
    let Some(reference) = trial(context, &texts)? else { return Ok(None) };
    let (mut good, mut bad) = (0, choices.len() + 1);
    // The largest first: where it does, nothing else has to be tried.
    let mut next = choices.len();
    while bad - good > 1 {
        match &choices[next - 1] {
            Choice::Layers(layers) => context.hide_layers(layers)?,
            Choice::Tokens(threshold) => context.hide_tokens(*threshold)?,
        }
        let Some(tried) = trial(context, &texts)? else { return Ok(None) };
        let moved = reference.iter().zip(&tried).map(|(p, q)| divergence(p, q)).fold(0.0, f64::max);
        let same = reference.iter().zip(&tried).all(|(p, q)| likeliest(p) == likeliest(q));
        tracing::debug!("evicting {next} of {} steps moves a token by {moved:.4} nats, same: {same}", choices.len());
        if same && moved <= MAX_DIVERGENCE {
            good = next
        } else {
            bad = next
        }
        next = usize::midpoint(good, bad);
    }
    Ok(Some(good))
}

/// Generates what is missing of a text's answer: always the likeliest token. False if the model cannot go back.
fn complete(context: &mut Context, text: &mut Text) -> Result<bool> {
    if text.generate == 0 {
        return Ok(true);
    }
    let Some(mut logits) = trial(context, std::slice::from_ref(text))?.and_then(|mut found| found.pop()) else {
        return Ok(false);
    };
    for left in (0..text.generate).rev() {
        let Some(token) = likeliest(&logits).and_then(|token| i32::try_from(token).ok()) else { break };
        // The last token's row would only tell of a token that is not looked at.
        if left == 0 || context.model().is_end_of_generation(token) {
            break;
        }
        let position = text.rows.last().map_or(0, |row| row.position[0] + 1);
        let row = PlannedRow { key: RowKey::Token(token), position: [position, 0, 0, 0] };
        let input = Row { input: RowInput::Token(token), position: row.position, logits: true };
        context.process_sequence(TRIAL, &[input])?;
        logits = log_softmax(context.logits()?);
        text.rows.push(row);
    }
    text.generate = 0;
    Ok(true)
}

/// The distributions of the answers' tokens, with what is hidden now, as log probabilities.
fn trial(context: &mut Context, texts: &[Text]) -> Result<Option<Vec<Vec<f64>>>> {
    let mut found = Vec::new();
    for text in texts {
        let Some(start) = text.rows.first().map(|row| row.position[0]) else { return Ok(None) };
        if !context.truncate_sequence(TRIAL, start) {
            return Ok(None);
        }
        let mut rows = Vec::with_capacity(text.rows.len());
        for (i, row) in text.rows.iter().enumerate() {
            let RowKey::Token(token) = row.key else { return Ok(None) };
            // The prompt's last row gives the answer's first token.
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

fn log_softmax(logits: &[f32]) -> Vec<f64> {
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
    use crate::runtime::{CancelToken, ContextParams, Model, ModelParams};
    use std::path::Path;

    fn layer(has_cells: bool) -> KvLayer {
        KvLayer { has_cells, evicted: false, rows: 10, bytes: 100 }
    }

    fn similarity(layers: &[f32]) -> Similarity {
        Similarity { layers: layers.to_vec(), n_tokens: 5 }
    }

    #[test]
    fn the_least_similar_layers_go_first() {
        let curve = similarity(&[1.0, 0.3, 0.1, 0.15, 0.05]);
        let layers = [layer(true); 5];
        assert_eq!(candidates(0.2, &curve, &layers), [4, 2, 3]);
        assert_eq!(
            by_threshold(EvictMode::Layers, 0.12, &curve, &layers),
            Choice::Layers(vec![false, false, true, false, true])
        );
    }

    #[test]
    fn layers_without_cells_or_without_a_value_stay() {
        let curve = similarity(&[1.0, 0.1, f32::NAN, 0.1]);
        let layers = [layer(true), layer(false), layer(true), layer(true)];
        assert_eq!(candidates(0.2, &curve, &layers), [3]);
    }

    #[test]
    fn one_layer_is_always_left() {
        let curve = similarity(&[1.0, 0.1, 0.05]);
        // The first layer has a window: it holds no cells that can be evicted.
        let layers = [layer(false), layer(true), layer(true)];
        assert_eq!(candidates(0.2, &curve, &layers), [2]);
    }

    #[test]
    fn a_distribution_does_not_differ_from_itself() {
        let p = log_softmax(&[1.0, 2.0, 3.0]);
        assert!((p.iter().map(|p| p.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(divergence(&p, &p), 0.0);
        // ln 2 for a sure thing that becomes a coin's toss.
        let sure = log_softmax(&[0.0, f32::NEG_INFINITY]);
        assert!((divergence(&sure, &log_softmax(&[0.0, 0.0])) - 2.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn without_a_mode_pruning_decides() {
        assert_eq!(EvictParams::default().mode(true), EvictMode::Layers);
        assert_eq!(EvictParams::default().mode(false), EvictMode::Off);
        assert_eq!(EvictParams::off().mode(true), EvictMode::Off);
        assert!(EvictParams { threshold: Some(1.5), ..EvictParams::default() }.validate().is_err());
        assert!(EvictParams { threshold: Some(f32::NAN), ..EvictParams::default() }.validate().is_err());
    }

    #[test]
    fn a_cache_that_cannot_be_looked_into_is_no_error() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama.gguf");
        let model = Model::load(&path, &ModelParams::default(), |_| {}).expect("a fixture loads");
        // As of a model whose kind of cache has no layers to take out.
        let params = ContextParams { n_ctx: 256, evictable: false, ..ContextParams::default() };
        let mut context = Context::new(&model, &params, &[], &CancelToken::new()).expect("a context");
        assert!(!context.can_evict() && context.similarity().is_err());
        let mut evicted = Evicted { pending: Some(Tail::default()), ..Evicted::default() };
        evicted.measure(&mut context).expect("nothing to measure");
        assert_eq!(evicted.evict(EvictMode::Layers, None, &mut context, &[]).expect("nothing to evict"), 0);
        assert!(evicted.pending.is_none(), "it is not tried again");
    }
}
