//! What a request goes out on, and its answer comes in on.

use super::Connection;
use super::multiplexed::Lease;
use crate::http2;
use crate::proxy::body::{Accepted, BodyWriter, Coding};
use crate::proxy::buffer::HeadBytes;

/// See the module.
pub enum Link {
    /// A connection that nobody else uses meanwhile.
    Wire(Connection),
    /// One of the streams of a connection. Boxed: the rarer case, and the larger.
    Frames(Box<Lease>),
}

/// Why a request could not begin on a stream.
pub enum NotBegun {
    /// It cannot be said in HTTP/2.
    Untranslatable,
    /// The connection takes no further streams.
    Gone(h2::Error),
}

impl Link {
    /// Whether the connection was there before.
    pub fn reused(&self) -> bool {
        match self {
            Self::Wire(connection) => connection.reused,
            Self::Frames(lease) => lease.reused,
        }
    }

    /// Whether the request was begun on a stream: its head has gone out.
    pub fn has_begun(&self) -> bool {
        matches!(self, Self::Frames(lease) if lease.outgoing().is_some())
    }

    /// The connection is not for further requests. One that nobody else uses is not kept anyway.
    pub fn retire(&self) {
        if let Self::Frames(lease) = self {
            lease.retire_connection();
        }
    }

    /// Sends the head on a stream, which takes it out of `head`: there it tells whether a body follows. On a connection it
    /// goes with the body.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn begin(&mut self, head: &mut HeadBytes, ended: bool) -> Result<(), NotBegun> {
        let Self::Frames(lease) = self else { return Ok(()) };
        let request = http2::request(head, lease.is_tls()).map_err(|_| NotBegun::Untranslatable)?;
        lease.begin(request, ended).map_err(NotBegun::Gone)?;
        head.clear();
        Ok(())
    }

    /// Writes a request; `head`: what [`Link::begin`] has left of it. `None`: it has not begun.
    pub fn writer<'c>(&'c self, head: HeadBytes, coding: Coding, progress: Accepted<'c>) -> Option<BodyWriter<'c>> {
        match self {
            Self::Wire(connection) => Some(BodyWriter::wire(&connection.stream, head, coding, progress)),
            Self::Frames(lease) => Some(BodyWriter::frames(lease.outgoing()?, head, progress)),
        }
    }
}
