//! Whoever does not play along: garbage, slow and many handshakes, connections that rest or exceed the limit.

use crate::Shop;
use crate::support::{
    Authority, Broken, Client, Config, Gate, PATIENCE, Service, Trust, Upstream, eventually, in_parallel,
};
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn garbage_instead_of_a_client_hello_gets_an_alert_and_the_end() {
    let shop = Shop::new();
    let mut failed = 0.0;
    for garbage in [
        b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n".to_vec(),
        vec![0; 100],
        vec![0xff; 100_000],
        [&[0x16, 3, 1, 0x40, 0][..], &[7; 0x4000]].concat(),
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
        // A heartbeat, an empty handshake record, and a ClientHello of SSLv2.
        vec![0x18, 3, 3, 0, 3, 1, 0x40, 0],
        vec![0x16, 3, 1, 0, 0],
        vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10],
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", shop.gate.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&garbage).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).ok();
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
        failed += 1.0;
    }
    shop.handshakes("failed", failed);
    assert_eq!(shop.upstream.count(), 0);
    assert_eq!(shop.client().get("/", &[]).status, 200);
}

#[test]
fn slow_handshakes_are_late_and_hinder_nobody() {
    let shop = Shop::with("", |config| config.limit("header_timeout: 2s"));
    let start = Instant::now();
    // The beginning of a record that promises more.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[9; 100]].concat();
    let mut half: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = shop.gate.client();
            client.send(&hello);
            client
        })
        .collect();
    let mut silent: Vec<Client> = (0..20).map(|_| shop.gate.client()).collect();
    let mut dripping = shop.gate.client();
    for _ in 0..5 {
        assert_eq!(shop.client().get("/", &[]).status, 200, "an honest client beside them");
    }
    for byte in hello.iter().cycle() {
        if dripping.try_send(&[*byte]).is_err() || dripping.is_closed_within(Duration::from_millis(50)) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "the drip goes on and on");
    }
    for client in half.iter_mut().chain(&mut silent) {
        assert!(client.is_closed_within(Duration::from_secs(5)));
    }
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(10)).contains(&took),
        "{took:?}"
    );
    shop.handshakes("late", 201.0);
    assert_eq!(shop.client().get("/", &[]).status, 200);
}

#[test]
fn more_handshakes_than_there_may_be_displace_the_oldest() {
    let shop = Shop::with("", |config| config.top("threads: 1").limit("header_timeout: 30s"));
    let hold = |count: usize| -> Vec<TcpStream> {
        (0..count)
            .map(|_| {
                let mut stream = TcpStream::connect(("127.0.0.1", shop.gate.port())).unwrap();
                stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
                stream
            })
            .collect()
    };
    let held = hold(1024);
    eventually(PATIENCE, "all are accepted", || {
        shop.gate.metric("rollgate_connections", &[]) > 1023.0
    });
    for _ in 0..3 {
        assert_eq!(shop.client().get("/", &[]).status, 200, "honest clients are served");
    }
    // The first of them took the place of the oldest, and left it to the next.
    shop.gate
        .expect_metric("rollgate_tls_handshakes_total", &[("result", "displaced")], 1.0);
    drop(held);
}

#[test]
fn connections_that_rest_hold_little() {
    let shop = Shop::with("", |config| config.top("threads: 1"));
    let rest = |count: usize| -> Vec<Client> {
        let served = |_| {
            let mut client = shop.client();
            assert_eq!(client.get("/", &[]).status, 200);
            client
        };
        (0..count).map(served).collect()
    };
    let _first = rest(100);
    let before = shop.gate.resident_kib();
    let _more = rest(800);
    let grown = shop.gate.resident_kib().saturating_sub(before) as f64 / 800.0;
    assert!(grown < 9.0, "{grown:.1} KiB for each");
}

#[test]
fn beyond_the_limit_connections_are_closed_without_a_handshake() {
    let shop = Shop::with("", |config| config.limit("max_connections: 2"));
    let mut first = shop.client();
    let _second = shop.client();
    let mut third = shop.gate.client();
    assert!(third.is_closed_within(Duration::from_secs(5)));
    assert_eq!(first.get("/", &[]).status, 200);
    shop.gate
        .expect_metric("rollgate_refusals_total", &[("reason", "max_connections")], 1.0);
}

#[test]
fn a_stop_closes_what_rests_at_once_and_lets_requests_finish() {
    let authority = Authority::new("tests");
    let files = tempfile::tempdir().unwrap();
    let line = authority.server(&["shop.test"]).write(files.path(), "shop");
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        if exchange.request.target == "/slow" {
            std::thread::sleep(Duration::from_millis(800));
        }
        exchange.answer(200, &[], b"done")
    });
    let service = Service::only(upstream.port());
    let mut gate = Gate::start(
        &Config::with(service)
            .listener(&format!("tls: {{ certificates: [{line}] }}"))
            .text(),
    );
    let connect = || Client::connect_tls(gate.port(), &Trust::new(&authority), "shop.test");
    let (mut idle, mut busy, mut silent) = (connect(), connect(), gate.client());
    assert_eq!(idle.get("/", &[]).status, 200);
    busy.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually(PATIENCE, "it is in flight", || upstream.count() == 2);
    gate.signal("TERM");
    let start = Instant::now();
    assert!(idle.is_closed_within(Duration::from_millis(500)));
    let response = busy.read(false).unwrap();
    assert!(response.status == 200 && response.closes());
    assert!(silent.is_closed_within(PATIENCE), "no request came");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let shop = Shop::with("", |config| config.listener("proxy_protocol: true"));
    for together in [false, true] {
        let mut tcp = shop.gate.client();
        tcp.send("PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n");
        if !together {
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut client = tcp.upgrade(&shop.trust(), "shop.test").unwrap();
        assert_eq!(client.get("/", &[]).status, 200);
        assert_eq!(shop.upstream.last().head.get("x-forwarded-for"), Some("203.0.113.7"));
    }
    assert!(Client::try_connect_tls(shop.gate.port(), &shop.trust(), "shop.test").is_err());
    shop.gate
        .expect_metric("rollgate_refusals_total", &[("reason", "proxy_header")], 1.0);
}

#[test]
fn many_clients_at_once() {
    let shop = Shop::new();
    let (port, authority) = (shop.gate.port(), &shop.authority);
    let answered = in_parallel(16, |n| {
        let trust = if n % 2 == 0 {
            Trust::tls12(authority)
        } else {
            Trust::tls13(authority)
        };
        let mut answered = 0;
        for _ in 0..10 {
            let mut client = Client::connect_tls(port, &trust, "shop.test");
            answered += (0..10).filter(|_| client.get("/", &[]).status == 200).count();
        }
        answered
    });
    assert_eq!(answered.iter().sum::<usize>(), 1600);
    assert!(matches!(
        shop.gate.client().try_request("GET", "/", &[], b""),
        Err(Broken::Malformed(_) | Broken::Closed | Broken::Cut(_))
    ));
}
