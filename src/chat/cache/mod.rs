//! The KV cache of a conversation: which rows it holds, and how it gets from one prompt to the next.
//!
//! The [`ledger`] owns the context and knows its rows. A [`Cache`] brings a ledger to a prompt, in a context of the size
//! that the prompt needs. [`evict`] decides what leaves it after the prefill; what it learns for that is [`Learned`] and
//! belongs to the session.

mod compare;
pub(in crate::chat) mod evict;
pub(in crate::chat) mod ledger;
mod params;
pub(in crate::chat) mod prefill;
pub(in crate::chat) mod profile;
pub(in crate::chat) mod trial;

pub(in crate::chat) use evict::Learned;
pub(in crate::chat) use params::CacheParams;

use super::encoded::EncodedVideo;
use super::engine::Engine;
use super::engine::cost::CELL_STEP;
use super::fit::Available;
use super::prompt::Plan;
use super::rows::{PlannedRow, after_visual};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::{Context, ContextParams, KvLayer, KvWindow, MemoryUsage, Row, RowInput, SavedCells};
use evict::{Choice, EvictMode, Tail};
use ledger::{Entry, Ledger};
use prefill::{Batching, Inputs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trial::{Moved, Text, Trial};

/// The KV cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kv {
    /// Cells allocated. A cell holds the keys and values of one row in all layers.
    pub cells: usize,
    /// Cells in use after this turn.
    pub cells_used: usize,
    /// Bytes allocated.
    pub bytes: u64,
    /// Bytes that would be allocated if nothing were pruned or evicted.
    pub bytes_dense: u64,
    /// Layers of the model.
    pub layers: usize,
    /// Layers that have nothing to evict: recurrent layers, and layers with a sliding window, which stay as they are.
    /// Zero if nothing is evicted at all.
    pub layers_fixed: usize,
    /// Layers from which visual tokens were evicted.
    pub layers_evicted: usize,
    /// Visual tokens that were evicted from all layers.
    pub tokens_evicted: usize,
}

/// A context with its rows, and what is known of the prompt that it was brought to last.
#[derive(Debug, Default)]
pub(in crate::chat) struct Cache {
    held: Option<Held>,
    prompt: Prompt,
}

/// The rows of a context, and what a cell of it takes.
#[derive(Debug)]
struct Held {
    ledger: Ledger,
    /// Bytes of a cell in all layers, before anything is evicted.
    bytes_per_cell: u64,
}

/// What is known of the prompt that the cache was brought to last.
#[derive(Debug, Default)]
struct Prompt {
    /// Its rows if nothing had been pruned.
    dense_rows: usize,
    /// The rows after its last image, while nothing was evicted after them.
    tail: Option<Tail>,
}

/// A cache that grows gets an eighth more cells than it needs. Moved whenever it is full, it copies each row nine times
/// in all, however long the conversation becomes.
const SLACK: usize = 8;

/// The size of a context.
#[derive(Debug)]
struct Size {
    /// Its cells.
    n_ctx: usize,
    /// Its cells where so many cannot be allocated.
    least: usize,
    /// Rows that are computed at once.
    n_ubatch: usize,
    window: Option<Window>,
}

/// Layers that visual tokens leave with the batch that they come in: a [`KvWindow`] of a context whose size is open.
#[derive(Debug)]
struct Window {
    layers: Vec<bool>,
    /// By how much their rows are fewer than the cells of the context.
    rows_less: usize,
}

impl Window {
    fn of(&self, n_ctx: usize) -> KvWindow {
        KvWindow { layers: self.layers.clone(), rows: n_ctx.saturating_sub(self.rows_less) }
    }
}

/// What `make` returns for `n`, or for `least` where `n` cannot be allocated.
fn first_that_is_made<T>(n: usize, least: usize, make: impl Fn(usize) -> Result<T>) -> Result<T> {
    match make(n) {
        Err(Error::Llama { reason, .. }) if least < n => {
            tracing::debug!("no context with {n} cells, so one with {least}: {reason}");
            make(least)
        }
        made => made,
    }
}

/// What a saved session holds of a cache.
#[derive(Debug)]
pub(in crate::chat) struct SavedCache {
    pub entries: Vec<Entry>,
    pub tail: Option<Tail>,
    pub dense_rows: usize,
    /// Cells of the context.
    pub n_ctx: usize,
}

impl Cache {
    /// The rows in the cache.
    pub fn entries(&self) -> &[Entry] {
        self.held.as_ref().map_or(&[], |held| held.ledger.entries())
    }

    /// Rows of the last prompt if nothing had been pruned.
    pub fn dense_rows(&self) -> usize {
        self.prompt.dense_rows
    }

    /// The rows after the last image, if visual tokens wait to be evicted.
    pub fn tail(&self) -> Option<&Tail> {
        self.prompt.tail.as_ref()
    }

    fn ledger(&mut self) -> Result<&mut Ledger> {
        self.held.as_mut().map(|held| &mut held.ledger).ok_or_else(no_context)
    }

    fn context(&self) -> Option<&Context> {
        self.held.as_ref().map(|held| held.ledger.context())
    }

    /// Reads logits with `read`. A cache whose logits are not finite is freed, so that the next question computes it
    /// anew.
    pub fn read_logits<T>(&mut self, read: impl FnOnce(&mut Context) -> Result<T>) -> Result<T> {
        let result = read(self.ledger()?.context_mut());
        if matches!(result, Err(Error::LogitsNotFinite)) {
            self.free();
        }
        result
    }

    /// Rows that are computed at once: as `params` say, or more where the context has to take an image at once.
    pub fn n_ubatch(&self, params: &CacheParams<'_>) -> usize {
        self.context().map_or(0, Context::n_ubatch).max(params.compute.n_ubatch)
    }

    /// Bytes that the context takes; all zero if there is none.
    pub fn memory_usage(&self) -> MemoryUsage {
        self.context().map(Context::memory_usage).unwrap_or_default()
    }

    /// Cells and contents of the context; `None` if nothing is in it.
    pub fn state(&mut self) -> Result<Option<(usize, Vec<u8>)>> {
        match &mut self.held {
            Some(held) if !held.ledger.entries().is_empty() => {
                Ok(Some((held.ledger.context().n_ctx(), held.ledger.state()?)))
            }
            _ => Ok(None),
        }
    }

    /// Frees the context.
    pub fn free(&mut self) {
        *self = Self::default();
    }

    /// Whether a row is of a video that is not among `videos`.
    pub fn is_of_others(&self, videos: &[Arc<EncodedVideo>]) -> bool {
        self.held.as_ref().is_some_and(|held| held.ledger.is_of_others(videos))
    }

    /// Keeps the first `n` rows; none where the model cannot go back.
    pub fn cut(&mut self, n: usize) {
        if let Some(held) = &mut self.held {
            held.ledger.cut(n);
        }
    }

    /// Removes the rows before the first visual token's on, so that the context keeps its size for another arrangement
    /// of the same slices.
    pub fn cut_before_visual(&mut self) {
        self.cut(self.entries().iter().position(Entry::is_visual).unwrap_or(self.entries().len()));
    }

    /// Whether the first rows are those of a prompt of `rows` about `videos`.
    pub fn begins_with(&self, rows: &[PlannedRow], videos: &[Arc<EncodedVideo>]) -> bool {
        let entries = self.entries();
        entries.len() >= rows.len() && entries.iter().zip(rows).all(|(entry, row)| entry.is_row(row, videos))
    }

    /// Removes the images that the prompt of `rows` lacks, where that leaves all other rows as they are. Returns how
    /// many rows it removed. What differs after them stays, for [`prefill`](Self::prefill).
    ///
    /// Rows after such an image were computed while it was there, and keep what they took from it. So this is for live
    /// video, which forgets what it has seen, and not for a conversation that is set anew.
    pub fn forget(&mut self, rows: &[PlannedRow], videos: &[Arc<EncodedVideo>]) -> usize {
        let Some(held) = &mut self.held else { return 0 };
        let runs = compare::lacked(held.ledger.entries(), rows, videos);
        held.ledger.remove(&runs)
    }

    /// Cells that rows use: those of the rows that were not evicted from all layers.
    #[cfg(test)]
    pub fn cells_used(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.ledger.cells_used())
    }

    /// Removes runs of rows, ascending: see [`Ledger::remove`].
    #[cfg(test)]
    pub fn remove(&mut self, runs: &[std::ops::Range<usize>]) -> usize {
        self.held.as_mut().map_or(0, |held| held.ledger.remove(runs))
    }

    /// Whether another row has a cell.
    pub fn has_free_cell(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.ledger.has_free_cell())
    }

    /// Brings the cache from what it holds to `plan`, and computes the logits of its last row. Returns how many rows of
    /// the plan were there already.
    pub fn prefill(
        &mut self,
        engine: &Engine,
        params: &CacheParams<'_>,
        learned: &mut Learned,
        plan: &Plan,
        inputs: Inputs<'_>,
        observer: &mut dyn Observer,
    ) -> Result<usize> {
        self.leave_videos(inputs.videos, learned);
        let keep = compare::shared(self.entries(), &plan.rows, inputs.videos);
        self.resize_for(engine, params, learned, plan, keep)?;
        let ledger = self.ledger()?;
        ledger.cut(keep);
        // A new context may hold nothing of what was there, and a model may not be able to go back.
        let first = keep.min(ledger.entries().len());
        let how = (params.prefill, Batching::of(engine));
        if let Err(error) = prefill::prefill(ledger, plan, first, inputs, how, observer) {
            // Visual tokens of whole ubatches may be in the cache, and nothing waits to evict them.
            ledger.cut(first);
            return Err(error);
        }
        // What waits for eviction describes the prompt that was there before.
        let waits = self.prompt.tail.is_some() || plan.rows[first..].iter().any(PlannedRow::is_visual);
        self.prompt = Prompt {
            dense_rows: plan.dense_rows,
            tail: (waits && params.mode != EvictMode::Off).then(|| Tail::of(plan, after_visual(&plan.rows))),
        };
        Ok(first)
    }

    /// Removes what a conversation about `videos` has no use for: another conversation may be about other videos. What
    /// was learned of evicting was learned with the videos that go.
    pub fn leave_videos(&mut self, videos: &[Arc<EncodedVideo>], learned: &mut Learned) {
        let Some(held) = &mut self.held else { return };
        if !held.ledger.is_of_others(videos) {
            return;
        }
        // The cache of another video may be much larger than this one needs.
        if held.ledger.begins_with_others(videos) || held.ledger.has_evicted_layers() {
            self.free();
        } else {
            held.ledger.cut_others(videos);
            self.prompt.tail = None;
        }
        learned.forget();
    }

    /// Whether an eviction waits that another question about the same images would tell more: see
    /// [`describe`](Self::describe).
    pub fn needs_description(&self, params: &CacheParams<'_>, learned: &Learned) -> bool {
        // A profile stands for all questions.
        self.prompt.tail.is_some() && learned.has_to_look(params.evict.threshold) && params.profile.is_none()
    }

    /// Gives the waiting eviction another question about the same images to try itself on, as far as `plan` is that.
    pub fn describe(&mut self, plan: &Plan, videos: &[Arc<EncodedVideo>]) {
        let start = after_visual(&plan.rows);
        if self.begins_with(&plan.rows[..start], videos)
            && let Some(tail) = self.prompt.tail.as_mut()
        {
            tail.describe = plan.rows[start..].to_vec();
        }
    }

    /// What hiding visual tokens from each of `sets` of layers does to the answer that the prefilled prompt calls for.
    /// `None` if there is nothing to evict, or if the model cannot go back. `on_set` is called when a set is done.
    pub fn effects(&mut self, sets: &[Vec<bool>], mut on_set: impl FnMut(usize)) -> Result<Option<Vec<Moved>>> {
        let Some(tail) = &self.prompt.tail else { return Ok(None) };
        let text = Text::unanswered(&tail.question);
        Trial::run(self.ledger()?.context_mut(), vec![text], |trial| {
            let mut found = Vec::with_capacity(sets.len());
            for (done, set) in sets.iter().enumerate() {
                let Some(moved) = trial.with(|context| context.hide_layers(set))? else { return Ok(None) };
                found.push(moved);
                on_set(done + 1);
            }
            Ok(Some(found))
        })
    }

    /// Which layers have cells that can be evicted, `[n_layer]`.
    pub fn evictable_layers(&self) -> Result<Vec<bool>> {
        let context = self.context().ok_or_else(no_context)?;
        if !context.can_evict() {
            return Ok(vec![false; context.model().n_layer()]);
        }
        Ok(context.kv_layers()?.iter().map(|layer| layer.has_cells).collect())
    }

    /// Computes one token of an answer.
    pub fn decode(&mut self, token: i32, position: i32) -> Result<()> {
        let entry = Entry::of_token(token, position);
        let row = Row { input: RowInput::Token(token), position: entry.position, logits: true };
        self.ledger()?.extend(&[entry], &[row])
    }

    /// Makes sure that there is a context with cells for the rows of `plan` and an answer, if `keep` rows of the cache
    /// stay, and with batches that are large enough for it.
    fn resize_for(
        &mut self,
        engine: &Engine,
        params: &CacheParams<'_>,
        learned: &mut Learned,
        plan: &Plan,
        keep: usize,
    ) -> Result<()> {
        // Layers without visual tokens have no rows for them either: where a video has to be computed again, all is.
        let recomputes = self.entries()[keep..].iter().any(Entry::is_visual);
        if recomputes && self.held.as_ref().is_some_and(|held| held.ledger.has_evicted_layers()) {
            self.free();
        }
        let kept = &self.entries()[..keep.min(self.entries().len())];
        let evicted = kept.len() - ledger::cells(kept);
        let wanted = params.n_ctx.unwrap_or(plan.rows.len() - evicted.min(plan.rows.len()) + params.n_predict);
        // Of the whole prompt: a model may not be able to go back to where it parts from what is there.
        let at_once = plan.rows_at_once(engine);
        let is_enough = |context: &Context| {
            // A context of a fixed size keeps it, whatever a prompt takes: the prompt was checked against it.
            let has_cells = params.n_ctx.is_some() || context.n_ctx() >= wanted;
            has_cells && context.n_ubatch() >= at_once
        };
        if self.context().is_some_and(is_enough) {
            return Ok(());
        }
        let n_ubatch = params.compute.n_ubatch.max(at_once);
        let n_ctx = match self.context().filter(|_| params.n_ctx.is_none()) {
            Some(context) if context.n_ctx() >= wanted => context.n_ctx(),
            Some(_) => self.with_slack(engine, params, wanted, n_ubatch)?,
            None => wanted,
        };
        // A context that is moved brings its layers along; one that begins empty can have them small from the start.
        let n_text = plan.rows.iter().filter(|row| !row.is_visual()).count();
        let window = params.early_layers().filter(|_| self.entries().is_empty()).map(|profile| Window {
            layers: evict::mark(profile.free_layers(), engine.model.n_layer()),
            // All but the visual tokens, and those of one batch.
            rows_less: (plan.rows.len() - n_text).saturating_sub(n_ubatch),
        });
        // What could not be moved is computed anew, from the embeddings that were kept.
        self.resize(engine, params, learned, Size { n_ctx, least: wanted, n_ubatch, window }).map(|_| ())
    }

    /// Cells for a cache that grows because it needs `wanted`: some more, so that a conversation does not pay for every
    /// turn, where memory has them in the place of the present cache.
    fn with_slack(&self, engine: &Engine, params: &CacheParams<'_>, wanted: usize, n_ubatch: usize) -> Result<usize> {
        let more = (wanted + wanted / SLACK).min(engine.model.n_ctx_train()).max(wanted);
        let available = Available {
            engine,
            context: params.context(more, n_ubatch),
            max_memory: params.max_memory,
            cancel: params.cancel,
            present: self.memory_usage(),
        };
        Ok(if available.holds(more)? { more } else { wanted })
    }

    /// Moves the cache to a context of another size. Returns false if its contents could not be moved: the cache is
    /// then empty.
    fn resize(&mut self, engine: &Engine, params: &CacheParams<'_>, learned: &mut Learned, size: Size) -> Result<bool> {
        // Free the old context before the new one is allocated: they need not fit at once.
        let prompt = std::mem::take(&mut self.prompt);
        let saved = match self.held.take() {
            Some(held) if !held.ledger.entries().is_empty() => Some(held.ledger.into_state()?),
            _ => None,
        };
        let context = first_that_is_made(size.n_ctx, size.least, |n_ctx| {
            let window = size.window.as_ref().map(|window| window.of(n_ctx));
            let context_params = ContextParams { window, ..params.context(n_ctx, size.n_ubatch) };
            Context::new(&engine.model, &context_params, &engine.adapters, params.cancel)
        })?;
        let bytes_per_cell = match &size.window {
            None => context.memory_usage().context / context.n_ctx().max(1) as u64,
            Some(_) => engine.cell_cost(&params.context(0, size.n_ubatch), params.cancel)?.kv_per_cell as u64,
        };
        if let Some(window) = size.window {
            // They are evicted already, but for the rows of the last batch.
            learned.choice = Some(Choice::Layers(window.layers));
        }
        let held = self.held.insert(Held { ledger: Ledger::new(context), bytes_per_cell });
        let Some((entries, state)) = saved else { return Ok(true) };
        if let Err(error) = held.ledger.restore(entries, &state) {
            tracing::debug!("{error}");
            return Ok(false);
        }
        self.prompt = prompt;
        Ok(true)
    }

    /// Evicts what waits for it: see [`Session::settle`](crate::chat::Session::settle).
    pub fn settle(
        &mut self,
        engine: &Engine,
        params: &CacheParams<'_>,
        learned: &mut Learned,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (Some(tail), Some(held)) = (self.prompt.tail.take(), &mut self.held) else { return Ok(()) };
        let ledger = &mut held.ledger;
        if !ledger.context().can_evict() && params.evict.mode.is_some() {
            observer.warning("this model has no KV cache that can be evicted layer by layer: it stays whole");
        }
        match evict::evict(ledger, learned, &tail, params) {
            Ok(0) => Ok(()),
            // Cells that became free are memory only when the cache is made smaller.
            Ok(_) if params.n_ctx.is_none() => {
                let n_ctx = ledger.cells_used() + params.n_predict;
                self.shrink(engine, params, learned, n_ctx)
            }
            Ok(_) => Ok(()),
            // Stopped, or failed: the next question can do it.
            Err(Error::Cancelled) => {
                self.prompt.tail = Some(tail);
                Err(Error::Cancelled)
            }
            Err(error) => {
                self.prompt.tail = Some(tail);
                observer.warning(&format!("the KV cache stays as it is: {error}"));
                Ok(())
            }
        }
    }

    /// Moves the cache to a smaller context in the middle of an answer, which cannot go on without what it answers.
    pub fn shrink(
        &mut self,
        engine: &Engine,
        params: &CacheParams<'_>,
        learned: &mut Learned,
        n_ctx: usize,
    ) -> Result<()> {
        let n_ubatch = self.n_ubatch(params);
        match self.resize(engine, params, learned, Size { n_ctx, least: n_ctx, n_ubatch, window: None })? {
            true => Ok(()),
            false => Err(Error::Llama {
                action: "making the KV cache smaller",
                reason: "its contents could not be moved; ask again".into(),
            }),
        }
    }

    /// Measures the visual tokens after an answer that was too short to evict anything.
    pub fn measure(&mut self, learned: &mut Learned) -> Result<()> {
        match &mut self.held {
            Some(held) if self.prompt.tail.is_some() => learned.measure(held.ledger.context_mut()),
            _ => Ok(()),
        }
    }

    /// The cache layer by layer; empty if there is none that can be looked into.
    pub fn layers(&self) -> Vec<KvLayer> {
        self.context().and_then(|context| context.kv_layers().ok()).unwrap_or_default()
    }

    /// The cache of a saved session, in a context that holds `state`.
    ///
    /// The inner error is for a state that does not go into it; its text says why.
    pub fn restore(
        engine: &Engine,
        params: &CacheParams<'_>,
        saved: SavedCache,
        state: &[u8],
    ) -> Result<std::result::Result<Self, String>> {
        let SavedCache { entries, tail, dense_rows, n_ctx } = saved;
        let mut cache = Self::default();
        if !state.is_empty() {
            let cells = SavedCells::read(&engine.model, params.compute, state);
            let with_cells = entries.iter().filter(|entry| entry.evicted != ledger::Evicted::FromAll);
            if !cells.is_some_and(|cells| cells.are_at(with_cells.map(|entry| entry.position[0]))) {
                return Ok(Err("it is damaged, or not that of the conversation".into()));
            }
            let size = Size { n_ctx, least: n_ctx, n_ubatch: params.compute.n_ubatch, window: None };
            cache.resize(engine, params, &mut Learned::default(), size)?;
            match cache.ledger()?.restore(entries, state) {
                Ok(()) => {}
                Err(Error::Llama { reason, .. }) => return Ok(Err(reason.trim().to_owned())),
                Err(error) => return Err(error),
            }
        }
        cache.prompt = Prompt { dense_rows, tail };
        Ok(Ok(cache))
    }

    /// The cache as it is now; all zero if there is none.
    pub fn report(&self, engine: &Engine, params: &CacheParams<'_>) -> Kv {
        let Some(Held { ledger, bytes_per_cell }) = &self.held else { return Kv::default() };
        let context = ledger.context();
        let (cells, bytes) = (context.n_ctx(), context.memory_usage().context);
        let layers = context.kv_layers().unwrap_or_default();
        let dense_cells = (self.prompt.dense_rows + params.n_predict).next_multiple_of(CELL_STEP).max(cells);
        // Recurrent layers have a state of a fixed size beside the cells.
        let cost = || engine.cell_cost(&params.context(0, context.n_ubatch()), params.cancel).ok();
        let with_state = engine.model.is_recurrent().then(cost).flatten();
        Kv {
            cells,
            cells_used: ledger.cells_used(),
            bytes,
            bytes_dense: with_state.map_or(bytes_per_cell * dense_cells as u64, |cost| cost.kv_bytes(dense_cells)),
            layers: engine.model.n_layer(),
            layers_fixed: layers.iter().filter(|layer| !layer.has_cells).count(),
            layers_evicted: layers.iter().filter(|layer| layer.evicted).count(),
            tokens_evicted: ledger.tokens_evicted(),
        }
    }
}

fn no_context() -> Error {
    Error::Llama { action: "computing", reason: "there is no context; please report this".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_has_to_do_where_there_is_not_more() {
        let up_to = |most: usize| {
            move |n: usize| match n <= most {
                true => Ok(n),
                false => Err(Error::Llama { action: "allocating the context", reason: "out of memory".into() }),
            }
        };
        assert_eq!(
            [300, 280, 260].map(|most| first_that_is_made(280, 260, up_to(most)).expect("it fits")),
            [280, 280, 260]
        );
        first_that_is_made(280, 260, up_to(250)).expect_err("not even what is wanted");
        first_that_is_made(260, 260, |_| Err::<(), _>(Error::Cancelled)).expect_err("stopped");
    }
}
