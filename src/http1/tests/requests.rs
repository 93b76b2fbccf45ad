//! Requests: what is accepted, how it reads, and what is refused with which status.

use super::*;
use crate::routing::HeaderFields;
use crate::routing::PathFault;

#[test]
fn a_browser_request_reads_as_sent() {
    let buf = b"GET /shop/cart?id=7&x=%20 HTTP/1.1\r\nHost: Shop.Example:8080\r\nCookie: a=1\r\nX-A:  two words \t\r\ncookie: b=2\r\nX-Empty:\r\nX-Obs: caf\xe9\r\n\r\nrest";
    let head = accepted(buf);
    assert_eq!(head.len, buf.len() - 4);
    assert_eq!(head.method(buf), "GET");
    assert_eq!(
        (head.host(buf), head.authority(buf)),
        ("Shop.Example", "Shop.Example:8080")
    );
    assert_eq!((head.path(buf), head.query(buf)), ("/shop/cart", "id=7&x=%20"));
    assert_eq!(head.target(buf), "/shop/cart?id=7&x=%20");
    assert_eq!(
        (head.version, head.body, head.keep_alive),
        (Version::Http11, RequestBody::None, true)
    );
    let fields = head.fields(buf);
    assert_eq!(fields.nth("cookie", 0), Some(&b"a=1"[..]));
    assert_eq!(fields.nth("cookie", 1), Some(&b"b=2"[..]));
    assert_eq!(fields.nth("cookie", 2), None);
    assert_eq!(fields.nth("x-a", 0), Some(&b"two words"[..]));
    assert_eq!(fields.nth("x-empty", 0), Some(&b""[..]));
    assert_eq!(fields.nth("x-obs", 0), Some(&b"caf\xe9"[..]));
    assert_eq!(fields.nth("accept", 0), None);
    let names: Vec<_> = head.fields(buf).map(|(n, _)| n).collect();
    assert_eq!(names, ["Host", "Cookie", "X-A", "cookie", "X-Empty", "X-Obs"]);
}

#[test]
fn another_buffer_reads_as_empty_and_never_panics() {
    let buf = b"GET /p?q HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = accepted(buf);
    assert_eq!((head.method(b""), head.host(b""), head.query(b"")), ("", "", ""));
    assert!(head.fields(b"").all(|(n, v)| n.is_empty() && v.is_empty()));
    let mut out = Vec::new();
    write_request(&mut out, &head, b"", &additions());
}

#[test]
fn targets_are_taken_apart() {
    // (request line without version, host, path, query)
    let table = [
        ("GET /", "a.example", "/", ""),
        ("GET /?", "a.example", "/", ""),
        ("GET /?a=b?c", "a.example", "/", "a=b?c"),
        ("GET //x//y", "a.example", "//x//y", ""),
        ("GET /%2e%61/|{}\"<>^`", "a.example", "/%2e%61/|{}\"<>^`", ""),
        ("GET http://a.example", "a.example", "/", ""),
        ("GET http://a.example/x?y", "a.example", "/x", "y"),
        ("GET HTTP://A.example?y", "A.example", "/", "y"),
        ("GET http://a.example:80/x", "a.example", "/x", ""),
        ("GET http://a.example:/x", "a.example", "/x", ""),
        ("OPTIONS *", "a.example", "*", ""),
        ("OPTIONS http://a.example", "a.example", "*", ""),
        ("OPTIONS http://a.example/", "a.example", "/", ""),
        ("GET //a/%7e?%zz/../\\", "a.example", "//a/%7e", "%zz/../\\"),
        ("OPTIONS http://a.example?q", "a.example", "/", "q"),
        ("BREW /pot", "a.example", "/pot", ""),
    ];
    for (line, host, path, query) in table {
        let buf = format!("{line} HTTP/1.1\r\nHost: a.example\r\n\r\n").into_bytes();
        let head = accepted(&buf);
        if line == "OPTIONS http://a.example?q" {
            assert_eq!(head.path(&buf), "/", "{line}");
        }
        assert_eq!(
            (head.host(&buf), head.path(&buf), head.query(&buf)),
            (host, path, query),
            "{line}"
        );
    }
}

#[test]
fn bad_request_lines_are_refused() {
    use HeadError::*;
    let table: &[(&[u8], HeadError, u16)] = &[
        (b"GET /a#b HTTP/1.1", TargetByte, 400),
        (b"GET /\xc3\xa9 HTTP/1.1", TargetByte, 400),
        (b"GET /\xff HTTP/1.1", TargetByte, 400),
        (b"GET /\x7f HTTP/1.1", TargetByte, 400),
        (b"GET /\x00 HTTP/1.1", TargetByte, 400),
        (b"GET /\t HTTP/1.1", TargetByte, 400),
        (b"GET /\x0b HTTP/1.1", TargetByte, 400),
        (b"GET / \rHTTP/1.1", VersionMalformed, 400),
        (b"GET /\r HTTP/1.1", TargetByte, 400),
        (b"GET /a b HTTP/1.1", VersionMalformed, 400),
        (b"GET  / HTTP/1.1", RequestLine, 400),
        (b"GET /  HTTP/1.1", VersionMalformed, 400),
        (b"GET\t/ HTTP/1.1", Method, 400),
        (b"GET /\tHTTP/1.1", VersionMalformed, 400),
        (b" GET / HTTP/1.1", Method, 400),
        (b"GET / HTTP/1.1 ", VersionMalformed, 400),
        (b"G(T / HTTP/1.1", Method, 400),
        (b"\x16\x03\x01 / HTTP/1.1", Method, 400),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", Method, 400),
        (b"GET", RequestLine, 400),
        (b"GET /", VersionMalformed, 400),
        (b"GET / ", VersionMalformed, 400),
        (b"GET / HTTP/1", VersionMalformed, 400),
        (b"GET / HTTP/1.10", VersionMalformed, 400),
        (b"GET / HTTP/01.1", VersionMalformed, 400),
        (b"GET / http/1.1", VersionMalformed, 400),
        (b"GET / HTTPS/1.1", VersionMalformed, 400),
        (b"GET / HTTP/0.9", VersionNotSupported, 505),
        (b"GET / HTTP/1.2", VersionNotSupported, 505),
        (b"GET / HTTP/2.0", VersionNotSupported, 505),
        (b"PRI * HTTP/2.0", VersionNotSupported, 505),
        (b"GET /a/../b HTTP/1.1", Path(PathFault::DotSegment), 400),
        (
            b"GET http://a.example/%2e%2e?q HTTP/1.1",
            Path(PathFault::DotSegment),
            400,
        ),
        (b"GET /a\\b HTTP/1.1", Path(PathFault::Backslash), 400),
        (b"GET /%00 HTTP/1.1", Path(PathFault::Nul), 400),
        (b"GET /% HTTP/1.1", Path(PathFault::Escape), 400),
        (b"GET * HTTP/1.1", TargetForm, 400),
        (b"GET a.example HTTP/1.1", TargetForm, 400),
        (b"GET a.example:80 HTTP/1.1", TargetForm, 400),
        (b"GET ftp://a.example/ HTTP/1.1", TargetForm, 400),
        (b"GET http:/a.example/ HTTP/1.1", TargetForm, 400),
        (b"OPTIONS ** HTTP/1.1", TargetForm, 400),
        (b"GET http:///x HTTP/1.1", HostInvalid, 400),
        (b"GET http://u@a.example/x HTTP/1.1", HostInvalid, 400),
        (b"GET http://b.example/x HTTP/1.1", HostMismatch, 400),
        (b"GET http://a.example:81/x HTTP/1.1", HostMismatch, 400),
        (b"GET https://a.example:80/x HTTP/1.1", HostMismatch, 400),
        (b"CONNECT a.example:443 HTTP/1.1", Connect, 405),
        (b"CONNECT / HTTP/1.1", Connect, 405),
    ];
    for (line, error, status) in table {
        let buf = [*line, b"\r\nHost: a.example\r\n\r\n"].concat();
        refused(&buf, *error, *status);
    }
}

#[test]
fn line_ends_are_crlf_only() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    accepted(good.as_bytes());
    for at in good.match_indices("\r\n").map(|(at, _)| at) {
        let bare = format!("{}{}", &good[..at], &good[at + 1..]);
        refused(bare.as_bytes(), HeadError::BareLineFeed, 400);
    }
    refused(good.replace("\r\n", "\n").as_bytes(), HeadError::BareLineFeed, 400);
    refused(
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: 1\r\n\r\n",
        HeadError::FieldValue,
        400,
    );
    refused(
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n",
        HeadError::FieldValue,
        400,
    );
    refused(
        b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n",
        HeadError::BareCarriageReturn,
        400,
    );
    refused(b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", HeadError::VersionMalformed, 400);
}

#[test]
fn one_empty_line_may_come_first() {
    let buf = b"\r\nGET /p HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = accepted(buf);
    assert_eq!((head.len, head.path(buf), head.host(buf)), (buf.len(), "/p", "a"));
    refused(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::EmptyLines, 400);
    refused(b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::BareLineFeed, 400);
    refused(b"\r\n GET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Method, 400);
}

#[test]
fn bad_fields_are_refused() {
    use HeadError::*;
    let table: &[(&[u8], HeadError)] = &[
        (b"X : y\r\n", FieldName),
        (b"X\t: y\r\n", FieldName),
        (b": y\r\n", FieldName),
        (b"no colon\r\n", FieldName),
        (b"nocolon\r\n", FieldName),
        (b" X: y\r\n", FieldName),
        (b"X: y\r\n folded\r\n", FieldName),
        (b"X: y\r\n\tfolded\r\n", FieldName),
        (b"X(: y\r\n", FieldName),
        (b"X\x80: y\r\n", FieldName),
        (b"X\x00: y\r\n", FieldName),
        (b"X: a\x00b\r\n", FieldValue),
        (b"X: a\x0bb\r\n", FieldValue),
        (b"X: a\x1fb\r\n", FieldValue),
        (b"X: a\x7fb\r\n", FieldValue),
        (b"X: \x08\r\n", FieldValue),
    ];
    for (line, error) in table {
        for place in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n"[..],
            b"GET / HTTP/1.1\r\nA: b\r\nHost: a\r\n",
        ] {
            refused(&[place, line, b"\r\n"].concat(), *error, 400);
        }
        let mut first = b"GET / HTTP/1.1\r\n".to_vec();
        first.extend_from_slice(line);
        first.extend_from_slice(b"Host: a\r\n\r\n");
        refused(&first, *error, 400);
    }
}

#[test]
fn every_control_character_is_refused_everywhere() {
    let good = b"GET /path HTTP/1.1\r\nHost: a\r\nX-Name: some longer value, to fill vectors\r\n\r\n";
    for byte in (0u8..0x20).chain([0x7f]) {
        for at in 0..good.len() - 2 {
            if matches!(good[at], b'\r' | b'\n') {
                continue;
            }
            let mut buf = good.to_vec();
            buf[at] = byte;
            // White space before a value, and inside one.
            let tab_fits = byte == b'\t' && (at == 25 || at >= 36);
            let result = request(&buf);
            assert_eq!(result.is_ok(), tab_fits, "{byte:#x} at {at}: {result:?}");
        }
    }
}

#[test]
fn limits() {
    let limits = HeadLimits { bytes: 64, fields: 3 };
    let read = |bytes: &[u8]| parse_request(bytes, &limits, &mut HeadParser::new()).map(|h| h.is_some());
    let exact = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(64 - 27));
    assert_eq!(exact.len(), 64);
    assert_eq!(read(exact.as_bytes()), Ok(true));
    assert_eq!(read(&exact.as_bytes()[..63]), Ok(false));
    let over = exact.replace("Host: a", "Host: aa");
    assert_eq!(read(over.as_bytes()), Err(HeadError::HeadTooLarge));
    assert_eq!(read(&over.as_bytes()[..64]), Err(HeadError::HeadTooLarge));
    assert_eq!(HeadError::HeadTooLarge.status().status(), 431);
    let long = format!("GET /{}", "x".repeat(100));
    assert_eq!(read(long.as_bytes()), Err(HeadError::TargetTooLong));
    assert_eq!(read(&long.as_bytes()[..63]), Ok(false));
    assert_eq!(HeadError::TargetTooLong.status().status(), 414);
    assert_eq!(read(b"GET / HTTP/1.1\r\nHost:a\r\nA:\r\nB:\r\n\r\n"), Ok(true));
    assert_eq!(
        read(b"GET / HTTP/1.1\r\nHost:a\r\nA:\r\nB:\r\nC:\r\n\r\n"),
        Err(HeadError::TooManyFields)
    );
    assert_eq!(HeadError::TooManyFields.status().status(), 431);
    let many = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n - 1)).into_bytes();
    accepted(&many(100));
    refused(&many(101), HeadError::TooManyFields, 431);
    let flood = [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(),
        vec![b'x'; 40 << 10],
        b"\r\n\r\n".to_vec(),
    ]
    .concat();
    refused(&flood, HeadError::HeadTooLarge, 431);
}

#[test]
fn what_cannot_become_a_request_is_refused_before_its_end() {
    let early: &[(&[u8], HeadError)] = &[
        (b"\x16\x03\x01\x02\x00\x01", HeadError::Method),
        (b"\r\n\x16", HeadError::Method),
        (b"\rGET", HeadError::Method),
        (b" ", HeadError::Method),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", HeadError::Method),
        (b"GET /\r\n", HeadError::VersionMalformed),
        (b"GET / HTTP/3.0\r\nHo", HeadError::VersionNotSupported),
        (b"GET / HTTP/1.1\r\nA: b\n", HeadError::BareLineFeed),
    ];
    for (bytes, error) in early {
        refused(
            bytes,
            *error,
            if *error == HeadError::VersionNotSupported {
                505
            } else {
                400
            },
        );
    }
    for partial in [
        &b""[..],
        b"\r",
        b"\r\n",
        b"G",
        b"GET",
        b"GET ",
        b"GET / HTTP/1.1\r",
        b"GET / HTTP/1.1\r\n",
    ] {
        assert!(matches!(request(partial), Ok(None)), "{partial:?}");
    }
}

#[test]
fn a_dripping_head_is_searched_once() {
    let buf = [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(),
        vec![b'x'; 30 << 10],
        b"\r\n\r\n".to_vec(),
    ]
    .concat();
    let limits = HeadLimits::default();
    // The best of three: a busy machine may hold up two of them.
    let took = |forgetful: bool| {
        let run = |_| {
            let mut parser = HeadParser::new();
            let begun = std::time::Instant::now();
            for end in 0..buf.len() {
                if forgetful {
                    parser.reset();
                }
                assert!(matches!(parse_request(&buf[..end], &limits, &mut parser), Ok(None)));
            }
            assert!(parse_request(&buf, &limits, &mut parser).unwrap().is_some());
            begun.elapsed()
        };
        (0..3).map(run).min().unwrap()
    };
    // 30,000 calls that each search everything read 470 MB; it reads 30 KB.
    let (once, again) = (took(false), took(true));
    assert!(
        once * 3 < again,
        "{once:?}, and {again:?} to search all of it each time"
    );
}

#[test]
fn a_parser_serves_one_head_after_another() {
    let mut parser = HeadParser::new();
    let limits = HeadLimits::default();
    let wire = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n";
    let first = parse_request(wire, &limits, &mut parser).unwrap().unwrap();
    assert_eq!(first.path(wire), "/1");
    let rest = &wire[first.len..];
    parser.recycle(first);
    let second = parse_request(rest, &limits, &mut parser).unwrap().unwrap();
    assert_eq!(
        (second.path(rest), second.host(rest), second.fields(rest).len()),
        ("/2", "b", 1)
    );
    assert!(parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", &limits, &mut parser).is_err());
    assert!(matches!(parse_request(b"GET /half", &limits, &mut parser), Ok(None)));
    parser.reset();
    assert!(parse_request(rest, &limits, &mut parser).unwrap().is_some());
}

#[test]
fn every_error_says_what_was_wrong() {
    for error in [
        HeadError::BareLineFeed,
        HeadError::LengthAndCoding,
        HeadError::HostMissing,
    ] {
        assert!(error.to_string().len() > 10);
    }
}
