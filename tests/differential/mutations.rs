//! Good and mutated streams, the same for the same seed.

use super::answers::Answer;
use super::corpus::{Case, case};
use fastrand::Rng;

/// A good request that comes before some mutated ones.
pub const PREFIX: &[u8] = b"PUT /prefix HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok";

const NEXT: &str = "GET /smuggled HTTP/1.1\r\nhost: evil\r\n\r\n";

/// A mutated stream: perhaps a good request first, then the mutation, then a request that must be served only if all
/// before it is good.
pub fn stream(rng: &mut Rng) -> Case {
    let (kind, middle) = match rng.u8(0..4) {
        0 => ("framing", mutated_framing(rng)),
        1 => ("chunks", mutated_chunks(rng)),
        2 => ("bytes", mutated_bytes(rng)),
        _ => ("fields", mutated_fields(rng)),
    };
    let mut bytes = Vec::new();
    if rng.u8(0..4) == 0 {
        bytes.extend(PREFIX);
    }
    bytes.extend(middle);
    if rng.u8(0..8) > 0 {
        bytes.extend(NEXT.bytes());
    }
    case(kind, bytes)
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

/// CRLF, nearly always.
fn line_end(rng: &mut Rng) -> &'static str {
    match rng.u8(0..24) {
        0 => ["\n", "\r", "\r\r\n", "", "\n\r", "\r\n\r\n", "x\n", "\rx"][rng.usize(..8)],
        _ => "\r\n",
    }
}

fn mutated_framing(rng: &mut Rng) -> Vec<u8> {
    const NAMES: &[&str] = &[
        "content-length",
        "Content-Length",
        "CONTENT-LENGTH",
        "content-length ",
        "content_length",
        "\tcontent-length",
        "transfer-encoding",
        "Transfer-Encoding",
        "transfer-encoding\t",
        "transfer_encoding",
        " transfer-encoding",
        "transfer-encodinG",
        "x-transfer-encoding",
        "transfer-encoding\u{b}",
        "te",
        "trailer",
        "x",
    ];
    const VALUES: &[&str] = &[
        "5",
        "3",
        "0",
        "05",
        "+5",
        "5 ",
        "\t5",
        "5,5",
        "5\r\n 0",
        "11",
        "chunked",
        "Chunked",
        " chunked ",
        "chunked\t",
        "chunked,",
        "chunked, chunked",
        "identity",
        "gzip, chunked",
        "chunked\0",
        "\u{b}chunked",
        "chunked;a=b",
        "\"chunked\"",
        "trailers",
        "",
        "5\u{c}",
    ];
    const BODIES: &[&str] = &[
        "5\r\nhello\r\n0\r\n\r\n",
        "hello",
        "0\r\n\r\n",
        "",
        "0\r\n\r\nhello",
        "5\r\nhello\r\n0\r\n\r\nGET /inner HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    let mut text = format!(
        "{} /a HTTP/1.{}\r\nhost: a\r\n",
        pick(rng, &["POST", "PUT", "GET", "FOO"]),
        rng.u8(0..12).min(1)
    );
    for _ in 0..rng.u8(1..4) {
        if rng.u8(0..3) > 0 {
            text += pick(
                rng,
                &["content-length: 5\r\n", "transfer-encoding: chunked\r\n", "x: y\r\n"],
            );
            continue;
        }
        let colon = pick(rng, &[": ", ":", ":\t", " : ", ": ", ": "]);
        text += &format!("{}{colon}{}{}", pick(rng, NAMES), pick(rng, VALUES), line_end(rng));
    }
    text += "\r\n";
    text += pick(rng, BODIES);
    text.into_bytes()
}

fn mutated_chunks(rng: &mut Rng) -> Vec<u8> {
    const EXTENSIONS: &[&str] = &[
        ";a",
        ";a=b",
        "; a = b",
        " ;a",
        ";a=\"b;c\"",
        ";a=\"\\\"\"",
        ";",
        ";=",
        "a",
        " ",
        ";a\0",
        ";a=\"",
        ";a \t;b",
        ";a=\"\u{e9}\"",
    ];
    const TRAILERS: &[&str] = &[
        "",
        "",
        "",
        "",
        "t: u\r\n",
        "t:u\r\nv: w\r\n",
        "content-length: 5\r\n",
        "host: b\r\n",
        "t : u\r\n",
        " t: u\r\n",
        "t\r\n",
        "t: u\n",
    ];
    let mut text = "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for _ in 0..rng.u8(0..4) {
        let size = rng.usize(1..20);
        let extension = if rng.u8(0..3) == 0 { pick(rng, EXTENSIONS) } else { "" };
        let data: String = (0..size).map(|_| rng.alphanumeric()).collect();
        let digits = match rng.u8(0..24) {
            0 => format!("{:X}", size + 1),
            1 => format!("{:x}", size - 1),
            2 => format!("0x{size:x}"),
            3 => format!("+{size:x}"),
            4 => format!("{}{size:x}", "0".repeat(20)),
            5 => format!("100000000{size:08x}"),
            6 => String::new(),
            7..=12 => format!("{size:X}"),
            13..=16 => format!("000{size:x}"),
            _ => format!("{size:x}"),
        };
        text += &format!("{digits}{extension}{}{data}{}", line_end(rng), line_end(rng));
    }
    text += &format!(
        "{}{}{}{}",
        pick(rng, &["0", "0", "0", "00", "0;a", "", "-0"]),
        line_end(rng),
        pick(rng, TRAILERS),
        line_end(rng)
    );
    text.into_bytes()
}

fn mutated_bytes(rng: &mut Rng) -> Vec<u8> {
    const GOOD: &[&str] = &[
        "POST /a?b=c HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nx-a: b\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nt: u\r\n\r\n",
        "GET http://a/b HTTP/1.1\r\nhost: a\r\nConnection: keep-alive, x-hop\r\nx-hop: 1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: [::1]:80\r\naccept: */*\r\n\r\n",
    ];
    const BYTES: &[u8] = b"\r\n\0 \t:;,/?#*\"\\+-0159afhxAZ_.\x7f\x80\xff\x0b\x0c\x1b@[]%";
    let mut bytes = pick(rng, GOOD).as_bytes().to_vec();
    for _ in 0..rng.u8(1..3) {
        let at = rng.usize(..bytes.len());
        let byte = BYTES[rng.usize(..BYTES.len())];
        match rng.u8(0..4) {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, byte),
            2 => bytes[at] = byte,
            _ => bytes.insert(at, bytes[at]),
        }
    }
    bytes
}

fn mutated_fields(rng: &mut Rng) -> Vec<u8> {
    const FIELDS: &[&str] = &[
        "host: a",
        "Host: b",
        "host: a:80",
        "connection: close",
        "connection: keep-alive",
        "connection: x-hop",
        "connection: cookie",
        "connection: ,, close",
        "connection: content-length",
        "keep-alive: timeout=5",
        "x-hop: 1",
        "cookie: a=b",
        "te: trailers",
        "te: gzip",
        "upgrade: h2c",
        "proxy-connection: keep-alive",
        "x-forwarded-for: 6.6.6.6",
        "x_forwarded_for: 6.6.6.6",
        "forwarded: for=6.6.6.6",
        "via: 1.1 other",
        "x-rollgate-version: v9",
        "max-forwards: 5",
        "expect: 100-continue",
        "date: now",
        "x-empty:",
        "x-tab: a\tb",
        "x-high: \u{e9}",
        "x-long:    a   ",
        "X-CASE: A",
        "x y: z",
        "trailer: t",
    ];
    let method = pick(rng, &["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "get", "M-SEARCH"]);
    let target = pick(
        rng,
        &[
            "/a",
            "/",
            "/a//b/../c?d=e&f",
            "http://a/x",
            "http://A:80",
            "http://a?q",
            "https://a/x",
            "*",
            "//a",
            "/%00%zz",
            "/a|b",
        ],
    );
    let mut text = format!("{method} {target} HTTP/1.{}\r\n", rng.u8(0..6).min(1));
    if rng.u8(0..6) > 0 {
        text += "host: a\r\n";
    }
    for _ in 0..rng.u8(0..6) {
        text += &format!("{}\r\n", pick(rng, FIELDS));
    }
    text += "\r\n";
    text.into_bytes()
}

/// Good requests, one a case: methods, targets, fields, bodies, versions, as clients send them.
pub fn valid(rng: &mut Rng, cases: usize) -> Vec<Case> {
    (0..cases)
        .map(|nth| case(format!("valid {nth}"), one_valid(rng)))
        .collect()
}

const COMMON_FIELDS: &[&str] = &[
    "accept: */*\r\n",
    "Accept-Encoding: gzip, br\r\n",
    "cookie: a=b; c=d\r\n",
    "cookie: e=f\r\n",
    "authorization: Basic eDp5\r\n",
    "x-empty:\r\n",
    "x-space:    y z   \r\n",
    "x-tab:\ty\r\n",
    "if-none-match: \"a\", W/\"b\"\r\n",
    "user-agent: test/1 (x; y)\r\n",
    "x-repeated: 1\r\n",
    "x-repeated: 2\r\n",
    "via: 1.1 other\r\n",
    "range: bytes=0-5\r\n",
    "connection: keep-alive\r\n",
    "x-high: \u{e9}\r\n",
    "origin: http://a\r\n",
    "referer: http://a/?b#c\r\n",
    "keep-alive: timeout=5\r\n",
    "cache-control: no-cache\r\n",
];

fn one_valid(rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng, from: &[&'static str]| from[rng.usize(..from.len())];
    let answer = pick(
        rng,
        &[
            "",
            "",
            "?answer=chunked",
            "?answer=close",
            "?answer=204",
            "?answer=304",
            "?x&answer=404",
        ],
    );
    let old = rng.u8(0..8) == 0;
    let (method, target) = match rng.u8(0..12) {
        0 => ("OPTIONS", "*".to_owned()),
        1 => (pick(rng, &["GET", "PUT"]), format!("http://shop.example.com/x{answer}")),
        2 => ("GET", "http://shop.example.com".to_owned()),
        _ => {
            let path = pick(
                rng,
                &[
                    "/",
                    "/a/b",
                    "/%e2%82%ac",
                    "//a/.b;c=d",
                    "/a:b@c!$&'()*+,=-._~",
                    "/a%20b",
                ],
            );
            let method = pick(
                rng,
                &[
                    "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND",
                ],
            );
            (method, format!("{path}{answer}"))
        }
    };
    let mut text = format!(
        "{method} {target} HTTP/1.{}\r\n{}: shop.example.com\r\n",
        u8::from(!old),
        pick(rng, &["host", "Host", "HOST"])
    );
    for _ in 0..rng.u8(0..7) {
        text += pick(rng, COMMON_FIELDS);
    }
    if rng.u8(0..6) == 0 {
        text += "connection: x-hop\r\nx-hop: 1\r\n";
    }
    let mut bytes = text.into_bytes();
    write_body(rng, &mut bytes, method != "HEAD", !old);
    bytes
}

/// The framing field, the end of the head, the body; or no body.
fn write_body(rng: &mut Rng, bytes: &mut Vec<u8>, allowed: bool, may_be_chunked: bool) {
    let body: Vec<u8> = (0..[0, 1, 7, 300, 20_000][rng.usize(..5)])
        .map(|_| rng.u8(..))
        .collect();
    match rng.u8(0..3) {
        0 if allowed && may_be_chunked => {
            bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
            for piece in body.chunks(rng.usize(1..9_000)) {
                bytes.extend(format!("{:x}{}\r\n", piece.len(), pick(rng, &["", ";a", ";a=\"b\""])).bytes());
                bytes.extend_from_slice(piece);
                bytes.extend(b"\r\n");
            }
            bytes.extend(format!("0\r\n{}\r\n", pick(rng, &["", "t: u\r\n"])).bytes());
        }
        1 if allowed => {
            bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend(body);
        }
        _ => bytes.extend(b"\r\n"),
    }
}

/// An answer with something changed.
pub fn answer(rng: &mut Rng, name: String) -> Answer {
    const FIELDS: &[&str] = &[
        "content-length: 5",
        "content-length: 5",
        "transfer-encoding: chunked",
        "transfer-encoding: chunked",
        "Content-Length:5",
        "content-length: 9",
        "content-length: 0",
        "content-length: +5",
        "content-length : 5",
        "transfer-encoding: gzip",
        "transfer-encoding: \tchunked",
        "transfer_encoding: chunked",
        "connection: close",
        "connection: keep-alive",
        "connection: x-hop",
        "x-hop: 1",
        "x: \0",
        "x",
        " x: y",
        "x-high: \u{e9}",
        "date: now",
        "upgrade: websocket",
    ];
    const BODIES: &[&str] = &[
        "hello",
        "",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\nt: u\r\n\r\n",
        "05\r\nhello\r\n00\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\npoison",
    ];
    const BYTES: &[u8] = b"\r\n\0 \t:;,019afxAZ\x7f\xff\x0b";
    let method = ["GET", "GET", "GET", "POST", "HEAD"][rng.usize(..5)];
    let mut text = String::new();
    for _ in 0..rng.u8(0..8).saturating_sub(5) {
        text += pick(
            rng,
            &[
                "HTTP/1.1 100 Continue\r\n\r\n",
                "HTTP/1.1 103 Early\r\nlink: a\r\n\r\n",
                "HTTP/1.1 102 P\r\ncontent-length: 0\r\n\r\n",
            ],
        );
    }
    text += pick(rng, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    text += pick(
        rng,
        &[
            " 200 OK",
            " 200 OK",
            " 200 OK",
            " 200",
            " 404 No",
            " 204 No",
            " 304 No",
            " 502 No",
            " 205 Reset",
        ],
    );
    text += "\r\n";
    for _ in 0..rng.u8(0..4) {
        text += &format!(
            "{}{}",
            pick(rng, FIELDS),
            if rng.u8(0..20) == 0 { "\n" } else { "\r\n" }
        );
    }
    text += &format!("\r\n{}", pick(rng, BODIES));
    let mut bytes = text.into_bytes();
    if rng.u8(0..3) == 0 {
        let at = rng.usize(..bytes.len());
        let byte = BYTES[rng.usize(..BYTES.len())];
        match rng.u8(0..4) {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, byte),
            2 => bytes[at] = byte,
            _ => bytes.truncate(at),
        }
    }
    Answer::read(name, method, bytes)
}
