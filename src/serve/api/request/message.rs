//! The messages of a request.

use super::json::{Text, parse, string};
use super::params::{FrameParams, FramesBy};
use super::whole::Whole;
use crate::serve::api::error::ApiError;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One message.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(in crate::serve) struct ChatMessage<'a> {
    role: Text<'a>,
    content: Option<&'a RawValue>,
    /// What the assistant says when it declines to answer.
    refusal: Option<Text<'a>>,
    /// Tools that the assistant calls.
    tool_calls: Option<&'a RawValue>,
    function_call: Option<&'a RawValue>,
    /// What the assistant thought before it answered: the name of DeepSeek and llama-server, and a newer one.
    reasoning_content: Option<&'a RawValue>,
    reasoning: Option<&'a RawValue>,
}

/// A call of a tool.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct ToolCall<'a> {
    function: FunctionCall<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct FunctionCall<'a> {
    name: Text<'a>,
    /// JSON, or a string of JSON.
    arguments: Option<&'a RawValue>,
}

impl FunctionCall<'_> {
    fn text(&self) -> Result<String, ApiError> {
        let arguments = match self.arguments {
            Some(value) if value.get().starts_with('"') => string(value)?,
            Some(value) => Cow::Borrowed(value.get()),
            None => Cow::Borrowed(""),
        };
        Ok(format!("{}({arguments})", self.name.0))
    }
}

/// Who a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::serve) enum Speaker {
    System,
    User,
    Assistant,
}

/// A part of a message's content.
#[derive(Debug)]
pub(in crate::serve) enum Part<'a> {
    Text(Cow<'a, str>),
    Media(MediaPart<'a>),
}

/// A video or an image that still has to be fetched.
#[derive(Debug)]
pub(in crate::serve) struct MediaPart<'a> {
    pub source: MediaSource<'a>,
    pub frames: FrameParams,
    /// It was sent as `image_url`.
    pub is_image: bool,
}

/// Where a video or image is.
#[derive(Debug)]
pub(in crate::serve) enum MediaSource<'a> {
    /// A data URI, a URL or a path.
    Url(Cow<'a, str>),
    /// Base64, or a data URI.
    Data(Cow<'a, str>),
    /// The frames of a video.
    Frames(Vec<Cow<'a, str>>),
}

/// A part, as it is in JSON.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct RawPart<'a> {
    #[serde(rename = "type")]
    kind: Option<Text<'a>>,
    text: Option<Text<'a>>,
    refusal: Option<Text<'a>>,
    image_url: Option<&'a RawValue>,
    video_url: Option<&'a RawValue>,
    input_video: Option<&'a RawValue>,
    video: Option<&'a RawValue>,
}

/// The object of a part with media.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct RawMedia<'a> {
    url: Option<Text<'a>>,
    data: Option<Text<'a>>,
    fps: Option<f64>,
    #[serde(alias = "max_frames")]
    num_frames: Option<Whole>,
    start: Option<f64>,
    end: Option<f64>,
    frames_by: Option<FramesBy>,
}

const PARTS: &str = "the type of a part must be text, refusal, image_url, video_url, input_video or video";

impl<'a> ChatMessage<'a> {
    /// Who the message is from.
    pub fn speaker(&self) -> Result<Speaker, ApiError> {
        match self.role.0.as_ref() {
            "system" | "developer" => Ok(Speaker::System),
            // Chat templates of models that call tools pass a tool's result as a message of the user.
            "user" | "tool" | "function" => Ok(Speaker::User),
            "assistant" => Ok(Speaker::Assistant),
            _ => Err(ApiError::unsupported(
                "messages",
                "the role of a message must be system, developer, user, assistant or tool",
            )),
        }
    }

    /// Whether the message is from the user, not from a tool.
    pub fn is_of_user(&self) -> bool {
        self.role.0 == "user"
    }

    /// What the assistant thought before it answered. Empty is nothing.
    pub fn thought(&self) -> Result<Option<Cow<'a, str>>, ApiError> {
        if self.speaker()? != Speaker::Assistant {
            return Ok(None);
        }
        let read = |value: &'a RawValue| match value.get() {
            text if text.starts_with('"') => string(value),
            _ => Err(ApiError::invalid("messages", "reasoning_content and reasoning of a message must be texts")),
        };
        // Clients return both as they got them.
        let texts = [self.reasoning_content, self.reasoning].map(|value| value.map(read).transpose());
        let [first, second] = texts;
        Ok([first?, second?].into_iter().flatten().find(|text| !text.trim().is_empty()))
    }

    /// The content, with refusals and calls of tools as text.
    pub fn parts(&self) -> Result<Vec<Part<'a>>, ApiError> {
        let mut parts = self.content_parts()?;
        if parts.is_empty() {
            parts.extend(self.refusal.as_ref().map(|refusal| Part::Text(refusal.0.clone())));
        }
        // Another server may have called tools, and their results mean nothing without the calls.
        let calls: Vec<ToolCall<'a>> = self.tool_calls.map(parse).transpose()?.unwrap_or_default();
        let old: Option<FunctionCall<'a>> = self.function_call.map(parse).transpose()?;
        for call in calls.iter().map(|call| &call.function).chain(&old) {
            parts.push(Part::Text(call.text()?.into()));
        }
        Ok(parts)
    }

    fn content_parts(&self) -> Result<Vec<Part<'a>>, ApiError> {
        let Some(content) = self.content else { return Ok(Vec::new()) };
        if content.get().starts_with('"') {
            return Ok(vec![Part::Text(string(content)?)]);
        }
        let parts: Vec<RawPart<'a>> = parse(content)?;
        parts.into_iter().map(part).collect()
    }
}

fn part(part: RawPart<'_>) -> Result<Part<'_>, ApiError> {
    let kind = part.kind.as_ref().map(|kind| kind.0.as_ref());
    let missing = |name: &str| ApiError::invalid("messages", format!("a part of type {name} needs a field {name}"));
    let media = match kind {
        Some("text") => return Ok(Part::Text(part.text.ok_or_else(|| missing("text"))?.0)),
        Some("refusal") => return Ok(Part::Text(part.refusal.ok_or_else(|| missing("refusal"))?.0)),
        Some("image_url") => media(part.image_url.ok_or_else(|| missing("image_url"))?, MediaSource::Url)?,
        Some("video_url") => media(part.video_url.ok_or_else(|| missing("video_url"))?, MediaSource::Url)?,
        // Older versions of llama-server took a plain string of base64.
        Some("input_video") => media(part.input_video.ok_or_else(|| missing("input_video"))?, MediaSource::Data)?,
        Some("video") => media(part.video.ok_or_else(|| missing("video"))?, MediaSource::Url)?,
        Some("input_audio" | "audio_url") => {
            return Err(ApiError::unsupported("messages", "this server does not support audio: leave it out"));
        }
        _ => return Err(ApiError::unsupported("messages", PARTS)),
    };
    Ok(Part::Media(MediaPart { is_image: kind == Some("image_url"), ..media }))
}

/// Reads an object, a string, or a list of frames. `plain` makes a source of a string without a scheme.
fn media<'a>(
    value: &'a RawValue,
    plain: impl FnOnce(Cow<'a, str>) -> MediaSource<'a>,
) -> Result<MediaPart<'a>, ApiError> {
    let of = |source, frames| MediaPart { source, frames, is_image: false };
    match value.get().as_bytes().first() {
        Some(b'"') => {
            let text = string(value)?;
            let source = if text.contains("://") { MediaSource::Url(text) } else { plain(text) };
            Ok(of(source, FrameParams::default()))
        }
        Some(b'[') => {
            let frames: Vec<Text<'a>> = parse(value)?;
            Ok(of(MediaSource::Frames(frames.into_iter().map(|frame| frame.0).collect()), FrameParams::default()))
        }
        _ => {
            let RawMedia { url, data, fps, num_frames, start, end, frames_by } = parse(value)?;
            let source = match (url, data) {
                (Some(url), None) => MediaSource::Url(url.0),
                (None, Some(data)) => MediaSource::Data(data.0),
                _ => return Err(ApiError::invalid("messages", "a video or image must have either url or data")),
            };
            Ok(of(source, FrameParams { fps, num_frames, start, end, frames_by }))
        }
    }
}
