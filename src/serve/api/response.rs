//! The JSON of answers, whole and in chunks.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A response with a JSON body.
pub(in crate::serve) fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum FinishReason {
    Stop,
    Length,
}

impl FinishReason {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// The tokens of an answer.
#[derive(Debug, Clone)]
pub(in crate::serve) struct Usage {
    /// Rows of the prompt: text tokens and kept visual tokens.
    pub prompt: usize,
    /// Rows of the prompt that were in the KV cache.
    pub cached: usize,
    pub completion: usize,
    /// Those of them that the thought took.
    pub reasoning: usize,
    /// Visual tokens of the conversation.
    pub visual_total: usize,
    pub visual_kept: usize,
}

impl Usage {
    fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": { "cached_tokens": self.cached },
            "completion_tokens_details": { "reasoning_tokens": self.reasoning },
            "visual_tokens": { "total": self.visual_total, "kept": self.visual_kept },
        })
    }
}

/// The end of an answer.
#[derive(Debug, Clone)]
pub(in crate::serve) struct End {
    pub reason: FinishReason,
    pub usage: Usage,
    /// The object `sharpv`.
    pub extra: Value,
}

/// The fields that all chunks of an answer share.
#[derive(Debug, Clone)]
pub(in crate::serve) struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    /// Chunks have the field `usage`, which is null in all but the last.
    pub with_usage: bool,
}

impl Head {
    pub fn new(id: String, model: String, with_usage: bool) -> Self {
        Self { id, created: now(), model, with_usage }
    }

    /// A whole answer. `thought` is what the model thought before it, or nothing.
    pub fn whole(&self, thought: &str, text: &str, end: &End) -> Value {
        let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
        if !thought.is_empty() {
            add_thought(&mut message, thought);
        }
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": message,
                "finish_reason": end.reason.name(),
                "logprobs": null,
            }],
            "usage": end.usage.json(),
            "sharpv": end.extra,
        })
    }

    /// The first chunk, with the role.
    pub fn first(&self) -> Value {
        self.piece(json!({ "role": "assistant", "content": "" }), None)
    }

    /// A chunk of the thought.
    pub fn thought(&self, text: &str) -> Value {
        let mut delta = json!({});
        add_thought(&mut delta, text);
        self.piece(delta, None)
    }

    /// A chunk of text.
    pub fn text(&self, text: &str) -> Value {
        self.piece(json!({ "content": text }), None)
    }

    /// The chunk with the finish reason.
    pub fn end(&self, end: &End) -> Value {
        let mut piece = self.piece(json!({}), Some(end.reason.name()));
        piece["sharpv"] = end.extra.clone();
        piece
    }

    /// The chunk after it, if usage is requested.
    pub fn usage(&self, end: &End) -> Value {
        let mut piece = self.chunk(json!([]));
        piece["usage"] = end.usage.json();
        piece
    }

    fn piece(&self, delta: Value, finish_reason: Option<&str>) -> Value {
        self.chunk(json!([{ "index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": null }]))
    }

    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if self.with_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

/// Adds a thought to a message or a delta, by the name that most clients read and by the one that newer clients read.
fn add_thought(message: &mut Value, thought: &str) {
    for name in ["reasoning_content", "reasoning"] {
        message[name] = thought.into();
    }
}

/// Seconds since 1970.
pub(in crate::serve) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
