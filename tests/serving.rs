//! The main job: which version gets a request, and how the exchange is carried.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use support::frames::RawClient;
use support::{Broken, Client, Config, Gate, PATIENCE, Service, Then, Upstream, WEB_SOCKET, eventually, in_parallel};

/// `shop` between two upstreams that answer with their names.
struct Shop {
    v1: Upstream,
    v2: Upstream,
    gate: Gate,
}

impl Shop {
    fn new(weight1: u32, weight2: u32) -> Self {
        Self::built(weight1, weight2, |service| service, |config| config)
    }

    fn with(weight1: u32, weight2: u32, service: impl FnOnce(Service) -> Service) -> Self {
        Self::built(weight1, weight2, service, |config| config)
    }

    fn built(
        weight1: u32,
        weight2: u32,
        service: impl FnOnce(Service) -> Service,
        config: impl FnOnce(Config) -> Config,
    ) -> Self {
        let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
        let split = Service::split(v1.port(), weight1, v2.port(), weight2);
        let gate = Gate::start(&config(Config::with(service(split))).text());
        Self { v1, v2, gate }
    }

    fn served_by(&self, path: &str, fields: &[(&str, &str)]) -> String {
        self.gate.get(path, fields).served_by().to_owned()
    }
}

/// One gate before one upstream with a closure of its own.
fn before(upstream: &Upstream) -> Gate {
    Gate::start(&Config::with(Service::only(upstream.port()).never_eject()).text())
}

// ---- the split ----

fn count_canary(shop: &Shop, connections: usize, requests: usize) -> usize {
    let canary = in_parallel(connections, |n| {
        let mut client = shop.gate.client();
        let mine = requests / connections + usize::from(n < requests % connections);
        (0..mine).filter(|_| client.get("/", &[]).served_by() == "v2").count()
    });
    canary.into_iter().sum()
}

#[test]
fn ten_thousand_requests_at_five_percent_are_500_from_one_connection_and_from_64() {
    let shop = Shop::new(95, 5);
    for connections in [1, 64] {
        let canary = count_canary(&shop, connections, 10_000);
        assert!(
            (497..=503).contains(&canary),
            "{canary} of 10000 over {connections} connections"
        );
    }
    shop.gate.expect_metric(
        "rollgate_requests_total",
        &[("service", "shop"), ("code", "200")],
        20_000.0,
    );
    let canary = shop
        .gate
        .metric("rollgate_requests_total", &[("version", "v2"), ("role", "canary")]);
    assert!((994.0..=1006.0).contains(&canary), "{canary}");
}

#[test]
fn the_split_without_a_key_does_not_come_in_bursts() {
    let shop = Shop::new(75, 25);
    let mut client = shop.gate.client();
    let canary: Vec<usize> = (0..400).filter(|_| client.get("/", &[]).served_by() == "v2").collect();
    assert!((97..=103).contains(&canary.len()), "{canary:?}");
    let longest = canary.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest <= 12, "{longest} requests in a row without the canary at 25 %");
}

#[test]
fn zero_admits_nobody_and_a_hundred_percent_everybody() {
    assert_eq!(count_canary(&Shop::new(100, 0), 4, 400), 0);
    assert_eq!(count_canary(&Shop::new(0, 100), 4, 400), 400);
}

#[test]
fn header_cookie_query_and_segment_rules_override_the_split() {
    let rules = "rules:
  - { name: forced, when: { header: x-version, equals: v2 }, version: v2 }
  - { name: beta, when: { segment: beta }, version: v2 }
  - { name: half, when: { header: x-half, exists: true }, split: { v1: 50, v2: 50 } }";
    let segments = "segments:
  staff: { header: x-user-email, ends_with: \"@example.com\" }
  beta: { any: [ { segment: staff }, { cookie: beta, equals: \"1\" }, { query: beta, exists: true } ] }";
    let shop = Shop::built(100, 0, |service| service.key(rules), |config| config.top(segments));
    for (path, fields, expected) in [
        ("/", &[][..], "v1"),
        ("/", &[("x-version", "v2")][..], "v2"),
        ("/", &[("X-Version", "v2")][..], "v2"),
        ("/", &[("x-version", "v1")][..], "v1"),
        ("/", &[("x-user-email", "a@example.com")][..], "v2"),
        ("/", &[("x-user-email", "a@example.org")][..], "v1"),
        ("/", &[("cookie", "a=b; beta=1")][..], "v2"),
        ("/", &[("cookie", "beta=0")][..], "v1"),
        ("/?beta", &[][..], "v2"),
        ("/?alpha", &[][..], "v1"),
    ] {
        assert_eq!(shop.served_by(path, fields), expected, "{path} {fields:?}");
    }
    let half = (0..100)
        .filter(|_| shop.served_by("/", &[("x-half", "")]) == "v2")
        .count();
    assert!((45..=55).contains(&half), "{half}");
    shop.gate.access_line("a line with the rule", |line| {
        line["reason"] == "rule:beta" && line["version"] == "v2"
    });
}

#[test]
fn a_rule_with_from_counts_only_for_clients_of_that_segment() {
    let rules = "rules:\n  - { name: forced, when: { header: x-version, equals: v2, from: office }, version: v2 }";
    for (network, expected) in [("127.0.0.0/8", "v2"), ("10.1.0.0/16", "v1")] {
        let segments = format!("segments:\n  office: {{ client_ip: [{network}] }}");
        let shop = Shop::built(100, 0, |service| service.key(rules), |config| config.top(&segments));
        let fields = [("x-version", "v2"), ("x-forwarded-for", "10.1.2.3")];
        assert_eq!(shop.served_by("/", &fields), expected, "{network}");
    }
}

#[test]
fn the_kill_switch_of_the_file_sends_everything_to_stable() {
    let rules = "kill: true\nrules:\n  - { name: forced, when: { header: x-version, equals: v2 }, version: v2 }";
    let shop = Shop::with(0, 100, |service| service.key(rules));
    assert_eq!(shop.served_by("/", &[]), "v1");
    assert_eq!(shop.served_by("/", &[("x-version", "v2")]), "v1");
    shop.gate
        .access_line("reason killed", |line| line["reason"] == "killed");
    shop.gate
        .expect_metric("rollgate_kill_switch", &[("service", "shop")], 1.0);
}

// ---- users ----

#[test]
fn a_user_of_a_header_stays_and_the_population_is_about_the_share() {
    let shop = Shop::with(70, 30, |service| {
        service.key("affinity: { key: [ { header: x-user-id } ] }")
    });
    let mut client = shop.gate.client();
    let mut version_of = HashMap::new();
    for round in 0..2 {
        for user in 0..1000 {
            let served = client
                .get("/", &[("x-user-id", &format!("user-{user}"))])
                .served_by()
                .to_owned();
            let first = version_of.entry(user).or_insert_with(|| served.clone());
            assert_eq!(*first, served, "user {user} moved in round {round}");
        }
    }
    let canary = version_of.values().filter(|version| *version == "v2").count();
    // 4 standard deviations of a binomial of 1000 at 0.3: 58.
    assert!((242..=358).contains(&canary), "{canary}");
}

#[test]
fn the_bucket_is_the_published_formula() {
    let shop = Shop::with(50, 50, |service| {
        service.key("affinity: { key: [ { header: x-user-id } ], salt: pepper, hash: rollgate-1 }")
    });
    for user in 0..200 {
        let hash = murmur3::murmur3_32(&mut std::io::Cursor::new(format!("pepper:{user}")), 0).unwrap();
        let bucket = (u64::from(hash) * 100_000) >> 32;
        let expected = if bucket < 50_000 { "v2" } else { "v1" };
        assert_eq!(
            shop.served_by("/", &[("x-user-id", &user.to_string())]),
            expected,
            "user {user}, bucket {bucket}"
        );
    }
}

fn cookie_of(response: &support::Response) -> Option<(String, String)> {
    let set = response.header("set-cookie")?;
    let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
    Some((format!("{name}={value}"), set.to_owned()))
}

#[test]
fn a_user_without_a_key_gets_a_signed_cookie_and_keeps_version_and_cookie() {
    let affinity = "affinity: { key: [ { header: x-user-id } ], cookie: { name: rollgate, ttl: 30d }, keep: true }";
    let shop = Shop::with(50, 50, |service| service.key(affinity));
    let mut versions = HashSet::new();
    for _ in 0..20 {
        let first = shop.gate.get("/", &[]);
        let (cookie, set) = cookie_of(&first).expect("a cookie is issued");
        let set = set.to_ascii_lowercase();
        assert!(
            set.starts_with("rollgate=") && set.contains("httponly") && set.contains("samesite=lax"),
            "{set}"
        );
        assert!(set.contains("max-age=2592000"), "{set}");
        versions.insert(first.served_by().to_owned());
        for _ in 0..5 {
            let again = shop.gate.get("/", &[("cookie", &cookie)]);
            assert_eq!(again.served_by(), first.served_by());
            assert_eq!(
                cookie_of(&again).map(|(cookie, _)| cookie).unwrap_or(cookie.clone()),
                cookie
            );
        }
    }
    assert_eq!(versions.len(), 2, "20 users at 50 % all on one version");
    // Somebody with a key of their own is told nothing, unless there is an admission to remember.
    let stable = (0..50)
        .map(|n| shop.gate.get("/", &[("x-user-id", &n.to_string())]))
        .find(|r| r.served_by() == "v1");
    assert!(cookie_of(&stable.unwrap()).is_none());
}

#[test]
fn a_cookie_that_was_tampered_with_is_ignored_and_issued_anew() {
    let affinity = "affinity: { key: [ { header: x-user-id } ], cookie: { name: rollgate, ttl: 1h }, keep: true }";
    let shop = Shop::with(50, 50, |service| service.key(affinity));
    let (cookie, _) = cookie_of(&shop.gate.get("/", &[])).unwrap();
    let (name, value) = cookie.split_once('=').unwrap();
    for at in 0..value.len() {
        let mut bytes = value.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = format!("{name}={}", String::from_utf8(bytes).unwrap());
        let response = shop.gate.get("/", &[("cookie", &forged)]);
        assert_eq!(response.status, 200);
        let (fresh, _) = cookie_of(&response).unwrap_or_else(|| panic!("byte {at}: a forged cookie was believed"));
        assert_ne!(fresh, forged, "byte {at}: bytes of the client are echoed");
    }
    for nonsense in ["", "v2", "rollgate", "AAAA", &"x".repeat(5000), "%00", "\"v2\""] {
        let response = shop.gate.get("/", &[("cookie", &format!("{name}={nonsense}"))]);
        assert!(response.status == 200 && cookie_of(&response).is_some(), "{nonsense:?}");
    }
}

// ---- routes and fallback ----

#[test]
fn routes_are_chosen_by_host_path_and_method_and_none_is_404() {
    let (shop, api, any) = (Upstream::named("shop"), Upstream::named("api"), Upstream::named("wild"));
    let config = Config::with(
        Service::new("shop")
            .stable("v1", 1, &[shop.port()])
            .route("host: shop.example.com, path_prefix: /checkout"),
    )
    .and(
        Service::new("api")
            .stable("v1", 1, &[api.port()])
            .route("host: api.example.com, methods: [GET]"),
    )
    .and(
        Service::new("wild")
            .stable("v1", 1, &[any.port()])
            .route("host: \"*.example.com\", path_prefix: /checkout"),
    );
    let gate = Gate::start(&config.text());
    for (method, host, path, expected) in [
        ("GET", "shop.example.com", "/checkout", "shop"),
        ("GET", "SHOP.example.com:8080", "/checkout/a?b", "shop"),
        ("GET", "other.example.com", "/checkout", "wild"),
        ("GET", "api.example.com", "/x", "api"),
    ] {
        let response = gate.client().request(method, path, &[("host", host)], b"");
        assert_eq!(
            (response.status, response.served_by()),
            (200, expected),
            "{method} {host}{path}"
        );
    }
    for (method, host, path) in [
        ("GET", "shop.example.com", "/checkouts"),
        ("POST", "api.example.com", "/x"),
        ("GET", "example.com", "/checkout"),
        ("GET", "elsewhere.org", "/checkout"),
    ] {
        let mut client = gate.client();
        assert_eq!(
            client.request(method, path, &[("host", host)], b"").status,
            404,
            "{method} {host}{path}"
        );
        assert_eq!(
            client.get("/checkout", &[]).status,
            200,
            "the connection goes on after a 404"
        );
    }
    gate.expect_metric("rollgate_refusals_total", &[("reason", "no_route")], 4.0);
}

#[test]
fn a_dead_canary_falls_back_to_stable_or_fails_as_the_file_says() {
    for (fallback, status) in [("stable", 200), ("fail", 503)] {
        let stable = Upstream::named("v1");
        let dead = Upstream::named("v2");
        dead.kill();
        let service = Service::split(stable.port(), 0, dead.port(), 100).key(&format!("fallback: {fallback}"));
        let gate = Gate::start(&Config::with(service).text());
        let response = gate.get("/", &[]);
        assert_eq!(response.status, status, "fallback: {fallback}");
        if status == 200 {
            assert_eq!(response.served_by(), "v1");
            gate.access_line("reason fallback", |line| {
                line["reason"] == "fallback" && line["status"] == 200
            });
        }
    }
}

// ---- the exchange ----

#[test]
fn bodies_of_every_framing_pass_both_ways_unchanged() {
    let upstream = Upstream::with("v1", |exchange| {
        let body = exchange.read_body().to_vec();
        exchange.answer(200, &[], &body)
    });
    let gate = before(&upstream);
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    let mut client = gate.client();
    assert_eq!(client.request("POST", "/", &[], &body).body, body);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    for (n, chunk) in body.chunks(7001).enumerate() {
        let extension = if n % 3 == 0 { ";a=\"b\"" } else { "" };
        client.send([format!("{:x}{extension}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    client.send("0\r\n\r\n");
    let response = client.read(false).unwrap();
    assert_eq!(response.body, body);
    let received = upstream.last();
    assert!(received.complete && received.head.is_chunked() && received.body == body);
    assert_eq!(client.get("/", &[]).status, 200, "the connection goes on");
}

#[test]
fn answers_of_every_framing_pass() {
    let upstream = Upstream::with("v1", |exchange| {
        let (answer, then) = match exchange.request.target.as_str() {
            "/length" => ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", Then::Keep),
            "/chunked" => (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
                Then::Keep,
            ),
            "/close" => ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc", Then::Close),
            "/http10" => ("HTTP/1.0 200 OK\r\n\r\nabc", Then::Close),
            "/204" => ("HTTP/1.1 204 No Content\r\n\r\n", Then::Keep),
            "/304" => (
                "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 99\r\n\r\n",
                Then::Keep,
            ),
            _ => ("HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n", Then::Keep),
        };
        exchange.send(answer);
        then
    });
    let gate = before(&upstream);
    let mut client = gate.client();
    for path in ["/length", "/chunked", "/close", "/http10"] {
        let response = client.get(path, &[]);
        assert_eq!((response.status, response.text().as_str()), (200, "abc"), "{path}");
    }
    assert_eq!(client.get("/204", &[]).status, 204);
    assert_eq!(client.get("/304", &[]).header("etag"), Some("\"x\""));
    let head = client.request("HEAD", "/head", &[], b"");
    assert_eq!((head.header("content-length"), head.body.len()), (Some("12345"), 0));
    assert_eq!(
        client.get("/length", &[]).text(),
        "abc",
        "nothing is left over on the connection"
    );
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        exchange.send(
            "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 42\r\n\r\n",
        );
        Then::Keep
    });
    let gate = before(&upstream);
    let mut client = gate.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("1\r\na\r\n0\r\nx-check: 7\r\n\r\n");
    let response = client.read(false).unwrap();
    assert_eq!(response.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    assert_eq!(upstream.last().trailers, [("x-check".to_owned(), "7".to_owned())]);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        if exchange.request.target == "/0" {
            std::thread::sleep(Duration::from_millis(100));
        }
        let body = format!("{} {}", exchange.request.target, exchange.request.body.len());
        exchange.answer(200, &[], body.as_bytes())
    });
    let gate = before(&upstream);
    let mut client = gate.client();
    let mut all = String::new();
    for n in 0..20 {
        all += &match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"),
            _ => format!("POST /{n} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        };
    }
    client.send(all);
    for n in 0..20 {
        let expected = format!("/{n} {}", if n % 3 == 0 { 0 } else { 3 });
        assert_eq!(client.read(false).unwrap().text(), expected);
    }
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let upstream = Upstream::named("v1");
    let gate = before(&upstream);
    let mut client = gate.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.read_head().unwrap().status, 100);
    client.send("hello");
    assert_eq!(client.read(false).unwrap().status, 200);
    assert_eq!(upstream.last().body, b"hello");
    assert_eq!(client.get("/", &[]).status, 200);
}

#[test]
fn an_early_answer_reaches_a_client_that_still_waits_with_its_body() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.answer(403, &[("connection", "close")], b"no");
        Then::Close
    });
    let gate = before(&upstream);
    let mut client = gate.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n");
    let response = client.read(false).unwrap();
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
    let mut client = gate.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nabc");
    assert_eq!(client.read(false).unwrap().status, 403);
}

#[test]
fn interim_answers_pass_to_http11_and_not_to_http10() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        exchange.answer(200, &[], b"ok")
    });
    let gate = before(&upstream);
    let response = gate.get("/", &[]);
    assert_eq!(response.interim.len(), 1);
    assert_eq!(response.interim[0].get("link"), Some("</a>"));
    let mut old = gate.client();
    old.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    let response = old.read(false).unwrap();
    assert_eq!((response.status, response.interim.len()), (200, 0));
    assert!(old.is_closed_within(PATIENCE), "HTTP/1.0 without keep-alive is closed");
}

#[test]
fn a_client_that_half_closes_gets_its_answer() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        std::thread::sleep(Duration::from_millis(150));
        exchange.answer(200, &[], b"late")
    });
    let gate = before(&upstream);
    let mut client = gate.client();
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab")
        .half_close();
    assert_eq!(client.read(false).unwrap().text(), "late");
}

#[test]
fn a_client_that_leaves_is_a_499_and_nobodys_failure() {
    let (arrived, wait) = mpsc::channel();
    let arrived = std::sync::Mutex::new(arrived);
    let upstream = Upstream::with("v1", move |exchange| {
        arrived.lock().unwrap().send(()).ok();
        exchange.stay_silent()
    });
    let gate = before(&upstream);
    let mut client = gate.client();
    client.send("GET /leaves HTTP/1.1\r\nhost: a\r\n\r\n");
    wait.recv_timeout(PATIENCE).unwrap();
    client.reset();
    let line = gate.access_line("a 499", |line| line["path"] == "/leaves");
    assert_eq!(line["status"], 499);
    assert_eq!(gate.metric("rollgate_request_failures_total", &[]), 0.0);
    gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
}

#[test]
fn a_slow_reader_gets_everything_and_holds_up_its_upstream_not_our_memory() {
    const SIZE: usize = 48 << 20;
    let upstream = Upstream::with("v1", |exchange| {
        exchange.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"));
        let block = vec![b'x'; 1 << 20];
        for _ in 0..SIZE >> 20 {
            if !exchange.try_send(&block) {
                return Then::Close;
            }
        }
        Then::Keep
    });
    let gate = before(&upstream);
    let before = gate.resident_kib();
    let mut client = gate.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(700));
    let grown = gate.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for an answer nobody reads");
    assert_eq!(client.read(false).unwrap().body.len(), SIZE);
}

#[test]
fn numbers_that_the_application_tells_the_judge_never_reach_a_client() {
    let fields = [("X-Orders", "12.5"), ("x-basket", "not a number"), ("x-other", "stays")];
    let upstream = |name: &str| {
        Upstream::with(name, move |exchange| match exchange.request.target.as_str() {
            "/early" => {
                exchange.send("HTTP/1.1 103 Early Hints\r\nx-orders: 1\r\n\r\n");
                exchange.answer(200, &fields, b"hello")
            }
            "/late" => {
                exchange.send("HTTP/1.1 200 OK\r\nx-other: stays\r\ntransfer-encoding: chunked\r\n\r\n");
                exchange.send("5\r\nhello\r\n0\r\nX-Orders: 1\r\nx-basket: 2\r\n\r\n");
                Then::Keep
            }
            _ => exchange.answer(200, &fields, b"hello"),
        })
    };
    let (v1, v2) = (upstream("v1"), upstream("v2"));
    let metrics = "metrics: { orders: { from_header: x-orders, worse: lower }, basket: { from_header: x-basket, worse: higher } }";
    let rollout =
        format!("rollout: {{ start: manual, steps: [{{ share: 50%, hold: 10m }}], analysis: {{ {metrics} }} }}");
    let service = Service::split(v1.port(), 1, v2.port(), 1);
    let gate = Gate::start(&Config::with(service.clone().key(&rollout)).text());
    let mut versions = HashSet::new();
    for path in ["/", "/", "/early", "/early"] {
        let response = gate.get(path, &[]);
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
        assert_eq!((response.header("x-orders"), response.header("x-basket")), (None, None));
        assert_eq!(response.header("x-other"), Some("stays"));
        versions.insert(response.served_by().to_owned());
    }
    assert_eq!(versions.len(), 2, "of both versions, without a rollout that runs");
    let late = gate.get("/late", &[]);
    assert_eq!((late.header("x-other"), late.trailers.len()), (Some("stays"), 0));
    // Who names no metric forwards what there is.
    let plain = Gate::start(&Config::with(service).text()).get("/", &[]);
    assert_eq!(plain.header("x-orders"), Some("12.5"));
}

// ---- what the upstream is told ----

#[test]
fn forwarded_fields_are_replaced_for_strangers_and_extended_for_trusted_proxies() {
    let fields = [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
    ];
    let shop = Shop::new(1, 0);
    shop.gate.get("/", &fields);
    let head = shop.v1.last().head;
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(head.get("x-forwarded-host"), Some("shop.example.com"));
    assert_eq!(head.get("host"), Some("shop.example.com"));
    assert_eq!(head.get("x-rollgate-version"), Some("v1"));
    assert_eq!(head.get("forwarded"), None);

    let shop = Shop::built(
        1,
        0,
        |service| service,
        |config| config.top("trusted_proxies: [127.0.0.0/8]"),
    );
    shop.gate.get("/", &fields);
    let head = shop.v1.last().head;
    assert_eq!(head.get("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
    assert_eq!(head.get("x-forwarded-proto"), Some("https"));
    assert_eq!(head.get("x-forwarded-host"), Some("evil.example"));
    shop.gate.access_line("the client of a trusted proxy", |line| {
        line["client_ip"] == "203.0.113.7"
    });
}

/// Whichever way a trusted proxy says it, who decides, what is sent on and what variables stand for agree.
#[test]
fn a_trusted_proxy_is_believed_in_whichever_words_it_speaks() {
    let headers = "request_headers: { set: { x-facts: \"${client_ip} ${scheme}\" } }";
    let shop = Shop::built(
        1,
        0,
        |service| service.key(headers),
        |config| {
            config
                .top("trusted_proxies: [127.0.0.0/8]")
                .and_listener("redirect_to_https: true")
        },
    );
    let mut redirecting = Client::connect(shop.gate.port_of(1));
    for (fields, client, scheme) in [
        (
            &[("forwarded", "for=192.0.2.5;proto=https;host=h.x")][..],
            "192.0.2.5",
            "https",
        ),
        (
            &[("forwarded", "For=\"[2001:db8::5]:80\"; Proto=HTTPS")],
            "2001:db8::5",
            "https",
        ),
        (&[("forwarded", "for=192.0.2.5;proto=http")], "192.0.2.5", "http"),
        (&[("x-forwarded-proto", "HTTPS")], "127.0.0.1", "https"),
        (&[("x-forwarded-proto", "http, https")], "127.0.0.1", "https"),
        (&[("x-forwarded-proto", "https,http")], "127.0.0.1", "http"),
        (
            &[
                ("x-forwarded-for", "192.0.2.5, 127.0.0.9"),
                ("x-forwarded-proto", "https, http"),
            ],
            "192.0.2.5",
            "https",
        ),
    ] {
        shop.gate.get("/", fields);
        let head = shop.v1.last().head;
        let first = head
            .get("x-forwarded-for")
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .to_owned();
        assert_eq!(
            (first.as_str(), head.get("x-forwarded-proto")),
            (client, Some(scheme)),
            "{fields:?}"
        );
        assert_eq!(
            head.get("x-facts"),
            Some(format!("{client} {scheme}").as_str()),
            "{fields:?}"
        );
        let status = if scheme == "https" { 200 } else { 308 };
        assert_eq!(redirecting.get("/", fields).status, status, "{fields:?}");
    }
    shop.gate.get("/", &[("forwarded", "for=192.0.2.5;host=h.x")]);
    assert_eq!(shop.v1.last().head.get("x-forwarded-host"), Some("h.x"));
}

#[test]
fn internal_fields_of_clients_and_hop_by_hop_fields_are_not_forwarded() {
    let shop = Shop::new(1, 0);
    let fields = [
        ("x-rollgate-version", "v9"),
        ("connection", "keep-alive, x-private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
        ("x-kept", "yes"),
    ];
    assert_eq!(shop.gate.get("/", &fields).status, 200);
    let head = shop.v1.last().head;
    assert_eq!(head.all("x-rollgate-version").collect::<Vec<_>>(), ["v1"]);
    assert_eq!(
        (head.get("x-private"), head.get("te"), head.get("upgrade")),
        (None, None, None)
    );
    assert_eq!(head.get("x-kept"), Some("yes"));
}

#[test]
fn request_ids_and_traces_are_made_and_a_trace_is_continued() {
    let shop = Shop::new(1, 0);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    shop.gate.get("/", &[("traceparent", trace)]);
    shop.gate.get("/", &[("traceparent", "00-bad")]);
    let requests = shop.v1.requests();
    let field = |n: usize, name: &str| requests[n].head.get(name).unwrap().to_owned();
    assert!(field(0, "traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    let made = field(1, "traceparent");
    assert!(made.len() == trace.len() && !made.starts_with("00-bad-"), "{made}");
    assert_ne!(field(0, "x-request-id"), field(1, "x-request-id"));
}

#[test]
fn fields_of_an_answer_that_are_for_one_hop_stop_here_and_the_rest_passes() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=9\r\n\
                  x-rollgate-version: v9\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n";
    let upstream = Upstream::fixed("v1", answer, Then::Keep);
    let response = before(&upstream).get("/", &[]);
    assert_eq!((response.header("x-hop"), response.header("keep-alive")), (None, None));
    assert_eq!(response.header("x-rollgate-version"), None);
    assert_eq!(response.head.all("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
}

#[test]
fn the_client_is_told_the_version_only_where_the_file_says_so() {
    let shop = Shop::with(1, 0, |service| service.key("expose_version: true"));
    assert_eq!(shop.gate.get("/", &[]).header("x-rollgate-version"), Some("v1"));
    assert_eq!(Shop::new(1, 0).gate.get("/", &[]).header("x-rollgate-version"), None);
}

// ---- connections ----

#[test]
fn connections_are_kept_on_both_sides_and_never_shared_between_versions() {
    let shop = Shop::new(50, 50);
    let mut client = shop.gate.client();
    for _ in 0..200 {
        assert_eq!(client.get("/", &[]).status, 200);
    }
    assert!(
        shop.v1.connections_used() <= 2,
        "{} connections to v1",
        shop.v1.connections_used()
    );
    assert!(
        shop.v2.connections_used() <= 2,
        "{} connections to v2",
        shop.v2.connections_used()
    );
    for upstream in [&shop.v1, &shop.v2] {
        let versions: HashSet<_> = upstream
            .requests()
            .iter()
            .map(|r| r.head.get("x-rollgate-version").unwrap().to_owned())
            .collect();
        assert_eq!(versions.len(), 1, "{versions:?}");
    }
}

#[test]
fn a_client_that_asks_to_close_is_closed() {
    let shop = Shop::new(1, 0);
    let mut client = shop.gate.client();
    let response = client.get("/", &[("connection", "close")]);
    assert_eq!(
        response.header("connection").map(str::to_ascii_lowercase).as_deref(),
        Some("close")
    );
    assert!(client.is_closed_within(PATIENCE));
}

#[test]
fn a_websocket_is_tunnelled_after_a_101_both_ways_and_closes_with_either_side() {
    let upstream = Upstream::with("v1", |exchange| exchange.echo_web_socket("first"));
    let gate = before(&upstream);
    let mut client = gate.client();
    let response = client.get("/chat", &WEB_SOCKET);
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(client.read_bytes(5), b"first");
    for n in 0..100_u8 {
        client.send([n; 1000]);
        assert_eq!(client.read_bytes(1000), [n; 1000]);
    }
    client.half_close();
    assert!(client.is_closed_within(PATIENCE));
    gate.expect_metric("rollgate_requests_total", &[("code", "101")], 1.0);
    gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
}

/// Heads and what frames a body are none of it, whatever the client speaks, and whoever answers.
#[test]
fn response_bytes_in_the_access_log_are_those_of_bodies() {
    let large = "a".repeat(100_000);
    let upstream = Upstream::with("v1", move |exchange| {
        exchange.read_body();
        match exchange.request.target.as_str() {
            "/ten" => exchange.answer(200, &[], b"0123456789"),
            "/large" => exchange.answer(200, &[], large.as_bytes()),
            "/chunked" => {
                let chunk = format!("{:x}\r\n{large}\r\n", large.len());
                exchange.send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"));
                exchange.send("3\r\nend\r\n0\r\nx-trailer: t\r\n\r\n");
                Then::Keep
            }
            "/cut" => {
                exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
                Then::Close
            }
            _ => {
                exchange.send("HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 10\r\n\r\n");
                Then::Keep
            }
        }
    });
    let service = Service::only(upstream.port()).route("path_prefix: /");
    let own = "routes:\n  - { path: /said, respond: { status: 200, body: \"of our own\" } }\n  - { path: /gone, redirect: { \
               path: /ten } }\n  - { path_prefix: /nowhere, respond: { status: 404 } }";
    let gate = Gate::start(&Config::with(service).top(own).text());
    let logged = |path: &str, protocol: &str| {
        let line = gate.access_line(path, |line| line["path"] == path && line["protocol"] == protocol);
        line["response_bytes"].as_u64().unwrap()
    };
    let sizes = [
        ("/ten", 10),
        ("/large", 100_000),
        ("/chunked", 100_003),
        ("/same", 0),
        ("/said", 10),
        ("/nowhere", 0),
    ];
    for (path, size) in sizes {
        assert_eq!(gate.get(path, &[]).body.len(), size, "{path}");
        assert_eq!(logged(path, "HTTP/1.1"), size as u64, "{path}");
    }
    let moved = gate.get("/gone", &[]).body.len() as u64;
    assert_eq!((moved > 0, logged("/gone", "HTTP/1.1")), (true, moved));
    let mut client = gate.client();
    assert_eq!(
        client.request("HEAD", "/ten?head", &[], b"").header("content-length"),
        Some("10")
    );
    assert_eq!(logged("/ten?head", "HTTP/1.1"), 0);
    assert!(gate.client().try_request("GET", "/cut", &[], b"").is_err());
    assert_eq!(logged("/cut", "HTTP/1.1"), 5);
    let refused = gate.client().send("GET / HTTP/1.1\r\n\r\n").read(false).unwrap();
    let line = gate.access_line("what is no request", |line| line["refusal"] == "bad_request");
    assert_eq!(
        (refused.status, &line["response_bytes"]),
        (400, &refused.body.len().into())
    );

    let mut client = RawClient::greeted(gate.port());
    for (stream, (path, size)) in (1..).step_by(2).zip(sizes.into_iter().filter(|(_, size)| *size <= 10)) {
        client.request(
            stream,
            &[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", path),
            ],
        );
        assert_eq!(client.answer(stream).1.len(), size, "{path}");
        assert_eq!(logged(path, "HTTP/2.0"), size as u64, "{path}");
    }
}

#[test]
fn an_upgrade_that_the_upstream_declines_is_an_ordinary_answer() {
    let shop = Shop::new(1, 0);
    let mut client = shop.gate.client();
    assert_eq!(client.get("/chat", &WEB_SOCKET).status, 200);
    assert_eq!(client.get("/", &[]).status, 200);
}

#[test]
fn a_101_nobody_asked_for_is_a_502() {
    let upstream = Upstream::fixed(
        "v1",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
        Then::Close,
    );
    let gate = before(&upstream);
    assert_eq!(gate.get("/", &[]).status, 502);
    gate.expect_metric("rollgate_request_failures_total", &[("kind", "protocol")], 1.0);
}

#[test]
fn health_and_readiness_and_metrics_answer_and_the_data_port_knows_none_of_them() {
    let shop = Shop::new(1, 0);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(shop.gate.admin_get(path).unwrap().status, 200, "{path}");
        assert_eq!(shop.gate.get(path, &[]).served_by(), "v1", "{path}");
    }
    assert_eq!(shop.gate.metric("rollgate_config_last_reload_successful", &[]), 1.0);
    assert_eq!(shop.gate.metric("rollgate_endpoint_healthy", &[("version", "v1")]), 1.0);
    let share = shop.gate.metric(
        "rollgate_version_share_target",
        &[("service", "shop"), ("version", "v1")],
    );
    assert!((share - 1.0).abs() < 1e-9 || (share - 100.0).abs() < 1e-9, "{share}");
}

#[test]
fn no_label_comes_from_a_request() {
    let shop = Shop::new(50, 50);
    let mut client = shop.gate.client();
    for _ in 0..20 {
        client.get("/", &[]);
    }
    eventually(PATIENCE, "counted", || {
        shop.gate.metric("rollgate_requests_total", &[]) >= 20.0
    });
    let series = shop.gate.metrics().len();
    for n in 0..2000 {
        let method = ["GET", "PUT", "BREW", "X-1"][n % 4];
        let fields = [("host", &*format!("h{n}.example.com")), ("x-user-id", &*format!("{n}"))];
        assert_eq!(client.request(method, &format!("/{n}?q={n}"), &fields, b"").status, 200);
    }
    eventually(PATIENCE, "counted", || {
        shop.gate.metric("rollgate_requests_total", &[]) >= 2020.0
    });
    assert_eq!(shop.gate.metrics().len(), series);
}

#[test]
fn an_upstream_on_the_way_to_closing_gets_no_second_request() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        exchange.answer(200, &[("connection", "close")], b"ok");
        Then::Close
    });
    let gate = before(&upstream);
    let mut client = gate.client();
    for n in 0..20 {
        assert_eq!(client.request("POST", "/", &[], b"x").status, 200, "{n}");
    }
    assert_eq!(upstream.count(), 20);
}

#[test]
fn many_clients_at_once_all_get_their_own_answers() {
    let upstream = Upstream::with("v1", |exchange| {
        let body = exchange.read_body().to_vec();
        let echo = format!("{} {}", exchange.request.target, String::from_utf8_lossy(&body));
        exchange.answer(200, &[], echo.as_bytes())
    });
    let gate = before(&upstream);
    let start = Instant::now();
    in_parallel(32, |n| {
        let mut client = Client::connect(gate.port());
        for k in 0..50 {
            let body = format!("body-{n}-{k}");
            match client.try_request("POST", &format!("/{n}/{k}"), &[], body.as_bytes()) {
                Ok(response) => assert_eq!(response.text(), format!("/{n}/{k} {body}")),
                Err(broken @ (Broken::Closed | Broken::Cut(_) | Broken::Silent | Broken::Malformed(_))) => {
                    panic!("{n}/{k} after {:?}: {broken:?}", start.elapsed())
                }
            }
        }
    });
    assert_eq!(upstream.count(), 32 * 50);
}

#[test]
fn max_forwards_counts_down_and_ends_at_the_proxy() {
    let upstream = Upstream::named("v1");
    let gate = before(&upstream);
    let mut client = gate.client();
    assert_eq!(
        client.request("OPTIONS", "/a", &[("max-forwards", "1")], b"").status,
        200
    );
    assert_eq!(upstream.last().head.get("max-forwards"), Some("0"));
    let last = client.request("OPTIONS", "/a", &[("max-forwards", "0")], b"");
    assert_eq!((last.status, last.served_by()), (200, "nobody"));
    assert_eq!(client.request("TRACE", "/a", &[("max-forwards", "0")], b"").status, 405);
    assert_eq!(upstream.count(), 1, "what may go no further was forwarded");
    assert_eq!(
        client.request("GET", "/a", &[("max-forwards", "0")], b"").served_by(),
        "v1"
    );
}
