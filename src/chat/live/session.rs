//! A session about video that does not end.

use super::album::Album;
use super::params::{LiveParams, LivePolicy};
use super::recall::page;
use super::reel::Reel;
use super::script::{Script, Told};
use super::state::{LiveState, Pushed};
use crate::chat::answer::{Answer, EncoderWork, count, ms};
use crate::chat::kv::KvState;
use crate::chat::kv::evict::EvictParams;
use crate::chat::params::SessionParams;
use crate::chat::prompt::plan::{Plan, RowKey};
use crate::chat::prompt::render;
use crate::chat::session::Session;
use crate::chat::video::{EncodeTimings, EncodedVideo, Encoder, Running, timed};
use crate::chat::zoom::{LEAST_PARTS, PART};
use crate::error::{Error, Result};
use crate::layout::{Size, SliceTime};
use crate::models::ModelFiles;
use crate::observer::Observer;
use crate::prune::CausalPruner;
use crate::video::{Frame, Kind, VideoInfo, check_image};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens of a question for which there is always room.
pub(super) const QUESTION: usize = 64;

/// So many slices may come for each that is held before a rebase: its cost is shared by those that came since the last.
const SLICES_FOR_EACH: usize = 4;

/// Slices that may come before a rebase, however few are held.
const LEAST_SLICES: usize = 64;

/// A conversation about video that does not end: frames go in one by one, questions are answered from what is held.
///
/// Each question is about the video alone: it does not know of those before it. See [the module](super) for what is
/// held, and how.
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
    /// The cache in which parts are searched: what is held stays in the session's own.
    pub(super) spare: KvState,
    pub(super) session: Session,
    params: LiveParams,
    /// From the first frame on.
    pub(super) feed: Option<Feed>,
    /// Frames that wait for others to make a slice with.
    pending: Vec<Frame>,
    counts: Counts,
    /// Slices that are held at most, because of the model's positions.
    most: usize,
    /// Rows of the prompt in front of every question.
    n_rows: usize,
}

/// What is known of the video from its first frame on. The video itself is the session's.
#[derive(Debug)]
pub(super) struct Feed {
    pub reel: Reel,
    running: Running,
    pub info: VideoInfo,
    /// Slices since the last key slice, it included.
    since_key: usize,
    /// Visual tokens of a slice.
    slice_tokens: usize,
    /// What is remembered beside what is held, if anything is to be.
    pub album: Option<Album>,
}

/// What bringing the cache to what is held took.
#[derive(Debug, Clone, Copy)]
struct Prefilled {
    rows: usize,
    took: Duration,
}

/// What was counted.
#[derive(Debug, Default)]
struct Counts {
    frames: u64,
    repeats: u64,
    evicted: u64,
    rebases: u64,
    tokens_seen: u64,
    slices: u64,
    /// Shares of the encoder's work, summed up.
    computed: f64,
    positions: usize,
    now_s: Option<f64>,
    non_finite: usize,
}

impl LiveSession {
    /// Loads a model. [`SessionParams::evict`] is off whatever it says: layers without visual tokens could not lose
    /// those of a single frame.
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

    /// With a session that is open. Its conversation and its videos are forgotten.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn over(mut session: Session, live: LiveParams) -> Result<Self> {
        check(&session.params, &live)?;
        session.clear();
        session.set_evict(EvictParams::off())?;
        let (feed, pending, counts) = (None, Vec::new(), Counts::default());
        let spare = KvState::default();
        Ok(Self { spare, session, params: live, feed, pending, counts, most: usize::MAX, n_rows: 0 })
    }

    /// Takes the next frame. `None` if the model merges frames, and this one waits for another.
    ///
    /// A frame of another size than the first is fitted into that. What is computed of a frame when this fails is
    /// lost; the session goes on with the next one.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the frame's bytes are not those of its size, or its time is not finite or not
    /// behind that of the frame before; [`Error::Cancelled`]; [`Error::Llama`] if encoding fails.
    pub fn push(&mut self, frame: &Frame, observer: &mut dyn Observer) -> Result<Option<Pushed>> {
        let frame = self.accept(frame)?;
        self.forget_search();
        self.counts.frames += 1;
        self.counts.now_s = Some(frame.time_s);
        self.pending.push(frame);
        let Some(feed) = self.feed.as_mut() else { return Ok(None) };
        if self.pending.len() < feed.reel.script().frame().frames_per_slice {
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
        let key = feed.since_key >= self.params.policy.key_distance(feed.reel.script().frame().frames_per_slice);
        let mut taken = EncodeTimings::default();
        let shown = feed.album.as_ref().map(|_| frames.clone());
        let mut encoder = encoder(&mut self.session, feed.album.is_some());
        let frame = feed.reel.script().frame();
        let encode = || feed.running.encode(&mut encoder, frame, frames, key, &feed.info.path);
        let (slice, choice, all) = timed(&mut taken.encode, encode)?;
        feed.slice_tokens = slice.n_tokens;
        self.counts.computed += f64::from(slice.computed);
        self.counts.tokens_seen += slice.n_tokens as u64;
        if choice.non_finite > 0 && self.counts.non_finite == 0 {
            observer.warning(&format!(
                "{}: the encoder gave visual tokens that are no finite numbers; they are left out",
                self.params.name
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
        if let (Some(album), Some(frames), Some(all)) = (&mut feed.album, shown, all) {
            album.open.push(&frames, slice.clone(), all);
            if album.is_complete() {
                let page = page(&self.session, feed.reel.script(), &feed.info, &album.open)?;
                album.close(page);
            }
        }
        if self.session.conversation.videos.is_empty() {
            let Session { engine, conversation, .. } = &mut self.session;
            let arrangement = feed.reel.script().frame().clone();
            let empty = EncodedVideo::empty(&engine.model, &engine.vision, &feed.info, arrangement)?;
            conversation.videos.push(Arc::new(empty));
        }
        let Session { engine, conversation, .. } = &mut self.session;
        let Some(video) = conversation.videos.first_mut().map(Arc::make_mut) else { return Ok(Some(pushed)) };
        video.timings += taken;
        feed.reel.push(video, engine.layout.as_ref(), slice, (time, choice.novelty));
        let leaving = self.params.policy.leaving(feed.reel.held(), self.most);
        pushed.evicted = feed.reel.evict(video, &leaving);
        self.counts.evicted += pushed.evicted as u64;
        if self.params.prefill {
            self.prefill(observer)?;
        }
        Ok(Some(pushed))
    }

    /// Answers `question` from what is held, as [`Session::ask`] does.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there is no frame yet; otherwise as [`Session::ask`].
    pub fn ask(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Answer> {
        let is_aside = self.session.aside.is_some();
        let (mut answer, before) = self.turn(observer, |session, observer| session.ask(question, observer))?;
        answer.tokens.prompt_computed += before.rows;
        answer.timings_ms.prefill += ms(before.took);
        answer.timings_ms.ttft += ms(before.took);
        if !is_aside {
            answer.frames = self.feed.iter().flat_map(|feed| feed.reel.held()).map(|held| held.frames).sum();
            answer.slices.retain(|slice| slice.kept > 0);
            answer.visual_tokens = count(&answer.slices);
        }
        let encode = self.session.conversation.videos.first().map_or(0.0, |video| ms(video.timings.encode));
        let computed = self.computed();
        let saved_ms = if computed > 0.0 { encode * (1.0 / computed - 1.0) } else { 0.0 };
        answer.encoder = EncoderWork { computed, saved_ms };
        Ok(answer)
    }

    /// The logits of the first token of the answer to `question`, `[n_vocab]`, as [`Session::first_logits`] gives them.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn first_logits(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Vec<f32>> {
        self.turn(observer, |session, observer| session.first_logits(question, observer)).map(|(logits, _)| logits)
    }

    /// Does something with a question behind what is held, which leaves the cache again. Gives what had to be done
    /// before it.
    fn turn<T>(
        &mut self,
        observer: &mut dyn Observer,
        ask: impl Fn(&mut Session, &mut dyn Observer) -> Result<T>,
    ) -> Result<(T, Prefilled)> {
        if self.session.conversation.videos.is_empty() {
            return Err(Error::InvalidParameter {
                name: "the video",
                value: "without a frame".into(),
                expected: "one that has begun: push frames before a question".into(),
            });
        }
        if self.session.aside.is_some() {
            let result = self.beside(|session| ask(session, observer));
            self.session.restart();
            self.spare.reset();
            return result.map(|result| (result, Prefilled { rows: 0, took: Duration::ZERO }));
        }
        let mut before = self.prefill(observer)?;
        let mut result = ask(&mut self.session, observer);
        // A long question may find too few positions left.
        if matches!(result, Err(Error::PromptTooLong { .. })) && self.rebase() {
            let again = self.prefill(observer)?;
            before = Prefilled { rows: before.rows + again.rows, took: before.took + again.took };
            result = ask(&mut self.session, observer);
        }
        self.session.restart();
        self.session.kv.cut(self.n_rows);
        result.map(|result| (result, before))
    }

    /// Forgets all frames. Counting begins anew.
    pub fn clear(&mut self) {
        self.session.clear();
        self.spare.reset();
        (self.feed, self.counts) = (None, Counts::default());
        self.pending.clear();
        (self.most, self.n_rows) = (usize::MAX, 0);
    }

    /// What is held, and what became of the rest.
    pub fn state(&self) -> LiveState {
        let held = self.feed.as_ref().map_or(&[][..], |feed| feed.reel.held());
        let slices = self.session.conversation.videos.iter().flat_map(|video| &video.slices);
        let kv = self.session.kv();
        let counts = &self.counts;
        let album = self.feed.as_ref().and_then(|feed| feed.album.as_ref());
        LiveState {
            frames: counts.frames,
            repeats: counts.repeats,
            held: held.iter().map(|held| held.frames).sum(),
            evicted: counts.evicted,
            pending: self.pending.len(),
            tokens: held.iter().map(|held| held.kept).sum(),
            tokens_seen: counts.tokens_seen,
            oldest_s: held.first().map(|held| held.time_s),
            newest_s: held.last().map(|held| held.time_s),
            now_s: counts.now_s,
            embedding_bytes: slices.map(|slice| size_of::<f32>() * slice.rows.capacity()).sum(),
            recalled: album.map_or(0, Album::frames),
            recalled_bytes: album.map_or(0, Album::bytes),
            cells_used: kv.cells_used,
            cells: kv.cells,
            kv_bytes: kv.bytes,
            positions: counts.positions,
            rebases: counts.rebases,
            computed: self.computed(),
        }
    }

    /// The moments of the frames that are held, in seconds, ascending; of merged pairs, those of the second frames.
    pub fn held_times(&self) -> impl ExactSizeIterator<Item = f64> {
        self.feed.as_ref().map_or(&[][..], |feed| feed.reel.held()).iter().map(|held| held.time_s)
    }

    /// The session underneath, for looking at.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Changes how tokens are chosen, as [`Session::set_sampler`].
    ///
    /// # Errors
    /// As there.
    pub fn set_sampler(&mut self, sampler: crate::runtime::SamplerParams) -> Result<()> {
        self.session.set_sampler(sampler)
    }

    /// Changes the most tokens of an answer, as [`Session::set_n_predict`].
    ///
    /// # Errors
    /// As there.
    pub fn set_n_predict(&mut self, n_predict: usize) -> Result<()> {
        self.session.set_n_predict(n_predict)
    }

    /// The share of the encoder's work that was done.
    fn computed(&self) -> f64 {
        if self.counts.slices == 0 { 1.0 } else { self.counts.computed / self.counts.slices as f64 }
    }

    /// The frame, checked, in the size of the first.
    fn accept(&mut self, frame: &Frame) -> Result<Frame> {
        check_image((frame.width, frame.height), frame.rgb.len(), frame.time_s, self.counts.now_s)?;
        if self.feed.is_none() {
            self.feed = Some(self.begin(frame)?);
        }
        let size = self.feed.as_ref().map_or((frame.width, frame.height), |feed| (feed.info.width, feed.info.height));
        Ok(frame.clone().fitted(size.0, size.1))
    }

    /// What there is before the first frame.
    fn begin(&mut self, first: &Frame) -> Result<Feed> {
        let info = self.info_of((first.width, first.height));
        let (script, told) = self.script_of(&info, first.time_s);
        let mrope = self.session.engine.vision.uses_mrope();
        let recall = self.params.recall;
        let running = Running::new(&encoder(&mut self.session, recall > 0), script.frame(), &info.path)?;
        let parts = (recall / (PART * script.frame().frames_per_slice.max(1))).max(LEAST_PARTS);
        let album = (recall > 0).then(|| Album::new(parts));
        let reel = Reel::new(script, told, mrope);
        Ok(Feed { reel, running, info, since_key: 0, slice_tokens: 0, album })
    }

    /// What is told of the video where it is a file.
    pub(super) fn info_of(&self, (width, height): Size) -> VideoInfo {
        VideoInfo {
            path: self.params.name.clone().into(),
            kind: Kind::Frames,
            width,
            height,
            duration_s: None,
            fps: Some(self.params.fps),
            n_frames: None,
            container: "memory".into(),
            codec: "rawvideo".into(),
        }
    }

    /// How frames of `info`, the first of which is shown at `start_s`, stand in the prompt.
    pub(super) fn script_of(&self, info: &VideoInfo, start_s: f64) -> (Script, Told) {
        let layout = self.session.layout();
        let n_frames = match self.params.policy {
            LivePolicy::Window { frames } => frames,
            LivePolicy::Memory { .. } => layout.frames().max,
        };
        let told = Told { n_frames, fps: self.params.fps };
        (Script::new(layout, info, told, start_s, self.session.engine.vision.uses_mrope()), told)
    }

    /// Positions that frames can have, beside a question and an answer.
    pub(super) fn room(&self) -> usize {
        let positions = self.session.engine.model.n_ctx_train();
        positions.saturating_sub(self.reserve())
    }

    /// Positions for a question and an answer.
    fn reserve(&self) -> usize {
        QUESTION + self.session.params.n_predict.min(self.session.engine.model.n_ctx_train() / 8)
    }

    /// How the video is held.
    pub(super) fn params(&self) -> &LiveParams {
        &self.params
    }

    /// Brings the cache to what is held, without a question.
    fn prefill(&mut self, observer: &mut dyn Observer) -> Result<Prefilled> {
        let start = Instant::now();
        let plan = loop {
            let plan = self.plan()?;
            if !self.make_room(&plan, observer) {
                break plan;
            }
        };
        self.n_rows = plan.rows.len();
        self.counts.positions = plan.next_position.max(0) as usize;
        let Session { kv, conversation, .. } = &mut self.session;
        kv.forget(&conversation.videos, &plan.rows);
        if kv.rows().starts_with(&plan.rows) {
            kv.cut(plan.rows.len());
            return Ok(Prefilled { rows: 0, took: start.elapsed() });
        }
        let first = self.session.prefill(&plan, observer)?;
        Ok(Prefilled { rows: plan.rows.len() - first, took: start.elapsed() })
    }

    /// The prompt up to the last visual token: what all questions begin with.
    fn plan(&self) -> Result<Plan> {
        let Session { engine, conversation, params, .. } = &self.session;
        let message = self.session.user_message("");
        let mut plan = render::plan(engine, conversation, &message, params.tokenization)?;
        let last = plan.rows.iter().rposition(|row| matches!(row.key, RowKey::Visual { .. }));
        plan.rows.truncate(last.map_or(0, |last| last + 1));
        plan.chunk_starts.retain(|&start| start < plan.rows.len());
        Ok(plan)
    }

    /// Rebases, or lets frames leave, if `plan` leaves no room for a question. Returns whether anything was done.
    fn make_room(&mut self, plan: &Plan, observer: &mut dyn Observer) -> bool {
        let Some(feed) = &self.feed else { return false };
        let (held, slices) = (feed.reel.held().len(), feed.reel.n_slices());
        let positions = self.session.engine.model.n_ctx_train();
        let (reserve, room) = (self.reserve(), self.room());
        let next = plan.next_position.max(0) as usize;
        let is_full = next > room || slices > (SLICES_FOR_EACH * held).max(LEAST_SLICES);
        if is_full && slices > held {
            return self.rebase();
        }
        // Behind a rebase there has to be room for as many frames again, or every frame would need one.
        if slices == held && next > room / 2 && held > 1 {
            let most = (held * (room / 2) / next).clamp(1, held - 1);
            if most < self.most {
                let frames = most * feed.reel.script().frame().frames_per_slice;
                observer.warning(&format!(
                    "{}: the model was trained for {positions} positions, which are enough to hold {frames} frames \
                     and no more",
                    self.params.name
                ));
            }
            self.most = self.most.min(most);
            return self.let_go(self.most);
        }
        let cells = self.session.params.n_ctx.unwrap_or(usize::MAX);
        plan.rows.len() + reserve > cells && self.let_go(held - 1)
    }

    /// Lets slices leave until at most `most` are held, at least one. Returns whether any did.
    fn let_go(&mut self, most: usize) -> bool {
        let Some(feed) = self.feed.as_mut() else { return false };
        let Some(video) = self.session.conversation.videos.first_mut().map(Arc::make_mut) else { return false };
        let leaving = self.params.policy.leaving(feed.reel.held(), most);
        self.counts.evicted += feed.reel.evict(video, &leaving) as u64;
        !leaving.is_empty()
    }

    /// Arranges what is held anew. Returns false if nothing would change.
    fn rebase(&mut self) -> bool {
        let Some(feed) = self.feed.as_mut().filter(|feed| feed.reel.n_slices() > feed.reel.held().len()) else {
            return false;
        };
        let Session { engine, conversation, kv, .. } = &mut self.session;
        let Some(video) = conversation.videos.first_mut().map(Arc::make_mut) else { return false };
        // Before the video is another: so the cache stays as large as it is.
        let first = kv.rows().iter().position(|row| matches!(row.key, RowKey::Visual { .. }));
        kv.cut(first.unwrap_or(kv.rows().len()));
        feed.reel.rebase(video, engine.layout.as_ref());
        self.counts.rebases += 1;
        true
    }
}

/// What can be told before a model is loaded.
fn check(params: &SessionParams, live: &LiveParams) -> Result<()> {
    live.validate()?;
    CausalPruner::new(&params.prune).map(|_| ())
}

fn encoder(session: &mut Session, keep_unpruned: bool) -> Encoder<'_> {
    let Session { engine, params, .. } = session;
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
            let tokenized = |live: &LiveSession| live.session.engine.texts.tokenized();
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
            // Numbers and times become longer, and that is all.
            let most = |costs: &[usize]| costs.iter().max().copied().unwrap_or(0);
            assert!(most(&costs[10..]) <= most(&costs[4..8]) + 4, "{family}: {costs:?}");
            assert!(costs[0] + costs[1] > most(&costs[4..]), "{family}: {costs:?}");
        }
    }
}
