//! A chat request, as clients write it.
//!
//! Large strings are borrowed from the body, so a video in base64 is not copied. Unknown fields are ignored, because
//! clients send many.

mod json;
mod message;
mod params;
mod whole;

pub(in crate::serve) use message::{ChatMessage, MediaSource, Part, Speaker};
pub(in crate::serve) use params::{FrameParams, FramesBy, ImagesAre, SharpvParams};
pub(in crate::serve) use whole::Whole;

use super::error::ApiError;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The body of a chat request.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(in crate::serve) struct ChatRequest<'a> {
    pub model: Option<String>,
    pub messages: Vec<ChatMessage<'a>>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    /// −1: as many as the server allows.
    pub max_tokens: Option<Whole>,
    pub max_completion_tokens: Option<Whole>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<Whole>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    /// vLLM's name for `repeat_penalty`.
    pub repetition_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub seed: Option<Whole>,
    pub stop: Option<StopTexts>,
    pub n: Option<Whole>,
    pub response_format: Option<ResponseFormat>,
    pub tool_choice: Option<&'a RawValue>,
    pub function_call: Option<&'a RawValue>,
    pub logprobs: Option<&'a RawValue>,
    pub top_logprobs: Option<&'a RawValue>,
    pub logit_bias: Option<&'a RawValue>,
    // The names of llama-server and vLLM for the form of an answer.
    pub grammar: Option<&'a RawValue>,
    pub json_schema: Option<&'a RawValue>,
    pub structured_outputs: Option<&'a RawValue>,
    pub guided_json: Option<&'a RawValue>,
    pub guided_regex: Option<&'a RawValue>,
    pub guided_choice: Option<&'a RawValue>,
    pub guided_grammar: Option<&'a RawValue>,
    /// vLLM's names for what to do after a last message of the assistant.
    pub continue_final_message: Option<bool>,
    pub add_generation_prompt: Option<bool>,
    // What clients of llama-server, vLLM, DashScope, Anthropic and OpenAI say of the thought: see `prepare::thinking`.
    pub chat_template_kwargs: Option<&'a RawValue>,
    pub reasoning_effort: Option<&'a RawValue>,
    pub thinking: Option<&'a RawValue>,
    pub thinking_budget_tokens: Option<&'a RawValue>,
    pub enable_thinking: Option<&'a RawValue>,
    pub thinking_budget: Option<&'a RawValue>,
    pub include_reasoning: Option<&'a RawValue>,
    pub reasoning_format: Option<&'a RawValue>,
    /// vLLM's name for how to read media.
    pub media_io_kwargs: Option<MediaIo>,
    /// vLLM's name for how to process media.
    pub mm_processor_kwargs: Option<FrameParams>,
    /// What this server adds to the API.
    pub sharpv: Option<SharpvParams>,
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

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(in crate::serve) enum StopTexts {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
pub(in crate::serve) struct MediaIo {
    pub video: Option<FrameParams>,
}

impl<'a> ChatRequest<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid("body", format!("the body: {}", json::reason(&error))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

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
    fn unknown_parts_are_rejected_without_being_quoted() {
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
        assert!(matches!(
            &parts[0],
            Part::Media(message::MediaPart { source: MediaSource::Data(Cow::Borrowed(_)), .. })
        ));
    }
}
