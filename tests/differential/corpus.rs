//! Streams of requests that are known to part parsers, by name.

use std::fmt;

/// A stream of bytes with a name.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.bytes[..self.bytes.len().min(2000)];
        write!(f, "{}: \"{}\"", self.name, cut.escape_ascii())
    }
}

pub fn case(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Case {
    Case {
        name: name.into(),
        bytes: bytes.into(),
    }
}

fn get(name: &str, fields: &str) -> Case {
    case(name, format!("GET /a HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))
}

fn line(name: &str, line: &str) -> Case {
    case(name, format!("{line}\r\nhost: a\r\n\r\n"))
}

fn post(name: &str, fields: &str, body: &str) -> Case {
    case(name, format!("POST /a HTTP/1.1\r\nhost: a\r\n{fields}\r\n{body}"))
}

fn chunked(name: &str, body: &str) -> Case {
    post(name, "transfer-encoding: chunked\r\n", body)
}

/// Everything that section 4 of the promises names, and the inputs on which proxies were seen to differ.
pub fn named() -> Vec<Case> {
    let mut all = framing();
    all.extend(heads());
    all.extend(lines());
    all.extend(hosts());
    all.extend(chunks());
    all
}

fn framing() -> Vec<Case> {
    const LAST: &str = "0\r\n\r\n";
    let mut all = vec![
        post("CL and TE", "content-length: 5\r\ntransfer-encoding: chunked\r\n", LAST),
        post("TE and CL", "transfer-encoding: chunked\r\ncontent-length: 5\r\n", LAST),
        post("two equal CL", "content-length: 3\r\ncontent-length: 3\r\n", "abc"),
        post("two CL", "content-length: 3\r\ncontent-length: 4\r\n", "abc"),
        post(
            "TE twice",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            LAST,
        ),
        post(
            "TE twice, one identity",
            "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
            LAST,
        ),
        case(
            "TE on HTTP/1.0",
            "POST /a HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        post("TE hidden by obs-fold", "x: y\r\n transfer-encoding: chunked\r\n", LAST),
    ];
    for value in [
        "+3",
        "-3",
        "3,3",
        "3, 4",
        "0x3",
        "3 3",
        "",
        "1e3",
        "3;",
        "99999999999999999999",
        "9223372036854775808",
        "\"3\"",
        "３",
        "3\u{b}",
    ] {
        all.push(post(
            &format!("CL {value:?}"),
            &format!("content-length: {value}\r\n"),
            "abc",
        ));
    }
    for value in [
        "gzip, chunked",
        "chunked, chunked",
        "chunked, gzip",
        "identity",
        "gzip",
        "xchunked",
        "x, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "",
        ", chunked",
        "chunked,",
        "chunked\u{b}",
        "chun ked",
    ] {
        all.push(post(
            &format!("TE {value:?}"),
            &format!("transfer-encoding: {value}\r\n"),
            LAST,
        ));
    }
    for name in [
        "transfer-encoding ",
        " transfer-encoding",
        "transfer-encoding\t",
        "transfer\0-encoding",
        "transfer-encoding\r",
    ] {
        all.push(post(&format!("TE as {name:?}"), &format!("{name}: chunked\r\n"), LAST));
    }
    for name in ["content-length ", " content-length", "content-length\t"] {
        all.push(post(&format!("CL as {name:?}"), &format!("{name}: 3\r\n"), "abc"));
    }
    all.extend([
        get("content_length is another field", "content_length: 5\r\n"),
        get("transfer_encoding is another field", "transfer_encoding: chunked\r\n"),
        post("TE in capitals", "Transfer-Encoding: CHUNKED\r\n", LAST),
        post("CL with leading zeros", "content-length: 003\r\n", "abc"),
        post(
            "GET's content is content",
            "content-length: 30\r\n",
            "GET /x HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        post("TRACE is not POST", "content-length: 0\r\n", ""),
        case(
            "TRACE with a body",
            "TRACE /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx",
        ),
    ]);
    all
}

fn heads() -> Vec<Case> {
    vec![
        case("bare LF everywhere", "GET /a HTTP/1.1\nhost: a\n\n"),
        case("bare LF after the request line", "GET /a HTTP/1.1\nhost: a\r\n\r\n"),
        case("bare LF after a field", "GET /a HTTP/1.1\r\nhost: a\n\r\n"),
        case("bare LF at the end", "GET /a HTTP/1.1\r\nhost: a\r\n\n"),
        get("bare CR in a value", "x: a\rb\r\n"),
        get("bare CR before a field", "\rx: a\r\n"),
        get("NUL in a value", "x: a\0b\r\n"),
        get("a control in a value", "x: a\u{1}b\r\n"),
        get("DEL in a value", "x: a\u{7f}b\r\n"),
        get("space before the colon", "x : a\r\n"),
        get("obs-fold", "x: a\r\n b\r\n"),
        get("obs-fold with a tab", "x: a\r\n\tb\r\n"),
        case("the first field folded", "GET /a HTTP/1.1\r\n host: a\r\n\r\n"),
        get("no colon", "nothing\r\n"),
        get("an empty name", ": a\r\n"),
        get("a quote in a name", "x\"y: a\r\n"),
        case(
            "a byte above 127 in a name",
            b"GET /a HTTP/1.1\r\nhost: a\r\nx\xe9: a\r\n\r\n".to_vec(),
        ),
        get("Host nominated", "connection: host\r\n"),
        get("Content-Length nominated", "connection: content-length\r\n"),
        get("X-Forwarded-For nominated", "connection: x-forwarded-for\r\n"),
        get("Cookie nominated", "connection: cookie\r\ncookie: a=b\r\n"),
        get("ten Connection options", "connection: a, b, c, d, e, f, g, h, i, j\r\n"),
        get("a Connection option that is no token", "connection: a b\r\n"),
        post("another expectation", "expect: 200-ok\r\ncontent-length: 3\r\n", "abc"),
        case(
            "40 KiB of head",
            format!("GET /a HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(40 << 10)),
        ),
        case(
            "40 KiB of target",
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(40 << 10)),
        ),
        case(
            "120 fields",
            format!("GET /a HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(120)),
        ),
    ]
}

fn lines() -> Vec<Case> {
    let mut all = vec![
        case("HTTP/0.9", "GET /a\r\n\r\n"),
        line("HTTP/0.9 with a field", "GET /a"),
        line("two spaces", "GET  /a HTTP/1.1"),
        line("two spaces before the version", "GET /a  HTTP/1.1"),
        line("a tab", "GET\t/a HTTP/1.1"),
        line("space after the version", "GET /a HTTP/1.1 "),
        line("a space first", " GET /a HTTP/1.1"),
        line("http in small letters", "GET /a http/1.1"),
        line("HTTP/1.10", "GET /a HTTP/1.10"),
        line("HTTP/01.1", "GET /a HTTP/01.1"),
        line("HTTP/2.0", "GET /a HTTP/2.0"),
        line("HTTP/1.2", "GET /a HTTP/1.2"),
        line("no method", " /a HTTP/1.1"),
        line("a slash in the method", "G/T /a HTTP/1.1"),
        line("a long method", &format!("{} /a HTTP/1.1", "A".repeat(200))),
        line("no slash", "GET a HTTP/1.1"),
        line("a fragment", "GET /a#b HTTP/1.1"),
        line("NUL in the target", "GET /\0 HTTP/1.1"),
        case(
            "a byte above 127 in the target",
            b"GET /\xe9 HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        ),
        line("a segment of two dots", "GET /a/../b HTTP/1.1"),
        line(
            "a segment of two dots at the end of absolute-form",
            "GET http://a/.. HTTP/1.1",
        ),
        line("a segment of one dot", "GET /./a HTTP/1.1"),
        line("encoded dots", "GET /a/%2E%2e/b HTTP/1.1"),
        line("two dots with a parameter", "GET /a/..;b/c HTTP/1.1"),
        line("two dots between encoded slashes", "GET /a%2f..%2Fb HTTP/1.1"),
        line("two dots in the query", "GET /a?/../b HTTP/1.1"),
        line("more than two dots", "GET /.../a..b/..c HTTP/1.1"),
        line("an encoded NUL", "GET /a%00 HTTP/1.1"),
        line("half an escape", "GET /100% HTTP/1.1"),
        line("a backslash in the query", "GET /a?b\\c HTTP/1.1"),
        line("asterisk with GET", "GET * HTTP/1.1"),
        line("authority-form with GET", "GET a:80 HTTP/1.1"),
        case("CONNECT", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n"),
        line("userinfo in the target", "GET http://u@a/ HTTP/1.1"),
        line("another scheme", "GET ftp://a/ HTTP/1.1"),
        line("another authority than Host", "GET http://b/ HTTP/1.1"),
        case("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        case("nearly the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n"),
        case("one empty line first", "\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n"),
        case("two empty lines first", "\r\n\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n"),
        case("a bare LF first", "\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n"),
    ];
    for byte in ['"', '<', '>', '\\', '^', '`', '{', '|', '}'] {
        all.push(line(
            &format!("{byte} in the target"),
            &format!("GET /a{byte} HTTP/1.1"),
        ));
    }
    all
}

fn hosts() -> Vec<Case> {
    let bare = |name: &str, fields: &str| case(name, format!("GET /a HTTP/1.1\r\n{fields}\r\n"));
    let mut all = vec![
        bare("no Host", ""),
        bare("two Hosts", "host: a\r\nhost: b\r\n"),
        bare("two equal Hosts", "host: a\r\nhost: a\r\n"),
        bare("an empty Host", "host:\r\n"),
    ];
    for host in [
        "a b",
        "a/b",
        "u@a",
        "a:b",
        "a:99999999",
        "a,b",
        "[::1",
        "::1",
        "a\\b",
        "a%20b",
        "a:80:80",
        "<a>",
        "a?b",
        "a#b",
    ] {
        all.push(bare(&format!("Host {host:?}"), &format!("host: {host}\r\n")));
    }
    all
}

fn chunks() -> Vec<Case> {
    let mut all = Vec::new();
    for body in [
        "xyz\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabcd\n0\r\n\r\n",
        "3\r\nabc\rd0\r\n\r\n",
        "3\r\nabc\r\n0\rX\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\t\r\nabc\r\n0\r\n\r\n",
        "3_0\r\nabc\r\n0\r\n\r\n",
        "3\r\r\nabc\r\n0\r\n\r\n",
        "\r\n3\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3;a\0b\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;\nabc\r\n0\r\n\r\n",
        "3;\r\nabc\r\n0\r\n\r\n",
        "3;a=\"b\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\nx: y\r\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
        "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
        "3\r\nabc\r\n0\r\nx : y\r\n\r\n",
        "3\r\nabc\r\n0\r\nx: a\rb\r\n\r\n",
        "3\r\nabc\r\n0\r\n x: y\r\n\r\n",
        "3;a=b;c=\"d\\\"e\" ; f\r\nabc\r\n0\r\n\r\n",
        "0003\r\nabc\r\n000\r\n\r\n",
        "A\r\n0123456789\r\n0;x\r\nt: u\r\n\r\n",
    ] {
        all.push(chunked(&format!("chunks {body:?}"), body));
    }
    all
}
