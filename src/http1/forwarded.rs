//! What a proxy tells the upstream of the client: `X-Forwarded-*`, `Forwarded` (RFC 7239), request id, trace context.

use super::field::Kind;
use super::head::slice;
use super::rewrite::RequestAdditions;
use super::{RequestHead, is_token};
use std::io::Write;
use std::net::IpAddr;

/// Longest request id that is kept, in bytes.
const MAX_REQUEST_ID: usize = 128;

impl RequestHead {
    /// The request id that a trusted peer sent: one `x-request-id` of 1 to 128 of `[A-Za-z0-9._-]`. From others it is
    /// never kept (as Envoy does at the edge): a client could make two requests look like one in the logs.
    pub fn request_id<'b>(&self, buf: &'b [u8], peer_trusted: bool) -> Option<&'b str> {
        let id = self.single(buf, Kind::RequestId).filter(|_| peer_trusted)?;
        let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let accepted = (1..=MAX_REQUEST_ID).contains(&id.len()) && id.iter().all(good);
        std::str::from_utf8(id).ok().filter(|_| accepted)
    }

    /// The `traceparent` sent, if there is one and W3C Trace Context (section 3.2) accepts it.
    pub fn traceparent<'b>(&self, buf: &'b [u8]) -> Option<&'b str> {
        let value = self.single(buf, Kind::Traceparent)?;
        std::str::from_utf8(value).ok().filter(|_| is_traceparent(value))
    }

    /// The value of the only field of this kind.
    fn single<'b>(&self, buf: &'b [u8], kind: Kind) -> Option<&'b [u8]> {
        if !self.has(kind) {
            return None;
        }
        let mut found = self.index.0.iter().filter(|f| f.kind == kind);
        let first = found.next()?;
        found.next().is_none().then(|| slice(buf, first.value))
    }

    /// The values of all fields of this kind, without empty ones.
    fn values<'b>(&self, buf: &'b [u8], kind: Kind) -> impl Iterator<Item = &'b [u8]> {
        self.index
            .0
            .iter()
            .filter(move |f| f.kind == kind)
            .map(move |f| slice(buf, f.value))
            .filter(|v| !v.is_empty())
    }
}

/// `version-traceid-parentid-flags` in lowercase hexadecimal; version 00 has nothing behind it, a later one may, ff is
/// invalid, and so are ids of zeros only.
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: Option<&[u8]>| part.is_some_and(|p| p.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    let zero = |part: Option<&[u8]>| part.is_some_and(|p| p.iter().all(|&b| b == b'0'));
    let dash = |at: usize| value.get(at) == Some(&b'-');
    let (version, trace, parent, flags) = (value.get(..2), value.get(3..35), value.get(36..52), value.get(53..55));
    let length = match version {
        Some(b"00") => value.len() == 55,
        _ => value.len() == 55 || dash(55),
    };
    length
        && hex(version)
        && version != Some(b"ff")
        && dash(2)
        && hex(trace)
        && !zero(trace)
        && dash(35)
        && hex(parent)
        && !zero(parent)
        && dash(52)
        && hex(flags)
}

/// Writes the fields of this module, those of trusted peers continued.
pub(super) fn write(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], add: &RequestAdditions<'_>) {
    let client = add.client_ip.to_canonical();
    out.extend_from_slice(b"X-Forwarded-For: ");
    if add.peer_trusted && head.has(Kind::XForwardedFor) {
        for value in head.values(buf, Kind::XForwardedFor) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    write_ip(out, client);
    out.extend_from_slice(b"\r\n");
    if !(add.peer_trusted && head.has(Kind::XForwardedProto)) {
        out.extend_from_slice(if add.https {
            b"X-Forwarded-Proto: https\r\n"
        } else {
            b"X-Forwarded-Proto: http\r\n"
        });
    }
    let authority = head.authority(buf);
    let told = add.peer_trusted && head.has(Kind::XForwardedHost);
    if !told && !authority.is_empty() {
        line(out, b"X-Forwarded-Host: ", authority.as_bytes());
    }
    if add.forwarded {
        write_forwarded(out, head, buf, add, client, authority);
    }
    if head.request_id(buf, add.peer_trusted).is_none() {
        line(out, b"x-request-id: ", add.request_id.as_bytes());
    }
    if head.traceparent(buf).is_none() {
        line(out, b"traceparent: ", add.traceparent.as_bytes());
    }
    line(out, b"x-rollgate-version: ", add.version.as_bytes());
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_forwarded(
    out: &mut Vec<u8>,
    head: &RequestHead,
    buf: &[u8],
    add: &RequestAdditions<'_>,
    client: IpAddr,
    authority: &str,
) {
    out.extend_from_slice(b"Forwarded: ");
    if add.peer_trusted && head.has(Kind::Forwarded) {
        for value in head.values(buf, Kind::Forwarded) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    // An IPv6 address is quoted for its colons and brackets (RFC 7239 section 6).
    let quote: &[u8] = if client.is_ipv6() { b"\"" } else { b"" };
    let bracket = |b: &'static [u8]| -> &'static [u8] { if client.is_ipv6() { b } else { b"" } };
    out.extend_from_slice(b"for=");
    out.extend_from_slice(quote);
    out.extend_from_slice(bracket(b"["));
    write_ip(out, client);
    out.extend_from_slice(bracket(b"]"));
    out.extend_from_slice(quote);
    if !authority.is_empty() {
        let quote: &[u8] = if is_token(authority.as_bytes()) { b"" } else { b"\"" };
        out.extend_from_slice(b";host=");
        out.extend_from_slice(quote);
        out.extend_from_slice(authority.as_bytes());
        out.extend_from_slice(quote);
    }
    out.extend_from_slice(if add.https {
        b";proto=https\r\n"
    } else {
        b";proto=http\r\n"
    });
}

fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{ip}");
}
