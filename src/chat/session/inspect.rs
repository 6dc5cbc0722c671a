//! Inspecting a session: its videos, its visual tokens, its cache and its prompts.
//!
//! [`SessionParams::inspect`](crate::chat::SessionParams::inspect) makes a session record scores while it encodes a
//! video. It does not change what is kept.

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

/// How a video of a conversation was sampled, encoded and pruned.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VideoInspection {
    /// The source that was opened.
    pub info: VideoInfo,
    /// Which frames were taken: [`FrameSource`](crate::video::FrameSource) can return them again.
    pub sampling: Sampling,
    /// Its slices, in order.
    pub slices: Vec<SliceInspection>,
}

/// The visual tokens of one slice.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SliceInspection {
    /// The times of its frames, in seconds.
    pub times_s: Vec<f64>,
    /// The grids of visual tokens, one for each image of it, in the order of their tokens.
    pub grids: Vec<Grid>,
    /// The number of its visual tokens.
    pub n_tokens: usize,
    /// The indices of those that are kept, ascending.
    pub kept: Vec<u32>,
    /// The importance that the method gives to each token; `None` if it gives none.
    pub importance: Option<Vec<f32>>,
    /// SharpV's scores of each token, whatever the method.
    pub scores: TokenScores,
    /// Whether a scene begins with it, according to SharpV.
    pub opens_scene: bool,
    /// The share of its encoding that was computed, 0 to 1.
    pub computed: f32,
    /// What the encoder computed of it, cell by cell; `None` if it always computes everything.
    pub cells: Option<EncoderCells>,
}

/// The kept visual tokens of one slice: see [`Session::kept_tokens`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct KeptTokens<'a> {
    /// The time of its first frame, in seconds.
    pub time_s: f64,
    /// The number of its visual tokens.
    pub total: usize,
    /// The indices of those that are kept, ascending, in the encoder's grid: row by row from the top left.
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
    /// Returns how each video of the conversation was sampled, encoded and pruned, for the videos that this session
    /// encoded. Empty unless it was opened with [`inspect`](super::SessionParams::inspect).
    pub fn inspect(&self) -> Vec<VideoInspection> {
        self.conversation.videos.iter().filter_map(|video| inspection(video)).collect()
    }

    /// The KV cache layer by layer, `[n_layer]`; empty if there is no cache, or if nothing can be evicted from it.
    pub fn kv_layers(&self) -> Vec<KvLayer> {
        self.cache.layers()
    }

    /// The kept visual tokens of the video with index `video`, slice by slice; empty if there is no such video. Use it
    /// to draw them over the frames.
    pub fn kept_tokens(&self, video: usize) -> impl ExactSizeIterator<Item = KeptTokens<'_>> {
        KeptTokens::of(self.conversation.videos.get(video))
    }

    /// The messages of the conversation, without the system message.
    pub fn messages(&self) -> &[Message] {
        &self.conversation.messages
    }

    /// The videos of the conversation, including those added for the next question.
    pub fn videos(&self) -> impl ExactSizeIterator<Item = &VideoInfo> {
        self.conversation.videos.iter().map(|video| &video.info)
    }

    /// How many visual tokens the videos of the conversation have, and how many of them are kept.
    pub fn visual_tokens(&self) -> VisualTokens {
        count(&slice_reports(&self.conversation.videos))
    }

    /// How much of the conversation's videos the vision encoder computed.
    pub fn encoder_work(&self) -> EncoderWork {
        encoder_work(&self.conversation.videos)
    }

    /// The mean cosine between the visual tokens' states at the input of each layer and their embeddings, `[n_layer]`,
    /// measured at the last answer. Empty if nothing was measured, because there is no video or eviction is off
    /// ([`EvictMode::Off`]). NaN for a layer without a value.
    pub fn similarity(&self) -> &[f32] {
        &self.learned.similarity.layers
    }

    /// The size and the use of the KV cache; all zero if there is none.
    pub fn kv(&self) -> Kv {
        self.cache.report(&self.engine, &self.params.cache())
    }

    /// The token that cancels this session's work.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.params.cancel
    }

    /// The layer profile of the model, if the session has one.
    pub fn layer_profile(&self) -> Option<&LayerProfile> {
        self.params.layer_profile.as_deref()
    }

    /// The language model.
    pub fn model(&self) -> &Model {
        &self.engine.model
    }

    /// The layout of the session's prompts.
    pub fn layout(&self) -> &dyn Layout {
        self.engine.layout.as_ref()
    }

    /// Returns the prompt of `question` as text, with a mark in place of each frame. Use it to see what the model is
    /// given.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if the template fails.
    pub fn prompt_text<'q>(&self, question: impl Into<Question<'q>>) -> Result<String> {
        let Question { text, about, .. } = question.into();
        match about {
            None => prompt::text(&self.engine, &self.conversation, &text, &self.params.prompt()),
            Some(part) => prompt::text(&self.engine, &self.conversation.about(part), &text, &self.params.prompt()),
        }
    }

    /// Returns the rows of the prompt of `question`, with their positions. Use it to see what the model is given.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if the template fails; [`Error::PromptTooLong`].
    pub fn prompt_rows(&self, question: &str) -> Result<Vec<PlannedRow>> {
        let (mut cache, mut learned) = (Cache::default(), Learned::default());
        let chat = Chat::new(&self.engine, &self.params, &self.conversation, &mut cache, &mut learned);
        Ok(chat.plan(question)?.rows)
    }
}
