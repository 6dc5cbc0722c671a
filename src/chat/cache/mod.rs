//! The KV cache of a conversation: the rows that it holds, and how it changes from one prompt to the next.
//!
//! The [`ledger`] owns the context and knows its rows. A [`Cache`] fills a ledger with a prompt, in a context of the
//! size that the prompt requires, and makes [`checkpoints`] where later prompts will go on. [`evict`] decides what is
//! removed after the prefill. What it learns for that, [`Learned`], belongs to the session.

pub(in crate::chat) mod checkpoints;
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
use checkpoints::Checkpoint;
use evict::{Choice, EvictMode, Tail};
use ledger::{Entry, Ledger};
use prefill::{Batching, Inputs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trial::{Difference, Text, Trial};

/// The size and the use of the KV cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kv {
    /// Cells allocated. A cell holds the keys and values of one row in all layers.
    pub cells: usize,
    /// Cells in use after this turn.
    pub cells_used: usize,
    /// Bytes allocated.
    pub bytes: u64,
    /// Bytes that would be allocated without pruning and eviction.
    pub bytes_dense: u64,
    /// The part of `bytes` that holds the states of recurrent layers, whatever the number of cells; 0 without such
    /// layers.
    #[serde(default)]
    pub bytes_state: u64,
    /// Copies of the state from which the next question can go on, for models that cannot remove the last rows of their
    /// cache. They are in system memory.
    #[serde(default)]
    pub checkpoints: usize,
    /// Bytes of these copies.
    #[serde(default)]
    pub bytes_checkpoints: u64,
    /// Layers of the model.
    pub layers: usize,
    /// Layers from which nothing can be evicted: recurrent layers and layers with a sliding window. Zero if eviction is
    /// off.
    pub layers_fixed: usize,
    /// Layers from which visual tokens were evicted.
    pub layers_evicted: usize,
    /// Visual tokens that were evicted from all layers.
    pub tokens_evicted: usize,
}

/// A context with its rows, and what is known of the prompt that was prefilled last.
#[derive(Debug, Default)]
pub(in crate::chat) struct Cache {
    held: Option<Held>,
    prompt: Prompt,
    /// The user was warned that memory holds no checkpoint.
    warned: bool,
}

/// A context with its rows, and the size of its cells.
#[derive(Debug)]
struct Held {
    ledger: Ledger,
    /// Bytes of a cell in all layers, before eviction.
    bytes_per_cell: u64,
}

/// What is known of the prompt that was prefilled last.
#[derive(Debug, Default)]
struct Prompt {
    /// The rows that it would have without pruning.
    dense_rows: usize,
    /// The rows after its last image, until visual tokens are evicted.
    tail: Option<Tail>,
}

/// A cache that grows gets an eighth more cells than it needs. Moving it whenever it is full then copies each row nine
/// times on average, however long the conversation becomes.
const SLACK: usize = 8;

/// The size of a context.
#[derive(Debug)]
struct Size {
    /// The cells to allocate.
    n_ctx: usize,
    /// The cells to allocate if `n_ctx` cells do not fit in memory.
    least: usize,
    /// Rows of a ubatch.
    n_ubatch: usize,
    window: Option<Window>,
}

/// Layers that hold visual tokens only for the batch that computes them: a [`KvWindow`] of a context whose size is not
/// decided yet.
#[derive(Debug)]
struct Window {
    layers: Vec<bool>,
    /// How many rows fewer these layers have than the context has cells.
    rows_less: usize,
}

impl Window {
    fn of(&self, n_ctx: usize) -> KvWindow {
        KvWindow { layers: self.layers.clone(), rows: n_ctx.saturating_sub(self.rows_less) }
    }
}

/// Returns what `make` returns for `n`, or for `least` if `n` cells cannot be allocated.
fn first_that_is_made<T>(n: usize, least: usize, make: impl Fn(usize) -> Result<T>) -> Result<T> {
    match make(n) {
        Err(Error::Llama { reason, .. }) if least < n => {
            tracing::debug!("allocating {least} cells, because {n} cannot be allocated: {reason}");
            make(least)
        }
        made => made,
    }
}

/// The part of a saved session that restores a cache.
#[derive(Debug)]
pub(in crate::chat) struct SavedCache {
    pub entries: Vec<Entry>,
    pub checkpoints: Vec<Checkpoint>,
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

    /// The rows that the last prompt would have without pruning.
    pub fn dense_rows(&self) -> usize {
        self.prompt.dense_rows
    }

    /// The rows after the last image, if an eviction is pending.
    pub fn tail(&self) -> Option<&Tail> {
        self.prompt.tail.as_ref()
    }

    fn ledger(&mut self) -> Result<&mut Ledger> {
        self.held.as_mut().map(|held| &mut held.ledger).ok_or_else(no_context)
    }

    fn context(&self) -> Option<&Context> {
        self.held.as_ref().map(|held| held.ledger.context())
    }

    /// Reads logits with `read`. If they are not finite, frees the cache, so that the next question recomputes it.
    pub fn read_logits<T>(&mut self, read: impl FnOnce(&mut Context) -> Result<T>) -> Result<T> {
        let result = read(self.ledger()?.context_mut());
        if matches!(result, Err(Error::LogitsNotFinite)) {
            self.free();
        }
        result
    }

    /// Rows of a ubatch: the number in `params`, or more if the model requires an image in one batch.
    pub fn n_ubatch(&self, params: &CacheParams<'_>) -> usize {
        self.context().map_or(0, Context::n_ubatch).max(params.compute.n_ubatch)
    }

    /// The memory of the context in bytes; zero if there is none.
    pub fn memory_usage(&self) -> MemoryUsage {
        self.context().map(Context::memory_usage).unwrap_or_default()
    }

    /// The number of cells and the state of the context; `None` if it has no rows.
    pub fn state(&mut self) -> Result<Option<(usize, Vec<u8>)>> {
        match &mut self.held {
            Some(held) if !held.ledger.entries().is_empty() => {
                Ok(Some((held.ledger.context().n_ctx(), held.ledger.state()?)))
            }
            _ => Ok(None),
        }
    }

    /// Where the model can go back to, if it cannot remove its last rows.
    pub fn checkpoints(&self) -> &[Checkpoint] {
        self.held.as_ref().map_or(&[], |held| held.ledger.checkpoints().all())
    }

    /// Frees the context.
    pub fn free(&mut self) {
        *self = Self { warned: self.warned, ..Self::default() };
    }

    /// Whether any row belongs to a video that is not in `videos`.
    pub fn is_of_others(&self, videos: &[Arc<EncodedVideo>]) -> bool {
        self.held.as_ref().is_some_and(|held| held.ledger.is_of_others(videos))
    }

    /// Keeps the first `n` rows, or none if the model cannot remove its last rows.
    pub fn cut(&mut self, n: usize) {
        if let Some(held) = &mut self.held {
            held.ledger.cut(n);
        }
    }

    /// Removes the rows from the first visual token on. The context keeps its size, for another arrangement of the same
    /// slices.
    pub fn cut_before_visual(&mut self) {
        self.cut(self.entries().iter().position(Entry::is_visual).unwrap_or(self.entries().len()));
    }

    /// Whether the cache begins with `rows`, of a prompt about `videos`.
    pub fn begins_with(&self, rows: &[PlannedRow], videos: &[Arc<EncodedVideo>]) -> bool {
        let entries = self.entries();
        entries.len() >= rows.len() && entries.iter().zip(rows).all(|(entry, row)| entry.is_row(row, videos))
    }

    /// Removes the images that the prompt of `rows` lacks, if no other row has to change. Returns how many rows it
    /// removed. Later rows that differ stay, and [`prefill`](Self::prefill) replaces them.
    ///
    /// Rows after a removed image attended to it when they were computed, and are not recomputed. Live video, which
    /// evicts frames as it goes on, accepts that; a conversation that is replaced must not.
    pub fn forget(&mut self, rows: &[PlannedRow], videos: &[Arc<EncodedVideo>]) -> usize {
        let Some(held) = &mut self.held else { return 0 };
        let runs = compare::lacked(held.ledger.entries(), rows, videos);
        held.ledger.remove(&runs)
    }

    /// Cells in use: one for each row that was not evicted from all layers.
    #[cfg(test)]
    pub fn cells_used(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.ledger.cells_used())
    }

    /// Removes `runs` of rows, ascending: see [`Ledger::remove`].
    #[cfg(test)]
    pub fn remove(&mut self, runs: &[std::ops::Range<usize>]) -> usize {
        self.held.as_mut().map_or(0, |held| held.ledger.remove(runs))
    }

    /// Whether there is a free cell.
    pub fn has_free_cell(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.ledger.has_free_cell())
    }

    /// Makes the cache hold `plan`, and computes the logits of its last row. Returns how many rows of the plan were in
    /// the cache already.
    pub fn prefill(
        &mut self,
        engine: &Engine,
        params: &CacheParams<'_>,
        learned: &mut Learned,
        plan: &Plan,
        inputs: Inputs<'_>,
        observer: &mut dyn Observer,
    ) -> Result<usize> {
        self.drop_other_videos(inputs.videos, learned);
        let keep = compare::shared(self.entries(), &plan.rows, inputs.videos);
        self.resize_for(engine, params, learned, plan, keep)?;
        let ledger = self.ledger()?;
        ledger.cut(keep);
        // Fewer rows may be left: a new context can be empty, and some models cannot remove their last rows.
        let first = keep.min(ledger.entries().len());
        let how = (params.prefill, Batching::of(engine));
        let marks = match ledger.context().needs_checkpoints() && params.checkpoint_memory != Some(0) {
            true => checkpoints::places(plan),
            false => Vec::new(),
        };
        let ends = marks.iter().map(|&(rows, after)| (rows, Some(after))).chain([(plan.rows.len(), None)]);
        let (mut from, mut all_marked) = (first, true);
        for (end, after) in ends.filter(|(end, _)| *end >= first) {
            if let Err(error) = prefill::prefill(ledger, plan, (first, from, end), inputs, how, observer) {
                // Some ubatches with visual tokens may be computed already, and no eviction is pending for them.
                ledger.cut(first);
                return Err(error);
            }
            from = end;
            all_marked &= after.is_none_or(|after| ledger.mark(after, params.checkpoint_memory));
        }
        if !all_marked && !self.warned {
            self.warned = true;
            observer.warning(
                "memory holds no copy of this model's state: the next question computes the whole prompt again",
            );
        }
        // The pending eviction was for the previous prompt.
        let waits = self.prompt.tail.is_some() || plan.rows[first..].iter().any(PlannedRow::is_visual);
        self.prompt = Prompt {
            dense_rows: plan.dense_rows,
            tail: (waits && params.mode != EvictMode::Off).then(|| Tail::of(plan, after_visual(&plan.rows))),
        };
        Ok(first)
    }

    /// Removes the rows of videos that are not in `videos`, and forgets what was learned about evicting with them.
    pub fn drop_other_videos(&mut self, videos: &[Arc<EncodedVideo>], learned: &mut Learned) {
        let Some(held) = &mut self.held else { return };
        if !held.ledger.is_of_others(videos) {
            return;
        }
        // A cache that another video filled may be much larger than this one requires.
        if held.ledger.begins_with_others(videos) || held.ledger.has_evicted_layers() {
            self.free();
        } else {
            held.ledger.cut_others(videos);
            self.prompt.tail = None;
        }
        learned.forget();
    }

    /// Whether an eviction is pending whose calibration requires a second question: see [`describe`](Self::describe).
    pub fn needs_description(&self, params: &CacheParams<'_>, learned: &Learned) -> bool {
        // A profile holds for all questions.
        self.prompt.tail.is_some() && learned.has_to_calibrate(params.evict.threshold) && params.profile.is_none()
    }

    /// Adds `plan` to the pending eviction as a second question to calibrate with, if it is about the same images.
    pub fn describe(&mut self, plan: &Plan, videos: &[Arc<EncodedVideo>]) {
        let start = after_visual(&plan.rows);
        if self.begins_with(&plan.rows[..start], videos)
            && let Some(tail) = self.prompt.tail.as_mut()
        {
            tail.describe = plan.rows[start..].to_vec();
        }
    }

    /// Measures how hiding visual tokens from each of `sets` of layers changes the answer to the prefilled prompt.
    /// Calls `on_set` with the number of finished sets. Returns `None` if nothing is there to evict, or if the model
    /// cannot remove its last rows.
    pub fn effects(&mut self, sets: &[Vec<bool>], mut on_set: impl FnMut(usize)) -> Result<Option<Vec<Difference>>> {
        let Some(tail) = &self.prompt.tail else { return Ok(None) };
        let (text, start) = (Text::unanswered(&tail.question), tail.start());
        Trial::run(self.ledger()?.for_trial(start), vec![text], |trial| {
            let mut found = Vec::with_capacity(sets.len());
            for (done, set) in sets.iter().enumerate() {
                let Some(difference) = trial.with(|context| context.hide_layers(set))? else { return Ok(None) };
                found.push(difference);
                on_set(done + 1);
            }
            Ok(Some(found))
        })
    }

    /// Whether each layer has cells that can be evicted, `[n_layer]`.
    pub fn evictable_layers(&self) -> Result<Vec<bool>> {
        let context = self.context().ok_or_else(no_context)?;
        if !context.can_evict() {
            return Ok(vec![false; context.model().n_layer()]);
        }
        Ok(context.kv_layers()?.iter().map(|layer| layer.has_cells).collect())
    }

    /// Decodes one token of an answer.
    pub fn decode(&mut self, token: i32, position: i32) -> Result<()> {
        let entry = Entry::of_token(token, position);
        let row = Row { input: RowInput::Token(token), position: entry.position, logits: true };
        self.ledger()?.extend(&[entry], &[row])
    }

    /// Makes the context large enough: cells for the rows of `plan` and an answer if `keep` rows of the cache stay, and
    /// ubatches for the plan's images.
    fn resize_for(
        &mut self,
        engine: &Engine,
        params: &CacheParams<'_>,
        learned: &mut Learned,
        plan: &Plan,
        keep: usize,
    ) -> Result<()> {
        // Evicted layers have no cells for visual tokens. If visual tokens must be recomputed, so must all rows.
        let recomputes = self.entries()[keep..].iter().any(Entry::is_visual);
        if recomputes && self.held.as_ref().is_some_and(|held| held.ledger.has_evicted_layers()) {
            self.free();
        }
        let kept = &self.entries()[..keep.min(self.entries().len())];
        let evicted = kept.len() - ledger::cells(kept);
        let wanted = params.n_ctx.unwrap_or(plan.rows.len() - evicted.min(plan.rows.len()) + params.n_predict);
        // Counts the whole prompt: some models cannot keep the rows that it shares with the cache.
        let at_once = plan.rows_at_once(engine);
        let is_enough = |context: &Context| {
            // A fixed number of cells stays: the prompt was checked against it.
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
        // A context that is moved keeps its layers as they are; an empty one can have small layers from the start.
        let n_text = plan.rows.iter().filter(|row| !row.is_visual()).count();
        let window = params.early_layers().filter(|_| self.entries().is_empty()).map(|profile| Window {
            layers: evict::mark(profile.free_layers(), engine.model.n_layer()),
            // The window has rows for the text and for one ubatch.
            rows_less: (plan.rows.len() - n_text).saturating_sub(n_ubatch),
        });
        // Rows that could not be moved are recomputed from the embeddings.
        self.resize(engine, params, learned, Size { n_ctx, least: wanted, n_ubatch, window }).map(|_| ())
    }

    /// The number of cells for a cache that grows to `wanted`: an eighth more, so that it is not moved in every turn,
    /// if they fit in memory once the present cache is freed.
    fn with_slack(&self, engine: &Engine, params: &CacheParams<'_>, wanted: usize, n_ubatch: usize) -> Result<usize> {
        let more = (wanted + wanted / SLACK).min(engine.model.n_ctx_train()).max(wanted);
        let available = Available {
            engine,
            context: params.context(more, n_ubatch),
            max_memory: params.max_memory,
            checkpoint_memory: params.checkpoint_memory,
            cancel: params.cancel,
            present: self.memory_usage(),
        };
        Ok(if available.holds(more)? { more } else { wanted })
    }

    /// Moves the cache to a context of another size. Returns false if its state could not be moved; the cache is then
    /// empty.
    fn resize(&mut self, engine: &Engine, params: &CacheParams<'_>, learned: &mut Learned, size: Size) -> Result<bool> {
        // Free the old context before allocating the new one, so that both need not fit in memory at once.
        let prompt = std::mem::take(&mut self.prompt);
        let saved = match self.held.take() {
            Some(held) if !held.ledger.entries().is_empty() => Some(held.ledger.into_moved()?),
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
            // These layers are evicted already, but for the rows of the last ubatch.
            learned.choice = Some(Choice::Layers(window.layers));
        }
        let held = self.held.insert(Held { ledger: Ledger::new(context), bytes_per_cell });
        let Some(moved) = saved else { return Ok(true) };
        if let Err(error) = held.ledger.put(moved) {
            tracing::debug!("{error}");
            return Ok(false);
        }
        self.prompt = prompt;
        Ok(true)
    }

    /// Carries out the pending eviction: see [`Session::settle`](crate::chat::Session::settle).
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
            observer.warning("nothing is evicted: the KV cache of this model cannot be evicted layer by layer");
        }
        match evict::evict(ledger, learned, &tail, params) {
            Ok(0) => Ok(()),
            // Moving to a smaller context returns the memory of the free cells.
            Ok(_) if params.n_ctx.is_none() => {
                let n_ctx = ledger.cells_used() + params.n_predict;
                self.shrink(engine, params, learned, n_ctx)
            }
            Ok(_) => Ok(()),
            // The eviction stays pending if it was cancelled or failed.
            Err(Error::Cancelled) => {
                self.prompt.tail = Some(tail);
                Err(Error::Cancelled)
            }
            Err(error) => {
                self.prompt.tail = Some(tail);
                observer.warning(&format!("nothing was evicted from the KV cache: {error}"));
                Ok(())
            }
        }
    }

    /// Moves the cache to a smaller context during an answer.
    ///
    /// # Errors
    /// [`Error::Llama`] if the state could not be moved: the answer cannot go on without its prompt.
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
                reason: "its state could not be moved; ask again".into(),
            }),
        }
    }

    /// Measures the similarity of the visual tokens after an answer that was too short to evict.
    pub fn measure(&mut self, learned: &mut Learned) -> Result<()> {
        match &mut self.held {
            Some(held) if self.prompt.tail.is_some() => learned.measure(held.ledger.context_mut()),
            _ => Ok(()),
        }
    }

    /// The cache layer by layer; empty if there is no cache, or if it cannot be inspected.
    pub fn layers(&self) -> Vec<KvLayer> {
        self.context().and_then(|context| context.kv_layers().ok()).unwrap_or_default()
    }

    /// Restores the cache of a saved session, in a new context with `state`.
    ///
    /// The inner error says why the state cannot be restored.
    pub fn restore(
        engine: &Engine,
        params: &CacheParams<'_>,
        saved: SavedCache,
        state: &[u8],
    ) -> Result<std::result::Result<Self, String>> {
        let SavedCache { entries, checkpoints, tail, dense_rows, n_ctx } = saved;
        let mut cache = Self::default();
        if !state.is_empty() {
            let cells = SavedCells::read(&engine.model, params.compute, state);
            let with_cells = entries.iter().filter(|entry| entry.evicted != ledger::Evicted::FromAll);
            if !cells.is_some_and(|cells| cells.are_at(with_cells.map(|entry| entry.position[0]))) {
                return Ok(Err("it is damaged, or belongs to another conversation".into()));
            }
            let size = Size { n_ctx, least: n_ctx, n_ubatch: params.compute.n_ubatch, window: None };
            cache.resize(engine, params, &mut Learned::default(), size)?;
            let ledger = cache.ledger()?;
            match ledger.restore(entries, state) {
                Ok(()) => ledger.restore_checkpoints(checkpoints),
                Err(Error::Llama { reason, .. }) => return Ok(Err(reason.trim().to_owned())),
                Err(error) => return Err(error),
            }
        }
        cache.prompt = Prompt { dense_rows, tail };
        Ok(Ok(cache))
    }

    /// The size and the use of the cache; all zero if there is none.
    pub fn report(&self, engine: &Engine, params: &CacheParams<'_>) -> Kv {
        let Some(Held { ledger, bytes_per_cell }) = &self.held else { return Kv::default() };
        let context = ledger.context();
        let (cells, bytes) = (context.n_ctx(), context.memory_usage().context);
        let layers = context.kv_layers().unwrap_or_default();
        let dense_cells = (self.prompt.dense_rows + params.n_predict).next_multiple_of(CELL_STEP).max(cells);
        // Recurrent layers have a state of a fixed size in addition to the cells.
        let cost = || engine.cell_cost(&params.context(0, context.n_ubatch()), params.cancel).ok();
        let with_state = engine.model.is_recurrent().then(cost).flatten();
        Kv {
            cells,
            cells_used: ledger.cells_used(),
            bytes,
            bytes_dense: with_state.map_or(bytes_per_cell * dense_cells as u64, |cost| cost.kv_bytes(dense_cells)),
            bytes_state: context.recurrent_bytes(),
            checkpoints: ledger.checkpoints().all().len(),
            bytes_checkpoints: ledger.checkpoints().bytes(),
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
