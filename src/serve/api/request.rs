//! A chat request, as clients write it.
//!
//! Large strings are borrowed from the body: a video in base64 is not held a second time. Unknown fields are ignored,
//! for clients send many; what would change the answer and is not done here is refused.

use super::error::ApiError;
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The body of a chat request.
#[derive(Debug, Deserialize)]
pub(in crate::serve) struct ChatRequest<'a> {
    pub model: Option<String>,
    #[serde(borrow)]
    pub messages: Vec<ChatMessage<'a>>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    /// −1 is as many as the server allows.
    pub max_tokens: Option<Whole>,
    pub max_completion_tokens: Option<Whole>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<Whole>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    /// vLLM's name for it.
    pub repetition_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub seed: Option<Whole>,
    pub stop: Option<StopTexts>,
    pub n: Option<Whole>,
    pub response_format: Option<ResponseFormat>,
    #[serde(borrow)]
    pub tool_choice: Option<&'a RawValue>,
    #[serde(borrow)]
    pub function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    pub logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    pub top_logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    pub logit_bias: Option<&'a RawValue>,
    // What answers have to look like, as llama-server and vLLM name it.
    #[serde(borrow)]
    pub grammar: Option<&'a RawValue>,
    #[serde(borrow)]
    pub json_schema: Option<&'a RawValue>,
    #[serde(borrow)]
    pub structured_outputs: Option<&'a RawValue>,
    #[serde(borrow)]
    pub guided_json: Option<&'a RawValue>,
    #[serde(borrow)]
    pub guided_regex: Option<&'a RawValue>,
    #[serde(borrow)]
    pub guided_choice: Option<&'a RawValue>,
    #[serde(borrow)]
    pub guided_grammar: Option<&'a RawValue>,
    /// vLLM's names for what to do with a last message of the assistant.
    pub continue_final_message: Option<bool>,
    pub add_generation_prompt: Option<bool>,
    /// vLLM's name for how to read media.
    pub media_io_kwargs: Option<MediaIo>,
    /// vLLM's name for how to process them.
    pub mm_processor_kwargs: Option<FrameKnobs>,
    /// What this server adds.
    pub sharpv: Option<Knobs>,
}

/// A whole number, however it is written: `4.0` is 4. Those too large for it are its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) struct Whole(pub i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole(i64::try_from(value).unwrap_or(i64::MAX)))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Whole, E> {
                // Beyond 2⁵³ not every whole number is one of these.
                if value.fract() == 0.0 && value.abs() <= (1_u64 << f64::MANTISSA_DIGITS) as f64 {
                    return Ok(Whole(value as i64));
                }
                Err(E::invalid_value(Unexpected::Float(value), &self))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

#[derive(Debug, Deserialize)]
pub(in crate::serve) struct StreamOptions {
    pub include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(in crate::serve) struct ResponseFormat {
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// One text, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(in crate::serve) enum StopTexts {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
pub(in crate::serve) struct MediaIo {
    pub video: Option<FrameKnobs>,
}

/// Which frames of a video to take.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(in crate::serve) struct FrameKnobs {
    pub fps: Option<f64>,
    /// −1 is as many as the server allows.
    #[serde(alias = "max_frames")]
    pub num_frames: Option<Whole>,
    pub start: Option<f64>,
    pub end: Option<f64>,
    pub frames_by: Option<FramesBy>,
}

/// How frames of long videos are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::serve) enum FramesBy {
    Auto,
    Even,
    Changes,
}

impl FrameKnobs {
    /// What is not set here, as `other` has it.
    pub fn or(self, other: Self) -> Self {
        Self {
            fps: self.fps.or(other.fps),
            num_frames: self.num_frames.or(other.num_frames),
            start: self.start.or(other.start),
            end: self.end.or(other.end),
            frames_by: self.frames_by.or(other.frames_by),
        }
    }
}

/// The object `sharpv` of a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::serve) struct Knobs {
    pub fps: Option<f64>,
    #[serde(alias = "max_frames")]
    pub num_frames: Option<Whole>,
    pub start: Option<f64>,
    pub end: Option<f64>,
    pub frames_by: Option<FramesBy>,
    /// The share of the visual tokens to keep.
    pub keep: Option<f32>,
    pub max_visual_tokens: Option<Whole>,
    /// How visual tokens are chosen.
    pub prune: Option<String>,
    /// What leaves the KV cache.
    pub evict: Option<String>,
    /// What several images of a message are: `images`, or `frames` of one video.
    pub images: Option<ImagesAre>,
    /// Frames a second of a list of frames.
    pub frames_fps: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::serve) enum ImagesAre {
    Images,
    Frames,
}

impl Knobs {
    pub fn frames(&self) -> FrameKnobs {
        let &Self { fps, num_frames, start, end, frames_by, .. } = self;
        FrameKnobs { fps, num_frames, start, end, frames_by }
    }
}

/// One message.
#[derive(Debug, Deserialize)]
pub(in crate::serve) struct ChatMessage<'a> {
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    /// What the assistant says in the place of an answer.
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    /// What the assistant wants to be called.
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
}

/// A call of a tool.
#[derive(Debug, Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: FunctionCall<'a>,
}

#[derive(Debug, Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    /// JSON, as a string or as it is.
    #[serde(borrow)]
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

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum Speaker {
    System,
    User,
    Assistant,
}

/// A string that is borrowed where JSON has no escapes in it.
#[derive(Debug, Clone, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A part of a message's content.
#[derive(Debug)]
pub(in crate::serve) enum Part<'a> {
    Text(Cow<'a, str>),
    Media(MediaPart<'a>),
}

/// A video or an image, before it is fetched.
#[derive(Debug)]
pub(in crate::serve) struct MediaPart<'a> {
    pub place: Place<'a>,
    pub frames: FrameKnobs,
    /// It was sent as an image.
    pub is_image: bool,
}

/// Where it is.
#[derive(Debug)]
pub(in crate::serve) enum Place<'a> {
    /// A data URI, a URL or a path.
    Url(Cow<'a, str>),
    /// Base64, or a data URI.
    Data(Cow<'a, str>),
    /// The frames of a video.
    Frames(Vec<Cow<'a, str>>),
}

/// A part as JSON has it.
#[derive(Debug, Deserialize)]
struct RawPart<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    #[serde(borrow)]
    image_url: Option<&'a RawValue>,
    #[serde(borrow)]
    video_url: Option<&'a RawValue>,
    #[serde(borrow)]
    input_video: Option<&'a RawValue>,
    #[serde(borrow)]
    video: Option<&'a RawValue>,
}

/// The object in a part for media.
#[derive(Debug, Deserialize)]
struct RawMedia<'a> {
    #[serde(borrow)]
    url: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Text<'a>>,
    fps: Option<f64>,
    #[serde(alias = "max_frames")]
    num_frames: Option<Whole>,
    start: Option<f64>,
    end: Option<f64>,
    frames_by: Option<FramesBy>,
}

const PARTS: &str = "parts of a message are text, refusal, image_url, video_url, input_video and video";

impl<'a> ChatRequest<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|error| ApiError::invalid("body", format!("the body: {}", reason(&error))))
    }
}

impl<'a> ChatMessage<'a> {
    /// Who says it.
    pub fn speaker(&self) -> Result<Speaker, ApiError> {
        match self.role.0.as_ref() {
            "system" | "developer" => Ok(Speaker::System),
            // Templates of models that call tools say what a tool gave as a user.
            "user" | "tool" | "function" => Ok(Speaker::User),
            "assistant" => Ok(Speaker::Assistant),
            _ => Err(ApiError::unsupported(
                "messages",
                "roles of messages are system, developer, user, assistant and tool",
            )),
        }
    }

    /// Whether the user says it, and not a tool.
    pub fn is_of_user(&self) -> bool {
        self.role.0 == "user"
    }

    /// What is said.
    pub fn parts(&self) -> Result<Vec<Part<'a>>, ApiError> {
        let mut parts = self.content_parts()?;
        if parts.is_empty() {
            parts.extend(self.refusal.as_ref().map(|refusal| Part::Text(refusal.0.clone())));
        }
        // This server calls no tools, but others may have: what came of it means nothing without the call.
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
        Some("image_url") => media(part.image_url.ok_or_else(|| missing("image_url"))?, Place::Url)?,
        Some("video_url") => media(part.video_url.ok_or_else(|| missing("video_url"))?, Place::Url)?,
        // llama-server took a plain string of base64 once.
        Some("input_video") => media(part.input_video.ok_or_else(|| missing("input_video"))?, Place::Data)?,
        Some("video") => media(part.video.ok_or_else(|| missing("video"))?, Place::Url)?,
        Some("input_audio" | "audio_url") => {
            return Err(ApiError::unsupported("messages", "this server does not hear: leave out audio"));
        }
        _ => return Err(ApiError::unsupported("messages", PARTS)),
    };
    Ok(Part::Media(MediaPart { is_image: kind == Some("image_url"), ..media }))
}

/// An object, a string, or a list of frames. `plain` says what a string is that names no scheme.
fn media<'a>(value: &'a RawValue, plain: impl FnOnce(Cow<'a, str>) -> Place<'a>) -> Result<MediaPart<'a>, ApiError> {
    let of = |place, frames| MediaPart { place, frames, is_image: false };
    match value.get().as_bytes().first() {
        Some(b'"') => {
            let text = string(value)?;
            let place = if text.contains("://") { Place::Url(text) } else { plain(text) };
            Ok(of(place, FrameKnobs::default()))
        }
        Some(b'[') => {
            let frames: Vec<Text<'a>> = parse(value)?;
            Ok(of(Place::Frames(frames.into_iter().map(|frame| frame.0).collect()), FrameKnobs::default()))
        }
        _ => {
            let RawMedia { url, data, fps, num_frames, start, end, frames_by } = parse(value)?;
            let place = match (url, data) {
                (Some(url), None) => Place::Url(url.0),
                (None, Some(data)) => Place::Data(data.0),
                _ => return Err(ApiError::invalid("messages", "a video or image has either url or data")),
            };
            Ok(of(place, FrameKnobs { fps, num_frames, start, end, frames_by }))
        }
    }
}

fn string(value: &RawValue) -> Result<Cow<'_, str>, ApiError> {
    Ok(parse::<Text<'_>>(value)?.0)
}

fn parse<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Result<T, ApiError> {
    serde_json::from_str(value.get())
        .map_err(|error| ApiError::invalid("messages", format!("a message: {}", reason(&error))))
}

/// What is wrong, without what was sent.
fn reason(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    match error.classify() {
        Category::Io => "it cannot be read".to_owned(),
        Category::Eof => "it ends too early".to_owned(),
        Category::Syntax => format!("it is no JSON (line {}, column {})", error.line(), error.column()),
        Category::Data => {
            // Serde quotes values of the wrong type, which may be a whole video.
            let text = error.to_string();
            let is_short = text.len() <= 200 && !text.contains("invalid type: string");
            if is_short {
                text
            } else {
                format!("a value of the wrong type (line {}, column {})", error.line(), error.column())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(content: &str) -> Result<String, String> {
        let body = format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
        let request = ChatRequest::read(body.as_bytes()).map_err(|e| e.body().to_string())?;
        let parts = request.messages[0].parts().map_err(|e| e.body().to_string())?;
        Ok(format!("{parts:?}"))
    }

    #[test]
    fn all_forms_of_a_video_are_read() {
        for (content, expected) in [
            (r#"[{"type":"video_url","video_url":{"url":"a.mp4","fps":2}}]"#, r#"Url("a.mp4")"#),
            (r#"[{"type":"video_url","video_url":"file:///a.mp4"}]"#, r#"Url("file:///a.mp4")"#),
            (r#"[{"type":"input_video","input_video":{"data":"AAAA"}}]"#, r#"Data("AAAA")"#),
            (r#"[{"type":"input_video","input_video":{"url":"http://x/a"}}]"#, r#"Url("http://x/a")"#),
            (r#"[{"type":"input_video","input_video":"AAAA"}]"#, r#"Data("AAAA")"#),
            (r#"[{"type":"input_video","input_video":"https:\/\/x\/a"}]"#, r#"Url("https://x/a")"#),
            (r#"[{"type":"video","video":["data:,a","data:,b"]}]"#, r#"Frames(["data:,a", "data:,b"])"#),
            (r#"[{"type":"image_url","image_url":{"url":"data:,a","detail":"low"}}]"#, "is_image: true"),
            (r#"[{"type":"refusal","refusal":"no"}]"#, r#"Text("no")"#),
            (r#""just text""#, r#"Text("just text")"#),
            ("null", "[]"),
        ] {
            let found = parts(content).unwrap_or_else(|error| panic!("{content}: {error}"));
            assert!(found.contains(expected), "{content}: {found}");
        }
    }

    #[test]
    fn what_is_no_part_is_refused_without_being_quoted() {
        for content in [
            r#"[{"type":"hologram"}]"#,
            r#"[{"type":"video_url"}]"#,
            r#"[{"type":"video_url","video_url":{}}]"#,
            r#"[{"type":"video_url","video_url":{"url":"a","data":"b"}}]"#,
            r#"[{"type":"video_url","video_url":7}]"#,
            r#"[{"type":"input_audio","input_audio":{"data":"secret"}}]"#,
            r#"[{"text":"no type"}]"#,
            r#"{"type":"text"}"#,
            "7",
        ] {
            let error = parts(content).expect_err(content);
            assert!(error.contains("invalid_request_error") && !error.contains("secret"), "{content}: {error}");
        }
    }

    #[test]
    fn a_large_string_is_borrowed() {
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"input_video","input_video":{{"data":"{}"}}}}]}}]}}"#,
            "A".repeat(1000)
        );
        let request = ChatRequest::read(body.as_bytes()).unwrap_or_else(|e| panic!("{}", e.body()));
        let parts = request.messages[0].parts().unwrap_or_else(|e| panic!("{}", e.body()));
        assert!(matches!(&parts[0], Part::Media(MediaPart { place: Place::Data(Cow::Borrowed(_)), .. })));
    }
}
