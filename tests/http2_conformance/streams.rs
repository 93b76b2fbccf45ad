//! The preface, the states of streams, blocks in several frames.

use super::*;

/// The preface itself, which the others begin with.
#[test]
fn http2_3_5_the_preface() {
    let upstream = Upstream::named("v1");
    let gate = Gate::start(&Config::with(Service::only(upstream.port())).text());
    let mut client = RawClient::connect(gate.port());
    client.send_bytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r").send_bytes("x");
    // It is answered as what it looks like, a bad request of HTTP/1.
    let mut answer = String::new();
    use std::io::Read;
    let mut http1 = support::Client::connect(gate.port());
    http1.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\rx");
    http1.stream().read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 505 "), "{answer}");
    // One byte at a time is as good as all at once.
    let mut slow = RawClient::connect(gate.port());
    for byte in PREFACE {
        slow.send_bytes([*byte]);
    }
    slow.send(SETTINGS, 0, 0, "").request(1, &GET);
    assert_eq!(slow.answer(1), (200, b"v1".to_vec()));
    // A method that begins like it is one of HTTP/1.1.
    let answer = gate.client().request("PROPFIND", "/", &[], b"");
    assert_eq!(answer.status, 200);
}

#[test]
fn http2_5_streams() {
    judge(&[
        case(
            "5.1/1 idle: DATA",
            |c| {
                c.send(DATA, END_STREAM, 1, "test");
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1/2 idle: RST_STREAM",
            |c| {
                c.send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1/3 idle: WINDOW_UPDATE",
            |c| {
                c.send(WINDOW_UPDATE, 0, 1, 100u32.to_be_bytes());
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1/4 idle: CONTINUATION",
            |c| {
                c.send(CONTINUATION, END_HEADERS, 1, hpack(&GET));
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1/5 half-closed: DATA",
            |c| behind_a_request(c, &Frame::new(DATA, END_STREAM, 1, "test")),
            Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "5.1/6 half-closed: HEADERS",
            |c| behind_a_request(c, &Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, hpack(&GET))),
            Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "5.1/7 half-closed: CONTINUATION",
            |c| {
                c.request(1, &GET).send(CONTINUATION, END_HEADERS, 1, hpack(&GET));
            },
            Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case(
            "5.1/8 closed by RST_STREAM: DATA",
            |c| {
                c.head(1, &POST).send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
                c.send(DATA, END_STREAM, 1, "test");
            },
            Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "5.1/9 closed by RST_STREAM: HEADERS",
            |c| {
                c.head(1, &POST).send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
                c.request(1, &GET);
            },
            Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "5.1/10 closed by RST_STREAM: CONTINUATION",
            |c| {
                c.head(1, &POST).send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
                c.send(CONTINUATION, END_HEADERS, 1, hpack(&GET));
            },
            Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case(
            "5.1/11 closed: DATA",
            |c| {
                c.request(1, &GET).answer(1);
                c.send(DATA, END_STREAM, 1, "test");
            },
            Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "5.1/12 closed: HEADERS",
            |c| {
                c.request(1, &GET).answer(1);
                c.request(1, &GET);
            },
            Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case(
            "5.1/13 closed: CONTINUATION",
            |c| {
                c.request(1, &GET).answer(1);
                c.send(CONTINUATION, END_HEADERS, 1, hpack(&GET));
            },
            Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case(
            "5.1.1/1 an even stream",
            |c| {
                c.request(2, &GET);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1.1/2 a stream lower than the last",
            |c| {
                c.request(5, &GET).answer(5);
                c.request(3, &GET);
            },
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case(
            "5.1.2/1 more streams than allowed",
            |c| {
                (0..=100).for_each(|n| {
                    c.head(2 * n + 1, &POST);
                })
            },
            Stream(201, &[PROTOCOL_ERROR, REFUSED_STREAM]),
        ),
        case(
            "5.3.1/1 HEADERS that depend on themselves",
            |c| {
                let payload = [&[0, 0, 0, 1, 255][..], &hpack(&GET)].concat();
                c.send(HEADERS, END_STREAM | END_HEADERS | PRIORITIZED, 1, payload);
            },
            Stream(1, &[PROTOCOL_ERROR]),
        ),
        case(
            "5.3.1/2 PRIORITY that depends on itself",
            |c| {
                c.send(PRIORITY, 0, 1, [0, 0, 0, 1, 255]);
            },
            Stream(1, &[PROTOCOL_ERROR]),
        ),
        case(
            "5.4.1/1 an error of the connection ends it",
            |c| {
                c.send(PING, 0, 3, [0; 8]);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.5/1 unknown frames",
            |c| {
                c.send(0x16, 0x16, 0, [1; 8]).send(0xff, 0xff, 5, [1; 300]);
            },
            Lives,
        ),
        case(
            "5.5/2 an unknown frame within a block",
            |c| {
                c.send(HEADERS, END_STREAM, 1, hpack(&GET)).send(0x16, 0, 0, [0; 8]);
                c.send(CONTINUATION, END_HEADERS, 1, hpack(&[("x", "y")]));
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn http2_6_10_and_7_continuation_and_errors() {
    fn begun(c: &mut RawClient) -> &mut RawClient {
        c.send(HEADERS, END_STREAM, 1, hpack(&GET))
    }
    judge(&[
        case(
            "6.10/1 several",
            |c| {
                begun(c).send(CONTINUATION, 0, 1, hpack(&[("x", "1")]));
                c.send(CONTINUATION, END_HEADERS, 1, hpack(&[("y", "2")]));
            },
            Answer(200, 1),
        ),
        case(
            "6.10/2 another frame within a block",
            |c| {
                begun(c).send(DATA, END_STREAM, 1, "test");
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.10/3 on stream 0",
            |c| {
                begun(c).send(CONTINUATION, END_HEADERS, 0, hpack(&[("x", "1")]));
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.10/4 behind a whole block",
            |c| {
                let _ = c
                    .head(1, &POST)
                    .send(CONTINUATION, END_HEADERS, 1, hpack(&[("x", "1")]));
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.10/5 behind the last CONTINUATION",
            |c| {
                begun(c).send(CONTINUATION, END_HEADERS, 1, hpack(&[("x", "1")]));
                c.send(CONTINUATION, END_HEADERS, 1, hpack(&[("y", "2")]));
            },
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case(
            "6.10/6 behind DATA",
            |c| {
                c.head(1, &POST).send(DATA, 0, 1, "test");
                c.send(CONTINUATION, END_HEADERS, 1, hpack(&[("x", "1")]));
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "7/1 GOAWAY with an unknown error",
            |c| {
                c.send(GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0xff]);
            },
            Connection(&[0xff]),
        ),
        case(
            "7/2 RST_STREAM with an unknown error",
            |c| {
                c.head(1, &POST).send(RST_STREAM, 0, 1, [0, 0, 0, 0xff]);
            },
            Lives,
        ),
    ]);
}
