//! The prompt: from a conversation to the rows that the model is fed.
//!
//! The model's chat [template](super::engine::template) makes one text of all messages, in which
//! [marks](super::conversation::marks) stand for slices. A [`Plan`] puts tokens in the place of text and marks.

mod plan;

pub use plan::Tokenization;
pub(in crate::chat) use plan::{Placed, Plan, is_image};

use super::conversation::Conversation;
use super::conversation::marks::Piece;
use super::conversation::message::{Message, Role};
use super::engine::Engine;
use crate::error::Result;

/// The prompt of `conversation` that ends with `message`, as text with marks.
fn render(engine: &Engine, conversation: &Conversation, message: &Message) -> Result<String> {
    // What people write is text, whatever it looks like.
    let mark = conversation.marks.cut();
    let messages = engine.template.guarded(conversation.with(message), &mark);
    let start = vec![Message::text(Role::Assistant, conversation.answer_start.clone())];
    let start = engine.template.guarded(start, &mark);
    Ok(engine.template.render(&messages)? + &start.iter().map(|message| message.content.as_str()).collect::<String>())
}

/// The prompt of `conversation` that ends with `message`.
pub(in crate::chat) fn plan(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    tokenization: Tokenization,
) -> Result<Plan> {
    let videos: Vec<Placed<'_>> = conversation.videos.iter().map(|video| Placed::from(video.as_ref())).collect();
    plan_with(engine, conversation, message, &videos, tokenization)
}

/// As [`plan`], with `videos` in the place of the conversation's.
pub(in crate::chat) fn plan_with(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    videos: &[Placed<'_>],
    tokenization: Tokenization,
) -> Result<Plan> {
    let prompt = render(engine, conversation, message)?;
    plan::of_pieces(engine, &pieces(engine, conversation, &prompt), videos, tokenization)
}

/// `prompt`, cut at the places of slices.
fn pieces(engine: &Engine, conversation: &Conversation, prompt: &str) -> Vec<Piece> {
    // The tokenizer adds the BOS token itself; a template that writes it as well must not make it two.
    let bos = engine.template.bos();
    let is_twice = engine.model.adds_bos() && !bos.is_empty();
    conversation.marks.split(prompt.strip_prefix(bos).filter(|_| is_twice).unwrap_or(prompt))
}

/// The prompt of `question` as text, with a mark in place of each frame.
pub(in crate::chat) fn text(engine: &Engine, conversation: &Conversation, question: &str) -> Result<String> {
    let message = conversation.user_message(engine.layout.as_ref(), question);
    Ok(render(engine, conversation, &message)?.replace(&conversation.marks.cut(), ""))
}
