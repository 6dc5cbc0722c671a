//! Memory SharpV in a session: which visual tokens are evicted from the KV cache after a prefill.
//!
//! Source: stage 2 of "Sharp Eyes and Memory for VideoLLMs" (arXiv 2511.08003). A layer holds little visual information
//! if the states of its visual tokens have little in common with their embeddings: `s_l < M`. `M` differs between
//! models. If it is not given, as many layers are evicted as leave the answer unchanged. Their order is that of the
//! [`LayerProfile`], which measured what hiding visual tokens from each layer does to the model's answers; without a
//! profile, that of their similarity.

use super::CacheParams;
use super::ledger::{Entry, Ledger};
use super::profile::LayerProfile;
use super::trial::{Text, Trial};
use crate::chat::prompt::Plan;
use crate::chat::rows::PlannedRow;
use crate::error::{Error, Result};
use crate::runtime::{Context, KvLayer, Similarity};

/// What is evicted from the KV cache after the prefill.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, strum::EnumString, strum::VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_mode)]
#[non_exhaustive]
pub enum EvictMode {
    /// All visual tokens, from the layers where their similarity is low. Frees their memory.
    Layers,
    /// The visual tokens of low similarity, from all layers.
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
    /// The similarity below which a layer, or a token, is evicted: the `M` of the paper, which uses 0.2. `None`
    /// measures how much can be evicted without changing the answer.
    pub threshold: Option<f32>,
    /// Evict from the free layers of a [`LayerProfile`] already during the prefill: they hold visual tokens only for
    /// the batch that computes them, so the cache never has its full size. Without it, the first answer decides, and
    /// only what leaves it unchanged is evicted.
    pub early: bool,
}

impl EvictParams {
    /// Evicts nothing.
    pub fn off() -> Self {
        Self { mode: Some(EvictMode::Off), ..Self::default() }
    }

    /// The mode of a session that prunes visual tokens, or does not.
    pub fn mode(&self, prunes: bool) -> EvictMode {
        self.mode.unwrap_or(if prunes { EvictMode::Layers } else { EvictMode::Off })
    }

    /// Checks the threshold.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if it is not between -1 and 1.
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

/// What to evict.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(in crate::chat) enum Choice {
    /// All visual tokens from the marked layers, `[n_layer]`.
    Layers(Vec<bool>),
    /// The visual tokens below this mean similarity, from all layers.
    Tokens(f32),
}

/// What a session learned about evicting: a property of the model more than of a video.
#[derive(Debug, Default)]
pub(in crate::chat) struct Learned {
    /// The similarity of visual tokens in each layer, measured last.
    pub similarity: Similarity,
    /// What to evict, calibrated on the first answer if there is no threshold.
    pub choice: Option<Choice>,
}

impl Learned {
    /// Forgets what to evict, when the videos that it was calibrated with are removed.
    pub fn forget(&mut self) {
        self.choice = None;
    }

    /// Whether an eviction has to be calibrated on an answer first.
    pub fn has_to_calibrate(&self, threshold: Option<f32>) -> bool {
        threshold.is_none() && self.choice.is_none()
    }

    /// Measures the similarity of the visual tokens in the cache, which stays as it is.
    pub fn measure(&mut self, context: &mut Context) -> Result<()> {
        match context.similarity() {
            Ok(similarity) => self.similarity = similarity,
            Err(error) if context.can_evict() => return Err(error),
            // Some kinds of cache cannot be inspected.
            Err(error) => tracing::debug!("{error}"),
        }
        Ok(())
    }
}

/// Measures the visual tokens of a cache and evicts by `params`. `tail` has the rows after the last image; the rows
/// after those are the answer so far. Returns how many tokens were evicted from all layers.
pub(super) fn evict(
    ledger: &mut Ledger,
    learned: &mut Learned,
    tail: &Tail,
    params: &CacheParams<'_>,
) -> Result<usize> {
    learned.measure(ledger.context_mut())?;
    if !ledger.context().can_evict() {
        tracing::debug!("the KV cache of this model cannot be evicted layer by layer");
        return Ok(0);
    }
    if learned.similarity.n_tokens == 0 {
        return Ok(0);
    }
    let (mode, layers) = (params.mode, ledger.context().kv_layers()?);
    let choice = match (params.evict.threshold, &learned.choice) {
        (Some(threshold), _) => Some(by_threshold(mode, threshold, &learned.similarity, &layers)),
        (None, Some(choice)) => Some(choice.clone()),
        (None, None) => {
            let steps = match params.profile.filter(|_| mode == EvictMode::Layers) {
                Some(profile) => Steps::by_profile(profile, &layers),
                None => Steps::by_similarity(mode, &learned.similarity, &layers),
            };
            let texts = tail.texts(ledger.entries());
            let found = calibrate(ledger.for_trial(tail.start()), texts, steps, layers.len())?;
            // If a layer lacks visual tokens already, the trial does not show what evicting them does: the choice holds
            // for this cache only.
            if layers.iter().all(|layer| !layer.evicted) {
                learned.choice.clone_from(&found);
            }
            found
        }
    };
    match choice {
        None => tracing::debug!(
            "nothing was evicted: too few cells are free to try it, or the model cannot remove its last rows"
        ),
        Some(Choice::Layers(layers)) => ledger.evict_layers(&layers)?,
        Some(Choice::Tokens(threshold)) => return ledger.evict_tokens(threshold),
    }
    Ok(0)
}

/// The rows after the last image of a prompt.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(in crate::chat) struct Tail {
    /// The rows of the prompt's question.
    pub question: Vec<PlannedRow>,
    /// The same rows with [`DESCRIBE`] in place of the question; empty if they cannot follow the same images.
    pub describe: Vec<PlannedRow>,
}

/// A question whose answer depends on everything in the images. A user's question may depend on little of them, and the
/// next one on more.
pub(in crate::chat) const DESCRIBE: &str = "What is in the video? Describe what you see in detail.";

impl Tail {
    /// The rows of `plan` from `start` on.
    pub fn of(plan: &Plan, start: usize) -> Self {
        Self { question: plan.rows[start..].to_vec(), describe: Vec::new() }
    }

    /// The position of its first row.
    pub fn start(&self) -> i32 {
        self.question.first().map_or(0, |row| row.position[0])
    }

    /// The texts to try evictions with. The entries after the question are the answer so far.
    fn texts(&self, entries: &[Entry]) -> Vec<Text> {
        let end = self.question.last().map_or(0, |row| row.position[0] + 1);
        let start = entries.iter().rposition(|entry| entry.position[0] < end).map_or(0, |last| last + 1);
        // An answer is text, so its rows refer to no video.
        let answer: Vec<PlannedRow> = entries[start..].iter().filter_map(|entry| entry.row(&[])).collect();
        let mut texts = vec![Text::with_answer(&self.question, &answer)];
        if !self.describe.is_empty() {
            texts.push(Text::unanswered(&self.describe));
        }
        texts
    }
}

/// The most that the distribution of any compared token may change if there is no threshold: a Kullback–Leibler
/// divergence in nats. It bounds each token and not the mean, because the language alone decides most tokens of an
/// answer, and the images decide few. The likeliest tokens must all stay the same. Chosen on `smol` (docs/results.md).
const MAX_DIVERGENCE: f64 = 0.01;

/// How many steps the search for the number of layers has.
const STEPS: usize = 8;

/// Without a threshold, only layers and tokens below the paper's threshold can be evicted.
const PAPER_THRESHOLD: f32 = 0.2;

/// What to evict by a threshold.
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

/// The layers with less similarity than `threshold`, the least similar first. At least one layer with cells is left
/// out: in a model in which only some layers have cells, the last of those.
fn candidates(threshold: f32, similarity: &Similarity, layers: &[KvLayer]) -> Vec<usize> {
    let value = |il: usize| similarity.layers.get(il).copied().unwrap_or(f32::NAN);
    let with_cells: Vec<usize> = (0..layers.len()).filter(|&il| layers[il].has_cells).collect();
    let is_mixed = with_cells.len() < layers.len();
    let last = with_cells.last().copied().filter(|_| is_mixed);
    let is_low = |&il: &usize| value(il) < threshold && Some(il) != last;
    let mut found: Vec<usize> = with_cells.iter().copied().filter(is_low).collect();
    found.sort_by(|&a, &b| value(a).total_cmp(&value(b)));
    found.truncate(with_cells.len().saturating_sub(1));
    found
}

pub(super) fn mark(chosen: &[usize], n_layer: usize) -> Vec<bool> {
    (0..n_layer).map(|il| chosen.contains(&il)).collect()
}

/// What can be evicted, in steps; each contains the one before it.
struct Steps {
    choices: Vec<Choice>,
    /// The most that a token's distribution may change: see [`MAX_DIVERGENCE`].
    bound: f64,
}

impl Steps {
    /// Steps by similarity, for a model without a profile.
    fn by_similarity(mode: EvictMode, similarity: &Similarity, layers: &[KvLayer]) -> Self {
        let choices = match mode {
            EvictMode::Tokens => {
                (1..=STEPS).map(|i| Choice::Tokens(PAPER_THRESHOLD * i as f32 / STEPS as f32)).collect()
            }
            _ => in_steps(&candidates(PAPER_THRESHOLD, similarity, layers), layers.len()),
        };
        Self { choices, bound: MAX_DIVERGENCE }
    }

    /// Steps by the model's profile. It was measured on many answers, so no bound is set for this one.
    fn by_profile(profile: &LayerProfile, layers: &[KvLayer]) -> Self {
        let has_cells = |il: &usize| layers.get(*il).is_some_and(|layer| layer.has_cells);
        let mut order: Vec<usize> = profile.free_layers().iter().copied().filter(has_cells).collect();
        // One layer must keep its cells.
        order.truncate(layers.iter().filter(|layer| layer.has_cells).count().saturating_sub(1));
        Self { choices: in_steps(&order, layers.len()), bound: f64::INFINITY }
    }
}

fn in_steps(order: &[usize], n_layer: usize) -> Vec<Choice> {
    let sizes = (1..=STEPS).map(|i| (order.len() * i).div_ceil(STEPS)).filter(|&n| n > 0);
    let mut choices: Vec<Choice> = sizes.map(|n| Choice::Layers(mark(&order[..n], n_layer))).collect();
    choices.dedup();
    choices
}

/// Measures how much can be evicted. Recomputes the rows after the last image (the question with the beginning of its
/// answer, and a second question about everything), in a sequence of its own, with the visual tokens hidden from more
/// or fewer layers, and compares the distributions of the answers' tokens. A later question would find the cache in
/// this state.
///
/// Returns `None` if the context has too few free cells, or if the model cannot remove its last rows and has no
/// checkpoint.
fn calibrate(
    context: (&mut Context, Option<&[u8]>),
    texts: Vec<Text>,
    steps: Steps,
    n_layer: usize,
) -> Result<Option<Choice>> {
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

/// Returns how many of `choices` leave the answers unchanged, by bisection: a larger choice is assumed to change them
/// more.
fn search(trial: &mut Trial<'_>, choices: &[Choice], bound: f64) -> Result<Option<usize>> {
    let (mut good, mut bad) = (0, choices.len() + 1);
    // Try the largest first: if it leaves them unchanged, the search is over.
    let mut next = choices.len();
    while bad - good > 1 {
        let difference = trial.with(|context| match &choices[next - 1] {
            Choice::Layers(layers) => context.hide_layers(layers),
            Choice::Tokens(threshold) => context.hide_tokens(*threshold),
        })?;
        let Some(difference) = difference else { return Ok(None) };
        tracing::debug!("evicting {next} of {} steps: {difference:?}", choices.len());
        if difference.changed == 0 && difference.max <= bound {
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
    use crate::chat::cache::prefill::PrefillMode;
    use crate::runtime::{CancelToken, ComputeParams, ContextParams, Model, ModelParams};
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
        let curve = similarity(&[1.0, 0.1, f32::NAN, 0.1, 0.3]);
        let layers = [layer(true), layer(false), layer(true), layer(true), layer(true)];
        assert_eq!(candidates(0.2, &curve, &layers), [3]);
    }

    #[test]
    fn one_layer_is_always_left() {
        assert_eq!(candidates(0.2, &similarity(&[0.15, 0.1, 0.05]), &[layer(true); 3]), [2, 1]);
    }

    #[test]
    fn the_last_attention_layer_of_a_hybrid_model_is_left() {
        // The last layer with cells is the least similar, and has to carry what the others no longer hold.
        let curve = similarity(&[1.0, 0.1, 0.15, 0.02, 0.1]);
        let layers = [layer(false), layer(true), layer(true), layer(true), layer(false)];
        assert_eq!(candidates(0.2, &curve, &layers), [1, 2]);
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
        // Like the cache of a model that cannot be evicted layer by layer.
        let params = ContextParams { n_ctx: 256, evictable: false, ..ContextParams::default() };
        let context = Context::new(&model, &params, &[], &CancelToken::new()).expect("a context");
        assert!(!context.can_evict());
        let mut ledger = Ledger::new(context);
        let mut learned = Learned::default();
        learned.measure(ledger.context_mut()).expect("nothing to measure");
        let (compute, cancel) = (ComputeParams::default(), CancelToken::new());
        let params = CacheParams {
            n_ctx: Some(256),
            n_predict: 8,
            compute: &compute,
            evict: EvictParams::default(),
            mode: EvictMode::Layers,
            profile: None,
            prefill: PrefillMode::Auto,
            checkpoint_memory: None,
            max_memory: None,
            cancel: &cancel,
        };
        assert_eq!(evict(&mut ledger, &mut learned, &Tail::default(), &params).expect("nothing to evict"), 0);
    }
}
