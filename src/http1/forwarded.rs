//! What a proxy tells the upstream of the client: `X-Forwarded-*`, `Forwarded` (RFC 7239), request id, trace context.

use super::chain::{address_of, forwarded_for};
use super::field::Kind;
use super::head::slice;
use super::rewrite::RequestAdditions;
use super::{RequestHead, is_token};
use std::io::Write;
use std::net::IpAddr;

/// Longest request id that is kept, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// A hop without an address (RFC 7239 section 6.2), in both kinds of fields.
const UNKNOWN: &[u8] = b"unknown";

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

    /// The entries of a list over all fields of this kind, without empty ones.
    fn entries<'b>(&self, buf: &'b [u8], kind: Kind) -> impl Iterator<Item = &'b str> {
        let entries = self
            .values(buf, kind)
            .flat_map(|value| value.split(|&byte| byte == b','));
        let entries = entries.map(|entry| str::from_utf8(entry).unwrap_or("?").trim());
        entries.filter(|entry| !entry.is_empty())
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

/// Writes the fields of this module, those of trusted peers continued. Where such a peer speaks `Forwarded` alone, or
/// `X-Forwarded-*` alone, the others say the same.
pub(super) fn write(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], add: &RequestAdditions<'_>) {
    let client = add.client_ip.to_canonical();
    out.extend_from_slice(b"X-Forwarded-For: ");
    if add.peer_trusted {
        write_chain(out, head, buf, add.chain.is_forwarded);
    }
    write_ip(out, client);
    out.extend_from_slice(b"\r\n");
    // One value, the one that decided here: what reads a list may take another of it.
    line(
        out,
        b"X-Forwarded-Proto: ",
        scheme(add.chain.https.unwrap_or(add.https)),
    );
    let authority = head.authority(buf);
    if !(add.peer_trusted && head.has(Kind::XForwardedHost)) {
        let fields = head.fields(buf);
        let told = add.peer_trusted.then(|| add.chain.forwarded_host(&fields)).flatten();
        let host = told.unwrap_or(authority);
        if !host.is_empty() {
            line(out, b"X-Forwarded-Host: ", host.as_bytes());
        }
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

/// The hops before a trusted peer, each with a comma behind; of `Forwarded` where they were told by that.
fn write_chain(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], is_forwarded: bool) {
    if !is_forwarded {
        for value in head.values(buf, Kind::XForwardedFor) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        return;
    }
    for element in head.entries(buf, Kind::Forwarded) {
        match forwarded_for(element) {
            Some(address) => write_ip(out, address),
            None => out.extend_from_slice(UNKNOWN),
        }
        out.extend_from_slice(b", ");
    }
}

fn scheme(https: bool) -> &'static [u8] {
    if https { b"https" } else { b"http" }
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
    if add.peer_trusted {
        write_elements(out, head, buf, add);
    }
    write_for(out, Some(client));
    if !authority.is_empty() {
        let quote: &[u8] = if is_token(authority.as_bytes()) { b"" } else { b"\"" };
        out.extend_from_slice(b";host=");
        out.extend_from_slice(quote);
        out.extend_from_slice(authority.as_bytes());
        out.extend_from_slice(quote);
    }
    line(out, b";proto=", scheme(add.https));
}

/// The hops before a trusted peer, likewise. Of a chain in `X-Forwarded-For` the client's element has the client's scheme.
fn write_elements(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], add: &RequestAdditions<'_>) {
    if head.has(Kind::Forwarded) {
        for value in head.values(buf, Kind::Forwarded) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        return;
    }
    let count = head.entries(buf, Kind::XForwardedFor).count();
    for (index, entry) in head.entries(buf, Kind::XForwardedFor).enumerate() {
        write_for(out, address_of(entry));
        if let Some(https) = add.chain.https.filter(|_| add.chain.is_client(index, count)) {
            out.extend_from_slice(b";proto=");
            out.extend_from_slice(scheme(https));
        }
        out.extend_from_slice(b", ");
    }
}

/// An IPv6 address is quoted for its colons and brackets (RFC 7239 section 6).
fn write_for(out: &mut Vec<u8>, node: Option<IpAddr>) {
    // Writing to a Vec cannot fail.
    let _ = match node {
        Some(IpAddr::V4(v4)) => write!(out, "for={v4}"),
        Some(IpAddr::V6(v6)) => write!(out, "for=\"[{v6}]\""),
        None => out.write_all(b"for=").and_then(|()| out.write_all(UNKNOWN)),
    };
}

fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{ip}");
}
