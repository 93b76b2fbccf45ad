//! Streams of answers, good, bad and broken, by name.

use super::answers::{Answer, Want};

/// The cases promised by name.
pub fn named() -> Vec<Answer> {
    let mut all = good();
    all.extend(good_after_interim());
    all.extend(good_without_body());
    all.extend(poisoned());
    all.extend(bad_fields());
    all.extend(bad_heads());
    all.extend(bad_lines());
    all.extend(broken_bodies());
    for answer in &all {
        let kind = match &answer.want {
            Want::Whole(_) => "good",
            Want::BadGateway => "bad",
            Want::Cut => "broken",
        };
        assert!(
            answer.name.starts_with(kind),
            "the reference does not read {answer:?} as the table does"
        );
    }
    all
}

fn ok(name: &str, method: &'static str, text: &str) -> Answer {
    Answer::read(format!("good: {name}"), method, text)
}

fn bad(name: &str, text: &str) -> Answer {
    Answer::read(format!("bad: {name}"), "GET", text)
}

/// An answer that is good but for these fields.
fn fields(name: &str, fields: &str) -> Answer {
    bad(name, &format!("HTTP/1.1 200 OK\r\n{fields}\r\nhello"))
}

fn good() -> Vec<Answer> {
    vec![
        ok("by length", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        ok(
            "leading zeros",
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 0005\r\n\r\nhello",
        ),
        ok("empty", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ok(
            "chunked",
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        ok(
            "chunked with extensions and trailers",
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;a=\"b\"\r\nhe\r\n3\r\nllo\r\n0;c\r\nt: u\r\ncontent-length: 9\r\n\r\n",
        ),
        ok("close-delimited", "GET", "HTTP/1.1 200 OK\r\n\r\nhello"),
        ok(
            "close-delimited and empty",
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        ),
        ok("HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\n\r\nhello"),
        ok(
            "HTTP/1.0 with a length",
            "GET",
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        ),
        ok(
            "HTTP/1.0 kept alive",
            "GET",
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello",
        ),
        ok("no reason", "GET", "HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nhello"),
        ok(
            "no space either",
            "GET",
            "HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello",
        ),
        ok(
            "hop-by-hop fields",
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: x-hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\ncontent-length: 2\r\n\r\nok",
        ),
        ok(
            "high bytes",
            "GET",
            "HTTP/1.1 200 \u{e9}\r\nx: \u{e9}\r\ncontent-length: 2\r\n\r\nok",
        ),
        ok("599", "GET", "HTTP/1.1 599 x\r\ncontent-length: 2\r\n\r\nok"),
    ]
}

fn good_after_interim() -> Vec<Answer> {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    vec![
        ok(
            "103 first",
            "GET",
            &format!("{interim}HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        ),
        ok(
            "100 unasked",
            "POST",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno",
        ),
        ok(
            "sixteen 1xx",
            "GET",
            &format!(
                "{}HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                interim.repeat(16)
            ),
        ),
    ]
}

fn good_without_body() -> Vec<Answer> {
    vec![
        ok("204", "GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ok(
            "204 of length 0",
            "DELETE",
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        ),
        ok("204 with body bytes", "GET", "HTTP/1.1 204 No Content\r\n\r\nhello"),
        ok("304", "GET", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n"),
        ok(
            "304 with the length of what it is about",
            "GET",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n",
        ),
        ok(
            "304 with body bytes",
            "GET",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello",
        ),
        ok(
            "HEAD with a length",
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n",
        ),
        ok(
            "HEAD chunked",
            "HEAD",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        ok("HEAD without framing", "HEAD", "HTTP/1.1 200 OK\r\n\r\n"),
        ok(
            "HEAD with body bytes",
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        ),
    ]
}

/// A good answer, and bytes behind it that nobody asked for.
fn poisoned() -> Vec<Answer> {
    vec![
        ok(
            "an answer too many",
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        ),
        ok(
            "an answer too many after chunks",
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        ),
    ]
}

fn bad_fields() -> Vec<Answer> {
    let mut all = vec![
        fields("CL and TE", "content-length: 5\r\ntransfer-encoding: chunked\r\n"),
        fields("TE and CL", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"),
        fields("two CL", "content-length: 5\r\ncontent-length: 6\r\n"),
        fields("two equal CL", "content-length: 5\r\ncontent-length: 5\r\n"),
        fields(
            "TE twice",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ),
        fields("bare LF after a field", "content-length: 5\n"),
        fields("bare CR", "x: a\rb\r\ncontent-length: 5\r\n"),
        fields("obs-fold", "x: a\r\n b\r\ncontent-length: 5\r\n"),
        fields("obs-fold of a length", "content-length: 5\r\n 0\r\n"),
        fields("NUL", "x: a\0b\r\ncontent-length: 5\r\n"),
        fields("space before the colon", "content-length : 5\r\n"),
        fields("no colon", "nothing\r\ncontent-length: 5\r\n"),
        fields(
            "Content-Length nominated",
            "connection: content-length\r\ncontent-length: 5\r\n",
        ),
        fields(
            "120 fields",
            &format!("{}content-length: 5\r\n", "x: y\r\n".repeat(120)),
        ),
        fields(
            "40 KiB",
            &format!("x: {}\r\ncontent-length: 5\r\n", "y".repeat(40 << 10)),
        ),
    ];
    for value in ["+5", "-5", "5,5", "5, 5", "0x5", "", "5;", "9223372036854775808", "５"] {
        all.push(fields(
            &format!("CL {value:?}"),
            &format!("content-length: {value}\r\n"),
        ));
    }
    for value in [
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "gzip",
        "",
        "chunked;a=b",
        "\u{b}chunked",
    ] {
        all.push(fields(
            &format!("TE {value:?}"),
            &format!("transfer-encoding: {value}\r\n"),
        ));
    }
    all
}

fn bad_heads() -> Vec<Answer> {
    vec![
        bad(
            "TE on HTTP/1.0",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        bad("bare LF everywhere", "HTTP/1.1 200 OK\ncontent-length: 5\n\nhello"),
        bad(
            "bare LF after the status line",
            "HTTP/1.1 200 OK\ncontent-length: 5\r\n\r\nhello",
        ),
        bad("bare LF at the end", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\nhello"),
        bad(
            "101 unasked",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello",
        ),
        bad(
            "204 with a length",
            "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello",
        ),
        bad(
            "204 chunked",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        bad(
            "1xx with a length",
            "HTTP/1.1 103 Early\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ),
        bad(
            "seventeen 1xx",
            &format!(
                "{}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                "HTTP/1.1 103 Early\r\n\r\n".repeat(17)
            ),
        ),
        bad(
            "malformed after 103",
            "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\ncontent-length: 5\r\n\r\nhello",
        ),
        bad(
            "an empty line first",
            "\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        ),
        bad("another protocol", "SSH-2.0-OpenSSH_9.6\r\n"),
        bad("half a head", "HTTP/1.1 200 OK\r\ncontent-le"),
        bad("nothing", ""),
    ]
}

fn bad_lines() -> Vec<Answer> {
    let mut all = Vec::new();
    for text in [
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 99 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200 O\u{1}K",
        "ICY 200 OK",
    ] {
        all.push(bad(
            &format!("{text:?}"),
            &format!("{text}\r\ncontent-length: 5\r\n\r\nhello"),
        ));
    }
    all
}

fn broken_bodies() -> Vec<Answer> {
    let mut all = vec![Answer::read(
        "broken: shorter than its length",
        "GET",
        "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
    )];
    for body in [
        "5\r\nhello\r\n",
        "5\r\nhel",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\nxyz\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5\r\nhelloo\n0\r\n\r\n",
        "5\r\nhello\ro0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nbad\r\n\r\n",
        "5\r\nhello\r\n0\r\nx : y\r\n\r\n",
        "",
        "5",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        all.push(Answer::read(format!("broken: chunks {body:?}"), "GET", text));
    }
    all
}
