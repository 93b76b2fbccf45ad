//! The head that is forwarded: what belongs to the other hop is removed, what this hop must say is added
//! (RFC 9110 section 7.6).

use super::edit::{Edits, PieceFacts, Rewrite};
use super::field::Kind;
use super::head::{Field, slice};
use super::{
    Chain, Moved, RequestBody, RequestHead, ResponseBody, ResponseHead, Upgrading, VIA_NAME, Version, forwarded,
};
use crate::routing::{HeaderFields, exchange_prefix, is_field_name};
use std::io::Write;
use std::net::IpAddr;

/// What a proxy knows of a request and its head does not say.
#[derive(Debug, Clone, Copy)]
pub struct RequestAdditions<'a> {
    /// What is spoken to the endpoint. For [`Version::Http2`] the text holds nothing that belongs to a connection: it is
    /// translated by [`crate::http2::request`].
    pub to: Version,
    /// The peer as seen, or as PROXY protocol says: appended to `X-Forwarded-For`.
    pub client_ip: IpAddr,
    /// The peer is one of `trusted_proxies`: what it says of the client is kept and continued. Otherwise every
    /// `X-Forwarded-*`, `Forwarded`, `X-Real-IP` and `x-request-id` it sent is removed.
    pub peer_trusted: bool,
    /// What it says of the client.
    pub chain: Chain,
    /// The peer's connection was TLS.
    pub https: bool,
    /// Whether to send `Forwarded` (RFC 7239) too.
    pub forwarded: bool,
    /// Whether `Via` is added.
    pub via: bool,
    /// Sent when the request brings none that is kept ([`RequestHead::request_id`]).
    pub request_id: &'a str,
    /// Sent when the request brings none that is valid ([`RequestHead::traceparent`]); its `tracestate` is then removed.
    pub traceparent: &'a str,
    /// The version that serves: `x-rollgate-version`.
    pub version: &'a str,
    /// `Host` for an HTTP/1.0 request that names none (RFC 9110 section 7.1 leaves it to configuration); may be empty.
    pub default_host: &'a str,
    /// What `head` asks to change to: asked again, but by HTTP/2, which has no such thing.
    pub upgrading: Upgrading<'a>,
    /// Rules of the version that serves.
    pub rewrite: Option<(&'a Rewrite, PieceFacts<'a>)>,
}

/// Writes the head of `head`, read from `buf`, as HTTP/1.1 in origin-form with exactly the framing of [`RequestHead::body`].
///
/// `Host` comes first, end-to-end fields follow in their order and case, then what this proxy adds. `Content-Length` is
/// written anew from the number read.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], add: &RequestAdditions<'_>) {
    out.reserve(head.len + 512);
    let (slash, rest) = head.origin_form(buf);
    let host = head.authority(buf);
    let host = if host.is_empty() { add.default_host } else { host };
    let host = add.rewrite.and_then(|(rules, _)| rules.host.as_deref()).unwrap_or(host);
    out.extend_from_slice(head.method(buf).as_bytes());
    out.push(b' ');
    let moved = add.rewrite.and_then(|(rules, _)| rules.moved(head.canonical_path(buf)));
    match moved.filter(|moved| !(moved.stripped.is_empty() && moved.added.is_empty())) {
        None => [slash, rest].into_iter().for_each(|part| out.extend_from_slice(part)),
        Some(moved) => {
            let (before, path) = exchange_prefix(head.canonical_path(buf), moved.stripped, moved.added);
            let query = memchr::memchr(b'?', rest).and_then(|at| rest.get(at..));
            for part in [before.as_bytes(), path.as_bytes(), query.unwrap_or_default()] {
                out.extend_from_slice(part);
            }
        }
    }
    for part in [b" HTTP/1.1\r\nHost: ", host.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
    let edits = add.rewrite.map(|(rules, facts)| Edits {
        fields: &rules.request,
        facts,
        moved: moved.filter(|moved| !moved.stripped.is_empty()),
    });
    let prefix = edits
        .filter(|edits| !edits.rules_over(FORWARDED_PREFIX))
        .and_then(|edits| edits.moved);
    let replaced: &[&str] = if prefix.is_some() { &[FORWARDED_PREFIX] } else { &[] };
    let keep_id = head.request_id(buf, add.peer_trusted).is_some();
    let keep_trace = head.traceparent(buf).is_some();
    copy_fields(out, buf, (&head.index.0, edits, replaced), |kind| match kind {
        Kind::Other | Kind::Date | Kind::StrictTransportSecurity | Kind::WebSocketKey | Kind::WebSocketVersion => true,
        Kind::Expect => head.expect_continue,
        Kind::MaxForwards => head.max_forwards.is_none(),
        Kind::XForwardedHost | Kind::XForwarded => add.peer_trusted,
        Kind::Forwarded => add.peer_trusted && !add.forwarded,
        Kind::RequestId => keep_id,
        Kind::Traceparent | Kind::Tracestate => keep_trace,
        Kind::Host
        | Kind::Connection
        | Kind::ContentLength
        | Kind::TransferEncoding
        | Kind::Upgrade
        | Kind::HopByHop
        | Kind::Te
        | Kind::XForwardedFor
        | Kind::XForwardedProto
        | Kind::Rollgate
        | Kind::Alias
        | Kind::Nominated => false,
    });
    if let Some(moved) = prefix {
        write_prefix(out, head, buf, add.peer_trusted, moved.stripped);
    }
    if let Some(edits) = edits {
        edits.write(out);
    }
    match head.body {
        RequestBody::None => {}
        RequestBody::Length(length) => write_length(out, length),
        RequestBody::Chunked if add.to == Version::Http2 => {}
        RequestBody::Chunked => out.extend_from_slice(CHUNKED),
    }
    if let Some(left) = head.max_forwards {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "Max-Forwards: {}\r\n", left.saturating_sub(1));
    }
    match (add.to, head.te_trailers) {
        (Version::Http2, true) => out.extend_from_slice(b"TE: trailers\r\n"),
        (Version::Http2, false) => {}
        _ if add.upgrading.is_asked() => {
            out.extend_from_slice(b"Connection: Upgrade\r\n");
            add.upgrading.write_asked(out);
        }
        (_, true) => out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n"),
        (_, false) => {}
    }
    forwarded::write(out, head, buf, add);
    if add.via {
        write_via(out, head.version);
    }
    out.extend_from_slice(b"\r\n");
}

/// Under which path the endpoint is reached: what was stripped, behind what a trusted peer has stripped before.
fn write_prefix(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], peer_trusted: bool, stripped: &str) {
    let fields = head.fields(buf);
    let before = fields.nth(FORWARDED_PREFIX, 0).filter(|_| peer_trusted);
    let before = before.filter(|before| before.starts_with(b"/") && !before.contains(&b','));
    out.extend_from_slice(b"X-Forwarded-Prefix: ");
    let before = before.unwrap_or_default();
    out.extend_from_slice(before.strip_suffix(b"/").unwrap_or(before));
    write_field(out, b"", stripped.as_bytes());
}

const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

/// Fields of answers that hold an address of what was asked for, or is to be.
const LOCATIONS: [&str; 2] = ["location", "content-location"];

/// The addresses in an answer, as the client can ask for them.
fn write_locations(out: &mut Vec<u8>, head: &ResponseHead, buf: &[u8], edits: &Edits<'_>, moved: &Moved<'_>) {
    for field in &head.index.0 {
        let (name, value) = (slice(buf, field.name), slice(buf, field.value));
        let is_location = LOCATIONS.iter().any(|known| is_field_name(name, known.as_bytes()));
        if !is_location || field.kind != Kind::Other || edits.fields.removes(name) {
            continue;
        }
        let facts = &edits.facts;
        let led = str::from_utf8(value)
            .ok()
            .and_then(|value| moved.lead_back(value, facts.host, facts.https));
        out.extend_from_slice(name);
        write_field(out, b": ", led.as_deref().map_or(value, str::as_bytes));
    }
}

/// How the body of an answer is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body. The answer to HEAD and a 304 keep the `Content-Length` that describes what is not sent.
    None,
    Length(u64),
    /// Of unknown length: in chunks, which HTTP/2 has no need of.
    Chunked,
    /// Until the connection is closed; says `Connection: close`.
    UntilClose,
}

impl ResponseHead {
    /// Whether it is the last answer to its request: after a 101 another protocol is spoken.
    pub fn is_final(&self) -> bool {
        self.status >= 200 || self.status == 101
    }

    /// How this answer's body is best sent to a client that speaks `client`: as it came, except that HTTP/1.0 knows no
    /// chunks, and that a body until close is sent in chunks, so that the connection stays and a cut one is seen as cut.
    pub fn forward_framing(&self, client: Version) -> Framing {
        match self.body {
            ResponseBody::None => Framing::None,
            ResponseBody::Length(length) => Framing::Length(length),
            _ if client == Version::Http10 => Framing::UntilClose,
            ResponseBody::Chunked | ResponseBody::UntilClose => Framing::Chunked,
        }
    }
}

/// What a proxy adds to an answer.
#[derive(Debug, Clone, Copy)]
pub struct ResponseAdditions<'a> {
    /// The version of the request. For [`Version::Http2`] the text holds nothing that belongs to a connection: it is
    /// translated by [`crate::http2::answer`].
    pub client: Version,
    /// The client's connection is closed after this answer.
    pub close: bool,
    /// An HTTP/1.0 client asked for its connection to be kept, and it is.
    pub keep_alive_10: bool,
    /// The value of a `Set-Cookie` of our own.
    pub set_cookie: Option<&'a [u8]>,
    /// The version, where the client may know it: `x-rollgate-version`.
    pub version: Option<&'a str>,
    pub framing: Framing,
    /// An HTTP-date, sent when the answer has no `Date` (RFC 9110 section 6.6.1).
    pub date: Option<&'a str>,
    /// `Strict-Transport-Security`, sent when the answer has none of its own (RFC 6797 section 7.1).
    pub hsts: Option<&'a str>,
    /// Whether to add `Via`.
    pub via: bool,
    /// What the request could change to.
    pub upgrading: Upgrading<'a>,
    /// Rules of the version that answers; for final answers alone.
    pub edits: Option<Edits<'a>>,
}

/// Writes the head of `head`, read from `buf`, for the client, in the text of HTTP/1.1.
///
/// Interim answers (1xx) get neither framing nor `Connection`. 101 says `Connection: Upgrade`, and to what; as the last answer
/// to its request it gets what others do, but for framing (RFC 9110 section 8.6).
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead, buf: &[u8], add: &ResponseAdditions<'_>) {
    out.reserve(head.len + 256);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {} ", head.status);
    out.extend_from_slice(head.reason(buf));
    out.extend_from_slice(b"\r\n");
    let edits = add.edits;
    let mut dated = false;
    let mut has_hsts = edits.is_some_and(|edits| edits.fields.sets_hsts());
    let moved = edits.and_then(|edits| Some((edits, edits.moved?)));
    let replaced: &[&str] = if moved.is_some() { &LOCATIONS } else { &[] };
    copy_fields(out, buf, (&head.index.0, edits, replaced), |kind| {
        dated |= kind == Kind::Date;
        has_hsts |= kind == Kind::StrictTransportSecurity;
        kind.stays_in_answers()
    });
    if let Some((edits, moved)) = moved {
        write_locations(out, head, buf, &edits, &moved);
    }
    if head.is_final() {
        if let Some(edits) = edits {
            edits.write(out);
        }
        if let Some(date) = add.date.filter(|_| !dated) {
            write_field(out, b"Date: ", date.as_bytes());
        }
        if let Some(hsts) = add.hsts.filter(|_| !has_hsts) {
            write_field(out, b"Strict-Transport-Security: ", hsts.as_bytes());
        }
        if let Some(cookie) = add.set_cookie {
            write_field(out, b"Set-Cookie: ", cookie);
        }
    }
    if head.status >= 200 {
        write_framing(out, head, add);
    }
    if add.client < Version::Http2 {
        write_connection(out, head, add);
    }
    if let Some(version) = add.version {
        write_field(out, b"x-rollgate-version: ", version.as_bytes());
    }
    if add.via {
        write_via(out, head.version);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_framing(out: &mut Vec<u8>, head: &ResponseHead, add: &ResponseAdditions<'_>) {
    match add.framing {
        Framing::Length(length) => write_length(out, length),
        Framing::Chunked if add.client < Version::Http2 => out.extend_from_slice(CHUNKED),
        // RFC 9110 section 8.6: none in a 204.
        Framing::None if head.status != 204 => {
            if let Some(length) = head.content_length {
                write_length(out, length);
            }
        }
        Framing::None | Framing::Chunked | Framing::UntilClose => {}
    }
}

fn write_connection(out: &mut Vec<u8>, head: &ResponseHead, add: &ResponseAdditions<'_>) {
    let close = add.close || add.framing == Framing::UntilClose;
    // RFC 9110 section 15.5.22: a 426 must say what to upgrade to.
    let offers = matches!(head.status, 101 | 426) && !head.offered.is_empty();
    out.extend_from_slice(match head.status {
        _ if offers && close => b"Connection: close, Upgrade\r\n",
        _ if offers => b"Connection: Upgrade\r\n",
        100..200 => b"",
        _ if close => b"Connection: close\r\n",
        _ if add.client == Version::Http10 && add.keep_alive_10 => b"Connection: keep-alive\r\n",
        _ => b"",
    });
    if offers {
        add.upgrading.write(out, head.offered);
    }
}

const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

/// Copies the lines whose kind is kept, that no rule removes, and that are none of those written anew (lowercase). Neighbours that are already written as we would are copied
/// in one piece.
fn copy_fields(
    out: &mut Vec<u8>,
    buf: &[u8],
    (fields, edits, replaced): (&[Field], Option<Edits<'_>>, &[&str]),
    mut keep: impl FnMut(Kind) -> bool,
) {
    let mut run = 0usize..0;
    for field in fields.iter() {
        let name = slice(buf, field.name);
        let gone = edits.is_some_and(|edits| edits.fields.removes(name))
            || replaced.iter().any(|known| is_field_name(name, known.as_bytes()));
        if gone || !keep(field.kind) {
            continue;
        }
        if !field.canonical {
            out.extend_from_slice(buf.get(std::mem::take(&mut run)).unwrap_or_default());
            out.extend_from_slice(slice(buf, field.name));
            write_field(out, b": ", slice(buf, field.value));
            continue;
        }
        let line = field.name.start()..field.value.end() + 2;
        if line.start == run.end {
            run.end = line.end;
            continue;
        }
        out.extend_from_slice(buf.get(run).unwrap_or_default());
        run = line;
    }
    out.extend_from_slice(buf.get(run).unwrap_or_default());
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "Content-Length: {length}\r\n");
}

/// The version in `Via` is that of the message received (RFC 9110 section 7.6.3).
fn write_via(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(b"Via: ");
    out.extend_from_slice(version.number().as_bytes());
    out.push(b' ');
    out.extend_from_slice(VIA_NAME.as_bytes());
    out.extend_from_slice(b"\r\n");
}
