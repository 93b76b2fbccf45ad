//! What becomes of long requests on a canary when a kill switch comes on: `kill: { drain }`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};
use support::{
    Broken, Client, Config, Dam, Gate, Operator, PATIENCE, Response, SLACK, Service, Then, Upstream, WEB_SOCKET, Write,
    eventually,
};

/// The header that asks for the canary.
const TO_CANARY: (&str, &str) = ("x-version", "v2");

/// Echoes in a tunnel, sends a download that goes on until `end` is opened, or never answers.
fn upstream(name: &str, end: &Dam) -> Upstream {
    let end = end.clone();
    Upstream::with(name, move |exchange| match exchange.request.target.as_str() {
        "/tunnel" => exchange.echo_web_socket(""),
        "/download" => {
            exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while !end.is_open() {
                if !exchange.try_send(b"5\r\npiece\r\n") {
                    return Then::Close;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            exchange.send("0\r\n\r\n");
            Then::Keep
        }
        "/silence" => exchange.stay_silent(),
        _ => exchange.answer(200, &[], b"done"),
    })
}

struct Shop {
    gate: Gate,
    upstreams: [Upstream; 2],
    /// Of downloads.
    end: Dam,
}

impl Shop {
    fn new() -> Self {
        let end = Dam::default();
        let upstreams = [upstream("v1", &end), upstream("v2", &end)];
        let gate = Gate::start(&config(&upstreams, "", ""));
        Self { gate, upstreams, end }
    }

    /// Puts lines at the top of the file, and in its service, in force; returns when they were written at the latest.
    fn write(&self, top: &str, service: &str, killed: bool) -> Instant {
        self.write_text(&config(&self.upstreams, top, service), killed)
    }

    fn write_text(&self, text: &str, killed: bool) -> Instant {
        let generation = self.gate.metric("rollgate_config_generation", &[]);
        let before = Instant::now();
        self.gate.write_config(text, Write::Rename);
        eventually(PATIENCE, "the file is in force", || {
            self.gate.metric("rollgate_config_generation", &[]) > generation
        });
        self.gate
            .expect_metric("rollgate_kill_switch", &[], f64::from(u8::from(killed)));
        before
    }

    fn tunnel(&self, fields: &[(&str, &str)]) -> Tunnel {
        let mut client = self.gate.client();
        let response = client.get("/tunnel", &[&WEB_SOCKET, fields].concat());
        assert_eq!(response.status, 101);
        let mut tunnel = Tunnel(client);
        tunnel.assert_open();
        tunnel
    }

    /// A download that has begun.
    fn download(&self, fields: &[(&'static str, &'static str)]) -> Download {
        let upstream = &self.upstreams[usize::from(!fields.is_empty())];
        let before = upstream.count();
        let (mut client, fields) = (self.gate.client(), fields.to_vec());
        let reading = std::thread::spawn(move || {
            let whole = match client.try_request("GET", "/download", &fields, b"") {
                Ok(_) => true,
                Err(Broken::Cut(_)) => false,
                Err(broken) => panic!("{broken:?}"),
            };
            (whole, Instant::now())
        });
        eventually(PATIENCE, "the download has begun", || upstream.count() > before);
        Download(reading)
    }

    fn assert_revoked(&self, path: &str) {
        self.gate.access_line(&format!("{path} revoked"), |line| {
            line["path"] == path && line["version"] == "v2" && line["termination"] == "revoked"
        });
    }
}

fn config(upstreams: &[Upstream; 2], top: &str, service: &str) -> String {
    let rule = "rules:\n  - { name: forced, when: { header: x-version, equals: v2 }, version: v2 }";
    let split = Service::split(upstreams[0].port(), 100, upstreams[1].port(), 0);
    Config::with(split.key(rule).key(service)).top(top).text()
}

struct Tunnel(Client);

impl Tunnel {
    fn assert_open(&mut self) {
        self.0.send("x");
        self.0.set_read_timeout(PATIENCE);
        assert_eq!(self.0.read_bytes(1), b"x");
    }

    fn closed_at(&mut self) -> Instant {
        assert!(self.0.is_closed_within(PATIENCE), "the tunnel is still open");
        Instant::now()
    }
}

/// Whether all of it came, and when it ended.
struct Download(std::thread::JoinHandle<(bool, Instant)>);

impl Download {
    fn assert_whole(self) {
        assert!(self.0.join().unwrap().0, "it was cut");
    }

    fn cut_at(self) -> Instant {
        let (whole, at) = self.0.join().unwrap();
        assert!(!whole, "it was not cut");
        at
    }
}

/// Ended at `at`, when the switch came on after `killed` with this drain.
fn assert_after_drain(killed: Instant, at: Instant, drain: Duration) {
    let after = at.duration_since(killed);
    assert!(after >= drain, "{after:?} after the kill, before the drain was over");
    assert!(after < drain + SLACK, "only {after:?} after the kill");
}

#[test]
fn what_runs_on_the_canary_is_closed_after_the_drain_and_nothing_else() {
    let shop = Shop::new();
    let drain = Duration::from_secs(1);
    let (mut canary, mut stable) = (shop.tunnel(&[TO_CANARY]), shop.tunnel(&[]));
    let (canary_download, stable_download) = (shop.download(&[TO_CANARY]), shop.download(&[]));
    let killed = shop.write("kill: { on: true, drain: 1s }", "", true);
    let late: Response = shop.gate.get("/", &[TO_CANARY]);
    assert_eq!((late.status, late.served_by()), (200, "v1"));
    assert_after_drain(killed, canary.closed_at(), drain);
    assert_after_drain(killed, canary_download.cut_at(), drain);
    stable.assert_open();
    shop.end.open();
    stable_download.assert_whole();
    stable.assert_open();
    shop.assert_revoked("/tunnel");
    shop.assert_revoked("/download");
    shop.gate
        .expect_metric("rollgate_terminations_total", &[("code", "revoked")], 2.0);
    shop.gate
        .expect_metric("rollgate_request_failures_total", &[("version", "v2")], 0.0);
}

#[test]
fn the_drain_of_the_service_holds_before_that_of_the_file() {
    let shop = Shop::new();
    let mut canary = shop.tunnel(&[TO_CANARY]);
    let killed = shop.write("kill: { drain: never }", "kill: { on: true, drain: 500ms }", true);
    assert_after_drain(killed, canary.closed_at(), Duration::from_millis(500));
}

#[test]
fn never_leaves_it_open_and_a_shorter_drain_ends_it_after_all() {
    let shop = Shop::new();
    let mut canary = shop.tunnel(&[TO_CANARY]);
    let download = shop.download(&[TO_CANARY]);
    shop.write("kill: { on: true, drain: never }", "", true);
    shop.end.open();
    download.assert_whole();
    canary.assert_open();
    shop.write("kill: { on: true, drain: 0s }", "", true);
    canary.closed_at();
    shop.assert_revoked("/tunnel");
}

#[test]
fn the_end_of_the_kill_before_the_drain_is_over_leaves_it_open() {
    let shop = Shop::new();
    let mut canary = shop.tunnel(&[TO_CANARY]);
    let download = shop.download(&[TO_CANARY]);
    let drain = Duration::from_secs(6);
    let killed = shop.write("kill: { on: true, drain: 6s }", "", true);
    shop.write("", "", false);
    assert!(killed.elapsed() < drain, "too slow to say anything");
    std::thread::sleep((drain + Duration::from_millis(500)).saturating_sub(killed.elapsed()));
    canary.assert_open();
    shop.end.open();
    download.assert_whole();
    let again = shop.gate.get("/", &[TO_CANARY]);
    assert_eq!(again.served_by(), "v2");
}

#[test]
fn a_canary_that_has_left_the_file_under_a_kill_is_drained_too() {
    let shop = Shop::new();
    let mut canary = shop.tunnel(&[TO_CANARY]);
    let killed = shop.write("kill: { on: true, drain: 2s }", "", true);
    let only = Config::with(Service::only(shop.upstreams[0].port())).text();
    shop.gate.write_config(&only, Write::Rename);
    assert_after_drain(killed, canary.closed_at(), Duration::from_secs(2));
}

/// The next candidate has taken its place in the file.
#[test]
fn a_kill_reaches_a_canary_that_has_left_the_file() {
    let shop = Shop::new();
    let drain = Duration::from_secs(1);
    let (mut canary, mut stable) = (shop.tunnel(&[TO_CANARY]), shop.tunnel(&[]));
    let download = shop.download(&[TO_CANARY]);
    let next = |top: &str| {
        let service = Service::new("shop").stable("v1", 100, &[shop.upstreams[0].port()]);
        let service = service.canary("v3", 0, &[shop.upstreams[1].port()]);
        Config::with(service).top(top).text()
    };
    shop.write_text(&next(""), false);
    shop.write_text(&next("kill: { drain: 9s }"), false);
    canary.assert_open();
    let killed = shop.write_text(&next("kill: { on: true, drain: 1s }"), true);
    assert_after_drain(killed, canary.closed_at(), drain);
    assert_after_drain(killed, download.cut_at(), drain);
    stable.assert_open();
    shop.assert_revoked("/tunnel");
}

#[test]
fn a_kill_reaches_what_ran_on_a_canary_before_it_left_and_came_back() {
    let shop = Shop::new();
    let mut canary = shop.tunnel(&[TO_CANARY]);
    let only = Config::with(Service::only(shop.upstreams[0].port())).text();
    shop.write_text(&only, false);
    shop.write("", "", false);
    canary.assert_open();
    let killed = shop.write("kill: { on: true, drain: 1s }", "", true);
    assert_after_drain(killed, canary.closed_at(), Duration::from_secs(1));
}

/// The drain of a rollback goes on when the next candidate is delivered already.
#[test]
fn what_ran_on_a_candidate_that_was_rolled_back_ends_also_beside_the_next_one() {
    let shop = Shop::new();
    let drain = Duration::from_secs(3);
    let plan = |candidate: &str| {
        let [v1, v2] = shop.upstreams.each_ref().map(Upstream::port);
        let rollout = format!("rollout: {{ candidate: {candidate}, steps: [{{ share: 50%, hold: 1h }}] }}");
        let rule = "rules:\n  - { name: forced, when: { header: x-version, equals: v2 }, version: v2 }";
        let service = Service::split(v1, 100, v2, 0).canary("v3", 0, &[v1]);
        Config::with(service.key(rule).key(&rollout))
            .top("kill: { drain: 3s }")
            .text()
    };
    shop.write_text(&plan("v2"), false);
    let mut canary = shop.tunnel(&[TO_CANARY]);
    let operator = Operator::of(&shop.gate);
    let rolled_back = Instant::now();
    operator.post("/v1/services/shop/rollout/rollback", "{}").expect_ok();
    shop.write_text(&plan("v3"), false);
    let now = operator.get("/v1/services/shop").expect_ok();
    assert_eq!(now["rollout"]["candidate"], "v3", "{now:#}");
    canary.assert_open();
    assert_after_drain(rolled_back, canary.closed_at(), drain);
}

#[test]
fn what_has_no_answer_yet_gets_a_503_of_ours() {
    let shop = Shop::new();
    let mut client = shop.gate.client();
    client.send("GET /silence HTTP/1.1\r\nhost: a\r\nx-version: v2\r\n\r\n");
    eventually(PATIENCE, "it is in flight", || shop.upstreams[1].count() == 1);
    shop.write("kill: { on: true, drain: 500ms }", "", true);
    let response = match client.read(false) {
        Ok(response) => response,
        Err(Broken::Closed | Broken::Cut(_) | Broken::Silent | Broken::Malformed(_)) => panic!("no answer"),
    };
    assert_eq!(response.status, 503);
    let next = client.get("/", &[TO_CANARY]);
    assert_eq!((next.status, next.served_by()), (200, "v1"), "the connection lives on");
    shop.assert_revoked("/silence");
}
