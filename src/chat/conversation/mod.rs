//! What was said, and about which videos.

pub(in crate::chat) mod marks;
pub(in crate::chat) mod message;

use super::encoded::arrangement::Arrangement;
use super::encoded::{EncodeTimings, EncodedVideo};
use crate::layout::Layout;
use crate::video::{Kind, VideoInfo};
use marks::{Marks, marked_text};
use message::{Media, Message, Role};
use std::sync::Arc;

/// The messages and videos of a session. Nothing in it depends on what is in the KV cache.
#[derive(Debug)]
pub(in crate::chat) struct Conversation {
    /// What stands for frames in `messages`.
    pub marks: Marks,
    /// A system message; `None` leaves it to the chat template.
    pub system: Option<String>,
    /// How every answer begins.
    pub answer_start: String,
    pub messages: Vec<Message>,
    pub videos: Vec<Arc<EncodedVideo>>,
    /// How many of `videos` stand in `messages`; the others go into the next question.
    pub videos_sent: usize,
    /// What was spent on the videos that were not sent yet.
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

    /// Another conversation about one video, in which nothing was said yet.
    pub fn about(&self, video: Arc<EncodedVideo>) -> Self {
        let answer_start = self.answer_start.clone();
        Self { answer_start, videos: vec![video], ..Self::new(self.system.clone()) }
    }

    /// Forgets what was said, and the videos.
    pub fn clear(&mut self) {
        self.restart();
        self.videos.clear();
        self.spent = EncodeTimings::default();
    }

    /// Forgets what was said; the videos go into the next question.
    pub fn restart(&mut self) {
        self.messages.clear();
        self.videos_sent = 0;
    }

    /// `question` as a message, behind the videos that were not sent yet.
    pub fn user_message(&self, layout: &dyn Layout, question: &str) -> Message {
        let media = self.videos.iter().enumerate().skip(self.videos_sent);
        let media = media.map(|(i, video)| self.media(layout, i, &video.arrangement, &video.info)).collect();
        Message { role: Role::User, media, content: question.to_owned() }
    }

    /// Video number `video` in a message.
    pub fn media(&self, layout: &dyn Layout, video: usize, arrangement: &Arrangement, info: &VideoInfo) -> Media {
        Media {
            text: marked_text(&self.marks, video, &arrangement.parts),
            separator: layout.separator().to_owned(),
            is_image: info.kind == Kind::Image,
        }
    }

    /// All messages in order, `next` the last.
    pub fn with(&self, next: &Message) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::text(Role::System, text.clone()));
        system.chain(self.messages.iter().cloned()).chain(std::iter::once(next.clone())).collect()
    }

    /// Adds a question and what the model said to it. Gives what was spent on its videos.
    pub fn end_turn(&mut self, question: Message, answer: &str) -> EncodeTimings {
        self.messages.push(question);
        self.messages.push(Message::text(Role::Assistant, format!("{}{answer}", self.answer_start)));
        self.videos_sent = self.videos.len();
        std::mem::take(&mut self.spent)
    }
}
