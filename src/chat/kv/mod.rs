//! The KV cache of a session: which rows it holds, and how it gets from one prompt to the next.

pub(super) mod evict;
pub(super) mod prefill;
pub(super) mod profile;
pub(super) mod trial;

use super::answer::Kv;
use super::engine::Engine;
use super::fit::{self, cost::CELL_STEP};
use super::params::SessionParams;
use super::prompt::plan::{Plan, PlannedRow, RowKey};
use super::video::{EncodedVideo, VideoId};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::{Context, ContextParams, KvLayer, KvWindow, MemoryUsage, Row, RowInput, SavedCells, Similarity};
use evict::{Choice, EvictMode, Evicted, Tail};
use prefill::{Batching, Inputs};
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;
use trial::{Moved, Text, Trial};

/// A context, and what is in its cache.
///
/// Every way back goes through [`go_back`](Self::go_back), so that rows, evictions and the context never tell different
/// things.
#[derive(Debug, Default)]
pub(super) struct KvState {
    context: Option<Context>,
    /// The rows in the cache, and those that were evicted from it.
    rows: Vec<PlannedRow>,
    /// What was evicted from `rows`, and what was measured of it.
    evicted: Evicted,
    /// The videos that `rows` are of, by their places in the conversation.
    videos: Vec<VideoId>,
    /// Rows that the last prompt would have had if nothing had been pruned.
    dense_rows: usize,
    /// Bytes of a cell in all layers, before anything is evicted.
    bytes_per_cell: u64,
}

/// A cache that grows gets an eighth more cells than are wanted. Moved whenever it is full, it copies each row nine
/// times in all, however long the conversation becomes.
const SLACK: usize = 8;

/// The size of a context.
#[derive(Debug)]
struct Size {
    /// Its cells.
    n_ctx: usize,
    /// Those that it cannot do without, if it cannot have so many.
    least: usize,
    /// Rows that are computed at once.
    n_ubatch: usize,
    window: Option<Window>,
}

/// Layers that visual tokens leave as soon as can be: a [`KvWindow`] of a context whose cells are still to be told.
#[derive(Debug)]
struct Window {
    layers: Vec<bool>,
    /// How many rows they have less than the context has cells.
    rows_less: usize,
}

impl Window {
    fn of(&self, n_ctx: usize) -> KvWindow {
        KvWindow { layers: self.layers.clone(), rows: n_ctx.saturating_sub(self.rows_less) }
    }
}

/// What `make` gives for `n`, or for `least` if there is not so much to be had.
fn first_that_is_made<T>(n: usize, least: usize, make: impl Fn(usize) -> Result<T>) -> Result<T> {
    match make(n) {
        Err(Error::Llama { reason, .. }) if least < n => {
            tracing::debug!("no context with {n} cells, so one with {least}: {reason}");
            make(least)
        }
        made => made,
    }
}

/// What a saved session holds of a cache: see [`KvState::restore`].
#[derive(Debug)]
pub(super) struct SavedKv {
    pub rows: Vec<PlannedRow>,
    pub evicted: Evicted,
    pub dense_rows: usize,
    /// Cells of the context.
    pub n_ctx: usize,
}

impl SavedKv {
    /// Cells that its rows take.
    pub fn cells_used(&self) -> usize {
        cells_used(&self.rows, &self.evicted)
    }

    /// Where its rows stand that did not leave all layers.
    fn positions(&self) -> impl Iterator<Item = i32> {
        let with_cells = self.rows.iter().enumerate().filter(|(index, _)| !self.evicted.rows.contains(index));
        with_cells.map(|(_, row)| row.position[0])
    }
}

impl KvState {
    /// What was in the cache, for looking at.
    pub fn rows(&self) -> &[PlannedRow] {
        &self.rows
    }

    /// What was evicted.
    pub fn evicted(&self) -> &Evicted {
        &self.evicted
    }

    pub fn dense_rows(&self) -> usize {
        self.dense_rows
    }

    fn context(&mut self) -> Result<&mut Context> {
        self.context.as_mut().ok_or_else(no_context)
    }

    /// Reads logits with `read`. A cache that gives no numbers is dropped, so that the next question computes it anew.
    pub fn read_logits<T>(&mut self, read: impl FnOnce(&mut Context) -> Result<T>) -> Result<T> {
        let result = read(self.context()?);
        if matches!(result, Err(Error::LogitsNotFinite)) {
            self.free();
        }
        result
    }

    /// Rows that are computed at once: as `params` say, or more, where the context has to take an image at once.
    pub fn n_ubatch(&self, params: &SessionParams) -> usize {
        self.context.as_ref().map_or(0, Context::n_ubatch).max(params.compute.n_ubatch)
    }

    /// Bytes that the context takes; all zero if there is none.
    pub fn memory_usage(&self) -> MemoryUsage {
        self.context.as_ref().map(Context::memory_usage).unwrap_or_default()
    }

    /// Cells and contents of the context; none if nothing is in it.
    pub fn state(&mut self) -> Result<Option<(usize, Vec<u8>)>> {
        match self.context.as_mut() {
            Some(context) if !self.rows.is_empty() => Ok(Some((context.n_ctx(), context.state()?))),
            _ => Ok(None),
        }
    }

    /// Frees the context. What was found out about evicting stays.
    pub fn free(&mut self) {
        self.context = None;
        self.forget_rows();
    }

    /// As [`free`](Self::free), and forgets what was found out about evicting.
    pub fn reset(&mut self) {
        self.free();
        self.evicted = Evicted::default();
    }

    /// The cache is empty.
    fn forget_rows(&mut self) {
        self.rows.clear();
        self.evicted.clear();
    }

    /// Takes the rows to be of these videos.
    pub fn adopt(&mut self, videos: &[Arc<EncodedVideo>]) {
        self.videos = videos.iter().map(|video| video.id).collect();
    }

    /// Whether nothing in the cache is of other videos than these.
    pub fn is_of(&self, videos: &[Arc<EncodedVideo>]) -> bool {
        self.videos.len() <= videos.len() && self.videos.iter().zip(videos).all(|(id, video)| *id == video.id)
    }

    /// Leaves what is of these videos, and what stands before it: another conversation may have other videos in the
    /// same places. What was found out about evicting was found out with the videos that go.
    pub fn keep_videos(&mut self, videos: &[Arc<EncodedVideo>]) {
        // What is in the cache may have been much larger.
        let frees = self.videos.first().is_some_and(|id| videos.first().is_none_or(|video| video.id != *id));
        self.change_videos(videos, frees);
    }

    /// As [`keep_videos`](Self::keep_videos), for videos that are looked at one after the other: no memory is freed.
    pub fn show_videos(&mut self, videos: &[Arc<EncodedVideo>]) {
        self.change_videos(videos, false);
    }

    fn change_videos(&mut self, videos: &[Arc<EncodedVideo>], frees: bool) {
        let same = self.videos.iter().zip(videos).take_while(|(id, video)| **id == video.id).count();
        if same < self.videos.len() {
            let is_stale = |row: &&PlannedRow| matches!(row.key, RowKey::Visual { video, .. } if video >= same);
            let first = self.rows.iter().find(is_stale).map(|row| row.position[0]);
            match first {
                // A layer that visual tokens left holds no others.
                Some(_) if frees || self.context.as_ref().is_some_and(has_evicted) => self.reset(),
                Some(position) => {
                    self.go_back(position);
                    (self.evicted.pending, self.evicted.calibrated) = (None, None);
                }
                None => {}
            }
        }
        self.adopt(videos);
    }

    /// Removes the rows at `position` and behind it, or all rows if the model cannot go back there.
    fn go_back(&mut self, position: i32) {
        let Some(context) = self.context.as_mut() else { return self.forget_rows() };
        if context.truncate(position) {
            let keep = self.rows.partition_point(|row| row.position[0] < position);
            self.evicted.truncate(keep);
            self.rows.truncate(keep);
        } else {
            context.clear();
            self.forget_rows();
        }
    }

    /// Removes the rows behind the first `n`, or all if the model cannot go back there.
    pub fn cut(&mut self, n: usize) {
        if let Some(next) = self.rows.get(n) {
            self.go_back(next.position[0]);
        }
    }

    /// Takes the images that `wanted` lacks out of the cache, where that leaves all other rows as they are: see
    /// [`holes`]. Returns how many rows went. What does not match behind them stays, for [`prefill`](Self::prefill).
    ///
    /// Rows behind a hole were computed when its rows were there, and keep what they took from them. So this is for
    /// video that goes on, where an image that is forgotten has been seen, and not for a conversation that is set
    /// anew.
    ///
    /// Does nothing where the model cannot (recurrent layers), or where something was evicted layer by layer.
    pub fn forget(&mut self, videos: &[Arc<EncodedVideo>], wanted: &[PlannedRow]) -> usize {
        self.keep_videos(videos);
        let Some(context) = self.context.as_mut() else { return 0 };
        if context.model().is_recurrent() || has_evicted(context) || !self.evicted.rows.is_empty() {
            return 0;
        }
        let holes = holes(&self.rows, wanted);
        for hole in &holes {
            let (first, last) = (self.rows[hole.start].position[0], self.rows[hole.end - 1].position[0]);
            if !context.remove(first, last + 1) {
                context.clear();
                self.forget_rows();
                return 0;
            }
        }
        for hole in holes.iter().rev() {
            self.rows.drain(hole.clone());
        }
        holes.iter().map(ExactSizeIterator::len).sum()
    }

    /// Cells that rows take: those of the rows that were not evicted from all layers.
    pub fn cells_used(&self) -> usize {
        cells_used(&self.rows, &self.evicted)
    }

    /// Whether another row has a cell.
    pub fn has_room(&self) -> bool {
        self.context.as_ref().is_some_and(|context| self.cells_used() < context.n_ctx())
    }

    /// Brings the cache from what it holds to `plan`, and computes the logits of its last row. Returns how many rows of
    /// the plan were there already.
    pub fn prefill(
        &mut self,
        engine: &Engine,
        params: &SessionParams,
        plan: &Plan,
        inputs: Inputs<'_>,
        observer: &mut dyn Observer,
    ) -> Result<usize> {
        self.keep_videos(inputs.videos);
        let keep = shared_rows(&self.rows, &plan.rows);
        self.make_room(engine, params, plan, keep)?;
        if let Some(next) = self.rows.get(keep) {
            self.go_back(next.position[0]);
        }
        // A new context may hold nothing of what was there, and a model may not be able to go back.
        let first = keep.min(self.rows.len());
        let how = (params.prefill, Batching::of(engine));
        if let Err(error) = prefill::prefill(self.context()?, plan, first, inputs, how, observer) {
            // Whole ubatches of this prompt may be in the cache.
            self.go_back(plan.rows[first].position[0]);
            return Err(error);
        }
        self.rows.extend_from_slice(&plan.rows[first..]);
        // What waits for eviction describes the prompt that was there before.
        let to_look_at = self.evicted.pending.is_some() || plan.rows[first..].iter().any(is_visual);
        self.evicted.pending =
            (to_look_at && params.evict_mode() != EvictMode::Off).then(|| Tail::of(plan, behind_images(&plan.rows)));
        self.dense_rows = plan.dense_rows;
        Ok(first)
    }

    /// Whether an eviction waits that would be told more by another question: see [`describe`](Self::describe).
    pub fn wants_description(&self, params: &SessionParams) -> bool {
        // A profile stands for all questions.
        self.evicted.pending.is_some() && self.looks(params) && params.layer_profile.is_none()
    }

    /// Gives the waiting eviction another question about the same images to try itself on, as far as `plan` is that.
    pub fn describe(&mut self, plan: &Plan) {
        let rows = &self.rows;
        if let Some(tail) = self.evicted.pending.as_mut() {
            let start = behind_images(&plan.rows);
            if rows.get(..start) == plan.rows.get(..start) {
                tail.describe = plan.rows[start..].to_vec();
            }
        }
    }

    /// Whether an eviction has to look at answers first.
    pub fn looks(&self, params: &SessionParams) -> bool {
        self.evicted.has_to_look(params.evict.threshold)
    }

    /// What hiding visual tokens from each of `sets` of layers does to the answer that the prefilled prompt calls for.
    /// `None` if there is nothing to evict, or if the model cannot go back. `on_set` is told when a set is done.
    pub fn effects(&mut self, sets: &[Vec<bool>], mut on_set: impl FnMut(usize)) -> Result<Option<Vec<Moved>>> {
        let Some(tail) = &self.evicted.pending else { return Ok(None) };
        let text = Text::unanswered(&tail.question);
        Trial::run(self.context()?, vec![text], |trial| {
            let mut found = Vec::with_capacity(sets.len());
            for (done, set) in sets.iter().enumerate() {
                let Some(moved) = trial.with(|context| context.hide_layers(set))? else { return Ok(None) };
                found.push(moved);
                on_set(done + 1);
            }
            Ok(Some(found))
        })
    }

    /// Which layers have cells that can be evicted.
    pub fn evictable_layers(&self) -> Result<Vec<bool>> {
        let context = self.context.as_ref().ok_or_else(no_context)?;
        if !context.can_evict() {
            return Ok(vec![false; context.model().n_layer()]);
        }
        Ok(context.kv_layers()?.iter().map(|layer| layer.has_cells).collect())
    }

    /// Feeds one token of an answer.
    pub fn push_token(&mut self, token: i32, position: i32) -> Result<()> {
        let row = PlannedRow { key: RowKey::Token(token), position: [position, 0, 0, 0] };
        let input = Row { input: RowInput::Token(token), position: row.position, logits: true };
        match self.context()?.process(&[input]) {
            Ok(()) => {
                self.rows.push(row);
                Ok(())
            }
            Err(error) => {
                self.go_back(position);
                Err(error)
            }
        }
    }

    /// Makes sure that there is a context with cells for the rows of `plan` and an answer, if `keep` rows of the cache
    /// stay, and with batches that are large enough for it.
    fn make_room(&mut self, engine: &Engine, params: &SessionParams, plan: &Plan, keep: usize) -> Result<()> {
        // Layers without visual tokens have no rows for them either: where a video has to be computed again, all is.
        if self.rows.iter().skip(keep).any(is_visual) && self.context.as_ref().is_some_and(has_evicted) {
            self.free();
        }
        let gone = self.evicted.among_first(keep);
        let wanted = params.n_ctx.unwrap_or(plan.rows.len() - gone.min(plan.rows.len()) + params.n_predict);
        // Of all of the prompt: a model may not be able to go back to where it parts from what is there.
        let at_once = plan.rows_at_once(engine);
        let is_enough = |context: &Context| {
            // One that was given its cells keeps them, however many a prompt wants: it was checked against them.
            let has_cells = params.n_ctx.is_some() || context.n_ctx() >= wanted;
            has_cells && context.n_ubatch() >= at_once
        };
        if self.context.as_ref().is_some_and(is_enough) {
            return Ok(());
        }
        let n_ubatch = params.compute.n_ubatch.max(at_once);
        let n_ctx = match self.context.as_ref().filter(|_| params.n_ctx.is_none()) {
            Some(context) if context.n_ctx() >= wanted => context.n_ctx(),
            Some(_) => self.with_slack(engine, params, wanted, n_ubatch)?,
            None => wanted,
        };
        // What is moved brings its layers along; a cache that begins empty can have them small from the beginning.
        let n_text = plan.rows.iter().filter(|row| !is_visual(row)).count();
        let window = params.early_layers().filter(|_| self.rows.is_empty()).map(|profile| Window {
            layers: evict::mark(profile.free_layers(), engine.model.n_layer()),
            // All but the visual tokens, and those of one batch.
            rows_less: (plan.rows.len() - n_text).saturating_sub(n_ubatch),
        });
        // What could not be moved is computed anew, from the embeddings that were kept.
        self.resize(engine, params, Size { n_ctx, least: wanted, n_ubatch, window }).map(|_| ())
    }

    /// Cells for a cache that grows because `wanted` are more than it has: some more than those, so that a conversation
    /// does not pay for every turn, where memory has room for them in the place of what the cache takes now.
    fn with_slack(&self, engine: &Engine, params: &SessionParams, wanted: usize, n_ubatch: usize) -> Result<usize> {
        let more = (wanted + wanted / SLACK).min(engine.model.n_ctx_train()).max(wanted);
        let fits = fit::holds_context(engine, params, self.memory_usage(), (more, n_ubatch))?;
        Ok(if fits { more } else { wanted })
    }

    /// Moves the cache to a context of another size. Returns false if its contents could not be moved: the cache is
    /// then empty.
    fn resize(&mut self, engine: &Engine, params: &SessionParams, size: Size) -> Result<bool> {
        let state = self.state()?.map(|(_, state)| state);
        // Free the old cache before the new one is allocated: they need not fit at once.
        self.context = None;
        let (rows, evicted) = (take(&mut self.rows), take(&mut self.evicted));
        // What was found out about evicting holds for any cache.
        self.evicted.calibrated.clone_from(&evicted.calibrated);
        if let Some(window) = &size.window {
            // They are evicted already, but for the rows of the last batch.
            self.evicted.calibrated = Some(Choice::Layers(window.layers.clone()));
        }
        let mut context = first_that_is_made(size.n_ctx, size.least, |n_ctx| {
            let window = size.window.as_ref().map(|window| window.of(n_ctx));
            let context_params = ContextParams { window, ..params.context(n_ctx, size.n_ubatch) };
            Context::new(&engine.model, &context_params, &engine.adapters, &params.cancel)
        })?;
        self.bytes_per_cell = match size.window {
            None => context.memory_usage().context / context.n_ctx().max(1) as u64,
            Some(_) => engine.cell_cost(params, size.n_ubatch)?.kv_per_cell as u64,
        };
        let moved = state.map(|state| context.set_state(&state));
        self.context = Some(context);
        match moved {
            Some(Ok(())) => (self.rows, self.evicted) = (rows, evicted),
            Some(Err(error)) => {
                tracing::debug!("{error}");
                return Ok(false);
            }
            None => {}
        }
        Ok(true)
    }

    /// Evicts what waits for it: see [`Session::settle`](super::Session::settle).
    pub fn settle(&mut self, engine: &Engine, params: &SessionParams, observer: &mut dyn Observer) -> Result<()> {
        let Some(tail) = self.evicted.pending.as_ref() else { return Ok(()) };
        let Some(context) = self.context.as_mut() else { return Ok(()) };
        if !context.can_evict() && params.evict.mode.is_some() {
            observer.warning("this model has no KV cache that can be evicted layer by layer: it stays whole");
        }
        // The answer stands behind the question, and both at the end of the cache.
        let answer = tail.question.last().map_or(0, |row| row.position[0] + 1);
        let answer = self.rows.iter().rposition(|row| row.position[0] < answer).map_or(0, |last| last + 1);
        let (mode, profile) = (params.evict_mode(), params.layer_profile.as_deref());
        match self.evicted.evict(mode, params.evict.threshold, profile, context, (&self.rows, answer)) {
            Ok(0) => Ok(()),
            // Cells that became free are memory only when the cache is made smaller.
            Ok(_) if params.n_ctx.is_none() => self.shrink(engine, params, self.cells_used() + params.n_predict),
            Ok(_) => Ok(()),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                observer.warning(&format!("the KV cache stays as it is: {error}"));
                Ok(())
            }
        }
    }

    /// Moves the cache to a smaller context in the middle of an answer, which cannot go on without what it answers.
    fn shrink(&mut self, engine: &Engine, params: &SessionParams, n_ctx: usize) -> Result<()> {
        let n_ubatch = self.n_ubatch(params);
        match self.resize(engine, params, Size { n_ctx, least: n_ctx, n_ubatch, window: None })? {
            true => Ok(()),
            false => Err(Error::Llama {
                action: "making the KV cache smaller",
                reason: "its contents could not be moved; ask again".into(),
            }),
        }
    }

    /// Measures the visual tokens behind an answer after which nothing was evicted yet, for looking at.
    pub fn measure(&mut self) -> Result<()> {
        match self.context.as_mut().filter(|_| self.evicted.pending.is_some()) {
            Some(context) => self.evicted.measure(context),
            None => Ok(()),
        }
    }

    /// The cache layer by layer; empty if there is none that can be looked into.
    pub fn layers(&self) -> Vec<KvLayer> {
        self.context.as_ref().and_then(|context| context.kv_layers().ok()).unwrap_or_default()
    }

    /// The curve as it was measured last.
    pub fn similarity(&self) -> &Similarity {
        &self.evicted.similarity
    }

    /// The cache of a saved session, in a context that holds `state`.
    ///
    /// The inner error is for a state that does not go into it; its text says why.
    pub fn restore(
        engine: &Engine,
        params: &SessionParams,
        saved: SavedKv,
        state: &[u8],
    ) -> Result<std::result::Result<Self, String>> {
        let mut kv = Self { dense_rows: saved.dense_rows, ..Self::default() };
        if state.is_empty() {
            kv.evicted = saved.evicted;
            return Ok(Ok(kv));
        }
        let cells = SavedCells::read(&engine.model, &params.compute, state);
        if !cells.is_some_and(|cells| cells.are_at(saved.positions())) {
            return Ok(Err("it is damaged, or not that of the conversation".into()));
        }
        let (n_ctx, n_ubatch) = (saved.n_ctx, params.compute.n_ubatch);
        kv.resize(engine, params, Size { n_ctx, least: n_ctx, n_ubatch, window: None })?;
        let context = kv.context()?;
        match context.set_state(state) {
            Ok(()) => {}
            Err(Error::Llama { reason, .. }) => return Ok(Err(reason.trim().to_owned())),
            Err(error) => return Err(error),
        }
        (kv.rows, kv.evicted) = (saved.rows, saved.evicted);
        Ok(Ok(kv))
    }

    /// The cache as it is now; all zero if there is none.
    pub fn report(&self, engine: &Engine, params: &SessionParams) -> Kv {
        let Some(context) = &self.context else { return Kv::default() };
        let (cells, bytes) = (context.n_ctx(), context.memory_usage().context);
        let layers = context.kv_layers().unwrap_or_default();
        let dense_cells = (self.dense_rows + params.n_predict).next_multiple_of(CELL_STEP).max(cells);
        // Recurrent layers have a state of a fixed size beside the cells.
        let cost = || engine.cell_cost(params, context.n_ubatch()).ok();
        let with_state = engine.model.is_recurrent().then(cost).flatten();
        Kv {
            cells,
            cells_used: self.cells_used(),
            bytes,
            bytes_dense: with_state.map_or(self.bytes_per_cell * dense_cells as u64, |cost| cost.kv_bytes(dense_cells)),
            layers: engine.model.n_layer(),
            layers_fixed: layers.iter().filter(|layer| !layer.has_cells).count(),
            layers_evicted: layers.iter().filter(|layer| layer.evicted).count(),
            tokens_evicted: self.evicted.rows.len(),
        }
    }
}

fn cells_used(rows: &[PlannedRow], evicted: &Evicted) -> usize {
    rows.len().saturating_sub(evicted.rows.len())
}

fn has_evicted(context: &Context) -> bool {
    context.kv_layers().is_ok_and(|layers| layers.iter().any(|layer| layer.evicted))
}

fn is_visual(row: &PlannedRow) -> bool {
    matches!(row.key, RowKey::Visual { .. } | RowKey::Newline)
}

/// Where the rows behind the last visual token begin.
fn behind_images(rows: &[PlannedRow]) -> usize {
    rows.iter().rposition(is_visual).map_or(0, |last| last + 1)
}

/// How many rows at the start of the cache can stay for `wanted`. At least one row of `wanted` is left to compute, for
/// its logits.
fn shared_rows(cached: &[PlannedRow], wanted: &[PlannedRow]) -> usize {
    let equal = cached.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let mut keep = equal.min(wanted.len().saturating_sub(1));
    // The cache is cut by position, and under M-RoPE the rows of an image share theirs: cut before the image.
    let starts_behind = |keep: usize, next: &PlannedRow| wanted[keep - 1].position[0] >= next.position[0];
    while keep > 0 && [cached.get(keep), wanted.get(keep)].into_iter().flatten().any(|next| starts_behind(keep, next)) {
        keep -= 1;
    }
    keep
}

/// The runs of `cached` rows that `wanted` lacks, ascending, while all rows around them are the same at the same
/// positions. Each run holds a visual token: what is text alone is no image that was forgotten.
///
/// Rows are removed by position, so that no row that stays may have a position within a run; under M-RoPE, slices of
/// one block may share theirs. There are no holes then.
fn holes(cached: &[PlannedRow], wanted: &[PlannedRow]) -> Vec<Range<usize>> {
    let (mut holes, mut next, mut place) = (Vec::new(), 0, 0);
    while let Some(row) = wanted.get(next) {
        let start = place;
        while cached.get(place).is_some_and(|cached| cached != row && cached.position[0] < row.position[0]) {
            place += 1;
        }
        if cached.get(place) != Some(row) {
            // The run that just ended may be the end of the cache, or what was said there.
            place = if cached[start..place].iter().any(is_visual) { place } else { start };
            holes.push(start..place);
            break;
        }
        holes.push(start..place);
        (next, place) = (next + 1, place + 1);
    }
    holes.retain(|hole| !hole.is_empty());
    let is_apart = |hole: &Range<usize>| {
        let (first, last) = (cached[hole.start].position[0], cached[hole.end - 1].position[0]);
        let within = |row: &PlannedRow| (first..=last).contains(&row.position[0]);
        let (before, behind) = (&cached[..hole.start], &cached[hole.end..]);
        cached[hole.clone()].is_sorted_by_key(|row| row.position[0])
            && cached[hole.clone()].iter().any(is_visual)
            && !before.iter().chain(behind).any(within)
    };
    if holes.iter().all(is_apart) { holes } else { Vec::new() }
}

fn no_context() -> Error {
    Error::Llama { action: "computing", reason: "there is no context; please report this".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Session;
    use crate::models::ModelFiles;
    use std::path::Path;

    fn text(token: i32, position: i32) -> PlannedRow {
        PlannedRow { key: RowKey::Token(token), position: [position, 0, 0, 0] }
    }

    fn visual(kept: usize, position: i32) -> PlannedRow {
        PlannedRow { key: RowKey::Visual { video: 0, slice: 0, kept }, position: [position, 0, 0, 0] }
    }

    #[test]
    fn a_longer_prompt_keeps_what_it_shares() {
        let cached = [text(1, 0), text(2, 1), text(3, 2)];
        assert_eq!(shared_rows(&cached, &[text(1, 0), text(2, 1), text(3, 2), text(4, 3)]), 3);
        assert_eq!(shared_rows(&cached, &[text(1, 0), text(9, 1), text(3, 2)]), 1);
        assert_eq!(shared_rows(&[], &cached), 0);
    }

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

    #[test]
    fn the_same_prompt_computes_its_last_row_again() {
        let rows = [text(1, 0), text(2, 1)];
        assert_eq!(shared_rows(&rows, &rows), 1);
    }

    #[test]
    fn rows_that_share_a_position_are_not_parted() {
        // M-RoPE: three visual tokens at position 1; the prompts part at the third of them.
        let cached = [text(1, 0), visual(0, 1), visual(1, 1), visual(2, 1), text(2, 3)];
        let wanted = [text(1, 0), visual(0, 1), visual(1, 1), text(7, 3), text(8, 4)];
        assert_eq!(shared_rows(&cached, &wanted), 1);
    }

    fn slice(slice: usize, kept: usize, position: i32) -> PlannedRow {
        PlannedRow { key: RowKey::Visual { video: 0, slice, kept }, position: [position, 0, 0, 0] }
    }

    /// Where the holes begin and end.
    fn ends(cached: &[PlannedRow], wanted: &[PlannedRow]) -> Vec<(usize, usize)> {
        holes(cached, wanted).into_iter().map(|hole| (hole.start, hole.end)).collect()
    }

    #[test]
    fn an_image_that_is_not_wanted_any_more_is_a_hole() {
        let cached = [text(1, 0), text(7, 1), slice(0, 0, 2), slice(0, 1, 4), text(7, 6), slice(1, 0, 7), text(7, 9)];
        // Another image follows where text was: what is behind does not match, and that is no hole.
        let wanted = [text(1, 0), text(7, 6), slice(1, 0, 7), text(7, 9), slice(2, 0, 10)];
        assert_eq!(ends(&cached, &wanted), [(1, 4)]);
        let all = [text(1, 0), text(7, 9), slice(2, 0, 10)];
        assert_eq!(ends(&cached, &all), [(1, 6)]);
        assert!(holes(&cached, &cached).is_empty());
        assert!(holes(&cached, &[]).is_empty() && holes(&[], &cached).is_empty());
    }

    #[test]
    fn two_images_that_are_apart_are_two_holes() {
        let cached = [text(1, 0), slice(0, 0, 2), text(7, 6), slice(1, 0, 7), text(7, 9), slice(2, 0, 10)];
        let wanted = [text(1, 0), text(7, 6), text(7, 9), slice(2, 0, 10), text(8, 12)];
        assert_eq!(ends(&cached, &wanted), [(1, 2), (3, 4)]);
    }

    #[test]
    fn what_was_said_is_no_hole() {
        let cached = [text(1, 0), slice(0, 0, 2), text(3, 6), text(4, 7), text(5, 8)];
        let wanted = [text(1, 0), slice(0, 0, 2), text(5, 8), slice(1, 0, 9)];
        assert!(holes(&cached, &wanted).is_empty());
        // Another token at the place of one.
        assert!(holes(&cached, &[text(2, 0), slice(0, 0, 2)]).is_empty());
    }

    #[test]
    fn an_image_that_shares_its_position_is_no_hole() {
        // M-RoPE: two slices of a block at the same moment, of which the first goes.
        let cached = [text(1, 0), slice(0, 0, 1), slice(0, 1, 1), slice(1, 0, 1), text(7, 9)];
        let wanted = [text(1, 0), slice(1, 0, 1), text(7, 9)];
        assert!(holes(&cached, &wanted).is_empty());
        let later = [text(1, 0), slice(0, 0, 1), slice(0, 1, 1), slice(1, 0, 2), text(7, 9)];
        assert_eq!(ends(&later, &[text(1, 0), slice(1, 0, 2), text(7, 9)]), [(1, 3)]);
    }

    fn family(name: &str) -> ModelFiles {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
        ModelFiles {
            name: name.into(),
            model: folder.join(format!("{name}.gguf")),
            mmproj: Some(folder.join(format!("{name}-mmproj.gguf"))),
            lora: Vec::new(),
        }
    }

    /// A session about six frames that differ.
    fn session(family_name: &str) -> Session {
        let mut frames = crate::video::Frames::new(128, 128);
        for frame in 0..6_usize {
            let rgb: Vec<u8> = (0..3 * 128 * 128).map(|i| (i * (frame + 3) / 7 + 40 * frame) as u8).collect();
            frames.push(rgb, frame as f64).expect("a frame");
        }
        let evict = super::evict::EvictParams::off();
        let files = family(family_name);
        let builder = Session::builder(&files).n_predict(4);
        let mut session = builder.prune(crate::prune::PruneParams::off()).evict(evict).open().expect("it opens");
        let options = crate::chat::VideoOptions { fps: Some(1.0), ..Default::default() };
        session.add_frames("frames", &frames, &options, &mut ()).expect("the frames are encoded");
        session
    }

    /// The logits of the question, behind a cache that holds the frames, of which the rows of the slices `gone` left.
    fn logits(session: &mut Session, gone: &[usize], leave: impl FnOnce(&mut Session, &[PlannedRow])) -> Vec<f32> {
        session.first_logits("What?", &mut ()).expect("all frames");
        let video = session.conversation.videos.first_mut().map(Arc::make_mut).expect("a video");
        for &slice in gone {
            (video.slices[slice].kept, video.slices[slice].rows) = Default::default();
        }
        let message = session.user_message("What else?");
        let plan = session.plan(&message).expect("a plan");
        leave(session, &plan.rows);
        session.first_logits("What else?", &mut ()).expect("the frames that are left")
    }

    #[test]
    fn what_is_forgotten_leaves_the_rest_as_it_was() {
        for name in ["smolvlm", "internvl", "llava-onevision", "minicpmv", "gemma3", "qwen2vl", "qwen2.5vl", "qwen3vl"]
        {
            let mut ours = session(name);
            let n_slices = ours.conversation.videos[0].slices.len();
            let gone = if n_slices == 6 { vec![1, 2, 4] } else { vec![1] };
            let is_gone = |row: &PlannedRow| matches!(row.key, RowKey::Visual { slice, .. } if gone.contains(&slice));
            let mut left = 0;
            let found = logits(&mut ours, &gone, |session, wanted| {
                let before = session.kv.rows().len();
                let videos = session.conversation.videos.clone();
                left = session.kv.forget(&videos, wanted);
                assert_eq!(before - left, session.kv.rows().len(), "{name}");
                assert!(!session.kv.rows().iter().any(is_gone), "{name}");
            });
            assert!(left > 0, "{name}");

            // By hand: row by row, and what the plan has no room for is left out of the prefill by name.
            let mut theirs = session(name);
            let expected = logits(&mut theirs, &gone, |session, wanted| {
                let rows = session.kv.rows().to_vec();
                for row in
                    rows.iter().take_while(|row| wanted.last().is_some_and(|last| row.position[0] < last.position[0]))
                {
                    let is_wanted = wanted.iter().any(|wanted| wanted.position == row.position);
                    let shares = wanted.iter().any(|wanted| wanted.position[0] == row.position[0]);
                    assert_eq!(is_wanted, shares, "{name}: rows of one position leave together");
                    if !shares {
                        assert!(session.kv.context().expect("a context").remove(row.position[0], row.position[0] + 1));
                    }
                }
                session.kv.rows.retain(|row| wanted.iter().any(|wanted| wanted.position == row.position));
            });
            assert_eq!(found, expected, "{name}");

            // And it is not the same as if the frames had never been there, nor as if they were still.
            let mut anew = session(name);
            let without = logits(&mut anew, &gone, |session, _| session.free_cache());
            assert_ne!(found, without, "{name}: two layers know what left");
            let mut all = session(name);
            assert_ne!(found, logits(&mut all, &[], |_, _| ()), "{name}");
        }
    }

    #[test]
    fn a_cache_that_cannot_be_moved_ends_the_answer_and_is_computed_anew() {
        let mut session = Session::builder(&family("smolvlm")).n_predict(4).open().expect("the fixture opens");
        let question = "Why? ".repeat(100);
        session.ask(&question, &mut ()).expect("an answer");
        assert!(session.kv.cells_used() > 256);
        // llama.cpp makes contexts of 256 cells at least.
        let error = session.kv.shrink(&session.engine, &session.params, 1).expect_err("it does not go in");
        assert!(error.to_string().contains("could not be moved"), "{error}");
        assert_eq!(session.kv.cells_used(), 0);
        let again = session.ask("And now?", &mut ()).expect("the prompt is computed anew");
        assert_eq!(again.tokens.prompt, again.tokens.prompt_computed);
    }
}
