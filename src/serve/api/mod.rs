//! What goes over the wire: the shapes of OpenAI's chat completions, with what other servers and this one add.

pub(super) mod error;
pub(super) mod request;
pub(super) mod response;
