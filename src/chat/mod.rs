//! The session: videos and questions in, answers out.
//!
//! A turn goes plan → encode → prune → prefill → decode. A session keeps the KV cache and the embeddings of the kept visual tokens, so that a
//! second question about a video neither encodes nor prefills it again.

mod answer_start;
mod arrangement;
mod encode;
mod evict;
mod fit;
mod generate;
mod guard;
mod limits;
mod memory;
mod observer;
mod open;
mod plan;
mod prefill;
mod report;
mod reprune;
mod save;
mod template;
mod utf8;

pub use evict::{EvictMode, EvictParams};
pub use fit::{MemoryNeed, Need, Suggestions, VideoPlan};
pub use observer::{Observer, Quiet, Stage};
pub use plan::{PlannedRow, RowKey, Tokenization};
pub use prefill::PrefillMode;
pub use report::{Answer, Kv, Settings, SliceReport, StopReason, Timings, Tokens, VisualTokens};
pub use template::{Media, Message, Role};

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::prune::{Method, PruneParams};
use crate::runtime::{
    CancelToken, Context, ContextParams, LoraAdapter, Model, ModelParams, SamplerParams, Vision, VisionParams,
    default_threads, peak_rss_bytes,
};
use crate::video::{Kind, Rate, Sampling, VideoInfo};
use arrangement::Arrangement;
use encode::{EncodeTimings, EncodedVideo, Encoder};
use evict::{Evicted, Tail};
use limits::Limits;
use memory::{CELL_STEP, CellCost};
use plan::{Marks, Piece, Placed, Plan};
use prefill::{Batching, Inputs};
use std::cell::OnceCell;
use std::path::Path;
use std::time::{Duration, Instant};

/// How to open a [`Session`].
#[derive(Debug, Clone)]
pub struct SessionParams {
    /// The language model.
    pub model: ModelParams,
    /// The vision encoder.
    pub vision: VisionParams,
    /// The context; its `n_ctx` is not used, see [`n_ctx`](Self::n_ctx).
    pub context: ContextParams,
    /// Cells of the KV cache. `None` sizes it to what the prompt needs after pruning, plus room for an answer, and lets it
    /// grow with the conversation.
    pub n_ctx: Option<usize>,
    /// Take fewer frames, smaller pictures or fewer visual tokens where a video does not fit the model, the context or memory and nothing else
    /// was asked for. Without it, such a video is an error.
    pub fit: bool,
    /// Memory for KV cache and buffers, in bytes, where less than what is free should be taken.
    pub max_memory: Option<u64>,
    /// Which visual tokens to keep.
    pub prune: PruneParams,
    /// Keep the embeddings of all visual tokens in memory, so that [`Session::set_prune`] can select anew from them.
    pub keep_unpruned: bool,
    /// Which of them leave the KV cache again, behind the prefill.
    pub evict: EvictParams,
    /// How tokens are chosen.
    pub sampler: SamplerParams,
    /// The most tokens an answer may have.
    pub n_predict: usize,
    /// The prompt layout, by name; `None` takes that of the model's family.
    pub layout: Option<String>,
    /// Cut frames into tiles, as the encoder does with single pictures, where it does: many more visual tokens.
    pub tile: bool,
    /// A system message; `None` leaves it to the chat template.
    pub system: Option<String>,
    /// A chat template (Jinja) to use in place of the model's own.
    pub chat_template: Option<String>,
    /// How the text around frames becomes tokens.
    pub tokenization: Tokenization,
    /// How text and visual tokens are batched.
    pub prefill: PrefillMode,
    /// Stops the session's work.
    pub cancel: CancelToken,
}

impl Default for SessionParams {
    fn default() -> Self {
        Self {
            model: ModelParams::default(),
            vision: VisionParams::default(),
            context: ContextParams::default(),
            n_ctx: None,
            fit: true,
            max_memory: None,
            prune: PruneParams::default(),
            keep_unpruned: false,
            evict: EvictParams::default(),
            sampler: SamplerParams::default(),
            n_predict: 512,
            layout: None,
            tile: false,
            system: None,
            chat_template: None,
            tokenization: Tokenization::Joined,
            prefill: PrefillMode::Auto,
            cancel: CancelToken::new(),
        }
    }
}

/// Which frames of a video to take. What is left out is as the model's family wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct VideoOptions {
    /// Frames for each second of video.
    pub fps: Option<f64>,
    /// The most frames to take; without `fps`, the number of frames, spread evenly.
    pub max_frames: Option<usize>,
    /// Where to begin, in seconds.
    pub start_s: Option<f64>,
    /// Where to end, in seconds.
    pub end_s: Option<f64>,
    /// Frames for each second of a folder of frames; 1 if not given.
    pub folder_fps: Option<f64>,
}

impl VideoOptions {
    fn sampling(&self, layout: &dyn Layout) -> Sampling {
        let frames = layout.frames();
        let rate = match (self.fps, self.max_frames) {
            (Some(fps), max) => Rate::Fps { fps, max_frames: max.unwrap_or(frames.max) },
            (None, None) => frames.rate,
            (None, Some(max)) => match frames.rate {
                Rate::Uniform { .. } => Rate::Uniform { frames: max },
                Rate::Fps { fps, .. } => Rate::Fps { fps, max_frames: max },
            },
        };
        // Who asks for a rate gets it, with an odd frame at the end if it comes so.
        let (min_frames, multiple_of) = if self.fps.is_none() { (frames.min, frames.per_slice) } else { (1, 1) };
        let default = Sampling::default();
        Sampling {
            rate,
            start_s: self.start_s,
            end_s: self.end_s,
            folder_fps: self.folder_fps.unwrap_or(default.folder_fps),
            min_frames,
            multiple_of,
        }
    }
}

/// A video that was added to a session.
#[derive(Debug, Clone)]
pub struct VideoReport {
    /// What was opened.
    pub info: VideoInfo,
    /// Its frames.
    pub slices: Vec<SliceReport>,
    /// Its visual tokens.
    pub visual_tokens: VisualTokens,
}

/// A conversation about videos.
///
/// Every method that fails leaves the session as it was before the call.
#[derive(Debug)]
pub struct Session {
    // Dropped before what it was made from.
    context: Option<Context>,
    vision: Vision,
    adapters: Vec<LoraAdapter>,
    model: Model,
    params: SessionParams,
    template: template::ChatTemplate,
    layout: Box<dyn Layout>,
    /// The encoder's embedding of a line end, `[n_embd_inp]`, if it has one.
    newline: Option<Vec<f32>>,
    marks: Marks,
    /// How every answer begins: see [`set_answer_start`](Self::set_answer_start).
    answer_start: String,
    messages: Vec<Message>,
    videos: Vec<EncodedVideo>,
    /// How many of `videos` stand in `messages`; the others go into the next question.
    videos_sent: usize,
    /// What was spent on the videos that were not sent yet.
    spent: EncodeTimings,
    /// The rows in the KV cache, and those that were evicted from it.
    cached: Vec<PlannedRow>,
    /// What was evicted from `cached`, and what was measured of it.
    evicted: Evicted,
    /// Rows that the last prompt would have had if nothing had been pruned.
    dense_rows: usize,
    /// Bytes of a cell in all layers.
    bytes_per_cell: u64,
    /// What cells cost, once that was measured.
    cell_cost: OnceCell<CellCost>,
    /// Of the model, the mmproj and the adapters, once a session is saved or loaded.
    fingerprints: OnceCell<save::Fingerprints>,
    load: Duration,
}

impl Session {
    /// Decodes, encodes and prunes a video, for the next question.
    ///
    /// # Errors
    /// What [`FrameSource::open`](crate::video::FrameSource::open) gives for a file that cannot be used;
    /// [`Error::PromptTooLong`] if its frames do not fit the model, before any is encoded; [`Error::Cancelled`].
    pub fn add_video(
        &mut self,
        path: &Path,
        options: &VideoOptions,
        observer: &mut dyn Observer,
    ) -> Result<VideoReport> {
        self.add_video_for(path, options, "", observer)
    }

    /// As [`add_video`](Self::add_video), and leaves room for `question`: one that is too long is told before a frame is encoded.
    ///
    /// # Errors
    /// As [`add_video`](Self::add_video).
    pub fn add_video_for(
        &mut self,
        path: &Path,
        options: &VideoOptions,
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<VideoReport> {
        let proposal = self.propose(path, options, question)?;
        if let Some(shortage) = proposal.shortage {
            return Err(shortage.error(path, proposal.need.frames));
        }
        for change in &proposal.changes {
            observer.warning(&format!("{}: {change}", path.display()));
        }
        let cap = self.params.prune.cap.into_iter().chain(proposal.max_kept).min();
        let prune = PruneParams { cap, ..self.params.prune.clone() };
        let mut encoder = Encoder {
            model: &self.model,
            vision: &mut self.vision,
            layout: proposal.layout.as_deref().unwrap_or(self.layout.as_ref()),
            prune: &prune,
            keep_unpruned: self.params.keep_unpruned,
            cancel: &self.params.cancel,
        };
        let mut video = encoder.encode(proposal.source, proposal.timings, observer)?;
        video.max_kept = proposal.max_kept;
        let slices = slice_reports(std::slice::from_ref(&video));
        let report = VideoReport { info: video.info.clone(), visual_tokens: count(&slices), slices };
        if let Some(capped) = proposal.capped.filter(|_| Some(report.visual_tokens.kept) == proposal.max_kept) {
            observer.warning(&format!("{}: {capped}", path.display()));
        }
        self.spent += video.timings;
        self.videos.push(video);
        Ok(report)
    }

    /// Asks `question` about the videos that were added, in the light of the conversation so far. The answer streams to `observer`.
    ///
    /// A stop through the [`CancelToken`] during the answer gives what there is of it; during the prefill it is
    /// [`Error::Cancelled`].
    ///
    /// # Errors
    /// [`Error::PromptTooLong`], [`Error::ContextFull`], [`Error::ChatTemplate`], [`Error::Cancelled`], and [`Error::Llama`] if
    /// computing fails.
    pub fn ask(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Answer> {
        self.settle(observer)?;
        let start = Instant::now();
        let message = self.user_message(question);
        let plan = self.plan(&message)?;
        let first = self.prefill(&plan, observer)?;
        self.dense_rows = plan.dense_rows;
        let prefill = start.elapsed();
        let generated = self.generate(&plan, observer)?;
        if let Some(context) = self.context.as_mut().filter(|_| self.evicted.pending.is_some()) {
            // Nothing was evicted yet; the curve is there to be looked at.
            self.evicted.measure(context)?;
        }

        self.messages.push(message);
        self.messages.push(Message::text(Role::Assistant, format!("{}{}", self.answer_start, generated.text)));
        self.videos_sent = self.videos.len();
        let spent = std::mem::take(&mut self.spent);
        let before = spent.decode_video + spent.encode + spent.prune;
        let slices = slice_reports(&self.videos);
        Ok(Answer {
            answer: generated.text.trim().to_owned(),
            stop: generated.stop,
            model: self.model.description(),
            frames: self.videos.iter().map(|video| video.arrangement.n_frames).sum(),
            visual_tokens: count(&slices),
            slices,
            timings_ms: Timings {
                load: ms(self.load),
                decode_video: ms(spent.decode_video),
                encode: ms(spent.encode),
                prune: ms(spent.prune),
                prefill: ms(prefill),
                ttft: ms(before + generated.first_token_at.duration_since(start)),
                evict: ms(generated.evict),
                generate: ms(generated.decode),
            },
            tokens: Tokens {
                prompt: plan.rows.len(),
                prompt_computed: plan.rows.len() - first,
                generated: generated.n_tokens,
            },
            kv: self.kv(),
            similarity: self.evicted.similarity.layers.clone(),
            peak_rss_bytes: peak_rss_bytes(),
            settings: self.settings(),
        })
    }

    /// Computes the prompt of `question` and returns the logits of the answer's first token, `[n_vocab]`; the conversation stays as it was.
    ///
    /// For comparing methods and for scoring choices by their likelihood.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn first_logits(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Vec<f32>> {
        self.settle(observer)?;
        let message = self.user_message(question);
        let plan = self.plan(&message)?;
        self.prefill(&plan, observer)?;
        self.read_logits(|context| context.logits().map(<[f32]>::to_vec))
    }

    /// Forgets the conversation and its videos, and frees the KV cache.
    pub fn clear(&mut self) {
        self.free_cache();
        self.messages.clear();
        self.videos.clear();
        self.videos_sent = 0;
        self.spent = EncodeTimings::default();
    }

    /// Forgets the questions and answers, and keeps the videos for the next question: for independent questions about the same videos. They are
    /// neither encoded nor prefilled again. What was evicted stays evicted: see [`free_cache`](Self::free_cache).
    pub fn restart(&mut self) {
        self.messages.clear();
        self.videos_sent = 0;
    }

    /// Frees the KV cache while the session waits. The next question computes the conversation anew, from the embeddings that were kept.
    pub fn free_cache(&mut self) {
        self.context = None;
        self.forget_cached();
    }

    /// The cache is empty.
    fn forget_cached(&mut self) {
        self.cached.clear();
        self.evicted.clear();
    }

    /// Changes what is evicted, from the next question on. Frees the KV cache, as [`free_cache`](Self::free_cache) does.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the threshold is no cosine.
    pub fn set_evict(&mut self, evict: EvictParams) -> Result<()> {
        evict.validate()?;
        self.params.evict = evict;
        self.evicted = Evicted::default();
        self.free_cache();
        Ok(())
    }

    /// How similar the visual tokens in the cache were to what entered the model, for each of its layers, when the last answer began: the mean
    /// cosine of a layer's input with the tokens' embeddings. Empty if nothing was measured: no video, or nothing is evicted
    /// ([`EvictMode::Off`]). NaN for a layer without a value.
    pub fn similarity(&self) -> &[f32] {
        &self.evicted.similarity.layers
    }

    fn evict_mode(&self) -> EvictMode {
        self.params.evict.mode(self.params.prune.method != Method::Off)
    }

    /// Sets the system message, for the next question and those after it. `None` leaves it to the chat template.
    pub fn set_system(&mut self, system: Option<String>) {
        self.params.system = system;
    }

    /// The conversation so far, without the system message.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The videos of the conversation, and those that wait for the next question.
    pub fn videos(&self) -> impl ExactSizeIterator<Item = &VideoInfo> {
        self.videos.iter().map(|video| &video.info)
    }

    /// The flag that stops this session's work.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.params.cancel
    }

    /// The language model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The layout of its prompts.
    pub fn layout(&self) -> &dyn Layout {
        self.layout.as_ref()
    }

    /// The prompt of `question` as text, with a mark in place of each frame. For looking at what a model is given.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`].
    pub fn prompt_text(&self, question: &str) -> Result<String> {
        Ok(self.render(&self.user_message(question))?.replace(&self.marks.cut(), ""))
    }

    /// The rows that [`ask`](Self::ask) would feed to the model for `question`, and their positions. For looking at what a model is given.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`], [`Error::PromptTooLong`].
    pub fn prompt_rows(&self, question: &str) -> Result<Vec<PlannedRow>> {
        Ok(self.plan(&self.user_message(question))?.rows)
    }

    fn user_message(&self, question: &str) -> Message {
        let media = self.videos.iter().enumerate().skip(self.videos_sent);
        let media = media.map(|(i, video)| self.media(i, &video.arrangement, &video.info)).collect();
        Message { role: Role::User, media, content: question.to_owned() }
    }

    fn media(&self, video: usize, arrangement: &Arrangement, info: &VideoInfo) -> Media {
        Media {
            text: plan::marked_text(&self.marks, video, &arrangement.parts),
            separator: self.layout.separator().to_owned(),
            is_picture: info.kind == Kind::Picture,
        }
    }

    fn render(&self, message: &Message) -> Result<String> {
        let system = self.params.system.iter().map(|text| Message::text(Role::System, text.clone()));
        let messages: Vec<Message> =
            system.chain(self.messages.iter().cloned()).chain(std::iter::once(message.clone())).collect();
        let messages = self.template.guarded(messages, &self.marks.cut());
        Ok(self.template.render(&messages)? + &self.answer_start)
    }

    /// The prompt that ends with `message`, cut at the places of slices.
    fn pieces(&self, message: &Message) -> Result<Vec<Piece>> {
        let prompt = self.render(message)?;
        // The tokenizer adds the BOS token itself; a template that writes it as well must not make it two.
        let bos = self.template.bos();
        let text = if self.model.adds_bos() && !bos.is_empty() {
            prompt.strip_prefix(bos).unwrap_or(&prompt)
        } else {
            &prompt
        };
        Ok(self.marks.split(text))
    }

    fn plan(&self, message: &Message) -> Result<Plan> {
        let pieces = self.pieces(message)?;
        let videos: Vec<Placed<'_>> = self.videos.iter().map(Placed::from).collect();
        let plan = plan::plan(&self.model, &self.vision, &pieces, &videos, self.params.tokenization)?;
        let limits = Limits { positions: self.model.n_ctx_train(), cells: self.params.n_ctx };
        limits.check_prompt(&plan, self.params.n_predict)?;
        Ok(plan)
    }

    /// Brings the KV cache from what it holds to `plan`. Returns how many rows of the plan were there already.
    fn prefill(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<usize> {
        let keep = shared_rows(&self.cached, &plan.rows);
        self.make_room(plan, keep)?;
        let first = self.cut_back(keep)?;
        let inputs = Inputs { videos: &self.videos, newline: self.newline.as_deref() };
        let context = self.context.as_mut().ok_or_else(no_context)?;
        let how = (
            self.params.prefill,
            Batching { mixed: self.model.supports_mixed_batch(), non_causal: self.vision.uses_non_causal() },
        );
        if let Err(error) = prefill::prefill(context, plan, first, inputs, how, observer) {
            // Whole ubatches of this prompt may be in the cache.
            let next = plan.rows[first].position[0];
            if !context.truncate(next) {
                context.clear();
                self.forget_cached();
            }
            return Err(error);
        }
        self.cached.extend_from_slice(&plan.rows[first..]);
        // What is pending describes the prompt that was there before.
        let to_look_at = plan.rows[first..].iter().any(is_visual) || self.evicted.pending.is_some();
        if to_look_at && self.evict_mode() != EvictMode::Off {
            self.evicted.pending = Some(self.tail(plan));
        }
        Ok(first)
    }

    /// Cuts the cache back to its first `keep` rows. Returns how many are left: fewer if the model cannot go back.
    fn cut_back(&mut self, keep: usize) -> Result<usize> {
        let context = self.context.as_mut().ok_or_else(no_context)?;
        // A new context may hold nothing of what was there.
        let keep = keep.min(self.cached.len());
        let Some(next) = self.cached.get(keep).map(|row| row.position[0]) else { return Ok(keep) };
        if !context.truncate(next) {
            context.clear();
            self.forget_cached();
            return Ok(0);
        }
        self.evicted.truncate(next);
        self.cached.truncate(keep);
        Ok(keep)
    }

    /// Makes sure that there is a context with cells for the rows of `plan` and an answer, if `keep` rows of the cache stay.
    fn make_room(&mut self, plan: &Plan, keep: usize) -> Result<()> {
        // Layers without visual tokens have no rows for them either: where a video has to be computed again, all is.
        let evicted = |context: &Context| context.kv_layers().is_ok_and(|layers| layers.iter().any(|l| l.evicted));
        if self.cached.iter().skip(keep).any(is_visual) && self.context.as_ref().is_some_and(evicted) {
            self.free_cache();
        }
        let gone =
            self.cached.get(keep.wrapping_sub(1)).map_or(0, |row| self.evicted.tokens_before(row.position[0] + 1));
        let wanted = plan.rows.len() - gone.min(plan.rows.len()) + self.params.n_predict;
        let n_ctx = match (&self.context, self.params.n_ctx) {
            (Some(_), Some(_)) => return Ok(()),
            (Some(context), None) if context.n_ctx() >= wanted => return Ok(()),
            (None, Some(fixed)) => fixed,
            // Half as much again: a conversation that goes on does not pay for every turn.
            (Some(context), None) => wanted.max(context.n_ctx() * 3 / 2),
            (None, None) => wanted,
        };
        // What could not be moved is computed anew, from the embeddings that were kept.
        self.resize(n_ctx).map(|_| ())
    }

    fn context_params(&self, n_ctx: usize) -> ContextParams {
        let (evicts, looks) = (self.evict_mode() != EvictMode::Off, self.params.evict.threshold.is_none());
        ContextParams {
            n_ctx,
            evictable: evicts,
            // One to try evictions in.
            n_sequences: if evicts && looks { 2 } else { 1 },
            n_outputs: if evicts && looks { evict::LOOKED_AT } else { 1 },
            ..self.params.context.clone()
        }
    }

    /// Moves the cache to a context with `n_ctx` cells. Returns false if its contents could not be moved: the cache is then empty.
    fn resize(&mut self, n_ctx: usize) -> Result<bool> {
        let state = match self.context.as_mut() {
            Some(context) if !self.cached.is_empty() => Some(context.state()?),
            _ => None,
        };
        // Free the old cache before the new one is allocated: they need not fit at once.
        self.context = None;
        let cached = std::mem::take(&mut self.cached);
        let params = self.context_params(n_ctx);
        let made = Context::new(&self.model, &params, &self.adapters, &self.params.cancel);
        let mut context = made.inspect_err(|_| self.evicted.clear())?;
        self.bytes_per_cell = context.memory_usage().context / context.n_ctx().max(1) as u64;
        let moved = match state.map(|state| context.set_state(&state)) {
            Some(Ok(())) => {
                self.cached = cached;
                true
            }
            Some(Err(error)) => {
                tracing::debug!("{error}");
                false
            }
            None => true,
        };
        if self.cached.is_empty() {
            self.evicted.clear();
        }
        self.context = Some(context);
        Ok(moved)
    }

    /// What stands behind the last picture of `plan`.
    fn tail(&self, plan: &Plan) -> Tail {
        let start = behind_pictures(&plan.rows);
        let mut tail = Tail { question: plan.rows[start..].to_vec(), describe: Vec::new() };
        if self.evicted.has_to_look(self.params.evict.threshold) {
            match self.plan(&self.user_message(evict::DESCRIBE)) {
                Ok(other) if other.rows.get(..start) == Some(&plan.rows[..start]) => {
                    tail.describe = other.rows[start..].to_vec();
                }
                Ok(_) => {}
                // Without room for it, or with a template that refuses it, the question has to do.
                Err(error) => tracing::debug!("no second question to try evictions with: {error}"),
            }
        }
        tail
    }

    /// Evicts now what the last answer left to evict because it was too short to tell what can go. The next question would do it, and take
    /// longer. Does nothing if nothing is left.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and [`Error::Llama`] if computing fails.
    pub fn settle(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let (mode, threshold) = (self.evict_mode(), self.params.evict.threshold);
        let Some(tail) = self.evicted.pending.as_ref() else { return Ok(()) };
        let Some(context) = self.context.as_mut() else { return Ok(()) };
        if !context.can_evict() && self.params.evict.mode.is_some() {
            observer.warning("this model has no KV cache that can be evicted layer by layer: it stays whole");
        }
        // The answer stands behind the question, and both at the end of the cache.
        let answer = tail.question.last().map_or(0, |row| row.position[0] + 1);
        let answer = self.cached.iter().rposition(|row| row.position[0] < answer).map_or(0, |last| last + 1);
        match self.evicted.evict(mode, threshold, context, &self.cached[answer..]) {
            Ok(0) => Ok(()),
            // Cells that became free are memory only when the cache is made smaller.
            Ok(_) if self.params.n_ctx.is_none() => match self.resize(self.cells_used() + self.params.n_predict)? {
                true => Ok(()),
                // An answer cannot go on without what it answers.
                false => Err(Error::Llama {
                    action: "making the KV cache smaller",
                    reason: "its contents could not be moved; ask again".into(),
                }),
            },
            Ok(_) => Ok(()),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                observer.warning(&format!("the KV cache stays as it is: {error}"));
                Ok(())
            }
        }
    }

    fn cells_used(&self) -> usize {
        self.cached.len() - self.evicted.tokens_before(i32::MAX).min(self.cached.len())
    }

    /// The KV cache as it is now; all zero if there is none.
    pub fn kv(&self) -> Kv {
        let Some(context) = &self.context else { return Kv::default() };
        let (cells, bytes) = (context.n_ctx(), context.memory_usage().context);
        let layers = context.kv_layers().unwrap_or_default();
        let dense_cells = (self.dense_rows + self.params.n_predict).next_multiple_of(CELL_STEP).max(cells);
        Kv {
            cells,
            cells_used: self.cells_used(),
            bytes,
            bytes_dense: self.whole_bytes(dense_cells),
            layers: self.model.n_layer(),
            layers_fixed: layers.iter().filter(|layer| !layer.has_cells).count(),
            layers_evicted: layers.iter().filter(|layer| layer.evicted).count(),
            tokens_evicted: self.evicted.tokens_before(i32::MAX),
        }
    }

    /// Bytes of a KV cache with `cells` from which nothing was evicted.
    fn whole_bytes(&self, cells: usize) -> u64 {
        // Recurrent layers have a state of a fixed size beside the cells.
        let with_state = self.model.is_recurrent().then(|| self.cell_cost().ok()).flatten();
        with_state.map_or(self.bytes_per_cell * cells as u64, |cost| cost.kv_bytes(cells))
    }

    fn settings(&self) -> Settings {
        let context = &self.params.context;
        let caps = self.videos.iter().filter_map(|video| video.max_kept).chain(self.params.prune.cap);
        Settings {
            layout: self.layout.name(),
            prune: PruneParams { cap: caps.min(), ..self.params.prune.clone() },
            evict: EvictParams { mode: Some(self.evict_mode()), ..self.params.evict },
            sampler: self.params.sampler.clone(),
            n_predict: self.params.n_predict,
            n_ubatch: context.n_ubatch,
            n_threads: context.n_threads.unwrap_or_else(default_threads),
            cache_type: [context.type_k.name(), context.type_v.name()],
        }
    }
}

fn is_visual(row: &PlannedRow) -> bool {
    matches!(row.key, RowKey::Visual { .. } | RowKey::Newline)
}

/// Where the rows behind the last visual token begin.
fn behind_pictures(rows: &[PlannedRow]) -> usize {
    rows.iter().rposition(is_visual).map_or(0, |last| last + 1)
}

/// How many rows at the start of the cache can stay for `wanted`. At least one row of `wanted` is left to compute, for its logits.
fn shared_rows(cached: &[PlannedRow], wanted: &[PlannedRow]) -> usize {
    let equal = cached.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let mut keep = equal.min(wanted.len().saturating_sub(1));
    // The cache is cut by position, and under M-RoPE the rows of a picture share theirs: cut before the picture.
    let starts_behind = |keep: usize, next: &PlannedRow| wanted[keep - 1].position[0] >= next.position[0];
    while keep > 0 && [cached.get(keep), wanted.get(keep)].into_iter().flatten().any(|next| starts_behind(keep, next)) {
        keep -= 1;
    }
    keep
}

fn slice_reports(videos: &[EncodedVideo]) -> Vec<SliceReport> {
    let slices = videos.iter().flat_map(|video| &video.slices);
    slices.map(|s| SliceReport { time_s: s.time_s, total: s.n_tokens, kept: s.kept.len() }).collect()
}

fn count(slices: &[SliceReport]) -> VisualTokens {
    let (total, kept) = slices.iter().fold((0, 0), |(total, kept), s| (total + s.total, kept + s.kept));
    let keep_ratio = if total == 0 { 1.0 } else { kept as f64 / total as f64 };
    VisualTokens { total, kept, keep_ratio }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn no_context() -> Error {
    Error::Llama { action: "computing", reason: "there is no context; please report this".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{self, EncoderFacts};

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

    #[test]
    fn frames_asked_for_override_the_family() {
        let internvl = layout::InternVl::new(&EncoderFacts::default());
        let rate =
            |fps, max_frames| VideoOptions { fps, max_frames, ..VideoOptions::default() }.sampling(&internvl).rate;
        assert_eq!(rate(None, None), Rate::Uniform { frames: 8 });
        assert_eq!(rate(None, Some(4)), Rate::Uniform { frames: 4 });
        assert_eq!(rate(Some(2.0), None), Rate::Fps { fps: 2.0, max_frames: 32 });
        assert_eq!(rate(Some(2.0), Some(5)), Rate::Fps { fps: 2.0, max_frames: 5 });
        let general = VideoOptions { max_frames: Some(5), ..VideoOptions::default() }.sampling(&layout::General).rate;
        assert_eq!(general, Rate::Fps { fps: 1.0, max_frames: 5 });
    }
}
