//! A failed attempt on a canary that stable answers instead: its client sees no error, the canary is charged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Instant;
use support::{Config, Gate, Service, Then, Upstream, in_parallel};

const RESCUE: &str = "rescue: { methods: [GET, HEAD, OPTIONS], on: [connect, reset, timeout, 5xx] }";

/// A service that sends half to `canary`, whose endpoint is never set aside, and rescues as `rescue` says.
fn service(stable: &Upstream, canary: u16, rescue: &str) -> Service {
    Service::split(stable.port(), 50, canary, 50).never_eject().key(rescue)
}

fn gate(stable: &Upstream, canary: u16, rescue: &str) -> Gate {
    Gate::start(&Config::with(service(stable, canary, rescue)).text())
}

fn failing_with(answer: &'static str) -> Upstream {
    Upstream::with("v2", move |exchange| {
        exchange.read_body();
        if answer.is_empty() {
            return Then::Reset;
        }
        exchange.send(answer);
        Then::Keep
    })
}

const UNAVAILABLE: &str = "HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nsick";

const CANARY: [(&str, &str); 2] = [("service", "shop"), ("version", "v2")];

#[test]
fn every_get_on_a_broken_canary_is_answered_by_stable_and_charged_to_the_canary() {
    for (kind, canary) in [("5xx", failing_with(UNAVAILABLE)), ("reset", failing_with(""))] {
        let stable = Upstream::named("v1");
        let gate = gate(&stable, canary.port(), RESCUE);
        in_parallel(4, |_| {
            let mut client = gate.client();
            for n in 0..100 {
                let response = client.get("/", &[]);
                assert_eq!(response.status, 200, "{kind} {n}");
            }
        });
        // Each rescued request has ended on both versions.
        gate.expect_metric("rollgate_requests_total", &[("version", "v1"), ("code", "200")], 400.0);
        gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
        // The split is exact within a few requests.
        let on_canary = gate.metric("rollgate_requests_total", &CANARY);
        assert!((198.0..=202.0).contains(&on_canary), "{kind}: {on_canary}");
        gate.expect_metric("rollgate_rescues_total", &CANARY, on_canary);
        let kinds = [("service", "shop"), ("version", "v2"), ("kind", kind)];
        gate.expect_metric("rollgate_request_failures_total", &kinds, on_canary);
        gate.expect_metric("rollgate_request_failures_total", &[("version", "v1")], 0.0);
        let line = gate.access_line("a rescued request", |line| line["rescued"] == "v2");
        assert_eq!(
            (line["version"].as_str(), line["status"].as_u64()),
            (Some("v1"), Some(200))
        );
        assert_eq!(line["reason"], "weight");
    }
}

#[test]
fn a_canary_that_does_not_answer_in_time_is_rescued() {
    let stable = Upstream::named("v1");
    let canary = support::Blackhole::new();
    let silent = Upstream::with("v2", |exchange| exchange.stay_silent());
    for port in [silent.port(), canary.port()] {
        // Stable has all the time that it needs.
        let service = Service::new("shop")
            .canary("v2", 50, &[port])
            .pools("timeouts: { connect: 500ms, first_byte: 300ms }")
            .stable("v1", 50, &[stable.port()])
            .never_eject()
            .key(RESCUE);
        let gate = Gate::start(&Config::with(service).text());
        let mut client = gate.client();
        for _ in 0..6 {
            assert_eq!(client.get("/", &[]).status, 200);
        }
    }
}

#[test]
fn unsafe_methods_and_answers_that_began_are_not_rescued() {
    let stable = Upstream::named("v1");
    let canary = failing_with(UNAVAILABLE);
    let gate = gate(&stable, canary.port(), RESCUE);
    let mut client = gate.client();
    let statuses: Vec<u16> = (0..10)
        .map(|_| client.request("POST", "/", &[], b"order").status)
        .collect();
    assert_eq!(
        statuses.iter().filter(|&&status| status == 503).count(),
        5,
        "{statuses:?}"
    );
    assert_eq!(stable.count() + canary.count(), 10, "no POST is sent twice");

    let cutting = Upstream::with("v2", |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        Then::Close
    });
    let gate = self::gate(&stable, cutting.port(), RESCUE);
    let whole = (0..10)
        .filter(|_| gate.client().try_request("GET", "/", &[], b"").is_ok())
        .count();
    assert_eq!(whole, 5, "an answer that began is cut, not replaced");
}

#[test]
fn a_configured_post_is_rescued_with_its_body() {
    let stable = Upstream::named("v1");
    let canary = failing_with(UNAVAILABLE);
    let gate = gate(&stable, canary.port(), "rescue: { methods: [POST], on: [5xx] }");
    let mut client = gate.client();
    for n in 0..10 {
        let body = format!("order {n}");
        assert_eq!(client.request("POST", "/", &[], body.as_bytes()).status, 200);
        assert_eq!(stable.last().body, body.as_bytes());
    }
    assert_eq!(canary.count(), 5);
    // More than is kept of a body cannot be sent again.
    let large = vec![b'x'; 100_000];
    let statuses: Vec<u16> = (0..10)
        .map(|_| client.request("POST", "/", &[], &large).status)
        .collect();
    assert_eq!(
        statuses.iter().filter(|&&status| status == 503).count(),
        5,
        "{statuses:?}"
    );
}

#[test]
fn when_stable_fails_too_rescues_stay_within_the_budget() {
    let stable = failing_with(UNAVAILABLE);
    let canary = failing_with(UNAVAILABLE);
    let service = service(&stable, canary.port(), RESCUE);
    let gate = Gate::start(&Config::with(service).top("threads: 1").text());
    let (requests, start) = (1000, Instant::now());
    in_parallel(4, |_| {
        let mut client = gate.client();
        for _ in 0..requests / 4 {
            assert_eq!(client.get("/", &[]).status, 503);
        }
    });
    let sent = stable.count() + canary.count();
    // Three a second are always allowed, however few the requests.
    let always = 3 * (start.elapsed().as_secs() as usize + 1);
    assert!(
        sent <= requests + requests / 5 + 60 + always,
        "{sent} sent for {requests}"
    );
}

#[test]
fn without_the_key_a_client_sees_the_canary_fail() {
    let stable = Upstream::named("v1");
    let canary = failing_with(UNAVAILABLE);
    let gate = gate(&stable, canary.port(), "fallback: stable");
    let mut client = gate.client();
    let failed = (0..10).filter(|_| client.get("/", &[]).text() == "sick").count();
    assert_eq!(failed, 5);
}
