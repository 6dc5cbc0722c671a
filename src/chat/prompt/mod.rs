//! The prompt: from a conversation to the rows that the model is fed.
//!
//! A video is [arranged](arrangement) into text and slices; its place in a message is [marked](marks); the model's chat
//! [template] makes one text of all messages; and a [plan] puts tokens in the place of text and marks. [render] does it
//! all.

pub(super) mod arrangement;
mod guard;
pub(super) mod markers;
pub(super) mod marks;
pub(super) mod message;
pub(super) mod plan;
pub(super) mod render;
pub(super) mod template;
pub(super) mod texts;
