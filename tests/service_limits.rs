//! What a service takes, and not more: rates, and requests in flight.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use support::{Client, Config, Dam, Gate, PATIENCE, Service, Upstream, Write, eventually};

fn rejected(gate: &Gate, version: &str, limit: &str, count: f64) {
    let labels = [("service", "shop"), ("version", version), ("limit", limit)];
    gate.expect_metric("rollgate_requests_limited_total", &labels, count);
}

#[test]
fn beyond_a_rate_it_is_429_with_the_time_to_wait_and_nobodys_failure() {
    let upstream = Upstream::named("v1");
    let service = Service::only(upstream.port()).key("rate_limits: [{ requests: 5, per: 1h }]");
    let gate = Gate::start(&Config::with(service).text());
    let mut client = gate.client();
    let statuses: Vec<u16> = (0..8).map(|_| client.get("/", &[]).status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429]);
    let response = client.get("/", &[]);
    let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
    // Those that passed since the first request are over already.
    assert!((660..=720).contains(&wait), "{wait}: one every 12 minutes");
    assert!(!response.closes(), "the connection goes on");
    assert!(response.text().contains("rate limit"), "{}", response.text());
    assert_eq!(upstream.count(), 5);
    gate.expect_metric("rollgate_refusals_total", &[("reason", "rate_limited")], 4.0);
    rejected(&gate, "", "rate", 4.0);
    gate.expect_metric("rollgate_requests_total", &[], 5.0);
    gate.expect_metric("rollgate_request_failures_total", &[], 0.0);
    gate.expect_metric("rollgate_terminations_total", &[("code", "refused")], 4.0);
    let line = gate.access_line("a refused request", |line| line["status"] == 429);
    assert_eq!(line["refusal"], "rate_limited");
    assert_eq!((line["service"].as_str(), line.get("version")), (Some("shop"), None));
    assert_eq!(
        gate.admin_get("/v1/rejected").unwrap().text().matches("429").count(),
        0,
        "the message was right"
    );
}

#[test]
fn who_waits_as_told_is_let_in() {
    let upstream = Upstream::named("v1");
    let service = Service::only(upstream.port()).key("rate_limits: [{ requests: 1, per: 4s }]");
    let gate = Gate::start(&Config::with(service).text());
    let mut client = gate.client();
    let begun = Instant::now();
    assert_eq!(client.get("/", &[]).status, 200);
    let refused = client.get("/", &[]);
    // The proxy may look at its clock a little later than we do.
    let told = Instant::now() + Duration::from_secs(2);
    assert_eq!(refused.status, 429);
    let wait = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=4).contains(&wait), "{wait}");
    eventually(PATIENCE, "it is let in", || {
        let sent = Instant::now();
        let served = client.get("/", &[]).status == 200;
        assert!(served || sent < told + Duration::from_secs(wait), "it waited as told");
        std::thread::sleep(Duration::from_millis(20));
        served
    });
    assert!(begun.elapsed() > Duration::from_millis(3_500), "{:?}", begun.elapsed());
}

#[test]
fn each_key_has_a_rate_of_its_own_and_a_refused_one_takes_nothing_from_the_others() {
    let upstream = Upstream::named("v1");
    let limits =
        "rate_limits: [{ requests: 6, per: 1h }, { requests: 2, per: 1h, key: [{ header: x-api-key }, client_ip] }]";
    let gate = Gate::start(&Config::with(Service::only(upstream.port()).key(limits)).text());
    let mut client = gate.client();
    let mut served = |key: &str, times: usize| {
        let fields: Vec<(&str, &str)> = (!key.is_empty()).then_some(("x-api-key", key)).into_iter().collect();
        (0..times).filter(|_| client.get("/", &fields).status == 200).count()
    };
    assert_eq!((served("ada", 20), served("bob", 3), served("", 3)), (2, 2, 2));
    assert_eq!(served("eve", 1), 0, "the service's own rate is used up");
}

#[test]
fn a_request_that_one_rate_refuses_takes_nothing_from_the_others() {
    let upstream = Upstream::named("v1");
    let limits = "rate_limits: [{ requests: 3, per: 1h, key: [{ header: x-team }] }, { requests: 1, per: 1h, key: [{ header: x-user }] }]";
    let gate = Gate::start(&Config::with(Service::only(upstream.port()).key(limits)).text());
    let mut client = gate.client();
    let mut served = |user: &str, times: usize| {
        let fields = [("x-team", "red"), ("x-user", user)];
        (0..times).filter(|_| client.get("/", &fields).status == 200).count()
    };
    assert_eq!((served("ada", 20), served("bob", 20), served("cyd", 20)), (1, 1, 1));
    assert_eq!(served("dan", 1), 0, "the team's own rate is used up");
}

#[test]
fn a_reload_neither_refills_a_rate_nor_forgets_who_is_inside() {
    let dam = Dam::default();
    let upstream = dam.upstream("v1");
    let config = |limit: u32, more: &str| {
        let key = format!("max_in_flight: {limit}\nrate_limits: [{{ requests: 3, per: 1h }}]\n{more}");
        Config::with(Service::only(upstream.port()).key(&key)).text()
    };
    let gate = Gate::start(&config(1, ""));
    let mut inside = gate.client();
    inside.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually(PATIENCE, "it is inside", || upstream.count() == 1);
    assert_eq!(gate.get("/", &[]).status, 503);
    let generation = gate.metric("rollgate_config_generation", &[]);
    gate.write_config(&config(1, "expose_version: true"), Write::Rename);
    eventually(PATIENCE, "the file is in force", || {
        gate.metric("rollgate_config_generation", &[]) > generation
    });
    assert_eq!(gate.get("/", &[]).status, 503, "still full");
    dam.open();
    assert_eq!(inside.read(false).unwrap().status, 200);
    gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
    let mut client = gate.client();
    let statuses: Vec<u16> = (0..3).map(|_| client.get("/", &[]).status).collect();
    assert_eq!(
        statuses,
        [200, 200, 429],
        "full ones took nothing of the rate, and the reload gave nothing back"
    );
    rejected(&gate, "", "in_flight", 2.0);
}

fn in_background(port: u16, done: &Sender<u16>) {
    let done = done.clone();
    std::thread::spawn(move || done.send(Client::connect(port).get("/", &[]).status));
}

#[test]
fn a_canary_is_protected_by_its_own_limit() {
    let dam = Dam::default();
    let (stable, canary) = (dam.upstream("v1"), dam.upstream("v2"));
    let service = Service::split(stable.port(), 50, canary.port(), 50);
    let text = Config::with(service).text();
    let (before, after) = text.rsplit_once("        pool:").unwrap();
    let gate = Gate::start(&format!("{before}        max_in_flight: 3\n        pool:{after}"));
    let (done, statuses) = channel();
    for n in 1..=20 {
        in_background(gate.port(), &done);
        // One after the other: each takes its turn of the split.
        eventually(PATIENCE, "it is served or refused", || {
            let refused = gate.metric("rollgate_refusals_total", &[("reason", "max_in_flight")]);
            stable.count() + canary.count() + refused as usize == n
        });
    }
    assert_eq!(
        (stable.count(), canary.count()),
        (10, 3),
        "stable takes what is its own"
    );
    gate.expect_metric("rollgate_requests_in_flight", &[("version", "v2")], 3.0);
    rejected(&gate, "v2", "in_flight", 7.0);
    dam.open();
    let mut statuses: Vec<u16> = (0..20).map(|_| statuses.recv_timeout(PATIENCE).unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[200; 13].as_slice(), &[503; 7]].concat());
    gate.expect_metric("rollgate_request_failures_total", &[], 0.0);
    gate.expect_metric("rollgate_requests_total", &[("version", "v2")], 3.0);
    let mut client = gate.client();
    assert!(
        (0..20).all(|_| client.get("/", &[]).status == 200),
        "there is room again"
    );
    let refused = gate.access_line("a refused request", |line| line["status"] == 503);
    assert_eq!(
        (refused["refusal"].as_str(), refused.get("failure")),
        (Some("max_in_flight"), None)
    );
    assert_eq!(
        (
            refused["service"].as_str(),
            refused["version"].as_str(),
            refused.get("reason")
        ),
        (Some("shop"), Some("v2"), None),
        "whose limit it was"
    );
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let dam = Dam::default();
    let upstream = dam.upstream("v1");
    let gate = Gate::start(&Config::with(Service::only(upstream.port()).key("max_in_flight: 2")).text());
    for n in [2, 4, 6] {
        let mut clients = [gate.client(), gate.client()];
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        }
        eventually(PATIENCE, "both are inside", || upstream.count() == n);
        let full = gate.get("/", &[]);
        assert_eq!((full.status, full.header("retry-after")), (503, Some("1")));
        for client in &clients {
            support::reset(client.stream());
        }
        drop(clients);
        gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
    }
    dam.open();
    assert_eq!(gate.get("/", &[]).status, 200);
}

#[test]
fn a_version_has_a_rate_of_its_own() {
    let (stable, canary) = (Upstream::named("v1"), Upstream::named("v2"));
    let text = Config::with(Service::split(stable.port(), 50, canary.port(), 50)).text();
    let (before, after) = text.rsplit_once("        pool:").unwrap();
    let gate = Gate::start(&format!(
        "{before}        rate_limits: [{{ requests: 4, per: 1h }}]\n        pool:{after}"
    ));
    let mut client = gate.client();
    let mut statuses: Vec<u16> = (0..20).map(|_| client.get("/", &[]).status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[200; 14].as_slice(), &[429; 6]].concat());
    assert_eq!(
        (stable.count(), canary.count()),
        (10, 4),
        "stable takes what is its own"
    );
    rejected(&gate, "v2", "rate", 6.0);
    gate.expect_metric("rollgate_requests_total", &[("version", "v2")], 4.0);
    gate.expect_metric("rollgate_request_failures_total", &[], 0.0);
    gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
    let refused = gate.access_line("a refused request", |line| line["status"] == 429);
    assert_eq!(
        (
            refused["service"].as_str(),
            refused["version"].as_str(),
            refused["refusal"].as_str()
        ),
        (Some("shop"), Some("v2"), Some("rate_limited"))
    );
    let full = (0..2)
        .map(|_| client.get("/", &[]))
        .find(|response| response.status == 429)
        .unwrap();
    assert!(full.header("retry-after").is_some() && full.text().contains("of the version"));
}

#[test]
fn each_key_has_its_own_number_in_flight_and_gets_it_back() {
    let dam = Dam::default();
    let upstream = dam.upstream("v1");
    let limits = "max_in_flight: 6\nmax_in_flight_per_key: [{ requests: 2, key: [{ header: x-api-key }] }]";
    let gate = Gate::start(&Config::with(Service::only(upstream.port()).key(limits)).text());
    let begin = |key: &str| {
        let mut client = gate.client();
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n"));
        client
    };
    let mut inside: Vec<Client> = ["ada", "ada", "bob"].map(begin).into();
    eventually(PATIENCE, "three are inside", || upstream.count() == 3);
    // As many as she likes to send: they take nothing from the six that are the service's.
    for _ in 0..9 {
        let full = gate.get("/", &[("x-api-key", "ada")]);
        assert_eq!((full.status, full.header("retry-after")), (503, Some("1")));
        assert!(full.text().contains("max_in_flight_per_key"), "{}", full.text());
    }
    rejected(&gate, "", "in_flight_per_key", 9.0);
    gate.expect_metric("rollgate_refusals_total", &[("reason", "max_in_flight")], 9.0);
    inside.extend(["bob", "eve", "eve"].map(begin));
    eventually(PATIENCE, "six are inside", || upstream.count() == 6);
    assert_eq!(gate.get("/", &[("x-api-key", "zoe")]).status, 503);
    rejected(&gate, "", "in_flight", 1.0);
    let line = gate.access_line("a refused request", |line| line["status"] == 503);
    assert_eq!((line["service"].as_str(), line.get("version")), (Some("shop"), None));
    // One of hers leaves without a word.
    inside.remove(0).reset();
    gate.expect_metric("rollgate_requests_in_flight", &[], 5.0);
    let mut third = begin("ada");
    eventually(PATIENCE, "there is room for another", || upstream.count() == 7);
    dam.open();
    assert_eq!(third.read(false).unwrap().status, 200);
    for client in &mut inside {
        assert_eq!(client.read(false).unwrap().status, 200);
    }
    // Those that are answered have given theirs back, on connections that stay open.
    let mut clients: Vec<Client> = (0..3).map(|_| gate.client()).collect();
    for _ in 0..5 {
        for client in &mut clients {
            assert_eq!(client.get("/", &[("x-api-key", "ada")]).status, 200);
        }
    }
}
