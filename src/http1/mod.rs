//! The HTTP/1.1 wire format (RFC 9110, RFC 9112), synchronous and pure: bytes in, values out. Strict where the RFC
//! leaves a choice: what two parsers might read differently is refused, never repaired.
//!
//! A head is read by [`parse_request`] or [`parse_response`] into offsets ([`RequestHead`], [`ResponseHead`]), so that it
//! may be kept across awaits beside the buffer it was read from. A body is read by its framing ([`RequestBody`],
//! [`ResponseBody`]), chunks by [`ChunkDecoder`]. [`write_request`] and [`write_response`] write the head that is
//! forwarded, in one pass over the fields. [`lint_request`] and [`lint_response`] judge forwarded bytes independently of
//! all that, for tests.
//!
//! Choices made where the RFC leaves one:
//!
//! - Lines end in CRLF; a bare LF or CR is refused everywhere. One empty line before a request is tolerated, none before
//!   an answer.
//! - A request target may not hold controls, space, DEL, `#` or non-ASCII bytes; other bytes that RFC 3986 does not allow
//!   (`"<>^{|}` and the backtick) are forwarded as received, as other proxies do.
//! - A path that servers resolve differently is refused ([`crate::routing::canonical_path`]): segments `.` and `..` in
//!   any spelling, a backslash, an encoded NUL, a `%` that encodes nothing. Queries may hold what they like.
//! - A host is letters, digits, `-._~`, or a bracketed IPv6 address: percent-encoding, sub-delimiters, userinfo, zone ids
//!   and an empty host are refused.
//! - Absolute-form whose authority differs from `Host` is refused, rather than `Host` ignored.
//! - `Content-Length` must be one field of digits, at most 2^63 - 1. Equal repetitions are refused too.
//! - `Transfer-Encoding` must be one field that says `chunked`; all else is 400, also where RFC 9112 section 6.1 would
//!   have 501: what this proxy cannot read it cannot forward unambiguously either.
//! - A field whose name is one the proxy acts on, but with `_` for `-`, is removed: CGI-like upstreams cannot tell them
//!   apart.
//! - `x-request-id` is kept only from a trusted peer; a valid `traceparent` is kept from anyone.

mod chain;
mod chunk;
mod connection;
mod edit;
mod error;
mod excerpt;
mod field;
mod forwarded;
mod framing;
mod head;
mod lint;
mod method;
mod moved;
mod numbers;
mod request;
mod response;
mod rewrite;
mod scan;
mod target;
mod trailer;
mod upgrade;
mod version;
pub mod websocket;

#[cfg(test)]
mod tests;

pub use chain::Chain;
pub use chunk::{CHUNK_END, ChunkDecoder, ChunkError, ChunkStep, write_chunk_head, write_last_chunk};
pub use edit::{CertPiece, Edits, FieldEdits, Piece, PieceFacts, Rewrite, field_owner};
pub use error::HeadError;
pub use excerpt::excerpt;
pub use head::{FieldIndex, Fields, HeadLimits, HeadParser};
pub use lint::{LintError, lint_request, lint_response};
pub use method::MethodKind;
pub use moved::Moved;
pub use request::{RequestBody, RequestHead, parse_request};
pub use response::{ResponseBody, ResponseHead, parse_response};
pub use rewrite::{Framing, RequestAdditions, ResponseAdditions, write_request, write_response};
pub use trailer::{request_trailers, response_trailers, trailer_section};
pub use upgrade::{MAX_UPGRADES, Protocols, Upgrading, carries_requests, is_web_socket};
pub use version::Version;

/// The name this proxy gives itself in `Via` (a pseudonym, RFC 9110 section 7.6.3).
pub const VIA_NAME: &str = "rollgate";

/// Whether `byte` may stand in a token (RFC 9110 section 5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

/// Whether `bytes` is a token: not empty, token bytes only.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

/// `bytes` without optional white space (SP, HTAB) at both ends.
pub(crate) fn trim_ows(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    while let [front @ .., b' ' | b'\t'] = rest {
        rest = front;
    }
    rest
}

/// The elements of a comma-separated list without their white space; empty ones included.
pub(crate) fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim_ows)
}
