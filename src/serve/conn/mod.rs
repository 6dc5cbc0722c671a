//! Connections: how many there may be, and how slow their clients may be.
//!
//! A client that is slow, idle or rejected costs other clients nothing. It holds neither a slot nor memory that others
//! need. There are always permits for clients with a request (`limit`). Clients that send or read next to nothing are
//! disconnected (`pace`). What a rejected client still sends is read for a while, so that it sees the answer (`wire`).

mod limit;
mod pace;
mod service;
mod wire;

pub(super) use limit::{ConnectionLimit, Permit};
pub(super) use pace::{Pace, Patience};
pub(super) use wire::Limits;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use service::Watched;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use wire::Wire;

/// The most bytes of a request's head, and of a body that are read at once.
const MAX_BUFFER: usize = 64 << 10;

/// Answers the requests of one connection, until it ends or must be closed for another one.
pub(super) async fn serve(
    stream: TcpStream,
    permit: Arc<Permit>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    // Tokens are small, and each should arrive at once.
    let _ = stream.set_nodelay(true);
    let wire = Wire::new(stream, Arc::clone(&permit), limits);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The time for a whole head.
        .header_read_timeout(limits.patience.window())
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(wire), Watched::new(router, Arc::clone(&permit)));
    let mut connection = std::pin::pin!(connection);
    let mut is_stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = permit.closed() => {
                tracing::debug!("a connection was closed for another one");
                return;
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}
