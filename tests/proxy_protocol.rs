//! PROXY protocol: headers from what is in front, headers to endpoints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};
use support::{Broken, Client, Config, Gate, Haproxy, PATIENCE, Service, Upstream, eventually};

const V1: &str = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";

/// Version 2: `command`, `family`, and what follows the length.
fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, payload].concat()
}

/// 203.0.113.7:4711 to 198.51.100.1:443, and `fields` behind.
fn v2_tcp4(fields: &[u8]) -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];
    v2(0x21, 0x11, &[&addresses, fields].concat())
}

struct Shop {
    upstream: Upstream,
    gate: Gate,
}

impl Shop {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(config: impl FnOnce(Config) -> Config) -> Self {
        let upstream = Upstream::named("v1");
        let service = Config::with(Service::only(upstream.port())).listener("proxy_protocol: true");
        let gate = Gate::start(&config(service).text());
        Self { upstream, gate }
    }

    /// A request on a connection that begins with `header`: the client's address as the upstream is told it.
    fn told(&self, header: impl AsRef<[u8]>) -> String {
        let mut client = self.gate.client();
        client.send(header);
        assert_eq!(client.get("/", &[]).status, 200);
        self.upstream.last().head.get("x-forwarded-for").unwrap().to_owned()
    }

    fn refused(&self) -> f64 {
        self.gate
            .metric("rollgate_refusals_total", &[("reason", "proxy_header")])
    }
}

#[test]
fn the_header_says_who_the_peer_is() {
    let shop = Shop::new();
    assert_eq!(shop.told(V1), "203.0.113.7");
    assert_eq!(shop.told("PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n"), "2001:db8::7");
    assert_eq!(shop.told("PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n"), "203.0.113.9");
    assert_eq!(shop.told(v2_tcp4(b"")), "203.0.113.7");
    assert_eq!(shop.told(v2_tcp4(b"\x01\x00\x02h2\xea\x00\x05hello")), "203.0.113.7");
    let v6: Vec<u8> = (0..32).chain([0, 80, 1, 187]).collect();
    assert_eq!(shop.told(v2(0x21, 0x21, &v6)), "1:203:405:607:809:a0b:c0d:e0f");
    let line = shop.gate.access_line("the address is logged", |line| {
        line["client_ip"] == "203.0.113.7" && line["status"] == 200
    });
    assert_eq!(line["path"], "/");
}

#[test]
fn a_sender_that_speaks_for_itself_keeps_its_own_address() {
    let shop = Shop::new();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.7 and whatever\r\n".to_vec(),
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &[9; 12]),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x31, &[0; 216]),
    ] {
        assert_eq!(shop.told(&header), "127.0.0.1", "{}", header.escape_ascii());
    }
}

#[test]
fn the_peer_it_names_is_the_one_trusted_proxies_and_hashes_go_by() {
    let shop = Shop::with(|config| config.top("trusted_proxies: [203.0.113.0/24]"));
    let mut client = shop.gate.client();
    client.send(V1);
    client.get("/", &[("x-forwarded-for", "192.0.2.55")]);
    let told = shop.upstream.last();
    assert_eq!(told.head.get("x-forwarded-for"), Some("192.0.2.55, 203.0.113.7"));
    shop.gate
        .access_line("the client behind it", |line| line["client_ip"] == "192.0.2.55");
    // 127.0.0.1, which really connects, is nobody's proxy here.
    let mut client = shop.gate.client();
    client.send("PROXY UNKNOWN\r\n");
    client.get("/", &[("x-forwarded-for", "192.0.2.55")]);
    assert_eq!(shop.upstream.last().head.get("x-forwarded-for"), Some("127.0.0.1"));

    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let service = Service::split(v1.port(), 50, v2.port(), 50).key("affinity: { key: [client_ip], salt: s }");
    let gate = Gate::start(&Config::with(service).listener("proxy_protocol: true").text());
    let served = |source: usize| {
        let mut client = gate.client();
        client.send(format!("PROXY TCP4 203.0.113.{source} 198.51.100.1 1 2\r\n"));
        client.get("/", &[]).served_by().to_owned()
    };
    let first: Vec<String> = (0..40).map(served).collect();
    assert!(first.contains(&"v1".to_owned()) && first.contains(&"v2".to_owned()));
    assert_eq!(
        (0..40).map(served).collect::<Vec<_>>(),
        first,
        "the same address, the same version"
    );
}

#[test]
fn header_and_requests_may_come_in_any_pieces() {
    let shop = Shop::new();
    for header in [V1.as_bytes().to_vec(), v2_tcp4(b"\x04\x00\x01\x00")] {
        let request = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n";
        let bytes = [&header[..], request].concat();
        let mut whole = shop.gate.client();
        whole.send(&bytes);
        assert_eq!(whole.read(false).unwrap().status, 200);
        assert_eq!(whole.read(false).unwrap().status, 200);
        let mut dripped = shop.gate.client();
        for byte in bytes.chunks(3) {
            dripped.send(byte);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(dripped.read(false).unwrap().status, 200);
        assert_eq!(dripped.read(false).unwrap().status, 200);
        assert_eq!(shop.upstream.last().head.get("x-forwarded-for"), Some("203.0.113.7"));
    }
}

#[test]
fn without_a_header_where_one_is_due_the_connection_is_closed() {
    let shop = Shop::new();
    let mut refused = 0.0;
    for bytes in [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01".to_vec(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n".to_vec(),
        format!("PROXY UNKNOWN {}", "x".repeat(200)).into_bytes(),
        v2(0x21, 0x11, &[0; 5]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[0; 60_000]),
    ] {
        let mut client = shop.gate.client();
        client.send(&bytes);
        assert!(
            matches!(client.read(false), Err(Broken::Closed)),
            "{}",
            bytes.escape_ascii()
        );
        refused += 1.0;
    }
    shop.gate
        .expect_metric("rollgate_refusals_total", &[("reason", "proxy_header")], refused);
    assert_eq!(shop.upstream.count(), 0);
    shop.gate.access_line("it is told", |line| {
        line["refusal"] == "proxy_header" && line["status"] == 400
    });
    eventually(PATIENCE, "the log tells, too", || {
        let log = shop.gate.log();
        log.contains("does not begin with a PROXY protocol header") && log.contains("listeners[0]")
    });
    // Who only looks whether the port is open is told of nowhere.
    drop(shop.gate.client());
    assert_eq!(shop.told(V1), "203.0.113.7");
    assert!((shop.refused() - refused).abs() < 0.1);
}

#[test]
fn a_header_where_none_is_due_is_no_request() {
    let upstream = Upstream::named("v1");
    let gate = Gate::start(&Config::with(Service::only(upstream.port())).text());
    for header in [V1.as_bytes().to_vec(), v2_tcp4(b""), v2(0x20, 0x00, b"")] {
        let mut client = gate.client();
        client.send([&header[..], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"].concat());
        let response = client.read(false).unwrap();
        assert_eq!(response.status, 400, "{}", header.escape_ascii());
        assert!(response.closes());
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_header_that_drips_is_late_and_silence_costs_nothing() {
    let shop = Shop::with(|config| config.limit("header_timeout: 1s"));
    let start = Instant::now();
    let mut silent = shop.gate.client();
    let mut dripping = shop.gate.client();
    // A header may be so long: five seconds of drip.
    let ended = b"PROXY UNKNOWN "
        .iter()
        .chain([b'x'; 86].iter())
        .any(|byte| dripping.try_send(&[*byte]).is_err() || dripping.is_closed_within(Duration::from_millis(50)));
    assert!(ended, "the drip goes on and on");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(silent.is_closed_within(PATIENCE));
    eventually(PATIENCE, "the drip is counted, the silence is not", || {
        (shop.refused() - 1.0).abs() < 0.1
    });
    assert_eq!(shop.told(V1), "203.0.113.7");
}

#[test]
fn a_reload_turns_it_on_and_off_for_new_connections() {
    let shop = Shop::new();
    let mut old = shop.gate.client();
    old.send(V1);
    assert_eq!(old.get("/", &[]).status, 200);
    let plain = Config::with(Service::only(shop.upstream.port())).text();
    shop.gate.write_config(&plain, support::Write::Rename);
    eventually(PATIENCE, "plain requests are served", || {
        let mut client = shop.gate.client();
        client.try_request("GET", "/", &[], b"").is_ok()
    });
    assert_eq!(old.get("/", &[]).status, 200);
    assert_eq!(shop.upstream.last().head.get("x-forwarded-for"), Some("203.0.113.7"));
}

#[test]
fn behind_haproxy() {
    for (option, name) in [
        ("send-proxy", "v1"),
        ("send-proxy-v2", "v2"),
        ("send-proxy-v2-ssl-cn", "v2 with fields"),
    ] {
        let shop = Shop::new();
        let Some(haproxy) = Haproxy::before(shop.gate.port(), option) else {
            return;
        };
        let mut client = Client::connect(haproxy.port());
        assert_eq!(client.get("/", &[]).status, 200, "{name}");
        assert_eq!(client.get("/", &[]).status, 200, "{name}");
        // HAProxy's probes of its own begin otherwise (LOCAL): they are no refusals.
        assert!(shop.refused() < 0.5, "{name}");
        assert_eq!(shop.upstream.last().head.get("x-forwarded-for"), Some("127.0.0.1"));
    }
    let shop = Shop::new();
    let Some(haproxy) = Haproxy::before(shop.gate.port(), "") else {
        return;
    };
    let mut client = Client::connect(haproxy.port());
    assert!(client.try_request("GET", "/", &[], b"").is_err(), "without send-proxy");
}

// ---- to endpoints ----

fn sending(version: &str, upstream: &Upstream) -> Gate {
    let service = Service::only(upstream.port())
        .pools(&format!("send_proxy_protocol: {version}"))
        .pools("health_check: { path: /healthz, every: 50ms }");
    // One thread: idle connections are a thread's own.
    let config = Config::with(service).listener("proxy_protocol: true").top("threads: 1");
    Gate::start(&config.text())
}

#[test]
fn endpoints_are_told_the_client_and_no_connection_serves_another() {
    for (number, version) in [(1, "v1"), (2, "v2")] {
        let upstream = Upstream::proxied("v1");
        let gate = sending(version, &upstream);
        let from = |address: &str| {
            let mut client = gate.client();
            client.send(format!("PROXY TCP4 {address} 198.51.100.1 4711 443\r\n"));
            assert_eq!(client.get("/", &[]).status, 200);
            assert_eq!(client.get("/", &[]).status, 200);
        };
        for _ in 0..3 {
            from("203.0.113.7");
            from("203.0.113.8");
        }
        let requests: Vec<_> = upstream.requests().into_iter().filter(|r| r.target == "/").collect();
        assert_eq!(requests.len(), 12);
        for request in &requests {
            let told = request.told.unwrap();
            assert_eq!(told.0, number);
            let forwarded_for = request.head.get("x-forwarded-for").unwrap();
            assert_eq!(told.1.unwrap()[0].to_string(), format!("{forwarded_for}:4711"));
        }
        let connections: std::collections::HashSet<_> = requests.iter().map(|r| r.connection).collect();
        assert_eq!(connections.len(), 2, "one for each address, used again: {requests:#?}");
        eventually(PATIENCE, "probes say that nobody is behind them", || {
            let requests = upstream.requests();
            let mut probes = requests.iter().filter(|r| r.target == "/healthz").peekable();
            probes.peek().is_some() && probes.all(|probe| probe.told == Some((number, None)))
        });
    }
}

/// The ports and the destination as well: an endpoint tells by them at which of its addresses it was asked.
#[test]
fn endpoints_are_told_where_each_client_connected_to() {
    let upstream = Upstream::proxied("v1");
    let gate = sending("v1", &upstream);
    let pairs = [
        "203.0.113.7 198.51.100.1 4711 443",
        "203.0.113.7 198.51.100.1 4711 80",
        "203.0.113.7 198.51.100.2 4711 443",
        "203.0.113.7 198.51.100.1 4712 443",
    ];
    let mut connections = Vec::new();
    for pair in pairs.into_iter().chain(pairs) {
        let mut client = gate.client();
        client.send(format!("PROXY TCP4 {pair}\r\n"));
        assert_eq!(client.get("/", &[]).status, 200);
        let requests = upstream.requests();
        let request = requests.iter().rfind(|request| request.target == "/").unwrap();
        let [source, destination] = request.told.unwrap().1.unwrap();
        let told = [source.ip(), destination.ip()].map(|ip| ip.to_string()).join(" ");
        assert_eq!(format!("{told} {} {}", source.port(), destination.port()), pair);
        connections.push(request.connection);
    }
    assert_eq!(connections[..4], connections[4..], "one for each, used again");
}

#[test]
fn a_copy_tells_what_its_original_did() {
    let (v1, v2) = (Upstream::proxied("v1"), Upstream::proxied("v2"));
    let service = Service::split(v1.port(), 100, v2.port(), 0)
        .pools("send_proxy_protocol: v2")
        .key("mirror: { version: v2 }");
    let gate = Gate::start(&Config::with(service).text());
    let mut client = gate.client();
    assert_eq!(client.get("/", &[]).served_by(), "v1");
    eventually(PATIENCE, "the copy arrives", || v2.count() == 1);
    let stream = client.stream();
    let pair = [stream.local_addr().unwrap(), stream.peer_addr().unwrap()];
    for upstream in [v1, v2] {
        assert_eq!(upstream.last().told, Some((2, Some(pair))));
    }
}

#[test]
fn a_client_that_a_trusted_proxy_names_is_told_without_port() {
    let upstream = Upstream::proxied("v1");
    let service = Service::only(upstream.port()).pools("send_proxy_protocol: v2");
    let gate = Gate::start(&Config::with(service).top("trusted_proxies: [127.0.0.0/8]").text());
    let mut client = gate.client();
    client.get("/", &[("x-forwarded-for", "2001:db8::5")]);
    client.get("/", &[("x-forwarded-for", "192.0.2.1")]);
    client.get("/", &[]);
    let told: Vec<String> = upstream
        .requests()
        .iter()
        .map(|r| r.told.unwrap().1.unwrap()[0].to_string())
        .collect();
    assert_eq!(told[..2], ["[2001:db8::5]:0", "192.0.2.1:0"]);
    assert_eq!(
        told[2],
        format!("127.0.0.1:{}", client.stream().local_addr().unwrap().port())
    );
}
