//! Server-sent events and long polling: what comes is passed on at once, and only silence is bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use support::frames::*;
use support::{Config, Gate, PATIENCE, Service, Then, Upstream, eventually};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
const V1: (&str, &str) = ("version", "v1");

fn event(number: usize) -> String {
    format!("id: {number}\ndata: tick\n\n")
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Sends an event each time it is told to, and ends when nobody can tell it any more.
fn feed() -> (Upstream, Sender<()>) {
    let (tell, told) = channel();
    let told = Mutex::new(told);
    let upstream = Upstream::with("v1", move |exchange| {
        if exchange.request.target != "/events" {
            return exchange.answer(200, &[], b"other");
        }
        exchange.send(HEAD);
        for number in 0.. {
            if told.lock().unwrap().recv().is_err() {
                exchange.send("0\r\n\r\n");
                return Then::Keep;
            }
            if !exchange.try_send(chunk(&event(number)).as_bytes()) {
                return Then::Close;
            }
        }
        Then::Close
    });
    (upstream, tell)
}

fn gate(upstream: &Upstream, idle: &str) -> Gate {
    let service = Service::only(upstream.port()).pools(&format!("timeouts: {{ idle: {idle}, first_byte: 5s }}"));
    Gate::start(&Config::with(service).limit("request_timeout: 2s").text())
}

/// Longer than the whole request may take, were it none for events.
const LONG: Duration = Duration::from_millis(3_500);

#[test]
fn each_event_arrives_before_the_next_is_sent_for_as_long_as_they_come() {
    let (upstream, tell) = feed();
    let gate = gate(&upstream, "30s");
    let mut client = gate.client();
    client.send("GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
    // The head is there before any event is.
    assert_eq!(client.read_head().unwrap().status, 200);
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < LONG {
        tell.send(()).unwrap();
        let expected = chunk(&event(number));
        assert_eq!(client.read_bytes(expected.len()), expected.as_bytes());
        number += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(tell);
    assert_eq!(client.read_bytes(5), b"0\r\n\r\n");
    // The connection goes on, with a time limit for the next request.
    assert_eq!(client.get("/", &[]).text(), "other");
    gate.expect_metric("rollgate_requests_total", &[V1, ("code", "200")], 2.0);
    gate.expect_metric("rollgate_request_duration_seconds_count", &[V1], 1.0);
}

#[test]
fn over_http2_it_is_the_same_and_other_streams_go_on_beside_it() {
    let (upstream, tell) = feed();
    let gate = gate(&upstream, "30s");
    let mut client = RawClient::greeted(gate.port());
    let request = |path: &'static str| {
        [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
        ]
    };
    client.request(1, &request("/events"));
    let head = client.until("the head", |frame| frame.kind == HEADERS && frame.stream == 1);
    assert_eq!(head.status(), 200);
    let begun = Instant::now();
    let (mut number, mut stream) = (0, 3);
    while begun.elapsed() < LONG {
        tell.send(()).unwrap();
        let data = client.until("an event", |frame| frame.kind == DATA && frame.stream == 1);
        assert_eq!(data.payload, event(number).as_bytes());
        client.request(stream, &request("/"));
        assert_eq!(client.answer(stream), (200, b"other".to_vec()));
        (number, stream) = (number + 1, stream + 2);
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(tell);
    let end = client.until("the end", |frame| frame.stream == 1);
    assert!(end.kind == DATA && end.has(END_STREAM), "{end:?}");
}

#[test]
fn silence_ends_it_and_is_nobodys_failure() {
    let (upstream, tell) = feed();
    let gate = gate(&upstream, "2s");
    let mut client = gate.client();
    client.send("GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.read_head().unwrap().status, 200);
    tell.send(()).unwrap();
    let expected = chunk(&event(0));
    assert_eq!(client.read_bytes(expected.len()), expected.as_bytes());
    // Without the last chunk: it was not the server that ended it.
    assert!(client.is_closed_within(PATIENCE));
    gate.expect_metric("rollgate_terminations_total", &[("code", "idle")], 1.0);
    gate.expect_metric("rollgate_request_failures_total", &[V1], 0.0);
    gate.expect_metric("rollgate_request_duration_seconds_count", &[V1], 0.0);
    drop(tell);
}

#[test]
fn a_client_that_leaves_ends_it_at_the_server_too() {
    let (upstream, tell) = feed();
    let gate = gate(&upstream, "30s");
    let mut client = gate.client();
    client.send("GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.read_head().unwrap().status, 200);
    drop(client);
    eventually(PATIENCE, "the proxy has noticed", || {
        // Whoever has closed its side is noticed when the next event cannot be sent.
        tell.send(()).ok();
        gate.metric("rollgate_requests_in_flight", &[V1]) == 0.0
    });
    gate.expect_metric("rollgate_requests_total", &[V1, ("code", "499")], 1.0);
    gate.expect_metric("rollgate_request_duration_seconds_count", &[V1], 0.0);
}

#[test]
fn any_other_answer_is_still_bounded_as_a_whole() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
        while exchange.try_send(b"1\r\nx\r\n") {
            std::thread::sleep(Duration::from_millis(50));
        }
        Then::Close
    });
    let gate = gate(&upstream, "30s");
    let mut client = gate.client();
    assert!(client.try_request("GET", "/", &[], b"").is_err());
    gate.expect_metric("rollgate_terminations_total", &[("code", "deadline")], 1.0);
}

#[test]
fn a_long_poll_may_take_as_long_as_the_first_byte_may() {
    let upstream = Upstream::with("v1", |exchange| {
        std::thread::sleep(Duration::from_millis(2_500));
        exchange.answer(200, &[], b"news")
    });
    let service = Service::only(upstream.port()).pools("timeouts: { idle: 1s, first_byte: 10s }");
    let gate = Gate::start(&Config::with(service).text());
    let begun = Instant::now();
    assert_eq!(gate.get("/", &[]).text(), "news");
    assert!(begun.elapsed() >= Duration::from_millis(2_500));
}
