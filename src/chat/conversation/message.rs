//! What is said in a conversation.

use serde::{Deserialize, Serialize};

/// Who says a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates know it by.
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
    /// Who says it.
    pub role: Role,
    /// Videos and images that come before what is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message without videos.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self { role, media: Vec::new(), content: content.into() }
    }

    /// The whole message as one text.
    pub(in crate::chat) fn joined(&self) -> String {
        let media: String =
            self.media.iter().flat_map(|media| [media.text.as_str(), media.separator.as_str()]).collect();
        media + &self.content
    }
}

/// A video or an image in a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// Its layout in the prompt. The places of its visual tokens are marked inside the text.
    pub text: String,
    /// What stands behind it, where the chat template puts nothing there.
    pub separator: String,
    /// It is a single image.
    pub is_image: bool,
}
