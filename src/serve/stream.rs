//! An answer as a stream of events (SSE).

use super::api::error::ApiError;
use super::api::response::Head;
use super::job::{Event, Why};
use super::routes::Ticket;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_core::Stream;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep_until};

/// How often something is sent while there is nothing to say: a client that is gone is noticed by it.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// A comment. An event without data breaks OpenAI's own client.
const COMMENT: &[u8] = b":\n\n";

/// The answer to a request, as it comes.
pub(super) fn respond(
    head: Head,
    first: Option<Event>,
    events: UnboundedReceiver<Event>,
    ticket: Ticket,
    deadline: Instant,
) -> Response {
    let mut ticks = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stream = Events {
        head,
        events,
        ticket,
        ticks,
        deadline: Box::pin(sleep_until(deadline)),
        ready: VecDeque::new(),
        is_over: false,
    };
    stream.put(&stream.head.first());
    if let Some(first) = first {
        stream.take(first);
    }
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies would collect it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Events {
    head: Head,
    events: UnboundedReceiver<Event>,
    /// Dropped with the stream, it gives up what is not done.
    ticket: Ticket,
    ticks: Interval,
    deadline: Pin<Box<Sleep>>,
    ready: VecDeque<Bytes>,
    is_over: bool,
}

impl Events {
    fn put(&mut self, data: &Value) {
        self.ready.push_back(format!("data: {data}\n\n").into());
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Begun => {}
            Event::Text(text) => self.put(&self.head.text(&text)),
            Event::Done(end) => {
                self.put(&self.head.end(&end));
                if self.head.with_usage {
                    self.put(&self.head.usage(&end));
                }
                self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
                self.is_over = true;
                self.ticket.done();
            }
            Event::Failed(error) => self.fail(&error),
        }
    }

    /// The status has gone out: what is wrong is said in an event, which clients raise.
    fn fail(&mut self, error: &ApiError) {
        self.put(&error.body());
        self.is_over = true;
        self.ticket.failed(error);
    }
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.ticks.reset();
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            match self.events.poll_recv(context) {
                Poll::Ready(Some(event)) => {
                    self.take(event);
                    continue;
                }
                Poll::Ready(None) => {
                    self.fail(&ApiError::internal());
                    continue;
                }
                Poll::Pending => {}
            }
            if self.deadline.as_mut().poll(context).is_ready() {
                self.ticket.cancel(Why::Timeout);
                let error = ApiError::timeout(self.ticket.timeout());
                self.fail(&error);
                continue;
            }
            if self.ticks.poll_tick(context).is_ready() {
                return Poll::Ready(Some(Ok(Bytes::from_static(COMMENT))));
            }
            return Poll::Pending;
        }
    }
}
