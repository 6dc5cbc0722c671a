//! Memory SharpV in a session: which visual tokens leave the KV cache behind a prefill.
//!
//! Source: stage 2 of "Sharp Eyes and Memory for VideoLLMs" (arXiv 2511.08003). A layer in which the visual tokens'
//! states have little in common with their embeddings any more holds little visual information: `s_l < M`. `M` differs
//! between models. Where it is not given, the layers are taken in the order of what hiding visual tokens from each does
//! to the model's answers, if that was measured ([`LayerProfile`]), or else in that of their similarity; as many as do
//! not change what the model is about to say.

use super::profile::LayerProfile;
use super::trial::{Text, Trial};
use crate::chat::prompt::plan::{Plan, PlannedRow};
use crate::error::{Error, Result};
use crate::runtime::{Context, KvLayer, Similarity};
use std::collections::BTreeSet;

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
    /// Keep visual tokens out of the layers that a [`LayerProfile`] frees from the beginning: they are there for the
    /// batch that they come in, and the cache is never as large as with all of them. Without it, the first answer is
    /// looked at first, and only what leaves it as it is goes.
    pub early: bool,
}

impl EvictParams {
    /// Nothing is evicted.
    pub fn off() -> Self {
        Self { mode: Some(EvictMode::Off), ..Self::default() }
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
    /// The rows of the cache that left all layers, by their index. Not by position: under M-RoPE, frames less than half
    /// a second apart share theirs.
    pub rows: BTreeSet<usize>,
    /// The rows behind the last image, if the cache holds visual tokens that were not looked at yet.
    pub pending: Option<Tail>,
    /// The curve as it was measured last.
    pub similarity: Similarity,
    /// What was found out without a threshold: a property of the model more than of a video.
    pub calibrated: Option<Choice>,
}

impl Evicted {
    /// Cells that the first `n` rows do not take any more.
    pub fn among_first(&self, n: usize) -> usize {
        self.rows.range(..n).count()
    }

    /// Forgets the rows behind the first `n`, which left the cache.
    pub fn truncate(&mut self, n: usize) {
        self.rows.retain(|&row| row < n);
    }

    /// Notes that of the `n_rows` rows of the cache these left all layers: counted among those that had cells.
    fn leave(&mut self, n_rows: usize, gone: &[usize]) -> Result<()> {
        let with_cells: Vec<usize> = (0..n_rows).filter(|row| !self.rows.contains(row)).collect();
        let rows: Option<Vec<usize>> = gone.iter().map(|&row| with_cells.get(row).copied()).collect();
        self.rows.extend(rows.ok_or_else(|| Error::Llama {
            action: "evicting tokens",
            reason: "the KV cache holds other rows than were put into it; please report this".into(),
        })?);
        Ok(())
    }

    /// The whole cache is gone.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.pending = None;
        self.similarity = Similarity::default();
    }

    /// Whether an eviction has to look at answers first.
    pub fn has_to_look(&self, threshold: Option<f32>) -> bool {
        threshold.is_none() && self.calibrated.is_none()
    }

    /// Measures and evicts what the cache holds: `rows`, of which those from `answer` on are the answer so far. Returns
    /// how many tokens left all layers.
    pub fn evict(
        &mut self,
        mode: EvictMode,
        threshold: Option<f32>,
        profile: Option<&LayerProfile>,
        context: &mut Context,
        (rows, answer): (&[PlannedRow], usize),
    ) -> Result<usize> {
        let Some(tail) = self.pending.take() else { return Ok(0) };
        let evicted = self.evict_behind(&tail, (mode, threshold, profile), context, &rows[answer..]);
        // Stopped, or failed: it can be done later.
        let gone = evicted.inspect_err(|_| self.pending = Some(tail))?;
        self.leave(rows.len(), &gone)?;
        Ok(gone.len())
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
        (mode, threshold, profile): (EvictMode, Option<f32>, Option<&LayerProfile>),
        context: &mut Context,
        answer: &[PlannedRow],
    ) -> Result<Vec<usize>> {
        self.measure(context)?;
        if !context.can_evict() {
            tracing::debug!("this model has no KV cache that could be evicted layer by layer");
            return Ok(Vec::new());
        }
        if self.similarity.n_tokens == 0 {
            return Ok(Vec::new());
        }
        let layers = context.kv_layers()?;
        let choice = match (threshold, &self.calibrated) {
            (Some(threshold), _) => Some(by_threshold(mode, threshold, &self.similarity, &layers)),
            (None, Some(choice)) => Some(choice.clone()),
            (None, None) => {
                let steps = match profile.filter(|_| mode == EvictMode::Layers) {
                    Some(profile) => Steps::by_profile(profile, &layers),
                    None => Steps::by_similarity(mode, &self.similarity, &layers),
                };
                let found = calibrate(context, tail.texts(answer), steps, layers.len())?;
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
            Some(Choice::Tokens(threshold)) => return context.evict_tokens(threshold),
        }
        Ok(Vec::new())
    }
}

/// What stands behind the last image of a prompt.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(in crate::chat) struct Tail {
    /// The rest of the prompt.
    pub question: Vec<PlannedRow>,
    /// The same rest with [`DESCRIBE`] in place of the question; empty if that is no continuation of the same images.
    pub describe: Vec<PlannedRow>,
}

/// A question whose answer draws on everything in the images. A user's own question may need little of them, and the
/// next one more.
pub(in crate::chat) const DESCRIBE: &str = "What is in the video? Describe what you see in detail.";

impl Tail {
    /// The rows of `plan` from `start` on.
    pub fn of(plan: &Plan, start: usize) -> Self {
        Self { question: plan.rows[start..].to_vec(), describe: Vec::new() }
    }

    fn texts(&self, answer: &[PlannedRow]) -> Vec<Text> {
        let mut texts = vec![Text::with_answer(&self.question, answer)];
        if !self.describe.is_empty() {
            texts.push(Text::unanswered(&self.describe));
        }
        texts
    }
}

/// How far the distribution of any token that is looked at may move if no threshold is given: the Kullback–Leibler
/// divergence in nats. Not the mean: most tokens of an answer follow from the language alone, and those that the
/// images decide are few. The likeliest token must stay the same in each place. Chosen on `smol` (docs/results.md).
const MAX_DIVERGENCE: f64 = 0.01;

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

pub(super) fn mark(chosen: &[usize], n_layer: usize) -> Vec<bool> {
    (0..n_layer).map(|il| chosen.contains(&il)).collect()
}

/// What can be evicted, in steps: each holds the one before it.
struct Steps {
    choices: Vec<Choice>,
    /// How far a token may move: see [`MAX_DIVERGENCE`].
    bound: f64,
}

impl Steps {
    /// By similarity, where nothing better is known.
    fn by_similarity(mode: EvictMode, similarity: &Similarity, layers: &[KvLayer]) -> Self {
        let choices = match mode {
            EvictMode::Tokens => {
                (1..=STEPS).map(|i| Choice::Tokens(PAPER_THRESHOLD * i as f32 / STEPS as f32)).collect()
            }
            _ => in_steps(&candidates(PAPER_THRESHOLD, similarity, layers), layers.len()),
        };
        Self { choices, bound: MAX_DIVERGENCE }
    }

    /// By what was measured of this model: it allows more than a look at one answer could.
    fn by_profile(profile: &LayerProfile, layers: &[KvLayer]) -> Self {
        let order: Vec<usize> =
            profile.free_layers().iter().copied().filter(|&il| layers.get(il).is_some_and(|l| l.has_cells)).collect();
        Self { choices: in_steps(&order, layers.len()), bound: f64::INFINITY }
    }
}

fn in_steps(order: &[usize], n_layer: usize) -> Vec<Choice> {
    let sizes = (1..=STEPS).map(|i| (order.len() * i).div_ceil(STEPS)).filter(|&n| n > 0);
    let mut choices: Vec<Choice> = sizes.map(|n| Choice::Layers(mark(&order[..n], n_layer))).collect();
    choices.dedup();
    choices
}

/// Finds out how much can be evicted: what stands behind the last image (the question and the beginning of its
/// answer, and another question that asks for everything) is computed again, in a sequence of its own, with the visual
/// tokens hidden from more or fewer layers, and the distributions of the answers' tokens compared. It is what a later
/// question would meet.
///
/// `None` if this context cannot tell: it has no room for the rows, or its model cannot go back.
fn calibrate(context: &mut Context, texts: Vec<Text>, steps: Steps, n_layer: usize) -> Result<Option<Choice>> {
    let nothing = Choice::Layers(vec![false; n_layer]);
    let Steps { mut choices, bound } = steps;
    if choices.is_empty() {
        return Ok(Some(nothing));
    }
    match Trial::run(context, texts, |trial| search(trial, &choices, bound)) {
        Ok(Some(n)) => Ok(Some(if n == 0 { nothing } else { choices.swap_remove(n - 1) })),
        Ok(None) | Err(Error::ContextFull { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many of `choices` leave the answers as they are; more is assumed to change them more.
fn search(trial: &mut Trial<'_>, choices: &[Choice], bound: f64) -> Result<Option<usize>> {
    let (mut good, mut bad) = (0, choices.len() + 1);
    // The largest first: where it does, nothing else has to be tried.
    let mut next = choices.len();
    while bad - good > 1 {
        let moved = trial.with(|context| match &choices[next - 1] {
            Choice::Layers(layers) => context.hide_layers(layers),
            Choice::Tokens(threshold) => context.hide_tokens(*threshold),
        })?;
        let Some(moved) = moved else { return Ok(None) };
        tracing::debug!("evicting {next} of {} steps: {moved:?}", choices.len());
        if moved.changed == 0 && moved.max <= bound {
            good = next
        } else {
            bad = next
        }
        next = usize::midpoint(good, bad);
    }
    Ok(Some(good))
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
    fn without_a_mode_pruning_decides() {
        assert_eq!(EvictParams::default().mode(true), EvictMode::Layers);
        assert_eq!(EvictParams::default().mode(false), EvictMode::Off);
        assert_eq!(EvictParams::off().mode(true), EvictMode::Off);
        assert!(EvictParams { threshold: Some(1.5), ..EvictParams::default() }.validate().is_err());
        assert!(EvictParams { threshold: Some(f32::NAN), ..EvictParams::default() }.validate().is_err());
    }

    #[test]
    fn rows_are_counted_among_those_that_have_cells() {
        let mut evicted = Evicted::default();
        evicted.leave(8, &[1, 2, 6]).expect("they are there");
        // What is left are rows 0, 3, 4, 5 and 7.
        evicted.leave(8, &[1, 4]).expect("they are there");
        assert_eq!(evicted.rows, [1, 2, 3, 6, 7].into());
        assert_eq!([0, 2, 7, 8].map(|n| evicted.among_first(n)), [0, 1, 4, 5]);
        evicted.leave(8, &[3]).expect_err("three rows are left");
        evicted.truncate(3);
        assert_eq!(evicted.rows, [1, 2].into());
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
        assert_eq!(evicted.evict(EvictMode::Layers, None, None, &mut context, (&[], 0)).expect("nothing to evict"), 0);
        assert!(evicted.pending.is_none(), "it is not tried again");
    }
}
