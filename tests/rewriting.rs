//! What rules make of requests and answers on their way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::frames::*;
use support::{Config, Gate, Head, Nginx, PATIENCE, Service, Then, Upstream, Write, eventually};

fn all<'h>(head: &'h Head, name: &'h str) -> Vec<&'h str> {
    head.all(name).collect()
}

const RULES: &str = "\
rewrite: { host: shop.internal, strip_prefix: /shop }
request_headers:
  set: { X-Real-IP: \"${client_ip}\", X-Tenant: \"${service}/${version}\", X-Asked: \"${scheme}://${host}\" }
  add: { x-tag: edge }
  remove: [x-debug]
response_headers:
  set: { X-Frame-Options: DENY, x-request-id: \"${request_id}\" }
  remove: [server, x-powered-by]";

fn talkative(name: &str) -> Upstream {
    Upstream::with(name, |exchange| {
        exchange.read_body();
        let fields = [
            ("server", "old"),
            ("X-Powered-By", "php"),
            ("x-frame-options", "ALLOW"),
            ("x-kept", "yes"),
        ];
        exchange.answer(200, &fields, b"ok")
    })
}

#[test]
fn requests_and_answers_are_changed_as_the_file_says() {
    let upstream = talkative("v1");
    let gate = Gate::start(&Config::with(Service::only(upstream.port()).key(RULES)).text());
    let sent = [
        ("x-debug", "1"),
        ("X_DEBUG", "2"),
        ("x-tenant", "forged"),
        ("x-real-ip", "6.6.6.6"),
        ("x-tag", "own"),
        ("host", "shop.example.com:8080"),
    ];
    let response = gate.get("/shop/cart?id=7", &sent);
    assert_eq!(response.status, 200);
    assert_eq!(all(&response.head, "x-frame-options"), ["DENY"]);
    assert_eq!(
        (response.header("server"), response.header("x-powered-by")),
        (None, None)
    );
    assert_eq!(response.header("x-kept"), Some("yes"));
    let received = upstream.last();
    assert_eq!(received.target, "/cart?id=7");
    let head = &received.head;
    assert_eq!(all(head, "host"), ["shop.internal"]);
    assert_eq!(head.get("x-forwarded-host"), Some("shop.example.com:8080"));
    assert_eq!((head.get("x-debug"), head.get("x_debug")), (None, None));
    assert_eq!(all(head, "x-tenant"), ["shop/v1"]);
    assert_eq!(all(head, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(all(head, "x-asked"), ["http://shop.example.com:8080"]);
    assert_eq!(all(head, "x-tag"), ["own", "edge"]);
    assert_eq!(response.header("x-request-id"), head.get("x-request-id"));
    // The log tells what the client asked for.
    let line = gate.access_line("the request", |line| line["path"] == "/shop/cart?id=7");
    assert_eq!(line["host"], "shop.example.com");
}

/// A server that merges trailers with the head would take them for what the proxy says.
#[test]
fn what_rules_and_connection_take_from_a_head_does_not_come_back_as_a_trailer() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        exchange.send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n\
             2\r\nhi\r\n0\r\nx-powered-by: php\r\nx-frame-options: ALLOW\r\nx-hop: 2\r\nx-sum: 42\r\n\r\n",
        );
        Then::Keep
    });
    let gate = Gate::start(&Config::with(Service::only(upstream.port()).key(RULES)).text());
    let kept = [("x-sum".to_owned(), "42".to_owned())];
    let mut client = gate.client();
    client.send("POST /shop HTTP/1.1\r\nhost: a\r\nconnection: te, x-mine\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("1\r\na\r\n0\r\nx-tenant: forged\r\nX_Tenant: forged\r\nX-Debug: 1\r\nx-mine: 1\r\nx-sum: 42\r\n\r\n");
    assert_eq!(client.read(false).unwrap().trailers, kept);
    assert_eq!(upstream.last().trailers, kept);

    let mut client = RawClient::greeted(gate.port());
    client.head(1, &POST).send(DATA, 0, 1, "a");
    let sent = [
        ("x-tenant", "forged"),
        ("x_tenant", "forged"),
        ("x-debug", "1"),
        ("x-sum", "42"),
    ];
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, hpack(&sent));
    client.until("the head", |frame| frame.kind == HEADERS);
    let trailers = client.until("the trailers", |frame| frame.kind == HEADERS);
    let one_field = hpack(&[("x-sum", "42")]).len();
    assert!(
        trailers.has(END_STREAM) && trailers.payload.len() <= one_field,
        "{trailers:?}"
    );
    assert_eq!(upstream.last().trailers, kept);
}

#[test]
fn a_version_has_rules_of_its_own_and_stable_keeps_its_when_it_rescues() {
    let stable = Upstream::named("v1");
    let canary = Upstream::with("v2", |exchange| {
        exchange.read_body();
        Then::Reset
    });
    let config = |more: &str| {
        let service = Service::split(stable.port(), 50, canary.port(), 50)
            .never_eject()
            .key("request_headers: { set: { x-level: service } }\nrescue: { on: [reset] }");
        let text = Config::with(service).text();
        // The version's keys stand beside its pool.
        text.replacen(
            "        weight: 50\n        pool:\n",
            &format!("        weight: 50\n{more}        pool:\n"),
            2,
        )
    };
    let rules =
        "        request_headers: { set: { x-level: \"${version}\" } }\n        rewrite: { add_prefix: \"/of\" }\n";
    let gate = Gate::start(&config(rules));
    let mut client = gate.client();
    for _ in 0..10 {
        assert_eq!(client.get("/a", &[]).status, 200);
    }
    assert_eq!((stable.count(), canary.count()), (10, 5));
    for (upstream, version) in [(&stable, "v1"), (&canary, "v2")] {
        for request in upstream.requests() {
            assert_eq!(
                (request.target.as_str(), all(&request.head, "x-level")),
                ("/of/a", vec![version])
            );
        }
    }
    gate.write_config(&config(""), Write::Rename);
    eventually(PATIENCE, "the rules are gone", || {
        client.get("/b", &[]);
        let last = stable.last();
        last.target == "/b" && all(&last.head, "x-level") == ["service"]
    });
}

#[test]
fn a_real_server_is_reached_by_its_own_path() {
    let nginx = Nginx::named("v1");
    nginx.put_file("note.txt", b"from the disk");
    let service = Service::only(nginx.port()).key("rewrite: { strip_prefix: /app, add_prefix: /files }");
    let gate = Gate::start(&Config::with(service).text());
    let response = gate.get("/app/note.txt?x=1", &[]);
    assert_eq!((response.status, response.text()), (200, "from the disk".to_owned()));
    assert_eq!(gate.get("/apple/note.txt", &[]).status, 404);
}

#[test]
fn rules_that_would_break_http_are_refused() {
    let service = Service::only(1).key("request_headers: { set: { Content-Length: \"0\", host: a } }");
    let exit = Gate::try_start(&Config::with(service).text())
        .err()
        .expect("the file is refused");
    assert_eq!(exit.code, Some(1));
    for part in [
        "request_headers.set.Content-Length: `Content-Length` cannot be changed: it frames the body",
        "only `rewrite.host` sets it",
    ] {
        assert!(exit.stderr.contains(part), "{}", exit.stderr);
    }
}

#[test]
fn a_copy_follows_the_rules_of_the_version_that_gets_it() {
    let (stable, copied) = (Upstream::named("v1"), Upstream::named("v2"));
    let service = Service::split(stable.port(), 100, copied.port(), 0)
        .key("mirror: { version: v2 }\nrequest_headers: { set: { x-level: \"${version}\" } }");
    let text = Config::with(service).text();
    let (before, after) = text.rsplit_once("        pool:").unwrap();
    let gate = Gate::start(&format!(
        "{before}        rewrite: {{ add_prefix: /new }}\n        pool:{after}"
    ));
    assert_eq!(gate.get("/cart", &[]).served_by(), "v1");
    eventually(PATIENCE, "the copy has arrived", || copied.count() == 1);
    for (upstream, target, version) in [(&stable, "/cart", "v1"), (&copied, "/new/cart", "v2")] {
        let received = upstream.last();
        assert_eq!(
            (received.target.as_str(), all(&received.head, "x-level")),
            (target, vec![version])
        );
        assert_eq!(received.head.get("x-rollgate-version"), Some(version));
    }
}

#[test]
fn an_endpoint_elsewhere_is_told_where_it_is_and_its_addresses_are_led_back() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        let fields = [
            ("location", "http://shop.internal/inner/done?ok=1"),
            ("content-location", "/inner/thing"),
        ];
        exchange.answer(303, &fields, b"")
    });
    let rules = |more: &str| {
        let rewrite = format!("rewrite: {{ host: shop.internal, strip_prefix: /shop, add_prefix: /inner{more} }}");
        Config::with(Service::only(upstream.port()).key(&rewrite)).text()
    };
    let gate = Gate::start(&rules(""));
    let host = ("host", "shop.example.com:8080");
    let sent = [host, ("x-forwarded-prefix", "/forged")];
    let response = gate.get("/shop/cart", &sent);
    assert_eq!(
        (
            response.status,
            response.header("location"),
            response.header("content-location")
        ),
        (
            303,
            Some("http://shop.example.com:8080/shop/done?ok=1"),
            Some("/shop/thing")
        )
    );
    let received = upstream.last();
    assert_eq!(received.target, "/inner/cart");
    assert_eq!(all(&received.head, "x-forwarded-prefix"), ["/shop"]);
    // A path that has no prefix to strip: the endpoint's paths are called as they are.
    let response = gate.get("/cart", &sent);
    assert_eq!(
        (response.header("location"), response.header("content-location")),
        (Some("http://shop.example.com:8080/done?ok=1"), Some("/thing"))
    );
    assert_eq!(upstream.last().head.get("x-forwarded-prefix"), None);
    gate.write_config(&rules(", location: false"), Write::Rename);
    eventually(PATIENCE, "they are left as they are", || {
        gate.get("/shop/cart", &[host]).header("location") == Some("http://shop.internal/inner/done?ok=1")
    });
}

#[test]
fn a_real_server_that_redirects_sends_clients_to_where_they_can_go() {
    let nginx = Nginx::named("v1");
    nginx.put_file("sub/note.txt", b"from the disk");
    for (rewrite, name) in [("host: inside.example, ", "inside.example"), ("", "outside.example")] {
        let service = Service::only(nginx.port()).key(&format!("rewrite: {{ {rewrite}strip_prefix: /app }}"));
        let gate = Gate::start(&Config::with(service).text());
        let response = gate.get("/app/files/sub", &[("host", "outside.example")]);
        assert_eq!(response.status, 301, "{name}");
        // It names the port that it listens on.
        assert_eq!(
            response.header("location"),
            Some("http://outside.example/app/files/sub/"),
            "{name}"
        );
    }
}

#[test]
fn an_endpoint_elsewhere_that_wants_https_is_asked_by_https() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        let to = format!("https://{}/a", exchange.request.head.get("host").unwrap_or("nobody"));
        exchange.answer(301, &[("location", to.as_str())], b"")
    });
    let service = Service::only(upstream.port()).key("rewrite: { host: shop.internal }");
    let gate = Gate::start(&Config::with(service).text());
    for named in ["shop.example", "shop.example:8080"] {
        let response = gate.get("/a", &[("host", named)]);
        assert_eq!(response.header("location"), Some("https://shop.example/a"), "{named}");
    }
}
