//! Binary upgrade: PROMISES 3.3. Another process takes over under load, and one that cannot changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use support::{
    Client, Config, Gate, PATIENCE, Port, Service, Stop, Upstream, WEB_SOCKET, Write, eventually, lives, signal,
};

const FAILED: &str = "upgrade: failed, this process goes on serving";

fn config(upstream: &Upstream) -> Config {
    Config::with(Service::only(upstream.port()))
}

/// Asks the serving process for an upgrade and waits until another one serves.
fn upgrade(gate: &Gate) -> u32 {
    let before = gate.successors().len();
    signal(gate.serving(), "USR2");
    eventually(PATIENCE, "another process serves", || gate.successors().len() > before);
    gate.serving()
}

/// Asks for an upgrade that cannot be; returns the reasons logged.
fn refused(gate: &Gate) -> String {
    let lines = |gate: &Gate| -> Vec<String> {
        let log = gate.log();
        let lines = log.lines().filter(|line| line.contains(FAILED));
        lines.map(str::to_owned).collect()
    };
    let before = lines(gate).len();
    let failures = gate.metric("rollgate_upgrades_failed_total", &[]);
    signal(gate.serving(), "USR2");
    gate.expect_metric("rollgate_upgrades_failed_total", &[], failures + 1.0);
    eventually(PATIENCE, "the reason is logged", || lines(gate).len() > before);
    lines(gate)[before..].join("\n")
}

/// What the link `rollgate` names from now on.
fn turn_link(gate: &Gate, to: &str) {
    gate.relink(to.as_ref(), &gate.directory().join("rollgate"));
}

/// A program that is no rollgate: a script, which writes its process id into a file first.
fn turn_link_to_script(gate: &Gate, script: &str) {
    let path = gate.directory().join("script");
    let pid = gate.directory().join("script.pid");
    fs::write(&path, format!("#!/bin/sh\necho $$ > {}\n{script}\n", pid.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    turn_link(gate, path.to_str().unwrap());
}

fn script_pid(gate: &Gate) -> Option<u32> {
    fs::read_to_string(gate.directory().join("script.pid"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    served: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Seen {
    /// Runs `exchange` over and over; its errors are failures.
    fn load(&self, exchange: impl Fn() -> Result<(), String>) {
        while !self.stop.load(Ordering::Relaxed) {
            match exchange() {
                Ok(()) => _ = self.served.fetch_add(1, Ordering::Relaxed),
                Err(why) => self.failed.lock().unwrap().push(why),
            }
        }
    }
}

/// One request on a connection of its own. `connect` that is refused or reset is an error like every other.
fn fresh(port: u16, method: &str, body: &[u8]) -> Result<(), String> {
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("connect: {error}"))?;
    let mut client = Client::over(stream);
    let close = [("connection", "close")];
    match client.try_request(method, "/", &close, body) {
        Ok(response) if response.status == 200 => Ok(()),
        Ok(response) => Err(format!("status {}", response.status)),
        Err(broken) => Err(format!("{broken:?}")),
    }
}

#[test]
fn ten_upgrades_under_load_refuse_reset_and_fail_nothing() {
    const UPGRADES: usize = 10;
    let upstream = Upstream::with("v1", |exchange| {
        exchange.read_body();
        exchange.answer(200, &[], b"done")
    });
    let mut gate = Gate::start(&config(&upstream).text());
    let (port, admin) = (gate.port(), gate.admin_port());
    let (fresh_seen, kept_seen, ready_seen) = (Seen::default(), Seen::default(), Seen::default());
    let began = Instant::now();
    let pids = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fresh_seen.load(|| fresh(port, "GET", b"")));
        }
        scope.spawn(|| fresh_seen.load(|| fresh(port, "POST", &[b'x'; 4096])));
        for _ in 0..2 {
            scope.spawn(|| {
                let client = std::cell::RefCell::new(Client::connect(port));
                kept_seen.load(|| {
                    let mut client = client.borrow_mut();
                    let response = client.try_request("GET", "/", &[], b"");
                    let response = response.map_err(|broken| format!("{broken:?}"))?;
                    if response.closes() {
                        *client = Client::connect(port);
                    }
                    std::thread::sleep(Duration::from_millis(3));
                    (response.status == 200)
                        .then_some(())
                        .ok_or(format!("{}", response.status))
                });
            });
        }
        scope.spawn(|| {
            ready_seen.load(|| {
                std::thread::sleep(Duration::from_millis(5));
                let mut client = Client::connect(admin);
                match client.try_request("GET", "/readyz", &[("connection", "close")], b"") {
                    Ok(response) if response.status == 200 => Ok(()),
                    other => Err(format!("/readyz: {other:?}")),
                }
            });
        });
        let all = [&fresh_seen, &kept_seen, &ready_seen];
        // Also when this thread panics: the others must end.
        let _stop = all.map(|seen| Stop(&seen.stop));
        let mut pids = vec![gate.pid()];
        for _ in 0..UPGRADES {
            pids.push(upgrade(&gate));
            for seen in all {
                let before = seen.served.load(Ordering::Relaxed);
                eventually(PATIENCE, "there is load", || {
                    seen.served.load(Ordering::Relaxed) > before + 10
                });
            }
        }
        pids
    });
    let rate = fresh_seen.served.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} new connections a second over {UPGRADES} upgrades");
    for seen in [&fresh_seen, &kept_seen, &ready_seen] {
        assert!(seen.served.load(Ordering::Relaxed) > 100);
        assert_eq!(*seen.failed.lock().unwrap(), Vec::<String>::new());
    }
    let distinct: std::collections::HashSet<u32> = pids.iter().copied().collect();
    assert_eq!(distinct.len(), UPGRADES + 1);
    // Idle connections of clients that have gone hold nothing up.
    let (last, before) = pids.split_last().unwrap();
    eventually(PATIENCE, "all but the last one have ended", || {
        !before[1..].iter().any(|pid| lives(*pid))
    });
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    assert!(lives(*last));
    assert_eq!(gate.get("/", &[]).status, 200);
    assert!(
        !gate.log().contains("panicked") && !gate.log().contains("ERROR"),
        "{}",
        gate.log()
    );
}

#[test]
fn kept_alive_connections_requests_in_flight_and_tunnels_are_served_to_their_end() {
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let upstream = Upstream::with("v1", move |exchange| match exchange.request.target.as_str() {
        "/slow" => {
            released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            exchange.answer(200, &[], b"slow")
        }
        "/tunnel" => exchange.echo_web_socket(""),
        _ => exchange.answer(200, &[], b"done"),
    });
    let mut gate = Gate::start(&config(&upstream).limit("drain_timeout: 7s").text());
    let (mut idle, mut forgotten, mut slow, mut tunnel) = (gate.client(), gate.client(), gate.client(), gate.client());
    for client in [&mut idle, &mut forgotten] {
        assert!(!client.get("/", &[]).closes());
    }
    assert_eq!(tunnel.get("/tunnel", &WEB_SOCKET).status, 101);
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually(PATIENCE, "all are in flight", || upstream.count() == 4);
    let handed_over = Instant::now();
    upgrade(&gate);
    // It drains from a moment on after it has said that another process serves.
    let mut asked = 2;
    eventually(PATIENCE, "the next one goes to the new process", || {
        let last = idle.get("/", &[]);
        assert_eq!(last.status, 200);
        asked += 1;
        last.closes()
    });
    assert!(idle.is_closed_within(PATIENCE));
    assert_eq!(gate.get("/", &[]).status, 200);
    asked += 1;
    release.send(()).unwrap();
    let answer = slow.read(false).unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.closes()),
        (200, "slow", true)
    );
    tunnel.send("x");
    assert_eq!(tunnel.read_bytes(1), b"x");
    // Nobody is cut who might be sending its next request.
    assert!(forgotten.is_closed_within(PATIENCE));
    assert!(handed_over.elapsed() > Duration::from_secs(4));
    assert!(tunnel.is_closed_within(PATIENCE), "after the drain timeout");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    assert!(
        handed_over.elapsed() > Duration::from_millis(5900),
        "{:?}",
        handed_over.elapsed()
    );
    gate.access_line("the tunnel's line", |line| {
        line["path"] == "/tunnel" && line["termination"] == "drain"
    });
    let lines = gate.access_log_lines();
    assert_eq!(
        lines.iter().filter(|line| line["path"] == "/").count(),
        asked,
        "no line is lost: {lines:?}"
    );
}

#[test]
fn however_short_the_drain_after_an_upgrade_is_tunnels_are_told_before_its_end() {
    let upstream = Upstream::with("v1", |exchange| exchange.echo_web_socket(""));
    let gate = Gate::start(&config(&upstream).limit("drain_timeout: 2s").text());
    let mut tunnels: Vec<_> = (0..50).map(|_| gate.client()).collect();
    for tunnel in &mut tunnels {
        assert_eq!(tunnel.get("/", &WEB_SOCKET).status, 101);
    }
    upgrade(&gate);
    for tunnel in &mut tunnels {
        // A close frame: 1001, going away.
        assert_eq!(tunnel.read_bytes(4), [0x88, 2, 3, 0xe9]);
    }
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_is_named() {
    let upstream = Upstream::named("v1");
    let gate = Gate::start(&config(&upstream).text());
    let text = config(&upstream).text();
    gate.write_config(&text.replace("weight: 100", "weigth: 100"), Write::Rename);
    let reason = refused(&gate);
    assert!(
        reason.contains("rollgate.yaml:") && reason.contains("weigth") && reason.contains("did you mean"),
        "{reason}"
    );
    assert_eq!(gate.get("/", &[]).status, 200);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    gate.write_config(&text.replacen("127.0.0.1:0", &address, 1), Write::Rename);
    let reason = refused(&gate);
    assert!(reason.contains(&format!("cannot listen on {address}")), "{reason}");
    assert_eq!(gate.get("/", &[]).status, 200);
    gate.write_config(&text, Write::Rename);
    upgrade(&gate);
    assert_eq!(gate.get("/", &[]).status, 200);
}

#[test]
fn a_program_that_is_missing_crashes_or_hangs_changes_nothing() {
    let upstream = Upstream::named("v1");
    let config = config(&upstream);
    let gate = Gate::start_by_link(&config.text(), &[]);
    let program = gate.directory().join("rollgate");
    turn_link(&gate, "/nowhere/rollgate");
    let reason = refused(&gate);
    assert!(
        reason.contains(&format!("{} cannot be started: No such file", program.display())),
        "{reason}"
    );
    for (script, expected) in [
        ("exit 3", "ended before it was ready (exit status: 3)"),
        ("kill -SEGV $$", "ended before it was ready (signal: 11"),
        ("exec 0<&-; exec sleep 100", "ended before it was ready (signal: 9"),
        ("cat /dev/zero >&0", "more than 65536 bytes"),
        (
            "echo '\"ready\"' >&0; sleep 0.2",
            "ended before it was serving (exit status: 0)",
        ),
    ] {
        turn_link_to_script(&gate, script);
        let reason = refused(&gate);
        assert!(reason.contains(expected), "{script}: {reason}");
        let pid = script_pid(&gate).unwrap();
        eventually(PATIENCE, "it has ended", || !lives(pid));
        assert_eq!(gate.get("/", &[]).status, 200, "after {script}");
        assert!(gate.is_ready());
    }
    let take_up_to = |text: &str| {
        let generation = gate.metric("rollgate_config_generation", &[]);
        gate.write_config(text, Write::Rename);
        eventually(PATIENCE, "the file is in force", || {
            gate.metric("rollgate_config_generation", &[]) > generation
        });
    };
    take_up_to(&config.clone().limit("upgrade_timeout: 1s").text());
    turn_link_to_script(&gate, "exec sleep 100");
    let reason = refused(&gate);
    assert!(reason.contains("was not ready within 1 s"), "{reason}");
    assert_eq!(gate.get("/", &[]).status, 200, "after one that hangs");
    take_up_to(&config.text());
    assert!(gate.successors().is_empty());
    turn_link(&gate, env!("CARGO_BIN_EXE_rollgate"));
    let pid = upgrade(&gate);
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(
        command.starts_with(program.to_str().unwrap()),
        "by the path it was started with: {command:?}"
    );
    assert_eq!(gate.get("/", &[]).status, 200);
}

#[test]
fn addresses_and_threads_of_the_file_hold_after_an_upgrade() {
    let (upstream, reserved) = (Upstream::named("v1"), [(); 3].map(|()| Port::reserved()));
    let [stays, goes, comes] = reserved.each_ref().map(Port::number);
    let text = |ports: [u16; 2], threads: u16| {
        let listeners = format!(
            "- address: 127.0.0.1:{}\n  - address: 127.0.0.1:{}\n",
            ports[0], ports[1]
        );
        let config = config(&upstream).top(&format!("threads: {threads}")).text();
        config.replacen("- address: 127.0.0.1:0\n", &listeners, 1)
    };
    let mut gate = Gate::start(&text([stays, goes], 1));
    let get = |port| Client::connect(port).get("/", &[]).status;
    assert_eq!((get(stays), get(goes)), (200, 200));
    gate.write_config(&text([comes, stays], 3), Write::Rename);
    eventually(PATIENCE, "the reload says what it cannot do", || {
        gate.log().contains("takes effect after a restart")
    });
    let pid = upgrade(&gate);
    assert_eq!((get(stays), get(comes)), (200, 200));
    eventually(PATIENCE, "what has gone from the file is refused", || {
        std::net::TcpStream::connect(("127.0.0.1", goes)).is_err()
    });
    let workers = fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter(|task| {
        let name = task.as_ref().unwrap().path().join("comm");
        fs::read_to_string(name).unwrap_or_default().starts_with("worker-")
    });
    assert_eq!(workers.count(), 3);
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    assert_eq!(
        (get(stays), get(comes)),
        (200, 200),
        "the sockets are the new process's own"
    );
}

#[test]
fn a_stop_during_an_upgrade_ends_both_and_none_begins_while_draining() {
    let upstream = Upstream::named("v1");
    let mut gate = Gate::start_by_link(&config(&upstream).limit("drain_delay: 10s").text(), &[]);
    turn_link_to_script(&gate, "exec sleep 100");
    gate.signal("USR2");
    eventually(PATIENCE, "it has been started", || script_pid(&gate).is_some());
    gate.signal("USR2");
    eventually(PATIENCE, "a second one is refused", || {
        gate.log().contains("under way already")
    });
    gate.signal("TERM");
    eventually(PATIENCE, "the upgrade is off", || {
        gate.log().contains("asked to stop meanwhile")
    });
    eventually(PATIENCE, "it drains", || {
        gate.admin_get("/readyz").is_some_and(|ready| ready.status == 503)
    });
    assert!(!lives(script_pid(&gate).unwrap()));
    gate.signal("USR2");
    eventually(PATIENCE, "refused while it drains", || {
        gate.log().contains("this process is stopping")
    });
    assert_eq!(gate.get("/", &[]).status, 200, "as long as the delay says");
    // Not as long as that: asked twice.
    gate.signal("TERM");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
}

#[test]
fn a_stop_of_a_process_that_has_handed_over_closes_what_is_idle() {
    let upstream = Upstream::named("v1");
    let mut gate = Gate::start(&config(&upstream).text());
    let mut idle = gate.client();
    assert_eq!(idle.get("/", &[]).status, 200);
    let pid = upgrade(&gate);
    assert!(!idle.is_closed_within(Duration::from_millis(500)));
    gate.signal("TERM");
    let stopped = Instant::now();
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    // Idle connections have 5 s otherwise, of which half a second has passed.
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
    assert!(idle.is_closed_within(PATIENCE));
    assert!(lives(pid));
    assert_eq!(gate.get("/", &[]).status, 200);
}

#[test]
fn systemd_is_told_who_the_service_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let state = || {
        let mut bytes = [0; 256];
        let count = manager.recv(&mut bytes).expect("a notification");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let upstream = Upstream::named("v1");
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let gate = Gate::start_by_link(&config(&upstream).text(), &variables);
    assert_eq!(state(), "READY=1");
    let asked = Instant::now();
    gate.signal("USR2");
    let main = state();
    let pid = main.strip_prefix("MAINPID=").and_then(|pid| pid.parse().ok());
    // For 2 s at most, which this thread may have slept through.
    let goes_on = gate.successors().is_empty();
    assert!(
        goes_on || asked.elapsed() > Duration::from_secs(2),
        "the old one stays until that is heard"
    );
    assert_eq!(state(), "BARRIER=1");
    eventually(PATIENCE, "another process serves", || !gate.successors().is_empty());
    assert_eq!(pid, Some(gate.serving()), "{main}");
    let pid = gate.serving();
    signal(pid, "TERM");
    assert_eq!(state(), "STOPPING=1", "and nothing of the one that handed over");
    eventually(PATIENCE, "it has ended", || !lives(pid));
}

#[test]
fn metrics_begin_anew_with_the_new_process() {
    let upstream = Upstream::named("v1");
    let gate = Gate::start(&config(&upstream).text());
    for _ in 0..5 {
        gate.get("/", &[]);
    }
    gate.expect_metric("rollgate_requests_total", &[("service", "shop")], 5.0);
    upgrade(&gate);
    gate.expect_metric("rollgate_requests_total", &[("service", "shop")], 0.0);
}

/// The other end of a successor's link.
struct Predecessor(BufReader<UnixStream>);

impl Predecessor {
    fn new() -> (Self, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        (Self(BufReader::new(ours)), theirs.into())
    }

    fn says(&mut self, messages: &[&str]) {
        for message in messages {
            writeln!(self.0.get_mut(), "{message}").unwrap();
        }
    }

    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

#[test]
fn a_successor_serves_when_told_to_and_at_once_when_the_one_before_dies() {
    let upstream = Upstream::named("v1");
    for dies in [false, true] {
        let (mut predecessor, link) = Predecessor::new();
        let before = std::thread::spawn(move || {
            predecessor.says(&["{\"hello\":{\"protocol\":1}}", "\"offered\""]);
            assert_eq!(predecessor.hears(), "\"ready\"");
            std::thread::sleep(Duration::from_millis(300));
            let told = Instant::now();
            if !dies {
                predecessor.says(&["{\"go\":{\"lock\":false}}"]);
                assert_eq!(predecessor.hears(), "\"serving\"");
            }
            told
        });
        let gate = Gate::start_successor(&config(&upstream).text(), link).unwrap();
        let ready = Instant::now();
        assert!(ready > before.join().unwrap(), "nothing answers before");
        assert_eq!(gate.get("/", &[]).status, 200);
        assert_eq!(gate.log().contains("ended without a word"), dies, "{}", gate.log());
    }
}

#[test]
fn a_successor_says_why_it_does_not_serve() {
    let upstream = Upstream::named("v1");
    let good = config(&upstream).text();
    let bad = good.replace("weight: 100", "weight: -1");
    for (text, hello, expected) in [
        (&good, "{\"hello\":{\"protocol\":99}}", "hands over by protocol 99"),
        (&good, "\"serving\"", "it began with Serving"),
        (&bad, "{\"hello\":{\"protocol\":1}}", "services[0].versions[0].weight"),
    ] {
        let (mut predecessor, link) = Predecessor::new();
        predecessor.says(&[hello, "\"offered\""]);
        let exit = Gate::start_successor(text, link).err().unwrap();
        assert_eq!(exit.code, Some(1), "{exit:?}");
        let said = predecessor.hears();
        assert!(said.starts_with("{\"failed\":") && said.contains(expected), "{said}");
        assert!(exit.stderr.contains(expected), "{}", exit.stderr);
    }
    let exit = Gate::start_successor(&good, Stdio::null()).err().unwrap();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(
        exit.stderr.contains("ROLLGATE_SUCCESSOR is set") && exit.stderr.contains("unset it"),
        "{}",
        exit.stderr
    );
}
