//! An answer as a stream of server-sent events.

use super::api::error::ApiError;
use super::api::response::Head;
use super::job::Event;
use super::ticket::Ticket;
use axum::http::{HeaderName, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Sleep, sleep_until};

/// How often a comment is sent while there is nothing else to send. It shows whether the client is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Answers with `events`, of which the caller has taken `first` already.
pub(super) fn respond(head: Head, first: Option<Event>, events: UnboundedReceiver<Event>, ticket: Ticket) -> Response {
    let deadline = Box::pin(sleep_until(ticket.deadline()));
    let mut answer = Answer { head, events, ticket, deadline, ready: VecDeque::new(), is_over: false };
    answer.put(&answer.head.first());
    if let Some(first) = first {
        answer.take(first);
    }
    // Proxies would collect the events otherwise.
    let headers =
        [(header::CACHE_CONTROL, "no-cache, no-transform"), (HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, Sse::new(answer).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response()
}

struct Answer {
    head: Head,
    events: UnboundedReceiver<Event>,
    /// Dropped with the stream, it cancels the request if the answer is not done.
    ticket: Ticket,
    deadline: Pin<Box<Sleep>>,
    ready: VecDeque<sse::Event>,
    is_over: bool,
}

impl Answer {
    fn put(&mut self, data: &Value) {
        self.ready.push_back(sse::Event::default().data(data.to_string()));
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Begun => {}
            Event::Thought(text) => self.put(&self.head.thought(&text)),
            Event::Text(text) => self.put(&self.head.text(&text)),
            Event::Done(end) => {
                self.put(&self.head.end(&end));
                if self.head.with_usage {
                    self.put(&self.head.usage(&end));
                }
                self.ready.push_back(sse::Event::default().data("[DONE]"));
                self.is_over = true;
                self.ticket.done();
            }
            Event::Failed(error) => {
                let error = self.ticket.failed(error);
                self.end_with(&error);
            }
        }
    }

    /// The status has been sent, so the error goes out as an event, which clients raise.
    fn end_with(&mut self, error: &ApiError) {
        self.put(&error.body());
        self.is_over = true;
    }
}

impl Stream for Answer {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            match self.events.poll_recv(context) {
                Poll::Ready(event) => self.take(event.unwrap_or_else(|| Event::Failed(ApiError::internal()))),
                Poll::Pending => {
                    ready!(self.deadline.as_mut().poll(context));
                    let error = self.ticket.timed_out();
                    self.end_with(&error);
                }
            }
        }
    }
}
