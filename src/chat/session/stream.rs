//! Answers as iterators: one turn, step by step.

use super::Session;
use crate::chat::cache::{Cache, Learned};
use crate::chat::conversation::Conversation;
use crate::chat::conversation::message::Message;
use crate::chat::encoded::EncodedVideo;
use crate::chat::report::{Answer, BeforeTurn, encoder_work};
use crate::chat::search::Question;
use crate::chat::turn::{Chat, Piece, Turn};
use crate::error::{Error, Result};
use crate::observer::Observer;
use std::sync::Arc;
use std::time::Duration;

/// A turn of a session whose prompt is in the cache.
#[derive(Debug)]
pub(super) struct OpenTurn {
    turn: Turn,
    /// The question in the session's conversation.
    message: Message,
    /// The conversation to ask in place of the session's, if the question is about a part of a video.
    part: Option<Box<Part>>,
    /// The time spent before the prompt.
    spent: Duration,
}

/// A conversation about a part of a video, with its own cache, which is freed after the answer.
#[derive(Debug)]
pub(super) struct Part {
    conversation: Conversation,
    cache: Cache,
    learned: Learned,
}

impl Session {
    /// As [`ask`](Self::ask), but returns the answer as an iterator over its pieces, each decoded when it is taken.
    /// Prefills the prompt before it returns, and reports that to `observer`; later warnings go to `tracing`.
    ///
    /// ```no_run
    /// use sharpv::chat::Piece;
    ///
    /// # let files = sharpv::models::resolve("smol", None, &[])?;
    /// # let mut session = sharpv::Session::builder(&files).open()?;
    /// let mut answer = session.ask_stream("What is in the video?", &mut ())?;
    /// for piece in &mut answer {
    ///     match piece? {
    ///         Piece::Thought(_) => {} // what the model thinks before it answers, if it does
    ///         Piece::Text(text) => print!("{text}"),
    ///     }
    /// }
    /// let answer = answer.finish()?;
    /// println!("\n{} tokens", answer.tokens.generated);
    /// # Ok::<(), sharpv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_stream<'q>(
        &mut self,
        question: impl Into<Question<'q>>,
        observer: &mut dyn Observer,
    ) -> Result<AnswerStream<'_>> {
        let turn = self.begin_turn(question.into(), observer)?;
        Ok(AnswerStream { session: self, turn: Some(turn), failed: None })
    }

    /// Prefills the prompt of `question`.
    pub(super) fn begin_turn(&mut self, question: Question<'_>, observer: &mut dyn Observer) -> Result<OpenTurn> {
        let Question { text, about, spent } = question;
        let message = self.chat().message(&text);
        let mut part = self.part(about);
        let turn = self.chat_about(&mut part).begin(&text, observer)?;
        Ok(OpenTurn { turn, message, part, spent })
    }

    /// Makes a conversation about a part of a video, if there is one.
    pub(super) fn part(&self, about: Option<Arc<EncodedVideo>>) -> Option<Box<Part>> {
        let part = |video| Part {
            conversation: self.conversation.about(video),
            cache: Cache::default(),
            learned: Learned::default(),
        };
        about.map(part).map(Box::new)
    }

    /// The conversation to ask: that about `part`, or the session's.
    pub(super) fn chat_about<'a>(&'a mut self, part: &'a mut Option<Box<Part>>) -> Chat<'a> {
        match part.as_deref_mut() {
            None => self.chat(),
            Some(Part { conversation, cache, learned }) => {
                Chat::new(&self.engine, &self.params, conversation, cache, learned).small()
            }
        }
    }

    /// Returns the next piece of the answer, or `None` after its end.
    pub(super) fn next_piece(&mut self, open: &mut OpenTurn, observer: &mut dyn Observer) -> Result<Option<Piece>> {
        let OpenTurn { turn, part, .. } = open;
        turn.next_piece(&mut self.chat_about(part), observer)
    }

    /// Ends the answer and adds the turn to the conversation.
    pub(super) fn end_turn(&mut self, open: OpenTurn) -> Result<Answer> {
        let OpenTurn { turn, message, mut part, spent } = open;
        let finished = turn.finish(&mut self.chat_about(&mut part))?;
        let reasoning = finished.answer.reasoning();
        let videos = self.conversation.end_turn(message, reasoning, &finished.answer.text);
        let encoder = encoder_work(&self.conversation.videos);
        let before_turn = BeforeTurn { videos, encoder, before: spent };
        Ok(Answer::of(&self.chat_about(&mut part), finished, before_turn))
    }
}

/// An answer that is being decoded: made by [`Session::ask_stream`].
///
/// An iterator over [pieces](Piece), which are valid UTF-8: first those of a thought, if the model thinks, then those
/// that together are the answer. It ends with the answer, or after the first error, which leaves the session as it was
/// before the question. The [`CancelToken`](crate::runtime::CancelToken) ends it without an error.
///
/// Dropping it before its end cancels the answer: what was decoded stays in the conversation. If no piece was taken,
/// the conversation stays as it was before the question.
#[derive(Debug)]
#[must_use = "nothing is decoded unless pieces are taken, or `finish` is called"]
pub struct AnswerStream<'a> {
    session: &'a mut Session,
    /// `None` after an error, and once the turn is in the conversation.
    turn: Option<OpenTurn>,
    /// The text of the error.
    failed: Option<String>,
}

impl AnswerStream<'_> {
    /// Decodes the rest of the answer, and returns the whole answer.
    ///
    /// # Errors
    /// As [`Session::ask`]; [`Error::Llama`] with the same reason if the iterator returned an error before.
    pub fn finish(mut self) -> Result<Answer> {
        while self.next().transpose()?.is_some() {}
        self.end()
    }

    /// Ends the answer here and returns it. What was decoded stays in the conversation. The stop reason is
    /// [`StopReason::Cancelled`](crate::chat::StopReason::Cancelled) unless the answer had already ended.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if no piece was taken; the session is then as it was before the question. Otherwise as
    /// [`finish`](Self::finish).
    pub fn stop(mut self) -> Result<Answer> {
        if self.turn.take_if(|open| !open.turn.has_begun()).is_some() {
            return Err(Error::Cancelled);
        }
        self.end()
    }

    fn end(&mut self) -> Result<Answer> {
        match self.turn.take() {
            Some(turn) => self.session.end_turn(turn),
            None => Err(Error::Llama {
                action: "writing the answer",
                reason: self.failed.take().unwrap_or_else(|| "it has ended".to_owned()),
            }),
        }
    }
}

impl Iterator for AnswerStream<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let turn = self.turn.as_mut()?;
        let result = self.session.next_piece(turn, &mut ());
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
            self.turn = None;
        }
        result.transpose()
    }
}

impl std::iter::FusedIterator for AnswerStream<'_> {}

impl Drop for AnswerStream<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take_if(|open| open.turn.has_begun())
            && let Err(error) = self.session.end_turn(turn)
        {
            tracing::warn!("the dropped answer was not added to the conversation: {error}");
        }
    }
}
