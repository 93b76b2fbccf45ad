//! The side of the clients.

mod http1;
mod http2;
mod linger;
mod link;

pub use http1::serve;
pub use linger::took_the_answer;
pub use link::Link;

use super::deadlines::Slot;
use super::worker::Worker;
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One client, as a request sees it: its connection, or one stream of it.
pub struct Client {
    pub worker: Rc<Worker>,
    pub link: Link,
    /// The peer's address: a client, or a proxy in front of us.
    pub peer: IpAddr,
    pub slot: Slot,
    /// When the connection was accepted, a tick more or less.
    pub since: Instant,
    /// The final answer of the current exchange has begun: nothing else can be answered any more.
    pub answering: Cell<bool>,
}

impl Client {
    /// No further request is served on a connection older than `most`.
    pub fn is_old(&self, most: Duration) -> bool {
        self.worker.recently().saturating_duration_since(self.since) >= most
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
