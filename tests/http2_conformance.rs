//! RFC 9113 and RFC 7541 to the letter, from the side of the client: the cases of h2spec (its generic, http2 and hpack
//! groups, numbered as there), with frames written by hand against the running binary. `docs/conformance.md` lists them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

#[path = "http2_conformance/frames.rs"]
mod frames;
#[path = "http2_conformance/generic.rs"]
mod generic;
#[path = "http2_conformance/messages.rs"]
mod messages;
#[path = "http2_conformance/streams.rs"]
mod streams;

use std::time::Duration;
use support::frames::*;
use support::{Config, Gate, Service, Upstream};

/// How long silence is waited for.
const QUIET: Duration = Duration::from_millis(300);

/// What a case must lead to.
enum Expect {
    /// An answer with this status on the stream.
    Answer(u16, u32),
    /// The connection goes on as if nothing had been.
    Lives,
    /// RST_STREAM with one of these, or the end of the connection.
    Stream(u32, &'static [u32]),
    /// The end of the connection, with one of these, if it says why; PROTOCOL_ERROR will do, which is for errors of all
    /// kinds (RFC 9113 section 7) and what the `h2` crate says of every frame that it cannot read.
    Connection(&'static [u32]),
}

use Expect::{Answer, Connection, Lives, Stream};

struct Case {
    name: &'static str,
    act: fn(&mut RawClient),
    expect: Expect,
}

const fn case(name: &'static str, act: fn(&mut RawClient), expect: Expect) -> Case {
    Case { name, act, expect }
}

fn judge(cases: &[Case]) {
    let upstream = Upstream::named("v1");
    let gate = Gate::start(
        &Config::with(Service::only(upstream.port()))
            .limit("max_streams: 100")
            .text(),
    );
    let mut faults = Vec::new();
    for case in cases {
        let mut client = RawClient::greeted(gate.port());
        (case.act)(&mut client);
        if let Err(fault) = outcome(&mut client, &case.expect) {
            faults.push(format!("{}: {fault}", case.name));
        }
        // Whatever that was, the next client is served.
        let mut next = RawClient::greeted(gate.port());
        assert_eq!(
            next.request(1, &GET).answer(1),
            (200, b"v1".to_vec()),
            "after {}",
            case.name
        );
    }
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
    assert_eq!(gate.metric("rollgate_panics_total", &[]), 0.0);
}

fn outcome(client: &mut RawClient, expect: &Expect) -> Result<(), String> {
    let (stream, codes) = match expect {
        Answer(status, stream) => {
            return match client.outcome(*stream, support::PATIENCE) {
                Outcome::Answer(given, _) if given == *status => Ok(()),
                other => Err(format!("{other:?}")),
            };
        }
        Lives => {
            return if client.lives() {
                Ok(())
            } else {
                Err("the connection ended".into())
            };
        }
        Stream(stream, codes) => (*stream, codes),
        Connection(codes) => (u32::MAX, codes),
    };
    match client.outcome(stream, support::PATIENCE) {
        Outcome::Reset(code) | Outcome::GoAway(code) if codes.contains(&code) => Ok(()),
        Outcome::GoAway(PROTOCOL_ERROR) => Ok(()),
        Outcome::Closed => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// A request and this, in one piece: its answer would close the stream before.
fn behind_a_request(c: &mut RawClient, frame: &Frame) {
    let request = Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, hpack(&GET));
    c.send_bytes([request.bytes(), frame.bytes()].concat());
}

const fn literal_head() -> [u8; 4] {
    // :method GET, :scheme http, :path /, and :authority from what follows.
    [0x82, 0x86, 0x84, 0x41]
}

/// The block of RFC 7541 C.3.1 and what `more` adds.
fn block(more: &[u8]) -> Vec<u8> {
    [&literal_head()[..], b"\x0fwww.example.com", more].concat()
}

fn long(fields: &[(&str, &str)], extra: usize) -> Vec<u8> {
    let value = "x".repeat(extra);
    let mut fields = fields.to_vec();
    fields.push(("x-long", &value));
    hpack(&fields)
}
