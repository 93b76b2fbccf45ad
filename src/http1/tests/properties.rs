//! Properties over generated messages.

use super::*;
use crate::routing::canonical_path;
use proptest::collection::vec;
use proptest::prelude::*;

/// A valid field line, white space as a peer may send it; known names among unknown ones.
fn field() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        3 => "X-[A-Za-z0-9!#$%&'*+.^`|~-]{1,12}",
        1 => prop::sample::select(vec![
            "Accept", "Cookie", "X-Forwarded-For", "x-forwarded-proto", "X-Forwarded-Host", "Forwarded", "X-Real-IP",
            "X-Request-ID", "traceparent", "Tracestate", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "Trailer",
            "x-rollgate-version", "Via", "Date", "Content_Length", "Range",
        ])
        .prop_map(str::to_owned),
    ];
    let value = prop_oneof![Just(String::new()), "[!-~]([ -~\t]{0,30}[!-~])?", "[!-~\u{e9}]{1,8}"];
    (name, "[ \t]{0,3}", value, "[ \t]{0,2}").prop_map(|(n, a, v, b)| format!("{n}:{a}{v}{b}\r\n"))
}

fn connection() -> impl Strategy<Value = String> {
    let option = prop::sample::select(vec!["close", "Keep-Alive", "te", "x-hop", "X-Other", "upgrade"]);
    vec(option, 0..4).prop_map(|options| match options.is_empty() {
        true => String::new(),
        false => format!("Connection: {}\r\nX-Hop: 1\r\n", options.join(", ")),
    })
}

fn framing() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        (0u64..=i64::MAX as u64).prop_map(|n| format!("Content-Length: {n}\r\n")),
        Just("transfer-encoding: Chunked\r\n".to_owned()),
    ]
}

/// A valid request head.
fn valid_request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![
        Just("GET".to_owned()),
        Just("POST".to_owned()),
        Just("OPTIONS".to_owned()),
        "[A-Z!#$%&'*+.^_`|~-]{1,32}".prop_filter("served, and may have a body", |m| m != "CONNECT" && m != "TRACE"),
    ];
    let target = prop_oneof![
        "/([!\"$&-\\[\\]-~]|%[2-9a-f][0-9A-F]){0,30}(\\?[!\"$-~]{0,9})?",
        Just("http://host.example".to_owned()),
        "https://host\\.example/[$&-\\[\\]-~]{0,9}"
    ]
    .prop_filter("a path without `.` and `..`", |target| {
        let path = target.split('?').next().unwrap();
        canonical_path(path).is_ok()
    });
    let head = (method, target, prop::bool::ANY, framing(), connection());
    (head, vec(field(), 0..6), vec(field(), 0..6)).prop_map(|((method, target, empty, framing, connection), a, b)| {
        let empty = if empty { "\r\n" } else { "" };
        let (a, b) = (a.concat(), b.concat());
        format!("{empty}{method} {target} HTTP/1.1\r\n{a}{connection}Host: host.example\r\n{b}{framing}\r\n")
            .into_bytes()
    })
}

/// A valid answer head.
fn valid_response() -> impl Strategy<Value = Vec<u8>> {
    let status = prop::sample::select(vec![200u16, 201, 206, 301, 304, 400, 404, 426, 500, 503, 599]);
    (status, " ?", "[ -~]{0,12}", framing(), connection(), vec(field(), 0..8)).prop_map(
        |(status, space, reason, framing, connection, fields)| {
            let reason = if space.is_empty() {
                String::new()
            } else {
                format!(" {reason}")
            };
            format!(
                "HTTP/1.1 {status}{reason}\r\n{}{connection}{framing}\r\n",
                fields.concat()
            )
            .into_bytes()
        },
    )
}

/// Reads a head that arrives in two parts.
fn split_request(buf: &[u8], at: usize) -> Result<Option<RequestHead>, HeadError> {
    let mut parser = HeadParser::new();
    let limits = HeadLimits::default();
    match parse_request(&buf[..at], &limits, &mut parser)? {
        None => parse_request(buf, &limits, &mut parser),
        some => Ok(some),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_split_anywhere_reads_the_same(buf in valid_request()) {
        let whole = request(&buf).unwrap().unwrap();
        prop_assert_eq!(whole.len, buf.len());
        for at in 0..buf.len() {
            prop_assert!(matches!(request(&buf[..at]), Ok(None)), "complete at {}", at);
            let head = split_request(&buf, at).unwrap().unwrap();
            prop_assert_eq!(describe(&head, &buf), describe(&whole, &buf));
        }
        let mut parser = HeadParser::new();
        for end in 0..buf.len() {
            prop_assert!(matches!(parse_request(&buf[..end], &HeadLimits::default(), &mut parser), Ok(None)));
        }
        let head = parse_request(&buf, &HeadLimits::default(), &mut parser).unwrap().unwrap();
        prop_assert_eq!(describe(&head, &buf), describe(&whole, &buf));
    }

    #[test]
    fn an_answer_split_anywhere_reads_the_same(buf in valid_response(), head in prop::bool::ANY) {
        let method = if head { MethodKind::Head } else { MethodKind::Get };
        let whole = response(&buf, method, false).unwrap().unwrap();
        prop_assert_eq!(whole.len, buf.len());
        for at in 0..buf.len() {
            let mut parser = HeadParser::new();
            let limits = HeadLimits::default();
            prop_assert!(matches!(parse_response(&buf[..at], method, Upgrading::default(), &limits, &mut parser), Ok(None)));
            let head = parse_response(&buf, method, Upgrading::default(), &limits, &mut parser).unwrap().unwrap();
            prop_assert_eq!(describe_response(&head, &buf), describe_response(&whole, &buf));
        }
    }

    #[test]
    fn a_forwarded_request_is_one_message_with_the_same_meaning(
        buf in valid_request(), peer_trusted in prop::bool::ANY, forwarded in prop::bool::ANY,
    ) {
        let head = request(&buf).unwrap().unwrap();
        let upgrading = head.upgrading(&buf, allowed());
        let add = RequestAdditions { peer_trusted, forwarded, upgrading, ..additions() };
        let mut out = Vec::new();
        write_request(&mut out, &head, &buf, &add);
        prop_assert_eq!(lint_request(&out), Ok(out.len()));
        let again = request(&out).unwrap().unwrap();
        prop_assert_eq!(again.len, out.len());
        prop_assert_eq!(again.method(&out), head.method(&buf));
        prop_assert_eq!((again.path(&out), again.query(&out)), (head.path(&buf), head.query(&buf)));
        prop_assert_eq!((again.host(&out), again.body), (head.host(&buf), head.body));
        let ends = |h: &RequestHead, b: &[u8]| -> Vec<(String, Vec<u8>)> {
            h.fields(b)
                .filter(|(n, _)| n.starts_with("X-") && n.len() > 2 && !matches!(n.as_bytes(), [_, _, b'F' | b'f' | b'R' | b'r' | b'H' | b'O', ..]))
                .map(|(n, v)| (n.to_owned(), v.to_vec()))
                .collect()
        };
        prop_assert_eq!(ends(&again, &out), ends(&head, &buf));
        // Forwarding what was forwarded, for a trusted peer, keeps what counts.
        let mut twice = Vec::new();
        write_request(&mut twice, &again, &out, &RequestAdditions { peer_trusted: true, ..add });
        prop_assert_eq!(lint_request(&twice), Ok(twice.len()));
    }

    #[test]
    fn a_forwarded_answer_is_one_message_with_the_same_meaning(
        buf in valid_response(), to_head in prop::bool::ANY, minor in 0u8..2, close in prop::bool::ANY,
    ) {
        let method = if to_head { MethodKind::Head } else { MethodKind::Get };
        let head = response(&buf, method, false).unwrap().unwrap();
        let client = Version::of_minor(minor);
        let framing = head.forward_framing(client);
        let add = ResponseAdditions { client, close, keep_alive_10: !close, ..response_additions(framing) };
        let mut out = Vec::new();
        write_response(&mut out, &head, &buf, &add);
        prop_assert_eq!(lint_response(&out, to_head), Ok(out.len()));
        let again = response(&out, method, false).unwrap().unwrap();
        prop_assert_eq!((again.len, again.status), (out.len(), head.status));
        prop_assert_eq!(again.reason(&out), head.reason(&buf));
        let expected = match framing {
            Framing::None => ResponseBody::None,
            Framing::Length(n) => ResponseBody::Length(n),
            Framing::Chunked => ResponseBody::Chunked,
            Framing::UntilClose => ResponseBody::UntilClose,
        };
        prop_assert_eq!(again.body, expected);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300), method in 0usize..10, upgrade in prop::bool::ANY) {
        let _ = request(&bytes);
        let _ = response(&bytes, MethodKind::ALL[method], upgrade);
        let mut decoder = ChunkDecoder::new(HeadLimits::default());
        let mut rest = &bytes[..];
        while !rest.is_empty() && !decoder.is_done() {
            let Ok(step) = decoder.step(rest) else { break };
            prop_assert!(step.consumed > 0);
            rest = &rest[step.consumed..];
        }
    }

    #[test]
    fn any_payload_in_any_chunks_and_any_splits_is_read_back(
        chunks in vec(vec(any::<u8>(), 1..40), 0..8), splits in vec(1usize..20, 1..60),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            write_chunk_head(&mut wire, chunk.len());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(CHUNK_END);
        }
        write_last_chunk(&mut wire, b"X-Sum: 1\r\n");
        let mut decoder = ChunkDecoder::new(HeadLimits::default());
        let (mut payload, mut at) = (Vec::new(), 0);
        for len in splits.iter().cycle() {
            let mut piece = &wire[at..wire.len().min(at + len)];
            at += piece.len();
            while !piece.is_empty() {
                let step = decoder.step(piece).unwrap();
                payload.extend_from_slice(&piece[step.data]);
                piece = &piece[step.consumed..];
            }
            if decoder.is_done() {
                break;
            }
        }
        prop_assert_eq!(payload, chunks.concat());
        prop_assert_eq!(at, wire.len());
        prop_assert_eq!(decoder.trailers(), b"X-Sum: 1\r\n");
    }
}
