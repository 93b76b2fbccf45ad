//! Binary upgrade: PROMISES 3.3. Another process takes over under load, and one that cannot changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Client, Config, Gate, PATIENCE, Service, Then, Upstream, Write, eventually, lives, signal};

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
    failed: std::sync::Mutex<Vec<String>>,
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
        let mut pids = vec![gate.pid()];
        for _ in 0..UPGRADES {
            pids.push(upgrade(&gate));
            std::thread::sleep(Duration::from_millis(100));
        }
        for seen in [&fresh_seen, &kept_seen, &ready_seen] {
            seen.stop.store(true, Ordering::Relaxed);
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
