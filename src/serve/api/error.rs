//! Errors in the form of OpenAI's API.
//!
//! No message quotes a decoder, a path of this machine, or another server: elsewhere such texts have leaked memory
//! addresses and the layout of networks.

use crate::error::{Error, Fix, MediaProblem, Resource};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;

/// Why a request fails, and what the client can do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(in crate::serve) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: String,
    param: Option<&'static str>,
    retry_after: Option<Duration>,
    /// A retry would fail as well.
    is_lasting: bool,
    /// The sizes of the prompt and of the context, for clients that read them.
    numbers: Option<(usize, usize)>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, kind, code, message, param: None, retry_after: None, is_lasting: false, numbers: None }
    }

    /// A request with an invalid value.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_value", message)
        }
    }

    /// A parameter that this server does not support.
    pub fn unsupported(param: &'static str, message: impl Into<String>) -> Self {
        Self { code: "unsupported_parameter", ..Self::invalid(param, message) }
    }

    /// Media that cannot be used.
    pub fn media(message: impl Into<String>) -> Self {
        Self { code: "invalid_media", ..Self::invalid("messages", message) }
    }

    /// Media from a source that is not allowed.
    pub fn forbidden_media(message: impl Into<String>) -> Self {
        Self { code: "media_not_allowed", ..Self::invalid("messages", message) }
    }

    /// More bytes than the server accepts.
    pub fn too_large(what: &str, limit: u64) -> Self {
        let message = format!("{what} is larger than {}, the limit of this server; send less", megabytes(limit));
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "too_large", message)
    }

    /// A body of another type than JSON.
    pub fn not_json() -> Self {
        let message = "send the header Content-Type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_media_type", message)
    }

    /// A body that stopped arriving.
    pub fn slow_body() -> Self {
        let message = "the body of the request stopped arriving; send the request again";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "timeout", message)
    }

    /// The bodies that arrive take too much space, and this one was the slowest.
    pub fn crowded() -> Self {
        let message = "this server is receiving more than it can hold; send the request again later";
        Self {
            retry_after: Some(Duration::from_secs(10)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "overloaded", message)
        }
    }

    /// A body that broke off.
    pub fn broken_body() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            "invalid_body",
            "the body of the request broke off; send the request again",
        )
    }

    /// A missing or wrong key.
    pub fn unauthorized() -> Self {
        let message = "this server requires an API key: send the header Authorization: Bearer KEY";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", message)
    }

    /// A host name that is not one of this server's.
    pub fn unknown_host() -> Self {
        let message = "the header Host has a name that this server does not accept; use the server's address, or start \
                       it with this name allowed";
        Self::new(StatusCode::FORBIDDEN, "permission_error", "unknown_host", message)
    }

    /// A header `Host` that is missing or invalid.
    pub fn bad_host() -> Self {
        let message = "send one header Host with the name or address of this server";
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_host", message)
    }

    /// An unknown route.
    pub fn no_route() -> Self {
        let message = "unknown route; there are /v1/chat/completions, /v1/models, /health and /metrics";
        Self::new(StatusCode::NOT_FOUND, "not_found_error", "not_found", message)
    }

    /// A method that the route does not accept.
    pub fn wrong_method(method: &str) -> Self {
        let message = format!("this route only accepts {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message)
    }

    /// A model that is not loaded.
    pub fn no_model(id: &str) -> Self {
        let message = format!("this server only has the model {id:?}: send this name, or none");
        Self {
            param: Some("model"),
            ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message)
        }
    }

    /// All slots are busy, and the queue is full.
    pub fn queue_full(retry_after: Duration) -> Self {
        let message = "all slots are busy and the queue is full; send the request again later";
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "queue_full", message)
        }
    }

    /// The server ends.
    pub fn shutting_down() -> Self {
        let message = "the server is shutting down; send the request again when it is back";
        Self {
            retry_after: Some(Duration::from_secs(10)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "shutting_down", message)
        }
    }

    /// The answer took too long.
    pub fn timeout(limit: Duration) -> Self {
        let message = format!(
            "the answer was not ready within {} s, the limit of this server; ask about fewer frames or a shorter part",
            limit.as_secs()
        );
        Self { is_lasting: true, ..Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", "timeout", message) }
    }

    /// A failure that the request did not cause. The log has the reason.
    pub fn internal() -> Self {
        let message = "the answer could not be computed; the server's log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error", message)
    }

    /// A request that was cancelled.
    pub fn cancelled() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "cancelled", "the request was cancelled")
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The JSON of the answer.
    pub fn body(&self) -> Value {
        let Self { kind, code, message, param, .. } = self;
        let mut error = json!({ "message": message, "type": kind, "param": param, "code": code });
        if let Some((prompt, limit)) = self.numbers {
            error["n_prompt_tokens"] = prompt.into();
            error["n_ctx"] = limit.into();
        }
        json!({ "error": error })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = super::response::json_response(self.status, &self.body());
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.is_lasting {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

/// Errors of the library, in words for clients on other machines.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::PromptTooLong { resource, needed, limit, fixes, .. } => too_long(resource, needed, limit, &fixes),
            Error::ContextFull { n_ctx, n_rows } => too_long(Resource::Cells, n_ctx + n_rows, n_ctx, &[]),
            Error::Media { problem, .. } => Self::media(match problem {
                MediaProblem::NotAVideo => "this is not a video or image that can be read",
                MediaProblem::CutOff => "the video has no index, so it is truncated or damaged; send the whole file",
                MediaProblem::NotRead => "this image format is not supported; send JPEG or PNG",
                // The server writes no videos, and reads only whole files.
                MediaProblem::Encode | MediaProblem::Backward => return Self::internal(),
                MediaProblem::Decode => "the video cannot be decoded; convert it, for example to H.264 in MP4",
                MediaProblem::Image => "the image cannot be decoded: it is damaged, or its format is unknown",
                MediaProblem::TooLarge => "the image or video has too many pixels: scale it down",
            }),
            Error::NoVideoStream { .. } => Self::media("this file has no video; send one with a video track"),
            Error::NoFrames { .. } => {
                Self::media("no frame of the video can be decoded: it is empty, truncated or damaged")
            }
            Error::UnsupportedCodec { .. } => {
                Self::media("this server has no decoder for this video; convert it, for example to H.264 in MP4")
            }
            Error::NoImages { .. } => Self::media("a list of frames must have at least one image"),
            Error::StartBeyondEnd { start_s, duration_s, .. } => Self::invalid(
                "start",
                format!("the start, {start_s} s, is after the end of the video, which is {duration_s:.3} s long"),
            ),
            Error::InvalidParameter { name, value, expected } => {
                Self::invalid("body", format!("{name} is {value}, but must be {expected}"))
            }
            Error::ChatTemplate { reason, .. } => {
                Self::invalid("messages", format!("the model's chat template rejects this conversation: {reason}"))
            }
            Error::ChatTemplateKwargs { reason, .. } => Self::invalid(
                "chat_template_kwargs",
                format!(
                    "the model's chat template rejects what it is told of thinking, or by chat_template_kwargs: \
                     {reason}"
                ),
            ),
            Error::Cancelled => Self::cancelled(),
            other => {
                tracing::error!("a request failed: {other}");
                Self::internal()
            }
        }
    }
}

fn too_long(resource: Resource, needed: usize, limit: usize, fixes: &[Fix]) -> ApiError {
    let tries: Vec<String> = fixes
        .iter()
        .filter_map(|fix| {
            Some(match fix {
                Fix::MaxFrames(n) => format!("set num_frames to {n}"),
                Fix::FewerFrames => "set a smaller num_frames".into(),
                Fix::KeepFewer => "keep fewer visual tokens (keep, max_visual_tokens)".into(),
                Fix::ShorterQuestion => "ask a shorter question".into(),
                Fix::NewConversation => "begin a new conversation".into(),
                _ => return None,
            })
        })
        .collect();
    let advice = if tries.is_empty() { "send less".to_owned() } else { tries.join(", or ") };
    let what = match resource {
        Resource::Positions => "positions, and the model was trained for",
        Resource::Cells => "cells, and the context has",
        Resource::Memory => "MB of memory, and there are",
    };
    let mut error = ApiError::invalid("messages", format!("the prompt needs {needed} {what} {limit}; {advice}"));
    error.code = "context_length_exceeded";
    error.numbers = Some((needed, limit)).filter(|_| resource != Resource::Memory);
    error
}

fn megabytes(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{bytes} bytes") } else { format!("{} MiB", bytes >> 20) }
}
