//! Clients of HTTP/2 that mean harm: each loses its connection, is counted, and costs little.

use crate::support::frames::*;
use crate::support::{Config, Gate, PATIENCE, Service, Upstream};
use std::time::{Duration, Instant};

/// What the process may grow by while it is flooded, in KiB.
const GROWTH_KIB: u64 = 32 * 1024;

struct Site {
    gate: Gate,
    upstream: Upstream,
}

impl Site {
    fn new() -> Self {
        let upstream = Upstream::named("v1");
        let gate = Gate::start(&Config::with(Service::only(upstream.port())).text());
        Self { gate, upstream }
    }

    /// Sends what `piece` makes of 1, 2, 3, …, until the connection ends; how many it took.
    fn flood(&self, most: u32, piece: impl Fn(u32) -> Vec<u8>) -> (u32, Outcome) {
        let before = self.gate.resident_kib();
        let mut client = RawClient::greeted(self.gate.port());
        let began = Instant::now();
        let mut sent = 0;
        while sent < most && client.try_send_bytes(&piece(sent + 1)) {
            sent += 1;
            assert!(began.elapsed() < PATIENCE, "{sent} pieces, and no end");
        }
        let outcome = client.outcome(u32::MAX, PATIENCE);
        let grown = self.gate.resident_kib().saturating_sub(before);
        assert!(grown < GROWTH_KIB, "grown by {grown} KiB");
        (sent, outcome)
    }

    /// The flood was counted, and the next client is served.
    fn stands(&self) {
        self.gate
            .expect_metric("rollgate_refusals_total", &[("reason", "flood")], 1.0);
        let mut next = RawClient::greeted(self.gate.port());
        assert_eq!(next.request(1, &GET).answer(1), (200, b"v1".to_vec()));
        assert_eq!(self.gate.metric("rollgate_panics_total", &[]), 0.0);
        self.gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
    }
}

#[test]
fn streams_that_are_reset_at_once() {
    let site = Site::new();
    let (_, outcome) = site.flood(100_000, |n| {
        let stream = n * 2 - 1;
        [
            Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, hpack(&GET)).bytes(),
            Frame::new(RST_STREAM, 0, stream, CANCEL.to_be_bytes()).bytes(),
        ]
        .concat()
    });
    assert!(
        matches!(outcome, Outcome::GoAway(ENHANCE_YOUR_CALM) | Outcome::Closed),
        "{outcome:?}"
    );
    site.stands();
    // The endpoint saw few of them.
    assert!(
        site.upstream.count() < 2_000,
        "{} reached the endpoint",
        site.upstream.count()
    );
}

/// As calls with deadlines do whose endpoint hangs: no flood, and others on the connection are not to suffer.
#[test]
fn streams_that_are_reset_after_they_were_waited_for_are_no_flood() {
    const AT_ONCE: u32 = 400;
    let hangs = RawServer::start(&[], |client, _| while client.next_request().is_some() {});
    let upstream = Upstream::named("v1");
    let hanging = Service::new("hanging")
        .stable("v1", 1, &[hangs.port()])
        .pools("protocol: h2c")
        .route("path: /hangs");
    let gate = Gate::start(
        &Config::with(Service::only(upstream.port()))
            .and(hanging.never_eject())
            .limit("max_streams: 1000")
            .text(),
    );
    let mut client = RawClient::greeted(gate.port());
    let hangs = [GET[0], GET[1], (":path", "/hangs"), GET[3]];
    for batch in 0..3 {
        let streams = (0..AT_ONCE).map(|n| (batch * AT_ONCE + n) * 2 + 1);
        streams.clone().for_each(|stream| {
            client.request(stream, &hangs);
        });
        gate.expect_metric("rollgate_requests_in_flight", &[("service", "hanging")], AT_ONCE.into());
        std::thread::sleep(Duration::from_millis(1_200));
        streams.for_each(|stream| {
            client.send(RST_STREAM, 0, stream, CANCEL.to_be_bytes());
        });
        gate.expect_metric("rollgate_requests_in_flight", &[("service", "hanging")], 0.0);
    }
    let next = 3 * AT_ONCE * 2 + 1;
    assert_eq!(client.request(next, &GET).answer(next), (200, b"v1".to_vec()));
    assert_eq!(gate.metric("rollgate_refusals_total", &[("reason", "flood")]), 0.0);
}

#[test]
fn a_head_that_never_ends() {
    let site = Site::new();
    let (sent, outcome) = site.flood(100_000, |n| match n {
        1 => Frame::new(HEADERS, END_STREAM, 1, hpack(&GET)).bytes(),
        _ => Frame::new(CONTINUATION, 0, 1, hpack(&[("x-more", &"x".repeat(1000))])).bytes(),
    });
    assert!(sent < 100_000, "it went on");
    assert!(
        matches!(outcome, Outcome::GoAway(ENHANCE_YOUR_CALM) | Outcome::Closed),
        "{outcome:?}"
    );
    site.stands();
    assert_eq!(site.upstream.count(), 1);
}

#[test]
fn a_head_in_endless_empty_frames() {
    let site = Site::new();
    let (sent, outcome) = site.flood(1_000_000, |n| match n {
        1 => Frame::new(HEADERS, END_STREAM, 1, hpack(&GET)).bytes(),
        _ => Frame::new(CONTINUATION, 0, 1, "").bytes(),
    });
    assert!(sent < 1_000_000, "it went on");
    assert!(matches!(outcome, Outcome::GoAway(_) | Outcome::Closed), "{outcome:?}");
    site.stands();
}

#[test]
fn pings_and_settings_without_end() {
    for (kind, payload) in [(PING, "12345678"), (SETTINGS, ""), (PRIORITY, "\0\0\0\0\x10")] {
        let site = Site::new();
        let stream = if kind == PRIORITY { 1 } else { 0 };
        let frame = Frame::new(kind, 0, stream, payload).bytes();
        let (sent, _) = site.flood(200_000, |_| frame.repeat(10));
        assert!(sent < 200_000, "{kind}: it went on");
        site.stands();
    }
}

#[test]
fn streams_that_break_the_protocol_one_after_the_other() {
    let site = Site::new();
    // A window above 2^31 - 1 is the stream's fault: the proxy resets it (CVE-2025-8671).
    let (sent, _) = site.flood(100_000, |n| {
        let stream = n * 2 - 1;
        [
            Frame::new(HEADERS, END_HEADERS, stream, hpack(&POST)).bytes(),
            Frame::new(WINDOW_UPDATE, 0, stream, 0x7fff_ffff_u32.to_be_bytes()).bytes(),
        ]
        .concat()
    });
    assert!(sent < 100_000, "it went on");
    site.stands();
}
