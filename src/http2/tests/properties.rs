use super::*;
use crate::http1::{
    Chain, RequestAdditions, ResponseAdditions, Upgrading, lint_request, write_request, write_response,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};

fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        "[a-z][a-z0-9-]{0,12}",
        "content-length|te|host|cookie|expect|connection|transfer-encoding|x-forwarded-for|trailer",
    ];
    // What HPACK can carry and a `HeaderValue` can hold.
    let value = vec(prop_oneof![b' '..=b'~', 0x80..=0xffu8, Just(b'\t')], 0..20);
    vec((name, value), 0..8)
}

fn map(fields: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    map
}

proptest! {
    /// Whatever a client sends over HTTP/2, what is forwarded to an endpoint of HTTP/1.1 is one request without a doubt,
    /// and what is forwarded to one of HTTP/2 says the same.
    #[test]
    fn a_request_goes_through_both_ways(
        fields in fields(), path in "/[!-~]{0,20}", method in "[A-Z]{1,8}", ended in prop::bool::ANY,
    ) {
        let uri = format!("http://a.example{path}");
        let Ok(request_) = Request::builder().method(&*method).uri(&*uri).body(()) else { return Ok(()) };
        let (mut parts, ()) = request_.into_parts();
        parts.headers = map(&fields);
        let Ok((head, text)) = read(&parts, ended) else { return Ok(()) };
        let mut add = RequestAdditions {
            to: Version::Http11,
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            peer_trusted: false,
        chain: Chain::default(),
            https: false,
            forwarded: false,
            via: true,
            request_id: "id",
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            version: "v1",
            default_host: "",
            upgrading: Upgrading::default(),
            rewrite: None,
        };
        let mut out = Vec::new();
        write_request(&mut out, &head, &text, &add);
        prop_assert_eq!(lint_request(&out), Ok(out.len()), "{}", String::from_utf8_lossy(&out));

        add.to = Version::Http2;
        out.clear();
        write_request(&mut out, &head, &text, &add);
        let sent = request(&out, false).unwrap();
        prop_assert_eq!(sent.method().as_str(), &method);
        prop_assert_eq!(sent.uri().path_and_query(), parts.uri.path_and_query());
        for name in ["connection", "transfer-encoding", "upgrade", "host"] {
            prop_assert!(!sent.headers().contains_key(name), "{}", name);
        }
    }

    /// The same for answers.
    #[test]
    fn an_answer_goes_through(fields in fields(), status in 200u16..600, ended in prop::bool::ANY, to_head in prop::bool::ANY) {
        let (mut parts, ()) = Response::builder().status(status).body(()).unwrap().into_parts();
        parts.headers = map(&fields);
        let method = if to_head { MethodKind::Head } else { MethodKind::Get };
        let mut text = Vec::new();
        let read = read_answer(&mut text, &parts, ended, method, &HeadLimits::default(), &mut HeadParser::new());
        let Ok(head) = read else { return Ok(()) };
        for client in [Version::Http10, Version::Http11, Version::Http2] {
            let framing = head.forward_framing(client);
            let add = ResponseAdditions {
                client, close: false, keep_alive_10: false, set_cookie: None, hsts: None, version: None, framing, date: None, via: true,
                upgrading: Upgrading::default(), edits: None,
            };
            let mut out = Vec::new();
            write_response(&mut out, &head, &text, &add);
            if client < Version::Http2 {
                let linted = crate::http1::lint_response(&out, to_head);
                prop_assert_eq!(linted, Ok(out.len()), "{}", String::from_utf8_lossy(&out));
            } else {
                let sent = answer(&out).unwrap();
                prop_assert_eq!(sent.status().as_u16(), status);
                for name in ["connection", "transfer-encoding", "upgrade"] {
                    prop_assert!(!sent.headers().contains_key(name), "{}", name);
                }
            }
        }
    }
}
