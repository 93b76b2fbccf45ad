//! Routes that the proxy answers itself: redirects and fixed answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{Config, Gate, PATIENCE, Service, Upstream, Write, eventually};

const ROUTES: &str = "\
routes:
  - { host: old.example.com, redirect: { status: 301, scheme: https, host: shop.example.com } }
  - { path_prefix: /v1, redirect: { status: 308, path_prefix: /v2 } }
  - { path: /start, methods: [GET, HEAD], redirect: { path: /welcome } }
  - { path: /robots.txt, respond: { body: \"User-agent: *\\nDisallow: /\\n\" } }
  - { path_prefix: /internal, respond: { status: 404, content_type: application/json, body: '{\"error\":\"none\"}' } }
  - { path: /ping, respond: { status: 204 } }";

fn gate(upstream: &Upstream) -> Gate {
    Gate::start(&Config::with(Service::only(upstream.port())).top(ROUTES).text())
}

#[test]
fn clients_are_sent_where_the_file_says() {
    let upstream = Upstream::named("v1");
    let gate = gate(&upstream);
    let mut client = gate.client();
    let shop = ("host", "shop.example.com:8080");
    for (method, path, host, status, location) in [
        (
            "GET",
            "/a?b=c",
            ("host", "old.example.com:81"),
            301,
            "https://shop.example.com/a?b=c",
        ),
        ("GET", "/v1/x/y?q", shop, 308, "http://shop.example.com:8080/v2/x/y?q"),
        ("GET", "/v1", shop, 308, "http://shop.example.com:8080/v2"),
        (
            "GET",
            "/v1//evil.example",
            shop,
            308,
            "http://shop.example.com:8080/v2/evil.example",
        ),
        ("HEAD", "/start?q", shop, 302, "http://shop.example.com:8080/welcome?q"),
    ] {
        let response = client.request(method, path, &[host], b"");
        assert_eq!(
            (response.status, response.header("location")),
            (status, Some(location)),
            "{path}"
        );
        assert!(!response.closes(), "{path}");
        assert_eq!(
            response.header("cache-control"),
            None,
            "{path}: whether it may be kept, the status says"
        );
    }
    // A body that nobody reads ends the connection; its method is not lost on the way.
    let response = client.request("POST", "/v1/order", &[shop], b"order");
    assert_eq!((response.status, response.closes()), (308, true));
    assert_eq!(upstream.count(), 0);
    let mut client = gate.client();
    assert_eq!(client.get("/v10", &[]).served_by(), "v1", "whole segments");
    assert_eq!(
        client.request("POST", "/start", &[], b"").served_by(),
        "v1",
        "not this method"
    );

    gate.expect_metric("rollgate_own_answers_total", &[("kind", "redirect")], 6.0);
    gate.expect_metric("rollgate_requests_total", &[], 2.0);
    gate.expect_metric("rollgate_terminations_total", &[("code", "ok")], 8.0);
    let line = gate.access_line("a redirect", |line| line["status"] == 301);
    assert_eq!(
        (line["reason"].as_str(), line["termination"].as_str()),
        (Some("redirect"), Some("ok"))
    );
    assert_eq!(
        (line.get("service"), line.get("version"), line.get("refusal")),
        (None, None, None)
    );
}

#[test]
fn fixed_answers_are_whole_and_without_what_is_not_theirs() {
    let upstream = Upstream::named("v1");
    let gate = gate(&upstream);
    let mut client = gate.client();
    let robots = client.get("/robots.txt", &[]);
    assert_eq!(
        (robots.status, robots.text().as_str()),
        (200, "User-agent: *\nDisallow: /\n")
    );
    assert_eq!(robots.header("content-type"), Some("text/plain; charset=utf-8"));
    let head = client.request("HEAD", "/robots.txt", &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("26")));
    let none = client.get("/internal/metrics", &[]);
    assert_eq!((none.status, none.text().as_str()), (404, "{\"error\":\"none\"}"));
    assert_eq!(none.header("content-type"), Some("application/json"));
    let ping = client.get("/ping", &[]);
    assert_eq!(
        (ping.status, ping.header("content-length"), ping.header("content-type")),
        (204, None, None)
    );
    assert_eq!(client.get("/else", &[]).served_by(), "v1", "the connection goes on");
    gate.expect_metric("rollgate_own_answers_total", &[("kind", "respond")], 4.0);
    gate.expect_metric("rollgate_refusals_total", &[("reason", "no_route")], 0.0);
    gate.expect_metric("rollgate_requests_total", &[], 1.0);
}

#[test]
fn routes_come_and_go_with_the_file() {
    let upstream = Upstream::named("v1");
    let config = Config::with(Service::only(upstream.port()));
    let gate = Gate::start(&config.clone().text());
    assert_eq!(gate.get("/v1/x", &[]).served_by(), "v1");
    gate.write_config(&config.clone().top(ROUTES).text(), Write::Rename);
    eventually(PATIENCE, "the routes are there", || {
        gate.get("/v1/x", &[]).status == 308
    });
    gate.write_config(&config.text(), Write::Rename);
    eventually(PATIENCE, "the routes are gone", || gate.get("/v1/x", &[]).status == 200);
}

#[test]
fn a_client_that_names_no_host_is_not_redirected() {
    let upstream = Upstream::named("v1");
    let gate = gate(&upstream);
    let mut client = gate.client();
    client.send("GET /v1 HTTP/1.0\r\n\r\n");
    assert_eq!(client.read(false).unwrap().status, 400);
}

/// The head and body that curl gets by HTTP/2.
fn by_http2(gate: &Gate, path: &str) -> String {
    let url = format!("http://127.0.0.1:{}{path}", gate.port());
    let arguments = [
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--include",
        "--http2-prior-knowledge",
        &url,
    ];
    let output = std::process::Command::new("curl").args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("curl is needed for this test ({error}); `make test` installs it"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

#[test]
fn routes_rules_and_limits_hold_over_http2() {
    let upstream = Upstream::named("v1");
    let service = Service::only(upstream.port()).key(
        "rate_limits: [{ requests: 1, per: 1h }]\nrewrite: { host: inside, strip_prefix: /shop }\n\
         request_headers: { set: { x-from: \"${host}\" } }\nresponse_headers: { set: { x-by: \"${version}\" } }",
    );
    let gate = Gate::start(&Config::with(service).top(ROUTES).text());
    let port = gate.port();
    let moved = by_http2(&gate, "/v1/x?q");
    assert!(moved.starts_with("HTTP/2 308"), "{moved}");
    assert!(
        moved.contains(&format!("\nlocation: http://127.0.0.1:{port}/v2/x?q\n")),
        "{moved}"
    );
    let robots = by_http2(&gate, "/robots.txt");
    assert!(robots.ends_with("\n\nUser-agent: *\nDisallow: /\n"), "{robots}");
    let served = by_http2(&gate, "/shop/cart");
    assert!(
        served.starts_with("HTTP/2 200") && served.contains("\nx-by: v1\n"),
        "{served}"
    );
    let received = upstream.last();
    assert_eq!(
        (received.target.as_str(), received.head.get("host")),
        ("/cart", Some("inside"))
    );
    assert_eq!(received.head.get("x-from"), Some(format!("127.0.0.1:{port}").as_str()));
    let refused = by_http2(&gate, "/shop/cart");
    let wait = refused
        .split_once("\nretry-after: ")
        .and_then(|(_, rest)| rest.lines().next());
    let wait: u64 = wait.and_then(|wait| wait.parse().ok()).unwrap_or_default();
    assert!(
        refused.starts_with("HTTP/2 429") && (3540..=3600).contains(&wait),
        "{refused}"
    );
}
