//! A slot: a session on its own thread, which answers one request after another.

use super::api::error::ApiError;
use super::api::request::Speaker;
use super::api::response::{End, FinishReason, Usage};
use super::cache::{Lookup, VideoCache};
use super::cancel::Reason;
use super::job::{Event, Job, Task};
use super::metrics::Metrics;
use super::queue::Queue;
use super::trail::Trail;
use super::writer::Writer;
use crate::chat::{Answer, Role, Session, StopReason};
use crate::error::Error;
use crate::observer::{Observer, Stage};
use crate::runtime::CancelToken;
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most pixels of a frame.
const MAX_PIXELS: u64 = 1 << 26;

/// A slot, before its thread runs.
pub(super) struct Slot {
    pub number: usize,
    pub session: Session,
    /// The server's own system message.
    pub system: Option<String>,
    pub timeout: Duration,
    pub queue: Arc<Queue>,
    pub cache: Arc<VideoCache>,
    pub metrics: Arc<Metrics>,
}

impl Slot {
    /// Answers until the server ends.
    pub fn run(mut self) {
        self.queue.release(self.number, Trail::default(), None);
        while let Some(job) = self.queue.next(self.number) {
            let start = Instant::now();
            let (last, trail) = match self.answer_or_fail(&job) {
                Ok((end, trail)) => (Event::Done(Box::new(end)), trail),
                Err(error) => (Event::Failed(error), Trail::default()),
            };
            self.metrics.kv_bytes(self.number, self.session.kv().bytes);
            self.queue.release(self.number, trail, Some(start.elapsed()));
            job.send(last);
            self.settle();
        }
    }

    /// Evicts now what the answer was too short to evict, so that the next question about the video does not wait for
    /// it. A new request cancels this; the rest is then evicted before the next answer about the video.
    fn settle(&mut self) {
        let token = self.session.cancel_token().clone();
        if !self.queue.idle(self.number, &token) {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| self.session.settle(&mut ()))) {
            Ok(Ok(()) | Err(Error::Cancelled)) => {}
            // The next request meets the same error, and reports it to its client.
            Ok(Err(error)) => tracing::warn!("evicting visual tokens failed: {error}"),
            Err(_) => {
                tracing::error!("a slot panicked");
                self.session.clear();
            }
        }
        self.metrics.kv_bytes(self.number, self.session.kv().bytes);
    }

    fn answer_or_fail(&mut self, job: &Job) -> Result<(End, Trail), ApiError> {
        let token = self.session.cancel_token().clone();
        let Some(attached) = job.cancellation.attach(&token) else { return Err(self.cancelled(job)) };
        // A panic may leave the session in any state, so it is cleared.
        let result = catch_unwind(AssertUnwindSafe(|| self.answer(job, &token))).unwrap_or_else(|_| {
            tracing::error!("a slot panicked");
            self.session.clear();
            Err(ApiError::internal())
        });
        drop(attached);
        result.map_err(|error| if job.cancellation.reason().is_some() { self.cancelled(job) } else { error })
    }

    fn cancelled(&self, job: &Job) -> ApiError {
        match job.cancellation.reason() {
            Some(Reason::Timeout) => ApiError::timeout(self.timeout),
            Some(Reason::Shutdown) => ApiError::shutting_down(),
            Some(Reason::Gone) | None => ApiError::cancelled(),
        }
    }

    fn answer(&mut self, job: &Job, token: &CancelToken) -> Result<(End, Trail), ApiError> {
        let start = Instant::now();
        let task = &job.task;
        let mut watch = Watch::new(job, token, &self.metrics);
        self.session.configure(&task.answer.params)?;
        self.session.start_over(task.system.clone().or_else(|| self.system.clone()));
        self.session.set_answer_start(&task.answer.start);
        let lookups = add_turns(&mut self.session, task, &self.cache, &mut watch)?;
        let Some(question) = task.turns.last() else { return Err(ApiError::internal()) };
        let answer = self.session.ask(&question.text, &mut watch)?;
        watch.begun();
        watch.end_thought();
        let rest = watch.writer.finish();
        watch.send_text(rest);
        let stopped = watch.writer.is_stopped();
        let reason = match answer.stop {
            StopReason::EndOfTurn => FinishReason::Stop,
            _ if stopped => FinishReason::Stop,
            StopReason::Length | StopReason::ContextFull => FinishReason::Length,
            // It was cancelled, so the answer is incomplete.
            _ => return Err(ApiError::cancelled()),
        };
        self.metrics.answered(&answer);
        let warnings = std::mem::take(&mut watch.warnings);
        let text = watch.writer.into_text();
        let end = End {
            reason,
            usage: Usage {
                prompt: answer.tokens.prompt,
                cached: answer.tokens.prompt - answer.tokens.prompt_computed,
                completion: answer.tokens.generated,
                reasoning: answer.tokens.reasoning,
                visual_total: answer.visual_tokens.total,
                visual_kept: answer.visual_tokens.kept,
            },
            extra: extra(&answer, &lookups, &warnings, start.elapsed()),
        };
        let mut trail = task.trail.clone();
        let said = format!("{}{text}", task.answer.start);
        trail.message(Speaker::Assistant, &said);
        Ok((end, trail))
    }
}

/// Adds everything before the question to the session, and all videos. Returns how each video was obtained.
fn add_turns(
    session: &mut Session,
    task: &Task,
    cache: &VideoCache,
    watch: &mut Watch<'_>,
) -> Result<Vec<Lookup>, ApiError> {
    let mut lookups = Vec::new();
    let last = task.turns.len().saturating_sub(1);
    let question = task.turns.last().map_or("", |turn| turn.text.as_str());
    for (i, turn) in task.turns.iter().enumerate() {
        for media in &turn.media {
            let token = watch.token.clone();
            watch.path = media.file.path().display().to_string();
            watch.encoded = 0;
            let encode = || -> Result<_, ApiError> {
                // Videos that do not fit, and files that are not videos, fail after one decoded frame.
                let options = media.options.for_question(question);
                let plan = session.plan_video(media.file.path(), &options)?;
                if u64::from(plan.info.width) * u64::from(plan.info.height) > MAX_PIXELS {
                    return Err(ApiError::media("the frames of this video are too large; scale the video down"));
                }
                if plan.fits {
                    watch.begun();
                }
                Ok(session.encode_video(media.file.path(), &options, watch)?)
            };
            let (video, lookup) = cache.get_or_encode(&media.key, || token.is_cancelled(), encode)?;
            watch.metrics.video(lookup, &video);
            session.add_encoded(&video)?;
            lookups.push(lookup);
        }
        if i < last {
            match turn.speaker {
                Speaker::System => session.say(Role::System, &turn.text),
                Speaker::User => session.say(Role::User, &turn.text),
                Speaker::Assistant => session.say_answer(turn.thought.as_deref(), &turn.text),
            }
        }
    }
    Ok(lookups)
}

/// The object `sharpv` of an answer.
fn extra(answer: &Answer, lookups: &[Lookup], warnings: &[String], total: Duration) -> serde_json::Value {
    let cached = lookups.iter().filter(|&&lookup| lookup == Lookup::Hit).count();
    json!({
        "visual_tokens": { "total": answer.visual_tokens.total, "kept": answer.visual_tokens.kept },
        "frames": answer.frames,
        "videos": { "total": lookups.len(), "cached": cached },
        "kv": {
            "cells": answer.kv.cells,
            "bytes": answer.kv.bytes,
            "layers_evicted": answer.kv.layers_evicted,
            "tokens_evicted": answer.kv.tokens_evicted,
        },
        "timings_ms": {
            "decode_video": answer.timings_ms.decode_video,
            "encode": answer.timings_ms.encode,
            "prune": answer.timings_ms.prune,
            "prefill": answer.timings_ms.prefill,
            "ttft": answer.timings_ms.ttft,
            "first_answer": answer.timings_ms.first_answer,
            "evict": answer.timings_ms.evict,
            "generate": answer.timings_ms.generate,
            "total": total.as_secs_f64() * 1000.0,
        },
        "warnings": warnings,
    })
}

/// Sends what a session reports to the client.
struct Watch<'a> {
    job: &'a Job,
    token: &'a CancelToken,
    metrics: &'a Metrics,
    /// What the model thinks, without white space around it. A stop text in it ends nothing.
    thought: Writer,
    writer: Writer,
    has_begun: bool,
    /// The path of the video that is being encoded. Clients must not see it.
    path: String,
    /// Frames of it that were encoded so far.
    encoded: u64,
    warnings: Vec<String>,
}

impl<'a> Watch<'a> {
    fn new(job: &'a Job, token: &'a CancelToken, metrics: &'a Metrics) -> Self {
        Self {
            job,
            token,
            metrics,
            thought: Writer::default(),
            writer: Writer::new(job.task.answer.stops.clone(), !job.task.answer.start.is_empty()),
            has_begun: false,
            path: String::new(),
            encoded: 0,
            warnings: Vec::new(),
        }
    }

    fn begun(&mut self) {
        if !self.has_begun {
            self.has_begun = true;
            self.job.send(Event::Begun);
        }
    }

    fn send_thought(&self, text: String) {
        if !text.is_empty() && self.job.task.answer.with_thought {
            self.job.send(Event::Thought(text));
        }
    }

    /// The answer begins or has ended, so no more comes of the thought.
    fn end_thought(&mut self) {
        let rest = self.thought.finish();
        self.send_thought(rest);
    }

    fn send_text(&self, text: String) {
        if !text.is_empty() {
            self.job.send(Event::Text(text));
        }
    }
}

impl Observer for Watch<'_> {
    fn progress(&mut self, stage: Stage, done: u64, _: u64) {
        if stage == Stage::Encode {
            self.metrics.frames(done.saturating_sub(self.encoded));
            self.encoded = done;
        }
        if stage == Stage::Prefill {
            self.begun();
        }
    }

    fn warning(&mut self, message: &str) {
        let message = if self.path.is_empty() { message.to_owned() } else { message.replace(&self.path, "the video") };
        self.warnings.push(message);
    }

    fn thought(&mut self, piece: &str) {
        let text = self.thought.push(piece);
        self.send_thought(text);
    }

    fn text(&mut self, piece: &str) {
        self.end_thought();
        let text = self.writer.push(piece);
        self.send_text(text);
        if self.writer.is_stopped() {
            self.token.cancel();
        }
    }
}
