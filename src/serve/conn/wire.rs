//! The bytes of a connection. Clients that read an answer too slowly are disconnected, and what a rejected client still
//! sends is read for a while.

use super::limit::{Activity, Permit};
use super::pace::{Pace, Patience};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// How long to read from a rejected client: in total, and without a byte.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_QUIET: Duration = Duration::from_secs(5);

/// The most bytes to read from a rejected client, unless requests may be larger than half of it.
const LINGER_BYTES: u64 = 64 << 20;

/// Bytes that are read and dropped at once.
const SINK: usize = 16 << 10;

/// The limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(in crate::serve) struct Limits {
    pub(super) patience: Patience,
    /// The most bytes to read from a rejected client.
    linger_bytes: u64,
}

impl Limits {
    pub fn new(patience: Patience, max_body: u64) -> Self {
        Self { patience, linger_bytes: max_body.saturating_mul(2).max(LINGER_BYTES) }
    }
}

/// The stream of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    permit: Arc<Permit>,
    limits: Limits,
    /// How fast the client reads answers.
    reading: Pace,
    linger: Option<Linger>,
}

/// Reading on before closing. If a connection is closed while bytes are unread, the system resets it: a client that is
/// still sending gets a broken pipe instead of the answer, and most try the whole upload again.
#[derive(Debug)]
struct Linger {
    left: u64,
    end: Pin<Box<Sleep>>,
    quiet: Pin<Box<Sleep>>,
}

impl Wire {
    pub fn new(stream: TcpStream, permit: Arc<Permit>, limits: Limits) -> Self {
        Self { stream, permit, limits, reading: Pace::new(limits.patience), linger: None }
    }

    /// Checks the result of a write. A write that waits for the client fails when the client is too slow.
    fn written(
        &mut self,
        result: Poll<io::Result<usize>>,
        wanted: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(n)) if *n < wanted => self.reading.moved(*n as u64),
            Poll::Ready(_) => self.reading.rest(),
            Poll::Pending => {
                ready!(self.reading.poll_too_slow(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        result
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.permit.set_unread(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(result, bytes.len(), context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = slices.iter().map(|slice| slice.len()).sum();
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(result, wanted, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.permit.has_unread() {
                return Poll::Ready(Ok(()));
            }
            this.permit.set(Activity::Rejected);
        }
        let most = this.limits.linger_bytes;
        this.linger.get_or_insert_with(|| Linger::new(most)).poll(&mut this.stream, context).map(Ok)
    }
}

impl Linger {
    fn new(most: u64) -> Self {
        Self { left: most, end: Box::pin(sleep(LINGER)), quiet: Box::pin(sleep(LINGER_QUIET)) }
    }

    /// Ready when the client has sent everything, or a limit is reached.
    fn poll(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<()> {
        let mut sink = [0; SINK];
        while self.left > 0 && self.end.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut sink);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buffer.filled().len() as u64);
                    self.quiet.as_mut().reset(Instant::now() + LINGER_QUIET);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.quiet.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}
