//! The side of the clients.

mod http1;
mod http2;
mod linger;
mod link;

pub use http1::serve;
pub use linger::took_the_answer;
pub use link::Link;

use super::buffer::Buffer;
use super::deadlines::Slot;
use super::worker::Worker;
use crate::routing::ClientCert;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// One client, as a request sees it: its connection, or one stream of it.
pub struct Client {
    pub worker: Rc<Worker>,
    pub link: Link,
    /// The peer: a client, or a proxy in front of us. As a PROXY protocol header says, where there is one.
    pub peer: SocketAddr,
    /// Where it connected to, where such a header says so.
    pub destination: Option<Rc<SocketAddr>>,
    /// The certificate it has shown, verified.
    pub certificate: Option<Rc<ClientCert>>,
    /// Position in [`crate::shared::InForce::listeners`].
    pub listener: usize,
    pub slot: Slot,
    /// When the connection was accepted, a tick more or less.
    pub since: Instant,
    /// A request has come on this connection.
    pub asked: Cell<bool>,
    /// The final answer of the current exchange has begun: nothing else can be answered any more.
    pub answering: Cell<bool>,
}

/// How a rest ended.
pub enum Rest {
    Readable,
    Late,
    Closing,
}

impl Client {
    /// Where it connected to.
    pub fn connected_to(&self) -> Option<SocketAddr> {
        let told = self.destination.as_deref().copied();
        told.or_else(|| self.link.stream()?.local_addr().ok())
    }

    /// No further request is served on a connection older than `most`.
    pub fn is_old(&self, most: Duration) -> bool {
        self.worker.recently().saturating_duration_since(self.since) >= most
    }

    /// Waits for the next bytes without a buffer.
    pub async fn rest(&self, patience: Duration) -> Rest {
        self.slot.set_phase(patience);
        let Some(stream) = self.link.stream() else {
            return Rest::Closing;
        };
        let readable = poll_fn(|context| {
            if stream.poll_readable(context).is_ready() {
                return Poll::Ready(Rest::Readable);
            }
            if !self.is_given_up() {
                return Poll::Pending;
            }
            // What is in the kernel already was sent in good faith.
            Poll::Ready(if stream.is_quiet_for_sure() {
                Rest::Closing
            } else {
                Rest::Readable
            })
        });
        self.slot.guard(readable).await.unwrap_or(Rest::Late)
    }

    /// Reads on, as [`super::stream::Stream::fill`]; `Ok(0)` also when the process closes and nothing has come yet: a new connection counts
    /// as readable until it was read once, whether or not something is there.
    pub async fn fill(&self, input: &mut Buffer, limit: usize) -> io::Result<usize> {
        let Some(stream) = self.link.stream() else {
            return Ok(0);
        };
        let filled = poll_fn(|context| match stream.poll_fill(context, input, limit) {
            Poll::Pending if input.is_empty() && self.is_given_up() && stream.is_quiet_for_sure() => Poll::Ready(Ok(0)),
            polled => polled,
        })
        .await;
        if self.worker.is_closing() {
            // What has begun has the time it always has.
            self.slot.clear_total();
        }
        filled
    }

    /// Whether this connection, on which nothing has come, ends since the process closes.
    fn is_given_up(&self) -> bool {
        if self.asked.get() {
            return self.worker.is_closing();
        }
        self.worker.hurry(&self.slot);
        self.worker.is_closing() && self.slot.expired().is_some()
    }
}

/// What becomes of a connection after an exchange. Of no meaning to HTTP/2, whose streams serve one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It waits for its next request.
    KeepAlive,
    /// It closes; what the client still sends is read and dropped for a moment, so that the answer is not lost in a
    /// reset.
    Linger,
    /// It closes at once.
    Close,
}
