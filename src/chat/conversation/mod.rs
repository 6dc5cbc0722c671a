//! The messages and videos of a conversation.

pub(in crate::chat) mod marks;
pub(in crate::chat) mod message;

use super::encoded::arrangement::Arrangement;
use super::encoded::{EncodeTimings, EncodedVideo};
use crate::layout::Layout;
use crate::video::{Kind, VideoInfo};
use marks::{Marks, marked_text};
use message::{Media, Message, Role};
use std::sync::Arc;

/// A conversation: its messages and its videos. It does not depend on the contents of the KV cache.
#[derive(Debug)]
pub(in crate::chat) struct Conversation {
    /// The marks that stand for slices in `messages`.
    pub marks: Marks,
    /// The system message; `None` leaves it to the chat template.
    pub system: Option<String>,
    /// The text that every answer begins with.
    pub answer_start: String,
    pub messages: Vec<Message>,
    pub videos: Vec<Arc<EncodedVideo>>,
    /// How many of `videos` are in `messages` already. The others go into the next question.
    pub videos_sent: usize,
    /// The time spent on the videos that are not in `messages` yet.
    pub spent: EncodeTimings,
}

impl Conversation {
    pub fn new(system: Option<String>) -> Self {
        Self {
            marks: Marks::new(),
            system,
            answer_start: String::new(),
            messages: Vec::new(),
            videos: Vec::new(),
            videos_sent: 0,
            spent: EncodeTimings::default(),
        }
    }

    /// A new conversation about `video`, with the same system message and answer start.
    pub fn about(&self, video: Arc<EncodedVideo>) -> Self {
        let answer_start = self.answer_start.clone();
        Self { answer_start, videos: vec![video], ..Self::new(self.system.clone()) }
    }

    /// Removes all messages and videos.
    pub fn clear(&mut self) {
        self.restart();
        self.videos.clear();
        self.spent = EncodeTimings::default();
    }

    /// Removes all messages. The videos go into the next question again.
    pub fn restart(&mut self) {
        self.messages.clear();
        self.videos_sent = 0;
    }

    /// A message with `question`, after the videos that are not in a message yet.
    pub fn user_message(&self, layout: &dyn Layout, question: &str) -> Message {
        let media = self.videos.iter().enumerate().skip(self.videos_sent);
        let media = media.map(|(i, video)| self.media(layout, i, &video.arrangement, &video.info)).collect();
        Message { media, ..Message::text(Role::User, question) }
    }

    /// The video with index `video` as part of a message.
    pub fn media(&self, layout: &dyn Layout, video: usize, arrangement: &Arrangement, info: &VideoInfo) -> Media {
        Media {
            text: marked_text(&self.marks, video, &arrangement.parts),
            separator: layout.separator().to_owned(),
            is_image: info.kind == Kind::Image,
        }
    }

    /// All messages in order, beginning with the system message and ending with `next`.
    pub fn with(&self, next: &Message) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::text(Role::System, text.clone()));
        system.chain(self.messages.iter().cloned()).chain(std::iter::once(next.clone())).collect()
    }

    /// Adds a question and its answer, with the thought before it. Returns the time spent on the question's videos.
    pub fn end_turn(&mut self, question: Message, reasoning: Option<String>, answer: &str) -> EncodeTimings {
        self.messages.push(question);
        let answer = format!("{}{answer}", self.answer_start);
        self.messages.push(Message { reasoning, ..Message::text(Role::Assistant, answer) });
        self.videos_sent = self.videos.len();
        std::mem::take(&mut self.spent)
    }
}
