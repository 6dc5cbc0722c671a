//! Reading JSON without copying it, with errors that do not quote it.

use crate::serve::api::error::ApiError;
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A string that is borrowed if JSON has no escapes in it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Reads a value of a message.
pub(super) fn parse<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Result<T, ApiError> {
    serde_json::from_str(value.get())
        .map_err(|error| ApiError::invalid("messages", format!("a message: {}", reason(&error))))
}

/// Reads a string of a message.
pub(super) fn string(value: &RawValue) -> Result<Cow<'_, str>, ApiError> {
    Ok(parse::<Text<'_>>(value)?.0)
}

/// What is wrong, without quoting what was sent.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Io => "it cannot be read".to_owned(),
        Category::Eof => "it ends too early".to_owned(),
        Category::Syntax => format!("it is not JSON (line {line}, column {column})"),
        Category::Data => {
            // Serde quotes values of the wrong type, which may be a whole video.
            let text = error.to_string();
            let is_short = text.len() <= 200 && !text.contains("invalid type: string");
            if is_short { text } else { format!("a value has the wrong type (line {line}, column {column})") }
        }
    }
}
