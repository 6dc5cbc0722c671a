//! The prompt: turns a conversation into the rows that are fed to the model.
//!
//! The model's chat [template](super::engine::template) renders all messages to one text, in which
//! [marks](super::conversation::marks) stand for slices. A [`Plan`] replaces the text and the marks with rows.

mod plan;

pub use plan::Tokenization;
pub(in crate::chat) use plan::{Plan, PromptVideo, is_image};

use super::conversation::Conversation;
use super::conversation::marks::Piece;
use super::conversation::message::{Message, Role};
use super::engine::Engine;
use crate::error::Result;

/// Renders `conversation`, with `message` as its last message, to text with marks.
fn render(engine: &Engine, conversation: &Conversation, message: &Message) -> Result<String> {
    render_messages(engine, conversation, conversation.with(message))
}

/// Renders `messages` of `conversation` to text with marks.
fn render_messages(engine: &Engine, conversation: &Conversation, messages: Vec<Message>) -> Result<String> {
    // Names of control tokens in a message stay text.
    let mark = conversation.marks.cut();
    let messages = engine.template.guarded(messages, &mark);
    let start = vec![Message::text(Role::Assistant, conversation.answer_start.clone())];
    let start = engine.template.guarded(start, &mark);
    Ok(engine.template.render(&messages)? + &start.iter().map(|message| message.content.as_str()).collect::<String>())
}

/// Plans the prompt of `conversation`, with `message` as its last message.
pub(in crate::chat) fn plan(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    tokenization: Tokenization,
) -> Result<Plan> {
    let videos: Vec<PromptVideo<'_>> =
        conversation.videos.iter().map(|video| PromptVideo::from(video.as_ref())).collect();
    plan_with(engine, conversation, message, &videos, tokenization)
}

/// Like [`plan`], but with `videos` instead of the conversation's videos.
pub(in crate::chat) fn plan_with(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    videos: &[PromptVideo<'_>],
    tokenization: Tokenization,
) -> Result<Plan> {
    let prompt = render(engine, conversation, message)?;
    plan::of_pieces(engine, &pieces(engine, conversation, &prompt), videos, tokenization)
}

/// How many rows of `plan`, the prompt of `conversation` with `message` as its last message, the prompt of the next
/// turn will begin with. A template may write the end of a prompt in another way once an answer follows.
pub(in crate::chat) fn rows_for_next_turn(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    tokenization: Tokenization,
    plan: &Plan,
) -> Result<usize> {
    // Any answer and any question.
    let answer = Message::text(Role::Assistant, format!("{}The", conversation.answer_start));
    let next = [answer, Message::text(Role::User, "And")];
    let messages: Vec<Message> = conversation.with(message).into_iter().chain(next).collect();
    let prompt = render_messages(engine, conversation, messages)?;
    let videos: Vec<PromptVideo<'_>> =
        conversation.videos.iter().map(|video| PromptVideo::from(video.as_ref())).collect();
    let next = plan::of_pieces(engine, &pieces(engine, conversation, &prompt), &videos, tokenization)?;
    Ok(plan.rows.iter().zip(&next.rows).take_while(|(row, next)| row == next).count())
}

/// `prompt`, split at its marks.
fn pieces(engine: &Engine, conversation: &Conversation, prompt: &str) -> Vec<Piece> {
    // If the tokenizer adds the BOS token and the template writes it too, one of the two is dropped.
    let bos = engine.template.bos();
    let is_twice = engine.model.adds_bos() && !bos.is_empty();
    conversation.marks.split(prompt.strip_prefix(bos).filter(|_| is_twice).unwrap_or(prompt))
}

/// The prompt of `question` as text, with a mark for each slice.
pub(in crate::chat) fn text(engine: &Engine, conversation: &Conversation, question: &str) -> Result<String> {
    let message = conversation.user_message(engine.layout.as_ref(), question);
    Ok(render(engine, conversation, &message)?.replace(&conversation.marks.cut(), ""))
}
