//! What is forwarded.

use super::*;

/// The request forwarded for `bytes`; checked by the lint and by reading it again.
#[track_caller]
fn forward(bytes: &[u8], add: &RequestAdditions<'_>) -> String {
    let head = accepted(bytes);
    let upgrading = head.upgrading(bytes, allowed());
    let mut out = Vec::new();
    write_request(&mut out, &head, bytes, &RequestAdditions { upgrading, ..*add });
    assert_eq!(lint_request(&out), Ok(out.len()), "{}", String::from_utf8_lossy(&out));
    let again = accepted(&out);
    assert_eq!(
        (again.len, again.body, again.version),
        (out.len(), head.body, Version::Http11)
    );
    assert_eq!(
        (again.upgrade, again.expect_continue),
        (upgrading.is_asked(), head.expect_continue)
    );
    String::from_utf8(out).unwrap()
}

/// The lines forwarded for these lines, without what every request gets.
#[track_caller]
fn forward_lines(input: &str, add: &RequestAdditions<'_>) -> Vec<String> {
    let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{input}\r\n").into_bytes();
    let chain = if add.peer_trusted {
        let head = accepted(&bytes);
        Chain::read(add.client_ip, &head.fields(&bytes), |_| false).1
    } else {
        Chain::default()
    };
    let out = forward(&bytes, &RequestAdditions { chain, ..*add });
    lines(out.as_bytes())
}

fn trusted() -> RequestAdditions<'static> {
    RequestAdditions {
        peer_trusted: true,
        ..additions()
    }
}

fn starting<'l>(lines: &'l [String], prefix: &str) -> Vec<&'l str> {
    let mut found: Vec<_> = lines.iter().map(String::as_str).collect();
    found.retain(|l| l.to_ascii_lowercase().starts_with(prefix));
    found
}

#[test]
fn a_browser_request_is_forwarded_like_this() {
    let bytes = b"\r\nPOST http://Shop.example:8080?x=1 HTTP/1.1\r\nCookie: a=1\r\nX-Odd:   v \t\r\nHost: shop.example:8080\r\nConnection: keep-alive, X-Hop, TE\r\nTE: trailers, deflate\r\nx-hop: gone\r\nKeep-Alive: 5\r\nX-Empty:\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nProxy-Authorization: Basic x\r\nTrailer: X-Sum\r\nVia: 1.1 front\r\nContent-Length: 007\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(
        forward(bytes, &additions()),
        "POST /?x=1 HTTP/1.1\r\nHost: Shop.example:8080\r\nCookie: a=1\r\nX-Odd: v\r\nX-Empty: \r\nTrailer: X-Sum\r\nVia: 1.1 front\r\nExpect: 100-continue\r\nContent-Length: 7\r\nConnection: TE\r\nTE: trailers\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: Shop.example:8080\r\nx-request-id: fresh-id\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nx-rollgate-version: v2\r\nVia: 1.1 rollgate\r\n\r\n"
    );
}

#[test]
fn targets_are_forwarded_in_origin_form() {
    for (line, forwarded) in [
        ("GET /a//b?c?d", "GET /a//b?c?d"),
        ("GET /?", "GET /?"),
        ("GET http://a", "GET /"),
        ("GET http://a?", "GET /?"),
        ("GET https://a/x?", "GET /x?"),
        ("OPTIONS *", "OPTIONS *"),
        ("OPTIONS http://a", "OPTIONS *"),
        ("OPTIONS http://a/", "OPTIONS /"),
        ("OPTIONS http://a?q", "OPTIONS /?q"),
        ("brew /x", "brew /x"),
    ] {
        let out = forward(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), &additions());
        assert_eq!(out.split(" HTTP/1.1\r\n").next(), Some(forwarded));
    }
}

#[test]
fn an_old_client_is_forwarded_as_a_new_one() {
    let out = forward(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &additions());
    assert!(out.starts_with("GET / HTTP/1.1\r\nHost: listener:8080\r\n"), "{out}");
    assert!(
        out.contains("\r\nVia: 1.0 rollgate\r\n") && !out.contains("X-Forwarded-Host"),
        "{out}"
    );
    let old = b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let out = forward(old, &additions());
    assert!(!out.contains("Expect"), "{out}");
}

#[test]
fn exactly_one_framing_field() {
    let framing = |lines: &str| {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let out = forward(bytes.as_bytes(), &additions()).to_ascii_lowercase();
        (
            out.matches("content-length: ").count(),
            out.matches("transfer-encoding: chunked\r\n").count(),
        )
    };
    assert_eq!(framing(""), (0, 0));
    assert_eq!(framing("Content-Length: 0\r\n"), (1, 0));
    assert_eq!(framing("Transfer-Encoding:  CHUNKED\r\n"), (0, 1));
    assert_eq!(framing("Content_Length: 5\r\nTransfer_Encoding: chunked\r\n"), (0, 0));
}

const CLAIMS: &str = "X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for:\r\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: front\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /p\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Request-Id: theirs\r\nX_Forwarded_For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nx-rollgate-version: fake\r\nX-Rollgate-Anything: fake\r\nx_rollgate_version: fake\r\n";

#[test]
fn claims_of_strangers_are_replaced() {
    let out = forward_lines(CLAIMS, &additions());
    assert_eq!(
        out,
        [
            "Host: a",
            "X-Forwarded-For: 192.0.2.7",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: a",
            "x-request-id: fresh-id",
            &format!("traceparent: {TRACE}"),
            "x-rollgate-version: v2",
            "Via: 1.1 rollgate",
        ]
    );
}

#[test]
fn claims_of_trusted_peers_are_continued() {
    let out = forward_lines(CLAIMS, &trusted());
    assert_eq!(
        out,
        [
            "Host: a",
            "X-Forwarded-Host: front",
            "X-Forwarded-Port: 443",
            "X-Forwarded-Prefix: /p",
            "Forwarded: for=1.1.1.1",
            "X-Real-IP: 1.1.1.1",
            "X-Request-Id: theirs",
            "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7",
            "X-Forwarded-Proto: https",
            &format!("traceparent: {TRACE}"),
            "x-rollgate-version: v2",
            "Via: 1.1 rollgate",
        ]
    );
    let out = forward_lines("", &trusted());
    assert_eq!(
        starting(&out, "x-forwarded-"),
        [
            "X-Forwarded-For: 192.0.2.7",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: a",
        ]
    );
}

/// Whichever of the two a trusted peer speaks, the endpoint is told the same by both.
#[test]
fn x_forwarded_and_forwarded_say_the_same() {
    let both = RequestAdditions {
        forwarded: true,
        ..trusted()
    };
    for (input, expected) in [
        (
            "Forwarded: for=_x, For=\"[2001:db8::1]:80\"\r\nForwarded: for=1.1.1.1:80;Proto=HTTPS;host=\"h.x:81\"\r\n",
            [
                "X-Forwarded-For: unknown, 2001:db8::1, 1.1.1.1, 192.0.2.7",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: h.x:81",
                "Forwarded: for=_x, For=\"[2001:db8::1]:80\", for=1.1.1.1:80;Proto=HTTPS;host=\"h.x:81\", for=192.0.2.7;host=a;proto=http",
            ],
        ),
        (
            "X-Forwarded-For: what, [2001:db8::1]:80,, 1.1.1.1\r\nX-Forwarded-Proto: http, HTTPS\r\nX-Forwarded-Host: h.x\r\n",
            [
                "X-Forwarded-Host: h.x",
                "X-Forwarded-For: what, [2001:db8::1]:80,, 1.1.1.1, 192.0.2.7",
                "X-Forwarded-Proto: https",
                "Forwarded: for=unknown, for=\"[2001:db8::1]\", for=1.1.1.1;proto=https, for=192.0.2.7;host=a;proto=http",
            ],
        ),
    ] {
        let out = forward_lines(input, &both);
        let told: Vec<_> = out.iter().filter(|line| line.contains("orwarded")).collect();
        assert_eq!(told, expected);
    }
    // Without `forwarded: true` it is passed on as it came.
    let out = forward_lines("Forwarded: for=1.1.1.1;proto=https\r\n", &trusted());
    assert_eq!(starting(&out, "forwarded"), ["Forwarded: for=1.1.1.1;proto=https"]);
    assert_eq!(starting(&out, "x-forwarded-p"), ["X-Forwarded-Proto: https"]);
}

#[test]
fn forwarded_by_rfc_7239() {
    let of = |input: &str, add: &RequestAdditions<'_>| {
        let out = forward_lines(
            input,
            &RequestAdditions {
                forwarded: true,
                ..*add
            },
        );
        starting(&out, "forwarded:").join("|")
    };
    assert_eq!(of("", &additions()), "Forwarded: for=192.0.2.7;host=a;proto=http");
    let claim = "Forwarded: for=1.1.1.1\r\nforwarded: for=\"[::1]\"\r\n";
    assert_eq!(of(claim, &additions()), "Forwarded: for=192.0.2.7;host=a;proto=http");
    let kept = "Forwarded: for=1.1.1.1, for=\"[::1]\", for=192.0.2.7;host=a;proto=http";
    assert_eq!(of(claim, &trusted()), kept);
    let v6 = RequestAdditions {
        client_ip: "2001:db8::1".parse().unwrap(),
        https: true,
        forwarded: true,
        ..additions()
    };
    assert_eq!(of("", &v6), "Forwarded: for=\"[2001:db8::1]\";host=a;proto=https");
    let out = forward(b"GET / HTTP/1.1\r\nHost: a:81\r\n\r\n", &v6);
    assert!(
        out.contains(";host=\"a:81\";") && out.contains("X-Forwarded-For: 2001:db8::1\r\n"),
        "{out}"
    );
    let mapped = RequestAdditions {
        client_ip: "::ffff:192.0.2.9".parse().unwrap(),
        ..v6
    };
    assert_eq!(of("", &mapped), "Forwarded: for=192.0.2.9;host=a;proto=https");
}

#[test]
fn request_ids() {
    let long = "x".repeat(129);
    let table = [
        ("X-Request-ID: a.B_c-9\r\n", "x-request-id: a.b_c-9"),
        ("X-Request-ID: a b\r\n", "x-request-id: fresh-id"),
        ("X-Request-ID:\r\n", "x-request-id: fresh-id"),
        ("X-Request-ID: \"a\"\r\n", "x-request-id: fresh-id"),
        ("X-Request-ID: a\r\nx-request-id: b\r\n", "x-request-id: fresh-id"),
        (&format!("X-Request-ID: {long}\r\n"), "x-request-id: fresh-id"),
        (
            &format!("X-Request-ID: {}\r\n", &long[1..]),
            &format!("x-request-id: {}", &long[1..]),
        ),
    ];
    for (input, id) in table {
        let out = forward_lines(input, &trusted());
        assert_eq!(
            starting(&out, "x-request-id:").join("|").to_ascii_lowercase(),
            id,
            "{input}"
        );
        let out = forward_lines(input, &additions());
        assert_eq!(starting(&out, "x-request-id:"), ["x-request-id: fresh-id"], "{input}");
    }
    let buf = b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: theirs\r\n\r\n";
    let head = accepted(buf);
    assert_eq!(
        (head.request_id(buf, true), head.request_id(buf, false)),
        (Some("theirs"), None)
    );
}

#[test]
fn trace_context() {
    let id = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let kept = |value: &str| {
        let out = forward_lines(&format!("Traceparent: {value}\r\nTracestate: a=b\r\n"), &additions());
        let theirs = starting(&out, "traceparent:") == [format!("Traceparent: {value}")];
        assert_eq!(starting(&out, "tracestate:").len(), usize::from(theirs), "{value}");
        assert_eq!(starting(&out, "traceparent:").len(), 1, "{value}");
        theirs
    };
    assert!(kept(&format!("00-{id}")));
    assert!(kept(&format!("01-{id}")));
    assert!(kept(&format!("01-{id}-more")));
    for bad in [
        format!("00-{id}-more"),
        format!("ff-{id}"),
        format!("01-{id}more"),
        format!("0-{id}"),
        format!("00-{}", id.to_uppercase()),
        format!("00_{id}"),
        "00-00000000000000000000000000000000-b7ad6b7169203331-00".to_owned(),
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-00".to_owned(),
        "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-00".to_owned(),
        "00-0af7651916cd43dd8448eb211c80319c".to_owned(),
        String::new(),
        format!("00-{id}\r\ntraceparent: 00-{id}"),
    ] {
        assert!(!kept(&bad), "{bad}");
    }
}

#[test]
fn hop_by_hop_fields_stop_here() {
    let out = forward_lines(
        "A:\t1\r\nConnection: close\r\nconnection: X-One , x-two\r\nX-One: 1\r\nx-TWO: 2\r\nX-One: 3\r\nB: 2\r\nTE: trailers\r\n",
        &additions(),
    );
    assert_eq!(out[..4], ["Host: a", "A: 1", "B: 2", "X-Forwarded-For: 192.0.2.7"]);
    let te = forward_lines("Connection: te\r\nTE: gzip\r\n", &additions());
    assert!(starting(&te, "te:").is_empty() && starting(&te, "connection:").is_empty());
}

#[test]
fn max_forwards_counts_down() {
    let of = |method: &str, value: &str| {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
        let out = forward(bytes.as_bytes(), &additions());
        starting(&lines(out.as_bytes()), "max-forwards:").join("|")
    };
    assert_eq!(of("OPTIONS", "10"), "Max-Forwards: 9");
    assert_eq!(of("TRACE", "1"), "Max-Forwards: 0");
    assert_eq!(of("GET", "10"), "Max-Forwards: 10");
}

#[test]
fn a_web_socket_upgrade_is_asked_again() {
    let key =
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n";
    let input = format!("Connection: keep-alive, upgrade\r\nUpgrade: WEBSOCKET\r\n{key}");
    let out = forward_lines(&input, &additions());
    assert_eq!(starting(&out, "connection:"), ["Connection: Upgrade"]);
    assert_eq!(starting(&out, "upgrade:"), ["Upgrade: websocket"]);
    assert_eq!(starting(&out, "sec-websocket-").len(), 3);
    let out = forward_lines(&format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{key}"), &additions());
    assert!(starting(&out, "connection:").is_empty() && starting(&out, "upgrade:").is_empty());
}

/// The answer forwarded for `bytes`; checked by the lint and by reading it again.
#[track_caller]
fn answer(
    bytes: &[u8],
    method: MethodKind,
    upgrade: bool,
    add: impl Fn(&ResponseHead) -> ResponseAdditions<'static>,
) -> String {
    let head = response(bytes, method, upgrade).unwrap().unwrap();
    let mut out = Vec::new();
    write_response(&mut out, &head, bytes, &add(&head));
    let text = String::from_utf8_lossy(&out).into_owned();
    assert_eq!(lint_response(&out, method == MethodKind::Head), Ok(out.len()), "{text}");
    let again = response(&out, method, upgrade).unwrap().unwrap();
    assert_eq!((again.len, again.status), (out.len(), head.status), "{text}");
    text
}

fn as_is(head: &ResponseHead) -> ResponseAdditions<'static> {
    response_additions(head.forward_framing(Version::Http11))
}

#[test]
fn an_answer_is_forwarded_like_this() {
    let bytes = b"HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\nx-hop: gone\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Rollgate-Version: fake\r\nUpgrade: h2\r\nProxy-Authenticate: Basic\r\nContent-Length: 5\r\nVia: 1.1 back\r\n\r\n";
    let add = |_: &ResponseHead| ResponseAdditions {
        close: true,
        set_cookie: Some(b"rg=1; HttpOnly"),
        version: Some("v2"),
        date: Some("Sun, 06 Nov 1994 08:49:37 GMT"),
        ..response_additions(Framing::Length(5))
    };
    assert_eq!(
        answer(bytes, MethodKind::Get, false, add),
        "HTTP/1.1 200 Fine\r\nServer: x\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nVia: 1.1 back\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nSet-Cookie: rg=1; HttpOnly\r\nContent-Length: 5\r\nConnection: close\r\nx-rollgate-version: v2\r\nVia: 1.1 rollgate\r\n\r\n"
    );
}

#[test]
fn answers_are_framed_as_the_engine_chose() {
    let framed = |bytes: &str, method: MethodKind, client: Version| {
        let out = answer(bytes.as_bytes(), method, false, |head| ResponseAdditions {
            client,
            hsts: None,
            via: false,
            ..response_additions(head.forward_framing(client))
        });
        lines(out.as_bytes()).join("|")
    };
    use MethodKind::{Get, Head};
    use Version::{Http10, Http11};
    let table = [
        (
            "HTTP/1.1 200 \r\nContent-Length: 07\r\n\r\n",
            Get,
            Http11,
            "Content-Length: 7",
        ),
        (
            "HTTP/1.1 200 \r\nContent-Length: 7\r\n\r\n",
            Head,
            Http11,
            "Content-Length: 7",
        ),
        (
            "HTTP/1.1 304 \r\nContent-Length: 7\r\n\r\n",
            Get,
            Http11,
            "Content-Length: 7",
        ),
        ("HTTP/1.1 304 \r\n\r\n", Get, Http11, ""),
        ("HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n", Get, Http11, ""),
        ("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", Head, Http11, ""),
        (
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
            Get,
            Http11,
            "Transfer-Encoding: chunked",
        ),
        (
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
            Get,
            Http10,
            "Connection: close",
        ),
        ("HTTP/1.1 200 \r\n\r\n", Get, Http11, "Transfer-Encoding: chunked"),
        ("HTTP/1.0 200 \r\n\r\n", Get, Http10, "Connection: close"),
        ("HTTP/1.1 100 \r\nContent-Length: 0\r\n\r\n", Get, Http11, ""),
        ("HTTP/1.1 103 \r\nLink: x\r\n\r\n", Get, Http11, "Link: x"),
    ];
    for (bytes, method, client, expected) in table {
        assert_eq!(framed(bytes, method, client), expected, "{bytes:?}");
    }
}

#[test]
fn interim_answers_get_nothing_of_ours_but_via() {
    let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nConnection: close\r\n\r\n";
    let out = answer(bytes, MethodKind::Get, false, |_| ResponseAdditions {
        close: true,
        date: Some("now"),
        set_cookie: Some(b"x"),
        ..response_additions(Framing::None)
    });
    assert_eq!(out, "HTTP/1.1 103 Early Hints\r\nLink: x\r\nVia: 1.1 rollgate\r\n\r\n");
}

#[test]
fn switching_and_offering_protocols() {
    let both = "Connection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\n";
    let bytes = format!("HTTP/1.1 101 Switching Protocols\r\n{both}\r\n");
    let out = answer(bytes.as_bytes(), MethodKind::Get, true, as_is);
    assert_eq!(
        lines(out.as_bytes())[..3],
        ["Sec-WebSocket-Accept: x", "Connection: Upgrade", "Upgrade: websocket"]
    );
    let bytes = "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: Spdy/3.1\r\n\r\n";
    let out = answer(bytes.as_bytes(), MethodKind::Get, true, as_is);
    assert_eq!(lines(out.as_bytes())[..2], ["Connection: Upgrade", "Upgrade: SPDY/3.1"]);
    let bytes = format!("HTTP/1.1 426 Upgrade Required\r\n{both}Content-Length: 0\r\n\r\n");
    let out = answer(bytes.as_bytes(), MethodKind::Get, false, |h| ResponseAdditions {
        close: true,
        ..as_is(h)
    });
    assert!(
        out.contains("\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n"),
        "{out}"
    );
    let of_other = "HTTP/1.1 426 x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n";
    let out = answer(of_other.as_bytes(), MethodKind::Get, false, as_is);
    assert!(!out.to_ascii_lowercase().contains("upgrade"), "{out}");
    let bytes = format!("HTTP/1.1 200 OK\r\n{both}Content-Length: 0\r\n\r\n");
    let out = answer(bytes.as_bytes(), MethodKind::Get, true, as_is);
    assert!(!out.to_ascii_lowercase().contains("upgrade"), "{out}");
}

#[test]
fn dates_and_keep_alive() {
    let dated = |input: &str| {
        let bytes = format!("HTTP/1.1 200 OK\r\n{input}Content-Length: 0\r\n\r\n");
        let out = answer(bytes.as_bytes(), MethodKind::Get, false, |h| ResponseAdditions {
            date: Some("ours"),
            ..as_is(h)
        });
        starting(&lines(out.as_bytes()), "date:").join("|")
    };
    assert_eq!(dated(""), "Date: ours");
    assert_eq!(dated("date: theirs\r\n"), "date: theirs");
    assert_eq!(dated("Connection: date\r\nDate: theirs\r\n"), "Date: ours");
    let connection = |client: Version, keep_alive_10: bool, close: bool| {
        let out = answer(
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            MethodKind::Get,
            false,
            |h| ResponseAdditions {
                client,
                keep_alive_10,
                close,
                ..as_is(h)
            },
        );
        starting(&lines(out.as_bytes()), "connection:").join("|")
    };
    assert_eq!(connection(Version::Http11, false, false), "");
    assert_eq!(connection(Version::Http11, true, false), "");
    assert_eq!(connection(Version::Http11, false, true), "Connection: close");
    assert_eq!(connection(Version::Http10, true, false), "Connection: keep-alive");
    assert_eq!(connection(Version::Http10, true, true), "Connection: close");
    assert_eq!(connection(Version::Http10, false, true), "Connection: close");
}

#[test]
fn http2_is_told_nothing_of_connections() {
    let text = |bytes: &str, close: bool| {
        let head = response(bytes.as_bytes(), MethodKind::Get, false).unwrap().unwrap();
        let add = ResponseAdditions {
            client: Version::Http2,
            close,
            via: false,
            ..response_additions(head.forward_framing(Version::Http2))
        };
        let mut out = Vec::new();
        write_response(&mut out, &head, bytes.as_bytes(), &add);
        lines(&out).join("|")
    };
    assert_eq!(text("HTTP/1.1 200 \r\n\r\n", false), "");
    assert_eq!(text("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", true), "");
    assert_eq!(
        text("HTTP/1.1 200 \r\nContent-Length: 7\r\n\r\n", true),
        "Content-Length: 7"
    );
    let upgrade = "HTTP/1.1 426 \r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(text(upgrade, false), "Content-Length: 0");

    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: te\r\nTE: trailers\r\n\r\n";
    let head = request(bytes).unwrap().unwrap();
    let mut out = Vec::new();
    write_request(
        &mut out,
        &head,
        bytes,
        &RequestAdditions {
            to: Version::Http2,
            ..additions()
        },
    );
    let lines = lines(&out);
    assert_eq!(starting(&lines, "te:"), ["TE: trailers"]);
    assert!(starting(&lines, "connection:").is_empty() && starting(&lines, "transfer-encoding:").is_empty());
}

#[test]
fn the_lint_finds_what_it_should() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(lint_request(good.as_bytes()), Ok(good.len()));
    for bad in [
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: 5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
    ] {
        assert!(lint_request(bad.as_bytes()).is_err(), "{bad:?}");
    }
    for bad in [
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 204 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 103 OK\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 101 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nProxy-Authenticate: x\r\n\r\n",
    ] {
        assert!(lint_response(bad.as_bytes(), false).is_err(), "{bad:?}");
    }
    assert!(lint_response(b"HTTP/1.1 200 OK\r\n\r\n", true).is_ok());
}
