//! HTTP/2 from clients: real ones (curl, h2load) beside HTTP/1.1 on the same listener, and ones that mean harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

#[path = "http2/floods.rs"]
mod floods;

use std::io::Read;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use support::frames::*;
use support::{Authority, Config, Gate, PATIENCE, Port, Service, Then, Upstream};

/// What a program printed; it must succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test ({error}); `make test` installs it"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// What curl says: the version of HTTP and the status, and the body behind them.
fn curl(arguments: &[&str]) -> (String, String) {
    const COMMON: [&str; 6] = [
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--write-out",
        "\n%{http_version} %{http_code}",
    ];
    let said = run("curl", &[&COMMON, arguments].concat());
    let (body, told) = said.rsplit_once('\n').unwrap();
    (told.to_owned(), body.to_owned())
}

/// A reset that came with the answer would take it away from curl.
#[test]
fn an_answer_before_the_end_of_its_request_reaches_its_client() {
    let upstream = Upstream::named("v1");
    let dead = Port::reserved();
    let broken = Service::new("dead")
        .stable("v1", 1, &[dead.number()])
        .route("path: /dead");
    let config = Config::with(Service::only(upstream.port()).route("path: /v1"))
        .and(broken.never_eject())
        .limit("max_body: 100KiB");
    let gate = Gate::start(&config.text());
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("body");
    for _ in 0..8 {
        for (path, bytes, status) in [
            ("nope", 90_000, "2 404"),
            ("v1", 300_000, "2 413"),
            ("dead", 90_000, "2 502"),
            ("a/../b", 300_000, "2 400"),
            ("a/../b", 1, "2 400"),
        ] {
            std::fs::write(&file, vec![b'x'; bytes]).unwrap();
            let data = format!("@{}", file.display());
            let url = format!("http://127.0.0.1:{}/{path}", gate.port());
            let how = ["--http2-prior-knowledge", "--path-as-is"];
            let (told, _) = curl(&[&how[..], &["--data-binary", &data, &url]].concat());
            assert_eq!(told, status, "{path}");
        }
    }
    gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
}

/// A body would break the protocol, and with it what else runs on the connection.
#[test]
fn a_head_that_is_refused_unread_is_answered_without_a_body() {
    let upstream = Upstream::named("v1");
    let gate = Gate::start(&Config::with(Service::only(upstream.port())).text());
    let mut client = RawClient::greeted(gate.port());
    let asks = |method, path| {
        [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
        ]
    };
    let long = format!("/{}", "a".repeat(40_000));
    client.request(1, &asks("HEAD", "/a/../b"));
    assert_eq!(client.answer(1), (400, Vec::new()));
    client.request(3, &asks("HEAD", "/%00"));
    assert_eq!(client.answer(3), (400, Vec::new()));
    client.request(5, &asks("GET", "/a/../b"));
    let (status, said) = client.answer(5);
    assert!(status == 400 && said.starts_with(b"400 Bad Request"), "{status}");
    assert!(client.lives());
    for (path, status) in [("/a/../b", "400"), (long.as_str(), "414")] {
        let mut client = gate.client();
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let mut answer = String::new();
        client.stream().read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Content-Length: ") && body.is_empty(), "{answer}");
    }
}

#[test]
fn curl_is_served_over_every_version_on_the_same_listener() {
    let upstream = Upstream::with("v1", |exchange| {
        let body = exchange.read_body().to_vec();
        exchange.answer(200, &[], if body.is_empty() { b"v1" } else { &body })
    });
    let gate = Gate::start(&Config::with(Service::only(upstream.port())).text());
    let url = format!("http://127.0.0.1:{}/a?b=c", gate.port());
    for (how, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        assert_eq!(curl(&[how, &url]), (format!("{version} 200"), "v1".to_owned()));
        let body = "x".repeat(300_000);
        let file = gate.directory().join("body");
        std::fs::write(&file, &body).unwrap();
        let sent = curl(&[how, "--data-binary", &format!("@{}", file.display()), &url]);
        assert!(sent == (format!("{version} 200"), body), "{how}");
        let head = curl(&[how, "--head", &url]).0;
        assert_eq!(head, format!("{version} 200"));
    }
    assert_eq!(upstream.requests()[3].head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(upstream.requests()[3].target, "/a?b=c");
    let line = gate.access_line("a request over HTTP/2", |line| line["protocol"] == "HTTP/2.0");
    assert_eq!((&line["status"], &line["version"]), (&200.into(), &"v1".into()));
}

#[test]
fn over_tls_client_and_proxy_agree_on_what_is_spoken() {
    let upstream = Upstream::named("v1");
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let pair = authority.server(&["shop.example"]).write(directory.path(), "shop");
    authority.write(&directory.path().join("ca.pem"));
    let config = Config::with(Service::only(upstream.port())).listener(&format!("tls: {{ certificates: [{pair}] }}"));
    let gate = Gate::start_in(directory, &config.text());
    let (port, ca) = (gate.port(), gate.directory().join("ca.pem"));
    let resolve = format!("shop.example:{port}:127.0.0.1");
    let url = format!("https://shop.example:{port}/");
    for (how, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answered = curl(&[how, "--cacert", ca.to_str().unwrap(), "--resolve", &resolve, &url]);
        assert_eq!(answered, (format!("{version} 200"), "v1".to_owned()));
    }
    assert_eq!(upstream.last().head.get("x-forwarded-proto"), Some("https"));
}

#[test]
fn a_split_is_exact_over_many_streams_of_few_connections() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let service = Service::split(v1.port(), 90, v2.port(), 10);
    // So many connections at once may be more than an endpoint takes: one of them is then asked for again after a second.
    let service = service.pools("timeouts: { connect: 15s }");
    let gate = Gate::start(&Config::with(service).text());
    let url = format!("http://127.0.0.1:{}/", gate.port());
    let said = run(
        "h2load",
        &["--requests=2000", "--clients=4", "--max-concurrent-streams=50", &url],
    );
    assert!(
        said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{said}"
    );
    assert_eq!(v1.count() + v2.count(), 2000);
    assert!((195..=205).contains(&v2.count()), "{} to the canary", v2.count());
    gate.expect_metric(
        "rollgate_requests_total",
        &[("version", "v2"), ("code", "200")],
        v2.count() as f64,
    );
    gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
}

#[test]
fn a_client_that_takes_an_answer_back_ends_the_request_upstream() {
    let (told, hears) = mpsc::channel();
    let upstream = Upstream::with("v1", move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
        while exchange.try_send(b"1\r\ny\r\n") {
            std::thread::sleep(Duration::from_millis(20));
        }
        told.send(()).unwrap();
        Then::Close
    });
    let gate = Gate::start(&Config::with(Service::only(upstream.port())).text());
    let mut client = RawClient::greeted(gate.port());
    client.request(1, &GET);
    client.until("the answer begins", |frame| frame.kind == DATA && frame.stream == 1);
    client.send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
    hears.recv_timeout(PATIENCE).expect("the endpoint's connection ends");
    assert!(client.lives());
    let line = gate.access_line("the request", |line| line["protocol"] == "HTTP/2.0");
    assert_eq!(
        (&line["status"], &line["termination"]),
        (&499.into(), &"client_abort_answer".into())
    );
}

#[test]
fn an_endpoint_is_held_back_by_a_client_that_takes_nothing() {
    const MOST: usize = 64 << 20;
    let (told, hears) = mpsc::channel();
    let upstream = Upstream::with("v1", move |exchange| {
        exchange.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MOST}\r\n\r\n"));
        let piece = vec![b'x'; 64 << 10];
        for n in 0..MOST / piece.len() {
            if !exchange.try_send(&piece) {
                return Then::Close;
            }
            told.send((n + 1) * piece.len()).ok();
        }
        Then::Keep
    });
    let gate = Gate::start(&Config::with(Service::only(upstream.port())).text());
    let mut client = RawClient::greeted(gate.port());
    client.request(1, &GET);
    let mut sent = 0;
    // Until nothing more is taken for a second: what lies between is in windows, buffers and the kernel's sockets.
    while let Ok(bytes) = hears.recv_timeout(Duration::from_secs(1)) {
        sent = bytes;
    }
    assert!(
        sent < MOST / 2,
        "{sent} bytes were taken for a client that takes nothing"
    );
    // Others on the connection are not held up: the answer to a request without a route needs no endpoint.
    client.send(WINDOW_UPDATE, 0, 0, (1u32 << 20).to_be_bytes());
    let mut other = GET;
    other[0].1 = "TRACE";
    client.request(3, &[&other[..], &[("max-forwards", "0")]].concat());
    assert_eq!(client.answer(3).0, 405);
}

#[test]
fn a_process_that_stops_ends_what_is_under_way() {
    let (go, waits) = mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let upstream = Upstream::with("v1", move |exchange| {
        waits.lock().unwrap().recv_timeout(PATIENCE).ok();
        exchange.answer(200, &[], b"late")
    });
    let mut gate = Gate::start(&Config::with(Service::only(upstream.port())).text());
    let mut client = RawClient::greeted(gate.port());
    client.request(1, &GET);
    support::eventually(PATIENCE, "the request is there", || upstream.count() == 1);
    gate.signal("TERM");
    let farewell = client.until("a farewell", |frame| frame.kind == GOAWAY);
    assert_eq!(farewell.error(), NO_ERROR);
    go.send(()).unwrap();
    assert_eq!(client.answer(1), (200, b"late".to_vec()));
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
}
