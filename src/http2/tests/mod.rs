use super::*;
use crate::http1::{HeadError, HeadLimits, HeadParser, MethodKind, RequestBody, RequestHead, ResponseBody, Version};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use std::time::{Duration, Instant};

mod properties;

/// A request as the `h2` crate gives it.
fn incoming(method: &str, uri: &str, fields: &[(&str, &str)]) -> http::request::Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

fn read(parts: &http::request::Parts, ended: bool) -> Result<(RequestHead, Vec<u8>), HeadError> {
    let mut text = Vec::new();
    let head = read_request(&mut text, parts, ended, &HeadLimits::default(), &mut HeadParser::new())?;
    Ok((head, text))
}

fn refused(method: &str, uri: &str, fields: &[(&str, &str)]) -> HeadError {
    match read(&incoming(method, uri, fields), true) {
        Err(error) => error,
        Ok((_, text)) => panic!("{}", String::from_utf8_lossy(&text)),
    }
}

#[test]
fn a_request_is_read_as_if_http1_had_brought_it() {
    let parts = incoming(
        "GET",
        "http://shop.example:8443/a/b?c=d",
        &[("x-user", "7"), ("accept", "*/*")],
    );
    let (head, text) = read(&parts, true).unwrap();
    assert_eq!(
        String::from_utf8(text.clone()).unwrap(),
        "GET /a/b?c=d HTTP/1.1\r\nhost: shop.example:8443\r\nx-user: 7\r\naccept: */*\r\n\r\n"
    );
    assert_eq!((head.version, head.body), (Version::Http2, RequestBody::None));
    assert_eq!((head.method(&text), head.host(&text)), ("GET", "shop.example"));
    assert_eq!((head.path(&text), head.query(&text)), ("/a/b", "c=d"));
    assert!(head.keep_alive && !head.upgrade);
}

#[test]
fn a_body_is_framed_by_what_is_known_of_it() {
    let body = |method: &str, ended: bool, fields: &[(&str, &str)]| {
        read(&incoming(method, "http://a/", fields), ended).unwrap().0.body
    };
    assert_eq!(body("GET", true, &[]), RequestBody::None);
    assert_eq!(body("POST", true, &[]), RequestBody::Length(0));
    assert_eq!(body("POST", false, &[]), RequestBody::Chunked);
    assert_eq!(body("GET", false, &[]), RequestBody::Chunked);
    assert_eq!(body("PUT", false, &[("content-length", "7")]), RequestBody::Length(7));
    assert_eq!(body("PUT", true, &[("content-length", "0")]), RequestBody::Length(0));
}

#[test]
fn cookies_in_pieces_are_joined() {
    let parts = incoming(
        "GET",
        "http://a/",
        &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")],
    );
    let (head, text) = read(&parts, true).unwrap();
    let cookies: Vec<_> = head.fields(&text).filter(|(name, _)| *name == "cookie").collect();
    assert_eq!(cookies, [("cookie", &b"a=1; b=2; c=3"[..])]);
}

#[test]
fn trailers_are_asked_for_as_in_http1() {
    let te =
        |value: &str| read(&incoming("GET", "http://a/", &[("te", value)]), true).map(|(head, _)| head.te_trailers);
    assert_eq!(te("trailers"), Ok(true));
    assert_eq!(te("gzip"), Err(HeadError::ConnectionField));
}

#[test]
fn what_is_no_request_is_refused() {
    let host = |fields: &[(&str, &str)]| refused("GET", "http://a.example/", fields);
    assert_eq!(refused("CONNECT", "a:443", &[]), HeadError::Connect);
    assert_eq!(refused("GET", "ftp://a/", &[]), HeadError::TargetForm);
    assert_eq!(refused("GET", "*", &[("host", "a")]), HeadError::TargetForm);
    assert_eq!(refused("GET", "/", &[]), HeadError::HostMissing);
    assert_eq!(refused("GET", "http://u@a/", &[]), HeadError::HostInvalid);
    assert_eq!(host(&[("host", "b.example")]), HeadError::HostMismatch);
    assert_eq!(
        host(&[("host", "a.example"), ("host", "a.example")]),
        HeadError::HostRepeated
    );
    assert_eq!(
        host(&[("content-length", "1"), ("content-length", "1")]),
        HeadError::ContentLengthRepeated
    );
    assert_eq!(host(&[("content-length", "+1")]), HeadError::ContentLength);
    assert_eq!(host(&[("expect", "100-continue, x")]), HeadError::Expectation);
    assert_eq!(host(&[("x", " y")]), HeadError::FieldValue);
    assert_eq!(host(&[("cookie", "a\t")]), HeadError::FieldValue);
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        assert_eq!(host(&[(name, "x")]), HeadError::ConnectionField, "{name}");
    }
    assert!(read(&incoming("GET", "http://a.example/", &[("host", "A.Example")]), true).is_ok());
    assert!(read(&incoming("GET", "/", &[("host", "a")]), true).is_ok());
}

#[test]
fn a_head_is_as_large_as_its_text() {
    let large = "x".repeat(33 << 10);
    assert_eq!(refused("GET", "http://a/", &[("x", &large)]), HeadError::HeadTooLarge);
    let many: Vec<_> = (0..100).map(|_| ("x", "y")).collect();
    assert_eq!(refused("GET", "http://a/", &many), HeadError::TooManyFields);
}

#[test]
fn targets_are_no_stricter_than_the_library_and_no_laxer_than_http1() {
    let target =
        |target: &str| read(&incoming("GET", &format!("http://a{target}"), &[]), true).map(|(_, text)| text.len());
    assert!(target("/a%20b?x=%ff").is_ok());
    assert_eq!(target("/\u{fc}"), Err(HeadError::TargetByte));
}

fn answered(
    status: u16,
    fields: &[(&str, &str)],
    ended: bool,
    request: MethodKind,
) -> Result<(ResponseBody, String), HeadError> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    let (parts, ()) = response.body(()).unwrap().into_parts();
    let mut text = Vec::new();
    let head = read_answer(
        &mut text,
        &parts,
        ended,
        request,
        &HeadLimits::default(),
        &mut HeadParser::new(),
    )?;
    assert_eq!(head.version, Version::Http2);
    Ok((head.body, String::from_utf8(text).unwrap()))
}

#[test]
fn an_answer_is_framed_by_what_is_known_of_it() {
    use MethodKind::{Get, Head};
    let body = |status, fields: &[(&str, &str)], ended, request| answered(status, fields, ended, request).unwrap().0;
    assert_eq!(body(200, &[], false, Get), ResponseBody::Chunked);
    assert_eq!(body(200, &[], true, Get), ResponseBody::Length(0));
    assert_eq!(
        body(200, &[("content-length", "5")], false, Get),
        ResponseBody::Length(5)
    );
    assert_eq!(body(200, &[("content-length", "5")], true, Head), ResponseBody::None);
    assert_eq!(body(304, &[("content-length", "5")], true, Get), ResponseBody::None);
    assert_eq!(body(204, &[], true, Get), ResponseBody::None);
    assert_eq!(body(103, &[("link", "x")], false, Get), ResponseBody::None);
    let (_, text) = answered(200, &[("content-length", "5"), ("server", "x")], false, Get).unwrap();
    assert_eq!(text, "HTTP/1.1 200 \r\ncontent-length: 5\r\nserver: x\r\n\r\n");
}

#[test]
fn an_answer_that_http2_does_not_have_is_refused() {
    let fault = |status, fields: &[(&str, &str)]| answered(status, fields, false, MethodKind::Get).unwrap_err();
    assert_eq!(fault(101, &[]), HeadError::Upgrade);
    assert_eq!(fault(200, &[("connection", "close")]), HeadError::ConnectionField);
    assert_eq!(
        fault(200, &[("transfer-encoding", "chunked")]),
        HeadError::ConnectionField
    );
}

#[test]
fn a_text_becomes_the_request_it_says() {
    let text =
        b"PUT /a?b HTTP/1.1\r\nHost: shop.example:81\r\nCookie: a=1\r\nX-Long-Name: v: w\r\nTE: trailers\r\n\r\n";
    let request = request(text, true).unwrap();
    assert_eq!(request.uri(), "https://shop.example:81/a?b");
    assert_eq!(
        (request.method().as_str(), request.version()),
        ("PUT", http::Version::HTTP_2)
    );
    let fields: Vec<_> = request
        .headers()
        .iter()
        .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
        .collect();
    assert_eq!(fields, [("cookie", "a=1"), ("x-long-name", "v: w"), ("te", "trailers")]);
    assert!(request.headers()["cookie"].is_sensitive() && !request.headers()["te"].is_sensitive());
    let text = b"GET / HTTP/1.1\r\nHost: a\r\nx-request-id: 1\r\ntraceparent: 2\r\n\r\n";
    let alone = super::request(text, false).unwrap();
    assert!(
        alone.headers().values().all(HeaderValue::is_sensitive),
        "of one message alone"
    );
}

#[test]
fn targets_that_cannot_be_sent_are_told_apart() {
    let sent = |target: &str| request(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), false).map(drop);
    assert_eq!(sent("/a<b"), Err(Untranslatable::Target));
    assert_eq!(sent(&format!("/{}", "a".repeat(70_000))), Err(Untranslatable::Target));
    assert_eq!(sent("/{\"a\"}"), Ok(()));
    let asterisk = request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", false).unwrap();
    assert_eq!(asterisk.uri().path(), "*");
}

#[test]
fn a_text_becomes_the_answer_it_says() {
    let answer =
        answer(b"HTTP/1.1 404 Nothing: here\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nDate: x\r\n\r\n").unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
    assert_eq!(answer.headers()["date"], "x");
}

#[test]
fn trailers_go_both_ways() {
    let mut map = HeaderMap::new();
    for (name, value) in [("grpc-status", "5"), ("grpc-message", "no")] {
        map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let text = read_trailers(&map, &HeadLimits::default()).unwrap();
    assert_eq!(text, b"grpc-status: 5\r\ngrpc-message: no\r\n");
    let again = trailers(&text).unwrap();
    assert_eq!(
        (again.len(), &again["grpc-message"]),
        (2, &HeaderValue::from_static("no"))
    );
    assert!(trailers(b"").unwrap().is_empty());
    map.insert("x", HeaderValue::from_str(&"y".repeat(33_000)).unwrap());
    assert!(read_trailers(&map, &HeadLimits::default()).is_err());
}

#[test]
fn grpc_is_known_by_its_content_type() {
    for yes in [
        "application/grpc",
        "application/grpc+proto",
        "Application/gRPC;x=y",
        "application/grpc ; x",
    ] {
        assert!(grpc::is_grpc(yes.as_bytes()), "{yes}");
    }
    for no in [
        "application/grpc-web",
        "application/grpcx",
        "application/grp",
        "text/plain",
        "",
    ] {
        assert!(!grpc::is_grpc(no.as_bytes()), "{no}");
    }
}

#[test]
fn timeouts_of_grpc_are_read_to_the_letter() {
    assert_eq!(grpc::timeout(b"1H"), Some(Duration::from_secs(3600)));
    assert_eq!(grpc::timeout(b"2M"), Some(Duration::from_secs(120)));
    assert_eq!(grpc::timeout(b"99999999S"), Some(Duration::from_secs(99_999_999)));
    assert_eq!(grpc::timeout(b"150m"), Some(Duration::from_millis(150)));
    assert_eq!(grpc::timeout(b"7u"), Some(Duration::from_micros(7)));
    assert_eq!(grpc::timeout(b"0n"), Some(Duration::ZERO));
    for no in ["", "S", "1", "1s", "-1S", "123456789S", "1 S", "1.5S"] {
        assert_eq!(grpc::timeout(no.as_bytes()), None, "{no}");
    }
}

#[test]
fn messages_of_grpc_are_percent_encoded() {
    let mut out = Vec::new();
    grpc::write_message(&mut out, "50% of \u{e9}\n");
    assert_eq!(out, b"50%25 of %C3%A9%0A");
}

#[test]
fn a_budget_is_spent_earned_and_comes_back_with_time() {
    let start = Instant::now();
    let mut budget = Budget::new(3, 2, start);
    assert!(budget.spend(2, start) && budget.spend(1, start));
    assert!(!budget.spend(1, start));
    budget.earn(1);
    assert!(budget.spend(1, start) && !budget.spend(1, start));
    let later = start + Duration::from_millis(1500);
    assert!(budget.spend(2, later) && !budget.spend(1, later));
    // The half second is not lost.
    assert!(budget.spend(2, start + Duration::from_secs(2)));
    assert!(budget.spend(3, start + Duration::from_secs(3600)) && !budget.spend(1, start));
}

#[test]
fn frames_are_counted_however_they_are_split() {
    let mut bytes = PREFACE.to_vec();
    let frame = |kind: u8, length: usize| {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, 0, 0, 0, 0, 1];
        frame.resize(9 + length, 0xaa);
        frame
    };
    for (kind, length) in [(4, 0), (1, 300), (0, 0), (0, 16), (6, 8), (8, 4), (200, 5)] {
        bytes.extend(frame(kind, length));
    }
    let expected = Frames {
        carrying: 3,
        control: 4,
    };
    for step in 1..bytes.len() {
        let mut count = FrameCount::new(PREFACE.len());
        bytes.chunks(step).for_each(|part| count.pass(part, |_| {}));
        assert_eq!(count.take(), expected, "in steps of {step}");
        assert_eq!(count.take(), Frames::default());
    }
}

#[test]
fn a_stream_ends_with_the_last_byte_of_its_last_frame() {
    let frame = |kind: u8, flags: u8, stream: u8, length: u8| {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
        frame.resize(9 + usize::from(length), 1);
        frame
    };
    let frames = [
        // An answer of a head, one with a body, one with trailers in pieces.
        (frame(1, 5, 1, 3), Some(1)),
        (frame(1, 4, 3, 3), None),
        (frame(0, 0, 3, 20), None),
        (frame(0, 1, 3, 0), Some(3)),
        (frame(1, 1, 5, 3), None),
        (frame(9, 0, 5, 3), None),
        (frame(9, 4, 5, 3), Some(5)),
        // The same flags mean something else there: an acknowledgement, the end of another kind of head.
        (frame(4, 1, 0, 0), None),
        (frame(6, 1, 0, 8), None),
        (frame(5, 5, 7, 4), None),
        (frame(9, 5, 7, 4), None),
        (frame(0, 9, 9, 5), Some(9)),
        // A bit that means nothing.
        ([0, 0, 0, 0, 1, 0x80, 0, 0, 11].to_vec(), Some(11)),
    ];
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for (frame, ended) in frames {
        bytes.extend(frame);
        expected.extend(ended.map(|stream| (stream, bytes.len())));
    }
    let mut count = FrameCount::new(0);
    let mut ends = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        count.pass(&[*byte], |stream| ends.push((stream, at + 1)));
    }
    assert_eq!(ends, expected);
    for step in 1..bytes.len() {
        let (mut count, mut ends) = (FrameCount::new(0), Vec::new());
        bytes
            .chunks(step)
            .for_each(|part| count.pass(part, |stream| ends.push(stream)));
        assert!(
            ends.iter().eq(expected.iter().map(|(stream, _)| stream)),
            "in steps of {step}: {ends:?}"
        );
    }
}

#[test]
fn a_status_of_grpc_is_a_number_in_the_trailers_or_it_is_none() {
    assert_eq!(grpc::status_in(b"a: b\r\ngrpc-status: 14\r\n"), Some(14));
    assert_eq!(grpc::status_in(b"Grpc-Status: 0\r\ngrpc-message: x\r\n"), Some(0));
    for none in [
        &b""[..],
        b"grpc-message: x\r\n",
        b"grpc-status: -1\r\n",
        b"grpc-status: OK\r\n",
    ] {
        assert_eq!(grpc::status_in(none), None);
    }
}

/// What the proxy answers of itself, and nothing that blames the caller for what is not its fault.
#[test]
fn every_status_that_the_proxy_answers_is_an_error_of_grpc() {
    use crate::outcome::Refusal;
    let refusals = Refusal::ALL.map(Refusal::status);
    for status in refusals.into_iter().chain([500, 502, 503, 504]) {
        assert!(matches!(grpc::status_for(status), 2 | 4 | 8 | 12 | 13 | 14), "{status}");
    }
}

#[test]
fn health_is_asked_and_read_as_protocol_buffers_have_it() {
    assert_eq!(grpc::health_question(""), [0, 0, 0, 0, 0]);
    assert_eq!(grpc::health_question("a.B"), *b"\0\0\0\0\x05\x0a\x03a.B");
    let long = grpc::health_question(&"x".repeat(200));
    assert_eq!(long[..8], *b"\0\0\0\0\xcb\x0a\xc8\x01");
    assert_eq!(long.len(), 5 + 0xcb);
    assert_eq!(grpc::health_in(b"\0\0\0\0\x02\x08\x01"), Some(grpc::SERVING));
    assert_eq!(grpc::health_in(b"\0\0\0\0\x00"), Some(0), "a status of 0 is not sent");
    // Fields of a later form around it: a text, eight bytes, four bytes.
    let later = b"\0\0\0\0\x17\x12\x03abc\x19abcdefgh\x08\x02\x25abcd\x28";
    assert_eq!(grpc::health_in(&[&later[..], b"\x05"].concat()), Some(2));
    for no in [
        &b""[..],
        b"\0\0\0\0",
        b"\x01\0\0\0\x02\x08\x01",
        b"\0\0\0\0\x03\x08\x01",
        b"\0\0\0\0\x01\x08",
        b"\0\0\0\0\x02\x0b\x01",
        b"\0\0\0\0\x02\x12\x7f",
        b"\0\xff\xff\xff\xff\x08\x01",
        b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert_eq!(grpc::health_in(no), None, "{no:?}");
    }
}
