//! The form of frames, and what they say of the connection.

use super::*;

#[test]
fn http2_3_and_4_frame_format() {
    judge(&[
        case(
            "4.1/1 a frame of an unknown type",
            |c| {
                c.send(0x16, 0, 0, [0; 8]).request(1, &GET);
            },
            Answer(200, 1),
        ),
        case(
            "4.1/2 unknown flags",
            |c| {
                c.send(PING, 0x16, 0, [0; 8]);
            },
            Lives,
        ),
        case(
            "4.1/3 the reserved bit",
            |c| {
                c.send(PING, 0, 1 << 31, [0; 8]);
            },
            Lives,
        ),
        case(
            "4.2/1 DATA of 2^14 bytes",
            |c| {
                c.head(1, &POST).send(DATA, END_STREAM, 1, [0; 16384]);
            },
            Answer(200, 1),
        ),
        case(
            "4.2/2 DATA above the frame size",
            |c| {
                c.head(1, &POST).send(DATA, END_STREAM, 1, [0; 16385]);
            },
            Stream(1, &[FRAME_SIZE_ERROR]),
        ),
        case(
            "4.2/3 HEADERS above the frame size",
            |c| {
                c.send(HEADERS, END_STREAM | END_HEADERS, 1, long(&GET, 16400));
            },
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "4.3/1 an invalid block",
            |c| {
                let _ = c.send(
                    HEADERS,
                    END_STREAM | END_HEADERS,
                    1,
                    b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff",
                );
            },
            Connection(&[COMPRESSION_ERROR]),
        ),
        case(
            "4.3/2 PRIORITY within a block",
            |c| {
                c.send(HEADERS, END_STREAM, 1, hpack(&GET))
                    .send(PRIORITY, 0, 1, [0, 0, 0, 0, 255]);
                c.send(CONTINUATION, END_HEADERS, 1, hpack(&[("x", "y")]));
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "4.3/3 HEADERS of another stream within a block",
            |c| {
                c.send(HEADERS, END_STREAM, 1, hpack(&GET)).request(3, &GET);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn http2_6_1_to_6_4_frames() {
    judge(&[
        case(
            "6.1/1 DATA on stream 0",
            |c| {
                c.send(DATA, 0, 0, "test");
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.1/2 DATA on a stream that is not open",
            |c| behind_a_request(c, &Frame::new(DATA, END_STREAM, 1, "test")),
            Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "6.1/3 DATA with more padding than payload",
            |c| {
                c.head(1, &POST).send(DATA, END_STREAM | PADDED, 1, b"\x06test");
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.2/3 HEADERS on stream 0",
            |c| {
                c.send(HEADERS, END_STREAM | END_HEADERS, 0, hpack(&GET));
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.2/4 HEADERS with more padding than payload",
            |c| {
                let payload = [&[255][..], &hpack(&GET)].concat();
                c.send(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, payload);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.3/1 PRIORITY on stream 0",
            |c| {
                c.send(PRIORITY, 0, 0, [0, 0, 0, 0, 255]);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.3/2 PRIORITY of another length",
            |c| {
                c.send(PRIORITY, 0, 1, [0, 0, 0, 1]);
            },
            Stream(1, &[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.4/1 RST_STREAM on stream 0",
            |c| {
                c.send(RST_STREAM, 0, 0, CANCEL.to_be_bytes());
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.4/2 RST_STREAM on an idle stream",
            |c| {
                c.send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.4/3 RST_STREAM of another length",
            |c| {
                c.head(1, &POST).send(RST_STREAM, 0, 1, [0; 3]);
            },
            Connection(&[FRAME_SIZE_ERROR]),
        ),
    ]);
}

#[test]
fn http2_6_5_settings() {
    judge(&[
        case(
            "6.5/1 an ACK with a payload",
            |c| {
                c.send(SETTINGS, ACK, 0, [0]);
            },
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.5/2 on a stream",
            |c| {
                c.send(SETTINGS, 0, 1, [0, 3, 0, 0, 0, 100]);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5/3 of another length",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 3, 0]);
            },
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.5.2/1 ENABLE_PUSH 2",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 2, 0, 0, 0, 2]);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5.2/2 INITIAL_WINDOW_SIZE 2^31",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 4, 0x80, 0, 0, 0]);
            },
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.5.2/3 MAX_FRAME_SIZE below 2^14",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 5, 0, 0, 0x3f, 0xff]);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5.2/4 MAX_FRAME_SIZE above 2^24 - 1",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 5, 1, 0, 0, 0]);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5.2/5 an unknown setting",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 0xff, 0, 0, 0, 1]);
            },
            Lives,
        ),
        case(
            "6.5.3/1 the last of two values counts",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 100, 0, 4, 0, 0, 0, 1])
                    .request(1, &GET);
                let data = c.until("data", |frame| frame.kind == DATA);
                assert_eq!(data.payload, b"v");
            },
            Lives,
        ),
        case(
            "6.5.3/2 an ACK at once",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 3, 0, 0, 0, 100]);
                c.until("an ACK", |frame| frame.kind == SETTINGS && frame.has(ACK));
            },
            Lives,
        ),
    ]);
}

#[test]
fn http2_6_7_to_6_9_frames() {
    judge(&[
        case(
            "6.7/1 PING",
            |c| {
                c.send(PING, 0, 0, *b"12345678");
                let pong = c.until("a pong", |frame| frame.kind == PING);
                assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"12345678"[..]));
            },
            Lives,
        ),
        case(
            "6.7/2 PING with ACK",
            |c| {
                c.send(PING, ACK, 0, *b"invalid!");
            },
            Lives,
        ),
        case(
            "6.7/3 PING on a stream",
            |c| {
                c.send(PING, 0, 1, [0; 8]);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.7/4 PING of another length",
            |c| {
                c.send(PING, 0, 0, [0; 6]);
            },
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.8/1 GOAWAY on a stream",
            |c| {
                c.send(GOAWAY, 0, 1, [0; 8]);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.9/1 WINDOW_UPDATE of 0 for the connection",
            |c| {
                c.send(WINDOW_UPDATE, 0, 0, [0; 4]);
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.9/2 WINDOW_UPDATE of 0 for a stream",
            |c| {
                c.head(1, &POST).send(WINDOW_UPDATE, 0, 1, [0; 4]);
            },
            Stream(1, &[PROTOCOL_ERROR]),
        ),
        case(
            "6.9/3 WINDOW_UPDATE of another length",
            |c| {
                c.send(WINDOW_UPDATE, 0, 0, [0; 3]);
            },
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.9.1/1 an answer no longer than the window",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 1]).request(1, &GET);
                let data = c.until("data", |frame| frame.kind == DATA);
                assert_eq!(data.payload.len(), 1);
                c.set_patience(QUIET);
                assert!(!matches!(c.try_read(), Ok(Some(frame)) if frame.kind == DATA));
                c.send(WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes());
            },
            Answer(0, 1),
        ),
        case(
            "6.9.1/2 a window of the connection above 2^31 - 1",
            |c| {
                (0..2).for_each(|_| {
                    c.send(WINDOW_UPDATE, 0, 0, (i32::MAX as u32).to_be_bytes());
                })
            },
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.1/3 a window of a stream above 2^31 - 1",
            |c| {
                c.head(1, &POST);
                (0..2).for_each(|_| {
                    c.send(WINDOW_UPDATE, 0, 1, (i32::MAX as u32).to_be_bytes());
                });
            },
            Stream(1, &[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.2/1 a window that changes within an answer",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]).request(1, &GET);
                c.until("a head", |frame| frame.kind == HEADERS);
                c.send(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 1]);
                let data = c.until("data", |frame| frame.kind == DATA);
                assert_eq!(data.payload.len(), 1);
            },
            Lives,
        ),
        case(
            "6.9.2/2 a window below zero",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 1]).request(1, &GET);
                c.until("data", |frame| frame.kind == DATA);
                c.send(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])
                    .send(WINDOW_UPDATE, 0, 1, 2u32.to_be_bytes());
            },
            Answer(0, 1),
        ),
        case(
            "6.9.2/3 SETTINGS that make a window too large",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]).head(1, &POST);
                c.send(WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes());
                c.send(SETTINGS, 0, 0, [0, 4, 0x7f, 0xff, 0xff, 0xff]);
            },
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
    ]);
}
