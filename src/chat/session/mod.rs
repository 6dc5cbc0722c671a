//! The session: a conversation with an engine and a cache.

mod builder;
mod effects;
mod inspect;
pub(in crate::chat) mod save;
mod settings;
mod several;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
mod worker;

pub use builder::SessionBuilder;
pub use effects::Effect;
pub use inspect::{KeptTokens, SliceInspection, VideoInspection};
pub use settings::TurnParams;
pub use shared::EncodedVideo;
pub use stream::AnswerStream;
pub use worker::{Event, EventKind, Loaded, Ticket, Worker, WorkerBuilder};

use super::cache::{Cache, Learned};
use super::conversation::Conversation;
use super::encode::{Encoder, GridRules};
use super::encoded;
use super::engine::Engine;
use super::fit::{Fit, VideoPlan};
use super::params::SessionParams;
use super::report::{Answer, VideoReport};
use super::sampling::VideoOptions;
use super::search::{CloserLook, Question, Search, Searcher, Zoom, parts_of};
use super::turn::Chat;
use crate::error::{Error, Result};
use crate::models::ModelFiles;
use crate::observer::Observer;
use crate::prune::PruneParams;
use crate::runtime::{ComputeParams, Model, Sampler};
use crate::video::{Kind, Source};
use std::sync::Arc;

/// A conversation about videos.
///
/// A method that fails leaves the session as it was.
#[derive(Debug)]
pub struct Session {
    // Dropped before the engine that it was made with.
    cache: Cache,
    engine: Engine,
    conversation: Conversation,
    learned: Learned,
    params: SessionParams,
}

impl Session {
    /// Opens a session with all parameters at once; [`builder`](Self::builder) sets one at a time.
    ///
    /// # Errors
    /// As [`SessionBuilder::open`].
    pub fn open(files: &ModelFiles, params: SessionParams, observer: &mut dyn Observer) -> Result<Self> {
        Self::load_with(None, files, params, observer)
    }

    fn load_with(
        model: Option<Model>,
        files: &ModelFiles,
        params: SessionParams,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        // Check what needs no file before loading a large one.
        params.validate()?;
        let engine = Engine::load(model, files, &params.engine(), observer)?;
        engine.shape.mode(&params.encode)?;
        if let Some(profile) = &params.layer_profile {
            profile.check(engine.model.n_layer())?;
        }
        // Report a grammar that does not parse before anything is encoded.
        Sampler::new(&engine.model, &params.sampler)?;
        let conversation = Conversation::new(params.system.clone());
        Ok(Self { cache: Cache::default(), engine, conversation, learned: Learned::default(), params })
    }

    /// Takes the session apart, for live video.
    pub(in crate::chat) fn into_parts(self) -> (Engine, SessionParams) {
        (self.engine, self.params)
    }

    /// Decodes, encodes and prunes a video, and adds it for the next question. `source` is a path, or frames in memory
    /// with a name in place of the path.
    ///
    /// ```no_run
    /// use sharpv::video::Frames;
    /// use sharpv::{Session, VideoOptions};
    ///
    /// # let files = sharpv::models::resolve("smol", None, &[])?;
    /// let mut session = Session::builder(&files).open()?;
    /// session.add_video("clip.mp4", &VideoOptions::default(), &mut ())?;
    ///
    /// let mut frames = Frames::new(320, 240);
    /// for second in 0..8_u8 {
    ///     let rgb = vec![16 * second; 320 * 240 * 3]; // rows of pixels: red, green, blue
    ///     frames.push(rgb, second.into())?;
    /// }
    /// session.add_video(("camera", frames), &VideoOptions::default(), &mut ())?;
    /// # Ok::<(), sharpv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`FrameSource::open`](crate::video::FrameSource::open) for a file that cannot be used;
    /// [`Error::InvalidParameter`] for frames in memory if there are none; [`Error::PromptTooLong`] before encoding if
    /// the frames do not fit the model; [`Error::Cancelled`].
    pub fn add_video(
        &mut self,
        source: impl Into<Source>,
        options: &VideoOptions,
        observer: &mut dyn Observer,
    ) -> Result<VideoReport> {
        let video = self.encode(&source.into(), options, observer)?;
        Ok(self.add(video))
    }

    /// Decodes, encodes and prunes a video, so that it fits after the conversation so far.
    fn encode(
        &mut self,
        source: &Source,
        options: &VideoOptions,
        observer: &mut dyn Observer,
    ) -> Result<encoded::EncodedVideo> {
        let Self { engine, conversation, params, cache, .. } = self;
        let (path, memory) = (source.path(), cache.memory_usage());
        let fit = params.fit(engine, conversation, memory);
        let mut proposal = fit.propose(source, options)?;
        if let Some(shortage) = proposal.shortage {
            return Err(shortage.error(path, proposal.need.frames));
        }
        let survey = match proposal.by_changes {
            true => Some(fit.survey(source, options, &mut proposal, observer)?),
            false => None,
        };
        if let Some(report) = survey {
            let n_frames = proposal.frames.planned_times().len();
            observer.message(&format!("{}: {n_frames} frames, chosen by what changes in {report}", path.display()));
        }
        for change in &proposal.changes {
            observer.warning(&format!("{}: {change}", path.display()));
        }
        // Do not warn a caller who left the default.
        let chosen = params.compute.n_ubatch;
        if let Some(raised) = fit.raised_ubatch(&proposal.need)
            && chosen != ComputeParams::default().n_ubatch
        {
            observer.warning(&format!(
                "{}: {raised} rows are computed at once in place of {chosen}: the model requires an image in one batch",
                path.display()
            ));
        }
        let cap = params.prune.cap.into_iter().chain(proposal.max_kept).min();
        let prune = PruneParams { cap, ..params.prune.clone() };
        let mrope = engine.vision.uses_mrope();
        let grids = GridRules { projector: &engine.shape.projector, mrope, has_newline: engine.newline.is_some() };
        let mut encoder = Encoder {
            model: &engine.model,
            vision: &mut engine.vision,
            layout: proposal.layout.as_deref().unwrap_or(engine.layout.as_ref()),
            prune: &prune,
            encode: &params.encode,
            keep_unpruned: params.keep_unpruned,
            inspect: params.inspect.then_some(grids),
            cancel: &params.cancel,
        };
        let frames = if params.decode_ahead { proposal.frames.decode_ahead() } else { proposal.frames };
        let mut video = encoder.encode(frames, proposal.timings, observer)?;
        video.max_kept = proposal.max_kept;
        video.sampling = Some(proposal.sampling);
        video.survey = survey;
        let kept = video.slices.iter().map(|slice| slice.kept.len()).sum();
        if let Some(capped) = proposal.capped.filter(|_| Some(kept) == proposal.max_kept) {
            observer.warning(&format!("{}: {capped}", path.display()));
        }
        Ok(video)
    }

    /// Adds a video and counts the time of its encoding for the next turn.
    fn add(&mut self, video: encoded::EncodedVideo) -> VideoReport {
        self.conversation.spent += video.timings;
        self.add_shared(Arc::new(video))
    }

    /// Adds a video that may be shared with other sessions.
    fn add_shared(&mut self, video: Arc<encoded::EncodedVideo>) -> VideoReport {
        let report = VideoReport::of(&self.engine, &video);
        self.conversation.videos.push(video);
        report
    }

    /// Returns how much of the prompt and of memory a video will take with the question in `options`, and how many of
    /// its frames fit. Opens the file and decodes one frame; encodes nothing.
    ///
    /// # Errors
    /// As [`FrameSource::open`](crate::video::FrameSource::open) for a file that cannot be used;
    /// [`Error::InvalidParameter`] for frames in memory if there are none; [`Error::ChatTemplate`]; [`Error::Llama`] if
    /// memory does not even hold a small context.
    pub fn plan_video(&self, source: impl Into<Source>, options: &VideoOptions) -> Result<VideoPlan> {
        self.fit().plan_video(&source.into(), options)
    }

    /// Asks a question about the videos that were added, as the next turn of the conversation. Streams the answer to
    /// `observer` and returns it.
    ///
    /// If the [`CancelToken`](crate::runtime::CancelToken) stops it during the answer, returns the answer so far;
    /// during the prefill, fails with [`Error::Cancelled`].
    ///
    /// # Errors
    /// [`Error::PromptTooLong`], [`Error::ContextFull`], [`Error::ChatTemplate`], [`Error::Cancelled`], and
    /// [`Error::Llama`] if computing fails.
    pub fn ask<'q>(&mut self, question: impl Into<Question<'q>>, observer: &mut dyn Observer) -> Result<Answer> {
        let mut turn = self.begin_turn(question.into(), observer)?;
        while let Some(piece) = self.next_piece(&mut turn, observer)? {
            piece.report(observer);
        }
        self.end_turn(turn)
    }

    /// Prefills the prompt of `question` and returns the logits of the answer's first token, `[n_vocab]`. There is no
    /// thought before it ([`Thinking::Off`](crate::chat::Thinking::Off)), whatever is set. The conversation does not
    /// change.
    ///
    /// Use it to compare methods, or to score choices by their likelihood.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn first_logits<'q>(
        &mut self,
        question: impl Into<Question<'q>>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<f32>> {
        let Question { text, about, .. } = question.into();
        let mut part = self.part(about);
        let mut chat = self.chat_about(&mut part);
        chat.settle(observer)?;
        chat.first_logits(&text, <[f32]>::to_vec, observer)
    }

    /// Carries out an eviction that is pending because the last answer was too short to measure what can be evicted.
    /// Otherwise the next question would do it, and take longer. Does nothing if none is pending.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and [`Error::Llama`] if computing fails.
    pub fn settle(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.chat().settle(observer)
    }

    /// Adds frames of the part of the last video that `question` names: around a moment, such as `12:30`, `at 90 s` or
    /// `minute 5`, or between two moments. Returns `None` if it names none, if the conversation has enough frames
    /// there, if the added frames would not fit (with a warning), or if the video cannot be read again: frames in
    /// memory, or a file that no longer exists.
    ///
    /// The frames are encoded like any video, and stay in the conversation.
    ///
    /// # Errors
    /// As [`add_video`](Self::add_video).
    pub fn zoom(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Option<Zoom>> {
        let Some(look) = CloserLook::of(question, &self.conversation.videos) else { return Ok(None) };
        let CloserLook { path, options, part, frames_before } = look;
        let added = match self.encode(&path.into(), &options, observer) {
            // The question can be answered from the frames so far.
            Err(error @ Error::PromptTooLong { .. }) => {
                observer.warning(&format!("no frames were added around the time that the question names: {error}"));
                return Ok(None);
            }
            added => added?,
        };
        let report = self.add(added);
        let (start_s, end_s, frames) = (part.start, part.end, report.frames());
        Ok(Some(Zoom { start_s, end_s, frames_before, frames, report }))
    }

    /// Asks about each part of the last video alone, two slices at a time, and finds the part whose answer to
    /// `question` differs most from the others, if one differs. [`Search::question`] then makes a question about that
    /// part alone. Returns `None` for images and for videos of fewer than seven slices.
    ///
    /// Use it for one thing that a long video shows once ("Is there a crown in the video?"), and not for what the whole
    /// video is about. It takes about as long as prefilling the video once more, with the question after each part.
    /// Earlier messages are not part of these prompts. The session and its cache do not change.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the session was not opened with
    /// [`keep_unpruned`](crate::SessionParams::keep_unpruned), or if the video came from a saved session, because the
    /// visual tokens of each part are selected anew. Otherwise as [`ask`](Self::ask).
    pub fn search(&self, question: &str, observer: &mut dyn Observer) -> Result<Option<Search>> {
        let Self { engine, conversation, params, .. } = self;
        let Some(video) = conversation.videos.iter().rev().find(|video| video.info.kind != Kind::Image) else {
            return Ok(None);
        };
        let Some(slices) = parts_of(video) else { return Ok(None) };
        settings::check_unpruned(params, [video.as_ref()])?;
        Searcher { engine, params, conversation }.search_video(video, &slices, question, observer).map(Some)
    }

    /// Removes the messages and the videos of the conversation, and frees the KV cache.
    pub fn clear(&mut self) {
        self.free_cache();
        self.conversation.clear();
    }

    /// Removes the messages and keeps the videos, for independent questions about the same videos, which are neither
    /// encoded nor prefilled again. Evicted rows stay evicted: [`free_cache`](Self::free_cache) makes the next question
    /// compute them again.
    pub fn restart(&mut self) {
        self.conversation.restart();
    }

    /// Frees the KV cache while the session is idle. The next question prefills the conversation again, from the
    /// embeddings.
    pub fn free_cache(&mut self) {
        self.cache.free();
    }

    /// Frees the KV cache, and forgets what was learned about evicting.
    fn reset_cache(&mut self) {
        self.cache.free();
        self.learned = Learned::default();
    }

    fn fit(&self) -> Fit<'_> {
        self.params.fit(&self.engine, &self.conversation, self.cache.memory_usage())
    }

    /// The session's conversation, with its engine and its cache.
    fn chat(&mut self) -> Chat<'_> {
        let Self { engine, params, conversation, cache, learned } = self;
        Chat::new(engine, params, conversation, cache, learned)
    }
}
