//! What a video will take, told before a frame of it is encoded.

use super::needed::Need;
use super::{ANSWER_ROOM, Fit};
use crate::chat::engine::cost::CellCost;
use crate::chat::sampling::VideoOptions;
use crate::error::Result;
use crate::runtime::FreeMemory;
use crate::skip::EncodeMode;
use crate::video::{Source, VideoInfo};
use serde::Serialize;

/// Bytes that a session takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemoryNeed {
    /// The language model's weights.
    pub weights: u64,
    /// The vision encoder's file.
    pub encoder: u64,
    /// A cell of the KV cache, in all layers.
    pub kv_per_token: u64,
    /// The KV cache with all visual tokens and room for an answer.
    pub kv_dense: u64,
    /// The KV cache that is made at most: as `kv_dense`, or with the visual tokens that are kept at most.
    pub kv: u64,
    /// Buffers for intermediate results, beside such a cache.
    pub compute: u64,
    /// Buffers that the encoder will take where the KV cache is, if it did not encode anything yet: for an image of
    /// the size that llama.cpp plans with.
    pub encoder_buffers: u64,
    /// What the encoder keeps of a frame while it encodes a video, on its device; 0 if it computes all of each frame.
    pub encoder_cache: u64,
    /// The embeddings of all visual tokens, which are in the system's memory until they are pruned.
    pub embeddings: u64,
    /// What is free for KV cache and buffers, the weights being loaded; `null` if that is not known.
    pub free: Option<u64>,
    /// Where that is: `RAM`, or the names of the GPUs.
    pub place: String,
}

/// What would fit where a video as asked for does not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Suggestions {
    /// So many frames fit, with all visual tokens; 0 if not one does.
    pub max_frames: usize,
    /// This share of the visual tokens fits; `null` if no share does, for positions do not become fewer.
    pub keep: Option<f64>,
    /// Cells of a context that holds all.
    pub ctx_size: usize,
}

/// What a video will take, told before a frame of it is encoded.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct VideoPlan {
    /// What was opened.
    pub info: VideoInfo,
    /// The prompt layout.
    pub layout: &'static str,
    /// What was asked for, or what the model's family wants.
    pub asked: Need,
    /// What will be done: less than asked, where that does not fit.
    pub planned: Need,
    /// When its frames are, in seconds; `by_changes` chooses as many others.
    pub times_s: Vec<f64>,
    /// Visual tokens that are kept at most, if memory or cells set a limit.
    pub max_kept: Option<usize>,
    /// Whether the frames will be chosen by what changes.
    pub by_changes: bool,
    /// How much of each frame will be encoded: exact, or what may be left out.
    pub encode: EncodeMode,
    /// Rows that will be computed at once, where that is more than [`ComputeParams::n_ubatch`] says: the visual tokens
    /// of the largest image, in models that have to see each image at once.
    ///
    /// [`ComputeParams::n_ubatch`]: crate::runtime::ComputeParams::n_ubatch
    pub raised_ubatch: Option<usize>,
    /// Layers of the model.
    pub layers: usize,
    /// In how many of them the model can do without visual tokens, if a profile says so.
    pub layers_free: Option<usize>,
    /// Whether `planned` fits.
    pub fits: bool,
    /// What is short: as asked, or also as planned if `fits` is false.
    pub shortage: Option<String>,
    /// What is done about it, in words.
    pub changes: Vec<String>,
    /// What could be asked for.
    pub suggestions: Suggestions,
    /// Positions that the model was trained for.
    pub positions_limit: usize,
    /// Cells that the context was given.
    pub cells_limit: Option<usize>,
    /// Memory, for `planned`.
    pub memory: MemoryNeed,
}

impl Fit<'_> {
    /// See [`Session::plan_video`](crate::chat::Session::plan_video).
    pub fn plan_video(&self, source: &Source, options: &VideoOptions) -> Result<VideoPlan> {
        let proposal = self.propose(source, options)?;
        let (asked, need) = (proposal.asked, proposal.need);
        let Self { engine, params, available, .. } = self;
        let cost = available.cell_cost(need.at_once)?;
        let shortage = proposal.shortage.or(proposal.first_shortage);
        let free = available.free_beside_encoder();
        let encoder_buffers = free.as_ref().map_or(0, |free| available.encoder_buffers(free));
        let cells = need.prompt_tokens + params.n_predict;
        let kv_dense = cost.kv_bytes(cells);
        let encode = self.encode_mode();
        let dropped = proposal.max_kept.map_or(0, |kept| need.visual_tokens.saturating_sub(kept));
        Ok(VideoPlan {
            info: proposal.frames.info().clone(),
            layout: engine.layout.name(),
            asked,
            planned: need,
            times_s: proposal.frames.planned_times().to_vec(),
            max_kept: proposal.max_kept,
            by_changes: proposal.by_changes,
            encode,
            raised_ubatch: self.raised_ubatch(&need),
            layers: engine.model.n_layer(),
            layers_free: params.free_layers,
            fits: proposal.shortage.is_none(),
            shortage: shortage.map(|shortage| shortage.reason()),
            changes: proposal.changes.into_iter().chain(proposal.capped).collect(),
            suggestions: self.suggestions(asked, &cost, free.as_ref()),
            positions_limit: engine.model.n_ctx_train(),
            cells_limit: params.n_ctx,
            memory: MemoryNeed {
                weights: engine.model.size_bytes(),
                encoder: engine.encoder_file_bytes(),
                kv_per_token: cost.kv_per_cell as u64,
                kv_dense,
                kv: params.n_ctx.map_or_else(|| cost.kv_bytes(cells - dropped), |cells| cost.kv_bytes(cells)),
                compute: cost.bytes(cells) - kv_dense,
                encoder_buffers,
                encoder_cache: match encode {
                    EncodeMode::Exact => 0,
                    _ => engine.shape.cache_bytes(need.image).unwrap_or(0),
                },
                embeddings: available.embedding_bytes(need.visual_tokens),
                free: free.as_ref().map(|free| free.bytes),
                place: free.map_or_else(|| "RAM".to_owned(), |free| free.place),
            },
        })
    }

    /// How much of each frame will be encoded. What is not pruned by SharpV has to be finished.
    fn encode_mode(&self) -> EncodeMode {
        let prune = self.params.prune;
        // What cannot be done was refused when it was asked for.
        let mode = self.engine.shape.mode(&self.params.encode.of(prune.method)).unwrap_or(EncodeMode::Exact);
        match mode {
            EncodeMode::Fast if !prune.method.is_causal() => EncodeMode::Reuse,
            EncodeMode::Stop if !prune.method.is_causal() => EncodeMode::Exact,
            mode => mode,
        }
    }

    fn suggestions(&self, asked: Need, cost: &CellCost, free: Option<&FreeMemory>) -> Suggestions {
        let Self { engine, params, available, .. } = self;
        let room = ANSWER_ROOM.min(params.n_predict) + asked.question_room;
        let (others, other_rows) = (asked.positions - asked.own_positions, asked.prompt_tokens - asked.own_rows);
        let by_memory = free.map_or(usize::MAX, |free| {
            let embeddings = if free.is_system { available.embedding_bytes(asked.visual_tokens) } else { 0 };
            let cells = cost.cells_in(free.bytes.saturating_sub(embeddings));
            cells.saturating_sub(asked.question_room + params.n_predict)
        });
        let rows = by_memory.min(params.n_ctx.map_or(usize::MAX, |cells| cells.saturating_sub(room)));
        let positions = engine.model.n_ctx_train().saturating_sub(room + others);
        let share = |left: usize, of: usize| if of == 0 { 1.0 } else { (left as f64 / of as f64).min(1.0) };
        let frames = share(positions, asked.own_positions).min(share(rows.saturating_sub(other_rows), asked.own_rows));
        let text = asked.prompt_tokens - asked.visual_tokens;
        let keep = share(rows.saturating_sub(text), asked.visual_tokens);
        Suggestions {
            max_frames: (asked.frames as f64 * frames) as usize,
            keep: (keep > 0.0 && positions >= asked.own_positions).then_some((keep * 1000.0).floor() / 1000.0),
            ctx_size: asked.prompt_tokens + asked.question_room + params.n_predict,
        }
    }
}
