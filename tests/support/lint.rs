//! Judges the raw bytes of a forwarded request, independently of the code that wrote them.

use super::wire::Head;

/// Fields that belong to one hop (RFC 9110 section 7.6.1) and must not be forwarded.
const HOP_BY_HOP: [&str; 6] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
];

/// Every rule the head breaks; empty for a good one.
pub fn lint_forwarded_request(raw: &[u8]) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, byte) in raw.iter().enumerate() {
        match byte {
            b'\n' if at == 0 || raw[at - 1] != b'\r' => faults.push(format!("bare LF at byte {at}")),
            b'\r' if raw.get(at + 1) != Some(&b'\n') => faults.push(format!("bare CR at byte {at}")),
            0 => faults.push(format!("NUL at byte {at}")),
            _ => {}
        }
    }
    let head = match Head::parse(raw) {
        Ok(head) => head,
        Err(error) => {
            faults.push(error);
            return faults;
        }
    };
    lint_start(&head.start, &mut faults);
    lint_fields(&head, &mut faults);
    faults
}

fn lint_start(start: &str, faults: &mut Vec<String>) {
    let parts: Vec<&str> = start.split(' ').collect();
    let [method, target, version] = parts[..] else {
        return faults.push(format!("request line {start:?}"));
    };
    if method.is_empty()
        || !method
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    {
        faults.push(format!("method {method:?}"));
    }
    if !(target.starts_with('/') || target == "*" && method == "OPTIONS") {
        faults.push(format!("target {target:?} is not in origin-form"));
    }
    if target.contains('#') || !target.bytes().all(|b| b.is_ascii_graphic()) {
        faults.push(format!("target {target:?} holds a byte that is not allowed"));
    }
    if version != "HTTP/1.1" {
        faults.push(format!("version {version:?}"));
    }
}

fn lint_fields(head: &Head, faults: &mut Vec<String>) {
    let count = |name: &str| head.all(name).count();
    let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
    if lengths + codings > 1 {
        faults.push(format!("{lengths} Content-Length and {codings} Transfer-Encoding"));
    }
    if let Some(length) = head.get("content-length")
        && (length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()))
    {
        faults.push(format!("Content-Length {length:?}"));
    }
    if let Some(coding) = head.get("transfer-encoding")
        && coding != "chunked"
    {
        faults.push(format!("Transfer-Encoding {coding:?}"));
    }
    for name in [
        "host",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-request-id",
        "traceparent",
    ] {
        if count(name) != 1 {
            faults.push(format!("{} fields {name}", count(name)));
        }
    }
    if head.all("via").any(|via| via.ends_with("rollgate")) {
        faults.push("Via of ours".to_owned());
    }
    if count("x-rollgate-version") != 1 {
        faults.push(format!("{} fields x-rollgate-version", count("x-rollgate-version")));
    }
    let upgrade = head.get("upgrade");
    // Protocols in which more requests could follow.
    let carries_requests = |protocol: &str| {
        let protocol = protocol.trim().to_ascii_lowercase();
        ["h2", "http", "tls"].iter().any(|name| protocol.starts_with(name))
    };
    if upgrade.is_some_and(|protocols| protocols.split(',').any(carries_requests)) {
        faults.push(format!("Upgrade {upgrade:?}"));
    }
    for option in head.all("connection").flat_map(|v| v.split(',')).map(str::trim) {
        let allowed = match option.to_ascii_lowercase().as_str() {
            "keep-alive" | "close" => true,
            "upgrade" => upgrade.is_some(),
            "te" => count("te") == 1,
            _ => false,
        };
        if !allowed {
            faults.push(format!("Connection option {option:?}"));
        }
    }
    for name in HOP_BY_HOP {
        // `TE: trailers` may be said anew for the next hop, and `Trailer` describes the message.
        let said_anew = match name {
            "te" => {
                head.get("te") == Some("trailers")
                    && head.all("connection").any(|v| v.to_ascii_lowercase().contains("te"))
            }
            "trailer" => head.is_chunked(),
            _ => false,
        };
        if count(name) > 0 && !said_anew {
            faults.push(format!("hop-by-hop field {name}"));
        }
    }
    if let Some((name, _)) = head
        .fields
        .iter()
        .find(|(name, _)| name.contains('_') && is_ours(&name.replace('_', "-")))
    {
        faults.push(format!("{name} imitates a field of the proxy"));
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "content-length" | "transfer-encoding" | "x-request-id" | "x-rollgate-version"
        )
}

#[test]
fn the_lint_finds_what_it_is_for() {
    const GOOD: &str = "POST /a HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\n\
        x-forwarded-host: a\r\nx-request-id: 1\r\ntraceparent: 00-1-1-00\r\nx-rollgate-version: v1\r\ncontent-length: 1\r\n\r\n";
    assert_eq!(lint_forwarded_request(GOOD.as_bytes()), Vec::<String>::new());
    for (from, to) in [
        ("host: a\r\n", ""),
        ("host: a\r\n", "host: a\r\nhost: b\r\n"),
        ("host: a\r\n", "host: a\n"),
        ("content-length: 1", "content-length: +1"),
        ("content-length: 1", "content-length: 1\r\ntransfer-encoding: chunked"),
        ("content-length: 1", "content-length: 1\r\ncontent-length: 1"),
        ("content-length: 1", "transfer-encoding: gzip, chunked"),
        ("host: a\r\n", "host: a\r\nvia: 1.1 rollgate\r\n"),
        ("/a HTTP", "http://a/a HTTP"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("host: a", "host: a\r\nconnection: x-a"),
        ("host: a", "host: a\r\nkeep-alive: 5"),
        ("host: a", "host: a\r\nte: gzip"),
        ("host: a", "host: a\r\nupgrade: h2c"),
        ("host: a", "host: a\r\ncontent_length: 5"),
        ("host: a", "host: a\r\nx-a: a\0b"),
    ] {
        let bad = GOOD.replacen(from, to, 1);
        assert!(!lint_forwarded_request(bad.as_bytes()).is_empty(), "{bad}");
    }
}
