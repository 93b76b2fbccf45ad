//! The command line as the tests use it, and what a proxy would answer.

use crate::fake::{Asked, Fake, Stream, json, problem};
use crate::support::{Exit, PATIENCE};
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// The binary in an empty directory, without a word of the environment that would lead it to a proxy.
pub fn rollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollgate"));
    command.args(arguments).stdin(Stdio::null());
    for name in ["ADMIN", "CONFIG", "TOKEN", "TOKEN_FILE"] {
        command.env_remove(format!("ROLLGATE_{name}"));
    }
    command
}

pub fn finished(output: Output) -> Exit {
    Exit {
        code: output.status.code(),
        signal: None,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn run(command: &mut Command) -> Exit {
    finished(command.output().unwrap())
}

/// The command, sent to `fake`.
pub fn ask(fake: &Fake, arguments: &[&str]) -> Exit {
    run(&mut rollgate(&[arguments, &["--admin", &fake.address]].concat()))
}

pub fn changed(message: &str) -> String {
    json(&json!({"generation": 8, "changed": true, "message": message, "durable": true}))
}

pub fn write(stream: &mut dyn Stream, text: impl AsRef<[u8]>) {
    // A peer that has left is no error here.
    let _ = stream.write_all(text.as_ref());
}

pub fn one_line_of_json(text: &str) -> Value {
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

pub fn service(name: &str) -> Value {
    json!({
        "name": name, "killed": false, "kill": null, "weights_source": "file", "epoch": 0, "rollout": null,
        "versions": [{
            "name": "v1", "role": "stable", "weight": 1, "share_target": 100.0, "share_observed": null, "rate": 0.0,
            "error_rate": null, "p50_ms": null, "p99_ms": null, "in_flight": 0, "requests_total": 0,
            "failures_total": 0, "endpoints": [{"endpoint": "127.0.0.1:1", "healthy": true, "in_flight": 0}],
        }],
    })
}

pub fn status(generation: u64) -> Value {
    json!({
        "version": "0.1.0", "pid": 1, "uptime_s": 1, "generation": generation, "ready": true, "draining": false,
        "kill": null, "services": [service("shop"), service("search")],
        "config": {"file": "rollgate.yaml", "hash": "", "last_reload_successful": true, "error": null,
                   "last_success": "2026-07-01T00:00:00.000Z", "restart_required": []},
        "state": {"directory": "state", "durable": true, "error": null},
    })
}

/// As the proxy would answer to questions about its state.
pub fn state(asked: &Asked, stream: &mut dyn Stream) {
    match asked.target.as_str() {
        "/v1/status" => write(stream, json(&status(7))),
        "/v1/services/shop" => write(stream, json(&service("shop"))),
        _ => write(
            stream,
            problem(404, "no service is called `shpo`", Some("did you mean `shop`?")),
        ),
    }
}

/// What cannot be reached: the exit code is 4, and the text has these words. The same as JSON.
pub fn unreachable(address: &str, arguments: &[&str], words: &[&str]) {
    let began = Instant::now();
    let exit = run(&mut rollgate(&[arguments, &["--admin", address]].concat()));
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(4), ""), "{}", exit.stderr);
    assert!(exit.stderr.starts_with("cannot reach the proxy: "), "{}", exit.stderr);
    for word in words {
        assert!(exit.stderr.contains(word), "{word}: {}", exit.stderr);
    }
    let exit = run(&mut rollgate(&[arguments, &["--json", "--admin", address]].concat()));
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(4), ""));
    assert_eq!(
        one_line_of_json(&exit.stdout)["type"],
        "urn:rollgate:problem:unreachable"
    );
    assert!(began.elapsed() < PATIENCE);
}
