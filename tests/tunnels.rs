//! Protocols other than WebSocket after a 101, through the proxy as bytes: what a service lists, and nothing else. Client and
//! server are written by hand, in a protocol of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;
use support::{Client, Config, Exchange, Gate, Operator, PATIENCE, Service, Then, Upstream, WEB_SOCKET, Write};

/// What the service lets through, beside what no test asks for.
const LISTED: &str = "upgrades: [websocket, SPDY/3.1, tcp]";
const ASKS: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "spdy/3.1")];

/// What its server says first: to WebSocket it would be a whole frame, behind which another may come.
const GREETING: &[u8] = b"\x82\x04moin";

/// Changes to what it is asked for, greets, and sends back each line in capitals until the client has finished; then says so.
fn shout(exchange: &mut Exchange<'_>) -> Then {
    exchange.read_body();
    let Some(protocol) = exchange.request.head.get("upgrade").map(str::to_owned) else {
        return exchange.answer(200, &[], b"no upgrade");
    };
    exchange.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n"
    ));
    exchange.send(GREETING);
    while let Ok(Some(line)) = exchange.io().take_until(b"\n") {
        exchange.send(line.to_ascii_uppercase());
    }
    exchange.send("over\n");
    Then::Close
}

/// An endpoint that answers every request so.
fn answers(answer: &'static str) -> Upstream {
    Upstream::with("v1", move |exchange| {
        exchange.send(answer);
        exchange.io().take(usize::MAX).ok();
        Then::Close
    })
}

fn gate(v1: &Upstream, key: &str) -> Gate {
    Gate::start(&Config::with(Service::only(v1.port()).never_eject().key(key)).text())
}

/// A client in the tunnel, greeted.
fn greeted(gate: &Gate, fields: &[(&str, &str)]) -> Client {
    let mut client = gate.client();
    let answer = client.get("/", fields);
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("SPDY/3.1")));
    assert_eq!(client.read_bytes(GREETING.len()), GREETING);
    client
}

#[test]
fn a_listed_protocol_passes_as_bytes_both_ways() {
    let v1 = Upstream::with("v1", shout);
    let gate = gate(&v1, LISTED);
    let mut client = gate.client();
    // Of what is asked for the endpoint hears what is listed, and answers to that.
    let asks = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "h2c, spdy/3.1"),
        ("upgrade", "foo"),
    ];
    let answer = client.get("/", &asks);
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    assert_eq!(answer.header("upgrade"), Some("SPDY/3.1"));
    let heard = v1.last().head;
    assert!(
        heard.all("upgrade").eq(["SPDY/3.1"]) && heard.all("connection").eq(["Upgrade"]),
        "{heard:?}"
    );
    assert_eq!(client.read_bytes(GREETING.len()), GREETING);
    gate.expect_metric("rollgate_requests_in_flight", &[("service", "shop")], 1.0);
    let mut line = vec![b'x'; 1 << 20];
    *line.last_mut().unwrap() = b'\n';
    // What would be a request, and a close frame of WebSocket, is neither.
    for piece in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"host: a\n",
        b"\x88\x02\x03\xe8\n",
        b"\0\n",
        &line,
    ] {
        client.send(piece);
        assert!(client.read_bytes(piece.len()) == piece.to_ascii_uppercase());
    }
    // One side has finished, and hears the other to its end.
    client.half_close();
    assert_eq!(client.read_bytes(5), b"over\n");
    assert!(client.is_closed_within(PATIENCE));
    assert_eq!(v1.count(), 1);
    gate.expect_metric("rollgate_requests_in_flight", &[("service", "shop")], 0.0);
    gate.expect_metric("rollgate_requests_total", &[("version", "v1"), ("code", "101")], 1.0);
    gate.expect_metric("rollgate_request_duration_seconds_count", &[("version", "v1")], 0.0);
    gate.expect_metric("rollgate_request_failures_total", &[("version", "v1")], 0.0);
}

#[test]
fn a_request_with_a_body_is_whole_before_the_protocol_changes() {
    let v1 = Upstream::with("v1", shout);
    let gate = gate(&v1, LISTED);
    let mut client = gate.client();
    let answer = client.request("POST", "/exec", &[("connection", "upgrade"), ("upgrade", "TCP")], b"{}");
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("tcp")));
    assert_eq!(v1.last().body, b"{}");
    assert_eq!(client.read_bytes(GREETING.len()), GREETING);
    client.send("a\n");
    assert_eq!(client.read_bytes(2), b"A\n");

    // An endpoint that does not wait for it would have the rest of it in its new protocol.
    let hasty = answers("HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n");
    let gate = self::gate(&hasty, LISTED);
    let mut client = gate.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: tcp\r\ncontent-length: 9\r\n\r\nabc");
    assert_eq!(client.read(false).unwrap().status, 502);
}

#[test]
fn what_is_not_listed_is_not_asked_for() {
    let v1 = Upstream::with("v1", shout);
    let plain = gate(&v1, "");
    for protocol in ["spdy/3.1", "h2c", "tcp", "TLS/1.2", "websockets"] {
        let answer = plain.get("/", &[("connection", "upgrade"), ("upgrade", protocol)]);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "no upgrade"),
            "{protocol}"
        );
        assert_eq!(v1.last().head.get("connection"), None, "{protocol}");
    }
    let answer = plain.get("/", &WEB_SOCKET);
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    let none = gate(&v1, "upgrades: []");
    assert_eq!(none.get("/", &WEB_SOCKET).text(), "no upgrade");
    let other = gate(&v1, "upgrades: [tcp]");
    assert_eq!(other.get("/", &WEB_SOCKET).text(), "no upgrade");
}

#[test]
fn a_101_to_anything_but_what_was_asked_for_is_the_endpoints_failure() {
    for (answer, asks) in [
        (
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            &ASKS[..],
        ),
        (
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            &ASKS,
        ),
        (
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: spdy/3.1, tcp\r\n\r\n",
            &ASKS,
        ),
        ("HTTP/1.1 101 x\r\nupgrade: spdy/3.1\r\n\r\n", &ASKS),
        ("HTTP/1.1 101 x\r\nconnection: upgrade\r\n\r\n", &ASKS),
        (
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: spdy/3.1\r\n\r\n",
            &[],
        ),
        (
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: spdy/3.1\r\n\r\n",
            &WEB_SOCKET,
        ),
    ] {
        let v1 = answers(answer);
        let gate = gate(&v1, LISTED);
        assert_eq!(gate.get("/", asks).status, 502, "{answer:?} to {asks:?}");
        gate.expect_metric("rollgate_request_failures_total", &[("version", "v1")], 1.0);
    }
}

#[test]
fn a_tunnel_on_which_nothing_moves_is_closed_without_a_word() {
    let v1 = Upstream::with("v1", shout);
    let service = Service::only(v1.port()).pools("timeouts: { idle: 2s }").key(LISTED);
    let gate = Gate::start(&Config::with(service).limit("request_timeout: 1s").text());
    let (mut idle, mut used) = (greeted(&gate, &ASKS), greeted(&gate, &ASKS));
    for _ in 0..10 {
        used.send("a\n");
        assert_eq!(used.read_bytes(2), b"A\n");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(idle.is_closed_within(PATIENCE));
    used.send("b\n");
    assert_eq!(used.read_bytes(2), b"B\n");
    drop(idle);
    let line = gate.access_line("the idle one", |line| line["status"] == 101);
    assert_eq!(line["termination"], "idle");
}

/// Where its messages end is not known: only a reset tells.
#[test]
fn an_endpoint_that_resets_a_tunnel_has_failed() {
    for (then, termination, failures) in [(Then::Reset, "upstream_reset", 1.0), (Then::Close, "ok", 0.0)] {
        let v1 = Upstream::with("v1", move |exchange| {
            exchange.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: SPDY/3.1\r\n\r\n");
            exchange.send(GREETING);
            exchange.io().take(1).ok();
            then
        });
        let gate = gate(&v1, LISTED);
        let mut client = greeted(&gate, &ASKS);
        client.send("x");
        assert!(client.is_closed_within(PATIENCE));
        drop(client);
        let line = gate.access_line("the tunnel", |line| line["status"] == 101);
        assert_eq!(line["termination"], termination);
        let failed = gate.metric("rollgate_request_failures_total", &[("version", "v1")]);
        assert_eq!(failed, failures, "{then:?}");
    }
}

#[test]
fn a_kill_and_a_stop_end_tunnels_without_a_word() {
    let (v1, v2) = (Upstream::with("v1", shout), Upstream::with("v2", shout));
    let rule = "rules:\n  - { name: forced, when: { header: x-version, equals: v2 }, version: v2 }\n";
    let service = Service::split(v1.port(), 100, v2.port(), 0).key(&(rule.to_owned() + LISTED));
    let config = Config::with(service)
        .top("kill: { drain: 0s }")
        .limit("drain_timeout: 1s");
    let mut gate = Gate::start(&config.text());
    let mut stable = greeted(&gate, &ASKS);
    let mut canary = greeted(&gate, &[ASKS[0], ASKS[1], ("x-version", "v2")]);
    Operator::of(&gate)
        .put("/v1/services/shop/kill", r#"{"reason":"test"}"#)
        .expect_ok();
    assert!(canary.is_closed_within(PATIENCE), "more came, or the tunnel is open");
    gate.expect_metric("rollgate_terminations_total", &[("code", "revoked")], 1.0);
    stable.send("a\n");
    assert_eq!(stable.read_bytes(2), b"A\n");
    gate.signal("TERM");
    assert!(stable.is_closed_within(PATIENCE), "more came, or the tunnel is open");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    let line = gate.access_line("the stopped one", |line| line["termination"] == "drain");
    assert_eq!(line["status"], 101);
}

#[test]
fn a_reload_changes_what_is_let_through_and_no_tunnel() {
    let v1 = Upstream::with("v1", shout);
    let gate = gate(&v1, LISTED);
    let mut client = greeted(&gate, &ASKS);
    let service = Service::only(v1.port()).never_eject().key("upgrades: [websocket]");
    gate.write_config(&Config::with(service).text(), Write::Rename);
    support::eventually(PATIENCE, "the file holds", || gate.get("/", &ASKS).status == 200);
    client.send("a\n");
    assert_eq!(client.read_bytes(2), b"A\n");
}

#[test]
fn h2c_is_neither_listed_nor_reached_by_what_is() {
    let v1 = Upstream::with("v1", shout);
    for protocol in ["h2c", "H2C", "h2c-14", "TLS/1.3", "http/2.0"] {
        let service = Service::only(v1.port()).key(&format!("upgrades: [websocket, {protocol}]"));
        let Err(exit) = Gate::try_start(&Config::with(service).text()) else {
            panic!("{protocol} was taken");
        };
        assert!(
            exit.stderr.contains("upgrades[1]") && exit.stderr.contains("kill switch"),
            "{}",
            exit.stderr
        );
    }
    // A client that goes on as if it had been let through (a request of its own within the same connection).
    let gate = gate(&v1, LISTED);
    let mut client = gate.client();
    client.send(
        "GET /a HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n\
         PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    );
    assert_eq!(client.read(false).unwrap().text(), "no upgrade");
    assert!(client.read(false).unwrap().status >= 400);
    assert!(client.is_closed_within(PATIENCE));
    assert_eq!(v1.last().head.get("http2-settings"), None);
    assert_eq!(v1.count(), 1);
}
