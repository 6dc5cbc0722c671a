//! Counts the rows and positions that a video needs in the prompt, before a frame is encoded.

use super::QUESTION;
use crate::chat::conversation::Conversation;
use crate::chat::conversation::message::Message;
use crate::chat::encoded::arrangement::Arrangement;
use crate::chat::encoded::markers::Markers;
use crate::chat::engine::Engine;
use crate::chat::prompt::{self, PromptParams, PromptVideo};
use crate::chat::rows::{PlannedRow, RowKey};
use crate::error::Result;
use crate::layout::{Layout, Size};
use crate::video::VideoInfo;
use serde::Serialize;

/// What a prompt with an unpruned video needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Need {
    /// Frames of the video.
    pub frames: usize,
    /// Slices of the video: frames, or pairs of frames that the encoder merges.
    pub slices: usize,
    /// Width and height, in pixels, of the images that the encoder is given.
    pub image: Size,
    /// Visual tokens of the video.
    pub visual_tokens: usize,
    /// Rows of the whole prompt: text and visual tokens, including the conversation so far.
    pub prompt_tokens: usize,
    /// Positions of the whole prompt. Pruning does not reduce them.
    pub positions: usize,
    /// Rows that this video adds.
    #[serde(skip)]
    pub(super) own_rows: usize,
    /// Positions that this video adds.
    #[serde(skip)]
    pub(super) own_positions: usize,
    /// Tokens reserved for a question that is longer than the counted one.
    #[serde(skip)]
    pub(super) question_reserve: usize,
    /// Rows that one batch must hold.
    #[serde(skip)]
    pub(super) at_once: usize,
}

/// The prompt of a question without the new video. It is planned once for all attempts to make the video fit.
#[derive(Debug)]
pub(super) struct Without<'a> {
    engine: &'a Engine,
    conversation: &'a Conversation,
    params: PromptParams<'a>,
    message: Message,
    rows: usize,
    next_position: i32,
    /// Tokens reserved for a longer question.
    question_reserve: usize,
}

impl<'a> Without<'a> {
    pub fn of(
        engine: &'a Engine,
        conversation: &'a Conversation,
        params: PromptParams<'a>,
        question: &str,
    ) -> Result<Self> {
        let message = conversation.user_message(engine.layout.as_ref(), question);
        let plan = prompt::plan(engine, conversation, &message, &params)?;
        let question = engine.model.tokenize(question, false, false)?.len();
        Ok(Self {
            engine,
            conversation,
            params,
            message,
            rows: plan.rows.len(),
            next_position: plan.next_position,
            question_reserve: QUESTION.saturating_sub(question),
        })
    }

    /// What the prompt needs with the unpruned frames of `info` at `times`, in seconds. `sampled_fps` is their rate, if
    /// they are sampled at one.
    pub fn with(&self, info: &VideoInfo, times: &[f64], sampled_fps: Option<f64>, layout: &dyn Layout) -> Result<Need> {
        let Self { engine, conversation, .. } = *self;
        let arrangement = Arrangement::new(layout, info, times, sampled_fps, engine.vision.uses_mrope());
        let markers = Markers::of(&engine.model, &engine.vision, &arrangement)?;
        let index = conversation.videos.len();
        let mut message = self.message.clone();
        message.media.push(conversation.media(engine.layout.as_ref(), index, &arrangement, info));
        let own = PromptVideo { arrangement: &arrangement, markers: &markers, slices: None };
        let videos: Vec<PromptVideo<'_>> =
            conversation.videos.iter().map(|video| PromptVideo::from(video.as_ref())).chain([own]).collect();
        let plan = prompt::plan_with(engine, conversation, &message, &videos, &self.params)?;
        let is_own = |row: &&PlannedRow| matches!(row.key, RowKey::Visual { video, .. } if video == index);
        Ok(Need {
            frames: arrangement.n_frames.0,
            slices: arrangement.n_slices().0,
            image: arrangement.image_size,
            visual_tokens: plan.rows.iter().filter(is_own).count(),
            prompt_tokens: plan.rows.len(),
            positions: plan.next_position.max(0) as usize,
            own_rows: plan.rows.len().saturating_sub(self.rows),
            own_positions: (plan.next_position - self.next_position).max(0) as usize,
            question_reserve: self.question_reserve,
            at_once: plan.rows_at_once(engine),
        })
    }
}
