//! The prompt: from a conversation to the rows that the model is fed.
//!
//! A video is [arranged](Arrangement) into text and slices; its place in a message is [marked](marks); the model's chat
//! [template] makes one text of all messages; and a [plan](Plan) puts tokens in the place of text and marks.

mod arrangement;
mod guard;
mod markers;
mod marks;
mod plan;
mod template;

pub(in crate::chat) use arrangement::Arrangement;
pub(in crate::chat) use markers::Markers;
pub(in crate::chat) use marks::{Marks, marked_text};
pub(in crate::chat) use plan::{Placed, Plan};
pub use plan::{PlannedRow, RowKey, Tokenization};
pub(in crate::chat) use template::ChatTemplate;
pub use template::{Media, Message, Role};

use super::conversation::Conversation;
use super::engine::Engine;
use crate::error::{Error, Result};
use marks::Piece;

/// The prompt of `conversation` that ends with `message`, as text with marks.
pub(super) fn render(engine: &Engine, conversation: &Conversation, message: &Message) -> Result<String> {
    // What people write is text, whatever it looks like.
    let messages = engine.template.guarded(conversation.with(message), &conversation.marks.cut());
    Ok(engine.template.render(&messages)? + &conversation.answer_start)
}

/// The prompt of `conversation` that ends with `message`.
pub(super) fn plan(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    tokenization: Tokenization,
) -> Result<Plan> {
    let videos: Vec<Placed<'_>> = conversation.videos.iter().map(Placed::from).collect();
    plan_with(engine, conversation, message, &videos, tokenization)
}

/// As [`plan`], with `videos` in the place of the conversation's.
pub(super) fn plan_with(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    videos: &[Placed<'_>],
    tokenization: Tokenization,
) -> Result<Plan> {
    let prompt = render(engine, conversation, message)?;
    plan::plan(&engine.model, &engine.vision, &pieces(engine, conversation, &prompt), videos, tokenization)
}

/// `prompt`, cut at the places of slices.
fn pieces(engine: &Engine, conversation: &Conversation, prompt: &str) -> Vec<Piece> {
    // The tokenizer adds the BOS token itself; a template that writes it as well must not make it two.
    let bos = engine.template.bos();
    let is_twice = engine.model.adds_bos() && !bos.is_empty();
    conversation.marks.split(prompt.strip_prefix(bos).filter(|_| is_twice).unwrap_or(prompt))
}

fn mismatch() -> Error {
    Error::Llama {
        action: "preparing the prompt",
        reason: "the encoder's frames and the prompt's do not match; please report this".into(),
    }
}
