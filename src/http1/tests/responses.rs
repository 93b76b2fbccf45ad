//! Answers: how their bodies are framed, and what makes them unusable.

use super::*;

#[track_caller]
fn read(bytes: &[u8], method: MethodKind) -> ResponseHead {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    match response(bytes, method, false) {
        Ok(Some(head)) => head,
        other => panic!("{shown:?}: {other:?}"),
    }
}

#[track_caller]
fn refused(bytes: &[u8], error: HeadError) {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(response(bytes, MethodKind::Get, false).err(), Some(error), "{shown:?}");
}

fn of(status: &str, lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{lines}\r\n").into_bytes()
}

#[test]
fn an_answer_reads_as_sent() {
    let buf = b"HTTP/1.1 404 Not  Found\xe9\r\nServer: x\r\nContent-Length: 9\r\n\r\nrest of it";
    let head = read(buf, MethodKind::Get);
    assert_eq!(
        (head.len, head.status, head.version),
        (buf.len() - 10, 404, Version::Http11)
    );
    assert_eq!(head.reason(buf), b"Not  Found\xe9");
    assert_eq!(
        (head.body, head.keep_alive, head.is_interim()),
        (ResponseBody::Length(9), true, false)
    );
    let fields: Vec<_> = head.fields(buf).collect();
    assert_eq!(fields, [("Server", &b"x"[..]), ("Content-Length", b"9")]);
}

#[test]
fn bodies() {
    use MethodKind::{Get, Head};
    use ResponseBody::*;
    let table: &[(&str, &str, MethodKind, ResponseBody)] = &[
        ("200 OK", "Content-Length: 0\r\n", Get, Length(0)),
        ("200 OK", "Content-Length: 7\r\n", Get, Length(7)),
        ("200 OK", "Transfer-Encoding: chunked\r\n", Get, Chunked),
        ("200 OK", "", Get, UntilClose),
        ("500 ", "", Get, UntilClose),
        ("205 ", "Content-Length: 0\r\n", Get, Length(0)),
        ("200 OK", "Content-Length: 7\r\n", Head, None),
        ("200 OK", "Transfer-Encoding: chunked\r\n", Head, None),
        ("200 OK", "", Head, None),
        ("304 Not Modified", "Content-Length: 7\r\n", Get, None),
        ("304 Not Modified", "Transfer-Encoding: chunked\r\n", Get, None),
        ("304 Not Modified", "", Get, None),
        ("204 No Content", "", Get, None),
        ("204 No Content", "Content-Length: 0\r\n", Get, None),
        ("100 Continue", "", Get, None),
        ("103 Early Hints", "Link: </a>\r\n", Get, None),
    ];
    for (status, lines, method, body) in table {
        let head = read(&of(status, lines), *method);
        assert_eq!(head.body, *body, "{status} {lines}");
        assert_eq!(head.keep_alive, *body != UntilClose, "{status} {lines}");
        assert_eq!(head.is_interim(), head.status < 200);
    }
    assert_eq!(
        read(&of("200 OK", "Content-Length: 7\r\n"), Head).content_length,
        Some(7)
    );
}

#[test]
fn bodies_that_may_not_be() {
    for status in ["100 Continue", "103 Early Hints", "204 No Content"] {
        refused(&of(status, "Content-Length: 7\r\n"), HeadError::BodyForbidden);
        refused(&of(status, "Transfer-Encoding: chunked\r\n"), HeadError::BodyForbidden);
    }
}

#[test]
fn framing_that_two_parsers_may_read_differently() {
    use HeadError::*;
    let table = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndCoding),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", ContentLengthRepeated),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", ContentLengthRepeated),
        ("Content-Length: 5, 5\r\n", ContentLength),
        ("Content-Length: +5\r\n", ContentLength),
        ("Content-Length: -1\r\n", ContentLength),
        ("Content-Length:\r\n", ContentLength),
        ("Transfer-Encoding: gzip\r\n", TransferEncoding),
        ("Transfer-Encoding: gzip, chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked, chunked\r\n", TransferEncoding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            TransferEncoding,
        ),
        ("Transfer-Encoding: zip, chunked\r\n", UnknownCoding),
        (
            "Connection: content-length\r\nContent-Length: 5\r\n",
            NominatedEssential,
        ),
        ("Connection: transfer-encoding\r\n", NominatedEssential),
        ("Connection: a,b,c,d,e,f,g,h,i,j\r\n", TooManyNominations),
        ("Connection: a b\r\n", Connection),
    ];
    for (lines, error) in table {
        refused(&of("200 OK", lines), error);
        // What cannot be understood is refused where it would not matter, too.
        let head = response(&of("304 Not Modified", lines), MethodKind::Head, false);
        assert_eq!(head.err(), Some(error), "{lines}");
    }
    refused(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CodingOnHttp10);
}

#[test]
fn bad_heads_are_refused() {
    use HeadError::*;
    let table: &[(&[u8], HeadError)] = &[
        (b"HTTP/1.1 200 OK\nA: b\r\n\r\n", BareLineFeed),
        (b"HTTP/1.1 200 OK\r\nA: b\n\r\n", BareLineFeed),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\n", BareLineFeed),
        (b"HTTP/1.1 200 OK\n\n", BareLineFeed),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", EmptyLines),
        (b"\nHTTP/1.1 200 OK\r\n\r\n", BareLineFeed),
        (b"HTTP/1.1 200 O\x00K\r\n\r\n", StatusLine),
        (b"HTTP/1.1 200 O\x7fK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 200 O\rK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 200OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1  200 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1\t200 OK\r\n\r\n", VersionMalformed),
        (b"HTTP/1.1 20 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 2000 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 +20 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1\r\n\r\n", VersionMalformed),
        (b"HTTP/1.1 \r\n\r\n", StatusLine),
        (b"HTTP/1.1 000 OK\r\n\r\n", Status),
        (b"HTTP/1.1 099 OK\r\n\r\n", Status),
        (b"HTTP/1.1 600 OK\r\n\r\n", Status),
        (b"HTTP/1.1 999 OK\r\n\r\n", Status),
        (b"HTTP/1.2 200 OK\r\n\r\n", VersionNotSupported),
        (b"HTTP/2.0 200 OK\r\n\r\n", VersionNotSupported),
        (b"http/1.1 200 OK\r\n\r\n", StatusLine),
        (b"ICY 200 OK\r\n\r\n", StatusLine),
        (b"<html>", StatusLine),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", FieldName),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", FieldName),
        (b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", FieldName),
        (b"HTTP/1.1 200 OK\r\n: b\r\n\r\n", FieldName),
        (b"HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", FieldValue),
        (b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", FieldValue),
    ];
    for (bytes, error) in table {
        refused(bytes, *error);
    }
}

#[test]
fn a_reason_may_be_missing() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 "] {
        let buf = format!("{line}\r\nContent-Length: 0\r\n\r\n").into_bytes();
        let head = read(&buf, MethodKind::Get);
        assert_eq!((head.status, head.reason(&buf)), (200, &b""[..]));
    }
    let buf = b"HTTP/1.1 200  \t x\r\n\r\n";
    assert_eq!(read(buf, MethodKind::Get).reason(buf), b" \t x");
}

#[test]
fn fields_that_mean_something_only_in_requests_are_let_be() {
    read(
        &of("200 OK", "Expect: x\r\nHost: a b\r\nHost: c\r\nMax-Forwards: x\r\n"),
        MethodKind::Get,
    );
}

#[test]
fn keep_alive() {
    let keep = |minor: u8, lines: &str| {
        let buf = format!("HTTP/1.{minor} 200 OK\r\nContent-Length: 0\r\n{lines}\r\n").into_bytes();
        read(&buf, MethodKind::Get).keep_alive
    };
    assert!(keep(1, ""));
    assert!(!keep(1, "Connection: close\r\n"));
    assert!(!keep(0, ""));
    assert!(keep(0, "Connection: keep-alive\r\n"));
    assert!(!keep(0, "Connection: keep-alive\r\nConnection: close\r\n"));
}

#[test]
fn web_socket_only_after_a_real_101() {
    let good = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let buf = of("101 Switching Protocols", good);
    let head = response(&buf, MethodKind::Get, true).unwrap().unwrap();
    assert!(head.web_socket && !head.keep_alive && !head.is_interim());
    assert_eq!(head.body, ResponseBody::None);
    refused(&buf, HeadError::Upgrade);
    for lines in [
        "",
        "Connection: Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, SPDY/3.1\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket/13\r\n",
        "Connection: Upgrade\r\nUpgrade: ,\r\n",
    ] {
        let buf = of("101 Switching Protocols", lines);
        assert_eq!(
            response(&buf, MethodKind::Get, true).err(),
            Some(HeadError::Upgrade),
            "{lines}"
        );
    }
    let old = b"HTTP/1.0 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(response(old, MethodKind::Get, true).err(), Some(HeadError::Upgrade));
    let buf = of("101 x", &format!("{good}Content-Length: 3\r\n"));
    assert_eq!(
        response(&buf, MethodKind::Get, true).err(),
        Some(HeadError::BodyForbidden)
    );
    let denied = response(&of("200 OK", good), MethodKind::Get, true).unwrap().unwrap();
    assert!(!denied.web_socket);
}

#[test]
fn a_101_changes_to_one_protocol_that_was_asked_for() {
    let to = |asked: &str, named: &str| {
        let buf = of("101 x", &format!("Connection: upgrade\r\nUpgrade: {named}\r\n"));
        let limits = HeadLimits::default();
        let head = parse_response(&buf, MethodKind::Get, upgrading(asked), &limits, &mut HeadParser::new());
        head.map(|head| head.unwrap().web_socket).ok()
    };
    assert_eq!(to("websocket, spdy/3.1", "WebSocket"), Some(true));
    assert_eq!(to("websocket, spdy/3.1", "spdy/3.1"), Some(false));
    assert_eq!(to("spdy/3.1", "Spdy/3.1"), Some(false));
    assert_eq!(to("spdy/3.1", "websocket"), None, "let through, and not asked for");
    assert_eq!(
        to("spdy/3.1, tcp", "tcp"),
        None,
        "asked for by the client, and not let through"
    );
    assert_eq!(to("", "websocket"), None);
}

#[test]
fn limits() {
    let limits = HeadLimits { bytes: 40, fields: 2 };
    let read = |bytes: &[u8]| {
        parse_response(
            bytes,
            MethodKind::Get,
            Upgrading::default(),
            &limits,
            &mut HeadParser::new(),
        )
        .map(|h| h.is_some())
    };
    assert_eq!(read(b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n"), Ok(true));
    assert_eq!(
        read(b"HTTP/1.1 200 OK\r\nA:\r\nB:\r\nC:\r\n\r\n"),
        Err(HeadError::TooManyFields)
    );
    assert_eq!(
        read(b"HTTP/1.1 200 OK\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n\r\n"),
        Err(HeadError::HeadTooLarge)
    );
    assert_eq!(read(b"HTTP/1.1 200 OK\r\nA: bbbb"), Ok(false));
}
