//! What must hold of the wire format for any bytes: shared by the fuzz targets and by the mutation test that runs with
//! `cargo test`. Each function panics where a property does not hold.

use rollgate::http1::{
    CHUNK_END, Chain, ChunkDecoder, ChunkError, Framing, HeadError, HeadLimits, HeadParser, MethodKind,
    RequestAdditions, RequestHead, ResponseAdditions, ResponseHead, Upgrading, Version, lint_request, lint_response,
    parse_request, parse_response, request_trailers, write_chunk_head, write_last_chunk, write_request, write_response,
};
use rollgate::opening::{MAX_HEADER_BYTES, ProxyHeaderError, ProxyVersion, parse_proxy_header, write_proxy_header};
use std::net::{IpAddr, Ipv4Addr};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 4096,
    fields: 40,
};

/// Protocols that are let through.
const ALLOWED: [&str; 2] = ["websocket", "spdy/3.1"];

/// All of these are asked for, or none.
fn upgrading(asked: bool, allowed: &[Box<str>]) -> Upgrading<'_> {
    const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket, spdy/3.1\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let head = parse_request(ASKS, &LIMITS, &mut HeadParser::new()).unwrap().unwrap();
    let upgrading = head.upgrading(ASKS, allowed);
    assert!(upgrading.is_asked());
    if asked { upgrading } else { Upgrading::default() }
}

fn additions(flags: u8) -> RequestAdditions<'static> {
    RequestAdditions {
        client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        peer_trusted: flags & 1 != 0,
        chain: Chain::default(),
        https: flags & 2 != 0,
        forwarded: flags & 4 != 0,
        via: flags & 8 != 0,
        request_id: "fresh-id",
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        version: "v2",
        default_host: "listener:8080",
        upgrading: Upgrading::default(),
        rewrite: None,
        to: Version::Http11,
    }
}

/// A PROXY header reads the same whole and byte by byte, within its bound, and what it says is read back when it is sent
/// on.
pub fn proxy_header(data: &[u8]) {
    let whole = parse_proxy_header(data);
    let decided = (0..=data.len()).find_map(|end| match parse_proxy_header(&data[..end]) {
        Ok(None) => None,
        decided => Some((end, decided)),
    });
    let Some((end, dripped)) = decided else {
        assert!(whole == Ok(None) && data.len() < MAX_HEADER_BYTES, "{whole:?}");
        return;
    };
    assert_eq!(dripped, whole, "whole and dripped");
    let Ok(Some(header)) = whole else {
        assert!(whole.is_err() && end <= MAX_HEADER_BYTES, "{whole:?} after {end} bytes");
        assert!(end > 1 || whole == Err(ProxyHeaderError::Missing), "{whole:?}");
        return;
    };
    assert_eq!(header.len, end, "decided with its last byte");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut sent = Vec::new();
        write_proxy_header(&mut sent, version, header.addresses.as_ref());
        let read = parse_proxy_header(&sent).unwrap().unwrap();
        assert_eq!(read.len, sent.len());
        let plain = |header: rollgate::opening::ProxyHeader| {
            header
                .addresses
                .map(|a| [a.source, a.destination].map(|a| (a.ip().to_canonical(), a.port())))
        };
        assert_eq!(plain(read), plain(header), "{version:?}");
    }
}

/// A request head reads the same whole and byte by byte, and is forwarded as one message with the same meaning.
pub fn request_head(data: &[u8]) {
    let whole = parse_request(data, &LIMITS, &mut HeadParser::new());
    let dripped = drip(data, |bytes, parser| parse_request(bytes, &LIMITS, parser));
    match (whole, dripped) {
        (Ok(Some(head)), Ok(Some(late))) => {
            assert_eq!(head.len, late.len, "whole and dripped");
            assert_eq!(head.body, late.body, "whole and dripped");
            assert_eq!(head.target(data), late.target(data), "whole and dripped");
            for flags in [0, 7] {
                forwarded_request(data, &head, flags);
            }
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        (whole, dripped) => panic!("whole {whole:?}, dripped {dripped:?}"),
    }
}

/// The result of giving `data` byte by byte.
fn drip<T>(
    data: &[u8],
    mut parse: impl FnMut(&[u8], &mut HeadParser) -> Result<Option<T>, HeadError>,
) -> Result<Option<T>, HeadError> {
    let mut parser = HeadParser::new();
    for end in 0..=data.len() {
        let result = parse(&data[..end], &mut parser)?;
        if result.is_some() {
            return Ok(result);
        }
    }
    Ok(None)
}

fn forwarded_request(data: &[u8], head: &RequestHead, flags: u8) {
    let allowed = ALLOWED.map(Box::from);
    let upgrading = head.upgrading(data, &allowed);
    let mut out = Vec::new();
    let add = RequestAdditions {
        upgrading,
        ..additions(flags)
    };
    write_request(&mut out, head, data, &add);
    let shown = || {
        (
            String::from_utf8_lossy(data).into_owned(),
            String::from_utf8_lossy(&out).into_owned(),
        )
    };
    assert_eq!(lint_request(&out), Ok(out.len()), "{:?}", shown());
    let roomy = HeadLimits {
        bytes: 64 << 10,
        fields: 100,
    };
    let again = match parse_request(&out, &roomy, &mut HeadParser::new()) {
        Ok(Some(again)) => again,
        other => panic!("{other:?}: {:?}", shown()),
    };
    assert_eq!(again.len, out.len(), "{:?}", shown());
    assert_eq!(again.body, head.body, "{:?}", shown());
    assert_eq!(again.method(&out), head.method(data), "{:?}", shown());
    assert_eq!(again.path(&out), head.path(data), "{:?}", shown());
    assert_eq!(again.query(&out), head.query(data), "{:?}", shown());
    let canonical = head.canonical_path(data);
    assert_eq!(again.canonical_path(&out), canonical, "{:?}", shown());
    assert!(
        !canonical.contains("//") && !canonical.split('/').any(|segment| segment == ".."),
        "{:?}",
        shown()
    );
    assert_eq!(
        (again.upgrade, again.te_trailers),
        (upgrading.is_asked(), head.te_trailers && !upgrading.is_asked()),
        "{:?}",
        shown()
    );
    assert_eq!(again.expect_continue, head.expect_continue, "{:?}", shown());
    if !head.host(data).is_empty() {
        assert_eq!(again.authority(&out), head.authority(data), "{:?}", shown());
    }
    let (before, after) = (end_to_end(data), end_to_end(&out));
    assert_eq!(after, before, "{:?}", shown());
}

/// An answer's head reads the same whole and byte by byte, and is forwarded as one message. The first byte chooses the
/// request it answers.
pub fn response_head(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let method = if choice & 1 == 0 {
        MethodKind::Get
    } else {
        MethodKind::Head
    };
    let upgrade = choice & 2 != 0;
    let allowed = ALLOWED.map(Box::from);
    let parse = |bytes: &[u8], parser: &mut HeadParser| {
        parse_response(bytes, method, upgrading(upgrade, &allowed), &LIMITS, parser)
    };
    match (parse(data, &mut HeadParser::new()), drip(data, parse)) {
        (Ok(Some(head)), Ok(Some(late))) => {
            assert_eq!(
                (head.len, head.status, head.body),
                (late.len, late.status, late.body),
                "whole and dripped"
            );
            for client in [Version::Http10, Version::Http11] {
                forwarded_response(data, &head, method, upgrading(upgrade, &allowed), client);
            }
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        (whole, dripped) => panic!("whole {whole:?}, dripped {dripped:?}"),
    }
}

fn forwarded_response(data: &[u8], head: &ResponseHead, method: MethodKind, upgrading: Upgrading<'_>, client: Version) {
    let framing = head.forward_framing(client);
    let add = ResponseAdditions {
        client,
        close: framing == Framing::UntilClose,
        keep_alive_10: client == Version::Http10,
        set_cookie: Some(b"a=b"),
        version: Some("v2"),
        framing,
        date: Some("Sun, 06 Nov 1994 08:49:37 GMT"),
        hsts: None,
        via: true,
        upgrading,
        edits: None,
    };
    let mut out = Vec::new();
    write_response(&mut out, head, data, &add);
    let shown = || {
        (
            String::from_utf8_lossy(data).into_owned(),
            String::from_utf8_lossy(&out).into_owned(),
        )
    };
    assert_eq!(
        lint_response(&out, method == MethodKind::Head),
        Ok(out.len()),
        "{:?}",
        shown()
    );
    let roomy = HeadLimits {
        bytes: 64 << 10,
        fields: 100,
    };
    let again = match parse_response(&out, method, upgrading, &roomy, &mut HeadParser::new()) {
        Ok(Some(again)) => again,
        other => panic!("{other:?}: {:?}", shown()),
    };
    assert_eq!((again.len, again.status), (out.len(), head.status), "{:?}", shown());
    assert_eq!(again.reason(&out), head.reason(data), "{:?}", shown());
    assert_eq!(again.forward_framing(client), framing, "{:?}", shown());
}

/// A chunked body reads the same whole and split, and once written again. The first byte chooses the splits.
pub fn chunk(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let piece = usize::from(choice % 16) + 1;
    let whole = decode(data, data.len().max(1));
    let split = decode(data, piece);
    match (&whole, &split) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(a), Err(b)) => assert_eq!(a, b),
        _ => panic!("whole {whole:?}, split {split:?}"),
    }
    let Ok(Body {
        payload,
        trailers,
        done: true,
        ..
    }) = whole
    else {
        return;
    };
    let mut out = Vec::new();
    for chunk in payload.chunks(piece) {
        write_chunk_head(&mut out, chunk.len());
        out.extend_from_slice(chunk);
        out.extend_from_slice(CHUNK_END);
    }
    write_last_chunk(&mut out, &trailers);
    let expected = Body {
        consumed: out.len(),
        payload,
        trailers: trailers.clone(),
        done: true,
    };
    assert_eq!(decode(&out, out.len()), Ok(expected));
    // What goes on as trailers would do no harm as fields either.
    let before = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let head = parse_request(before, &LIMITS, &mut HeadParser::new()).unwrap().unwrap();
    let passing = request_trailers(&trailers, &head, before, None);
    let carrier = [b"GET / HTTP/1.1\r\nHost: a\r\n", passing.as_slice(), b"\r\n"].concat();
    assert_eq!(
        lint_request(&carrier),
        Ok(carrier.len()),
        "{:?}",
        String::from_utf8_lossy(&passing)
    );
}

#[derive(Debug, PartialEq)]
struct Body {
    consumed: usize,
    payload: Vec<u8>,
    trailers: Vec<u8>,
    done: bool,
}

fn decode(data: &[u8], piece: usize) -> Result<Body, ChunkError> {
    let mut decoder = ChunkDecoder::new(HeadLimits::default());
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for piece in data.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() && !decoder.is_done() {
            let step = decoder.step(rest)?;
            assert!(step.consumed > 0 && step.data.end <= step.consumed, "{step:?}");
            payload.extend_from_slice(&rest[step.data]);
            consumed += step.consumed;
            rest = &rest[step.consumed..];
        }
    }
    let (done, trailers) = (decoder.is_done(), decoder.trailers().to_vec());
    Ok(Body {
        consumed,
        payload,
        trailers,
        done,
    })
}

/// Field lines of any kind in an otherwise good request and answer: the first byte chooses what surrounds them.
pub fn rewrite(data: &[u8]) {
    let Some((&choice, fields)) = data.split_first() else {
        return;
    };
    let line = [
        "GET /p?q HTTP/1.1",
        "POST http://a/p HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET / HTTP/1.0",
    ];
    let line = line[usize::from(choice >> 4 & 3)].as_bytes();
    let request = [line, b"\r\nHost: a\r\n", fields, b"\r\n\r\n"].concat();
    if let Ok(Some(head)) = parse_request(&request, &LIMITS, &mut HeadParser::new()) {
        forwarded_request(&request, &head, choice);
    }
    let status = [
        "200 OK",
        "304 Not Modified",
        "101 Switching Protocols",
        "204 No Content",
    ];
    let status = status[usize::from(choice >> 4 & 3)].as_bytes();
    let answer = [b"HTTP/1.1 ", status, b"\r\n", fields, b"\r\n\r\n"].concat();
    let method = if choice & 1 == 0 {
        MethodKind::Get
    } else {
        MethodKind::Head
    };
    let client = if choice & 2 == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let allowed = ALLOWED.map(Box::from);
    let upgrading = upgrading(true, &allowed);
    if let Ok(Some(head)) = parse_response(&answer, method, upgrading, &LIMITS, &mut HeadParser::new()) {
        forwarded_response(&answer, &head, method, upgrading, client);
    }
}

/// Fields the proxy acts on: the others must arrive as they were sent.
const MANAGED: [&str; 26] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "x-rollgate-version",
    "via",
    "date",
    "sec-websocket-version",
];

/// The fields that are none of the proxy's business, found without its parser.
fn end_to_end(message: &[u8]) -> Vec<(String, Vec<u8>)> {
    let message = message.strip_prefix(b"\r\n").unwrap_or(message);
    let end = message
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .unwrap_or(message.len());
    let lines = message[..end].split(|&b| b == b'\n').skip(1);
    let fields: Vec<(String, Vec<u8>)> = lines
        .filter_map(|line| {
            let colon = line.iter().position(|&b| b == b':')?;
            let name = String::from_utf8_lossy(&line[..colon]).into_owned();
            Some((name, line[colon + 1..].trim_ascii().to_vec()))
        })
        .collect();
    let connection = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case("connection"));
    let nominated: Vec<String> = connection
        .flat_map(|(_, v)| {
            v.split(|&b| b == b',')
                .map(|o| String::from_utf8_lossy(o.trim_ascii()).into_owned())
        })
        .collect();
    let kept = |name: &str| {
        let folded = name.to_ascii_lowercase().replace('_', "-");
        !MANAGED.contains(&folded.as_str())
            && !folded.starts_with("x-forwarded-")
            && !folded.starts_with("x-rollgate-")
            && !nominated.iter().any(|n| n.eq_ignore_ascii_case(name))
    };
    fields.into_iter().filter(|(name, _)| kept(name)).collect()
}
