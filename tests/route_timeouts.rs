//! Routes that say for themselves how long a request may take.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;
use support::{Broken, Config, Gate, Service, Then, Upstream, in_parallel};

/// Begins its answer after a while, and ends it a while later: the path says how long, in milliseconds, or `never`.
fn slow() -> Upstream {
    Upstream::with("v1", |exchange| {
        exchange.read_body();
        let target = exchange.request.target.clone();
        let (before, within) = target.rsplit('/').next().unwrap().split_once('-').unwrap();
        for (wait, then) in [
            (before, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha"),
            (within, "lf"),
        ] {
            if wait == "never" {
                return exchange.stay_silent();
            }
            std::thread::sleep(Duration::from_millis(wait.parse().unwrap()));
            exchange.send(then);
        }
        Then::Close
    })
}

fn gate(upstream: &Upstream) -> Gate {
    let service = Service::only(upstream.port())
        .route("path_prefix: /hasty, timeouts: { first_byte: 2s }")
        .route("path_prefix: /short, timeouts: { request: 300ms }")
        .route("path_prefix: /patient, timeouts: { request: 1m, first_byte: 1m, idle: 1m }")
        .route("path_prefix: /")
        .never_eject()
        .pools("timeouts: { connect: 20s, first_byte: 4s, idle: 4s }");
    Gate::start(&Config::with(service).limit("request_timeout: 7s").text())
}

#[test]
fn a_route_is_stricter_or_more_patient_than_the_rest() {
    let upstream = slow();
    let gate = gate(&upstream);
    let cases = [
        ("/hasty/0-0", Ok((200, "half"))),
        ("/hasty/never-0", Ok((504, "timeouts.first_byte"))),
        ("/short/never-0", Ok((504, "timeouts.request of the route"))),
        // The pool has 4 s.
        ("/plain/2500-0", Ok((200, "half"))),
        ("/plain/never-0", Ok((504, ""))),
        ("/plain/0-never", Err("silence for 4 s")),
        // Longer than everything that holds elsewhere: the first byte, silence within the answer, the whole.
        ("/patient/4500-4500", Ok((200, "half"))),
    ];
    in_parallel(cases.len(), |nth| {
        let (path, expected) = cases[nth];
        match (gate.client().try_request("GET", path, &[], b""), expected) {
            (Ok(response), Ok((status, text))) => {
                assert_eq!(response.status, status, "{path}");
                assert!(response.text().contains(text), "{path}: {}", response.text());
            }
            (Err(Broken::Cut(_)), Err(_)) => {}
            (other, _) => panic!("{path}: {other:?}"),
        }
    });
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
