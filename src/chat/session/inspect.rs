//! What a program can look at in a session: which visual tokens are kept, and what became of the others.
//!
//! [`SessionParams::inspect`](crate::chat::SessionParams::inspect) lets a session note it while a video is encoded. It
//! changes nothing of what is kept.

use super::Session;
#[cfg(doc)]
use crate::chat::EvictMode;
use crate::chat::cache::profile::LayerProfile;
use crate::chat::cache::{Cache, Kv, Learned};
use crate::chat::conversation::message::Message;
use crate::chat::encoded::notes::{EncoderCells, Grid, TokenScores};
use crate::chat::encoded::{EncodedSlice, EncodedVideo};
use crate::chat::prompt;
use crate::chat::report::{EncoderWork, VisualTokens, count, encoder_work, slice_reports};
use crate::chat::rows::PlannedRow;
use crate::chat::search::Question;
use crate::chat::turn::Chat;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::layout::Layout;
use crate::runtime::{CancelToken, KvLayer, Model};
use crate::video::{Sampling, VideoInfo};
use serde::Serialize;
use std::sync::Arc;

/// A video of a conversation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VideoInspection {
    /// What was opened.
    pub info: VideoInfo,
    /// Which frames were taken: [`FrameSource`](crate::video::FrameSource) gives them again.
    pub sampling: Sampling,
    /// Its slices, in order.
    pub slices: Vec<SliceInspection>,
}

/// The visual tokens of a frame, or of a merged pair of frames.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SliceInspection {
    /// Where in the video its frames are, in seconds.
    pub times_s: Vec<f64>,
    /// The images that the encoder made of it. Their tokens follow each other.
    pub grids: Vec<Grid>,
    /// Its visual tokens.
    pub n_tokens: usize,
    /// Those that are kept, ascending.
    pub kept: Vec<u32>,
    /// The importance of each token to the method that chose; `None` where that gives tokens none.
    pub importance: Option<Vec<f32>>,
    /// SharpV's scores, whatever the method.
    pub scores: TokenScores,
    /// A scene begins with it, as SharpV sees it.
    pub opens_scene: bool,
    /// The share of its encoding that was computed, 0 to 1.
    pub computed: f32,
    /// What the encoder did of it, cell by cell; `None` where it always computes all.
    pub cells: Option<EncoderCells>,
}

/// The visual tokens of a frame, or of a merged pair of frames: see [`Session::kept_tokens`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct KeptTokens<'a> {
    /// Its time in the video, in seconds.
    pub time_s: f64,
    /// Its visual tokens.
    pub total: usize,
    /// Those that are kept: their places in the encoder's grid, row by row from the top left, ascending.
    pub kept: &'a [u32],
}

impl<'a> KeptTokens<'a> {
    pub(in crate::chat) fn of(video: Option<&'a Arc<EncodedVideo>>) -> impl ExactSizeIterator<Item = Self> {
        let slices = video.map_or(&[][..], |video| &video.slices[..]);
        slices.iter().map(|slice| KeptTokens { time_s: slice.time_s(), total: slice.n_tokens, kept: &slice.kept })
    }
}

fn inspection(video: &EncodedVideo) -> Option<VideoInspection> {
    let slice = |slice: &EncodedSlice| {
        let notes = slice.notes.as_deref()?.clone();
        Some(SliceInspection {
            times_s: slice.times_s.clone(),
            grids: notes.grids,
            n_tokens: slice.n_tokens,
            kept: slice.kept.clone(),
            importance: notes.importance,
            scores: notes.scores,
            opens_scene: notes.opens_scene,
            computed: slice.computed,
            cells: slice.cells.clone(),
        })
    };
    let slices = video.slices.iter().map(slice).collect::<Option<Vec<_>>>()?;
    Some(VideoInspection { info: video.info.clone(), sampling: video.sampling?, slices })
}

impl Session {
    /// What became of the videos of the conversation: those that were encoded in this session, if it was opened with
    /// [`inspect`](super::SessionParams::inspect).
    pub fn inspect(&self) -> Vec<VideoInspection> {
        self.conversation.videos.iter().filter_map(|video| inspection(video)).collect()
    }

    /// The KV cache layer by layer; empty if there is none, or if nothing can be evicted from it.
    pub fn kv_layers(&self) -> Vec<KvLayer> {
        self.cache.layers()
    }

    /// The visual tokens that are kept of video number `video`, frame by frame; none if there is no such video. For
    /// drawing them over the frames.
    pub fn kept_tokens(&self, video: usize) -> impl ExactSizeIterator<Item = KeptTokens<'_>> {
        KeptTokens::of(self.conversation.videos.get(video))
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
        &self.learned.similarity.layers
    }

    /// The KV cache as it is now; all zero if there is none.
    pub fn kv(&self) -> Kv {
        self.cache.report(&self.engine, &self.params.cache())
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
    pub fn prompt_text<'q>(&self, question: impl Into<Question<'q>>) -> Result<String> {
        let Question { text, about, .. } = question.into();
        match about {
            None => prompt::text(&self.engine, &self.conversation, &text),
            Some(part) => prompt::text(&self.engine, &self.conversation.about(part), &text),
        }
    }

    /// The rows that [`ask`](Self::ask) would compute for `question`, and their positions. For looking at what a model
    /// is given.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`], [`Error::PromptTooLong`].
    pub fn prompt_rows(&self, question: &str) -> Result<Vec<PlannedRow>> {
        let (mut cache, mut learned) = (Cache::default(), Learned::default());
        let chat = Chat::new(&self.engine, &self.params, &self.conversation, &mut cache, &mut learned);
        Ok(chat.plan(question)?.rows)
    }
}
