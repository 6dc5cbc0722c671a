//! Sharing: videos that are encoded once for several sessions, and conversations that are set message by message. A
//! program uses it to serve many people with few sessions.

use super::Session;
use crate::chat::conversation::message::{Message, Role};
use crate::chat::encoded;
use crate::chat::report::{VideoReport, VisualTokens, count, slice_reports};
use crate::chat::sampling::VideoOptions;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::video::{Source, VideoInfo};
use std::sync::Arc;

/// A video with the embeddings of its kept visual tokens. Clones share them.
///
/// It can be added to every session with the same model, vision encoder and layout as the one that encoded it.
#[derive(Debug, Clone)]
pub struct EncodedVideo(Arc<encoded::EncodedVideo>);

impl EncodedVideo {
    /// The source that was opened.
    pub fn info(&self) -> &VideoInfo {
        &self.0.info
    }

    /// The number of its frames.
    pub fn frames(&self) -> usize {
        self.0.arrangement.n_frames.0
    }

    /// How many visual tokens it has, and how many of them are kept.
    pub fn visual_tokens(&self) -> VisualTokens {
        count(&slice_reports(std::slice::from_ref(&self.0)))
    }

    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let floats = |rows: &Vec<f32>| size_of::<f32>() * rows.capacity();
        let slice = |slice: &encoded::EncodedSlice| {
            floats(&slice.rows) + size_of::<u32>() * (slice.kept.capacity() + slice.unfinished.capacity())
        };
        let slices = self.0.slices.iter().map(|s| slice(s) + size_of_val(s)).sum::<usize>();
        slices + self.0.unpruned.iter().map(floats).sum::<usize>() + size_of_val(self.0.as_ref())
    }
}

impl Session {
    /// Begins another conversation, without videos. The KV cache stays: the rows that both conversations begin with are
    /// not computed again.
    pub fn start_over(&mut self, system: Option<String>) {
        self.conversation.clear();
        self.conversation.system = system;
    }

    /// Adds a message to the conversation without computing anything. If `role` is the user, the message includes the
    /// videos that were added before it.
    pub fn say(&mut self, role: Role, text: &str) {
        let message = match role {
            Role::User => self.conversation.user_message(self.engine.layout.as_ref(), text),
            role => Message::text(role, text),
        };
        if role == Role::User {
            self.conversation.videos_sent = self.conversation.videos.len();
        }
        self.conversation.messages.push(message);
    }

    /// Adds an answer of the model to the conversation, and what the model thought before it, without computing
    /// anything. The chat template decides whether the model sees the thought.
    pub fn say_answer(&mut self, reasoning: Option<&str>, text: &str) {
        let reasoning = reasoning.map(ToOwned::to_owned);
        self.conversation.messages.push(Message { reasoning, ..Message::text(Role::Assistant, text) });
    }

    /// Decodes, encodes and prunes a video, and returns it; [`add_encoded`](Self::add_encoded) adds it. Like
    /// [`add_video`](Self::add_video), it reserves positions for the conversation so far and for the question in
    /// `options`.
    ///
    /// # Errors
    /// As [`add_video`](Self::add_video).
    pub fn encode_video(
        &mut self,
        source: impl Into<Source>,
        options: &VideoOptions,
        observer: &mut dyn Observer,
    ) -> Result<EncodedVideo> {
        let video = self.encode(&source.into(), options, observer)?;
        self.conversation.spent += video.timings;
        Ok(EncodedVideo(Arc::new(video)))
    }

    /// Adds an encoded video for the next question.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if its embeddings have another width than the model's.
    pub fn add_encoded(&mut self, video: &EncodedVideo) -> Result<VideoReport> {
        let width = self.engine.model.n_embd_inp();
        if video.0.slices.iter().any(|slice| slice.rows.len() != slice.kept.len() * width) {
            return Err(Error::InvalidParameter {
                name: "the encoded video",
                value: video.0.info.path.display().to_string(),
                expected: format!("one with embeddings of {width} values, as this model has"),
            });
        }
        Ok(self.add_shared(Arc::clone(&video.0)))
    }
}
