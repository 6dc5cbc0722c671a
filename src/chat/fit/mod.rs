//! Fitting a video to what there is: the model's positions, the context, memory. All before a frame of it is encoded.
//!
//! What the user asked for stays. What is left open becomes less, in this order: the size of images, where a family
//! has a choice of sizes; where memory or cells are short and tokens are pruned anyway, the number of tokens that are
//! kept; the number of frames.

pub(super) mod cost;
pub(super) mod gpu;
mod limits;
mod room;

use cost::CellCost;
use limits::{ANSWER_ROOM, Limits, Shortage};
pub(super) use room::Room;

use super::conversation::Conversation;
use super::engine::Engine;
use super::params::{SessionParams, VideoOptions};
use super::prompt::arrangement::Arrangement;
use super::prompt::markers::Markers;
use super::prompt::message::Message;
use super::prompt::plan::{Placed, PlannedRow, RowKey};
use super::prompt::render;
use super::video::{EncodeTimings, timed};
use crate::error::{Resource, Result};
use crate::layout::{Layout, Size};
use crate::observer::{Observer, Stage};
use crate::runtime::{FreeMemory, MemoryUsage};
use crate::skip::EncodeMode;
use crate::video::{FrameSource, Origin, Rate, Sampling, Survey, SurveyReport, VideoInfo};
use serde::Serialize;
use std::time::Duration;

/// Times that a video is made smaller before it is refused. Each gets it within a few percent.
const ATTEMPTS: usize = 8;

/// Tokens of a question that is not asked yet.
const QUESTION: usize = 32;

/// Keeping fewer visual tokens than this share is no answer to a lack of memory: fewer frames are.
const LEAST_KEPT: f64 = 0.05;

/// A context that surely takes no more than this share of the free memory is not measured.
const SURELY_FREE: f64 = 0.1;

/// What a video takes of the prompt, with all its visual tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Need {
    /// Frames.
    pub frames: usize,
    /// Slices: frames, or merged pairs of frames.
    pub slices: usize,
    /// Width and height in pixels of what the encoder is given.
    pub image: Size,
    /// Visual tokens.
    pub visual_tokens: usize,
    /// Rows of the whole prompt: text and visual tokens, the conversation so far included.
    pub prompt_tokens: usize,
    /// Positions of the whole prompt. They do not become fewer with pruning.
    pub positions: usize,
    /// Rows that this video adds.
    #[serde(skip)]
    own_rows: usize,
    /// Positions that this video adds.
    #[serde(skip)]
    own_positions: usize,
    /// Tokens by which the question may be longer than the one that is counted.
    #[serde(skip)]
    question_room: usize,
    /// Rows that one batch has to take.
    #[serde(skip)]
    at_once: usize,
}

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

/// A video that was opened, and what will be made of it.
#[derive(Debug)]
pub(super) struct Proposal {
    pub source: FrameSource,
    pub timings: EncodeTimings,
    /// In the place of the session's, if images are made smaller.
    pub layout: Option<Box<dyn Layout>>,
    /// The frames that are taken.
    pub sampling: Sampling,
    pub asked: Need,
    pub need: Need,
    /// Visual tokens of this video that are kept at most.
    pub max_kept: Option<usize>,
    pub changes: Vec<String>,
    /// The frames are to be chosen by what changes: see [`Fit::survey`].
    pub by_changes: bool,
    /// What `max_kept` means, in words: worth saying when it is reached.
    pub capped: Option<String>,
    /// What was short of what was asked for.
    first_shortage: Option<Shortage>,
    /// What is still short.
    pub shortage: Option<Shortage>,
}

/// A prompt without the video that is to be added.
struct Without {
    message: Message,
    rows: usize,
    next_position: i32,
    /// Tokens by which the question may become longer.
    question_room: usize,
}

/// Whether a video fits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fitting {
    Fits,
    /// If no more than this number of its visual tokens is kept.
    Capped(usize, Shortage),
    Short(Shortage),
}

impl Fitting {
    /// What is short of the dense prompt.
    fn shortage(self) -> Option<Shortage> {
        match self {
            Self::Fits => None,
            Self::Capped(_, shortage) | Self::Short(shortage) => Some(shortage),
        }
    }
}

/// What decides whether a video fits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit<'a> {
    pub engine: &'a Engine,
    pub conversation: &'a Conversation,
    pub params: &'a SessionParams,
    /// What the present context takes. It would make room.
    pub present: MemoryUsage,
}

impl Fit<'_> {
    /// See [`Session::plan_video`](super::Session::plan_video).
    pub fn plan_video(&self, origin: Origin<'_>, options: &VideoOptions, question: &str) -> Result<VideoPlan> {
        let proposal = self.propose(origin, options, question)?;
        let (asked, need) = (proposal.asked, proposal.need);
        let cost = self.engine.cell_cost(self.params, self.n_ubatch(need.at_once))?;
        let shortage = proposal.shortage.or(proposal.first_shortage);
        let free = self.free_beside_encoder();
        let encoder_buffers = free.as_ref().map_or(0, |free| self.encoder_buffers(free));
        let cells = need.prompt_tokens + self.params.n_predict;
        let kv_dense = cost.kv_bytes(cells);
        let encode = self.encode_mode();
        let dropped = proposal.max_kept.map_or(0, |kept| need.visual_tokens.saturating_sub(kept));
        Ok(VideoPlan {
            info: proposal.source.info().clone(),
            layout: self.engine.layout.name(),
            asked,
            planned: need,
            times_s: proposal.source.planned_times().to_vec(),
            max_kept: proposal.max_kept,
            by_changes: proposal.by_changes,
            encode,
            raised_ubatch: self.raised_ubatch(&need),
            layers: self.engine.model.n_layer(),
            layers_free: self.params.layer_profile.as_ref().map(|profile| profile.free_layers().len()),
            fits: proposal.shortage.is_none(),
            shortage: shortage.map(|shortage| shortage.reason()),
            changes: proposal.changes.into_iter().chain(proposal.capped).collect(),
            suggestions: self.suggestions(asked, &cost, free.as_ref()),
            positions_limit: self.engine.model.n_ctx_train(),
            cells_limit: self.params.n_ctx,
            memory: MemoryNeed {
                weights: self.engine.model.size_bytes(),
                encoder: std::fs::metadata(self.engine.vision.path()).map_or(0, |meta| meta.len()),
                kv_per_token: cost.kv_per_cell as u64,
                kv_dense,
                kv: self.params.n_ctx.map_or_else(|| cost.kv_bytes(cells - dropped), |cells| cost.kv_bytes(cells)),
                compute: cost.bytes(cells) - kv_dense,
                encoder_buffers,
                encoder_cache: match encode {
                    EncodeMode::Exact => 0,
                    _ => self.engine.shape.cache_bytes(need.image).unwrap_or(0),
                },
                embeddings: self.embedding_bytes(need.visual_tokens),
                free: free.as_ref().map(|free| free.bytes),
                place: free.map_or_else(|| "RAM".to_owned(), |free| free.place),
            },
        })
    }

    /// Opens a video and makes it fit, if the user wants that and leaves room for it.
    pub(super) fn propose(&self, origin: Origin<'_>, options: &VideoOptions, question: &str) -> Result<Proposal> {
        let mut sampling = options.sampling(self.engine.layout.as_ref());
        let mut layout: Option<Box<dyn Layout>> = None;
        let without = self.without(question)?;
        let mut first: Option<(Need, Fitting)> = None;
        let mut attempts = ATTEMPTS;
        loop {
            let mut timings = EncodeTimings::default();
            let cancel = self.params.cancel.clone();
            let open = || FrameSource::of(origin, &sampling, move || cancel.is_cancelled());
            let source = timed(&mut timings.decode_video, open)?;
            if first.is_none()
                && let Some(more) = options.of_long(&sampling, self.engine.layout.as_ref(), source.info().duration_s)
            {
                sampling = more;
                continue;
            }
            let used_layout = layout.as_deref().unwrap_or(self.engine.layout.as_ref());
            let need = self.need(&source, used_layout, &without)?;
            let fitting = self.fitting(&need)?;
            let (asked, first_fitting) = *first.get_or_insert((need, fitting));
            let (max_kept, shortage) = match fitting {
                Fitting::Fits => (None, None),
                Fitting::Capped(max_kept, _) if self.params.fit => (Some(max_kept), None),
                // Pruning may make it short enough, or the prompt is refused behind it.
                Fitting::Capped(..) => (None, None),
                Fitting::Short(shortage) => (None, Some(shortage)),
            };
            let smaller = shortage
                .filter(|_| self.params.fit && attempts > 0)
                .and_then(|shortage| smaller(&shortage, &need, used_layout, sampling, options));
            attempts = attempts.saturating_sub(1);
            match smaller {
                Some(Smaller::Images(smaller)) => layout = Some(smaller),
                Some(Smaller::Frames(fewer)) => sampling = fewer,
                None => {
                    let first_shortage = first_fitting.shortage();
                    let changes = changes(&asked, &need, first_shortage);
                    let capped = max_kept.zip(fitting.shortage()).map(|(max_kept, shortage)| {
                        let (of, reason) = (need.visual_tokens, shortage.reason());
                        format!(
                            "at most {max_kept} of {of} visual tokens are kept, however many are worth it: {reason}"
                        )
                    });
                    let n_looks = Survey::n_looks(source.info(), &sampling);
                    let by_changes =
                        sampling.is_spread(source.info().duration_s) && options.choice.looks(need.frames, n_looks);
                    return Ok(Proposal {
                        source,
                        by_changes,
                        timings,
                        layout,
                        sampling,
                        asked,
                        need,
                        max_kept,
                        changes,
                        capped,
                        first_shortage,
                        shortage,
                    });
                }
            }
        }
    }

    /// Looks over the video of `proposal`, and chooses as many frames as were planned by what changes: a few less,
    /// where their times take more of the prompt. Gives what is told of the look.
    pub(super) fn survey(
        &self,
        origin: Origin<'_>,
        proposal: &mut Proposal,
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<SurveyReport> {
        let without = self.without(question)?;
        let layout = proposal.layout.as_deref().unwrap_or(self.engine.layout.as_ref());
        let per_slice = layout.frames().per_slice.max(1);
        let cancel = self.params.cancel.clone();
        let stop = move || cancel.is_cancelled();
        let (sampling, info) = (proposal.sampling, proposal.source.info().clone());
        let mut taken = Duration::ZERO;
        let survey = timed(&mut taken, || {
            let progress = |done, total| observer.progress(Stage::Survey, done, total);
            Survey::of(origin, &info, &sampling, stop.clone(), progress)
        })?;
        let mut slices = (proposal.need.frames / per_slice).max(1);
        loop {
            let times = with_companions(&survey.moments(slices), per_slice, info.duration_s);
            proposal.source = timed(&mut taken, || FrameSource::at_times(origin, &sampling, times, stop.clone()))?;
            let need = self.need(&proposal.source, layout, &without)?;
            if !matches!(self.fitting(&need)?, Fitting::Short(_)) || slices == 1 {
                break;
            }
            slices -= (slices / 50).max(1);
        }
        proposal.timings.decode_video += taken;
        Ok(survey.report())
    }

    /// What the prompt of `question` takes without the video that is to be added.
    fn without(&self, question: &str) -> Result<Without> {
        let message = self.conversation.user_message(self.engine.layout.as_ref(), question);
        let plan = render::plan(self.engine, self.conversation, &message, self.params.tokenization)?;
        let question = self.engine.model.tokenize(question, false, false)?.len();
        Ok(Without {
            message,
            rows: plan.rows.len(),
            next_position: plan.next_position,
            question_room: QUESTION.saturating_sub(question),
        })
    }

    /// What the frames of `source` take, unpruned, in a prompt that is `without` them.
    fn need(&self, source: &FrameSource, layout: &dyn Layout, without: &Without) -> Result<Need> {
        let Engine { model, vision, .. } = self.engine;
        let conversation = self.conversation;
        let (times, fps) = (source.planned_times(), source.sampled_fps());
        let arrangement = Arrangement::new(layout, source.info(), times, fps, vision.uses_mrope());
        let markers = Markers::of(model, vision, &arrangement)?;
        let index = conversation.videos.len();
        let mut message = without.message.clone();
        message.media.push(conversation.media(self.engine.layout.as_ref(), index, &arrangement, source.info()));
        let own = Placed { arrangement: &arrangement, markers: &markers, slices: None };
        let videos: Vec<Placed<'_>> =
            conversation.videos.iter().map(|video| Placed::from(video.as_ref())).chain([own]).collect();
        let plan = render::plan_with(self.engine, conversation, &message, &videos, self.params.tokenization)?;
        let is_own = |row: &&PlannedRow| matches!(row.key, RowKey::Visual { video, .. } if video == index);
        Ok(Need {
            frames: arrangement.n_frames,
            slices: arrangement.n_slices(),
            image: arrangement.image_size,
            visual_tokens: plan.rows.iter().filter(is_own).count(),
            prompt_tokens: plan.rows.len(),
            positions: plan.next_position.max(0) as usize,
            own_rows: plan.rows.len().saturating_sub(without.rows),
            own_positions: (plan.next_position - without.next_position).max(0) as usize,
            question_room: without.question_room,
            at_once: plan.rows_at_once(self.engine),
        })
    }

    /// What a prompt may take.
    pub(super) fn limits(&self) -> Limits {
        Limits { positions: self.engine.model.n_ctx_train(), cells: self.params.n_ctx }
    }

    /// Whether a video fits, and how many of its visual tokens can be kept if that helps.
    fn fitting(&self, need: &Need) -> Result<Fitting> {
        let room = ANSWER_ROOM.min(self.params.n_predict) + need.question_room;
        let positions = (need.positions + room) as u64;
        let own_positions = need.own_positions as u64;
        let limit = self.engine.model.n_ctx_train() as u64;
        if let Some(shortage) = Shortage::of(Resource::Positions, positions, limit, own_positions) {
            return Ok(Fitting::Short(shortage));
        }
        let own_rows = need.own_rows as u64;
        let (shortage, cells) = match self.params.n_ctx {
            Some(cells) => {
                let needed = (need.prompt_tokens + room) as u64;
                (Shortage::of(Resource::Cells, needed, cells as u64, own_rows), cells.saturating_sub(room))
            }
            None => (None, usize::MAX),
        };
        let (memory, in_memory) = self.memory_shortage(need)?;
        let Some(shortage) = shortage.or(memory) else { return Ok(Fitting::Fits) };
        // Where tokens are pruned, the prompt is shorter than this; the pruning only has to be told how short.
        let text = need.prompt_tokens - need.visual_tokens;
        let max_kept = cells.min(in_memory).saturating_sub(text).min(need.visual_tokens);
        let helps = self.params.prune.method.prunes() && max_kept as f64 >= LEAST_KEPT * need.visual_tokens as f64;
        Ok(if helps && max_kept > 0 { Fitting::Capped(max_kept, shortage) } else { Fitting::Short(shortage) })
    }

    /// What memory is short, and how many rows of a prompt fit.
    fn memory_shortage(&self, need: &Need) -> Result<(Option<Shortage>, usize)> {
        let Some(free) = self.free_memory() else { return Ok((None, usize::MAX)) };
        let cells = need.prompt_tokens + need.question_room + self.params.n_predict;
        let n_ubatch = self.n_ubatch(need.at_once);
        if is_surely_free(self.engine, &free, cells.max(n_ubatch)) {
            return Ok((None, usize::MAX));
        }
        let cost = self.engine.cell_cost(self.params, n_ubatch)?;
        let embeddings = if free.is_system { self.embedding_bytes(need.visual_tokens) } else { 0 };
        let own = (cost.kv_per_cell * need.own_rows as f64) as u64 + embeddings;
        let Some(free) = self.free_beside_encoder() else { return Ok((None, usize::MAX)) };
        let shortage = Shortage::of(Resource::Memory, cost.bytes(cells) + embeddings, free.bytes, own);
        let rows = cost.cells_in(free.bytes.saturating_sub(embeddings));
        Ok((shortage, rows.saturating_sub(need.question_room + self.params.n_predict)))
    }

    /// What is short of `free` memory for a context with `cells`, batches of `at_once` rows or more, and the embeddings
    /// of `tokens`.
    pub(super) fn short_of_memory(
        &self,
        free: &FreeMemory,
        (cells, at_once): (usize, usize),
        tokens: usize,
    ) -> Result<Option<Shortage>> {
        let n_ubatch = self.n_ubatch(at_once);
        if is_surely_free(self.engine, free, cells.max(n_ubatch)) {
            return Ok(None);
        }
        let embeddings = if free.is_system { self.embedding_bytes(tokens) } else { 0 };
        let needed = self.engine.cell_cost(self.params, n_ubatch)?.bytes(cells) + embeddings;
        Ok(Shortage::of(Resource::Memory, needed, free.bytes, needed))
    }

    /// Rows that are computed at once where one batch has to take `at_once`.
    fn n_ubatch(&self, at_once: usize) -> usize {
        self.params.compute.n_ubatch.max(at_once)
    }

    /// The same, where that is more than was asked for.
    pub(super) fn raised_ubatch(&self, need: &Need) -> Option<usize> {
        Some(need.at_once).filter(|&at_once| at_once > self.params.compute.n_ubatch)
    }

    /// How much of each frame will be encoded. What is not pruned by SharpV has to be finished.
    fn encode_mode(&self) -> EncodeMode {
        let params = &self.params.encode.of(self.params.prune.method);
        // What cannot be done was refused when it was asked for.
        let mode = self.engine.shape.mode(params).unwrap_or(EncodeMode::Exact);
        match mode {
            EncodeMode::Fast if !self.params.prune.method.is_causal() => EncodeMode::Reuse,
            EncodeMode::Stop if !self.params.prune.method.is_causal() => EncodeMode::Exact,
            mode => mode,
        }
    }

    /// Bytes of the embeddings of so many visual tokens.
    pub(super) fn embedding_bytes(&self, visual_tokens: usize) -> u64 {
        (visual_tokens * self.engine.model.n_embd_inp() * size_of::<f32>()) as u64
    }

    /// The memory that the KV cache can take, that of the present one included. The encoder may want some of it.
    fn free_memory(&self) -> Option<FreeMemory> {
        self.free_without(|_| 0)
    }

    /// The same without what the encoder will want.
    pub(super) fn free_beside_encoder(&self) -> Option<FreeMemory> {
        self.free_without(|free| self.encoder_buffers(free))
    }

    fn free_without(&self, other: impl Fn(&FreeMemory) -> u64) -> Option<FreeMemory> {
        free_for_context(self.engine, self.params, self.present, other)
    }

    /// What the vision encoder takes of the memory that is `free`, weights and buffers.
    fn encoder_bytes(&self, free: &FreeMemory) -> u64 {
        let need = self.engine.encoder_need(self.params);
        need.iter().filter(|need| (need.device == "CPU") == free.is_system).map(|need| need.usage.total()).sum()
    }

    /// Of that, what it does not have yet: its buffers, until the first image.
    fn encoder_buffers(&self, free: &FreeMemory) -> u64 {
        if self.engine.vision.has_encoded() {
            return 0;
        }
        // All weights are on one device.
        let weights = std::fs::metadata(self.engine.vision.path()).map_or(0, |meta| meta.len());
        let bytes = self.encoder_bytes(free);
        bytes.checked_sub(weights).unwrap_or(bytes)
    }

    fn suggestions(&self, asked: Need, cost: &CellCost, free: Option<&FreeMemory>) -> Suggestions {
        let room = ANSWER_ROOM.min(self.params.n_predict) + asked.question_room;
        let (others, other_rows) = (asked.positions - asked.own_positions, asked.prompt_tokens - asked.own_rows);
        let by_memory = free.map_or(usize::MAX, |free| {
            let embeddings = if free.is_system { self.embedding_bytes(asked.visual_tokens) } else { 0 };
            let cells = cost.cells_in(free.bytes.saturating_sub(embeddings));
            cells.saturating_sub(asked.question_room + self.params.n_predict)
        });
        let rows = by_memory.min(self.params.n_ctx.map_or(usize::MAX, |cells| cells.saturating_sub(room)));
        let positions = self.engine.model.n_ctx_train().saturating_sub(room + others);
        let share = |left: usize, of: usize| if of == 0 { 1.0 } else { (left as f64 / of as f64).min(1.0) };
        let frames = share(positions, asked.own_positions).min(share(rows.saturating_sub(other_rows), asked.own_rows));
        let text = asked.prompt_tokens - asked.visual_tokens;
        let keep = share(rows.saturating_sub(text), asked.visual_tokens);
        Suggestions {
            max_frames: (asked.frames as f64 * frames) as usize,
            keep: (keep > 0.0 && positions >= asked.own_positions).then_some((keep * 1000.0).floor() / 1000.0),
            ctx_size: asked.prompt_tokens + asked.question_room + self.params.n_predict,
        }
    }
}

/// Whether memory holds a context with `cells` that computes `n_ubatch` rows at once, in the place of what takes
/// `present`.
pub(super) fn holds_context(
    engine: &Engine,
    params: &SessionParams,
    present: MemoryUsage,
    (cells, n_ubatch): (usize, usize),
) -> Result<bool> {
    let Some(free) = free_for_context(engine, params, present, |_| 0) else { return Ok(true) };
    Ok(is_surely_free(engine, &free, cells.max(n_ubatch))
        || engine.cell_cost(params, n_ubatch)?.bytes(cells) <= free.bytes)
}

/// The memory that a context can take in the place of what takes `present`, less what is wanted of it for `other`.
fn free_for_context(
    engine: &Engine,
    params: &SessionParams,
    present: MemoryUsage,
    other: impl Fn(&FreeMemory) -> u64,
) -> Option<FreeMemory> {
    let mut free = FreeMemory::for_kv(&engine.model, params.compute.offload_kv, other)?;
    free.bytes = free.bytes.saturating_add(present.context + present.compute);
    if let Some(limit) = params.max_memory {
        free.bytes = free.bytes.min(limit);
    }
    Some(free)
}

fn is_surely_free(engine: &Engine, free: &FreeMemory, cells: usize) -> bool {
    // Four times what keys and values of the model's width take as 32-bit floats.
    let surely = 32 * (cells * engine.model.n_layer() * engine.model.n_embd()) as u64;
    (surely as f64) < SURELY_FREE * free.bytes as f64
}

/// The frames of slices that begin at `moments`. Where two frames make a slice, the second is half a second later, as
/// models with such slices are used to it; two distant images in one would be a blend of both.
fn with_companions(moments: &[f64], per_slice: usize, duration_s: Option<f64>) -> Vec<f64> {
    const STEP_S: f64 = 0.5;
    let mut times = Vec::with_capacity(moments.len() * per_slice);
    for (i, &moment) in moments.iter().enumerate() {
        let next = moments.get(i + 1).copied().or(duration_s).unwrap_or(f64::INFINITY);
        let step = STEP_S.min((next - moment) / per_slice as f64).max(0.0);
        times.extend((0..per_slice).map(|k| moment + k as f64 * step));
    }
    times
}

/// What is made smaller next.
enum Smaller {
    Images(Box<dyn Layout>),
    Frames(Sampling),
}

fn smaller(
    shortage: &Shortage,
    need: &Need,
    layout: &dyn Layout,
    sampling: Sampling,
    options: &VideoOptions,
) -> Option<Smaller> {
    // A little less than what fits: sizes come in steps.
    let share = shortage.share() * 0.98;
    let per_slice = need.visual_tokens / need.slices.max(1);
    if let Some((least, _)) = layout.slice_tokens()
        && per_slice > least
    {
        let fewer = ((per_slice as f64 * share) as usize).clamp(least, per_slice - 1);
        return layout.with_slice_tokens(fewer).map(Smaller::Images);
    }
    let frames = (need.frames as f64 * share) as usize;
    if options.max_frames.is_some() || frames == 0 {
        return None;
    }
    let frames = frames.min(need.frames - 1).max(1);
    let rate = match sampling.rate {
        Rate::Uniform { .. } => Rate::Uniform { frames },
        Rate::Fps { fps, .. } => Rate::Fps { fps, max_frames: frames },
    };
    Some(Smaller::Frames(Sampling { rate, ..sampling }))
}

/// What is done less than asked, in words.
fn changes(asked: &Need, need: &Need, shortage: Option<Shortage>) -> Vec<String> {
    let reason = shortage.map(|shortage| shortage.reason()).unwrap_or_default();
    let mut changes = Vec::new();
    if need.image != asked.image {
        let [(w, h), (asked_w, asked_h)] = [need.image, asked.image];
        changes.push(format!("images of {w}×{h} in place of {asked_w}×{asked_h} pixels: {reason}"));
    }
    if need.frames != asked.frames {
        changes.push(format!("{} of {} frames, spread evenly: {reason}", need.frames, asked.frames));
    }
    changes
}
