//! The API does what its document says, and nothing makes it fail: schemathesis makes up requests from `/openapi.json`,
//! right ones and wrong ones, and judges the answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{ApiSite, Config, Gate, Service, Upstream, python_file, python_program};

/// Requests made up for each operation, beside those for each parameter.
const EXAMPLES: &str = "40";
const SEED: &str = "20261121";
/// It takes about half a minute, and some on a busy machine.
const WITHIN: Duration = Duration::from_secs(900);

fn run(gate: &Gate) -> Output {
    let work = tempfile::tempdir().unwrap();
    let out = fs::File::create(work.path().join("out")).unwrap();
    let mut child = Command::new(python_program("schemathesis", "schemathesis"))
        .arg("--config-file")
        .arg(python_file("schemathesis", "schemathesis.toml"))
        .arg("run")
        .arg(format!("http://127.0.0.1:{}/openapi.json", gate.admin_port()))
        .args(["--header", support::authorization().trim_end()])
        .args(["--checks", "all", "--max-examples", EXAMPLES, "--seed", SEED])
        .args([
            "--request-timeout",
            "20",
            "--suppress-health-check",
            "all",
            "--warnings",
            "off",
        ])
        .current_dir(work.path())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .expect("start schemathesis");
    let deadline = Instant::now() + WITHIN;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    Output {
        status,
        stdout: fs::read(work.path().join("out")).unwrap(),
        stderr: Vec::new(),
    }
}

/// How many operations the document has.
fn operations() -> usize {
    let document: serde_json::Value = serde_json::from_str(&rollgate::admin::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths.values().map(|item| item.as_object().unwrap().len()).sum()
}

#[test]
fn schemathesis_finds_nothing() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let site = ApiSite::new();
    // The name and the versions are those of the document's examples, so that not every request is for nothing.
    let checkout = Service::new("checkout")
        .stable("v1", 95, &[v1.port()])
        .canary("v2", 5, &[v2.port()]);
    let gate = Gate::start_by_link(&site.config(&Config::with(checkout)), &[]);
    // `/v1/upgrade` would replace the process under test: there is nothing any more to replace it with.
    gate.relink(Path::new("/nonexistent/rollgate"), &gate.directory().join("rollgate"));
    let output = run(&gate);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    let count = operations();
    assert!(count > 15, "{count}");
    assert!(
        told.contains(&format!("Tested: {count}")),
        "not every operation was tested:\n{told}"
    );
    assert!(told.contains("No issues found"), "{told}");
    let status = site.ask("GET /v1/status", "").json;
    assert_eq!(status["pid"], gate.pid());
    assert!(
        site.ask("GET /v1/events?limit=1000", "").json["last"].as_u64().unwrap() > 4,
        "nothing was changed"
    );
    let log = gate.log();
    assert!(!log.contains("a panic"), "{log}");
    assert!(
        !log.contains(support::authorization()["Authorization: Bearer ".len()..].trim()),
        "{log}"
    );
}
