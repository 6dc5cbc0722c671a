//! The session about live video.

use super::arrangement::{LiveArrangement, Stated};
use super::held::HeldSlices;
use super::params::{LiveParams, LivePolicy};
use super::recall::{Recall, part_of};
use super::state::{LiveState, Pushed};
use crate::chat::cache::evict::EvictParams;
use crate::chat::cache::{Cache, Kv, Learned};
use crate::chat::conversation::Conversation;
use crate::chat::encode::{Encoder, Running};
use crate::chat::encoded::{EncodeTimings, EncodedVideo, timed};
use crate::chat::engine::Engine;
use crate::chat::params::{SessionParams, check_answer};
use crate::chat::prompt::{self, Plan};
use crate::chat::report::{Answer, BeforeTurn, EncoderWork, count, ms};
use crate::chat::rows::{PlannedRow, RowKey};
use crate::chat::search::{LEAST_PARTS, PART, Question};
use crate::chat::session::{KeptTokens, Session};
use crate::chat::turn::Chat;
use crate::error::{Error, Result};
use crate::layout::{FrameCount, Size, SliceCount, SliceTime};
use crate::models::ModelFiles;
use crate::observer::Observer;
use crate::prune::CausalPruner;
use crate::runtime::{Model, Sampler, SamplerParams};
use crate::video::{Frame, Kind, VideoInfo, check_image};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Positions that are always reserved for a question.
pub(super) const QUESTION: usize = 64;

/// How many slices may arrive for each held slice before a rebase, so that its cost is spread over them.
const SLICES_FOR_EACH: usize = 4;

/// How many slices may arrive before a rebase, however few are held.
const LEAST_SLICES: usize = 64;

/// A conversation about live video: frames are pushed one by one, and questions are answered from the held frames.
///
/// Questions are independent: the prompt of each has the video and no earlier question. See [the module](super) for
/// what is held, and how.
///
/// ```no_run
/// use sharpv::video::Frame;
/// use sharpv::{LiveParams, LivePolicy, LiveSession, SessionParams};
///
/// # fn camera() -> impl Iterator<Item = Frame> { std::iter::empty() }
/// let files = sharpv::models::resolve("smol", None, &[])?;
/// let params = LiveParams { policy: LivePolicy::Window { frames: 8 }, ..LiveParams::default() };
/// let mut live = LiveSession::open(&files, SessionParams::default(), params, &mut ())?;
/// for frame in camera() {
///     let pushed = live.push(&frame, &mut ())?;
///     if pushed.is_some_and(|pushed| pushed.novelty > 0.2) {
///         println!("{}", live.ask("What is in the video?", &mut ())?.answer);
///     }
/// }
/// # Ok::<(), sharpv::Error>(())
/// ```
#[derive(Debug)]
pub struct LiveSession {
    // Dropped before the engine that it was made with.
    cache: Cache,
    pub(super) engine: Engine,
    /// The conversation about the held video, without a question.
    pub(super) conversation: Conversation,
    learned: Learned,
    pub(super) params: SessionParams,
    pub(super) live: LiveParams,
    /// `None` before the first frame.
    pub(super) feed: Option<Feed>,
    /// Frames that wait for others to make a slice.
    pending: Vec<Frame>,
    counts: Counts,
    /// The most slices that the model's positions allow to hold.
    most: SliceCount,
    /// Rows of the prompt before every question.
    n_rows: usize,
}

/// What is known of the video from its first frame on. The encoded video itself is in the conversation.
#[derive(Debug)]
pub(super) struct Feed {
    pub held: HeldSlices,
    running: Running,
    pub info: VideoInfo,
    /// The number of slices since the last key slice, which counts.
    since_key: usize,
    /// Visual tokens of a slice.
    slice_tokens: usize,
    /// The parts that are remembered for search, if any shall be.
    pub recall: Option<Recall>,
}

/// What prefilling the held frames took.
#[derive(Debug, Clone, Copy)]
struct Prefilled {
    rows: usize,
    took: Duration,
}

/// What the session counts.
#[derive(Debug, Default)]
struct Counts {
    frames: u64,
    repeats: u64,
    evicted: u64,
    rebases: u64,
    tokens_seen: u64,
    slices: u64,
    /// The sum of the shares of the encoder's work over slices.
    computed: f64,
    positions: usize,
    now_s: Option<f64>,
    non_finite: usize,
}

impl LiveSession {
    /// Loads a model and opens a session. [`SessionParams::evict`] has no effect: single frames cannot be removed from
    /// a cache with evicted layers.
    ///
    /// # Errors
    /// As [`Session::open`]; [`Error::InvalidParameter`] if `live` is out of range, or if `params` prunes by a method
    /// that needs the whole video ([`CausalPruner::new`]).
    pub fn open(
        files: &ModelFiles,
        params: SessionParams,
        live: LiveParams,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        check(&params, &live)?;
        Self::over(Session::open(files, params, observer)?, live)
    }

    /// Makes a live session of an open session. Drops its conversation and its videos.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn over(session: Session, live: LiveParams) -> Result<Self> {
        let (engine, mut params) = session.into_parts();
        check(&params, &live)?;
        params.evict = EvictParams::off();
        Ok(Self {
            cache: Cache::default(),
            conversation: Conversation::new(params.system.clone()),
            engine,
            learned: Learned::default(),
            params,
            live,
            feed: None,
            pending: Vec::new(),
            counts: Counts::default(),
            most: SliceCount(usize::MAX),
            n_rows: 0,
        })
    }

    /// Encodes and prunes the next frame, holds what is new in it, and evicts frames by the policy. Returns `None` if
    /// the model merges frames and this one waits for another.
    ///
    /// A frame of another size than the first is fitted into that size. If this fails, the frame is lost, and the
    /// session goes on with the next one.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the frame's bytes do not match its size, or if its time is not finite or not
    /// after that of the frame before; [`Error::Cancelled`]; [`Error::Llama`] if encoding fails.
    pub fn push(&mut self, frame: &Frame, observer: &mut dyn Observer) -> Result<Option<Pushed>> {
        let frame = self.accept(frame)?;
        self.counts.frames += 1;
        self.counts.now_s = Some(frame.time_s);
        self.pending.push(frame);
        let Some(feed) = self.feed.as_mut() else { return Ok(None) };
        if self.pending.len() < feed.held.arrangement().of_slice().frames_per_slice {
            return Ok(None);
        }
        let frames = std::mem::take(&mut self.pending);
        let time = SliceTime {
            first_s: frames.first().map_or(0.0, |frame| frame.time_s),
            last_s: frames.last().map_or(0.0, |frame| frame.time_s),
        };
        self.counts.slices += 1;
        let n_frames = frames.len() as u64;
        if feed.running.repeats(&frames) {
            let total = feed.slice_tokens;
            self.counts.repeats += n_frames;
            self.counts.tokens_seen += total as u64;
            let still = Pushed {
                time_s: time.last_s,
                novelty: 0.0,
                opens_scene: false,
                total,
                kept: 0,
                computed: 0.0,
                evicted: 0,
            };
            return Ok(Some(still));
        }
        let key = SliceCount(feed.since_key)
            >= self.live.policy.key_distance(feed.held.arrangement().of_slice().frames_per_slice);
        let mut taken = EncodeTimings::default();
        let shown = feed.recall.as_ref().map(|_| frames.clone());
        let mut encoder = encoder(&mut self.engine, &self.params, feed.recall.is_some());
        let frame = feed.held.arrangement().of_slice();
        let encode = || feed.running.encode(&mut encoder, frame, frames, key, &feed.info.path);
        let (slice, choice, all) = timed(&mut taken.encode, encode)?;
        feed.slice_tokens = slice.n_tokens;
        self.counts.computed += f64::from(slice.computed);
        self.counts.tokens_seen += slice.n_tokens as u64;
        if choice.non_finite > 0 && self.counts.non_finite == 0 {
            observer.warning(&format!(
                "{}: the encoder returned visual tokens that are not finite; they are dropped",
                self.live.name
            ));
        }
        self.counts.non_finite += choice.non_finite;
        let mut pushed = Pushed {
            time_s: time.last_s,
            novelty: choice.novelty,
            opens_scene: choice.opens_scene,
            total: slice.n_tokens,
            kept: choice.kept.len(),
            computed: slice.computed,
            evicted: 0,
        };
        if choice.kept.is_empty() {
            self.counts.repeats += n_frames;
            return Ok(Some(pushed));
        }
        feed.since_key = if key || choice.opens_scene { 1 } else { feed.since_key + 1 };
        let Self { engine, conversation, params, live, .. } = self;
        if let (Some(recall), Some(frames), Some(all)) = (&mut feed.recall, shown, all) {
            recall.open.push(&frames, slice.clone(), all);
            if recall.is_complete() {
                let part = part_of(engine, &params.prune, feed.held.arrangement(), &feed.info, &recall.open)?;
                recall.close(part);
            }
        }
        if conversation.videos.is_empty() {
            let arrangement = feed.held.arrangement().of_slice().clone();
            let empty = EncodedVideo::empty(&engine.model, &engine.vision, &feed.info, arrangement)?;
            conversation.videos.push(Arc::new(empty));
        }
        let Some(video) = conversation.videos.first_mut().map(Arc::make_mut) else { return Ok(Some(pushed)) };
        video.timings += taken;
        feed.held.push(video, engine.layout.as_ref(), slice, (time, choice.novelty));
        let to_evict = live.policy.evictions(feed.held.slices(), self.most);
        pushed.evicted = feed.held.evict(video, &to_evict).0;
        self.counts.evicted += pushed.evicted as u64;
        if self.live.prefill {
            self.prefill(observer)?;
        }
        Ok(Some(pushed))
    }

    /// Answers `question` from the held frames, as [`Session::ask`] does, or from the part that a
    /// [search](Self::search) found.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there is no frame yet; otherwise as [`Session::ask`].
    pub fn ask<'q>(&mut self, question: impl Into<Question<'q>>, observer: &mut dyn Observer) -> Result<Answer> {
        let question = question.into();
        let is_of_held = question.about.is_none();
        let (text, encoder, spent) = (question.text.clone(), self.encoder_work(), question.spent);
        let ask = |chat: &mut Chat<'_>, observer: &mut dyn Observer| answer(chat, &text, encoder, spent, observer);
        let (mut answer, before) = self.put(question, observer, ask)?;
        answer.tokens.prompt_computed += before.rows;
        answer.timings_ms.prefill += ms(before.took);
        answer.timings_ms.ttft += ms(before.took);
        if answer.timings_ms.first_answer > 0.0 {
            answer.timings_ms.first_answer += ms(before.took);
        }
        if is_of_held {
            answer.frames = self.feed.iter().flat_map(|feed| feed.held.slices()).map(|held| held.frames.0).sum();
            answer.slices.retain(|slice| slice.kept > 0);
            answer.visual_tokens = count(&answer.slices);
        }
        Ok(answer)
    }

    /// Returns the logits of the first token of the answer to `question`, `[n_vocab]`: see [`Session::first_logits`].
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn first_logits<'q>(
        &mut self,
        question: impl Into<Question<'q>>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<f32>> {
        let question = question.into();
        let text = question.text.clone();
        let read =
            |chat: &mut Chat<'_>, observer: &mut dyn Observer| chat.first_logits(&text, <[f32]>::to_vec, observer);
        self.put(question, observer, read).map(|(logits, _)| logits)
    }

    /// Asks the conversation that the question is about: the held frames, or a part with its own cache, while the cache
    /// of the held frames stays. Returns the result, and what prefilling the held frames took.
    fn put<T>(
        &mut self,
        question: Question<'_>,
        observer: &mut dyn Observer,
        ask: impl Fn(&mut Chat<'_>, &mut dyn Observer) -> Result<T>,
    ) -> Result<(T, Prefilled)> {
        if self.conversation.videos.is_empty() {
            return Err(Error::InvalidParameter {
                name: "the video",
                value: "without a frame".into(),
                expected: "at least one frame: push frames before a question".into(),
            });
        }
        let Some(part) = question.about else { return self.after_held(observer, ask) };
        let conversation = self.conversation.about(part);
        let (mut cache, mut learned) = (Cache::default(), Learned::default());
        let mut chat = Chat::new(&self.engine, &self.params, &conversation, &mut cache, &mut learned).small();
        Ok((ask(&mut chat, observer)?, Prefilled { rows: 0, took: Duration::ZERO }))
    }

    /// Asks after the held frames, and then removes the question from the cache. Returns the result, and what
    /// prefilling the held frames took.
    fn after_held<T>(
        &mut self,
        observer: &mut dyn Observer,
        ask: impl Fn(&mut Chat<'_>, &mut dyn Observer) -> Result<T>,
    ) -> Result<(T, Prefilled)> {
        let mut before = self.prefill(observer)?;
        let mut result = ask(&mut self.chat(), observer);
        // Too few positions may be left for a long question.
        if matches!(result, Err(Error::PromptTooLong { .. })) && self.rebase() {
            let again = self.prefill(observer)?;
            before = Prefilled { rows: before.rows + again.rows, took: before.took + again.took };
            result = ask(&mut self.chat(), observer);
        }
        self.cache.cut(self.n_rows);
        result.map(|result| (result, before))
    }

    fn chat(&mut self) -> Chat<'_> {
        let Self { engine, params, conversation, cache, learned, .. } = self;
        Chat::new(engine, params, conversation, cache, learned)
    }

    /// Removes all frames and resets the counts.
    pub fn clear(&mut self) {
        self.cache.free();
        self.conversation.clear();
        (self.feed, self.counts) = (None, Counts::default());
        self.pending.clear();
        (self.most, self.n_rows) = (SliceCount(usize::MAX), 0);
    }

    /// Returns what is held, and the counts.
    pub fn state(&self) -> LiveState {
        let held = self.feed.as_ref().map_or(&[][..], |feed| feed.held.slices());
        let slices = self.conversation.videos.iter().flat_map(|video| &video.slices);
        let kv = self.kv();
        let counts = &self.counts;
        let recall = self.feed.as_ref().and_then(|feed| feed.recall.as_ref());
        LiveState {
            frames: counts.frames,
            repeats: counts.repeats,
            held: held.iter().map(|held| held.frames.0).sum(),
            evicted: counts.evicted,
            pending: self.pending.len(),
            tokens: held.iter().map(|held| held.kept).sum(),
            tokens_seen: counts.tokens_seen,
            oldest_s: held.first().map(|held| held.time_s),
            newest_s: held.last().map(|held| held.time_s),
            now_s: counts.now_s,
            embedding_bytes: slices.map(|slice| size_of::<f32>() * slice.rows.capacity()).sum(),
            recalled: recall.map_or(0, Recall::frames),
            recalled_bytes: recall.map_or(0, Recall::bytes),
            cells_used: kv.cells_used,
            cells: kv.cells,
            kv_bytes: kv.bytes,
            positions: counts.positions,
            rebases: counts.rebases,
            computed: self.computed(),
        }
    }

    /// The times of the held slices, in seconds, ascending; of merged frames, that of the last.
    pub fn held_times(&self) -> impl ExactSizeIterator<Item = f64> {
        self.feed.as_ref().map_or(&[][..], |feed| feed.held.slices()).iter().map(|held| held.time_s)
    }

    /// The language model.
    pub fn model(&self) -> &Model {
        &self.engine.model
    }

    /// The size and the use of the KV cache; all zero if there is none.
    pub fn kv(&self) -> Kv {
        self.cache.report(&self.engine, &self.params.cache())
    }

    /// The kept visual tokens of each slice since the last rebase; evicted slices have none.
    pub fn kept_tokens(&self) -> impl ExactSizeIterator<Item = KeptTokens<'_>> {
        KeptTokens::of(self.conversation.videos.first())
    }

    /// Returns the prompt of `question` as text: see [`Session::prompt_text`].
    ///
    /// # Errors
    /// As there.
    pub fn prompt_text(&self, question: &str) -> Result<String> {
        prompt::text(&self.engine, &self.conversation, question, &self.params.prompt())
    }

    /// Returns the rows of the prompt of `question`, with their positions: see [`Session::prompt_rows`].
    ///
    /// # Errors
    /// As there.
    pub fn prompt_rows(&self, question: &str) -> Result<Vec<PlannedRow>> {
        let (mut cache, mut learned) = (Cache::default(), Learned::default());
        let chat = Chat::new(&self.engine, &self.params, &self.conversation, &mut cache, &mut learned);
        Ok(chat.plan(question)?.rows)
    }

    /// Changes how tokens are sampled: see [`Session::set_sampler`].
    ///
    /// # Errors
    /// As there.
    pub fn set_sampler(&mut self, sampler: SamplerParams) -> Result<()> {
        Sampler::new(&self.engine.model, &sampler)?;
        self.params.sampler = sampler;
        Ok(())
    }

    /// Changes the maximum number of tokens of an answer: see [`Session::set_n_predict`].
    ///
    /// # Errors
    /// As there.
    pub fn set_n_predict(&mut self, n_predict: usize) -> Result<()> {
        check_answer(n_predict, self.params.thinking, &self.params.template_kwargs)?;
        self.params.n_predict = n_predict;
        Ok(())
    }

    /// How much of all frames the vision encoder computed.
    fn encoder_work(&self) -> EncoderWork {
        let encode = self.conversation.videos.first().map_or(0.0, |video| ms(video.timings.encode));
        let computed = self.computed();
        let saved_ms = if computed > 0.0 { encode * (1.0 / computed - 1.0) } else { 0.0 };
        EncoderWork { computed, saved_ms }
    }

    /// The share of the encoder's work that was done, 0 to 1.
    fn computed(&self) -> f64 {
        if self.counts.slices == 0 { 1.0 } else { self.counts.computed / self.counts.slices as f64 }
    }

    /// Checks the frame, and fits it into the size of the first.
    fn accept(&mut self, frame: &Frame) -> Result<Frame> {
        check_image((frame.width, frame.height), frame.rgb.len(), frame.time_s, self.counts.now_s)?;
        if self.feed.is_none() {
            self.feed = Some(self.begin(frame)?);
        }
        let size = self.feed.as_ref().map_or((frame.width, frame.height), |feed| (feed.info.width, feed.info.height));
        Ok(frame.clone().fitted(size.0, size.1))
    }

    /// Begins the video with the size and the time of its first frame.
    fn begin(&mut self, first: &Frame) -> Result<Feed> {
        let info = self.info_of((first.width, first.height));
        let (arrangement, stated) = self.arrangement_of(&info, first.time_s);
        let mrope = self.engine.vision.uses_mrope();
        let recall = self.live.recall;
        let of_slice = arrangement.of_slice();
        let encoder = encoder(&mut self.engine, &self.params, recall > 0);
        let running = Running::new(&encoder, of_slice, &info.path)?;
        let parts = (recall / (PART * of_slice.frames_per_slice.max(1))).max(LEAST_PARTS);
        let recall = (recall > 0).then(|| Recall::new(parts));
        let held = HeldSlices::new(arrangement, stated, mrope);
        Ok(Feed { held, running, info, since_key: 0, slice_tokens: 0, recall })
    }

    /// Returns what would be known of the video if it were a file.
    pub(super) fn info_of(&self, (width, height): Size) -> VideoInfo {
        VideoInfo {
            path: self.live.name.clone().into(),
            kind: Kind::Frames,
            width,
            height,
            duration_s: None,
            fps: Some(self.live.fps),
            n_frames: None,
            container: "memory".into(),
            codec: "rawvideo".into(),
        }
    }

    /// Returns the arrangement of frames of `info`, of which the first is at `start_s`.
    pub(super) fn arrangement_of(&self, info: &VideoInfo, start_s: f64) -> (LiveArrangement, Stated) {
        let layout = self.engine.layout.as_ref();
        let n_frames = match self.live.policy {
            LivePolicy::Window { frames } => FrameCount(frames),
            LivePolicy::Memory { .. } => FrameCount(layout.frames().max),
        };
        let stated = Stated { n_frames, fps: self.live.fps };
        (LiveArrangement::new(layout, info, stated, start_s, self.engine.vision.uses_mrope()), stated)
    }

    /// The number of positions that frames can take, next to a question and an answer.
    pub(super) fn positions(&self) -> usize {
        self.engine.model.n_ctx_train().saturating_sub(self.reserve())
    }

    /// The number of positions to reserve for a question and an answer.
    fn reserve(&self) -> usize {
        QUESTION + self.params.n_predict.min(self.engine.model.n_ctx_train() / 8)
    }

    /// Prefills the held frames, without a question. First rebases or evicts if they leave too few positions.
    fn prefill(&mut self, observer: &mut dyn Observer) -> Result<Prefilled> {
        let start = Instant::now();
        let plan = loop {
            let plan = self.plan()?;
            if !self.reduce_to_fit(&plan, observer) {
                break plan;
            }
        };
        self.n_rows = plan.rows.len();
        self.counts.positions = plan.next_position.max(0) as usize;
        let videos = &self.conversation.videos;
        self.cache.forget(&plan.rows, videos);
        if self.cache.begins_with(&plan.rows, videos) {
            self.cache.cut(plan.rows.len());
            return Ok(Prefilled { rows: 0, took: start.elapsed() });
        }
        let first = self.chat().prefill(&plan, observer)?;
        Ok(Prefilled { rows: plan.rows.len() - first, took: start.elapsed() })
    }

    /// Plans the prompt up to the last visual token, which all questions share.
    fn plan(&self) -> Result<Plan> {
        let Self { engine, conversation, params, .. } = self;
        let message = conversation.user_message(engine.layout.as_ref(), "");
        let mut plan = prompt::plan(engine, conversation, &message, &params.prompt())?;
        let last = plan.rows.iter().rposition(|row| matches!(row.key, RowKey::Visual { .. }));
        plan.rows.truncate(last.map_or(0, |last| last + 1));
        plan.chunk_starts.retain(|&start| start < plan.rows.len());
        Ok(plan)
    }

    /// Rebases, or evicts frames, if `plan` leaves too few positions or cells for a question. Returns whether it did.
    fn reduce_to_fit(&mut self, plan: &Plan, observer: &mut dyn Observer) -> bool {
        let Some(feed) = &self.feed else { return false };
        let (held, slices) = (feed.held.slices().len(), feed.held.n_slices().0);
        let positions = self.engine.model.n_ctx_train();
        let (reserve, limit) = (self.reserve(), self.positions());
        let next = plan.next_position.max(0) as usize;
        let is_full = next > limit || slices > (SLICES_FOR_EACH * held).max(LEAST_SLICES);
        if is_full && slices > held {
            return self.rebase();
        }
        // After a rebase, as many frames again must fit, or every frame would cause a rebase.
        if slices == held && next > limit / 2 && held > 1 {
            let most = SliceCount((held * (limit / 2) / next).clamp(1, held - 1));
            if most < self.most {
                let FrameCount(frames) = most.frames(feed.held.arrangement().of_slice().frames_per_slice);
                observer.warning(&format!(
                    "{}: the model was trained for {positions} positions, which are enough to hold {frames} frames",
                    self.live.name
                ));
            }
            self.most = self.most.min(most);
            return self.evict_to(self.most);
        }
        let cells = self.params.n_ctx.unwrap_or(usize::MAX);
        plan.rows.len() + reserve > cells && self.evict_to(SliceCount(held - 1))
    }

    /// Evicts slices until at most `most` are held, but never the last one. Returns whether it evicted any.
    fn evict_to(&mut self, most: SliceCount) -> bool {
        let Some(feed) = self.feed.as_mut() else { return false };
        let Some(video) = self.conversation.videos.first_mut().map(Arc::make_mut) else { return false };
        let to_evict = self.live.policy.evictions(feed.held.slices(), most);
        self.counts.evicted += feed.held.evict(video, &to_evict).0 as u64;
        !to_evict.is_empty()
    }

    /// Arranges the held slices anew, from position 0. Returns false if nothing would change.
    fn rebase(&mut self) -> bool {
        let Some(feed) = self.feed.as_mut().filter(|feed| feed.held.n_slices().0 > feed.held.slices().len()) else {
            return false;
        };
        let Self { engine, conversation, cache, .. } = self;
        let Some(video) = conversation.videos.first_mut().map(Arc::make_mut) else { return false };
        // Cut before the video gets another id, so that the cache is not freed.
        cache.cut_before_visual();
        feed.held.rebase(video, engine.layout.as_ref());
        self.counts.rebases += 1;
        true
    }
}

/// Checks what can be checked before a model is loaded.
fn check(params: &SessionParams, live: &LiveParams) -> Result<()> {
    live.validate()?;
    CausalPruner::new(&params.prune).map(|_| ())
}

fn encoder<'a>(engine: &'a mut Engine, params: &'a SessionParams, keep_unpruned: bool) -> Encoder<'a> {
    Encoder {
        model: &engine.model,
        vision: &mut engine.vision,
        layout: engine.layout.as_ref(),
        prune: &params.prune,
        encode: &params.encode,
        keep_unpruned,
        inspect: None,
        cancel: &params.cancel,
    }
}

/// Runs a whole turn in `chat`. Its conversation does not change.
fn answer(
    chat: &mut Chat<'_>,
    question: &str,
    encoder: EncoderWork,
    before: Duration,
    observer: &mut dyn Observer,
) -> Result<Answer> {
    let mut turn = chat.begin(question, observer)?;
    while let Some(piece) = turn.next_piece(chat, observer)? {
        piece.report(observer);
    }
    let finished = turn.finish(chat)?;
    Ok(Answer::of(chat, finished, BeforeTurn { videos: EncodeTimings::default(), encoder, before }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::PruneParams;
    use std::path::Path;

    #[test]
    fn a_frame_costs_the_tokens_of_its_own_text() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
        for family in ["smolvlm", "internvl", "qwen3vl", "llava-onevision"] {
            let files = ModelFiles {
                name: family.into(),
                model: folder.join(format!("{family}.gguf")),
                mmproj: Some(folder.join(format!("{family}-mmproj.gguf"))),
                lora: Vec::new(),
            };
            let params = SessionParams { prune: PruneParams::off(), ..SessionParams::default() };
            let live = LiveParams { policy: LivePolicy::Window { frames: 100 }, ..LiveParams::default() };
            let mut live = LiveSession::open(&files, params, live, &mut ()).expect("the model opens");
            let tokenized = |live: &LiveSession| live.engine.texts.tokenized();
            let (mut costs, mut before) = (Vec::new(), 0);
            for second in 0..20_u8 {
                let rgb = (0..3 * 64 * 64).map(|i| (i / 7) as u8 ^ (second * 11)).collect();
                let frame = Frame { width: 64, height: 64, rgb, time_s: f64::from(second) };
                live.push(&frame, &mut ()).expect("a frame");
                let after = tokenized(&live);
                costs.push(after - before);
                before = after;
            }
            assert_eq!((live.state().held, live.state().rebases), (20, 0), "{family}");
            // Only numbers and times become longer.
            let most = |costs: &[usize]| costs.iter().max().copied().unwrap_or(0);
            assert!(most(&costs[10..]) <= most(&costs[4..8]) + 4, "{family}: {costs:?}");
            assert!(costs[0] + costs[1] > most(&costs[4..]), "{family}: {costs:?}");
        }
    }
}
