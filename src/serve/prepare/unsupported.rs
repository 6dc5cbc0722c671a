//! Fields that would change the answer, and that this server does not support.

use crate::serve::api::error::ApiError;
use crate::serve::api::request::{ChatRequest, Whole};
use serde_json::value::RawValue;

/// Fails if the request uses such a field: to ignore it would give a wrong answer.
pub(super) fn check(request: &ChatRequest<'_>) -> Result<(), ApiError> {
    if request.n.is_some_and(|n| n != Whole(1)) {
        return Err(ApiError::unsupported("n", "this server gives one answer: leave out n, or send 1"));
    }
    let format = request.response_format.as_ref().and_then(|format| format.kind.as_deref());
    if !matches!(format, None | Some("text")) {
        return Err(ApiError::unsupported("response_format", "this server answers in text: leave out response_format"));
    }
    for (name, value) in [("tool_choice", request.tool_choice), ("function_call", request.function_call)] {
        if value.is_some_and(|value| !matches!(value.get(), "null" | "\"auto\"" | "\"none\"")) {
            return Err(ApiError::unsupported(name, format!("this server calls no tools: leave out {name}")));
        }
    }
    // Some clients send every field that they know, most of them empty.
    let is_used = |value: &RawValue| !matches!(value.get(), "null" | "false" | "0" | "{}" | "[]" | "\"\"");
    for (name, value) in [
        ("logprobs", request.logprobs),
        ("top_logprobs", request.top_logprobs),
        ("logit_bias", request.logit_bias),
        ("grammar", request.grammar),
        ("json_schema", request.json_schema),
        ("structured_outputs", request.structured_outputs),
        ("guided_json", request.guided_json),
        ("guided_regex", request.guided_regex),
        ("guided_choice", request.guided_choice),
        ("guided_grammar", request.guided_grammar),
    ] {
        if value.is_some_and(is_used) {
            return Err(ApiError::unsupported(name, format!("this server does not support {name}: leave it out")));
        }
    }
    Ok(())
}
