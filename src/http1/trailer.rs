//! Trailer fields: read and checked; which of them go on (RFC 9110 section 6.5).

use super::field::{self, Kind};
use super::{ChunkError, FieldEdits, HeadLimits, RequestHead, ResponseHead, connection, is_token, trim_ows};

/// The trailer section of a chunked body, with the empty line that ends it.
#[derive(Debug)]
pub(super) struct Trailers {
    /// Fields read, then the line being read.
    wire: Vec<u8>,
    /// Where the line being read begins in `wire`.
    line: usize,
    /// Bytes and lines read in all.
    bytes: usize,
    fields: usize,
    limits: HeadLimits,
}

impl Trailers {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            wire: Vec::new(),
            line: 0,
            bytes: 0,
            fields: 0,
            limits,
        }
    }

    /// The fields, each `name: value CRLF`.
    pub(super) fn wire(&self) -> &[u8] {
        self.wire.get(..self.line).unwrap_or_default()
    }

    /// Reads `input` up to the empty line: bytes consumed, and whether the section is complete.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<(usize, bool), ChunkError> {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|r| !r.is_empty()) {
            if self.line == self.wire.len() && rest.starts_with(b"\r\n") {
                // Most bodies have no trailers: nothing is allocated for them.
                return Ok((at + 2, true));
            }
            let ended = memchr::memchr(b'\n', rest).map(|lf| lf + 1);
            let part = rest.get(..ended.unwrap_or(rest.len())).unwrap_or_default();
            at += part.len();
            self.bytes += part.len();
            if self.bytes > self.limits.bytes {
                return Err(ChunkError::TrailersTooLarge);
            }
            self.wire.extend_from_slice(part);
            if ended.is_some() && self.end_line()? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// A line is complete in `wire`: whether it was the empty one.
    fn end_line(&mut self) -> Result<bool, ChunkError> {
        let whole = self.wire.get(self.line..).unwrap_or_default();
        let line = whole.strip_suffix(b"\r\n").ok_or(ChunkError::LineEnd)?;
        if line.is_empty() {
            self.wire.truncate(self.line);
            return Ok(true);
        }
        self.fields += 1;
        if self.fields > self.limits.fields {
            return Err(ChunkError::TrailersTooLarge);
        }
        let colon = memchr::memchr(b':', line).ok_or(ChunkError::Trailer)?;
        let (name, value) = line.split_at_checked(colon).ok_or(ChunkError::Trailer)?;
        let value = trim_ows(value.get(1..).unwrap_or_default());
        if !is_token(name) || value.iter().any(|&b| b != b'\t' && (b < b' ' || b == 0x7f)) {
            return Err(ChunkError::Trailer);
        }
        if whole.len() != name.len() + 2 + value.len() + 2 || whole.get(colon..colon + 2) != Some(b": ") {
            let clean = [name, b": ", value, b"\r\n"].concat();
            self.wire.truncate(self.line);
            self.wire.extend_from_slice(&clean);
        }
        self.line = self.wire.len();
        Ok(false)
    }
}

/// The trailer section of `fields`, in wire form: each `name: value CRLF`.
///
/// # Errors
/// [`ChunkError::TrailersTooLarge`] beyond the limits; [`ChunkError::Trailer`] for what is no field.
pub fn trailer_section<'f>(
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    limits: &HeadLimits,
) -> Result<Vec<u8>, ChunkError> {
    let mut section = Trailers::new(*limits);
    for (name, value) in fields {
        section.read(&[name, b": ", value, b"\r\n"].concat())?;
    }
    section.read(b"\r\n")?;
    Ok(section.wire)
}

/// The trailer fields of a request that go on, of those that `came` in wire form. What rules set or remove does not: a server
/// that merges trailers would believe it.
pub fn request_trailers(came: &[u8], head: &RequestHead, buf: &[u8], rules: Option<&FieldEdits>) -> Vec<u8> {
    let ends_here = |name: &[u8]| is_ruled(rules, name) || connection::names(buf, &head.index.0, name);
    passing(came, |name| may_trail(name) && !ends_here(name))
}

/// Likewise those of an answer. `is_metadata`: it is one of gRPC, to which trailers are metadata as its head is. `taken`:
/// names, in lowercase, of fields that are for the proxy alone.
pub fn response_trailers(
    came: &[u8],
    (head, buf): (&ResponseHead, &[u8]),
    rules: Option<&FieldEdits>,
    is_metadata: bool,
    taken: &[&str],
) -> Vec<u8> {
    let ends_here = |name: &[u8]| {
        let is_taken = taken.iter().any(|taken| name.eq_ignore_ascii_case(taken.as_bytes()));
        is_taken || is_ruled(rules, name) || connection::names(buf, &head.index.0, name)
    };
    passing(came, |name| {
        let may_pass = if is_metadata {
            is_metadata_of_calls(name)
        } else {
            may_trail(name)
        };
        may_pass && !ends_here(name)
    })
}

fn is_ruled(rules: Option<&FieldEdits>, name: &[u8]) -> bool {
    rules.is_some_and(|rules| rules.removes(name))
}

/// The lines of `came` whose names pass.
fn passing(came: &[u8], passes: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let lines = came.split_inclusive(|&byte| byte == b'\n');
    let name = |line: &[u8]| {
        memchr::memchr(b':', line)
            .and_then(|end| line.get(..end))
            .is_some_and(&passes)
    };
    lines.filter(|line| name(line)).flatten().copied().collect()
}

/// Fields that mean something only before the content: for framing, routing, authentication, modifiers of requests, control
/// of answers, or how to read the content (RFC 9110 section 6.5.1).
const FORBIDDEN: [&[u8]; 36] = [
    b"accept-ranges",
    b"age",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-language",
    b"content-location",
    b"content-range",
    b"content-type",
    b"cookie",
    b"etag",
    b"expires",
    b"from",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"last-modified",
    b"location",
    b"origin",
    b"pragma",
    b"range",
    b"referer",
    b"retry-after",
    b"server",
    b"set-cookie",
    b"trailer",
    b"vary",
    b"via",
    b"warning",
    b"www-authenticate",
    b"accept",
    b"access-control-allow-origin",
    b"strict-transport-security",
    b"content-security-policy",
];

/// Whether a field may follow the content, where nobody may read it, or merge it with the head.
fn may_trail(name: &[u8]) -> bool {
    field::classify(name) == Kind::Other && !FORBIDDEN.iter().any(|f| f.eq_ignore_ascii_case(name))
}

/// What says how an answer is to be read, or is written by each proxy.
const OF_THE_HEAD: [&[u8]; 4] = [b"content-encoding", b"content-type", b"trailer", b"via"];

/// Whether a field is metadata at the end of a call: all that goes on in a head, but for what frames or routes a message.
fn is_metadata_of_calls(name: &[u8]) -> bool {
    let kind = field::classify(name);
    kind.stays_in_answers() && kind != Kind::Host && !OF_THE_HEAD.iter().any(|f| f.eq_ignore_ascii_case(name))
}
