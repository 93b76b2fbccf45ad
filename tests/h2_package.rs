//! The `h2` package of Python as a client that misbehaves: an implementation that shares nothing with the proxy's, nor with
//! the frames that other tests write by hand. `h2_package/misbehave.py` has the cases; here stands what must come of them.
//! After each the next client is served, and while the client keeps to the protocol, so does the proxy: the package's own
//! state machine judges what it sends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use support::{Config, Exchange, Gate, PATIENCE, Service, Then, Upstream, python_file, python_program};

/// What the process may grow by, in KiB.
const GROWTH_KIB: u64 = 32 * 1024;
const MAX_STREAMS: usize = 20;

// Codes of errors (RFC 9113 section 7).
const PROTOCOL_ERROR: u64 = 1;
const FLOW_CONTROL_ERROR: u64 = 3;
const STREAM_CLOSED: u64 = 5;
const REFUSED_STREAM: u64 = 7;
const CANCEL: u64 = 8;
const ENHANCE_YOUR_CALM: u64 = 11;

/// What the endpoint does by path: `/echo` gives the body back, `/large` sends far more than any window takes and `/sending`
/// tells how many of those have begun and how many are under way, `/wait` waits, without a look at the body, for `/release`.
#[derive(Default)]
struct Endpoint {
    begun: AtomicUsize,
    sending: AtomicUsize,
    released: Mutex<bool>,
    bell: Condvar,
}

impl Endpoint {
    fn serve(&self, exchange: &mut Exchange<'_>) -> Then {
        match exchange.request.target.as_str() {
            "/echo" => {
                let body = exchange.read_body().to_vec();
                exchange.answer(200, &[], &body)
            }
            "/large" => {
                self.sending.fetch_add(1, Ordering::SeqCst);
                self.begun.fetch_add(1, Ordering::SeqCst);
                exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 16777216\r\n\r\n");
                let piece = vec![b'x'; 1 << 16];
                let whole = (0..256).all(|_| exchange.try_send(&piece));
                self.sending.fetch_sub(1, Ordering::SeqCst);
                if whole { Then::Keep } else { Then::Close }
            }
            "/sending" => {
                let (begun, sending) = (&self.begun, &self.sending);
                let told = format!("{} {}", begun.load(Ordering::SeqCst), sending.load(Ordering::SeqCst));
                exchange.answer(200, &[], told.as_bytes())
            }
            "/wait" => {
                let released = self.released.lock().unwrap();
                let waits = |released: &mut bool| !*released;
                drop(self.bell.wait_timeout_while(released, PATIENCE, waits).unwrap());
                exchange.answer(200, &[], b"v1");
                Then::Close
            }
            "/release" => {
                *self.released.lock().unwrap() = true;
                self.bell.notify_all();
                exchange.answer(200, &[], b"v1")
            }
            _ => {
                exchange.read_body();
                exchange.answer(200, &[], b"v1")
            }
        }
    }
}

struct Site {
    gate: Gate,
    upstream: Upstream,
    endpoint: Arc<Endpoint>,
}

/// What came of a case.
#[derive(Debug)]
struct Outcome {
    /// The code with which the connection ended; `None`: without a word.
    goaway: Option<u64>,
    ended: bool,
    /// By stream.
    resets: BTreeMap<usize, u64>,
    statuses: BTreeMap<usize, u64>,
    more: Value,
}

impl Site {
    fn new() -> Self {
        let endpoint = Arc::new(Endpoint::default());
        let serving = Arc::clone(&endpoint);
        let upstream = Upstream::with("v1", move |exchange| serving.serve(exchange));
        let service = Service::only(upstream.port()).pools("timeouts: { idle: 2s }");
        let config = Config::with(service).limit(&format!("max_streams: {MAX_STREAMS}"));
        Self {
            gate: Gate::start(&config.text()),
            upstream,
            endpoint,
        }
    }

    /// Carries out a case, and holds the proxy to what is true of each.
    fn misbehaves(&self, case: &str) -> Outcome {
        let before = self.gate.resident_kib();
        let output = Command::new(python_program("h2_package", "python"))
            .arg("-B")
            .arg(python_file("h2_package", "misbehave.py"))
            .args([case, &self.gate.port().to_string()])
            .output()
            .expect("start python");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{case}: {complaint}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["next"], 200, "{case}: the next client: {told}");
        assert_eq!(told["judgement"], Value::Null, "{case}: what the proxy sent: {told}");
        let grown = self.gate.resident_kib().saturating_sub(before);
        assert!(grown < GROWTH_KIB, "{case}: grown by {grown} KiB");
        self.endpoint
            .released
            .lock()
            .map(|mut released| *released = true)
            .unwrap();
        self.endpoint.bell.notify_all();
        self.gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
        assert_eq!(self.gate.metric("rollgate_panics_total", &[]), 0.0, "{case}");
        Outcome {
            goaway: told["goaway"].as_u64(),
            ended: told["ended"].as_bool().unwrap(),
            resets: by_stream(&told["resets"]),
            statuses: by_stream(&told["statuses"]),
            more: told,
        }
    }

    fn refused(&self, reason: &str, times: f64) {
        self.gate
            .expect_metric("rollgate_refusals_total", &[("reason", reason)], times);
    }
}

impl Outcome {
    /// The connection has ended, by this code.
    #[track_caller]
    fn ended_by(&self, codes: &[u64]) {
        let code = self.goaway.is_some_and(|code| codes.contains(&code));
        assert!(self.ended && code, "not by {codes:?}: {self:?}");
    }

    /// The streams were reset by this code, and the connection goes on.
    #[track_caller]
    fn only_reset(&self, streams: impl IntoIterator<Item = usize>, code: u64) {
        let wanted: BTreeMap<usize, u64> = streams.into_iter().map(|stream| (stream, code)).collect();
        assert!(
            !self.ended && self.goaway.is_none() && self.resets == wanted,
            "{self:?}"
        );
    }
}

fn by_stream(told: &Value) -> BTreeMap<usize, u64> {
    let of_stream = |(stream, value): (&String, &Value)| (stream.parse().unwrap(), value.as_u64().unwrap());
    told.as_object().unwrap().iter().map(of_stream).collect()
}

/// The first streams of a client.
fn streams(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(|n| 2 * n + 1)
}

#[test]
fn a_client_that_does_nothing_wrong_is_served() {
    let site = Site::new();
    let outcome = site.misbehaves("polite");
    assert!(!outcome.ended && outcome.resets.is_empty(), "{outcome:?}");
    assert!(outcome.statuses.len() == MAX_STREAMS && outcome.statuses.values().all(|status| *status == 200));
    assert_eq!(outcome.more["right"], true);
    let upload = site
        .upstream
        .requests()
        .into_iter()
        .find(|request| request.target == "/echo");
    assert_eq!(upload.unwrap().trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

#[test]
fn floods_end_the_connection_and_are_counted() {
    for case in [
        "rapid_reset",
        "continuation_flood",
        "endless_header_list",
        "settings_flood",
        "ping_flood",
    ] {
        let site = Site::new();
        let outcome = site.misbehaves(case);
        assert_eq!(outcome.more["all_sent"], false, "{case}: it went on");
        // The last word is lost to who goes on sending behind it.
        assert!(
            outcome.ended && matches!(outcome.goaway, None | Some(ENHANCE_YOUR_CALM)),
            "{case}: {outcome:?}"
        );
        site.refused("flood", 1.0);
        assert!(
            site.upstream.count() < 300,
            "{case}: {} reached the endpoint",
            site.upstream.count()
        );
    }
}

#[test]
fn a_head_that_compression_makes_small_is_as_large_as_it_means() {
    let site = Site::new();
    let outcome = site.misbehaves("hpack_bomb");
    assert_eq!(outcome.more["fits"], true, "one frame");
    outcome.ended_by(&[ENHANCE_YOUR_CALM]);
    site.refused("flood", 1.0);
    // The next client's.
    assert_eq!(site.upstream.count(), 1);
}

#[test]
fn who_takes_nothing_loses_the_stream_and_holds_up_nobody() {
    for case in ["window_of_nothing", "never_reads"] {
        let site = Site::new();
        let outcome = site.misbehaves(case);
        assert_eq!(outcome.more["meanwhile"], 200, "{case}");
        let count = outcome.more["streams"].as_u64().unwrap();
        outcome.only_reset(streams(usize::try_from(count).unwrap()), CANCEL);
        support::eventually(PATIENCE, "the endpoint is let go", || {
            site.endpoint.sending.load(Ordering::SeqCst) == 0
        });
        // The client's fault, and no version's.
        site.gate.expect_metric(
            "rollgate_terminations_total",
            &[("code", "client_timeout")],
            count as f64,
        );
        assert_eq!(site.gate.metric("rollgate_request_failures_total", &[]), 0.0, "{case}");
    }
}

#[test]
fn windows_beyond_all_bounds_are_errors_of_flow_control() {
    let site = Site::new();
    let of_connection = site.misbehaves("window_beyond_all_of_the_connection");
    of_connection.ended_by(&[FLOW_CONTROL_ERROR]);
    let site = Site::new();
    let of_stream = site.misbehaves("window_beyond_all_of_a_stream");
    of_stream.only_reset([1], FLOW_CONTROL_ERROR);
    assert_eq!(of_stream.more["lives"], true);
    let site = Site::new();
    let beyond = site.misbehaves("data_beyond_the_window");
    assert_eq!(beyond.more["all_sent"], false);
    assert!(
        beyond.ended && matches!(beyond.goaway, None | Some(FLOW_CONTROL_ERROR)),
        "{beyond:?}"
    );
}

#[test]
fn data_where_none_belongs() {
    let site = Site::new();
    // RFC 9113 section 5.1 has the stream closed; section 7 allows PROTOCOL_ERROR for all there is.
    site.misbehaves("data_after_the_end")
        .ended_by(&[PROTOCOL_ERROR, STREAM_CLOSED]);
    site.misbehaves("data_on_a_stream_that_was_never_begun")
        .ended_by(&[PROTOCOL_ERROR]);
    let closed = site.misbehaves("data_on_a_closed_stream");
    assert_eq!(closed.statuses, BTreeMap::from([(1, 200)]));
    // It may have been on its way while the stream was closed: passed over, or reset.
    assert!(
        !closed.ended && closed.resets.iter().all(|reset| reset == (&1, &STREAM_CLOSED)),
        "{closed:?}"
    );
    assert_eq!(closed.more["lives"], true);
}

#[test]
fn streams_count_up_and_a_client_has_the_odd_ones() {
    let site = Site::new();
    for case in ["streams_that_count_down", "streams_of_the_server"] {
        site.misbehaves(case).ended_by(&[PROTOCOL_ERROR]);
    }
    site.refused("bad_request", 2.0);
}

#[test]
fn streams_beyond_the_limit_are_refused_and_the_others_served() {
    let site = Site::new();
    let outcome = site.misbehaves("too_many_streams");
    assert_eq!(outcome.more["most"], MAX_STREAMS);
    outcome.only_reset(streams(2 * MAX_STREAMS).skip(MAX_STREAMS), REFUSED_STREAM);
    assert!(outcome.statuses.keys().copied().eq(streams(MAX_STREAMS)), "{outcome:?}");
    let waited = site
        .upstream
        .requests()
        .iter()
        .filter(|request| request.target == "/wait")
        .count();
    assert_eq!(waited, MAX_STREAMS);
}

#[test]
fn trailers_bring_no_pseudo_fields() {
    let site = Site::new();
    let outcome = site.misbehaves("trailers_with_a_path_behind_a_field");
    outcome.only_reset([1], PROTOCOL_ERROR);
    assert_eq!(outcome.more["lives"], true);
    // Before other fields it is dropped, where RFC 9113 section 8.1 has the request refused: the endpoint sees nothing of it.
    let outcome = site.misbehaves("trailers_with_a_path");
    assert_eq!(outcome.statuses, BTreeMap::from([(1, 200)]));
    for request in site
        .upstream
        .requests()
        .iter()
        .filter(|request| request.target == "/echo" && request.complete)
    {
        assert_eq!(request.trailers, [("x-sum".to_owned(), "1".to_owned())]);
    }
}

#[test]
fn a_body_of_another_length_than_said_is_refused() {
    let site = Site::new();
    for case in ["body_shorter_than_said", "body_longer_than_said"] {
        let outcome = site.misbehaves(case);
        outcome.only_reset([1], PROTOCOL_ERROR);
        assert_eq!(outcome.more["lives"], true, "{case}");
    }
    let seen: Vec<_> = site
        .upstream
        .requests()
        .into_iter()
        .map(|request| (request.target, request.complete))
        .collect();
    assert!(
        !seen.contains(&("/echo".to_owned(), true)),
        "no endpoint took it for whole: {seen:?}"
    );
}
