//! The ledger: a context, and one entry for each row that was computed in it.
//!
//! [`extend`](Ledger::extend), [`cut`](Ledger::cut), [`remove`](Ledger::remove), [`evict_layers`](Ledger::evict_layers)
//! and [`evict_tokens`](Ledger::evict_tokens) are the only ways to change the rows of a context. Each changes the
//! entries with the cells, so the two never disagree. Everything else (cells in use, what a prompt shares with the
//! cache, what a saved session holds) is derived from the entries.
//!
//! Not every model can remove its last rows. [`cut`](Ledger::cut) then goes back to the nearest
//! [checkpoint](super::checkpoints), and the caller sees by the entries what has to be computed again.

use super::checkpoints::{After, Checkpoint, Checkpoints};
use crate::chat::encoded::{EncodedVideo, VideoId};
use crate::chat::engine::checkpoints::{free_bytes, usual_budget};
use crate::chat::rows::{PlannedRow, RowKey};
use crate::error::{Error, Result};
use crate::runtime::{Context, Position, Row, Token};
use std::ops::Range;
use std::sync::Arc;

/// What a row in the cache is. It names a video by its id: the index of a video in one conversation means nothing in
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::chat) enum Key {
    Token(Token),
    Visual { video: VideoId, slice: usize, kept: usize },
    Newline,
}

impl Key {
    /// The key of a row of a prompt about `videos`; `None` if the row refers to a video that is not among them.
    fn of(key: RowKey, videos: &[Arc<EncodedVideo>]) -> Option<Self> {
        Some(match key {
            RowKey::Token(token) => Self::Token(token),
            RowKey::Visual { video, slice, kept } => Self::Visual { video: videos.get(video)?.id, slice, kept },
            RowKey::Newline => Self::Newline,
        })
    }

    fn is_visual(self) -> bool {
        !matches!(self, Self::Token(_))
    }

    fn video(self) -> Option<VideoId> {
        match self {
            Self::Visual { video, .. } => Some(video),
            _ => None,
        }
    }
}

/// Where the keys and values of a row were evicted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::chat) enum Evicted {
    No,
    /// From the layers that the context holds without visual tokens. Its cell is in use.
    FromLayers,
    /// From all layers: it has no cell.
    FromAll,
}

/// One row that was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::chat) struct Entry {
    pub key: Key,
    pub position: Position,
    pub evicted: Evicted,
}

impl Entry {
    /// The entry of a row of a prompt about `videos`, which is not evicted.
    pub fn of(row: &PlannedRow, videos: &[Arc<EncodedVideo>]) -> Result<Self> {
        let key = Key::of(row.key, videos).ok_or_else(|| internal("a row is of no video of the conversation"))?;
        Ok(Self { key, position: row.position, evicted: Evicted::No })
    }

    /// The entry of a token of an answer.
    pub fn of_token(token: Token, position: i32) -> Self {
        Self { key: Key::Token(token), position: [position, 0, 0, 0], evicted: Evicted::No }
    }

    /// Whether `row`, of a prompt about `videos`, has the same keys and values if all rows before it do.
    pub fn is_row(&self, row: &PlannedRow, videos: &[Arc<EncodedVideo>]) -> bool {
        self.position == row.position && Key::of(row.key, videos) == Some(self.key)
    }

    /// The row of a prompt about `videos`; `None` if its video is not among them.
    pub fn row(&self, videos: &[Arc<EncodedVideo>]) -> Option<PlannedRow> {
        let key = match self.key {
            Key::Token(token) => RowKey::Token(token),
            Key::Visual { video: id, slice, kept } => {
                RowKey::Visual { video: videos.iter().position(|video| video.id == id)?, slice, kept }
            }
            Key::Newline => RowKey::Newline,
        };
        Some(PlannedRow { key, position: self.position })
    }

    pub fn is_visual(&self) -> bool {
        self.key.is_visual()
    }

    fn has_cell(&self) -> bool {
        self.evicted != Evicted::FromAll
    }
}

/// A context, and an entry for each of its rows in the order in which they were computed: see [the module](self).
#[derive(Debug)]
pub(in crate::chat) struct Ledger {
    context: Context,
    entries: Vec<Entry>,
    checkpoints: Checkpoints,
}

/// What a context held, for a context of another size.
#[derive(Debug)]
pub(in crate::chat) struct Moved {
    entries: Vec<Entry>,
    state: Vec<u8>,
    checkpoints: Checkpoints,
}

impl Ledger {
    /// Makes the ledger of an empty context.
    pub fn new(context: Context) -> Self {
        Self { context, entries: Vec::new(), checkpoints: Checkpoints::default() }
    }

    /// Takes what the context holds, for a context of another size. Frees this context.
    pub fn into_moved(mut self) -> Result<Moved> {
        let state = self.context.state()?;
        Ok(Moved { entries: self.entries, state, checkpoints: self.checkpoints })
    }

    /// Puts in what another context held. The context is empty, and stays so if that fails.
    ///
    /// # Errors
    /// As [`Context::set_state`].
    pub fn put(&mut self, moved: Moved) -> Result<()> {
        self.restore(moved.entries, &moved.state)?;
        self.checkpoints = moved.checkpoints;
        Ok(())
    }

    /// Adds `checkpoints` out of a file, as far as they can be of this context.
    pub fn restore_checkpoints(&mut self, checkpoints: Vec<Checkpoint>) {
        for checkpoint in checkpoints {
            let last = self.entries.get(checkpoint.rows.wrapping_sub(1)).map(|entry| entry.position[0]);
            if last.is_some_and(|position| self.context.can_be_checkpoint(&checkpoint.state, position)) {
                self.checkpoints.add(checkpoint);
            }
        }
    }

    /// Restores `entries` and the `state` of their cells in the context, which is empty. If that fails, the ledger
    /// stays empty.
    ///
    /// # Errors
    /// As [`Context::set_state`].
    pub fn restore(&mut self, entries: Vec<Entry>, state: &[u8]) -> Result<()> {
        self.context.set_state(state)?;
        self.entries = entries;
        self.mark_layers();
        Ok(())
    }

    /// The state of the cells.
    pub fn state(&mut self) -> Result<Vec<u8>> {
        self.context.state()
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The context, for work that does not change its rows: logits, measurements, trials in a sequence of their own.
    pub fn context_mut(&mut self) -> &mut Context {
        &mut self.context
    }

    /// Computes `rows` as one batch; `entries` says what they are. If that fails, the rows of the batch that were
    /// computed are removed again.
    pub fn extend(&mut self, entries: &[Entry], rows: &[Row<'_>]) -> Result<()> {
        debug_assert_eq!(entries.len(), rows.len());
        let Some(first) = entries.first() else { return Ok(()) };
        if let Err(error) = self.context.process(rows) {
            self.cut_at(first.position[0]);
            return Err(error);
        }
        let layers_evicted = self.has_evicted_layers();
        self.entries.extend(entries.iter().map(|entry| match entry.is_visual() && layers_evicted {
            true => Entry { evicted: Evicted::FromLayers, ..*entry },
            false => *entry,
        }));
        Ok(())
    }

    /// Keeps the first `n` rows and removes the others. If the model cannot remove its last rows, keeps those before
    /// the nearest checkpoint, or none.
    pub fn cut(&mut self, n: usize) {
        if let Some(entry) = self.entries.get(n) {
            self.cut_at(entry.position[0]);
        }
    }

    /// Removes the rows from `position` on, and more if the model can go back only to a checkpoint.
    fn cut_at(&mut self, position: i32) {
        let n = self.entries.partition_point(|entry| entry.position[0] < position);
        if self.context.truncate(position) {
            self.entries.truncate(n);
            self.checkpoints.truncate(n);
        } else {
            self.go_back(n, position);
        }
    }

    /// Goes back to the last checkpoint among the first `n` rows. `position` is that of the row after them.
    fn go_back(&mut self, n: usize, position: i32) {
        let Some(checkpoint) = self.checkpoints.last_before(n) else { return self.clear() };
        let rows = checkpoint.rows;
        let next = self.entries.get(rows).map_or(position, |entry| entry.position[0]);
        if self.context.go_back(0, &checkpoint.state, next) {
            self.entries.truncate(rows);
            self.checkpoints.truncate(rows);
        } else {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.context.clear();
        self.entries.clear();
        self.checkpoints = Checkpoints::default();
    }

    /// Makes a checkpoint after the rows so far. Drops older ones to stay within `limit` bytes, or within what is usual
    /// and free. Returns false if not even one fits, or if it cannot be made.
    pub fn mark(&mut self, after: After, limit: Option<u64>) -> bool {
        let rows = self.entries.len();
        if rows == 0 || self.checkpoints.at(rows).is_some() {
            return true;
        }
        let made = self.context.checkpoint_bytes().map(|size| size as u64).and_then(|size| {
            let budget = limit.unwrap_or(usual_budget(size)).min(self.checkpoints.bytes() + free_bytes());
            match self.checkpoints.make_room(size, after, budget) {
                true => self.context.checkpoint().map(Some),
                false => Ok(None),
            }
        });
        match made {
            Ok(Some(state)) => self.checkpoints.add(Checkpoint { rows, after, state }),
            Ok(None) => {}
            Err(error) => tracing::debug!("{error}"),
        }
        !self.checkpoints.all().is_empty()
    }

    /// Where the model can go back to, if it cannot remove its last rows.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// The context, for trials in a sequence of their own, with the checkpoint after the rows before `position`.
    pub fn for_trial(&mut self, position: i32) -> (&mut Context, Option<&[u8]>) {
        let rows = self.entries.partition_point(|entry| entry.position[0] < position);
        (&mut self.context, self.checkpoints.at(rows))
    }

    /// Removes `runs` of rows, ascending, and changes no other row. Returns how many rows it removed. Rows after a run
    /// attended to it when they were computed, and are not recomputed.
    ///
    /// No row outside a run may have a position within it. Removes nothing if the model has recurrent layers or if
    /// visual tokens were evicted, and all rows if the context fails to remove a run.
    pub fn remove(&mut self, runs: &[Range<usize>]) -> usize {
        let is_whole = self.entries.iter().all(|entry| entry.evicted == Evicted::No) && !self.has_evicted_layers();
        if self.context.model().is_recurrent() || !is_whole {
            return 0;
        }
        for run in runs {
            let (first, last) = (self.entries[run.start].position[0], self.entries[run.end - 1].position[0]);
            if !self.context.remove(first, last + 1) {
                self.clear();
                return 0;
            }
        }
        for run in runs.iter().rev() {
            self.entries.drain(run.clone());
        }
        // Later checkpoints have the removed rows in them.
        self.checkpoints.truncate(runs.first().map_or(usize::MAX, |run| run.start));
        runs.iter().map(ExactSizeIterator::len).sum()
    }

    /// Evicts all visual tokens from the marked layers, `[n_layer]`.
    pub fn evict_layers(&mut self, layers: &[bool]) -> Result<()> {
        self.context.evict_layers(layers)?;
        self.mark_layers();
        Ok(())
    }

    /// Marks the visual tokens with cells, if the context holds layers without them.
    fn mark_layers(&mut self) {
        if self.has_evicted_layers() {
            let visual = self.entries.iter_mut().filter(|entry| entry.is_visual() && entry.has_cell());
            visual.for_each(|entry| entry.evicted = Evicted::FromLayers);
        }
    }

    /// Evicts the visual tokens of less similarity than `threshold` from all layers. Returns how many it evicted.
    pub fn evict_tokens(&mut self, threshold: f32) -> Result<usize> {
        // The indices count only rows with cells.
        let evicted = self.context.evict_tokens(threshold)?;
        let mut with_cells: Vec<&mut Entry> = self.entries.iter_mut().filter(|entry| entry.has_cell()).collect();
        for &row in &evicted {
            let entry = with_cells.get_mut(row).ok_or_else(|| internal("a cell has no entry"))?;
            entry.evicted = Evicted::FromAll;
        }
        Ok(evicted.len())
    }

    /// Keeps the rows before the first row of a video that is not in `videos`.
    pub fn cut_others(&mut self, videos: &[Arc<EncodedVideo>]) {
        self.cut(self.entries.iter().position(|entry| is_foreign(entry, videos)).unwrap_or(self.entries.len()));
    }

    /// Cells in use: those of the rows that were not evicted from all layers.
    pub fn cells_used(&self) -> usize {
        cells(&self.entries)
    }

    /// Visual tokens that were evicted from all layers.
    pub fn tokens_evicted(&self) -> usize {
        self.entries.len() - self.cells_used()
    }

    /// Whether the context has a free cell.
    pub fn has_free_cell(&self) -> bool {
        self.cells_used() < self.context.n_ctx()
    }

    /// Whether the context holds layers without visual tokens.
    pub fn has_evicted_layers(&self) -> bool {
        self.context.kv_layers().is_ok_and(|layers| layers.iter().any(|layer| layer.evicted))
    }

    /// Whether any row belongs to a video that is not in `videos`.
    pub fn is_of_others(&self, videos: &[Arc<EncodedVideo>]) -> bool {
        self.entries.iter().any(|entry| is_foreign(entry, videos))
    }

    /// Whether the first visual token belongs to a video that is not in `videos`.
    pub fn begins_with_others(&self, videos: &[Arc<EncodedVideo>]) -> bool {
        self.entries.iter().find(|entry| entry.key.video().is_some()).is_some_and(|entry| is_foreign(entry, videos))
    }
}

/// The number of cells that `entries` use.
pub(in crate::chat) fn cells(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| entry.has_cell()).count()
}

fn is_foreign(entry: &Entry, videos: &[Arc<EncodedVideo>]) -> bool {
    entry.key.video().is_some_and(|id| videos.iter().all(|video| video.id != id))
}

fn internal(what: &str) -> Error {
    Error::Llama { action: "keeping the KV cache in step", reason: format!("{what}; please report this") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{
        CancelToken, ComputeParams, ContextParams, FlashAttention, KvType, Model, ModelParams, RowInput, SavedCells,
    };
    use proptest::prelude::*;
    use std::path::Path;

    /// What is done to a ledger.
    #[derive(Debug, Clone)]
    enum Step {
        /// Computes rows, visual where marked, so many positions after the last.
        Extend {
            visual: Vec<bool>,
            gap: i32,
        },
        /// Keeps this share of the rows, in percent.
        Cut(usize),
        /// Removes rows: from this share of them on, in percent, so many.
        Remove(usize, usize),
        EvictLayers(Vec<bool>),
        EvictTokens(f32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (prop::collection::vec(any::<bool>(), 1..6), 0..4)
                .prop_map(|(visual, gap)| Step::Extend { visual, gap }),
            2 => (0..=100_usize).prop_map(Step::Cut),
            2 => (0..100_usize, 1..4_usize).prop_map(|(at, n)| Step::Remove(at, n)),
            1 => prop::collection::vec(any::<bool>(), 2..8).prop_map(Step::EvictLayers),
            1 => (0.0..1.1_f32).prop_map(Step::EvictTokens),
        ]
    }

    /// The rows as a list that nothing else knows of.
    #[derive(Debug, Default)]
    struct Naive {
        rows: Vec<(i32, bool, Evicted)>,
        layers: Vec<bool>,
    }

    impl Naive {
        fn evicts_layers(&self) -> bool {
            self.layers.contains(&true)
        }

        fn is_whole(&self) -> bool {
            !self.evicts_layers() && self.rows.iter().all(|row| row.2 == Evicted::No)
        }
    }

    fn context(model: &Model) -> Context {
        let params = ContextParams { n_ctx: 256, evictable: true, ..ContextParams::default() };
        Context::new(model, &params, &[], &CancelToken::new()).expect("a context")
    }

    /// The entries are those of the list, and the cells of llama.cpp those of the entries.
    fn check(ledger: &mut Ledger, naive: &Naive, model: &Model) {
        let found: Vec<_> = ledger.entries().iter().map(|e| (e.position[0], e.is_visual(), e.evicted)).collect();
        assert_eq!(found, naive.rows);
        let with_cells: Vec<i32> = naive.rows.iter().filter(|row| row.2 != Evicted::FromAll).map(|row| row.0).collect();
        assert_eq!(ledger.cells_used(), with_cells.len());
        assert_eq!(ledger.context().last_position(), with_cells.iter().max().copied());
        let compute = ledger.context().params().compute.clone();
        let state = ledger.state().expect("a state");
        let cells = SavedCells::read(model, &compute, &state).expect("it is read");
        assert!(cells.are_at(with_cells.iter().copied()), "{naive:?}");
        for (il, layer) in ledger.context().kv_layers().expect("layers").iter().enumerate() {
            let evicted = naive.layers.get(il).copied().unwrap_or(false);
            assert_eq!(layer.evicted, evicted, "layer {il}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// Whatever is done to it, a ledger is in step with a list of rows and with llama.cpp's cells.
        #[test]
        fn a_ledger_knows_the_cells(steps in prop::collection::vec(step(), 1..24)) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama.gguf");
            let model = Model::load(&path, &ModelParams::default(), |_| {}).expect("a fixture loads");
            let embedding: Vec<f32> = (0..model.n_embd_inp()).map(|i| (i as f32).sin()).collect();
            let mut ledger = Ledger::new(context(&model));
            let mut naive = Naive::default();
            for step in steps {
                match step {
                    Step::Extend { visual, gap } => {
                        let first = naive.rows.last().map_or(0, |row| row.0 + 1 + gap);
                        let position = |i: usize| [first + i as i32, 0, 0, 0];
                        let key = |visual: bool| if visual { Key::Newline } else { Key::Token(1) };
                        let entries: Vec<Entry> = visual.iter().enumerate()
                            .map(|(i, &v)| Entry { key: key(v), position: position(i), evicted: Evicted::No }).collect();
                        let input = |v| if v { RowInput::Embedding(&embedding[..]) } else { RowInput::Token(1) };
                        let rows: Vec<Row<'_>> = visual.iter().enumerate()
                            .map(|(i, &v)| Row { input: input(v), position: position(i), logits: false }).collect();
                        ledger.extend(&entries, &rows).expect("there are cells");
                        let evicted = |v| if v && naive.evicts_layers() { Evicted::FromLayers } else { Evicted::No };
                        let new: Vec<_> = visual.iter().enumerate().map(|(i, &v)| (position(i)[0], v, evicted(v))).collect();
                        naive.rows.extend(new);
                    }
                    Step::Cut(percent) => {
                        let n = naive.rows.len() * percent / 100;
                        ledger.cut(n);
                        naive.rows.truncate(n);
                    }
                    Step::Remove(percent, n) => {
                        let start = naive.rows.len() * percent / 100;
                        let end = (start + n).min(naive.rows.len());
                        if start < end {
                            let removed = ledger.remove(std::slice::from_ref(&(start..end)));
                            prop_assert_eq!(removed, if naive.is_whole() { end - start } else { 0 });
                            if removed > 0 {
                                naive.rows.drain(start..end);
                            }
                        }
                    }
                    Step::EvictLayers(mut layers) => {
                        layers.resize(model.n_layer(), false);
                        // One layer has to keep its visual tokens.
                        layers[0] = false;
                        let has_tokens = naive.rows.iter().any(|row| row.1 && row.2 != Evicted::FromAll);
                        let tokens_gone = naive.rows.iter().any(|row| row.2 == Evicted::FromAll);
                        if !has_tokens || tokens_gone || naive.evicts_layers() || !layers.contains(&true) {
                            continue;
                        }
                        ledger.evict_layers(&layers).expect("it evicts");
                        naive.layers = layers;
                        naive.rows.iter_mut().filter(|row| row.1).for_each(|row| row.2 = Evicted::FromLayers);
                    }
                    Step::EvictTokens(threshold) => {
                        if naive.evicts_layers() || !naive.rows.iter().any(|row| row.1) {
                            continue;
                        }
                        let before = ledger.tokens_evicted();
                        ledger.context_mut().similarity().expect("it is measured");
                        let n = ledger.evict_tokens(threshold).expect("it evicts");
                        prop_assert_eq!(ledger.tokens_evicted(), before + n);
                        // Which tokens go is the context's choice; that they are visual and without cells is checked.
                        for (row, entry) in naive.rows.iter_mut().zip(ledger.entries()) {
                            prop_assert!(entry.evicted == Evicted::No || row.1);
                            row.2 = entry.evicted;
                        }
                    }
                }
                check(&mut ledger, &naive, &model);
            }
        }
    }

    /// What is done to the ledger of a model with recurrent layers.
    #[derive(Debug, Clone)]
    enum Hybrid {
        Extend(usize),
        Mark,
        Cut(usize),
        /// Moves to another context.
        Move,
    }

    fn hybrid() -> impl Strategy<Value = Hybrid> {
        prop_oneof![
            4 => (1..6_usize).prop_map(Hybrid::Extend),
            3 => Just(Hybrid::Mark),
            2 => (0..=100_usize).prop_map(Hybrid::Cut),
            1 => Just(Hybrid::Move),
        ]
    }

    /// Computes tokens that all differ, as one batch, and returns the last logits.
    fn extend(ledger: &mut Ledger, tokens: &[i32]) -> Vec<f32> {
        let first = ledger.entries().len() as i32;
        let entries: Vec<Entry> = (first..).zip(tokens).map(|(at, &token)| Entry::of_token(token, at)).collect();
        let rows: Vec<Row<'_>> = entries
            .iter()
            .zip(tokens)
            .enumerate()
            .map(|(i, (entry, &token))| Row {
                input: RowInput::Token(token),
                position: entry.position,
                logits: i + 1 == tokens.len(),
            })
            .collect();
        ledger.extend(&entries, &rows).expect("there are cells");
        ledger.context_mut().logits().expect("logits").to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        /// A model with recurrent layers goes back to the nearest checkpoint, and then computes what a model computes
        /// that never saw what was cut.
        #[test]
        fn a_hybrid_goes_back_to_its_checkpoints(steps in prop::collection::vec(hybrid(), 1..24)) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lfm2.gguf");
            let model = Model::load(&path, &ModelParams::default(), |_| {}).expect("a fixture loads");
            let mut ledger = Ledger::new(context(&model));
            // The batches so far, and how many rows had a checkpoint.
            let (mut batches, mut marks): (Vec<Vec<i32>>, Vec<usize>) = (Vec::new(), Vec::new());
            let mut next_token = 0;
            for step in steps {
                let n: usize = batches.iter().map(Vec::len).sum();
                match step {
                    Hybrid::Extend(n) => {
                        let tokens: Vec<i32> = (0..n as i32).map(|i| 1 + (next_token + i) % 200).collect();
                        next_token += n as i32;
                        let found = extend(&mut ledger, &tokens);
                        batches.push(tokens);
                        let mut anew = Ledger::new(context(&model));
                        let expected = batches.iter().map(|batch| extend(&mut anew, batch)).last();
                        prop_assert_eq!(Some(found), expected, "{:?}", batches);
                    }
                    Hybrid::Mark => {
                        prop_assert!(ledger.mark(After::Turn, None));
                        if n > 0 && !marks.contains(&n) {
                            marks.push(n);
                        }
                        // As many as are usually kept, the oldest first to go.
                        if marks.len() > 8 {
                            marks.remove(0);
                        }
                    }
                    Hybrid::Cut(percent) => {
                        let to = n * percent / 100;
                        ledger.cut(to);
                        if to < n {
                            marks.retain(|mark| *mark <= to);
                            let left = marks.last().copied().unwrap_or(0);
                            while batches.iter().map(Vec::len).sum::<usize>() > left {
                                batches.pop();
                            }
                        }
                    }
                    Hybrid::Move => {
                        let moved = ledger.into_moved().expect("a state");
                        ledger = Ledger::new(context(&model));
                        if !batches.is_empty() {
                            ledger.put(moved).expect("it fits");
                        }
                    }
                }
                let n: usize = batches.iter().map(Vec::len).sum();
                prop_assert_eq!(ledger.entries().len(), n);
                prop_assert_eq!(ledger.context().last_position(), n.checked_sub(1).map(|last| last as i32));
                let found: Vec<usize> = ledger.checkpoints().all().iter().map(|checkpoint| checkpoint.rows).collect();
                prop_assert_eq!(&found, &marks);
            }
        }
    }

    #[test]
    fn a_limit_leaves_room_for_as_many_checkpoints() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lfm2.gguf");
        let model = Model::load(&path, &ModelParams::default(), |_| {}).expect("a fixture loads");
        let mut ledger = Ledger::new(context(&model));
        extend(&mut ledger, &[1, 2, 3]);
        let size = ledger.context().checkpoint_bytes().expect("a size") as u64;
        assert!(size > 0 && size < ledger.context().recurrent_bytes() + 200, "{size}");
        assert!(!ledger.mark(After::Video, Some(size - 1)), "not even one fits");
        assert!(ledger.mark(After::Video, Some(2 * size)));
        for token in 4..9 {
            extend(&mut ledger, &[token]);
            assert!(ledger.mark(After::Turn, Some(2 * size)));
            assert_eq!(ledger.checkpoints().all().len(), 2, "the video's and the last turn's");
            assert_eq!(ledger.checkpoints().bytes(), 2 * size);
        }
        assert_eq!(ledger.checkpoints().all()[0].rows, 3);
    }

    /// A sliding window forgets the rows that have left it. They are back after going back.
    #[test]
    fn a_window_that_was_overwritten_comes_back() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gemma3.gguf");
        let model = Model::load(&path, &ModelParams::default(), |_| {}).expect("a fixture loads");
        let open = |full_windows| {
            // The rows are in other cells, so sums have another order.
            let compute = ComputeParams {
                n_ubatch: 16,
                type_k: KvType::F32,
                type_v: KvType::F32,
                flash_attention: FlashAttention::Off,
                ..ComputeParams::default()
            };
            let params =
                ContextParams { n_ctx: 1024, compute, evictable: true, full_windows, ..ContextParams::default() };
            Ledger::new(Context::new(&model, &params, &[], &CancelToken::new()).expect("a context"))
        };
        let (mut full, mut small) = (open(true), open(false));
        assert!(small.context().memory_usage().context < full.context().memory_usage().context);
        assert!(small.context().needs_checkpoints() && !full.context().needs_checkpoints());
        let batch = |n: usize| -> Vec<i32> { (0..16).map(|i| 1 + (16 * n as i32 + i) % 200).collect() };
        let agree = |small: &mut Ledger, full: &mut Ledger, n: usize| {
            let (found, expected) = (extend(small, &batch(n)), extend(full, &batch(n)));
            let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Of logits that spread over more than ten: products round to 16 bits in each of twelve layers.
            assert!(far < 0.05, "{n}: {far}");
        };
        (0..6).for_each(|n| agree(&mut small, &mut full, n));
        assert!(small.mark(After::Video, None));
        // Long enough that nothing of the window is left.
        (6..46).for_each(|n| agree(&mut small, &mut full, n));
        for ledger in [&mut small, &mut full] {
            ledger.cut(100);
        }
        assert_eq!((small.entries().len(), full.entries().len()), (96, 100));
        full.cut(96);
        (7..10).for_each(|n| agree(&mut small, &mut full, n));
        // Other rows within the window make another answer, so this test tells something.
        full.cut(96);
        let last = extend(&mut full, &batch(9));
        let far = extend(&mut small, &batch(9)).iter().zip(&last).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far > 0.5, "{far}");
    }
}
