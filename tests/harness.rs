//! The harness itself, without the binary: what it would not notice, no test would.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;
use support::{Blackhole, Broken, Client, Nginx, PATIENCE, Then, Upstream};

const FORWARDED: [(&str, &str); 6] = [
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "shop.example.com"),
    ("x-request-id", "1"),
    ("traceparent", "00-1-1-00"),
    ("x-rollgate-version", "v1"),
];

#[test]
fn an_upstream_answers_and_keeps_what_it_got() {
    let upstream = Upstream::named("v1");
    let mut client = Client::connect(upstream.port());
    let response = client.request("POST", "/a?b", &FORWARDED, b"hello");
    assert_eq!(
        (response.status, response.served_by(), response.text().as_str()),
        (200, "v1", "v1")
    );
    assert_eq!(
        client.request("HEAD", "/", &FORWARDED, b"").header("content-length"),
        Some("2")
    );
    let requests = upstream.requests();
    assert_eq!(
        (requests[0].method.as_str(), requests[0].target.as_str()),
        ("POST", "/a?b")
    );
    assert_eq!(
        (requests[0].body.as_slice(), requests[0].complete, requests[1].nth),
        (&b"hello"[..], true, 1)
    );
    assert_eq!((upstream.count(), upstream.connections_used()), (2, 1));
}

#[test]
fn an_upstream_fails_the_test_over_a_badly_forwarded_request() {
    let result = std::panic::catch_unwind(|| {
        let upstream = Upstream::named("v1");
        Client::connect(upstream.port()).get("/", &[]);
    });
    assert!(result.is_err());
}

#[test]
fn a_killed_upstream_refuses_and_a_revived_one_answers() {
    let upstream = Upstream::named("v1");
    let mut client = Client::connect(upstream.port());
    assert_eq!(client.get("/", &FORWARDED).status, 200);
    upstream.kill();
    assert!(client.is_closed_within(PATIENCE));
    assert!(std::net::TcpStream::connect(("127.0.0.1", upstream.port())).is_err());
    let revived = upstream.revive();
    assert_eq!(Client::connect(revived.port()).get("/", &FORWARDED).served_by(), "v1");
}

#[test]
fn the_client_tells_whole_cut_silent_and_malformed_answers_apart() {
    let read = |answer: &'static str, then: Then| {
        let upstream = Upstream::fixed("v1", answer, then);
        let mut client = Client::connect(upstream.port());
        if answer.is_empty() && then == Then::Keep {
            client.set_read_timeout(Duration::from_millis(300));
        }
        client.try_request("GET", "/", &FORWARDED, b"")
    };
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: 1\r\n\r\n";
    let whole = read(chunked, Then::Keep).unwrap();
    assert_eq!((whole.text().as_str(), whole.trailers[0].1.as_str()), ("abc", "1"));
    let interim = read(
        "HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
        Then::Keep,
    )
    .unwrap();
    assert_eq!((interim.status, interim.interim.len()), (204, 1));
    assert_eq!(read("HTTP/1.1 200 OK\r\n\r\nabc", Then::Close).unwrap().text(), "abc");
    let cut = read("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", Then::Close);
    assert!(matches!(cut, Err(Broken::Cut(part)) if part.text() == "abc"));
    let cut = read(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        Then::Reset,
    );
    assert!(matches!(cut, Err(Broken::Cut(_))), "{cut:?}");
    assert!(matches!(read("", Then::Keep), Err(Broken::Silent)));
    assert!(matches!(read("", Then::Reset), Err(Broken::Closed)));
    assert!(matches!(
        read("HTTP/1.1 200 OK\nfoo: bar\r\n\r\n", Then::Close),
        Err(Broken::Malformed(_))
    ));
}

#[test]
fn a_blackhole_completes_no_connection() {
    let hole = Blackhole::new();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], hole.port()));
    assert!(std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_err());
}

#[test]
fn nginx_serves_its_name_and_files() {
    let nginx = Nginx::named("v1");
    nginx.put_file("large", &vec![b'x'; 100_000]);
    assert_eq!(Client::connect(nginx.port()).get("/", &[]).served_by(), "v1");
    assert_eq!(
        Client::connect(nginx.port()).get("/files/large", &[]).body.len(),
        100_000
    );
}
