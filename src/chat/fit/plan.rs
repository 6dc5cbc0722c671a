//! Reports what a video will need, before a frame is encoded.

use super::needed::Need;
use super::{ANSWER_RESERVE, Fit};
use crate::chat::engine::checkpoints;
use crate::chat::engine::cost::CellCost;
use crate::chat::sampling::VideoOptions;
use crate::error::Result;
use crate::runtime::FreeMemory;
use crate::skip::EncodeMode;
use crate::video::{Source, VideoInfo};
use serde::Serialize;

/// The memory that a session needs, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemoryNeed {
    /// The weights of the language model.
    pub weights: u64,
    /// The file of the vision encoder.
    pub encoder: u64,
    /// One cell of the KV cache, in all layers.
    pub kv_per_token: u64,
    /// The KV cache with all visual tokens and an answer.
    pub kv_dense: u64,
    /// The maximum size of the KV cache: like `kv_dense`, but with at most [`VideoPlan::max_kept`] visual tokens, or
    /// with the cells that the user set.
    pub kv: u64,
    /// The part of `kv` that holds the states of recurrent layers, whatever the number of cells; 0 without such layers.
    pub state: u64,
    /// A copy of the state, from which the next question goes on; 0 if the model needs none.
    pub checkpoint: u64,
    /// The maximum size of all such copies, which are in system memory: as many as the user's limit and free memory
    /// allow. If it is 0 and `checkpoint` is not, each question computes the whole prompt again.
    pub checkpoints: u64,
    /// Compute buffers of a context with all visual tokens and an answer.
    pub compute: u64,
    /// Buffers that the encoder will allocate in the same memory as the KV cache, for an image of the size that
    /// llama.cpp plans with; 0 if it has encoded an image already.
    pub encoder_buffers: u64,
    /// The encoder's cache of one frame while it encodes a video, on the encoder's device; 0 if it computes all of each
    /// frame.
    pub encoder_cache: u64,
    /// The embeddings of all visual tokens, which are in system memory until they are pruned.
    pub embeddings: u64,
    /// Free memory for the KV cache and buffers, after the weights are loaded; `None` if unknown.
    pub free: Option<u64>,
    /// Where this memory is: `RAM`, or the names of the GPUs.
    pub place: String,
}

/// Values that would make the requested video fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Suggestions {
    /// The number of frames that fit with all visual tokens; 0 if none fits.
    pub max_frames: usize,
    /// The keep ratio that fits, 0 to 1; `None` if none fits: pruning does not reduce positions.
    pub keep: Option<f64>,
    /// Cells of a context that holds all visual tokens and an answer.
    pub ctx_size: usize,
}

/// What a video will need, planned before a frame is encoded.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct VideoPlan {
    /// The video that was opened.
    pub info: VideoInfo,
    /// The name of the prompt layout.
    pub layout: &'static str,
    /// The request: the user's options, with the defaults of the model's family.
    pub asked: Need,
    /// The plan: less than `asked` if that does not fit.
    pub planned: Need,
    /// The times of the planned frames, in seconds. With `by_changes`, a survey chooses other times for as many frames.
    pub times_s: Vec<f64>,
    /// The maximum number of kept visual tokens, if memory or cells limit it.
    pub max_kept: Option<usize>,
    /// Whether a survey will choose the frames by what changes.
    pub by_changes: bool,
    /// How much of each frame the encoder will compute.
    pub encode: EncodeMode,
    /// The ubatch size, if it must be larger than [`ComputeParams::n_ubatch`]: the visual tokens of the largest image,
    /// for models whose attention is not causal within an image.
    ///
    /// [`ComputeParams::n_ubatch`]: crate::runtime::ComputeParams::n_ubatch
    pub raised_ubatch: Option<usize>,
    /// Layers of the language model.
    pub layers: usize,
    /// The number of layers that can do without visual tokens, if there is a layer profile.
    pub layers_free: Option<usize>,
    /// Whether `planned` fits.
    pub fits: bool,
    /// The limit that `asked` exceeds, or that `planned` still exceeds if `fits` is false.
    pub shortage: Option<String>,
    /// How `planned` differs from `asked`, in words.
    pub changes: Vec<String>,
    /// Requests that would fit.
    pub suggestions: Suggestions,
    /// Positions that the model was trained for.
    pub positions_limit: usize,
    /// Cells of the context, if the user set them.
    pub cells_limit: Option<usize>,
    /// The memory that `planned` needs.
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
                state: cost.state,
                checkpoint: cost.checkpoint,
                checkpoints: self.checkpoints(&cost, cells),
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

    /// The bytes of the checkpoints that a context with `cells` cells will keep.
    fn checkpoints(&self, cost: &CellCost, cells: usize) -> u64 {
        let (size, available) = (cost.checkpoint, &self.available);
        if size == 0 {
            return 0;
        }
        let limit = available.checkpoint_memory.unwrap_or(checkpoints::usual_budget(size));
        let left = match available.free() {
            Some(free) if free.is_system => free.bytes.saturating_sub(cost.bytes(cells)) / 2,
            _ => checkpoints::free_bytes(),
        };
        limit.min(left) / size * size
    }

    /// How much of each frame will be computed. Tokens can stop early only if SharpV prunes them.
    fn encode_mode(&self) -> EncodeMode {
        let prune = self.params.prune;
        // A mode that the encoder cannot do was rejected when the user requested it.
        let mode = self.engine.shape.mode(&self.params.encode.of(prune.method)).unwrap_or(EncodeMode::Exact);
        match mode {
            EncodeMode::Fast if !prune.method.is_causal() => EncodeMode::Reuse,
            EncodeMode::Stop if !prune.method.is_causal() => EncodeMode::Exact,
            mode => mode,
        }
    }

    fn suggestions(&self, asked: Need, cost: &CellCost, free: Option<&FreeMemory>) -> Suggestions {
        let Self { engine, params, available, .. } = self;
        let reserve = ANSWER_RESERVE.min(params.n_predict) + asked.question_reserve;
        let (others, other_rows) = (asked.positions - asked.own_positions, asked.prompt_tokens - asked.own_rows);
        let by_memory = free.map_or(usize::MAX, |free| {
            let embeddings = if free.is_system { available.embedding_bytes(asked.visual_tokens) } else { 0 };
            let cells = cost.cells_in(free.bytes.saturating_sub(embeddings));
            cells.saturating_sub(asked.question_reserve + params.n_predict)
        });
        let rows = by_memory.min(params.n_ctx.map_or(usize::MAX, |cells| cells.saturating_sub(reserve)));
        let positions = engine.model.n_ctx_train().saturating_sub(reserve + others);
        let share = |left: usize, of: usize| if of == 0 { 1.0 } else { (left as f64 / of as f64).min(1.0) };
        let frames = share(positions, asked.own_positions).min(share(rows.saturating_sub(other_rows), asked.own_rows));
        let text = asked.prompt_tokens - asked.visual_tokens;
        let keep = share(rows.saturating_sub(text), asked.visual_tokens);
        Suggestions {
            max_frames: (asked.frames as f64 * frames) as usize,
            keep: (keep > 0.0 && positions >= asked.own_positions).then_some((keep * 1000.0).floor() / 1000.0),
            ctx_size: asked.prompt_tokens + asked.question_reserve + params.n_predict,
        }
    }
}
