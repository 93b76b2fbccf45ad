//! Starting and stopping: PROMISES 3.3, as far as this process alone goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::frames::{DATA, GET, GOAWAY, NO_ERROR, Outcome, PREFACE, RawClient, SETTINGS};
use support::{
    Authority, Client, Config, Dam, Gate, PATIENCE, SLACK, Service, Stop, Trust, Upstream, WEB_SOCKET, eventually,
    rollgate, signal,
};

/// PROMISES 3.3: how long after the last request a stopping process may still be there.
const EXIT_WITHIN: Duration = Duration::from_secs(1);

fn silent_upstream() -> Upstream {
    Upstream::with("v1", |exchange| exchange.stay_silent())
}

/// One request on a connection of its own.
fn ask(port: u16) -> Result<(), String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("connect: {error}"))?;
    match Client::over(stream).try_request("GET", "/", &[], b"") {
        Ok(response) if response.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn wait_until_it_drains(gate: &Gate) {
    eventually(PATIENCE, "/readyz says 503", || {
        gate.admin_get("/readyz").is_some_and(|response| response.status == 503)
    });
}

fn gate(upstream: &Upstream, limit: &str) -> Gate {
    Gate::start(&Config::with(Service::only(upstream.port())).limit(limit).text())
}

#[test]
fn it_stops_at_once_when_idle_with_code_0() {
    let upstream = Upstream::named("v1");
    for name in ["TERM", "INT"] {
        let mut gate = gate(&upstream, "drain_timeout: 30s");
        let mut idle = gate.client();
        assert_eq!(idle.get("/", &[]).status, 200);
        gate.signal(name);
        let start = Instant::now();
        let exit = gate.wait(PATIENCE);
        // An idle connection is no request in flight.
        assert!(start.elapsed() < EXIT_WITHIN + SLACK, "{:?}", start.elapsed());
        assert_eq!(exit.code, Some(0), "{name}: {exit:?}");
        assert!(idle.is_closed_within(PATIENCE));
    }
}

fn is_refused(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err()
}

#[test]
fn connections_on_which_nothing_is_ever_asked_hold_a_stop_up_for_a_moment_only() {
    let shop = Shop::new();
    let mut gate = shop.gate;
    let mut silent: Vec<Client> = (0..3).map(|listener| Client::connect(gate.port_of(listener))).collect();
    silent.push(Client::connect_tls(gate.port_of(TLS), &shop.trust, "shop.test"));
    let mut greeted = RawClient::greeted(gate.port());
    gate.expect_metric("rollgate_connections", &[], 5.0);
    gate.signal("TERM");
    let start = Instant::now();
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    // Far from the other limits: `drain_timeout` is 30 s, `header_timeout` 20 s.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    for client in &mut silent {
        assert!(client.is_closed_within(PATIENCE), "without a word");
    }
    assert_eq!(
        greeted.until("a farewell", |frame| frame.kind == GOAWAY).error(),
        NO_ERROR
    );
}

/// Behind three listeners: the first one is plain, of HTTP/1.1 and HTTP/2.
struct Shop {
    gate: Gate,
    trust: Trust,
    _upstream: Upstream,
    _files: tempfile::TempDir,
}

const TLS: usize = 1;
const PROXY: usize = 2;

impl Shop {
    fn new() -> Self {
        let authority = Authority::new("tests");
        let files = tempfile::tempdir().unwrap();
        let line = authority.server(&["shop.test"]).write(files.path(), "shop");
        let upstream = Upstream::named("v1");
        let config = Config::with(Service::only(upstream.port()))
            .and_listener(&format!("tls: {{ certificates: [{line}] }}"))
            .and_listener("proxy_protocol: true")
            .limit("header_timeout: 20s");
        Self {
            gate: Gate::start(&config.text()),
            trust: Trust::new(&authority),
            _upstream: upstream,
            _files: files,
        }
    }
}

/// Whether the first request of a connection was answered, with the word that it was the last.
type Ask = Box<dyn FnOnce() -> bool>;

fn is_answered(mut client: Client) -> bool {
    let answer = client.try_request("GET", "/", &[], b"");
    answer.is_ok_and(|response| response.status == 200 && response.closes())
}

/// Settings have been exchanged: whoever is told meanwhile that the connection ends has no request on it.
fn ask_greeted(mut client: RawClient) -> bool {
    client.set_patience(Duration::from_millis(20));
    while let Ok(Some(frame)) = client.try_read() {
        if frame.kind == GOAWAY {
            return false;
        }
    }
    ask_http2(client)
}

fn ask_http2(mut client: RawClient) -> bool {
    client.request(1, &GET).set_patience(PATIENCE);
    while let Ok(Some(frame)) = client.try_read() {
        if frame.kind == GOAWAY {
            return frame.error() == NO_ERROR && matches!(client.outcome(1, PATIENCE), Outcome::Answer(200, _));
        }
    }
    false
}

/// Connections that are there when the process stops, before their first request.
fn first_requests(shop: &Shop) -> Vec<(&'static str, Ask)> {
    let [plain, tls, proxied] = [0, TLS, PROXY].map(|listener| Client::connect(shop.gate.port_of(listener)));
    let shaken = Client::connect_tls(shop.gate.port_of(TLS), &shop.trust, "shop.test");
    let (mut fresh, greeted) = (
        RawClient::connect(shop.gate.port()),
        RawClient::greeted(shop.gate.port()),
    );
    shop.gate.expect_metric("rollgate_connections", &[], 6.0);
    let trust = shop.trust.clone();
    vec![
        ("plain", Box::new(|| is_answered(plain))),
        (
            "before the handshake",
            Box::new(move || tls.upgrade(&trust, "shop.test").is_ok_and(is_answered)),
        ),
        ("after the handshake", Box::new(|| is_answered(shaken))),
        (
            "before the PROXY header",
            Box::new(|| {
                let mut client = proxied;
                client.send("PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n");
                is_answered(client)
            }),
        ),
        (
            "before the preface",
            Box::new(move || {
                fresh.send_bytes(PREFACE).send(SETTINGS, 0, 0, "");
                ask_http2(fresh)
            }),
        ),
        ("after the preface", Box::new(|| ask_greeted(greeted))),
    ]
}

/// They are given 0.7 s: what took longer has shown nothing, and is tried again, earlier.
#[test]
fn first_requests_that_are_on_their_way_are_answered() {
    let mut checked = HashSet::new();
    for turn in 0..60 {
        let mut shop = Shop::new();
        let mut requests = first_requests(&shop);
        let kinds = requests.len();
        requests.rotate_left(turn % kinds);
        let start = Instant::now();
        shop.gate.signal("TERM");
        eventually(PATIENCE, "the listener closes", || is_refused(shop.gate.port()));
        std::thread::sleep(Duration::from_millis(50));
        for (which, ask) in requests {
            let answered = ask();
            if start.elapsed() < Duration::from_millis(600) {
                assert!(answered, "{which}");
                checked.insert(which);
            }
        }
        assert_eq!(shop.gate.wait(PATIENCE).code, Some(0));
        if checked.len() == kinds {
            return;
        }
    }
    panic!("the machine was too slow, sixty times: only {checked:?}");
}

#[test]
fn requests_in_flight_finish_and_are_told_to_close() {
    let dam = Dam::default();
    let upstream = dam.upstream("v1");
    let mut gate = gate(&upstream, "drain_timeout: 30s");
    let mut clients: Vec<Client> = (0..5).map(|_| gate.client()).collect();
    for client in &mut clients {
        client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    eventually(PATIENCE, "all are in flight", || upstream.count() == 5);
    gate.signal("TERM");
    wait_until_it_drains(&gate);
    dam.open();
    for client in &mut clients {
        let response = client.read(false).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert_eq!(
            response.header("connection").map(str::to_ascii_lowercase).as_deref(),
            Some("close")
        );
        assert!(client.is_closed_within(PATIENCE));
    }
    let last = Instant::now();
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    assert!(
        last.elapsed() < EXIT_WITHIN + SLACK,
        "{:?} after the last request",
        last.elapsed()
    );
}

#[test]
fn readiness_goes_first_and_new_requests_are_served_until_the_delay_is_over() {
    let upstream = Upstream::named("v1");
    let delay = Duration::from_secs(4);
    let mut gate = gate(&upstream, "drain_delay: 4s");
    let signalled = Instant::now();
    gate.signal("TERM");
    wait_until_it_drains(&gate);
    assert_eq!(gate.admin_get("/livez").unwrap().status, 200);
    let mut served = 0;
    let refusal = loop {
        match ask(gate.port()) {
            Ok(()) => served += 1,
            Err(refusal) => break refusal,
        }
    };
    let after = signalled.elapsed();
    assert!(after >= delay, "{refusal} {after:?} after the signal");
    assert!(served > 0, "nobody was served after /readyz");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
}

#[test]
fn no_request_is_lost_over_a_stop_under_load() {
    let upstream = Upstream::named("v1");
    let delay = Duration::from_secs(4);
    let mut gate = gate(&upstream, "drain_delay: 4s");
    let port = gate.port();
    let (stop, served, signalled) = (AtomicBool::new(false), AtomicUsize::new(0), OnceLock::new());
    let is_over = || signalled.get().is_some_and(|at: &Instant| at.elapsed() >= delay);
    let exchange = |client: &mut Option<Client>| {
        let mut kept = match client.take() {
            Some(kept) => kept,
            None => Client::over(TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?),
        };
        match kept.try_request("GET", "/", &[], b"") {
            Ok(response) if response.status == 200 => *client = (!response.closes()).then_some(kept),
            other => return Err(format!("{other:?}")),
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = None;
                while !stop.load(Ordering::SeqCst) {
                    if let Err(why) = exchange(&mut client) {
                        // Beyond the delay nothing is promised.
                        assert!(
                            is_over(),
                            "{why}, {:?} after the signal",
                            signalled.get().map(Instant::elapsed)
                        );
                        return;
                    }
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _stop = Stop(&stop);
        let some_more = || {
            let before = served.load(Ordering::SeqCst);
            eventually(PATIENCE, "there is load", || {
                served.load(Ordering::SeqCst) > before + 40 || is_over()
            });
        };
        some_more();
        signalled.set(Instant::now()).unwrap();
        gate.signal("TERM");
        wait_until_it_drains(&gate);
        some_more();
    });
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
}

#[test]
fn the_drain_timeout_ends_what_does_not_end() {
    let upstream = silent_upstream();
    let mut gate = gate(&upstream, "drain_timeout: 1s");
    let mut client = gate.client();
    client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually(PATIENCE, "in flight", || upstream.count() == 1);
    let start = Instant::now();
    gate.signal("TERM");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    assert!(
        start.elapsed() < Duration::from_secs(3) + SLACK,
        "{:?}",
        start.elapsed()
    );
    let answer = client.read(false).unwrap();
    assert_eq!((answer.status, answer.closes()), (503, true), "it was told");
    let line = gate.access_line("the request", |line| line["status"] == 503);
    assert_eq!(line["termination"], "drain");
}

/// A process that gives nobody any time cuts at once: its log says even so what each client has got.
#[test]
fn what_a_stop_cuts_is_logged_with_what_its_client_has_got() {
    const EVENT: &str = "data: tick\n\n";
    let upstream = Upstream::with("v1", |exchange| {
        if exchange.request.target == "/silence" {
            return exchange.stay_silent();
        }
        exchange.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        exchange.send(format!("{:x}\r\n{EVENT}\r\n", EVENT.len()));
        exchange.stay_silent()
    });
    let mut gate = gate(&upstream, "drain_timeout: 0s");
    let (mut one, mut silent, mut other) = (gate.client(), gate.client(), RawClient::greeted(gate.port()));
    one.send("GET /one HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(one.read_head().unwrap().status, 200);
    one.read_bytes(EVENT.len());
    other.request(
        1,
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/other"),
        ],
    );
    other.until("an event", |frame| frame.kind == DATA);
    silent.send("GET /silence HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually(PATIENCE, "all are in flight", || upstream.count() == 3);
    gate.signal("TERM");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    let line = |path: &str| gate.access_line(path, |line| line["path"] == path && line["termination"] == "drain");
    for path in ["/one", "/other"] {
        let line = line(path);
        assert_eq!(line["status"], 200, "{line}");
        assert!(line["response_bytes"].as_u64().unwrap() >= EVENT.len() as u64, "{line}");
        assert!(line["upstream_ms"].is_number(), "{line}");
    }
    assert_eq!(line("/silence")["status"], 503, "its client had not left");
}

#[test]
fn a_second_signal_stops_at_once() {
    let upstream = silent_upstream();
    let mut gate = gate(&upstream, "drain_timeout: 30s");
    let mut client = gate.client();
    client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually(PATIENCE, "in flight", || upstream.count() == 1);
    gate.signal("TERM");
    wait_until_it_drains(&gate);
    std::thread::sleep(Duration::from_millis(200));
    assert!(gate.is_running(), "a request is in flight");
    gate.signal("TERM");
    let start = Instant::now();
    gate.wait(PATIENCE);
    assert!(start.elapsed() < EXIT_WITHIN + SLACK, "{:?}", start.elapsed());
}

#[test]
fn an_address_in_use_is_a_clear_error_and_code_1() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let config = Config::with(Service::only(1)).text();
    for (what, at) in [("listener", 0), ("admin", 1)] {
        let mut parts: Vec<&str> = config.splitn(3, "127.0.0.1:0").collect();
        let rest = parts.split_off(2).concat();
        let addresses = if at == 0 {
            [address.as_str(), "127.0.0.1:0"]
        } else {
            ["127.0.0.1:0", address.as_str()]
        };
        let text = format!("{}{}{}{}{rest}", parts[0], addresses[0], parts[1], addresses[1]);
        let exit = Gate::try_start(&text)
            .err()
            .unwrap_or_else(|| panic!("{what}: it started"));
        assert_eq!(exit.code, Some(1), "{what}: {exit:?}");
        assert!(
            exit.stderr.contains(&address) && exit.stderr.contains("in use"),
            "{what}: {}",
            exit.stderr
        );
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    }
}

#[test]
fn a_bad_or_missing_file_is_every_problem_and_code_1() {
    let bad = Config::with(Service::only(1))
        .text()
        .replace("weight: 100", "weigth: 100")
        .replace("role: stable", "role: boss");
    let exit = Gate::try_start(&bad).err().unwrap();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(
        exit.stderr.contains("weigth") && exit.stderr.contains("role"),
        "{}",
        exit.stderr
    );
    for text in ["", "\0\u{1}", "- a\n- b\n", "listeners: []\nservices: []\n"] {
        let exit = Gate::try_start(text)
            .err()
            .unwrap_or_else(|| panic!("{text:?} started"));
        assert_eq!(exit.code, Some(1), "{text:?}: {exit:?}");
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    }
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.yaml");
    let exit = rollgate(&["run", "--config", missing.to_str().unwrap()]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("missing.yaml"), "{}", exit.stderr);
}

#[test]
fn check_agrees_with_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rollgate.yaml");
    let good = Config::with(Service::split(1, 95, 2, 5)).text();
    fs::write(&path, &good).unwrap();
    let exit = rollgate(&["check", path.to_str().unwrap()]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    fs::write(
        &path,
        good.replace("weight: 95", "weight: -95").replace("canary", "canry"),
    )
    .unwrap();
    let exit = rollgate(&["check", path.to_str().unwrap()]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let said = exit.stdout + &exit.stderr;
    for part in [
        "services[0].versions[0].weight",
        "services[0].versions[1].role",
        "canary",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    assert_eq!(rollgate(&["no-such-command"]).code, Some(2));
    assert_eq!(rollgate(&["check", "/no/such/file"]).code, Some(1));
}

#[test]
fn a_kill_leaves_nothing_that_hinders_the_next_start() {
    let upstream = Upstream::named("v1");
    let directory = tempfile::tempdir().unwrap();
    let config = Config::with(Service::only(upstream.port()))
        .top(&format!("state_dir: {}", directory.path().join("state").display()))
        .text();
    for _ in 0..3 {
        let mut gate = Gate::start(&config);
        assert_eq!(gate.get("/", &[]).status, 200);
        gate.signal("KILL");
        assert_eq!(gate.wait(PATIENCE).signal, Some(9));
    }
}

#[test]
fn a_tunnel_does_not_hold_up_a_stop_for_longer_than_the_drain_timeout() {
    let upstream = Upstream::with("v1", |exchange| {
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        exchange.stay_silent()
    });
    let mut gate = gate(&upstream, "drain_timeout: 1s");
    let mut client = gate.client();
    assert_eq!(client.get("/", &WEB_SOCKET).status, 101);
    gate.signal("TERM");
    let start = Instant::now();
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(3) + SLACK,
        "{:?}",
        start.elapsed()
    );
}

/// Whether the process catches SIGHUP.
fn catches_hangup(pid: u32) -> bool {
    signals(pid, "SigCgt:").is_some_and(|caught| caught & 1 == 1)
}

/// A mask of signals in the status of a process.
fn signals(pid: u32, which: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix(which))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Whether no signal is on its way to the process, and all its threads sleep: what has come is heard.
fn has_heard(pid: u32) -> bool {
    let sleeps = |task: PathBuf| {
        let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('S'))
    };
    let tasks = || fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    signals(pid, "ShdPnd:") == Some(0) && tasks().all(|task| sleeps(task.unwrap().path()))
}

#[test]
fn signals_count_from_before_the_file_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rollgate.yaml");
    // A process that takes over first asks the one before for its sockets, and waits until it has them.
    let (mut before, link) = UnixStream::pair().unwrap();
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_rollgate"))
        .args(["run", "--config"])
        .arg(&path)
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .env("ROLLGATE_SUCCESSOR", "1")
        .stdin(OwnedFd::from(link))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    eventually(PATIENCE, "SIGHUP is caught", || catches_hangup(pid));
    signal(pid, "HUP");
    signal(pid, "TERM");
    eventually(PATIENCE, "both are heard", || has_heard(pid));
    fs::write(&path, Config::with(Service::only(1)).text()).unwrap();
    before
        .write_all(b"{\"hello\":{\"protocol\":1}}\n\"offered\"\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{:?}: {log}", output.status);
    assert!(
        log.contains("asked to stop before anything was served") && !log.contains("listening"),
        "{log}"
    );
}
