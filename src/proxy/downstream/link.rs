//! What a request came in on, and its answer goes out on.

use crate::http1::Version;
use crate::http2::grpc;
use crate::proxy::body::{Accepted, BodyWriter, Coding, Outgoing};
use crate::proxy::buffer::HeadBytes;
use crate::proxy::stream::Stream;
use h2::Reason;
use std::io;
use std::rc::Rc;

/// See the module.
pub enum Link {
    /// A connection that serves one request after the other.
    Wire(Stream),
    /// One of the streams of a connection: what goes out on it, and the connection.
    Frames(Outgoing, Rc<Stream>),
    /// No client: a copy, whose answer is read and dropped.
    Nowhere,
}

impl Link {
    /// The connection itself, to be asked of: what goes out on it is not for its streams.
    pub fn stream(&self) -> Option<&Stream> {
        match self {
            Self::Wire(stream) => Some(stream),
            Self::Frames(_, stream) => Some(stream),
            Self::Nowhere => None,
        }
    }

    pub fn is_tls(&self) -> bool {
        self.stream().is_some_and(Stream::is_tls)
    }

    /// What is spoken on it.
    pub fn version(&self) -> Version {
        match self {
            Self::Wire(_) | Self::Nowhere => Version::Http11,
            Self::Frames(..) => Version::Http2,
        }
    }

    /// Writes an answer whose head is `head`; `progress` is told of its body.
    pub fn writer<'c>(&'c self, head: HeadBytes, coding: Coding, progress: Accepted<'c>) -> BodyWriter<'c> {
        match self {
            Self::Wire(stream) => BodyWriter::wire_body(stream, head, coding, progress),
            Self::Frames(outgoing, _) => BodyWriter::frames(outgoing, head, progress),
            Self::Nowhere => BodyWriter::Nowhere(progress),
        }
    }

    /// Writes an interim answer.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn interim(&self, head: HeadBytes, progress: Accepted<'_>) -> io::Result<()> {
        match self {
            Self::Wire(stream) => BodyWriter::wire(stream, head, Coding::Plain, progress).flush().await,
            Self::Frames(outgoing, _) => outgoing.interim(&head),
            Self::Nowhere => Ok(()),
        }
    }

    /// Whether the answer on a stream is whole, or was broken off.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Frames(outgoing, _) if outgoing.has_ended())
    }

    /// The answer to a call of gRPC ends here, with a status for what a status of HTTP means. `false`: it cannot be told.
    pub fn end_call(&self, http: u16, why: &str) -> bool {
        let Self::Frames(outgoing, _) = self else {
            return false;
        };
        outgoing.end(&grpc::trailers_for(http, why)).is_ok()
    }

    /// The answer ends in the middle, and the client is to see that. A connection of HTTP/1.1 says so by closing.
    pub fn cut(&self, reason: Reason) {
        if let Self::Frames(outgoing, _) = self {
            outgoing.reset(reason);
        }
    }
}
