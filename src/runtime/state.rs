//! Validates a saved state before llama.cpp reads it: llama.cpp checks neither positions nor sequences, and computes
//! with whatever is in its cells.
//!
//! The format is that of `llama_kv_cache::state_write` and `llama_memory_recurrent::state_write`, for one sequence:
//!
//! ```text
//! length of the architecture's name, name | one part for each cache of the model
//! cache:     streams (1), cells | for each cell: position, sequences (1), 3 numbers with M-RoPE, sequence (0)
//!            V transposed, layers, rotations of K and V | for each layer: type of K, bytes of a row, rows
//!            for each layer, except in models that compute V from K: type of V, bytes of a row, rows;
//!            if transposed: type of V, bytes of a value, values of a row, values
//! recurrent: cells | for each cell: position, sequences (1), sequence (0) | 0, layers
//!            for each layer and kind of state: type, bytes of a row, rows
//! ```
//!
//! A cache without cells ends after their number. All numbers have 32 bits, except the bytes of a row, which has 64.
//! Our own part ([`layered_state`]), about the cells of the first cache, may follow.

use super::{ComputeParams, Model, layered_state};
use std::collections::BTreeMap;

/// The cells of a saved state.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SavedCells {
    /// The positions of the cells of each KV cache. A model with a sliding window has two.
    caches: Vec<Vec<i32>>,
    /// The positions of the recurrent states.
    recurrent: Vec<i32>,
}

impl SavedCells {
    /// Reads the state of a context for `model` with one sequence. `None` if its counts, types and lengths contradict
    /// each other or the model. llama.cpp itself checks the width of the rows.
    pub fn read(model: &Model, compute: &ComputeParams, state: &[u8]) -> Option<Self> {
        let (state, ours) = super::evict::split_state(state)?;
        let name = super::evict::state_start(&model.metadata("general.architecture").unwrap_or_default());
        let form = Form {
            n_layer: u32::try_from(model.n_layer()).ok()?,
            n_vocab: u32::try_from(model.n_vocab()).ok()?,
            cell_has_extra: model.uses_mrope(),
            type_k: compute.type_k.as_raw(),
            type_v: compute.type_v.as_raw(),
        };
        form.read(state.strip_prefix(&name[..])?, ours)
    }

    /// Whether these are the cells of rows at `positions` (ascending). The first cache must hold all of the rows, and
    /// no cache may hold any other.
    pub fn are_at(&self, positions: impl Iterator<Item = i32>) -> bool {
        let count = |positions: &mut dyn Iterator<Item = i32>| {
            positions.fold(BTreeMap::<i32, usize>::new(), |mut counts, position| {
                *counts.entry(position).or_default() += 1;
                counts
            })
        };
        let rows = count(&mut { positions });
        let mut caches = self.caches.iter().map(|cells| count(&mut cells.iter().copied()));
        let is_among = |cells: BTreeMap<i32, usize>| {
            cells.iter().all(|(position, n)| rows.get(position).is_some_and(|of_rows| n <= of_rows))
        };
        caches.next().is_none_or(|cells| cells == rows)
            && caches.all(is_among)
            && self.recurrent.iter().all(|position| rows.contains_key(position))
    }
}

/// What the numbers in a state must agree with.
struct Form {
    n_layer: u32,
    n_vocab: u32,
    /// Whether a cell stores its row and column in the image, and a token.
    cell_has_extra: bool,
    type_k: u32,
    type_v: u32,
}

/// See [`crate::fuzzing`].
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) fn fuzz_state(bytes: &[u8]) {
    for cell_has_extra in [false, true] {
        let form = Form { n_layer: 4, n_vocab: 300, cell_has_extra, type_k: 1, type_v: 1 };
        if let Some((state, ours)) = super::evict::split_state(bytes)
            && let Some(cells) = form.read(state, ours)
        {
            cells.are_at(0..10);
        }
    }
}

/// The bytes of a state that were not read yet.
#[derive(Clone, Copy)]
pub(super) struct Rest<'a>(pub &'a [u8]);

impl Rest<'_> {
    pub fn u8(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*bytes))
    }

    pub fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*bytes))
    }

    /// Skips `n` times `size` bytes. `None` if there are fewer.
    pub fn skip(&mut self, n: u32, size: u64) -> Option<()> {
        let bytes = usize::try_from(u64::from(n).checked_mul(size)?).ok()?;
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// Reads a number. `None` if it is not `expected`.
    pub fn is(&mut self, expected: u32) -> Option<()> {
        (self.u32()? == expected).then_some(())
    }
}

impl Form {
    /// Reads llama.cpp's part, from after the architecture's name, and ours, which may be empty.
    fn read(&self, theirs: &[u8], ours: &[u8]) -> Option<SavedCells> {
        let cells = self.parts(theirs, SavedCells::default())?;
        let is_of = |first: &Vec<i32>| layered_state::n_cells(ours, self.n_layer) == Some(first.len());
        (ours.is_empty() || cells.caches.first().is_some_and(is_of)).then_some(cells)
    }

    /// Reads all that is left: a cache or a recurrent state, and what follows it.
    fn parts(&self, state: &[u8], found: SavedCells) -> Option<SavedCells> {
        if state.is_empty() {
            return Some(found);
        }
        // The search cannot grow without bound: a wrong guess fails early, and a model has four parts at most.
        if found.caches.len() > 2 {
            return None;
        }
        let recurrent = || {
            let (cells, rest) = self.recurrent(Rest(state)).filter(|_| found.recurrent.is_empty())?;
            self.parts(rest.0, SavedCells { caches: found.caches.clone(), recurrent: cells })
        };
        let cache = |has_v| {
            let (cells, rest) = self.cache(Rest(state), has_v)?;
            let caches = [&found.caches[..], &[cells]].concat();
            self.parts(rest.0, SavedCells { caches, recurrent: found.recurrent.clone() })
        };
        cache(true).or_else(|| cache(false)).or_else(recurrent)
    }

    fn cells(&self, rest: &mut Rest<'_>, n_cells: u32, has_extra: bool) -> Option<Vec<i32>> {
        let mut positions = Vec::new();
        for _ in 0..n_cells {
            positions.push(i32::try_from(rest.u32()?).ok()?);
            rest.is(1)?;
            if has_extra {
                rest.skip(2, 4)?;
                let token = rest.u32()?;
                // The row of an embedding has no token (-1).
                if token >= self.n_vocab && token != u32::MAX {
                    return None;
                }
            }
            rest.is(0)?;
        }
        Some(positions)
    }

    fn cache<'a>(&self, mut rest: Rest<'a>, has_v: bool) -> Option<(Vec<i32>, Rest<'a>)> {
        rest.is(1)?;
        let n_cells = rest.u32()?;
        if n_cells == 0 {
            return Some((Vec::new(), rest));
        }
        let positions = self.cells(&mut rest, n_cells, self.cell_has_extra)?;
        let transposed = rest.u32()?;
        let n_layer = rest.u32()?;
        if transposed > 1 || n_layer > self.n_layer {
            return None;
        }
        rest.skip(2, 4)?;
        let rows = |rest: &mut Rest<'_>, kind| {
            for _ in 0..n_layer {
                rest.is(kind)?;
                let row = rest.u64()?;
                rest.skip(n_cells, row)?;
            }
            Some(())
        };
        rows(&mut rest, self.type_k)?;
        if has_v && transposed == 0 {
            rows(&mut rest, self.type_v)?;
        } else if has_v {
            for _ in 0..n_layer {
                rest.is(self.type_v)?;
                let (value, width) = (rest.u32()?, rest.u32()?);
                rest.skip(n_cells, u64::from(value) * u64::from(width))?;
            }
        }
        Some((positions, rest))
    }

    /// Reads a recurrent state, which is always last.
    fn recurrent<'a>(&self, mut rest: Rest<'a>) -> Option<(Vec<i32>, Rest<'a>)> {
        let n_cells = rest.u32().filter(|&n_cells| n_cells <= 1)?;
        let positions = self.cells(&mut rest, n_cells, false)?;
        rest.is(0)?;
        rest.u32().filter(|&n_layer| n_layer <= self.n_layer)?;
        while !rest.0.is_empty() {
            rest.u32()?;
            let row = rest.u64()?;
            rest.skip(n_cells, row)?;
        }
        Some((positions, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { n_layer: 2, n_vocab: 10, cell_has_extra: false, type_k: 1, type_v: 8 };

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// A cache with cells at `positions`, two layers and rows of four bytes.
    fn cache(positions: &[u32], transposed: u32) -> Vec<u8> {
        let n = positions.len() as u32;
        let mut all = words(&[1, n]);
        positions.iter().for_each(|&position| all.extend(words(&[position, 1, 0])));
        all.extend(words(&[transposed, 2, 0, 0]));
        for _ in 0..2 {
            all.extend(words(&[1, 4, 0]));
            all.extend(vec![0xff; 4 * n as usize]);
        }
        for _ in 0..2 {
            all.extend(if transposed == 1 { words(&[8, 1, 4]) } else { words(&[8, 4, 0]) });
            all.extend(vec![0xff; 4 * n as usize]);
        }
        all
    }

    fn recurrent(position: u32) -> Vec<u8> {
        [words(&[1, position, 1, 0, 0, 2, 0, 8, 0]), vec![0xff; 8], words(&[0, 4, 0]), vec![0xff; 4]].concat()
    }

    fn read(state: &[u8]) -> Option<SavedCells> {
        FORM.parts(state, SavedCells::default())
    }

    #[test]
    fn the_caches_of_each_kind_of_model_are_read() {
        for transposed in [0, 1] {
            let plain = read(&cache(&[0, 1, 1], transposed)).expect("one cache");
            assert_eq!(plain, SavedCells { caches: vec![vec![0, 1, 1]], recurrent: vec![] });
        }
        let window = read(&[cache(&[0, 1, 2], 0), cache(&[1, 2], 0)].concat()).expect("two caches");
        assert_eq!(window.caches, [vec![0, 1, 2], vec![1, 2]]);
        let hybrid = read(&[cache(&[0, 1], 0), recurrent(1)].concat()).expect("a cache and a recurrent state");
        assert_eq!(hybrid, SavedCells { caches: vec![vec![0, 1]], recurrent: vec![1] });
        assert_eq!(read(&recurrent(1)).expect("recurrent").recurrent, [1]);
        // A model that computes V from K saves no V.
        let mut latent = cache(&[0, 1], 0);
        latent.truncate(latent.len() - 2 * (12 + 8));
        assert_eq!(read(&latent).expect("K alone").caches, [[0, 1]]);
        assert_eq!(read(&words(&[1, 0])).expect("an empty one").caches, [[0; 0]]);
    }

    /// Covers plain attention, a sliding window, M-RoPE, latent attention and recurrent layers.
    #[test]
    fn states_of_each_kind_of_model_are_read() {
        use crate::runtime::{CancelToken, Context, ContextParams, FlashAttention, KvType, ModelParams, Row, RowInput};
        for name in ["llama", "gemma3", "qwen2", "qwen2vl", "deepseek2", "lfm2"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.gguf"));
            let model = Model::load(&path, &ModelParams::default(), |_| {}).unwrap();
            for (type_v, flash_attention) in [(KvType::F16, FlashAttention::On), (KvType::F32, FlashAttention::Off)] {
                let compute = ComputeParams { type_v, flash_attention, n_threads: Some(1), ..Default::default() };
                let params = ContextParams { n_ctx: 256, compute: compute.clone(), ..Default::default() };
                let Ok(mut context) = Context::new(&model, &params, &[], &CancelToken::new()) else {
                    // Some models work only with flash attention, others only without.
                    continue;
                };
                let row = |p| Row { input: RowInput::Token(1 + p % 7), position: [p, p, p, 0], logits: false };
                context.process(&(0..40).map(row).collect::<Vec<_>>()).unwrap();
                let state = context.state().unwrap();
                let cells = SavedCells::read(&model, &compute, &state);
                let cells = cells.unwrap_or_else(|| panic!("{name} {flash_attention:?}"));
                assert!(cells.are_at(0..40), "{name}: {cells:?}");
                assert!(!cells.are_at(0..39), "{name}");
                assert_eq!(SavedCells::read(&model, &compute, &state[..state.len() - 1]), None, "{name}");
                context.set_state(&state).unwrap();
            }
        }
    }

    /// States of evictable contexts, before and after an eviction.
    #[test]
    fn states_with_a_part_of_ours_are_read() {
        use crate::runtime::{CancelToken, Context, ContextParams, ModelParams, Row, RowInput};
        for name in ["llama", "gemma3", "qwen2vl", "lfm2"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.gguf"));
            let model = Model::load(&path, &ModelParams::default(), |_| {}).unwrap();
            let compute = ComputeParams { n_threads: Some(1), ..Default::default() };
            let params = ContextParams { n_ctx: 256, evictable: true, compute: compute.clone(), ..Default::default() };
            let mut context = Context::new(&model, &params, &[], &CancelToken::new()).unwrap();
            let embedding = vec![0.5; model.n_embd_inp()];
            let text = |p| Row { input: RowInput::Token(1 + p % 7), position: [p, p, p, 0], logits: false };
            context.process(&(0..10).map(text).collect::<Vec<_>>()).unwrap();
            let visual = |p| Row { input: RowInput::Embedding(&embedding), ..text(p) };
            context.process(&(10..30).map(visual).collect::<Vec<_>>()).unwrap();
            context.process(&(30..40).map(text).collect::<Vec<_>>()).unwrap();
            let evictable: Vec<usize> = context
                .kv_layers()
                .unwrap()
                .iter()
                .enumerate()
                .filter(|(_, l)| l.has_cells)
                .map(|(il, _)| il)
                .collect();
            for evicts in [false, true] {
                if evicts {
                    let layers: Vec<bool> = (0..model.n_layer()).map(|il| evictable[1..].contains(&il)).collect();
                    context.evict_layers(&layers).unwrap();
                }
                let state = context.state().unwrap();
                let cells = SavedCells::read(&model, &compute, &state);
                assert!(cells.is_some_and(|cells| cells.are_at(0..40)), "{name} {evicts}");
                let (theirs, ours) = crate::runtime::evict::split_state(&state).unwrap();
                assert_eq!(layered_state::n_cells(ours, model.n_layer() as u32), Some(40), "{name} {evicts}");
                // The first cell holds text. Without its row in the evicted layers, the state must be rejected.
                let n_evicted = u32::from_ne_bytes(ours[20..24].try_into().unwrap()) as usize;
                let at = theirs.len() + 24 + 4 * n_evicted;
                assert_eq!((state[at], n_evicted > 0), (if evicts { 4 } else { 0 }, evicts), "{name}");
                let mut forged = state.clone();
                forged[at] ^= 4;
                assert_eq!(SavedCells::read(&model, &compute, &forged), None, "{name} {evicts}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_no_state() {
        let good = cache(&[0, 1], 0);
        for length in 1..good.len() {
            // A state that ends after K is complete for a model without V.
            assert!(read(&good[..length]).is_none() || length == good.len() - 40, "{length}");
        }
        assert_eq!(read(&[&good[..], &[0]].concat()), None);
        // In this order: streams, cells, position, sequences, sequence, transposed, layers, type of K, its row, of V.
        for (at, value) in [
            (0, 2),
            (1, 1),
            (1, 3),
            (1, u32::MAX),
            (2, u32::MAX),
            (3, 0),
            (3, 2),
            (4, 1),
            (8, 2),
            (9, 1),
            (9, 3),
            (9, u32::MAX),
            (12, 8),
            (13, 0),
            (13, 8),
            (13, u32::MAX),
            (14, 1),
            (22, 1),
            (22, 0),
        ] {
            let mut state = good.clone();
            state[4 * at..4 * at + 4].copy_from_slice(&value.to_ne_bytes());
            assert_eq!(read(&state), None, "{value} at {at}");
        }
    }

    #[test]
    fn the_cells_are_those_of_the_rows() {
        let cells = |caches: &[&[i32]], recurrent: &[i32]| SavedCells {
            caches: caches.iter().map(|cells| cells.to_vec()).collect(),
            recurrent: recurrent.to_vec(),
        };
        let rows = || [0, 1, 1, 2].into_iter();
        assert!(cells(&[&[1, 0, 2, 1]], &[]).are_at(rows()));
        assert!(cells(&[&[0, 1, 1, 2], &[1, 2]], &[2]).are_at(rows()));
        for (caches, recurrent) in [
            (&[&[0, 1, 2][..]][..], &[][..]),
            (&[&[0, 1, 1, 1, 2]], &[]),
            (&[&[0, 1, 2, 2]], &[]),
            (&[&[0, 1, 1, 3]], &[]),
            (&[&[0, 1, 1, 2], &[2, 2]], &[]),
            (&[&[0, 1, 1, 2], &[5]], &[]),
            (&[&[0, 1, 1, 2]], &[7]),
        ] {
            assert!(!cells(caches, recurrent).are_at(rows()), "{caches:?} {recurrent:?}");
        }
    }
}
