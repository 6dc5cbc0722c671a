//! The messages of a request: the system message, the turns, and the beginning of the answer.

use super::{Base, MediaDraft, frames};
use crate::serve::api::error::ApiError;
use crate::serve::api::request::{ChatRequest, FrameParams, ImagesAre, Part, SharpvParams, Speaker};
use crate::serve::job::Turn;
use crate::serve::media::{MediaInput, MediaLimits, take};
use std::borrow::Cow;

/// The most messages of a conversation.
const MAX_MESSAGES: usize = 1024;

/// The most bytes of text in all messages: more than any context holds.
const MAX_TEXT: usize = 1 << 20;

/// The most videos and images of a conversation.
const MAX_MEDIA: usize = 128;

pub(super) struct Conversation {
    pub system: Option<String>,
    pub turns: Vec<Turn<MediaDraft>>,
    /// The text that the answer continues.
    pub answer_start: String,
}

/// A message that was read. Its media are not.
struct Said<'a> {
    speaker: Speaker,
    parts: Vec<Part<'a>>,
    thought: Option<Cow<'a, str>>,
}

/// Reads the messages of a request.
pub(super) struct Reader<'a> {
    pub base: &'a Base,
    pub limits: &'a MediaLimits,
    pub own: &'a SharpvParams,
    /// For what a part leaves out.
    pub frames: FrameParams,
}

impl Reader<'_> {
    pub fn conversation(&self, request: &ChatRequest<'_>) -> Result<Conversation, ApiError> {
        let invalid = |message: String| ApiError::invalid("messages", message);
        let messages = &request.messages;
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            return Err(invalid(format!("a conversation must have 1 to {MAX_MESSAGES} messages")));
        }
        // Everything that needs no look at the media is checked first.
        let mut read = Vec::with_capacity(messages.len());
        let (mut text_bytes, mut n_media) = (0, 0);
        for message in messages {
            let (speaker, parts, thought) = (message.speaker()?, message.parts()?, message.thought()?);
            text_bytes += thought.as_ref().map_or(0, |thought| thought.len());
            for part in &parts {
                match part {
                    Part::Text(text) => text_bytes += text.len(),
                    Part::Media(_) if !message.is_of_user() => {
                        return Err(invalid("only messages of the user can have videos and images".into()));
                    }
                    Part::Media(_) => n_media += 1,
                }
            }
            read.push(Said { speaker, parts, thought });
        }
        if text_bytes > MAX_TEXT {
            return Err(ApiError::too_large("the text of the conversation", MAX_TEXT as u64));
        }
        if n_media > MAX_MEDIA {
            return Err(invalid(format!(
                "a conversation can have at most {MAX_MEDIA} videos and images; send frames as one video"
            )));
        }
        let answer_start = self.answer_start(request, &mut read)?;
        if !matches!(read.last(), Some(Said { speaker: Speaker::User, .. })) {
            return Err(invalid(
                "there is nothing to answer: the last message, or the one before the beginning of the assistant's \
                 answer, must come from the user or a tool"
                    .into(),
            ));
        }
        let mut system: Option<String> = None;
        let mut turns: Vec<Turn<MediaDraft>> = Vec::with_capacity(read.len());
        for said in read {
            let speaker = said.speaker;
            let turn = self.turn(said)?;
            match (speaker, &mut system) {
                // Most chat templates take only one system message at the beginning.
                (Speaker::System, Some(first)) if turns.is_empty() => {
                    first.push_str("\n\n");
                    first.push_str(&turn.text);
                }
                (Speaker::System, None) if turns.is_empty() => system = Some(turn.text),
                _ => turns.push(turn),
            }
        }
        match turns.last() {
            Some(last) if !last.text.trim().is_empty() || !last.media.is_empty() => {
                Ok(Conversation { system, turns, answer_start })
            }
            _ => Err(invalid("the last message is empty: ask something".into())),
        }
    }

    /// Removes a last message of the assistant: the answer continues it.
    ///
    /// vLLM begins a new answer after it unless `continue_final_message` is set; most other servers continue it, as
    /// this one does. A request that explicitly asks for a new answer is rejected.
    fn answer_start(&self, request: &ChatRequest<'_>, messages: &mut Vec<Said<'_>>) -> Result<String, ApiError> {
        let last = messages.pop_if(|said| said.speaker == Speaker::Assistant);
        let wants_new = request.continue_final_message == Some(false) || request.add_generation_prompt == Some(true);
        match last {
            Some(_) if wants_new => Err(ApiError::unsupported(
                "continue_final_message",
                "this server continues a last message of the assistant, and cannot begin a new answer after it: leave \
                 out continue_final_message and add_generation_prompt, or end with a message of the user",
            )),
            Some(said) => Ok(self.turn(said)?.text),
            None if request.continue_final_message == Some(true) => Err(ApiError::invalid(
                "continue_final_message",
                "there is no last message of the assistant to continue: send one, or leave out continue_final_message",
            )),
            None => Ok(String::new()),
        }
    }

    /// A turn, with its media before its text, whatever their order in the message.
    fn turn(&self, said: Said<'_>) -> Result<Turn<MediaDraft>, ApiError> {
        let Said { speaker, parts, thought } = said;
        let as_frames = self.own.images == Some(ImagesAre::Frames);
        let mut text = String::new();
        let (mut media, mut frames) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text(piece) => {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(&piece);
                }
                Part::Media(part) if part.is_image && as_frames => frames.push(take(&part.source, self.limits)?),
                Part::Media(part) => media.push(self.media(take(&part.source, self.limits)?, part.frames)?),
            }
        }
        if !frames.is_empty() {
            media.push(self.media(MediaInput::Frames(frames), FrameParams::default())?);
        }
        Ok(Turn { speaker, text, thought: thought.map(Cow::into_owned), media })
    }

    fn media(&self, input: MediaInput, own: FrameParams) -> Result<MediaDraft, ApiError> {
        Ok(MediaDraft { input, options: frames::options(own.or(self.frames), self.own.frames_fps, self.base)? })
    }
}
