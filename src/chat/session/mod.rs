//! The session: an engine, a conversation and a cache, and what is done with them in turn.

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
/// Every method that fails leaves the session as it was before the call.
#[derive(Debug)]
pub struct Session {
    // Dropped before what it was made from.
    cache: Cache,
    engine: Engine,
    conversation: Conversation,
    learned: Learned,
    params: SessionParams,
}

impl Session {
    /// As [`builder`](Self::builder), with everything at once.
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
        // What can be checked without the files is checked before a large one is loaded.
        params.validate()?;
        let engine = Engine::load(model, files, &params.engine(), observer)?;
        engine.shape.mode(&params.encode)?;
        if let Some(profile) = &params.layer_profile {
            profile.check(engine.model.n_layer())?;
        }
        // A grammar that does not parse is an error before anything is encoded.
        Sampler::new(&engine.model, &params.sampler)?;
        let conversation = Conversation::new(params.system.clone());
        Ok(Self { cache: Cache::default(), engine, conversation, learned: Learned::default(), params })
    }

    /// The parts of a session, for live video.
    pub(in crate::chat) fn into_parts(self) -> (Engine, SessionParams) {
        (self.engine, self.params)
    }

    /// Decodes, encodes and prunes a video, for the next question. `source` is a path, or frames in memory with a name
    /// that stands for the path.
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
    /// What [`FrameSource::open`](crate::video::FrameSource::open) returns for a file that cannot be used;
    /// [`Error::InvalidParameter`] for frames in memory if there are none; [`Error::PromptTooLong`] if its frames do
    /// not fit the model, before any is encoded; [`Error::Cancelled`].
    pub fn add_video(
        &mut self,
        source: impl Into<Source>,
        options: &VideoOptions,
        observer: &mut dyn Observer,
    ) -> Result<VideoReport> {
        let video = self.encode(&source.into(), options, observer)?;
        Ok(self.add(video))
    }

    /// Decodes, encodes and prunes a video, so that it fits after what was said.
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
        // Nobody who did not choose a number has to know of another one.
        let chosen = params.compute.n_ubatch;
        if let Some(raised) = fit.raised_ubatch(&proposal.need)
            && chosen != ComputeParams::default().n_ubatch
        {
            observer.warning(&format!(
                "{}: {raised} rows are computed at once in place of {chosen}: this model has to see each image at once",
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

    /// Adds a video that was encoded just now.
    fn add(&mut self, video: encoded::EncodedVideo) -> VideoReport {
        self.conversation.spent += video.timings;
        self.add_shared(Arc::new(video))
    }

    /// Adds a video that was encoded once.
    fn add_shared(&mut self, video: Arc<encoded::EncodedVideo>) -> VideoReport {
        let report = VideoReport::of(&self.engine, &video);
        self.conversation.videos.push(video);
        report
    }

    /// Says what a video will take in the prompt of the question in `options` and in memory, and what of it fits. Opens
    /// the file and decodes one frame; encodes nothing.
    ///
    /// # Errors
    /// What [`FrameSource::open`](crate::video::FrameSource::open) returns for a file that cannot be used;
    /// [`Error::InvalidParameter`] for frames in memory if there are none; [`Error::ChatTemplate`]; [`Error::Llama`] if
    /// there is not even memory for a small context.
    pub fn plan_video(&self, source: impl Into<Source>, options: &VideoOptions) -> Result<VideoPlan> {
        self.fit().plan_video(&source.into(), options)
    }

    /// Asks a question about the videos that were added, in the light of the conversation so far. The answer streams to
    /// `observer`.
    ///
    /// A stop through the [`CancelToken`](crate::runtime::CancelToken) during the answer returns what there is of it;
    /// during the prefill it is [`Error::Cancelled`].
    ///
    /// # Errors
    /// [`Error::PromptTooLong`], [`Error::ContextFull`], [`Error::ChatTemplate`], [`Error::Cancelled`], and
    /// [`Error::Llama`] if computing fails.
    pub fn ask<'q>(&mut self, question: impl Into<Question<'q>>, observer: &mut dyn Observer) -> Result<Answer> {
        let mut turn = self.begin_turn(question.into(), observer)?;
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

    /// Evicts now what the last answer left to evict because it was too short to show what can go. The next question
    /// would do it, and take longer. Does nothing if nothing is left.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and [`Error::Llama`] if computing fails.
    pub fn settle(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.chat().settle(observer)
    }

    /// Adds frames of the part of the last video that `question` names, for this question: around a moment (`12:30`,
    /// `at 90 s`, `minute 5`) or between two of them. Does nothing if it names none, if the video has enough frames
    /// there, or if it cannot be read again: frames in memory, or a video of a saved session whose file is gone.
    ///
    /// The frames are encoded as those of any video, and stay in the conversation.
    ///
    /// # Errors
    /// As [`add_video`](Self::add_video).
    pub fn zoom(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Option<Zoom>> {
        let Some(look) = CloserLook::of(question, &self.conversation.videos) else { return Ok(None) };
        let CloserLook { path, options, part, frames_before } = look;
        let added = match self.encode(&path.into(), &options, observer) {
            // The question can be answered from what is there.
            Err(error @ Error::PromptTooLong { .. }) => {
                observer.warning(&format!("frames around the time in the question were not added: {error}"));
                return Ok(None);
            }
            added => added?,
        };
        let report = self.add(added);
        let (start_s, end_s, frames) = (part.start, part.end, report.frames());
        Ok(Some(Zoom { start_s, end_s, frames_before, frames, report }))
    }

    /// Asks each part of the last video alone, two slices (frames, or merged groups of them) of it, and finds the one
    /// whose answer to `question` differs most from those of the others, if one differs. [`Search::question`] then asks
    /// about that part alone. Returns `None` for images and for videos of fewer than eight slices.
    ///
    /// For one thing that a long video shows once ("Is there a crown in the video?"), and not for what all of it is
    /// about. It takes about as long as prefilling the video once more, and the question with each of its parts. The
    /// parts do not see what was said before; the session and its cache stay as they are.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the session was not opened with
    /// [`keep_unpruned`](crate::SessionParams::keep_unpruned), or if the video came from a saved session: each part's
    /// visual tokens are selected anew. Otherwise as [`ask`](Self::ask).
    pub fn search(&self, question: &str, observer: &mut dyn Observer) -> Result<Option<Search>> {
        let Self { engine, conversation, params, .. } = self;
        let Some(video) = conversation.videos.iter().rev().find(|video| video.info.kind != Kind::Image) else {
            return Ok(None);
        };
        let Some(slices) = parts_of(video) else { return Ok(None) };
        settings::check_unpruned(params, [video.as_ref()])?;
        Searcher { engine, params, conversation }.search_video(video, &slices, question, observer).map(Some)
    }

    /// Forgets the conversation and its videos, and frees the KV cache.
    pub fn clear(&mut self) {
        self.free_cache();
        self.conversation.clear();
    }

    /// Forgets the questions and answers, and keeps the videos for the next question: for independent questions about
    /// the same videos. They are neither encoded nor prefilled again. What was evicted stays evicted: see
    /// [`free_cache`](Self::free_cache).
    pub fn restart(&mut self) {
        self.conversation.restart();
    }

    /// Frees the KV cache while the session waits. The next question computes the conversation anew, from the
    /// embeddings that were kept.
    pub fn free_cache(&mut self) {
        self.cache.free();
    }

    /// Frees the KV cache, and forgets what was learned of evicting from it.
    fn reset_cache(&mut self) {
        self.cache.free();
        self.learned = Learned::default();
    }

    fn fit(&self) -> Fit<'_> {
        self.params.fit(&self.engine, &self.conversation, self.cache.memory_usage())
    }

    /// The conversation with what answers it.
    fn chat(&mut self) -> Chat<'_> {
        let Self { engine, params, conversation, cache, learned } = self;
        Chat::new(engine, params, conversation, cache, learned)
    }
}
