//! The JSON of requests and answers: OpenAI's chat completions, with what other servers and this one add.

pub(super) mod error;
pub(super) mod request;
pub(super) mod response;
