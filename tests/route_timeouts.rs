//! Routes that say for themselves how long a request may take.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;
use support::{Config, Gate, Service, Then, Upstream};

/// Begins its answer after a while, and ends it a while later: the path says how long, in milliseconds.
fn slow() -> Upstream {
    Upstream::with("v1", |exchange| {
        exchange.read_body();
        let waits: Vec<u64> = exchange
            .request
            .target
            .rsplit('/')
            .next()
            .unwrap()
            .split('-')
            .map(|n| n.parse().unwrap())
            .collect();
        std::thread::sleep(Duration::from_millis(waits[0]));
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha");
        std::thread::sleep(Duration::from_millis(waits[1]));
        exchange.send("lf");
        Then::Close
    })
}

fn gate(upstream: &Upstream) -> Gate {
    let service = Service::only(upstream.port())
        .route("path_prefix: /hasty, timeouts: { first_byte: 300ms }")
        .route("path_prefix: /short, timeouts: { request: 300ms }")
        .route("path_prefix: /patient, timeouts: { request: 20s, first_byte: 20s, idle: 20s }")
        .route("path_prefix: /")
        .never_eject()
        .pools("timeouts: { connect: 1s, first_byte: 900ms, idle: 900ms }");
    Gate::start(&Config::with(service).limit("request_timeout: 1500ms").text())
}

#[test]
fn a_route_is_stricter_or_more_patient_than_the_rest() {
    let upstream = slow();
    let gate = gate(&upstream);
    let why = |path: &str| {
        let response = gate.get(path, &[]);
        (response.status, response.text())
    };
    assert_eq!(why("/hasty/0-0").0, 200);
    let (status, text) = why("/hasty/700-0");
    assert_eq!((status, text.contains("timeouts.first_byte")), (504, true), "{text}");
    let (status, text) = why("/short/800-0");
    assert_eq!(
        (status, text.contains("timeouts.request of the route")),
        (504, true),
        "{text}"
    );
    assert_eq!(why("/plain/700-0").0, 200, "the pool has 900 ms");
    assert_eq!(why("/plain/1400-0").0, 504);
    // Longer than everything that holds elsewhere: the first byte, silence within the answer, the whole.
    assert_eq!(why("/patient/1800-1800").0, 200);
    assert!(
        gate.client().try_request("GET", "/plain/0-1400", &[], b"").is_err(),
        "silence for 900 ms"
    );
    for (code, count) in [
        ("upstream_timeout", 2.0),
        ("deadline", 1.0),
        ("upstream_idle", 1.0),
        ("ok", 3.0),
    ] {
        gate.expect_metric("rollgate_terminations_total", &[("code", code)], count);
    }
    // All of them are the version's failures, like those of any other timeout.
    gate.expect_metric(
        "rollgate_request_failures_total",
        &[("version", "v1"), ("kind", "timeout")],
        4.0,
    );
}
