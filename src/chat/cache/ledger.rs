//! The ledger: a context, and one entry for each row that was computed in it.
//!
//! [`extend`](Ledger::extend), [`cut`](Ledger::cut), [`remove`](Ledger::remove), [`evict_layers`](Ledger::evict_layers)
//! and [`evict_tokens`](Ledger::evict_tokens) are the only ways to change the rows of a context. Each changes the
//! entries with the cells, so the two never disagree. Everything else (cells in use, what a prompt shares with the
//! cache, what a saved session holds) is derived from the entries.

use crate::chat::encoded::{EncodedVideo, VideoId};
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
}

impl Ledger {
    /// Makes the ledger of an empty context.
    pub fn new(context: Context) -> Self {
        Self { context, entries: Vec::new() }
    }

    /// Returns the entries with the state of their cells, for a context of another size. Frees this context.
    pub fn into_state(mut self) -> Result<(Vec<Entry>, Vec<u8>)> {
        let state = self.context.state()?;
        Ok((self.entries, state))
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
        let position = first.position[0];
        if let Err(error) = self.context.process(rows) {
            self.cut_at(position);
            return Err(error);
        }
        let layers_evicted = self.has_evicted_layers();
        self.entries.extend(entries.iter().map(|entry| match entry.is_visual() && layers_evicted {
            true => Entry { evicted: Evicted::FromLayers, ..*entry },
            false => *entry,
        }));
        Ok(())
    }

    /// Keeps the first `n` rows and removes the others. Removes all rows if the model cannot remove its last rows.
    pub fn cut(&mut self, n: usize) {
        if let Some(entry) = self.entries.get(n) {
            self.cut_at(entry.position[0]);
        }
    }

    /// Removes the rows from `position` on.
    fn cut_at(&mut self, position: i32) {
        if self.context.truncate(position) {
            self.entries.truncate(self.entries.partition_point(|entry| entry.position[0] < position));
        } else {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.context.clear();
        self.entries.clear();
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
    use crate::runtime::{CancelToken, ContextParams, Model, ModelParams, RowInput, SavedCells};
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
}
