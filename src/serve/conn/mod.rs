//! Connections: who is there, what each is at, and how long each may take.
//!
//! A client that is slow, idle or refused costs nobody else anything: it holds neither a slot nor memory that others
//! need, places are kept for those that ask (`crowd`), who moves next to nothing is cut off (`pace`), and what a
//! refused client still sends is read for a while, so that it sees the answer (`wire`).

mod crowd;
mod pace;
mod service;
mod wire;

pub(super) use crowd::{Crowd, Seat};
pub(super) use pace::{Pace, Patience};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use service::Watched;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;
use wire::{Limits, Wire};

/// Bytes of the head of a request, and of what is read of a body at once.
const MAX_BUFFER: usize = 64 << 10;

/// Waits for the wish to stop. Nobody can wish it any more if the sender is gone.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|&stopped| stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Answers what comes over one connection, until it ends, or its place is needed.
pub(super) async fn serve(
    stream: TcpStream,
    seat: Arc<Seat>,
    router: Router,
    patience: Patience,
    max_body: u64,
    mut stop: watch::Receiver<bool>,
) {
    // Tokens are small, and somebody waits for each.
    let _ = stream.set_nodelay(true);
    let wire = Wire::new(stream, Arc::clone(&seat), Limits::new(patience, max_body));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The whole head, for which a client may take as long as for the least part of a body.
        .header_read_timeout(patience.window())
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(wire), Watched::new(router, Arc::clone(&seat)));
    let mut connection = std::pin::pin!(connection);
    let mut is_stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stopped(&mut stop), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = seat.sent_away() => {
                tracing::debug!(target: super::LOG, "a connection made room for another");
                return;
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(target: super::LOG, "a connection ended: {error}");
    }
}
