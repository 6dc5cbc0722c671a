//! A job: what a slot is to do for one request, and where the answer goes.

use super::api::error::ApiError;
use super::api::request::Speaker;
use super::api::response::End;
use super::cache::VideoKey;
use super::cancel::Cancellation;
use super::media::MediaFile;
use super::trail::Trail;
use crate::chat::{TurnParams, VideoOptions};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// A task, with the channel to whoever waits for the answer.
#[derive(Debug)]
pub(super) struct Job {
    pub task: Task,
    pub cancellation: Arc<Cancellation>,
    /// Unbounded: a client that reads slowly must not hold up a slot, and the number of tokens bounds the answer.
    pub events: UnboundedSender<Event>,
}

impl Job {
    /// Sends an event. Does nothing if nobody waits any more.
    pub fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// What a slot reports about a job.
#[derive(Debug)]
pub(super) enum Event {
    /// The videos can be decoded, and they fit.
    Begun,
    /// The next piece of what the model thinks before it answers.
    Thought(String),
    /// The next piece of the answer.
    Text(String),
    /// The answer is complete.
    Done(Box<End>),
    Failed(ApiError),
}

/// A conversation to continue.
#[derive(Debug)]
pub(super) struct Task {
    /// `None` is the server's own system message.
    pub system: Option<String>,
    /// The last turn is the question.
    pub turns: Vec<Turn<Media>>,
    pub trail: Trail,
    pub answer: AnswerParams,
}

/// How to answer.
#[derive(Debug)]
pub(super) struct AnswerParams {
    pub params: TurnParams,
    /// The text that the answer continues. Often empty.
    pub start: String,
    pub stops: Vec<String>,
    /// The client gets the thought.
    pub with_thought: bool,
    pub stream: bool,
    pub include_usage: bool,
}

/// A message.
#[derive(Debug)]
pub(super) struct Turn<M> {
    pub speaker: Speaker,
    pub text: String,
    /// What the assistant thought before it said this.
    pub thought: Option<String>,
    pub media: Vec<M>,
}

/// A video or image of a message.
#[derive(Debug)]
pub(super) struct Media {
    pub file: MediaFile,
    pub options: VideoOptions,
    pub key: VideoKey,
}
