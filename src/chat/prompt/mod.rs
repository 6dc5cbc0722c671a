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
use super::engine::{Engine, Thinking};
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// What decides, besides a conversation, what its prompt is.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct PromptParams<'a> {
    pub tokenization: Tokenization,
    pub thinking: Thinking,
    /// What the chat template is told besides.
    pub kwargs: &'a Map<String, Value>,
}

impl PromptParams<'_> {
    /// Whether the model thinks before its next answer in `conversation`. It does not if the answer has begun already.
    pub fn thinking_in(&self, conversation: &Conversation) -> Thinking {
        if conversation.answer_start.is_empty() { self.thinking } else { Thinking::Off }
    }

    /// The same without a thought.
    pub fn without_thought(self) -> Self {
        Self { thinking: Thinking::Off, ..self }
    }
}

/// Renders `conversation`, with `message` as its last message, to text with marks. Returns whether the text ends in a
/// thought, too.
fn render(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    params: &PromptParams<'_>,
) -> Result<(String, bool)> {
    render_messages(engine, conversation, conversation.with(message), params)
}

/// As [`render`], for `messages` of `conversation`.
fn render_messages(
    engine: &Engine,
    conversation: &Conversation,
    messages: Vec<Message>,
    params: &PromptParams<'_>,
) -> Result<(String, bool)> {
    let Engine { template, .. } = engine;
    let thinking = params.thinking_in(conversation);
    // Names of control tokens in a message, and in what a user tells the template, stay text.
    let mark = conversation.marks.cut();
    let messages = template.guarded(messages, &mark);
    let start = vec![Message::text(Role::Assistant, conversation.answer_start.clone())];
    let start = template.guarded(start, &mark);
    let kwargs = template.guarded_kwargs(params.kwargs, &mark);
    let rendered = template.render(&messages, thinking, &kwargs);
    let mut prompt = rendered.map_err(|error| without_mark(error, &mark))?;
    let mut in_thought = template.thoughts().opened_by(&prompt);
    if let Some(delimiters) = &template.thoughts().delimiters
        && in_thought
        && thinking.is_off()
    {
        // The template does not do what it was told.
        prompt.push_str(&delimiters.end);
        in_thought = false;
    }
    prompt.extend(start.iter().map(|message| message.content.as_str()));
    Ok((prompt, in_thought))
}

/// `error` without marks: a template may repeat in it what it was given, and a server's clients may not know the marks.
fn without_mark(error: Error, mark: &str) -> Error {
    let clean = |text: String| text.replace(mark, "");
    match error {
        Error::ChatTemplate { model, reason } => Error::ChatTemplate { model, reason: clean(reason) },
        Error::ChatTemplateKwargs { model, told, reason, fixes } => {
            Error::ChatTemplateKwargs { model, told: clean(told), reason: clean(reason), fixes }
        }
        error => error,
    }
}

/// Plans the prompt of `conversation`, with `message` as its last message.
pub(in crate::chat) fn plan(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    params: &PromptParams<'_>,
) -> Result<Plan> {
    let videos: Vec<PromptVideo<'_>> =
        conversation.videos.iter().map(|video| PromptVideo::from(video.as_ref())).collect();
    plan_with(engine, conversation, message, &videos, params)
}

/// Like [`plan`], but with `videos` instead of the conversation's videos.
pub(in crate::chat) fn plan_with(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    videos: &[PromptVideo<'_>],
    params: &PromptParams<'_>,
) -> Result<Plan> {
    let (prompt, in_thought) = render(engine, conversation, message, params)?;
    let plan = plan::of_pieces(engine, &pieces(engine, conversation, &prompt), videos, params.tokenization)?;
    Ok(Plan { in_thought, ..plan })
}

/// How many rows of `plan`, the prompt of `conversation` with `message` as its last message, the prompt of the next
/// turn will begin with. A template may write the end of a prompt in another way once an answer follows.
pub(in crate::chat) fn rows_for_next_turn(
    engine: &Engine,
    conversation: &Conversation,
    message: &Message,
    params: &PromptParams<'_>,
    plan: &Plan,
) -> Result<usize> {
    // Any answer and any question.
    let answer = Message::text(Role::Assistant, format!("{}The", conversation.answer_start));
    let next = [answer, Message::text(Role::User, "And")];
    let messages: Vec<Message> = conversation.with(message).into_iter().chain(next).collect();
    let (prompt, _) = render_messages(engine, conversation, messages, params)?;
    let videos: Vec<PromptVideo<'_>> =
        conversation.videos.iter().map(|video| PromptVideo::from(video.as_ref())).collect();
    let next = plan::of_pieces(engine, &pieces(engine, conversation, &prompt), &videos, params.tokenization)?;
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
pub(in crate::chat) fn text(
    engine: &Engine,
    conversation: &Conversation,
    question: &str,
    params: &PromptParams<'_>,
) -> Result<String> {
    let message = conversation.user_message(engine.layout.as_ref(), question);
    Ok(render(engine, conversation, &message, params)?.0.replace(&conversation.marks.cut(), ""))
}
