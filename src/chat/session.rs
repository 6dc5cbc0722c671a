//! The session: an engine, a conversation and a KV cache, and what is done with them in turn.

use super::answer::{
    Answer, EncoderWork, Kv, Settings, Timings, VideoReport, VisualTokens, count, encoder_work, ms, slice_reports,
};
use super::conversation::Conversation;
use super::engine::Engine;
use super::fit::{Fit, VideoPlan};
use super::inspect::Places;
use super::kv::KvState;
use super::kv::evict::{DESCRIBE, EvictMode, EvictParams};
use super::kv::prefill::Inputs;
use super::kv::profile::LayerProfile;
use super::params::{SessionParams, VideoOptions, check_n_predict};
use super::prompt::message::Message;
use super::prompt::plan::{Plan, PlannedRow};
use super::prompt::render;
use super::video::{EncodedSlice, EncodedVideo, Encoder, decide, select, timed};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::models::ModelFiles;
use crate::observer::Observer;
use crate::prune::{Decision, PruneParams};
use crate::runtime::{CancelToken, ComputeParams, Model, Sampler, SamplerParams, default_threads};
use crate::skip::{EncodeMode, EncodeParams};
use crate::video::{Frames, Origin, VideoInfo};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A conversation about videos.
///
/// Every method that fails leaves the session as it was before the call.
#[derive(Debug)]
pub struct Session {
    // Dropped before what it was made from.
    pub(super) kv: KvState,
    pub(super) engine: Engine,
    pub(super) conversation: Conversation,
    /// What the next question is asked in, where it is not the conversation: see [`search`](Session::search).
    pub(super) aside: Option<Conversation>,
    /// What was spent on looking for it, for the next answer.
    pub(super) searched: Duration,
    pub(super) params: SessionParams,
}

impl Session {
    /// As [`builder`](Self::builder), with everything at once.
    ///
    /// # Errors
    /// As [`SessionBuilder::open`](super::SessionBuilder::open).
    pub fn open(files: &ModelFiles, params: SessionParams, observer: &mut dyn Observer) -> Result<Self> {
        Self::load_with(None, files, params, observer)
    }

    pub(super) fn load_with(
        model: Option<Model>,
        files: &ModelFiles,
        params: SessionParams,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let engine = Engine::load(model, files, &params, observer)?;
        let conversation = Conversation::new(params.system.clone());
        Ok(Self { kv: KvState::default(), engine, conversation, aside: None, searched: Duration::ZERO, params })
    }

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

    /// As [`add_video`](Self::add_video), and leaves room for `question`: one that is too long is told before a frame
    /// is encoded.
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
        self.add_origin(Origin::Path(path), options, question, observer)
    }

    /// As [`add_video`](Self::add_video), with frames that are in memory, and a name that stands for the path.
    ///
    /// ```no_run
    /// use sharpv::video::Frames;
    /// use sharpv::{Session, VideoOptions};
    ///
    /// # let files = sharpv::models::resolve("smol", None, &[])?;
    /// let mut frames = Frames::new(320, 240);
    /// for second in 0..8_u8 {
    ///     let rgb = vec![16 * second; 320 * 240 * 3]; // rows of pixels: red, green, blue
    ///     frames.push(rgb, second.into())?;
    /// }
    /// let mut session = Session::builder(&files).open()?;
    /// session.add_frames("camera", &frames, &VideoOptions::default(), &mut ())?;
    /// # Ok::<(), sharpv::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there are none; otherwise as [`add_video`](Self::add_video).
    pub fn add_frames(
        &mut self,
        name: &str,
        frames: &Frames,
        options: &VideoOptions,
        observer: &mut dyn Observer,
    ) -> Result<VideoReport> {
        self.add_frames_for(name, frames, options, "", observer)
    }

    /// As [`add_video_for`](Self::add_video_for), with frames that are in memory.
    ///
    /// # Errors
    /// As [`add_frames`](Self::add_frames).
    pub fn add_frames_for(
        &mut self,
        name: &str,
        frames: &Frames,
        options: &VideoOptions,
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<VideoReport> {
        self.add_origin(Origin::Frames(name, frames), options, question, observer)
    }

    fn add_origin(
        &mut self,
        origin: Origin<'_>,
        options: &VideoOptions,
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<VideoReport> {
        let video = self.encode(origin, options, question, observer)?;
        Ok(self.add(video))
    }

    /// Decodes, encodes and prunes a video, so that it fits behind what was said.
    pub(super) fn encode(
        &mut self,
        origin: Origin<'_>,
        options: &VideoOptions,
        question: &str,
        observer: &mut dyn Observer,
    ) -> Result<EncodedVideo> {
        let path = origin.path();
        let mut proposal = self.fit().propose(origin, options, question)?;
        if let Some(shortage) = proposal.shortage {
            return Err(shortage.error(path, proposal.need.frames));
        }
        let survey = match proposal.by_changes {
            true => Some(self.fit().survey(origin, &mut proposal, question, observer)?),
            false => None,
        };
        if let Some(report) = survey {
            let n_frames = proposal.source.planned_times().len();
            observer.message(&format!("{}: {n_frames} frames, chosen by what changes in {report}", path.display()));
        }
        for change in &proposal.changes {
            observer.warning(&format!("{}: {change}", path.display()));
        }
        // Nobody who did not choose a number has to know of another one.
        let chosen = self.params.compute.n_ubatch;
        if let Some(raised) = self.fit().raised_ubatch(&proposal.need)
            && chosen != ComputeParams::default().n_ubatch
        {
            observer.warning(&format!(
                "{}: {raised} rows are computed at once in place of {chosen}: this model has to see each image at once",
                path.display()
            ));
        }
        let cap = self.params.prune.cap.into_iter().chain(proposal.max_kept).min();
        let prune = PruneParams { cap, ..self.params.prune.clone() };
        let engine = &mut self.engine;
        let mrope = engine.vision.uses_mrope();
        let places = Places { projector: &engine.shape.projector, mrope, has_newline: engine.newline.is_some() };
        let mut encoder = Encoder {
            model: &engine.model,
            vision: &mut engine.vision,
            layout: proposal.layout.as_deref().unwrap_or(engine.layout.as_ref()),
            prune: &prune,
            encode: &self.params.encode,
            keep_unpruned: self.params.keep_unpruned,
            inspect: self.params.inspect.then_some(places),
            cancel: &self.params.cancel,
        };
        let source = if self.params.decode_ahead { proposal.source.decode_ahead() } else { proposal.source };
        let mut video = encoder.encode(source, proposal.timings, observer)?;
        video.max_kept = proposal.max_kept;
        video.sampling = Some(proposal.sampling);
        video.survey = survey;
        let kept = video.slices.iter().map(|slice| slice.kept.len()).sum();
        if let Some(capped) = proposal.capped.filter(|_| Some(kept) == proposal.max_kept) {
            observer.warning(&format!("{}: {capped}", path.display()));
        }
        Ok(video)
    }

    /// Adds a video that was encoded just now.
    pub(super) fn add(&mut self, video: EncodedVideo) -> VideoReport {
        self.conversation.spent += video.timings;
        self.add_shared(Arc::new(video))
    }

    /// Adds a video that was encoded once.
    pub(super) fn add_shared(&mut self, video: Arc<EncodedVideo>) -> VideoReport {
        let slices = slice_reports(std::slice::from_ref(&video));
        let encoder = encoder_work(std::slice::from_ref(&video));
        let timings_ms = Timings {
            load: ms(self.engine.load),
            decode_video: ms(video.timings.decode_video),
            encode: ms(video.timings.encode),
            prune: ms(video.timings.prune),
            ..Timings::default()
        };
        let visual_tokens = count(&slices);
        let (info, survey) = (video.info.clone(), video.survey);
        let report = VideoReport { info, survey, visual_tokens, slices, encoder, timings_ms };
        self.conversation.videos.push(video);
        self.aside = None;
        report
    }

    /// Asks `question` about the videos that were added, in the light of the conversation so far. The answer streams to
    /// `observer`.
    ///
    /// A stop through the [`CancelToken`] during the answer gives what there is of it; during the prefill it is
    /// [`Error::Cancelled`].
    ///
    /// # Errors
    /// [`Error::PromptTooLong`], [`Error::ContextFull`], [`Error::ChatTemplate`], [`Error::Cancelled`], and
    /// [`Error::Llama`] if computing fails.
    pub fn ask(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Answer> {
        let mut turn = self.begin_turn(question, observer)?;
        while let Some(piece) = self.next_piece(&mut turn, observer)? {
            observer.text(&piece);
        }
        self.end_turn(turn)
    }

    /// Computes the prompt of `question` and returns the logits of the answer's first token, `[n_vocab]`; the
    /// conversation stays as it was.
    ///
    /// For comparing methods and for scoring choices by their likelihood.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn first_logits(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Vec<f32>> {
        self.settle(observer)?;
        let plan = self.plan(&self.user_message(question))?;
        self.prefill(&plan, observer)?;
        self.kv.read_logits(|context| context.logits().map(<[f32]>::to_vec))
    }

    /// Brings the KV cache to the prompt of `question`, with nothing evicted in between. Returns its rows.
    pub(super) fn prefill_question(&mut self, question: &str, observer: &mut dyn Observer) -> Result<usize> {
        let plan = self.plan(&self.user_message(question))?;
        self.prefill(&plan, observer)?;
        Ok(plan.rows.len())
    }

    /// Evicts now what the last answer left to evict because it was too short to tell what can go. The next question
    /// would do it, and take longer. Does nothing if nothing is left.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and [`Error::Llama`] if computing fails.
    pub fn settle(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let videos = &self.aside.as_ref().unwrap_or(&self.conversation).videos;
        // Behind an answer from a part of a video, nothing of the whole is there to evict from.
        if !self.kv.is_of(videos) {
            return Ok(());
        }
        self.kv.keep_videos(videos);
        self.kv.settle(&self.engine, &self.params, observer)
    }

    /// Forgets the conversation and its videos, and frees the KV cache.
    pub fn clear(&mut self) {
        self.free_cache();
        self.conversation.clear();
        self.aside = None;
    }

    /// Forgets the questions and answers, and keeps the videos for the next question: for independent questions about
    /// the same videos. They are neither encoded nor prefilled again. What was evicted stays evicted: see
    /// [`free_cache`](Self::free_cache).
    pub fn restart(&mut self) {
        self.conversation.restart();
        self.aside = None;
    }

    /// Frees the KV cache while the session waits. The next question computes the conversation anew, from the
    /// embeddings that were kept.
    pub fn free_cache(&mut self) {
        self.kv.free();
    }

    /// Changes what is evicted, from the next question on. Frees the KV cache, as [`free_cache`](Self::free_cache)
    /// does.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the threshold is no cosine.
    pub fn set_evict(&mut self, evict: EvictParams) -> Result<()> {
        evict.validate()?;
        self.params.evict = evict;
        self.kv.reset();
        Ok(())
    }

    /// Changes what is known of the model's layers ([`SessionParams::layer_profile`]), from the next question on. Frees
    /// the KV cache, as [`free_cache`](Self::free_cache) does.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the profile is of a model with another number of layers.
    pub fn set_layer_profile(&mut self, profile: Option<Arc<LayerProfile>>) -> Result<()> {
        profile.iter().try_for_each(|profile| profile.check(self.engine.model.n_layer()))?;
        self.params.layer_profile = profile;
        self.kv.reset();
        Ok(())
    }

    /// Changes which visual tokens are kept, of the videos that are here and of those to come. The selection is the one
    /// that a new session with these parameters makes. If it differs from the one before, the KV cache is freed; the
    /// conversation stays.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if `prune` is out of range, if there are videos and the session was not opened with
    /// [`keep_unpruned`](SessionParams::keep_unpruned), if a video came from a saved session, which holds only what was
    /// kept, if tokens of a video were not finished because they would be dropped ([`skip`](crate::skip)), or if some
    /// were not computed again and the method [needs exact embeddings](crate::prune::Method::needs_exact_embeddings).
    pub fn set_prune(&mut self, prune: PruneParams) -> Result<()> {
        prune.validate()?;
        self.check_unpruned(self.conversation.videos.iter().map(AsRef::as_ref))?;
        let videos = &mut self.conversation.videos;
        let same = prune == self.params.prune;
        // What such a method would be given of a video that is encoded for it.
        let exactly = self.params.encode.mode == EncodeMode::Auto && prune.method.needs_exact_embeddings();
        let is_short = |slice: &EncodedSlice| !slice.unfinished.is_empty() || (exactly && slice.is_estimated());
        let is_cut = |video: &Arc<EncodedVideo>| video.slices.iter().any(is_short);
        if let Some(video) = videos.iter().find(|video| !same && is_cut(video)) {
            return Err(Error::InvalidParameter {
                name: "the video",
                value: video.info.path.display().to_string(),
                expected: "encoded to the end, to select its visual tokens anew: add it again, encoded exactly".into(),
            });
        }
        let model = &self.engine.model;
        let mut taken = Duration::ZERO;
        let decisions: Vec<Decision> =
            timed(&mut taken, || videos.iter().map(|video| decide(video, &prune, model)).collect::<Result<_>>())?;

        // Nothing fails from here on.
        let mut changed = false;
        timed(&mut taken, || {
            for (video, decision) in videos.iter_mut().zip(&decisions) {
                changed |= select(video, decision, model.n_embd_inp());
            }
        });
        self.conversation.spent.prune += taken;
        let evicted_before = self.params.evict_mode();
        self.params.prune = prune;
        self.aside = None;
        // What was evicted, and what was found out about evicting, belongs to the selection before.
        if [evicted_before, self.params.evict_mode()].iter().any(|&mode| mode != EvictMode::Off) {
            self.kv.reset();
        } else if changed {
            self.kv.free();
        }
        Ok(())
    }

    /// Whether visual tokens of these videos can be selected anew.
    pub(super) fn check_unpruned<'a>(&self, videos: impl IntoIterator<Item = &'a EncodedVideo>) -> Result<()> {
        for video in videos {
            if !self.params.keep_unpruned {
                return Err(Error::InvalidParameter {
                    name: "SessionParams::keep_unpruned",
                    value: "false".into(),
                    expected: "true for selecting visual tokens anew".into(),
                });
            }
            if video.unpruned.len() != video.slices.len() {
                return Err(Error::InvalidParameter {
                    name: "the video",
                    value: video.info.path.display().to_string(),
                    expected: "encoded in this session, to select its visual tokens anew: add it again".into(),
                });
            }
        }
        Ok(())
    }

    /// Changes how much of each image is encoded, of videos to come.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if a parameter is out of range, or if the model's encoder cannot do what is asked
    /// for by name.
    pub fn set_encode(&mut self, encode: EncodeParams) -> Result<()> {
        encode.validate()?;
        self.engine.shape.mode(&encode)?;
        self.params.encode = encode;
        Ok(())
    }

    /// Changes how tokens are chosen, from the next answer on.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if a parameter is out of range, or if a grammar cannot be parsed.
    pub fn set_sampler(&mut self, sampler: SamplerParams) -> Result<()> {
        Sampler::new(&self.engine.model, &sampler)?;
        self.params.sampler = sampler;
        Ok(())
    }

    /// Changes the most tokens that an answer may have, from the next one on.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for 0.
    pub fn set_n_predict(&mut self, n_predict: usize) -> Result<()> {
        check_n_predict(n_predict)?;
        self.params.n_predict = n_predict;
        Ok(())
    }

    /// Sets the system message, for the next question and those after it. `None` leaves it to the chat template.
    pub fn set_system(&mut self, system: Option<String>) {
        self.conversation.system = system;
        self.aside = None;
    }

    /// Lets every answer from now on begin with `text`, which stands behind the prompt as if the model had written it.
    /// [`ask`](Self::ask) gives what comes behind it. An empty text leaves the beginning to the model.
    ///
    /// Benchmarks use it: after `Best option:(` hardly anything but a letter can follow.
    pub fn set_answer_start(&mut self, text: &str) {
        text.clone_into(&mut self.conversation.answer_start);
        self.aside = None;
    }

    /// The conversation so far, without the system message.
    pub fn messages(&self) -> &[Message] {
        &self.conversation.messages
    }

    /// The videos of the conversation, and those that wait for the next question.
    pub fn videos(&self) -> impl ExactSizeIterator<Item = &VideoInfo> {
        self.conversation.videos.iter().map(|video| &video.info)
    }

    /// The visual tokens of all videos of the conversation, and how many of them are kept.
    pub fn visual_tokens(&self) -> VisualTokens {
        count(&slice_reports(&self.conversation.videos))
    }

    /// What the vision encoder did of the work that the videos of the conversation would have taken.
    pub fn encoder_work(&self) -> EncoderWork {
        encoder_work(&self.conversation.videos)
    }

    /// How similar the visual tokens in the cache were to what entered the model, for each of its layers, when the last
    /// answer began: the mean cosine of a layer's input with the tokens' embeddings. Empty if nothing was measured: no
    /// video, or nothing is evicted ([`EvictMode::Off`]). NaN for a layer without a value.
    pub fn similarity(&self) -> &[f32] {
        &self.kv.similarity().layers
    }

    /// The KV cache as it is now; all zero if there is none.
    pub fn kv(&self) -> Kv {
        self.kv.report(&self.engine, &self.params)
    }

    /// The flag that stops this session's work.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.params.cancel
    }

    /// What is known of the model's layers.
    pub fn layer_profile(&self) -> Option<&LayerProfile> {
        self.params.layer_profile.as_deref()
    }

    /// The language model.
    pub fn model(&self) -> &Model {
        &self.engine.model
    }

    /// The layout of its prompts.
    pub fn layout(&self) -> &dyn Layout {
        self.engine.layout.as_ref()
    }

    /// The prompt of `question` as text, with a mark in place of each frame. For looking at what a model is given.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`].
    pub fn prompt_text(&self, question: &str) -> Result<String> {
        let text = render::render(&self.engine, self.asked(), &self.user_message(question))?;
        Ok(text.replace(&self.asked().marks.cut(), ""))
    }

    /// The rows that [`ask`](Self::ask) would feed to the model for `question`, and their positions. For looking at
    /// what a model is given.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`], [`Error::PromptTooLong`].
    pub fn prompt_rows(&self, question: &str) -> Result<Vec<PlannedRow>> {
        Ok(self.plan(&self.user_message(question))?.rows)
    }

    /// Says what a video will take in the prompt of `question` and in memory, and what of it fits. Opens the file and
    /// decodes one frame; encodes nothing.
    ///
    /// # Errors
    /// What [`FrameSource::open`](crate::video::FrameSource::open) gives for a file that cannot be used;
    /// [`Error::ChatTemplate`]; [`Error::Llama`] if there is not even memory for a small context.
    pub fn plan_video(&self, path: &Path, options: &VideoOptions, question: &str) -> Result<VideoPlan> {
        self.fit().plan_video(Origin::Path(path), options, question)
    }

    /// As [`plan_video`](Self::plan_video), with frames that are in memory.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there are none; otherwise as [`plan_video`](Self::plan_video).
    pub fn plan_frames(
        &self,
        name: &str,
        frames: &Frames,
        options: &VideoOptions,
        question: &str,
    ) -> Result<VideoPlan> {
        self.fit().plan_video(Origin::Frames(name, frames), options, question)
    }

    pub(super) fn fit(&self) -> Fit<'_> {
        let Self { engine, conversation, params, kv, .. } = self;
        Fit { engine, conversation, params, present: kv.memory_usage() }
    }

    /// The conversation that the next question is asked in.
    pub(super) fn asked(&self) -> &Conversation {
        self.aside.as_ref().unwrap_or(&self.conversation)
    }

    pub(super) fn user_message(&self, question: &str) -> Message {
        self.asked().user_message(self.layout(), question)
    }

    /// The prompt that ends with `message`, if it is not too long.
    pub(super) fn plan(&self, message: &Message) -> Result<Plan> {
        let plan = render::plan(&self.engine, self.asked(), message, self.params.tokenization)?;
        self.fit().limits().check_prompt(&plan, self.params.n_predict)?;
        Ok(plan)
    }

    /// Brings the KV cache to `plan`. Returns how many rows of it were there already.
    pub(super) fn prefill(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<usize> {
        let first = self.feed(plan, observer)?;
        if self.kv.wants_description(&self.params) {
            match self.plan(&self.user_message(DESCRIBE)) {
                Ok(other) => self.kv.describe(&other),
                // Without room for it, or with a template that refuses it, the question has to do.
                Err(error) => tracing::debug!("no second question to try evictions with: {error}"),
            }
        }
        Ok(first)
    }

    /// As [`prefill`](Self::prefill), without a thought of evicting anything behind it.
    pub(super) fn feed(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<usize> {
        let videos = &self.aside.as_ref().unwrap_or(&self.conversation).videos;
        let inputs = Inputs { videos, newline: self.engine.newline.as_deref() };
        self.kv.prefill(&self.engine, &self.params, plan, inputs, observer)
    }

    /// What produces answers: what was asked for, and what it came to.
    pub fn settings(&self) -> Settings {
        let compute = &self.params.compute;
        let caps = self.conversation.videos.iter().filter_map(|video| video.max_kept).chain(self.params.prune.cap);
        Settings {
            layout: self.layout().name(),
            prune: PruneParams { cap: caps.min(), ..self.params.prune.clone() },
            evict: EvictParams { mode: Some(self.params.evict_mode()), ..self.params.evict },
            encode: self.params.encode.of(self.params.prune.method),
            sampler: self.params.sampler.clone(),
            n_predict: self.params.n_predict,
            n_ubatch: self.kv.n_ubatch(&self.params),
            n_threads: compute.n_threads.unwrap_or_else(default_threads),
            cache_type: [compute.type_k.name(), compute.type_v.name()],
        }
    }
}
