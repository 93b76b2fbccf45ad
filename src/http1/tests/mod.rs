//! Tests of the room as a whole: tables of what is accepted and refused, properties over generated and mutated input.

mod chunks;
mod edits;
mod properties;
mod request_fields;
mod requests;
mod responses;
mod rewriting;
mod trailers;

use super::*;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

/// Reads a complete request head with the default limits.
fn request(bytes: &[u8]) -> Result<Option<RequestHead>, HeadError> {
    parse_request(bytes, &HeadLimits::default(), &mut HeadParser::new())
}

/// Reads a complete answer head with the default limits.
fn response(bytes: &[u8], method: MethodKind, upgrade: bool) -> Result<Option<ResponseHead>, HeadError> {
    let upgrading = upgrading(if upgrade { "websocket, spdy/3.1" } else { "" });
    parse_response(bytes, method, upgrading, &HeadLimits::default(), &mut HeadParser::new())
}

/// A good handshake of WebSocket, but for `Upgrade`.
const HANDSHAKE: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// What is let through.
fn allowed() -> &'static [Box<str>] {
    static ALLOWED: LazyLock<[Box<str>; 2]> = LazyLock::new(|| ["websocket".into(), "SPDY/3.1".into()]);
    &*ALLOWED
}

/// What a request asks for whose `Upgrade` says this.
fn upgrading(protocols: &str) -> Upgrading<'static> {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {protocols}\r\n{HANDSHAKE}\r\n");
    accepted(head.as_bytes()).upgrading(head.as_bytes(), allowed())
}

/// A head in HTTP/1.1 with a good Host, and these lines.
fn with(lines: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n").into_bytes()
}

#[track_caller]
fn refused(bytes: &[u8], error: HeadError, status: u16) {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(request(bytes).err(), Some(error), "{shown:?}");
    assert_eq!(error.status().status(), status, "{shown:?}");
}

#[track_caller]
fn accepted(bytes: &[u8]) -> RequestHead {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    match request(bytes) {
        Ok(Some(head)) => head,
        other => panic!("{shown:?}: {other:?}"),
    }
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What the proxy adds for an untrusted IPv4 client over plain HTTP.
fn additions() -> RequestAdditions<'static> {
    RequestAdditions {
        to: Version::Http11,
        client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        peer_trusted: false,
        chain: Chain::default(),
        https: false,
        forwarded: false,
        via: true,
        request_id: "fresh-id",
        traceparent: TRACE,
        version: "v2",
        default_host: "listener:8080",
        upgrading: Upgrading::default(),
        rewrite: None,
    }
}

fn response_additions(framing: Framing) -> ResponseAdditions<'static> {
    ResponseAdditions {
        client: Version::Http11,
        close: false,
        keep_alive_10: false,
        set_cookie: None,
        version: None,
        framing,
        date: None,
        hsts: None,
        via: true,
        upgrading: upgrading(""),
        edits: None,
    }
}

/// `Name: value` lines of a head, without the first line.
fn lines(head: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(head).into_owned();
    text.trim_end().split("\r\n").skip(1).map(str::to_owned).collect()
}

/// All that a request head says, for comparison.
fn describe(head: &RequestHead, buf: &[u8]) -> String {
    let fields: Vec<_> = head
        .fields(buf)
        .map(|(n, v)| (n.to_owned(), String::from_utf8_lossy(v).into_owned()))
        .collect();
    format!(
        "{} {:?} {:?} {:?} {:?} {} {:?} {} {} {} {} {} {:?} {fields:?}",
        head.len,
        head.method(buf),
        head.target(buf),
        (head.authority(buf), head.host(buf)),
        (head.path(buf), head.query(buf)),
        head.version.as_str(),
        head.body,
        head.keep_alive,
        head.expect_continue,
        head.upgrade,
        head.method_kind.as_str(),
        head.te_trailers,
        head.max_forwards,
    )
}

/// All that an answer head says, for comparison.
fn describe_response(head: &ResponseHead, buf: &[u8]) -> String {
    let fields: Vec<_> = head
        .fields(buf)
        .map(|(n, v)| (n.to_owned(), String::from_utf8_lossy(v).into_owned()))
        .collect();
    format!(
        "{} {} {:?} {} {:?} {} {} {:?} {fields:?}",
        head.len,
        head.status,
        String::from_utf8_lossy(head.reason(buf)),
        head.version.as_str(),
        head.body,
        head.keep_alive,
        head.web_socket,
        head.content_length,
    )
}

#[test]
fn a_method_is_known_as_soon_as_it_is_there() {
    for (text, method) in [
        ("HEAD /../ HTTP/1.1\r\n", MethodKind::Head),
        ("\r\nHEAD ", MethodKind::Head),
        ("HEAD", MethodKind::Other),
        ("head / HTTP/1.1\r\n", MethodKind::Other),
        (" HEAD / HTTP/1.1\r\n", MethodKind::Other),
        ("GET /HEAD HTTP/1.1\r\n", MethodKind::Get),
        ("", MethodKind::Other),
    ] {
        assert_eq!(MethodKind::begun_in(text.as_bytes()), method, "{text:?}");
    }
}
