//! Answers as iterators: one turn, taken step by step.

use super::answer::{Answer, Timings, Tokens, count, encoder_work, ms, slice_reports};
use super::generate::Generation;
use super::prompt::message::Message;
use super::session::Session;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::peak_rss_bytes;
use std::time::{Duration, Instant};

/// A turn whose prompt is in the cache.
#[derive(Debug)]
pub(super) struct Turn {
    message: Message,
    prompt_rows: usize,
    prompt_computed: usize,
    prefill: Duration,
    generation: Generation,
}

impl Session {
    /// As [`ask`](Self::ask), with the answer as an iterator over its pieces: each is written when it is asked for, so
    /// that the session waits as long as the caller does. The prompt is prefilled before this returns.
    ///
    /// ```no_run
    /// # let files = sharpv::models::resolve("smol", None, &[])?;
    /// # let mut session = sharpv::Session::builder(&files).open()?;
    /// let mut answer = session.ask_stream("What is in the video?")?;
    /// for piece in &mut answer {
    ///     print!("{}", piece?);
    /// }
    /// let answer = answer.finish()?;
    /// println!("\n{} tokens", answer.tokens.generated);
    /// # Ok::<(), sharpv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_stream(&mut self, question: &str) -> Result<AnswerStream<'_>> {
        let turn = self.begin_turn(question, &mut ())?;
        Ok(AnswerStream { session: self, turn: Some(turn), failed: None })
    }

    /// As [`ask_stream`](Self::ask_stream). `observer` is told how the prefill goes on; later warnings go to `tracing`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_stream_with(&mut self, question: &str, observer: &mut dyn Observer) -> Result<AnswerStream<'_>> {
        let turn = self.begin_turn(question, observer)?;
        Ok(AnswerStream { session: self, turn: Some(turn), failed: None })
    }

    /// Brings the prompt of `question` into the cache.
    pub(super) fn begin_turn(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Turn> {
        self.settle(observer)?;
        let start = Instant::now();
        let plan = self.plan(&self.user_message(question))?;
        let message = self.conversation.user_message(self.layout(), question);
        let first = self.prefill(&plan, observer)?;
        let generation = Generation::new(&self.engine, &self.params, &self.kv, plan.next_position)?;
        Ok(Turn {
            message,
            prompt_rows: plan.rows.len(),
            prompt_computed: plan.rows.len() - first,
            prefill: start.elapsed() + std::mem::take(&mut self.searched),
            generation,
        })
    }

    /// The next piece of the answer, or `None` behind its end.
    pub(super) fn next_piece(&mut self, turn: &mut Turn, observer: &mut dyn Observer) -> Result<Option<String>> {
        turn.generation.next_piece(&self.engine, &self.params, &mut self.kv, observer)
    }

    /// Adds the turn to the conversation.
    pub(super) fn end_turn(&mut self, turn: Turn) -> Result<Answer> {
        // Nothing was evicted behind a short answer; the curve is there to be looked at.
        self.kv.measure()?;
        let Turn { message, prompt_rows, prompt_computed, prefill, generation } = turn;
        let generated = generation.finish();
        let spent = self.conversation.end_turn(message, &generated.text);
        let before = spent.decode_video + spent.encode + spent.prune;
        let encoder = encoder_work(&self.conversation.videos);
        let aside = self.aside.take();
        let videos = &aside.as_ref().unwrap_or(&self.conversation).videos;
        let slices = slice_reports(videos);
        let frames = videos.iter().map(|video| video.arrangement.n_frames).sum();
        Ok(Answer {
            answer: generated.text.trim().to_owned(),
            stop: generated.stop,
            model: self.engine.model.description(),
            frames,
            visual_tokens: count(&slices),
            slices,
            encoder,
            timings_ms: Timings {
                load: ms(self.engine.load),
                decode_video: ms(spent.decode_video),
                encode: ms(spent.encode),
                prune: ms(spent.prune),
                prefill: ms(prefill),
                ttft: ms(before + prefill + generated.first_token),
                evict: ms(generated.evict),
                generate: ms(generated.decode),
            },
            tokens: Tokens {
                prompt: prompt_rows,
                prompt_computed,
                generated: generated.n_tokens,
                decoded: generated.n_decoded,
            },
            kv: self.kv(),
            similarity: self.similarity().to_vec(),
            peak_rss_bytes: peak_rss_bytes(),
            settings: self.settings(),
        })
    }
}

/// An answer while it is written: made by [`Session::ask_stream`].
///
/// An iterator over pieces of text: valid UTF-8, to be written one behind the other as they are. It ends where the
/// answer ends, or behind the first error, which leaves the session as it was before the question. A stop through the
/// [`CancelToken`](crate::runtime::CancelToken) ends it without an error.
///
/// Dropping it midway stops the answer as a cancel does: what was written of it stays in the conversation, and nothing
/// of the turn where no piece had been taken.
#[derive(Debug)]
#[must_use = "nothing is written unless pieces are taken, or `finish` is called"]
pub struct AnswerStream<'a> {
    session: &'a mut Session,
    /// Gone behind an error, and when it is in the conversation.
    turn: Option<Turn>,
    /// What the error said.
    failed: Option<String>,
}

impl AnswerStream<'_> {
    /// Writes what is left of the answer, and gives all of it with what it cost.
    ///
    /// # Errors
    /// As [`Session::ask`]; [`Error::Llama`] with the same reason if the iterator has given an error already.
    pub fn finish(mut self) -> Result<Answer> {
        while self.next().transpose()?.is_some() {}
        self.end()
    }

    /// Ends the answer here: what was written of it stays in the conversation
    /// ([`StopReason::Cancelled`](super::StopReason::Cancelled), unless it had ended by itself).
    ///
    /// # Errors
    /// [`Error::Cancelled`] if no piece had been taken: the session is as it was before the question. Otherwise as
    /// [`finish`](Self::finish).
    pub fn stop(mut self) -> Result<Answer> {
        if self.turn.take_if(|turn| !turn.generation.has_begun()).is_some() {
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
    type Item = Result<String>;

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
        if let Some(turn) = self.turn.take_if(|turn| turn.generation.has_begun())
            && let Err(error) = self.session.end_turn(turn)
        {
            tracing::warn!("the answer that was left is not in the conversation: {error}");
        }
    }
}
