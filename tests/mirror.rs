//! A share of requests copied for another version: nothing of it reaches a client, a golden signal or the judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::mpsc;
use std::time::Duration;
use support::{Client, Config, Dam, Gate, Operator, PATIENCE, Service, Then, Upstream, eventually, in_parallel};

const COPIES: [(&str, &str); 2] = [("service", "shop"), ("version", "v2")];

/// A gate that sends everything to `v1`, and copies for `v2` as `mirror` says.
fn gate(v1: &Upstream, v2: u16, mirror: &str) -> Gate {
    let service = Service::split(v1.port(), 100, v2, 0).key(&format!("mirror: {{ version: v2, {mirror} }}"));
    Gate::start(&Config::with(service).text())
}

fn with(
    labels: [(&'static str, &'static str); 2],
    label: (&'static str, &'static str),
) -> Vec<(&'static str, &'static str)> {
    labels.into_iter().chain([label]).collect()
}

#[test]
fn a_copy_is_the_request_and_its_answer_is_dropped() {
    let v1 = Upstream::named("v1");
    let v2 = Upstream::with("v2", |exchange| {
        exchange.answer(404, &[("set-cookie", "a=b")], &[b'x'; 300_000])
    });
    let gate = gate(&v1, v2.port(), "share: 100%");
    let mut client = gate.client();
    for _ in 0..20 {
        let response = client.get("/a?b=c", &[("x-one", "1"), ("x-rollgate-mirror", "mine")]);
        assert_eq!((response.status, response.served_by()), (200, "v1"));
        assert_eq!((response.header("set-cookie"), response.text().as_str()), (None, "v1"));
    }
    gate.expect_metric("rollgate_mirror_requests_total", &with(COPIES, ("code", "404")), 20.0);
    let (original, copy) = (v1.last(), v2.last());
    assert_eq!((copy.method.as_str(), copy.target.as_str()), ("GET", "/a?b=c"));
    for field in ["host", "x-one", "x-forwarded-for"] {
        assert_eq!(copy.head.get(field), original.head.get(field), "{field}");
    }
    assert_eq!(copy.head.get("x-rollgate-version"), Some("v2"));
    assert_eq!(copy.head.get("x-rollgate-mirror"), Some("true"));
    assert_eq!(original.head.get("x-rollgate-mirror"), None);
    let ids = |upstream: &Upstream| {
        let mut ids: Vec<_> = upstream
            .requests()
            .iter()
            .map(|r| r.head.get("x-request-id").unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&v1), ids(&v2));
    // Counted apart: neither the version nor the service has seen more than its clients.
    gate.expect_metric("rollgate_requests_total", &[("service", "shop")], 20.0);
    assert_eq!(gate.metrics().sum("rollgate_requests_total", &[("version", "v2")]), 0.0);
    gate.expect_metric(
        "rollgate_mirror_compared_total",
        &with(COPIES, ("result", "status")),
        20.0,
    );
    gate.expect_metric("rollgate_mirror_duration_seconds_count", &COPIES, 20.0);
    gate.expect_metric("rollgate_mirror_original_duration_seconds_count", &COPIES, 20.0);
    gate.expect_metric("rollgate_mirror_requests_in_flight", &COPIES, 0.0);
    // Connections are used again, whatever the answer: it was read to its end.
    assert_eq!(client.get("/last", &[]).status, 200);
    gate.expect_metric("rollgate_mirror_requests_total", &COPIES, 21.0);
    assert!(v2.last().nth > 0 && v2.last().target == "/last", "{:?}", v2.last());
}

#[test]
fn a_share_is_a_share() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let gate = gate(&v1, v2.port(), "share: 25%");
    in_parallel(4, |_| {
        let mut client = gate.client();
        for _ in 0..500 {
            assert_eq!(client.get("/", &[]).status, 200);
        }
    });
    // By chance: six standard deviations of a binomial are 116. A version that stands still for a moment is spared some of them.
    let mut copies = 0.0;
    eventually(PATIENCE, "the copies have arrived", || {
        let metrics = gate.metrics();
        copies = metrics.sum("rollgate_mirror_compared_total", &with(COPIES, ("result", "same")));
        let spared = metrics.sum("rollgate_mirror_dropped_total", &with(COPIES, ("reason", "queue_full")));
        let under_way = metrics.sum("rollgate_mirror_requests_in_flight", &COPIES);
        assert!(copies + spared < 616.0, "{copies} and {spared}");
        under_way == 0.0 && copies + spared > 384.0 && copies == v2.count() as f64
    });
    assert!(copies > 0.0);
}

#[test]
fn only_listed_methods_are_copied_and_bodies_with_them() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let gate = gate(&v1, v2.port(), "methods: [GET, POST]");
    let mut client = gate.client();
    for method in ["HEAD", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(client.request(method, "/not", &[], b"").status, 200);
    }
    assert_eq!(client.request("POST", "/by-length", &[], b"hello").status, 200);
    client.send("POST /chunked HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.read(false).unwrap().status, 200);
    client.send("POST /expected HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\nhello");
    assert_eq!(client.read(false).unwrap().status, 200);
    assert_eq!(client.request("POST", "/large", &[], &[b'x'; 70_000]).status, 200);
    let url = format!("http://127.0.0.1:{}/by-http2", gate.port());
    let curl = std::process::Command::new("curl")
        .args(["-sf", "--http2-prior-knowledge", "-d", "hello", &url])
        .output();
    assert_eq!(curl.unwrap().stdout, b"v1");
    assert_eq!(client.get("/yes", &[]).status, 200);
    eventually(PATIENCE, "the copies have arrived", || {
        v2.requests().iter().filter(|r| r.complete).count() >= 5
    });
    let mut copies: Vec<_> = v2.requests().into_iter().map(|r| (r.target, r.body)).collect();
    copies.sort();
    let expected = [
        ("/by-http2", "hello"),
        ("/by-length", "hello"),
        ("/chunked", "hello"),
        ("/expected", "hello"),
        ("/yes", ""),
    ];
    assert_eq!(
        copies,
        expected.map(|(target, body)| (target.to_owned(), body.as_bytes().to_vec()))
    );
    gate.expect_metric("rollgate_mirror_dropped_total", &with(COPIES, ("reason", "body")), 1.0);
}

#[test]
fn a_version_that_hangs_delays_nobody_and_what_it_cannot_take_is_counted() {
    let v1 = Upstream::named("v1");
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let v2 = Upstream::with("v2", move |_| {
        // Nobody is answered before the end of the test.
        let _ = held.lock().unwrap().recv();
        Then::Close
    });
    let service = Service::split(v1.port(), 100, v2.port(), 0)
        .pools("timeouts: { connect: 60s, first_byte: 60s }")
        .key("mirror: { version: v2 }");
    let gate = Gate::start(&Config::with(service).top("threads: 1").text());
    let mut client = gate.client();
    // Who waited for a copy would wait to the end of the test.
    for _ in 0..500 {
        assert_eq!(client.get("/", &[]).status, 200);
    }
    // 64 are under way and 256 wait.
    expect_dropped(&gate, "queue_full", 180.0);
    gate.expect_metric("rollgate_mirror_requests_in_flight", &COPIES, 64.0);
    assert_eq!(gate.metrics().sum("rollgate_endpoint_healthy", &COPIES), 1.0);
    drop(release);
    gate.expect_metric(
        "rollgate_mirror_compared_total",
        &with(COPIES, ("result", "failed")),
        320.0,
    );
    gate.expect_metric(
        "rollgate_mirror_request_failures_total",
        &with(COPIES, ("kind", "reset")),
        320.0,
    );
    // It fails copies alone: no live request is charged, and no endpoint set aside.
    assert_eq!(gate.metrics().sum("rollgate_request_failures_total", &[]), 0.0);
    assert_eq!(gate.metrics().sum("rollgate_endpoint_healthy", &COPIES), 1.0);
}

#[test]
fn copies_that_fail_are_told_from_originals_that_do() {
    let v1 = Upstream::with("v1", |exchange| {
        let status = if exchange.request.target == "/bad" { 500 } else { 200 };
        exchange.answer(status, &[], b"")
    });
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let v2 = Upstream::with("v2", move |exchange| match exchange.request.target.as_str() {
        "/reset" => Then::Reset,
        "/late" => {
            // To the end of the test.
            let _ = held.lock().unwrap().recv();
            Then::Close
        }
        "/broken" => {
            exchange.send("HTTP/1.1 what\r\n\r\n");
            Then::Close
        }
        _ => exchange.answer(200, &[], b"well"),
    });
    let service = Service::split(v1.port(), 100, v2.port(), 0)
        .route("path: /late, timeouts: { first_byte: 2s }")
        .route("path_prefix: /")
        .key("mirror: { version: v2 }");
    let gate = Gate::start(&Config::with(service).text());
    let mut client = gate.client();
    for path in ["/reset", "/late", "/broken", "/bad", "/good", "/good"] {
        client.get(path, &[]);
    }
    for (result, count) in [
        ("failed", 3.0),
        ("original_failed", 1.0),
        ("same", 2.0),
        ("status", 0.0),
    ] {
        gate.expect_metric(
            "rollgate_mirror_compared_total",
            &with(COPIES, ("result", result)),
            count,
        );
    }
    for (kind, count) in [("reset", 1.0), ("timeout", 1.0), ("protocol", 1.0), ("5xx", 0.0)] {
        gate.expect_metric(
            "rollgate_mirror_request_failures_total",
            &with(COPIES, ("kind", kind)),
            count,
        );
    }
    gate.expect_metric("rollgate_mirror_requests_total", &with(COPIES, ("code", "504")), 1.0);
    drop(release);
}

#[test]
fn what_the_version_serves_itself_is_not_copied_and_nothing_is_under_a_kill_switch() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let rule = "rules:\n  - { name: forced, when: { header: x-version, equals: v2 }, version: v2 }";
    let service = Service::split(v1.port(), 100, v2.port(), 0)
        .key("mirror: { version: v2 }")
        .key(rule);
    let gate = Gate::start(&Config::with(service).text());
    let mut client = gate.client();
    assert_eq!(client.get("/own", &[("x-version", "v2")]).served_by(), "v2");
    kill(&gate);
    assert_eq!(client.get("/killed", &[]).served_by(), "v1");
    expect_dropped(&gate, "killed", 1.0);
    Operator::of(&gate).delete("/v1/services/shop/kill").expect_ok();
    assert_eq!(client.get("/again", &[]).served_by(), "v1");
    gate.expect_metric("rollgate_mirror_requests_total", &COPIES, 1.0);
    let targets: Vec<_> = v2.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/own", "/again"]);
}

/// So many copies were not sent, for this reason.
fn expect_dropped(gate: &Gate, reason: &'static str, copies: f64) {
    gate.expect_metric(
        "rollgate_mirror_dropped_total",
        &with(COPIES, ("reason", reason)),
        copies,
    );
}

fn kill(gate: &Gate) {
    Operator::of(gate)
        .put("/v1/services/shop/kill", r#"{"reason":"test"}"#)
        .expect_ok();
}

/// What was in force when a request began says nothing about where its copy may go when it is answered.
#[test]
fn requests_in_flight_at_a_kill_are_not_copied() {
    let dam = Dam::default();
    let (v1, v2) = (dam.upstream("v1"), Upstream::named("v2"));
    let gate = gate(&v1, v2.port(), "methods: [GET, POST]");
    let port = gate.port();
    let clients: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || Client::connect(port).request("POST", "/", &[], b"x").status))
        .collect();
    eventually(PATIENCE, "all are in flight", || v1.count() == 4);
    kill(&gate);
    dam.open();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
    expect_dropped(&gate, "killed", 4.0);
    assert_eq!(v2.count(), 0);
}

#[test]
fn copies_that_wait_at_a_kill_are_never_sent() {
    let v1 = Upstream::named("v1");
    let dam = Dam::default();
    let v2 = dam.upstream("v2");
    let service = Service::split(v1.port(), 100, v2.port(), 0).key("mirror: { version: v2 }");
    let gate = Gate::start(&Config::with(service).top("threads: 1").text());
    let mut client = gate.client();
    for _ in 0..164 {
        assert_eq!(client.get("/", &[]).status, 200);
    }
    eventually(PATIENCE, "64 are under way", || v2.count() == 64);
    kill(&gate);
    dam.open();
    expect_dropped(&gate, "killed", 100.0);
    gate.expect_metric("rollgate_mirror_requests_total", &with(COPIES, ("code", "200")), 64.0);
    assert_eq!(v2.count(), 64);
}

/// As requests do; and what is refused has no part in what is told of requests.
#[test]
fn a_version_gets_no_more_copies_than_its_own_limits_allow() {
    let v1 = Upstream::named("v1");
    let dam = Dam::default();
    let v2 = dam.upstream("v2");
    let rule = "rules:\n  - { name: forced, when: { header: x-version, equals: v2 }, version: v2 }";
    let limited = |limits: &str| {
        let service = Service::split(v1.port(), 100, v2.port(), 0)
            .key("mirror: { version: v2 }")
            .key("rate_limits: [{ requests: 30, per: 1h }]")
            .key(rule);
        let text = Config::with(service).text();
        let (before, after) = text.rsplit_once("        pool:").unwrap();
        Gate::start(&format!("{before}        {limits}\n        pool:{after}"))
    };
    let dropped = |gate: &Gate, reason, count| {
        gate.expect_metric(
            "rollgate_mirror_dropped_total",
            &with(COPIES, ("reason", reason)),
            count,
        );
        gate.expect_metric("rollgate_requests_limited_total", &[], 0.0);
    };
    let gate = limited("max_in_flight: 3");
    let mut client = gate.client();
    for n in 1..=10 {
        assert_eq!(client.get("/", &[]).served_by(), "v1");
        eventually(PATIENCE, "the copy is under way", || v2.count() == n.min(3));
    }
    dropped(&gate, "max_in_flight", 7.0);
    assert_eq!(
        client.get("/", &[("x-version", "v2")]).status,
        503,
        "they take up places"
    );
    dam.open();
    gate.expect_metric("rollgate_mirror_requests_in_flight", &COPIES, 0.0);
    assert_eq!(client.get("/", &[("x-version", "v2")]).served_by(), "v2", "and leave");

    let before = v2.count();
    let gate = limited("rate_limits: [{ requests: 2, per: 1h, key: [{ header: x-user }] }]");
    let mut client = gate.client();
    for _ in 0..10 {
        for user in ["ada", "bob"] {
            assert_eq!(client.get("/", &[("x-user", user)]).served_by(), "v1");
        }
    }
    dropped(&gate, "rate_limited", 16.0);
    gate.expect_metric("rollgate_mirror_requests_total", &COPIES, 4.0);
    assert_eq!(v2.count(), before + 4);
    let mut served = || client.get("/", &[]).status == 200;
    assert!(
        (0..10).all(|_| served()) && !served(),
        "copies are no requests of the service"
    );
}

#[test]
fn counts_go_on_over_a_reload_and_begin_anew_for_another_version() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let config = |mirror: &str| {
        let service = Service::split(v1.port(), 100, v2.port(), 0).canary("v3", 0, &[v2.port()]);
        Config::with(service.key(mirror)).text()
    };
    let gate = Gate::start(&config("mirror: { version: v2 }"));
    let reload = |mirror: &str| {
        let generation = gate.metric("rollgate_config_generation", &[]);
        gate.write_config(&config(mirror), support::Write::Rename);
        eventually(PATIENCE, "the file is in force", || {
            gate.metric("rollgate_config_generation", &[]) > generation
        });
    };
    let mut client = gate.client();
    client.get("/", &[]);
    gate.expect_metric("rollgate_mirror_requests_total", &COPIES, 1.0);
    reload("mirror: { version: v2, methods: [GET, POST] }");
    client.request("POST", "/", &[], b"x");
    gate.expect_metric("rollgate_mirror_requests_total", &COPIES, 2.0);
    reload("mirror: { version: v3 }");
    client.get("/", &[]);
    gate.expect_metric("rollgate_mirror_requests_total", &[("version", "v3")], 1.0);
    assert_eq!(gate.metrics().count("rollgate_mirror_requests_total", &COPIES), 0);
    reload("");
    client.get("/", &[]);
    assert_eq!(gate.metrics().count("rollgate_mirror_dropped_total", &[]), 0);
}

/// As requests are: what one endpoint did not take is no failure of the version.
#[test]
fn a_copy_that_an_endpoint_did_not_take_is_tried_on_another_one() {
    let (v1, good) = (Upstream::named("v1"), Upstream::named("v2"));
    let bad = Upstream::with("v2", |_| Then::Reset);
    let service = Service::new("shop")
        .stable("v1", 100, &[v1.port()])
        .canary("v2", 0, &[good.port(), bad.port()])
        .key("mirror: { version: v2, methods: [GET, POST] }");
    let gate = Gate::start(&Config::with(service).text());
    let mut client = gate.client();
    for _ in 0..40 {
        assert_eq!(client.get("/", &[]).status, 200);
    }
    gate.expect_metric(
        "rollgate_mirror_compared_total",
        &with(COPIES, ("result", "same")),
        40.0,
    );
    assert!(bad.count() > 0, "it was asked");
    assert_eq!(good.count(), 40);
    // What may not happen twice is sent once.
    let before = bad.count();
    for sent in 1.. {
        assert_eq!(client.request("POST", "/", &[], b"x").status, 200);
        gate.expect_metric("rollgate_mirror_compared_total", &COPIES, 40.0 + f64::from(sent));
        if bad.count() > before {
            break;
        }
    }
    gate.expect_metric(
        "rollgate_mirror_compared_total",
        &with(COPIES, ("result", "failed")),
        1.0,
    );
}

/// A version that takes as long as its route allows has not failed.
#[test]
fn copies_have_the_time_that_their_route_gives() {
    let v1 = Upstream::named("v1");
    let v2 = Upstream::with("v2", |exchange| {
        std::thread::sleep(Duration::from_millis(800));
        exchange.answer(200, &[], b"")
    });
    // Stable has all the time it needs.
    let service = Service::new("shop")
        .canary("v2", 0, &[v2.port()])
        .pools("timeouts: { first_byte: 300ms }")
        .stable("v1", 100, &[v1.port()])
        .route("path_prefix: /patient, timeouts: { first_byte: 20s }")
        .route("path_prefix: /")
        .key("mirror: { version: v2 }");
    let gate = Gate::start(&Config::with(service).text());
    for (path, result) in [("/patient", "same"), ("/hasty", "failed")] {
        assert_eq!(gate.get(path, &[]).status, 200);
        gate.expect_metric("rollgate_mirror_compared_total", &with(COPIES, ("result", result)), 1.0);
    }
}
