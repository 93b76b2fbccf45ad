//! What every client does, and what compression makes of it.

use super::*;

#[test]
fn generic_1_to_3_frames() {
    judge(&[
        case(
            "1/1 a request after the preface",
            |c| {
                c.request(1, &GET);
            },
            Answer(200, 1),
        ),
        case(
            "2/1 PRIORITY on an idle stream",
            |c| {
                c.send(PRIORITY, 0, 1, [0, 0, 0, 0, 255]).request(1, &GET);
            },
            Answer(200, 1),
        ),
        case(
            "2/2 WINDOW_UPDATE on a half-closed stream",
            |c| {
                c.request(1, &GET).send(WINDOW_UPDATE, 0, 1, 100u32.to_be_bytes());
            },
            Answer(200, 1),
        ),
        case(
            "2/3 PRIORITY on a half-closed stream",
            |c| {
                c.request(1, &GET).send(PRIORITY, 0, 1, [0, 0, 0, 0, 255]);
            },
            Answer(200, 1),
        ),
        case(
            "2/4 RST_STREAM on a half-closed stream",
            |c| {
                c.request(1, &GET).send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
            },
            Lives,
        ),
        case(
            "2/5 PRIORITY on a closed stream",
            |c| {
                c.request(1, &GET).answer(1);
                c.send(PRIORITY, 0, 1, [0, 0, 0, 0, 255]);
            },
            Lives,
        ),
        case(
            "3.1/1 a DATA frame",
            |c| {
                c.head(1, &POST).send(DATA, END_STREAM, 1, "test");
            },
            Answer(200, 1),
        ),
        case(
            "3.1/2 several DATA frames",
            |c| {
                c.head(1, &POST).send(DATA, 0, 1, "te").send(DATA, END_STREAM, 1, "st");
            },
            Answer(200, 1),
        ),
        case(
            "3.1/3 a padded DATA frame",
            |c| {
                let _ = c
                    .head(1, &POST)
                    .send(DATA, END_STREAM | PADDED, 1, b"\x06test\0\0\0\0\0\0");
            },
            Answer(200, 1),
        ),
        case(
            "3.2/2 a padded HEADERS frame",
            |c| {
                let padded = [&[6][..], &hpack(&GET), &[0; 6]].concat();
                c.send(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, padded);
            },
            Answer(200, 1),
        ),
        case(
            "3.2/3 a HEADERS frame with priority",
            |c| {
                let payload = [&[0, 0, 0, 0, 255][..], &hpack(&GET)].concat();
                c.send(HEADERS, END_STREAM | END_HEADERS | PRIORITIZED, 1, payload);
            },
            Answer(200, 1),
        ),
        case(
            "3.3/1 PRIORITY 1",
            |c| {
                c.send(PRIORITY, 0, 1, [0, 0, 0, 0, 0]).request(1, &GET);
            },
            Answer(200, 1),
        ),
        case(
            "3.3/3 PRIORITY with a dependency",
            |c| {
                c.send(PRIORITY, 0, 3, [0, 0, 0, 1, 255]).request(1, &GET);
            },
            Answer(200, 1),
        ),
        case(
            "3.3/4 PRIORITY, exclusive",
            |c| {
                c.send(PRIORITY, 0, 3, [0x80, 0, 0, 1, 255]).request(1, &GET);
            },
            Answer(200, 1),
        ),
        case(
            "3.4/1 RST_STREAM",
            |c| {
                c.head(1, &POST).send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
            },
            Lives,
        ),
        case(
            "3.5/1 SETTINGS",
            |c| {
                c.send(SETTINGS, 0, 0, [0, 3, 0, 0, 0, 100]);
            },
            Lives,
        ),
        case("3.7/1 PING", |_| {}, Lives),
        case(
            "3.8/1 GOAWAY",
            |c| {
                c.send(GOAWAY, 0, 0, [0; 8]);
            },
            Connection(&[]),
        ),
        case(
            "3.9/1 WINDOW_UPDATE of the connection",
            |c| {
                c.send(WINDOW_UPDATE, 0, 0, 1u32.to_be_bytes());
            },
            Lives,
        ),
        case(
            "3.9/2 WINDOW_UPDATE of a stream",
            |c| {
                let _ = c
                    .head(1, &POST)
                    .send(WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes())
                    .send(DATA, END_STREAM, 1, "");
            },
            Answer(200, 1),
        ),
        case(
            "3.10/1 CONTINUATION",
            |c| {
                let head = hpack(&GET);
                c.send(HEADERS, END_STREAM, 1, &head[..10])
                    .send(CONTINUATION, END_HEADERS, 1, &head[10..]);
            },
            Answer(200, 1),
        ),
        case(
            "3.10/2 several CONTINUATION frames",
            |c| {
                let head = hpack(&GET);
                c.send(HEADERS, END_STREAM, 1, &head[..10])
                    .send(CONTINUATION, 0, 1, &head[10..20])
                    .send(CONTINUATION, END_HEADERS, 1, &head[20..]);
            },
            Answer(200, 1),
        ),
    ]);
}

#[test]
fn generic_4_and_5_messages_and_compression() {
    judge(&[
        case(
            "4/2 HEAD",
            |c| {
                let mut head = GET;
                head[0].1 = "HEAD";
                c.request(1, &head);
            },
            Answer(200, 1),
        ),
        case(
            "4/4 POST with trailers",
            |c| {
                c.head(1, &POST).send(DATA, 0, 1, "test");
                c.send(HEADERS, END_HEADERS | END_STREAM, 1, hpack(&[("x-test", "ok")]));
            },
            Answer(200, 1),
        ),
        case(
            "5/1 an indexed field",
            |c| {
                c.send(HEADERS, END_HEADERS | END_STREAM, 1, block(&[0x90]));
            },
            Answer(200, 1),
        ),
        case(
            "5/2 a literal with indexing, indexed name",
            |c| {
                c.send(HEADERS, END_HEADERS | END_STREAM, 1, block(b"\x7a\x04ua/1"));
            },
            Answer(200, 1),
        ),
        case(
            "5/4 a literal with indexing, new name, used again",
            |c| {
                c.send(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    block(b"\x40\x0acustom-key\x0ccustom-value"),
                )
                .answer(1);
                c.send(HEADERS, END_HEADERS | END_STREAM, 3, block(&[0xbf]));
            },
            Answer(200, 3),
        ),
        case(
            "5/5 a literal with indexing, Huffman",
            |c| {
                let coded = [
                    0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b,
                    0xb8, 0xe8, 0xb4, 0xbf,
                ];
                c.send(HEADERS, END_HEADERS | END_STREAM, 1, block(&coded));
            },
            Answer(200, 1),
        ),
        case(
            "5/7 a literal without indexing",
            |c| {
                c.send(HEADERS, END_HEADERS | END_STREAM, 1, block(b"\x00\x01x\x01y"));
            },
            Answer(200, 1),
        ),
        case(
            "5/11 a literal never indexed",
            |c| {
                c.send(HEADERS, END_HEADERS | END_STREAM, 1, block(b"\x10\x01x\x01y"));
            },
            Answer(200, 1),
        ),
        case(
            "5/15 a size update",
            |c| {
                let _ = c.send(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    [&[0x20][..], &block(b"")].concat(),
                );
            },
            Answer(200, 1),
        ),
        case(
            "5/16 two size updates",
            |c| {
                let _ = c.send(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    [&[0x20, 0x3f, 0xe1, 0x1f][..], &block(b"")].concat(),
                );
            },
            Answer(200, 1),
        ),
    ]);
}

#[test]
fn hpack_2_to_6() {
    const BROKEN: Expect = Connection(&[COMPRESSION_ERROR]);
    fn adds(c: &mut RawClient, more: &[u8]) {
        c.send(HEADERS, END_STREAM | END_HEADERS, 1, block(more));
    }
    judge(&[
        case("2.3.3/1 an index beyond the tables", |c| adds(c, &[0xc6]), BROKEN),
        case(
            "2.3.3/2 a name beyond the tables",
            |c| adds(c, b"\x7f\x02\x05empty"),
            BROKEN,
        ),
        case("4.2/1 a size update at the end", |c| adds(c, &[0x20]), BROKEN),
        case(
            "5.2/1 padding of more than seven bits",
            |c| adds(c, b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
            BROKEN,
        ),
        case(
            "5.2/2 padding of zeros",
            |c| adds(c, b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
            BROKEN,
        ),
        case(
            "5.2/3 EOS in a string",
            |c| adds(c, b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"),
            BROKEN,
        ),
        case("6.1/1 index 0", |c| adds(c, &[0x80]), BROKEN),
        case(
            "6.3/1 a size above that of SETTINGS",
            |c| {
                let payload = [&[0x3f, 0xe2, 0x1f][..], &block(b"")].concat();
                c.send(HEADERS, END_STREAM | END_HEADERS, 1, payload);
            },
            BROKEN,
        ),
        case(
            "a string longer than its block",
            |c| adds(c, b"\x00\x01x\x7f\xff\xff\x03y"),
            BROKEN,
        ),
        case("an integer without an end", |c| adds(c, &[0xff; 24]), BROKEN),
    ]);
}
