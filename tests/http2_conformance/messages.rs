//! What is a message, and what is not.

use super::*;

#[test]
fn http2_8_messages() {
    const MALFORMED: Expect = Stream(1, &[PROTOCOL_ERROR]);
    fn with(c: &mut RawClient, more: &[(&str, &str)]) {
        c.request(1, &[&GET[..], more].concat());
    }
    fn without(c: &mut RawClient, name: &str) {
        let mut fields = GET.to_vec();
        fields.retain(|(field, _)| *field != name);
        c.request(1, &fields);
    }
    judge(&[
        case(
            "8.1/1 a second HEADERS frame that does not end the stream",
            |c| {
                let _ = c
                    .head(1, &POST)
                    .send(DATA, 0, 1, "x")
                    .head(1, &POST)
                    .send(DATA, END_STREAM, 1, "x");
            },
            MALFORMED,
        ),
        case(
            "8.1.2/1 a name in capitals",
            |c| with(c, &[("X-TEST", "ok")]),
            MALFORMED,
        ),
        case(
            "8.1.2.1/1 an unknown pseudo-field",
            |c| with(c, &[(":test", "ok")]),
            MALFORMED,
        ),
        case(
            "8.1.2.1/2 a pseudo-field of answers",
            |c| with(c, &[(":status", "200")]),
            MALFORMED,
        ),
        // The `h2` crate drops it, where the RFC has it refused: nothing of it is seen here, or by an endpoint.
        case(
            "8.1.2.1/3 a pseudo-field in trailers",
            |c| {
                c.head(1, &POST).send(DATA, 0, 1, "test");
                c.send(HEADERS, END_STREAM | END_HEADERS, 1, hpack(&[(":method", "200")]));
            },
            Answer(200, 1),
        ),
        case(
            "8.1.2.1/4 a pseudo-field behind a field",
            |c| {
                c.request(1, &[GET[0], GET[1], GET[3], ("x-test", "ok"), GET[2]]);
            },
            MALFORMED,
        ),
        case(
            "8.1.2.2/1 connection",
            |c| with(c, &[("connection", "keep-alive")]),
            MALFORMED,
        ),
        case("8.1.2.2/2 te", |c| with(c, &[("te", "trailers, deflate")]), MALFORMED),
        case(
            "8.1.2.2 transfer-encoding",
            |c| with(c, &[("transfer-encoding", "chunked")]),
            MALFORMED,
        ),
        case("8.1.2.2 upgrade", |c| with(c, &[("upgrade", "h2c")]), MALFORMED),
        case("8.1.2.2 keep-alive", |c| with(c, &[("keep-alive", "1")]), MALFORMED),
        case(
            "8.1.2.2 proxy-connection",
            |c| with(c, &[("proxy-connection", "1")]),
            MALFORMED,
        ),
        case(
            "8.1.2.3/1 an empty :path",
            |c| {
                c.request(1, &[GET[0], GET[1], (":path", ""), GET[3]]);
            },
            MALFORMED,
        ),
        case("8.1.2.3/2 no :method", |c| without(c, ":method"), MALFORMED),
        case("8.1.2.3/3 no :scheme", |c| without(c, ":scheme"), MALFORMED),
        case("8.1.2.3/4 no :path", |c| without(c, ":path"), MALFORMED),
        case("8.1.2.3/5 :method twice", |c| with(c, &[GET[0]]), MALFORMED),
        case("8.1.2.3/6 :scheme twice", |c| with(c, &[GET[1]]), MALFORMED),
        case("8.1.2.3/7 :path twice", |c| with(c, &[GET[2]]), MALFORMED),
        case(
            "8.1.2.6/1 content-length that is not that of DATA",
            |c| {
                c.head(1, &[&POST[..], &[("content-length", "1")]].concat());
                c.send(DATA, END_STREAM, 1, "test");
            },
            MALFORMED,
        ),
        case(
            "8.1.2.6/2 nor that of several",
            |c| {
                c.head(1, &[&POST[..], &[("content-length", "1")]].concat());
                c.send(DATA, 0, 1, "te").send(DATA, END_STREAM, 1, "st");
            },
            MALFORMED,
        ),
        case(
            "8.1.2.6 content-length above that of DATA",
            |c| {
                c.head(1, &[&POST[..], &[("content-length", "9")]].concat());
                c.send(DATA, END_STREAM, 1, "test");
            },
            MALFORMED,
        ),
        case(
            "8.2/1 PUSH_PROMISE",
            |c| {
                c.send(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &hpack(&GET)].concat());
            },
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]);
}

/// What is refused with an answer: the library lets it through, the parser of requests does not.
#[test]
fn requests_that_http1_could_not_say_are_refused() {
    fn with(c: &mut RawClient, more: &[(&str, &str)]) {
        c.request(1, &[&GET[..], more].concat());
    }
    fn asks(c: &mut RawClient, method: &str, path: &str, authority: &str) {
        c.request(
            1,
            &[
                (":method", method),
                (":scheme", "http"),
                (":path", path),
                (":authority", authority),
            ],
        );
    }
    const BAD: Expect = Answer(400, 1);
    const BROKEN: Expect = Stream(1, &[PROTOCOL_ERROR]);
    judge(&[
        case("host that differs", |c| with(c, &[("host", "other.example")]), BAD),
        case(
            "host twice",
            |c| with(c, &[("host", "shop.example"), ("host", "shop.example")]),
            BAD,
        ),
        case(
            "host that agrees",
            |c| with(c, &[("host", "SHOP.example")]),
            Answer(200, 1),
        ),
        case(
            "neither host nor :authority",
            |c| {
                c.request(1, &[GET[0], GET[1], GET[2]]);
            },
            BAD,
        ),
        case(
            "host in place of :authority",
            |c| {
                c.request(1, &[GET[0], GET[1], GET[2], ("host", "a")]);
            },
            Answer(200, 1),
        ),
        case("userinfo", |c| asks(c, "GET", "/", "u:p@shop.example"), BAD),
        case(
            "a target without a slash",
            |c| asks(c, "GET", "a", "shop.example"),
            BROKEN,
        ),
        case(
            "an absolute target",
            |c| asks(c, "GET", "http://other.example/", "shop.example"),
            BROKEN,
        ),
        case("* for GET", |c| asks(c, "GET", "*", "shop.example"), BAD),
        case(
            "* for OPTIONS",
            |c| asks(c, "OPTIONS", "*", "shop.example"),
            Answer(200, 1),
        ),
        case(
            "a method that is too long",
            |c| asks(c, &"M".repeat(40), "/", "shop.example"),
            BAD,
        ),
        case(
            "content-length twice",
            |c| with(c, &[("content-length", "0"), ("content-length", "0")]),
            BAD,
        ),
        case("a value with white space around it", |c| with(c, &[("x", " y ")]), BAD),
        case("an expectation", |c| with(c, &[("expect", "more")]), Answer(417, 1)),
        case(
            "CONNECT",
            |c| {
                c.head(1, &[(":method", "CONNECT"), (":authority", "a:443")]);
            },
            Answer(405, 1),
        ),
        case(
            "101 fields",
            |c| {
                let many: Vec<_> = (0..101).map(|_| ("x", "y")).collect();
                with(c, &many);
            },
            Answer(431, 1),
        ),
        case("a value with a line break", |c| with(c, &[("x", "y\r\nz: 1")]), BROKEN),
        case("a value with NUL", |c| with(c, &[("x", "y\0")]), BROKEN),
        case(
            "a target with a space",
            |c| asks(c, "GET", "/a b", "shop.example"),
            BROKEN,
        ),
        case(
            "a target with a line break",
            |c| asks(c, "GET", "/a\r\nx: y", "shop.example"),
            BROKEN,
        ),
        case(
            "extended CONNECT",
            |c| {
                let fields = [
                    (":method", "CONNECT"),
                    (":protocol", "websocket"),
                    (":scheme", "http"),
                    (":path", "/"),
                    (":authority", "a"),
                ];
                c.head(1, &fields);
            },
            BROKEN,
        ),
    ]);
}
