//! The messages of a conversation.

use serde::{Deserialize, Serialize};

/// The author of a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The user, who asks the questions.
    User,
    /// The model, which answers.
    Assistant,
}

impl Role {
    /// The name of the role in chat templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The author.
    pub role: Role,
    /// Videos and images, which come before the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
    /// The text.
    pub content: String,
    /// What the model thought before it wrote the text, if it did. Chat templates decide whether the model sees it
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
}

impl Message {
    /// A message without videos and images.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self { role, media: Vec::new(), content: content.into(), reasoning: None }
    }

    /// The whole message as one text: media, separators and content.
    pub(in crate::chat) fn joined(&self) -> String {
        let media: String =
            self.media.iter().flat_map(|media| [media.text.as_str(), media.separator.as_str()]).collect();
        media + &self.content
    }
}

/// A video or an image in a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// Its arrangement in the prompt, with marks that stand for its slices.
    pub text: String,
    /// The text after it, used if the chat template has no placeholder for it.
    pub separator: String,
    /// Whether it is a single image.
    pub is_image: bool,
}
