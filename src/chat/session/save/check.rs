//! Checks a file's contents against the session that loads it. The checksum has excluded damage.

use super::format::{Header, SavedCheckpoint, SavedSlice, SavedVideo};
use super::rejected::Rejected;
use crate::chat::cache::evict::{Choice, EvictMode};
use crate::chat::cache::ledger::{self, Entry, Evicted};
use crate::chat::cache::{Learned, SavedCache};
use crate::chat::conversation::Conversation;
use crate::chat::conversation::marks::Marks;
use crate::chat::encoded::markers::Markers;
use crate::chat::encoded::{EncodeTimings, EncodedSlice, EncodedVideo, VideoId};
use crate::chat::engine::Engine;
use crate::chat::params::SessionParams;
use crate::chat::rows::{PlannedRow, RowKey};
use crate::error::Result;
use crate::layout::SliceCount;
use crate::runtime::{FlashAttention, LoraAdapter, Similarity};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Returns everything that the embeddings and the KV state of a session depend on. A copy of a model file in a faster
/// type counts as the same file: its digest is the same, and its type and size are left out.
pub fn fits(engine: &Engine, params: &SessionParams) -> Result<Vec<(String, String)>> {
    let weights = engine.fingerprints()?;
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let adapters: Vec<String> = (engine.adapters.iter().map(LoraAdapter::path).zip(&weights.adapters))
        .map(|(path, weights)| format!("{} ({} bytes, {weights})", name(path), size(path)))
        .collect();
    let compute = &params.compute;
    let on_off = |on| String::from(if on { "on" } else { "off" });
    let model = &engine.model;
    Ok([
        ("the model", of_any_type(&model.description())),
        ("model layers", model.n_layer().to_string()),
        ("model width", model.n_embd().to_string()),
        ("embedding width", model.n_embd_inp().to_string()),
        ("vocabulary size", model.n_vocab().to_string()),
        ("model weights", weights.model.to_string()),
        ("mmproj weights", weights.mmproj.to_string()),
        ("LoRA adapters", if adapters.is_empty() { "none".into() } else { adapters.join(", ") }),
        ("KV types", format!("{}/{}", compute.type_k.name(), compute.type_v.name())),
        ("eviction", on_off(params.evict_mode() != EvictMode::Off)),
        // If `auto` turns it off because the device does not support it, llama.cpp reports that.
        ("flash attention", on_off(compute.flash_attention != FlashAttention::Off)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into())
}

/// A model's description without its last word, the type of the weights.
fn of_any_type(description: &str) -> String {
    description.rsplit_once(' ').map_or(description, |(model, _)| model).to_owned()
}

pub fn check_fits(ours: &[(String, String)], theirs: &[(String, String)]) -> Result<(), Rejected> {
    if !ours.iter().map(|(name, _)| name).eq(theirs.iter().map(|(name, _)| name)) {
        return Err(Rejected::damaged());
    }
    match ours.iter().zip(theirs).find(|(ours, theirs)| ours != theirs) {
        None => Ok(()),
        Some(((name, ours), (_, theirs))) => Err(Rejected {
            reason: format!("the session was saved with {name} {theirs}, and this one has {ours}"),
            advice: "open the session with the same model and settings".into(),
        }),
    }
}

/// Returns the conversation and the cache of a file, checked as far as possible without a context. `in_cache` says
/// whether the file has a state of the KV cache.
pub fn contents(
    engine: &Engine,
    params: &SessionParams,
    header: Header,
    embeddings: &[u8],
    checkpoints: Vec<Vec<u8>>,
    in_cache: bool,
) -> Result<(Conversation, SavedCache, Learned), Rejected> {
    let damaged = Rejected::damaged;
    let model = &engine.model;
    let n_layer = model.n_layer();
    let videos = videos(engine, header.videos, embeddings).ok_or_else(damaged)?;
    let evicted = header.evicted;
    let rows = Rows {
        videos: &videos,
        n_vocab: model.n_vocab(),
        n_positions: model.n_ctx_train(),
        has_newline: engine.newline.is_some(),
    };
    // A tail without a question cannot be calibrated with.
    let pending = evicted.pending.filter(|tail| !tail.question.is_empty());
    let good = header.videos_sent <= videos.len()
        && in_cache != header.cached.is_empty()
        && (in_cache || (evicted.rows.is_empty() && pending.is_none() && header.checkpoints.is_empty()))
        && are_after_rows(&header.checkpoints, header.cached.len())
        && are_visual(&evicted.rows, &header.cached)
        && [0, n_layer].contains(&evicted.similarity.len())
        && rows.are_good(&header.cached)
        && pending.iter().all(|tail| rows.are_good(&tail.question) && rows.are_good(&tail.describe))
        && match &evicted.calibrated {
            Some(Choice::Layers(layers)) => layers.len() == n_layer,
            Some(Choice::Tokens(threshold)) => threshold.is_finite(),
            None => true,
        };
    if !good {
        return Err(damaged());
    }
    let mut entries: Vec<Entry> =
        header.cached.iter().map(|row| Entry::of(row, &videos)).collect::<Result<_>>().map_err(|_| damaged())?;
    for &row in &evicted.rows {
        entries[row].evicted = Evicted::FromAll;
    }
    let same_mode = evicted.mode == params.evict_mode();
    let conversation = Conversation {
        marks: Marks::with_prefix(header.marks).ok_or_else(damaged)?,
        system: header.system,
        messages: header.messages,
        videos,
        videos_sent: header.videos_sent,
        spent: EncodeTimings::default(),
        answer_start: String::new(),
    };
    let checkpoints = header.checkpoints.iter().zip(checkpoints);
    let cache = SavedCache {
        entries,
        checkpoints: checkpoints.map(|(saved, state)| saved.with(state)).collect(),
        tail: pending,
        dense_rows: header.dense_rows as usize,
        n_ctx: header.n_ctx,
    };
    let learned = Learned {
        similarity: Similarity {
            layers: evicted.similarity.into_iter().map(|s| s.unwrap_or(f32::NAN)).collect(),
            n_tokens: evicted.n_measured,
        },
        // A choice of layers does not hold for tokens, nor the reverse.
        choice: evicted.calibrated.filter(|_| same_mode),
    };
    Ok((conversation, cache, learned))
}

/// Whether `evicted` has indices of visual tokens in `rows`, each once.
fn are_visual(evicted: &[usize], rows: &[PlannedRow]) -> bool {
    let is_visual = |&index: &usize| rows.get(index).is_some_and(PlannedRow::is_visual);
    evicted.is_sorted_by(|a, b| a < b) && evicted.iter().all(is_visual)
}

/// Whether `checkpoints` are after some of `n_rows` rows, each after another one.
fn are_after_rows(checkpoints: &[SavedCheckpoint], n_rows: usize) -> bool {
    checkpoints.is_sorted_by(|a, b| a.rows < b.rows) && checkpoints.iter().all(|c| (1..=n_rows).contains(&c.rows))
}

/// Returns the number of cells of the context for `cache`.
pub fn cells(params: &SessionParams, cache: &SavedCache) -> Result<usize, Rejected> {
    let used = ledger::cells(&cache.entries);
    match params.n_ctx {
        Some(fixed) if fixed < used => Err(Rejected {
            reason: format!("the saved session uses {used} cells of the KV cache, more than the {fixed} of this one"),
            advice: format!("open the session with a context of {} cells or more", used + params.n_predict),
        }),
        Some(fixed) => Ok(fixed),
        // Bound what a forged file makes this process allocate. A cache that grows has at most an eighth more cells
        // than it requires.
        None => Ok(cache.n_ctx.min(2 * (used + params.n_predict)).max(used)),
    }
}

/// What the rows of a file may refer to.
struct Rows<'a> {
    videos: &'a [Arc<EncodedVideo>],
    n_vocab: usize,
    n_positions: usize,
    has_newline: bool,
}

impl Rows<'_> {
    fn are_good(&self, rows: &[PlannedRow]) -> bool {
        rows.iter().all(|row| self.is_good(row)) && rows.is_sorted_by_key(|row| row.position[0])
    }

    fn is_good(&self, row: &PlannedRow) -> bool {
        let is_below = |value: i32, limit: usize| usize::try_from(value).is_ok_and(|value| value < limit);
        let exists = match row.key {
            RowKey::Token(token) => is_below(token, self.n_vocab),
            RowKey::Visual { video, slice, kept } => {
                let slice = self.videos.get(video).and_then(|video| video.slices.get(slice));
                slice.is_some_and(|slice| kept < slice.kept.len())
            }
            RowKey::Newline => self.has_newline,
        };
        exists && is_below(row.position[0], self.n_positions)
    }
}

/// Returns the videos with their embeddings; `None` if the parts do not match.
fn videos(engine: &Engine, saved: Vec<SavedVideo>, mut embeddings: &[u8]) -> Option<Vec<Arc<EncodedVideo>>> {
    let stride = engine.model.n_embd_inp();
    let mut videos = Vec::with_capacity(saved.len());
    for video in saved {
        if !video.arrangement.is_valid(SliceCount(video.slices.len())) {
            return None;
        }
        let mut slices = Vec::with_capacity(video.slices.len());
        for (index, SavedSlice { times_s, n_tokens, kept, computed }) in video.slices.into_iter().enumerate() {
            if !(0.0..=1.0).contains(&computed) {
                return None;
            }
            if times_s.len() != video.arrangement.frames_of(index) || !times_s.is_sorted() {
                return None;
            }
            let ascends = kept.is_sorted_by(|a, b| a < b);
            if !ascends || kept.last().is_some_and(|&last| last as usize >= n_tokens) {
                return None;
            }
            let n_bytes = kept.len().checked_mul(stride)?.checked_mul(4)?;
            let (bytes, rest) = embeddings.split_at_checked(n_bytes)?;
            embeddings = rest;
            let (values, _) = bytes.as_chunks::<4>();
            let rows = values.iter().map(|&value| f32::from_le_bytes(value)).collect();
            let unfinished = Vec::new();
            let (cells, notes) = (None, None);
            slices.push(EncodedSlice {
                times_s,
                n_tokens,
                kept,
                rows,
                unfinished,
                computed,
                cells,
                notes,
                is_removed: false,
            });
        }
        videos.push(Arc::new(EncodedVideo {
            id: VideoId::new(),
            info: video.info,
            markers: Markers::of(&engine.model, &engine.vision, &video.arrangement).ok()?,
            arrangement: video.arrangement,
            slices,
            timings: EncodeTimings::default(),
            max_kept: None,
            unpruned: Vec::new(),
            sampling: None,
            survey: None,
        }));
    }
    embeddings.is_empty().then_some(videos)
}
