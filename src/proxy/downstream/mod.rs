//! The side of the clients.

mod http1;
mod linger;

pub use http1::serve;
pub use linger::took_the_answer;

use super::deadlines::Slot;
use super::stream::Stream;
use super::worker::Worker;
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

/// One client's connection.
pub struct Client {
    pub worker: Rc<Worker>,
    pub stream: Stream,
    /// The peer's address: a client, or a proxy in front of us.
    pub peer: IpAddr,
    pub slot: Slot,
    /// The final answer of the current exchange has begun: nothing else can be answered any more.
    pub answering: Cell<bool>,
}

/// What becomes of a connection after an exchange.
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
