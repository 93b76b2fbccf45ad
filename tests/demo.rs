//! What a new user sees first: `rollgate demo`, in which a broken version is caught and reverted, and a good one delivered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use support::Port;

const PATIENCE: Duration = Duration::from_secs(60);

/// The demo at work; ended when dropped.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Demo {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rollgate"))
            .args(["demo", "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let seen = Vec::new();
        Self { child, lines, seen }
    }

    /// Reads on until a line that contains `wanted`.
    fn line(&mut self, wanted: &str) -> String {
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.seen.push(line.clone());
            if line.contains(wanted) {
                return line;
            }
        }
        panic!("`{wanted}` is not in {:#?}", self.seen);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The demo's own file, on these ports, with shorter holds.
fn config(directory: &Path, ports: &[Port; 4]) -> std::path::PathBuf {
    let mut text = include_str!("../config/demo.yaml").to_owned();
    for (known, port) in ["8080", "9900", "9001", "9002"].into_iter().zip(ports) {
        text = text.replace(&format!("127.0.0.1:{known}"), &format!("127.0.0.1:{}", port.number()));
    }
    // Latency is left out: a test shares its machine.
    let latency = text
        .lines()
        .find(|line| line.contains("latency_p99"))
        .unwrap()
        .to_owned();
    let text = text
        .replace(&latency, "")
        .replace("hold: 10s", "hold: 2s")
        .replace("hold: 20s", "hold: 2s");
    let path = directory.join("demo.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_broken_version_is_caught_and_reverted_and_a_mended_one_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let ports = [(); 4].map(|()| Port::reserved());
    let config = config(directory.path(), &ports);
    let mut demo = Demo::start(&config);
    demo.line("the rollout of v2 begins, 4 steps");
    demo.line("v2 gets 10 % (step 1 of 4)");
    demo.line("v2 gets 30 % (step 2 of 4)");
    let reverted = demo.line("is rolled back");
    assert!(
        demo.seen.iter().any(|line| line.contains("now has a bug")),
        "{:#?}",
        demo.seen
    );
    assert!(
        reverted.contains("v2 fails") && reverted.contains("against 0 %") && reverted.contains("evidence"),
        "{reverted}"
    );
    let told = demo.line("Caught and reverted");
    assert!(told.contains(", 0 of them errors"), "{told}");
    // As it says.
    let told = demo.line("rollout retry");
    let words: Vec<&str> = told.split_whitespace().collect();
    let retried = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(retried.status.success(), "{retried:?}");
    demo.line("v2 gets everything (step 4 of 4)");
    demo.line("v2 is delivered");
    // Each demo begins anew.
    drop(demo);
    Demo::start(&config).line("the rollout of v2 begins");
}
