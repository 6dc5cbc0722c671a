//! Keeps track of what a connection does, and of whether its request was read to the end.

use super::limit::{Activity, Permit};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// A body up to this many bytes is read by hyper itself if no route reads it, and the connection stays open.
const SMALL: u64 = 4 << 10;

/// The routes, for one connection.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    router: TowerToHyperService<Router>,
    permit: Arc<Permit>,
}

impl Watched {
    pub fn new(router: Router, permit: Arc<Permit>) -> Self {
        Self { router: TowerToHyperService::new(router), permit }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Leaving>, Infallible>> + Send>>;

impl Service<axum::http::Request<Incoming>> for Watched {
    type Response = Response<Leaving>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: axum::http::Request<Incoming>) -> Answering {
        let permit = Arc::clone(&self.permit);
        let is_whole = request.body().is_end_stream();
        let is_small = request.body().size_hint().upper().is_some_and(|bytes| bytes <= SMALL);
        permit.set(if is_whole { Activity::Working } else { Activity::Receiving });
        permit.set_unread(!is_whole);
        let is_read = Arc::new(AtomicBool::new(is_whole));
        let (of_body, of_permit) = (Arc::clone(&is_read), Arc::clone(&permit));
        let request: Request = request.map(|inner| Body::new(Arriving { inner, is_read: of_body, permit: of_permit }));
        let answering = self.router.call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            // Close the connection with this answer, instead of reading the rest of the request.
            if !is_read.load(Ordering::Relaxed) && !is_small {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|inner| Leaving { inner, is_read, permit }))
        })
    }
}

/// The body of a request.
#[derive(Debug)]
struct Arriving {
    inner: Incoming,
    /// Whether the body was read to the end.
    is_read: Arc<AtomicBool>,
    permit: Arc<Permit>,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || (polled.is_ready() && self.inner.is_end_stream()) {
            self.is_read.store(true, Ordering::Relaxed);
            self.permit.set_unread(false);
            self.permit.set(Activity::Working);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer. When it is dropped, the connection is idle.
#[derive(Debug)]
pub(super) struct Leaving {
    inner: Body,
    /// Whether the request was read to the end.
    is_read: Arc<AtomicBool>,
    permit: Arc<Permit>,
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.permit.set(if self.is_read.load(Ordering::Relaxed) { Activity::Idle } else { Activity::Rejected });
    }
}
