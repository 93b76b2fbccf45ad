//! HTTP/2 messages (RFC 9113) to and from the one form of a head that the house reads and writes, the text of
//! [`crate::http1`]. Synchronous and pure; frames, streams and HPACK are the `h2` crate's.
//!
//! What comes in is written as text and read by the same strict parser as everything else ([`read_request`],
//! [`read_answer`], [`read_trailers`]), so that no check exists twice and nothing is forwarded that HTTP/1.1 could not have
//! said. What goes out is text that [`crate::http1`] has written, taken apart again ([`request`], [`answer`],
//! [`trailers`]).
//!
//! The `h2` crate has refused, with a stream error, before anything is seen here: field names in capitals, pseudo-fields
//! that are missing, repeated, unknown or out of order, connection-specific fields, `te` other than `trailers`, a
//! `content-length` that the DATA frames belie.

mod budget;
mod frame_count;
pub mod grpc;
mod liveness;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use frame_count::{FrameCount, Frames};
pub use liveness::Liveness;
pub use read::{read_answer, read_request, read_trailers};
pub use write::{Untranslatable, answer, request, trailers};

/// What a client that knows in advance begins a connection with (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
