//! PROMISES section 4 on requests, against the running binary: what two parsers might read differently is refused, the
//! connection is closed, nothing reaches the upstream, and the next client gets its own answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;
use support::{Broken, Client, Config, Gate, PATIENCE, Service, Upstream, eventually};

struct Case {
    what: &'static str,
    request: Vec<u8>,
    statuses: &'static [u16],
}

fn case(what: &'static str, request: impl AsRef<[u8]>, statuses: &'static [u16]) -> Case {
    Case {
        what,
        request: request.as_ref().to_vec(),
        statuses,
    }
}

const BAD: &[u16] = &[400];

/// Follows every case in the same packet.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

fn framing() -> Vec<Case> {
    let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n{body}");
    let mut cases = vec![
        case(
            "CL and TE",
            post("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            BAD,
        ),
        case(
            "TE and CL",
            post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"),
            BAD,
        ),
        case(
            "two equal CL",
            post("content-length: 3\r\ncontent-length: 3\r\n", "abc"),
            BAD,
        ),
        case("two CL", post("content-length: 3\r\ncontent-length: 4\r\n", "abc"), BAD),
        case(
            "TE twice",
            post(
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            BAD,
        ),
        case(
            "TE on HTTP/1.0",
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            BAD,
        ),
    ];
    for value in [
        "+3",
        "-3",
        "3,3",
        "3, 4",
        "0x3",
        "3 3",
        "",
        " ",
        "1e3",
        "3;",
        "99999999999999999999",
        "\"3\"",
        "３",
    ] {
        cases.push(case(
            "CL value",
            post(&format!("content-length: {value}\r\n"), "abc"),
            BAD,
        ));
    }
    for value in [
        "gzip, chunked",
        "chunked, chunked",
        "chunked, gzip",
        "identity",
        "gzip",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "",
    ] {
        cases.push(case(
            "TE value",
            post(&format!("transfer-encoding: {value}\r\n"), "0\r\n\r\n"),
            &[400],
        ));
    }
    for name in [
        "transfer-encoding ",
        " transfer-encoding",
        "transfer-encoding\t",
        "transfer\0-encoding",
        "transfer-encoding\r",
    ] {
        cases.push(case("TE name", post(&format!("{name}: chunked\r\n"), "0\r\n\r\n"), BAD));
    }
    cases
}

fn heads() -> Vec<Case> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    vec![
        case("bare LF everywhere", "GET / HTTP/1.1\nhost: a\n\n", BAD),
        case("bare LF after the request line", "GET / HTTP/1.1\nhost: a\r\n\r\n", BAD),
        case("bare LF after a field", "GET / HTTP/1.1\r\nhost: a\n\r\n", BAD),
        case("bare LF at the end", "GET / HTTP/1.1\r\nhost: a\r\n\n", BAD),
        case("bare CR in a value", get("x: a\rb\r\n"), BAD),
        case("bare CR as a line end", "GET / HTTP/1.1\rhost: a\r\r", &[400, 408]),
        case("NUL in a value", get("x: a\0b\r\n"), BAD),
        case("control in a value", get("x: a\u{1}b\r\n"), BAD),
        case("DEL in a value", get("x: a\u{7f}b\r\n"), BAD),
        case("space before colon", get("x : a\r\n"), BAD),
        case("obs-fold", get("x: a\r\n b\r\n"), BAD),
        case("obs-fold with a tab", get("x: a\r\n\tb\r\n"), BAD),
        case("first field folded", "GET / HTTP/1.1\r\n host: a\r\n\r\n", BAD),
        case("no colon", get("nothing\r\n"), BAD),
        case("empty name", get(": a\r\n"), BAD),
        case("name with a quote", get("x\"y: a\r\n"), BAD),
        case(
            "name with a byte above 127",
            b"GET / HTTP/1.1\r\nhost: a\r\nx\xe9: a\r\n\r\n",
            BAD,
        ),
        case("nominated Host", get("connection: host\r\n"), BAD),
        case("nominated Content-Length", get("connection: content-length\r\n"), BAD),
        case("nominated X-Forwarded-For", get("connection: x-forwarded-for\r\n"), BAD),
        case(
            "ten connection options",
            get("connection: a, b, c, d, e, f, g, h, i, j\r\n"),
            BAD,
        ),
        case("connection option that is no token", get("connection: a b\r\n"), BAD),
        case("another expectation", get("expect: 200-ok\r\n"), &[417]),
    ]
}

fn request_lines() -> Vec<Case> {
    let line = |line: &str| format!("{line}\r\nhost: a\r\n\r\n");
    vec![
        case("HTTP/0.9", "GET /\r\n\r\n", BAD),
        case("HTTP/0.9 with a field", line("GET /"), BAD),
        case("two spaces", line("GET  / HTTP/1.1"), BAD),
        case("two spaces before the version", line("GET /  HTTP/1.1"), BAD),
        case("a tab", line("GET\t/ HTTP/1.1"), BAD),
        case("space after the version", line("GET / HTTP/1.1 "), BAD),
        case("leading space", line(" GET / HTTP/1.1"), BAD),
        case("lower-case http", line("GET / http/1.1"), BAD),
        case("HTTP/1.10", line("GET / HTTP/1.10"), BAD),
        case("HTTP/01.1", line("GET / HTTP/01.1"), BAD),
        case("HTTP/1,1", line("GET / HTTP/1,1"), BAD),
        case("HTTP/2.0", line("GET / HTTP/2.0"), &[400, 505]),
        case("HTTP/3.0", line("GET / HTTP/3.0"), &[400, 505]),
        case("no method", line(" / HTTP/1.1"), BAD),
        case("method with a slash", line("G/T / HTTP/1.1"), BAD),
        case("method with a control", line("G\u{1b}T / HTTP/1.1"), BAD),
        case(
            "a method too long",
            line(&format!("{} / HTTP/1.1", "A".repeat(200))),
            &[400],
        ),
        case("target without slash", line("GET a HTTP/1.1"), BAD),
        case("target with a fragment", line("GET /a#b HTTP/1.1"), BAD),
        case("target with NUL", line("GET /\0 HTTP/1.1"), BAD),
        case(
            "target with a byte above 127",
            b"GET /\xe9 HTTP/1.1\r\nhost: a\r\n\r\n",
            BAD,
        ),
        case("asterisk with GET", line("GET * HTTP/1.1"), BAD),
        case("authority-form with GET", line("GET a:80 HTTP/1.1"), BAD),
        case("CONNECT", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", &[400, 405]),
        case("absolute-form with userinfo", line("GET http://u@a/ HTTP/1.1"), BAD),
        case("absolute-form of another scheme", line("GET ftp://a/ HTTP/1.1"), BAD),
        case("absolute-form against Host", line("GET http://b/ HTTP/1.1"), BAD),
        case(
            "TRACE with a body",
            "TRACE / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx",
            &[400, 405],
        ),
        case("noise", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n", BAD),
        case(
            "empty lines first",
            "\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            BAD,
        ),
    ]
}

fn hosts() -> Vec<Case> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n");
    let mut cases = vec![
        case("no Host", get(""), BAD),
        case("two Hosts", get("host: a\r\nhost: b\r\n"), BAD),
        case("two equal Hosts", get("host: a\r\nhost: a\r\n"), BAD),
    ];
    for host in [
        "a b",
        "a/b",
        "u@a",
        "a:b",
        "a:99999999",
        "a,b",
        "[::1",
        "::1",
        "a\\b",
        "a%20b",
        "a:80:80",
        "<a>",
        "a?b",
        "a#b",
    ] {
        cases.push(case("Host value", get(&format!("host: {host}\r\n")), BAD));
    }
    cases
}

fn gate() -> (Upstream, Gate) {
    let upstream = Upstream::named("v1");
    let gate = Gate::start(&Config::with(Service::only(upstream.port())).text());
    (upstream, gate)
}

/// Sends the case, then a request that must never be served on the same connection.
fn run(gate: &Gate, upstream: &Upstream, case: &Case) {
    let shown = String::from_utf8_lossy(&case.request).into_owned();
    upstream.forget();
    let mut client = gate.client();
    client.send([&case.request, SMUGGLED].concat());
    match client.read(false) {
        Ok(response) => {
            assert!(
                case.statuses.contains(&response.status),
                "{}: {} for {shown:?}",
                case.what,
                response.status
            );
            assert!(
                client.is_closed_within(PATIENCE),
                "{}: the connection goes on after {} for {shown:?}",
                case.what,
                response.status
            );
        }
        Err(broken) => panic!("{}: {broken:?} for {shown:?}", case.what),
    }
    assert_eq!(
        upstream.count(),
        0,
        "{}: something was forwarded of {shown:?}",
        case.what
    );
    let response = gate.get("/mine", &[]);
    assert_eq!(
        (response.status, upstream.last().target.as_str()),
        (200, "/mine"),
        "after {}",
        case.what
    );
}

fn run_all(cases: &[Case]) {
    let (upstream, gate) = gate();
    for case in cases {
        run(&gate, &upstream, case);
    }
    eventually(PATIENCE, "refusals are counted", || {
        gate.metric("rollgate_refusals_total", &[("reason", "bad_request")]) >= 1.0
    });
}

#[test]
fn ambiguous_framing_is_refused() {
    run_all(&framing());
}

#[test]
fn malformed_fields_are_refused() {
    run_all(&heads());
}

#[test]
fn malformed_request_lines_are_refused() {
    run_all(&request_lines());
}

#[test]
fn missing_repeated_and_invalid_hosts_are_refused() {
    run_all(&hosts());
}

/// A chunked body that goes wrong after its head was good: the head may have been forwarded, the body must not look
/// whole, and nothing behind it may be served.
#[test]
fn malformed_chunks_are_refused_and_never_look_whole_upstream() {
    let (upstream, gate) = gate();
    for body in [
        "xyz\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\r\r\nabc\r\n0\r\n\r\n",
        "\r\n3\r\nabc\r\n0\r\n\r\n",
        "10000000000000000\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3;a\0b\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
        "3\r\nabc\r\n0\r\nx : y\r\n\r\n",
        "3\r\nabc\r\n0\r\nx: a\rb\r\n\r\n",
    ] {
        upstream.forget();
        let mut client = gate.client();
        client.send(format!(
            "POST /chunks HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}"
        ));
        client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
        match client.read(false) {
            Ok(response) => assert_eq!(response.status, 400, "{body:?}"),
            Err(Broken::Closed) => {}
            Err(other) => panic!("{body:?}: {other:?}"),
        }
        assert!(client.is_closed_within(PATIENCE), "{body:?}");
        assert_eq!(gate.get("/mine", &[]).status, 200);
        for request in upstream.requests() {
            let whole_chunks = request.target == "/chunks" && request.complete;
            assert!(
                !whole_chunks && request.target != "/smuggled",
                "{body:?} reached the upstream as {request:?}"
            );
        }
    }
    assert_eq!(
        gate.metric("rollgate_request_failures_total", &[]),
        0.0,
        "a client's fault is no version's failure"
    );
}

#[test]
fn trailers_that_would_change_the_message_are_not_passed_on() {
    let (upstream, gate) = gate();
    for trailer in [
        "content-length: 9",
        "transfer-encoding: chunked",
        "host: b",
        "x-forwarded-for: 1.2.3.4",
        "connection: close",
    ] {
        upstream.forget();
        let mut client = gate.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{trailer}\r\n\r\n"
        ));
        match client.read(false) {
            Ok(response) => assert!(matches!(response.status, 200 | 400), "{trailer}: {}", response.status),
            Err(Broken::Closed) => {}
            Err(other) => panic!("{trailer}: {other:?}"),
        }
        let name = trailer.split(':').next().unwrap();
        for request in upstream.requests() {
            assert!(
                !request.trailers.iter().any(|(n, _)| n == name),
                "{trailer} was passed on"
            );
        }
    }
}

#[test]
fn trailers_have_the_bounds_of_a_head() {
    let (upstream, gate) = gate();
    let bounds = [
        (format!("x-sum: {}\r\n", "y".repeat(30_000)), 200),
        (format!("x-sum: {}\r\n", "y".repeat(40_000)), 431),
        ("x-sum: y\r\n".repeat(100), 200),
        ("x-sum: y\r\n".repeat(101), 431),
    ];
    for (trailers, status) in bounds {
        let mut client = gate.client();
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send(format!("{head}3\r\nabc\r\n0\r\n{trailers}\r\n"));
        assert_eq!(client.read(false).unwrap().status, status, "{} bytes", trailers.len());
        if status == 200 {
            // Not the last one: what was refused in the middle may be told of later.
            let mut requests = upstream.requests().into_iter();
            assert!(requests.any(|request| request.trailers.len() == trailers.lines().count()));
        }
    }
    gate.expect_metric("rollgate_refusals_total", &[("reason", "head_too_large")], 2.0);
}

#[test]
fn what_is_unusual_but_right_is_served() {
    let (upstream, gate) = gate();
    for request in [
        "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://a/x?y HTTP/1.1\r\nhost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /%7ea%2f.b?/../%00%zz\\ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET //a//.b/...;c HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHOST:a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: \t a \t\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx-empty:\r\n\r\n",
        "BREW / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n003\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut client = gate.client();
        client.send(request);
        let response = client
            .read(false)
            .unwrap_or_else(|broken| panic!("{request:?}: {broken:?}"));
        assert_eq!(response.status, 200, "{request:?}");
        assert_eq!(client.get("/next", &[]).status, 200, "after {request:?}");
        assert_eq!(upstream.last().target, "/next");
    }
    let targets: Vec<String> = upstream.requests().into_iter().map(|request| request.target).collect();
    assert!(
        targets.contains(&"/x?y".into()),
        "absolute-form becomes origin-form: {targets:?}"
    );
    assert!(
        targets.contains(&"//a//.b/...;c".into()) && targets.contains(&"/%7ea%2f.b?/../%00%zz\\".into()),
        "paths are not rewritten: {targets:?}"
    );
}

#[test]
fn a_request_split_at_every_byte_is_the_same_request() {
    let (upstream, gate) = gate();
    let request = b"POST /split?a=b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nt: u\r\n\r\n";
    for at in 1..request.len() {
        let mut client = gate.client();
        client.send(&request[..at]);
        std::thread::sleep(Duration::from_millis(2));
        client.send(&request[at..]);
        assert_eq!(client.read(false).unwrap().status, 200, "split at {at}");
        let received = upstream.last();
        assert_eq!(
            (received.target.as_str(), received.body.as_slice()),
            ("/split?a=b", &b"abcde"[..]),
            "split at {at}"
        );
        assert!(received.complete, "split at {at}");
    }
}

#[test]
fn a_body_without_framing_is_the_next_request_and_never_a_body() {
    let (upstream, gate) = gate();
    let mut client = Client::connect(gate.port());
    client.send("POST /first HTTP/1.1\r\nhost: a\r\n\r\nGET /second HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.read(false).unwrap().status, 200);
    assert_eq!(client.read(false).unwrap().status, 200);
    let targets: Vec<String> = upstream.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/first", "/second"]);
    assert!(upstream.requests()[0].body.is_empty());
}
