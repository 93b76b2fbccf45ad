//! The fields of a request that decide its framing, its host and its connection.

use super::*;

#[test]
fn lengths() {
    for (value, body) in [
        ("0", RequestBody::Length(0)),
        ("5", RequestBody::Length(5)),
        ("005", RequestBody::Length(5)),
        (" 5 ", RequestBody::Length(5)),
        ("9223372036854775807", RequestBody::Length(i64::MAX as u64)),
    ] {
        assert_eq!(
            accepted(&with(&format!("Content-Length:{value}\r\n"))).body,
            body,
            "{value}"
        );
    }
    for value in [
        "",
        "+5",
        "-5",
        "5 5",
        "5, 5",
        "5,",
        "0x5",
        "5.0",
        "1e3",
        "five",
        "\u{0665}",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999999",
        "00000000000000000005",
        "\"5\"",
        "5;",
    ] {
        refused(
            &with(&format!("Content-Length: {value}\r\n")),
            HeadError::ContentLength,
            400,
        );
    }
    let twice = "Content-Length: 5\r\nX: y\r\nContent-Length: 5\r\n";
    refused(&with(twice), HeadError::ContentLengthRepeated, 400);
    refused(
        &with("Content-Length: 5\r\ncontent-length: 6\r\n"),
        HeadError::ContentLengthRepeated,
        400,
    );
}

#[test]
fn transfer_codings() {
    for value in ["chunked", "Chunked", " CHUNKED "] {
        let head = accepted(&with(&format!("Transfer-Encoding:{value}\r\n")));
        assert_eq!(head.body, RequestBody::Chunked);
    }
    for value in [
        "",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked, gzip",
        "identity",
        "identity, chunked",
        "x",
        "xchunked",
        "chunked;q=1",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "chunk ed",
        "chunked x",
        "x, chunked, chunked",
        "x, gzip",
        "x, chunked, x",
        "deflate,chunked",
        "chunked\u{a0}",
    ] {
        refused(
            &with(&format!("Transfer-Encoding: {value}\r\n")),
            HeadError::TransferEncoding,
            400,
        );
    }
    for value in ["x, chunked", "br,chunked", "gzip, zstd, chunked"] {
        refused(
            &with(&format!("Transfer-Encoding: {value}\r\n")),
            HeadError::UnknownCoding,
            400,
        );
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    refused(&with(twice), HeadError::TransferEncoding, 400);
    refused(
        &with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
        HeadError::TransferEncoding,
        400,
    );
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
    ] {
        refused(&with(lines), HeadError::LengthAndCoding, 400);
    }
    let old = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(old, HeadError::CodingOnHttp10, 400);
}

#[test]
fn hosts() {
    for (value, host) in [
        ("a", "a"),
        ("A-b.c_d~e.", "A-b.c_d~e."),
        ("a:80", "a"),
        ("a:", "a"),
        ("a:65535", "a"),
        ("192.0.2.1:8080", "192.0.2.1"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[::ffff:192.0.2.1]:443", "[::ffff:192.0.2.1]"),
    ] {
        let buf = format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n").into_bytes();
        let head = accepted(&buf);
        assert_eq!((head.host(&buf), head.authority(&buf)), (host, value));
    }
    for value in [
        "",
        "a b",
        "a,b",
        "a, a",
        "u@a",
        "u:p@a",
        "a:b",
        "a:-1",
        "a:65536",
        "a:123456",
        "a:80:80",
        ":80",
        "a/",
        "a?x",
        "a#x",
        "a\\b",
        "a%41",
        "[::1",
        "::1",
        "[::1]x",
        "[]",
        "[fe80::1%25eth0]",
        "[v1.x]",
        "\u{e9}",
        "\"a\"",
        "a;b",
        "a\tb",
        "a'b",
        "http://a",
        "a:+80",
    ] {
        let buf = format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n").into_bytes();
        refused(&buf, HeadError::HostInvalid, 400);
        if !value.contains(['/', '?', '#', ' ', '\t', '\u{e9}', '@']) {
            let buf = format!("GET http://{value}/ HTTP/1.0\r\n\r\n").into_bytes();
            refused(&buf, HeadError::HostInvalid, 400);
        }
    }
    refused(b"GET / HTTP/1.1\r\n\r\n", HeadError::HostMissing, 400);
    refused(b"GET http://a/ HTTP/1.1\r\n\r\n", HeadError::HostMissing, 400);
    refused(
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        HeadError::HostRepeated,
        400,
    );
    refused(
        b"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n",
        HeadError::HostRepeated,
        400,
    );
    let buf = b"GET / HTTP/1.0\r\n\r\n";
    assert_eq!(accepted(buf).host(buf), "");
    let buf = b"GET http://a:81/ HTTP/1.0\r\n\r\n";
    assert_eq!(accepted(buf).authority(buf), "a:81");
    let buf = b"GET http://a/ HTTP/1.1\r\nHost: A:80\r\n\r\n";
    assert_eq!(accepted(buf).authority(buf), "a");
}

#[test]
fn connection_options() {
    let keep = |minor: u8, lines: &str| {
        let buf = format!("GET / HTTP/1.{minor}\r\nHost: a\r\n{lines}\r\n").into_bytes();
        accepted(&buf).keep_alive
    };
    assert!(keep(1, ""));
    assert!(!keep(1, "Connection: close\r\n"));
    assert!(!keep(1, "Connection: keep-alive, Close\r\n"));
    assert!(!keep(1, "Connection: x\r\nConnection: close\r\n"));
    assert!(keep(1, "Connection: keep-alive, ,\r\n"));
    assert!(!keep(0, ""));
    assert!(keep(0, "Connection: Keep-Alive\r\n"));
    assert!(!keep(0, "Connection: Keep-Alive, close\r\n"));
    assert!(!keep(0, "Proxy-Connection: keep-alive\r\n"));
    for bad in ["a b", "a;b", "\"close\"", "close\u{e9}"] {
        refused(&with(&format!("Connection: {bad}\r\n")), HeadError::Connection, 400);
    }
    accepted(&with("Connection: a, b, c, d, e, f, g, h, i\r\n"));
    refused(
        &with("Connection: a, b, c, d, e, f, g, h, i, j\r\n"),
        HeadError::TooManyNominations,
        400,
    );
    refused(
        &with("Connection: a, a, a, a, a\r\nConnection: a, a, a, a, a\r\n"),
        HeadError::TooManyNominations,
        400,
    );
}

#[test]
fn essential_fields_may_not_be_nominated() {
    for name in [
        "Host",
        "content-length",
        "Content-Length",
        "Transfer-Encoding",
        "x-forwarded-for",
        "X-Forwarded-Host",
        "x-forwarded-anything",
        "Forwarded",
        "X-Real-IP",
        "Authorization",
        "Cookie",
        "Cache-Control",
        "Content-Type",
        "Expect",
        "Max-Forwards",
        "x-request-id",
        "traceparent",
        "x-rollgate-version",
        "Connection",
        "Via",
        "Content_Length",
        "sec-websocket-key",
        "Range",
    ] {
        refused(
            &with(&format!("Connection: close, {name}\r\n")),
            HeadError::NominatedEssential,
            400,
        );
    }
    for name in [
        "x-hop",
        "Keep-Alive",
        "Proxy-Authorization",
        "HTTP2-Settings",
        "TE",
        "Trailer",
    ] {
        accepted(&with(&format!("Connection: {name}\r\n")));
    }
}

#[test]
fn expectations() {
    let expects = |buf: &[u8]| accepted(buf).expect_continue;
    assert!(expects(&with("Expect: 100-continue\r\nContent-Length: 5\r\n")));
    assert!(expects(&with("expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n")));
    assert!(!expects(&with("Expect: 100-continue\r\n")));
    assert!(!expects(&with("Expect: 100-continue\r\nContent-Length: 0\r\n")));
    assert!(!expects(
        b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ));
    for value in ["200-ok", "", "100-continue, x", "100-continue;x"] {
        refused(&with(&format!("Expect: {value}\r\n")), HeadError::Expectation, 417);
    }
    refused(
        &with("Expect: 100-continue\r\nExpect: x\r\n"),
        HeadError::Expectation,
        417,
    );
}

#[test]
fn bodies_by_method() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "BREW"] {
        let buf = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").into_bytes();
        assert_eq!(accepted(&buf).body, RequestBody::Length(3));
    }
    let trace = |lines: &str| format!("TRACE / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes();
    refused(&trace("Content-Length: 3\r\n"), HeadError::TraceBody, 400);
    refused(&trace("Transfer-Encoding: chunked\r\n"), HeadError::TraceBody, 400);
    assert_eq!(accepted(&trace("Content-Length: 0\r\n")).body, RequestBody::Length(0));
}

#[test]
fn max_forwards_counts_for_options_and_trace() {
    let of = |method: &str, lines: &str| {
        request(format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes()).map(|h| h.unwrap().max_forwards)
    };
    assert_eq!(of("OPTIONS", "Max-Forwards: 0\r\n"), Ok(Some(0)));
    assert_eq!(of("TRACE", "Max-Forwards: 7\r\n"), Ok(Some(7)));
    assert_eq!(of("TRACE", ""), Ok(None));
    assert_eq!(of("GET", "Max-Forwards: x\r\n"), Ok(None));
    assert_eq!(of("OPTIONS", "Max-Forwards: -1\r\n"), Err(HeadError::MaxForwards));
    assert_eq!(
        of("OPTIONS", "Max-Forwards: 1\r\nMax-Forwards: 1\r\n"),
        Err(HeadError::MaxForwards)
    );
}

#[test]
fn web_socket_upgrades() {
    let asked = |line: &str, lines: &str| {
        let buf = format!("{line}\r\nHost: a\r\n{lines}\r\n").into_bytes();
        accepted(&buf).upgrading(&buf, allowed()).is_asked()
    };
    const KEY: &str = HANDSHAKE;
    let both = format!("Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n{KEY}");
    assert!(asked("GET /ws HTTP/1.1", &both));
    assert!(!asked("GET /ws HTTP/1.0", &both));
    assert!(!asked("POST /ws HTTP/1.1", &both));
    assert!(!asked("GET /ws HTTP/1.1", &format!("{both}Content-Length: 0\r\n")));
    assert!(!asked(
        "GET /ws HTTP/1.1",
        &format!("{both}Transfer-Encoding: chunked\r\n")
    ));
    assert!(asked("GET /ws HTTP/1.1", &format!("{both}Upgrade: websocket, h2c\r\n")));
    assert!(!asked(
        "GET /ws HTTP/1.1",
        &format!("{both}Sec-WebSocket-Version: 13\r\n")
    ));
    assert!(!asked("GET /ws HTTP/1.1", &format!("Upgrade: websocket\r\n{KEY}")));
    assert!(!asked("GET /ws HTTP/1.1", &format!("Connection: Upgrade\r\n{KEY}")));
    assert!(!asked(
        "GET /ws HTTP/1.1",
        &format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{KEY}")
    ));
    assert!(!asked(
        "GET /ws HTTP/1.1",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    ));
    let short = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\nSec-WebSocket-Version: 13\r\n";
    assert!(!asked("GET /ws HTTP/1.1", short));
}

#[test]
fn other_upgrades() {
    let asked = |line: &str, lines: &str| {
        let buf = format!("{line}\r\nHost: a\r\nConnection: upgrade\r\n{lines}\r\n").into_bytes();
        let head = accepted(&buf);
        let mut out = Vec::new();
        let upgrading = head.upgrading(&buf, allowed());
        upgrading.write_asked(&mut out);
        (upgrading.is_asked(), String::from_utf8(out).unwrap())
    };
    let spdy = (true, "Upgrade: SPDY/3.1\r\n".to_owned());
    let nothing = (false, "\r\n".to_owned());
    assert_eq!(
        asked("POST / HTTP/1.1", "Content-Length: 3\r\nUpgrade: spdy/3.1\r\n"),
        spdy
    );
    assert_eq!(
        asked("GET / HTTP/1.1", "Upgrade: tcp, h2c\r\nUpgrade: ,spdy/3.1 ,\r\n"),
        spdy
    );
    // No handshake of WebSocket.
    assert_eq!(asked("GET / HTTP/1.1", "Upgrade: websocket, spdy/3.1\r\n"), spdy);
    assert_eq!(asked("GET / HTTP/1.0", "Upgrade: spdy/3.1\r\n"), nothing);
    for other in [
        "spdy",
        "spdy/3",
        "spdy/3.10",
        "spdy /3.1",
        "spdy/3.1;q=1",
        "\"spdy/3.1\"",
        "",
    ] {
        assert_eq!(
            asked("GET / HTTP/1.1", &format!("Upgrade: {other}\r\n")),
            nothing,
            "{other}"
        );
    }
    let both = (true, "Upgrade: websocket, SPDY/3.1\r\n".to_owned());
    assert_eq!(
        asked(
            "GET / HTTP/1.1",
            &format!("Upgrade: spdy/3.1, websocket\r\n{HANDSHAKE}")
        ),
        both
    );
}
