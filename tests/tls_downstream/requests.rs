//! Requests over TLS: bodies, upgrades, ends, and what tells that it was https.

use crate::support::{Authority, Client, Config, Gate, PATIENCE, Service, Then, Trust, Upstream, WEB_SOCKET, file};
use std::process::Command;
use std::time::Duration;

#[test]
fn bodies_of_any_size_go_both_ways() {
    let authority = Authority::new("tests");
    let leaf = authority.server(&["shop.test"]);
    let files = tempfile::tempdir().unwrap();
    let line = leaf.write(files.path(), "shop");
    let upstream = Upstream::with("v1", |exchange| {
        let body = exchange.read_body().to_vec();
        if exchange.request.target == "/chunked" {
            exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            for piece in body.chunks(9_999) {
                exchange.send(format!("{:x}\r\n", piece.len()));
                exchange.send(piece);
                exchange.send("\r\n");
            }
            exchange.send("0\r\n\r\n");
            return Then::Keep;
        }
        exchange.answer(200, &[], &body)
    });
    let service = Service::only(upstream.port());
    let gate = Gate::start(
        &Config::with(service)
            .listener(&format!("tls: {{ certificates: [{line}] }}"))
            .text(),
    );
    for trust in [Trust::tls12(&authority), Trust::tls13(&authority)] {
        let mut client = Client::connect_tls(gate.port(), &trust, "shop.test");
        for size in [1, 1000, 16_383, 16_384, 16_385, 65_536, 3_000_000] {
            let body: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
            for path in ["/", "/chunked"] {
                let response = client.request("POST", path, &[], &body);
                assert!(response.body == body, "{size} bytes by {path}");
            }
        }
        client.send("GET /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.read(false).unwrap().status, 200);
        assert_eq!(
            client.read(false).unwrap().status,
            200,
            "the second one came with the first"
        );
    }
}

#[test]
fn a_slow_reader_gets_all_of_it_and_holds_little() {
    let authority = Authority::new("tests");
    let files = tempfile::tempdir().unwrap();
    let line = authority.server(&["shop.test"]).write(files.path(), "shop");
    const SIZE: usize = 32 << 20;
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        exchange.answer(200, &[], &vec![7; SIZE])
    });
    let service = Service::only(upstream.port());
    let gate = Gate::start(
        &Config::with(service)
            .listener(&format!("tls: {{ certificates: [{line}] }}"))
            .text(),
    );
    let before = gate.resident_kib();
    let mut clients: Vec<Client> = (0..4)
        .map(|_| Client::connect_tls(gate.port(), &Trust::new(&authority), "shop.test"))
        .collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    std::thread::sleep(Duration::from_millis(700));
    let grown = gate.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB while nobody reads");
    for client in &mut clients {
        let response = client.read(false).unwrap();
        assert!(response.body.len() == SIZE && response.body.iter().all(|&byte| byte == 7));
    }
}

#[test]
fn web_sockets_go_through() {
    let authority = Authority::new("tests");
    let files = tempfile::tempdir().unwrap();
    let line = authority.server(&["shop.test"]).write(files.path(), "shop");
    let upstream = Upstream::with("v1", |exchange| exchange.echo_web_socket("first"));
    let service = Service::only(upstream.port());
    let gate = Gate::start(
        &Config::with(service)
            .listener(&format!("tls: {{ certificates: [{line}] }}"))
            .text(),
    );
    let mut client = Client::connect_tls(gate.port(), &Trust::new(&authority), "shop.test");
    assert_eq!(client.get("/ws", &WEB_SOCKET).status, 101);
    assert_eq!(client.read_bytes(5), b"first");
    for n in 0..50_u8 {
        client.send([n; 3000]);
        assert_eq!(client.read_bytes(3000), [n; 3000]);
    }
    client.half_close();
    assert!(client.is_closed_within(PATIENCE));
}

#[test]
fn an_end_is_an_end_and_a_cut_is_seen_as_one() {
    let authority = Authority::new("tests");
    let files = tempfile::tempdir().unwrap();
    let line = authority.server(&["shop.test"]).write(files.path(), "shop");
    let upstream = Upstream::with("v1", |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
        if exchange.request.target == "/whole" {
            exchange.send("0\r\n\r\n");
        }
        Then::Close
    });
    let service = Service::only(upstream.port()).never_eject();
    let gate = Gate::start(
        &Config::with(service)
            .listener(&format!("tls: {{ certificates: [{line}] }}"))
            .text(),
    );
    // Python's ssl tells a close_notify from a connection that just ends.
    let read = |path: &str| {
        let script = format!(
            "import socket, ssl\n\
             context = ssl.create_default_context(cadata=open('{ca}').read())\n\
             raw = socket.create_connection(('127.0.0.1', {port}))\n\
             tls = context.wrap_socket(raw, server_hostname='shop.test', suppress_ragged_eofs=False)\n\
             tls.sendall(b'GET {path} HTTP/1.0\\r\\nhost: a\\r\\n\\r\\n')\n\
             data = b''\n\
             try:\n\
            \x20 while True:\n\
            \x20   more = tls.recv(1000)\n\
            \x20   if not more: break\n\
            \x20   data += more\n\
            \x20 print('end', data.endswith(b'hello'))\n\
             except OSError as error: print('cut', type(error).__name__)\n",
            ca = file(files.path(), "ca.pem", authority.pem()).display(),
            port = gate.port(),
        );
        let output = Command::new("python3")
            .args(["-c", &script])
            .output()
            .expect("start python3");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(read("/whole").trim(), "end True");
    let cut = read("/cut");
    assert!(cut.starts_with("cut "), "{cut}");
}

#[test]
fn what_tells_that_it_was_https() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let authority = Authority::new("tests");
    let files = tempfile::tempdir().unwrap();
    let line = authority.server(&["shop.test"]).write(files.path(), "shop");
    let service = Service::split(v1.port(), 50, v2.port(), 50)
        .route("host: shop.test")
        .key("affinity: { cookie: { name: who, ttl: 1h } }");
    let config = Config::with(service)
        .top("forwarded: true")
        .listener(&format!(
            "tls: {{ certificates: [{line}], hsts: {{ max_age: 30d, include_subdomains: true }} }}"
        ))
        .and_listener("redirect_to_https: false");
    let gate = Gate::start(&config.text());
    let mut client = Client::connect_tls(gate.port(), &Trust::new(&authority), "shop.test");
    let response = client.get("/", &[("host", "shop.test")]);
    let hsts = "max-age=2592000; includeSubDomains";
    assert_eq!(response.header("strict-transport-security"), Some(hsts));
    assert!(
        response.header("set-cookie").unwrap().ends_with("; Secure"),
        "{response:?}"
    );
    let told = [v1.requests(), v2.requests()].concat().pop().unwrap();
    assert_eq!(told.head.get("x-forwarded-proto"), Some("https"));
    assert!(told.head.get("forwarded").unwrap().ends_with("proto=https"));
    let refused = client.get("/", &[("host", "other.test")]);
    assert_eq!(
        (refused.status, refused.header("strict-transport-security")),
        (404, Some(hsts))
    );
    let mut plain = Client::connect(gate.port_of(1));
    let response = plain.get("/", &[("host", "shop.test")]);
    assert_eq!(
        response.header("strict-transport-security"),
        None,
        "not over plain text"
    );
    assert!(!response.header("set-cookie").unwrap().contains("Secure"));
}

#[test]
fn an_answer_that_has_hsts_keeps_its_own() {
    let authority = Authority::new("tests");
    let files = tempfile::tempdir().unwrap();
    let line = authority.server(&["shop.test"]).write(files.path(), "shop");
    let upstream = Upstream::fixed(
        "v1",
        "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\ncontent-length: 0\r\n\r\n",
        Then::Keep,
    );
    let config = Config::with(Service::only(upstream.port()))
        .listener(&format!("tls: {{ certificates: [{line}], hsts: {{}} }}"));
    let gate = Gate::start(&config.text());
    let response = Client::connect_tls(gate.port(), &Trust::new(&authority), "shop.test").get("/", &[]);
    let told: Vec<&str> = response.head.all("strict-transport-security").collect();
    assert_eq!(told, ["max-age=1"]);
}

#[test]
fn plain_listeners_send_clients_to_https() {
    let upstream = Upstream::named("v1");
    let config = Config::with(Service::only(upstream.port()))
        .top("trusted_proxies: [127.0.0.1]")
        .listener("redirect_to_https: true")
        .and_listener("redirect_to_https: 8443");
    let gate = Gate::start(&config.text());
    let mut client = gate.client();
    let location = |client: &mut Client, target: &str, fields: &[(&str, &str)]| {
        let response = client.get(target, fields);
        assert_eq!(response.status, 308);
        response.header("location").unwrap().to_owned()
    };
    assert_eq!(
        location(&mut client, "/a/b?c=d&e", &[]),
        "https://shop.example.com/a/b?c=d&e"
    );
    assert_eq!(
        location(&mut client, "/", &[("host", "shop.test:8080")]),
        "https://shop.test/"
    );
    assert_eq!(location(&mut client, "/", &[("host", "[::1]:80")]), "https://[::1]/");
    assert_eq!(
        location(&mut client, "http://shop.test?x", &[("host", "shop.test")]),
        "https://shop.test/?x"
    );
    client.send("OPTIONS * HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    assert_eq!(
        client.read(false).unwrap().header("location"),
        Some("https://shop.test/")
    );
    client.send("POST /a HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 3\r\n\r\nabc");
    assert_eq!(client.read(false).unwrap().status, 308);
    let mut other = Client::connect(gate.port_of(1));
    assert_eq!(location(&mut other, "/a", &[]), "https://shop.example.com:8443/a");
    assert_eq!(upstream.count(), 0);
    // A trusted proxy that speaks https to the client has redirected it already.
    let response = other.get("/", &[("x-forwarded-proto", "https")]);
    assert_eq!((response.status, upstream.count()), (200, 1));
    let mut old = gate.client();
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.read(false).unwrap().status, 400, "it names no host");
    let line = gate.access_line("it is logged", |line| line["status"] == 308);
    assert_eq!(line["termination"], "ok");
}
