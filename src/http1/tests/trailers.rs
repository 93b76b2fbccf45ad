//! Which trailer fields go on.

use super::*;

/// The names of these fields that go on, in wire form with one that always does.
fn passed(names: &[&str], passing: impl Fn(&[u8]) -> Vec<u8>) -> Vec<String> {
    let came: String = names.iter().map(|name| format!("{name}: x\r\n")).collect();
    let out = passing(format!("X-Sum: 1\r\n{came}Grpc-Status: 0\r\n").as_bytes());
    let kept = lines(&[b"\r\n", &*out].concat());
    assert_eq!((&*kept[0], &*kept[kept.len() - 1]), ("X-Sum: 1", "Grpc-Status: 0"));
    let names = kept[1..kept.len() - 1]
        .iter()
        .map(|line| line.split(':').next().unwrap());
    names.map(str::to_owned).collect()
}

fn rules(removed: &[&str], set: &[&str]) -> FieldEdits {
    let gone = removed.iter().chain(set).map(|&name| name.to_owned());
    let added = set
        .iter()
        .map(|&name| (name.to_owned(), vec![Piece::Text("own".into())]));
    FieldEdits::new(gone, added.collect())
}

/// What an answer with these lines in its head lets through.
fn of_answer(
    lines: &str,
    names: &[&str],
    rules: Option<&FieldEdits>,
    is_metadata: bool,
    taken: &[&str],
) -> Vec<String> {
    let head = format!("HTTP/1.1 200 OK\r\n{lines}Transfer-Encoding: chunked\r\n\r\n");
    let parsed = response(head.as_bytes(), MethodKind::Post, false).unwrap().unwrap();
    passed(names, |came| {
        response_trailers(came, (&parsed, head.as_bytes()), rules, is_metadata, taken)
    })
}

/// What a request with these lines in its head lets through.
fn of_request(lines: &str, names: &[&str], rules: Option<&FieldEdits>) -> Vec<String> {
    let head = with(&format!("{lines}Transfer-Encoding: chunked\r\n"));
    let parsed = accepted(&head);
    passed(names, |came| request_trailers(came, &parsed, &head, rules))
}

const NONE: [&str; 0] = [];

/// RFC 9110 section 6.5.1, and what the proxy writes itself.
#[test]
fn what_belongs_before_the_content_does_not_go_behind_it() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        "Host",
        "Connection",
        "TE",
        "Trailer",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Cache-Control",
        "Expect",
        "Max-Forwards",
        "X-Forwarded-For",
        "Forwarded",
        "X-Real-IP",
        "x-rollgate-version",
        "x-request-id",
        "traceparent",
        "Keep-Alive",
        "Upgrade",
        "Age",
        "Date",
        "Location",
        "Vary",
        "If-Match",
        "Content_Length",
        "Proxy-Authorization",
        "Via",
    ] {
        assert_eq!(of_request("", &[name], None), NONE, "{name}");
        assert_eq!(of_answer("", &[name], None, false, &[]), NONE, "{name}");
    }
}

#[test]
fn what_rules_set_or_remove_is_not_believed_behind_the_content() {
    let rules = rules(&["x-debug"], &["X-Client-CN"]);
    let names = [
        "X-Client-CN",
        "X_Client_CN",
        "x-client-cn",
        "X-DEBUG",
        "x_debug",
        "X-Other",
    ];
    assert_eq!(of_request("", &names, Some(&rules)), ["X-Other"]);
    assert_eq!(of_request("", &names, None), names);
    for is_metadata in [false, true] {
        assert_eq!(of_answer("", &names, Some(&rules), is_metadata, &[]), ["X-Other"]);
        assert_eq!(of_answer("", &names, None, is_metadata, &["x-other"]), names[..5]);
    }
}

#[test]
fn what_connection_names_goes_no_further_behind_the_content() {
    let lines = "Connection: close, X-Hop\r\nconnection: x-more\r\nX-Hop: 1\r\n";
    let names = ["x-hop", "X-More", "X-Other"];
    assert_eq!(of_request(lines, &names, None), ["X-Other"]);
    assert_eq!(of_answer(lines, &names, None, false, &[]), ["X-Other"]);
    assert_eq!(of_answer(lines, &names, None, true, &[]), ["X-Other"]);
}

/// To gRPC they are metadata as the head is.
#[test]
fn the_metadata_behind_a_call_goes_on_as_that_before_it() {
    let passes = [
        "x-request-id",
        "traceparent",
        "retry-after",
        "x-real-ip",
        "date",
        "etag",
        "location",
        "warning",
        "from",
        "age",
        "vary",
        "cache-control",
        "authorization",
        "www-authenticate",
        "set-cookie",
        "user-agent",
        "x-details-bin",
    ];
    assert_eq!(of_answer("", &passes, None, true, &[]), passes);
    let ends_here = [
        "content-length",
        "content-type",
        "content-encoding",
        "transfer-encoding",
        "host",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "proxy-authenticate",
        "x-rollgate-version",
        "x_request_id",
        "via",
    ];
    for name in ends_here {
        assert_eq!(of_answer("", &[name], None, true, &[]), NONE, "{name}");
    }
}
