//! Requests and answers on their way, as far as the connection has to know: what it is at, and whether a request was
//! read to its end.

use super::crowd::{At, Seat};
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

/// A body of so few bytes is read by hyper itself when nobody wants it, and the connection goes on.
const SMALL: u64 = 4 << 10;

/// All routes, for one connection.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    router: TowerToHyperService<Router>,
    seat: Arc<Seat>,
}

impl Watched {
    pub fn new(router: Router, seat: Arc<Seat>) -> Self {
        Self { router: TowerToHyperService::new(router), seat }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Leaving>, Infallible>> + Send>>;

impl Service<axum::http::Request<Incoming>> for Watched {
    type Response = Response<Leaving>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: axum::http::Request<Incoming>) -> Answering {
        let seat = Arc::clone(&self.seat);
        let is_whole = request.body().is_end_stream();
        let is_small = request.body().size_hint().upper().is_some_and(|bytes| bytes <= SMALL);
        seat.set(if is_whole { At::Working } else { At::Receiving });
        seat.set_owes(!is_whole);
        let is_read = Arc::new(AtomicBool::new(is_whole));
        let (of_body, of_seat) = (Arc::clone(&is_read), Arc::clone(&seat));
        let request: Request = request.map(|inner| Body::new(Arriving { inner, is_read: of_body, seat: of_seat }));
        let answering = self.router.call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            // The connection ends with this answer: what is left of the request is not waited for.
            if !is_read.load(Ordering::Relaxed) && !is_small {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|inner| Leaving { inner, is_read, seat }))
        })
    }
}

/// A request's body.
#[derive(Debug)]
struct Arriving {
    inner: Incoming,
    /// Set when it is here to its end.
    is_read: Arc<AtomicBool>,
    seat: Arc<Seat>,
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
            self.seat.set_owes(false);
            self.seat.set(At::Working);
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

/// An answer's body. When it is gone, the connection has nothing to do.
#[derive(Debug)]
pub(super) struct Leaving {
    inner: Body,
    /// Whether the request was.
    is_read: Arc<AtomicBool>,
    seat: Arc<Seat>,
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
        self.seat.set(if self.is_read.load(Ordering::Relaxed) { At::Between } else { At::Refused });
    }
}
