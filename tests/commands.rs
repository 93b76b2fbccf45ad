//! The command line against the proxy itself: what one says, the other understands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use support::{Exit, Gate, PATIENCE, Upstream, Write, eventually};

/// A proxy with a socket at its usual place, and its upstreams.
struct House {
    gate: Gate,
    config: String,
    _upstreams: [Upstream; 2],
}

fn house() -> House {
    let upstreams = [Upstream::named("v1"), Upstream::named("v2")];
    let ports = upstreams.each_ref().map(Upstream::port);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("admin.token"),
        "s3cret-s3cret-s3cret-s3cret-s3cret\n",
    )
    .unwrap();
    let config = format!(
        r#"listeners:
  - address: 127.0.0.1:0
admin:
  address: 127.0.0.1:0
  socket: run/rollgate.sock
  token_file: admin.token
services:
  - name: shop
    affinity: {{ key: [{{ header: x-user-id }}] }}
    versions:
      - {{ name: v1, role: stable, weight: 90, pool: {{ endpoints: ["127.0.0.1:{}"] }} }}
      - {{ name: v2, role: canary, weight: 10, pool: {{ endpoints: ["127.0.0.1:{}"] }} }}
"#,
        ports[0], ports[1]
    );
    House {
        gate: Gate::start_in(directory, &config),
        config,
        _upstreams: upstreams,
    }
}

impl House {
    /// The command, where the proxy is found by its usual place.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollgate"));
        for name in ["ADMIN", "CONFIG", "TOKEN", "TOKEN_FILE"] {
            command.env_remove(format!("ROLLGATE_{name}"));
        }
        command.args(arguments).current_dir(self.gate.directory());
        command
    }

    fn run(&self, arguments: &[&str]) -> Exit {
        let output = self.command(arguments).output().unwrap();
        Exit {
            code: output.status.code(),
            signal: None,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn done(&self, arguments: &[&str]) -> String {
        let exit = self.run(arguments);
        assert_eq!(
            (exit.code, exit.stderr.as_str()),
            (Some(0), ""),
            "{arguments:?}: {}",
            exit.stdout
        );
        exit.stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let exit = self.run(arguments);
        assert_eq!(
            (exit.code, exit.stdout.as_str()),
            (Some(3), ""),
            "{arguments:?}: {}",
            exit.stderr
        );
        assert!(exit.stderr.contains("help: "), "{}", exit.stderr);
        exit.stderr
    }

    /// Who answers `count` requests without a key.
    fn answers(&self, count: usize) -> [usize; 2] {
        let mut client = self.gate.client();
        let served: Vec<String> = (0..count)
            .map(|_| client.get("/", &[]).served_by().to_owned())
            .collect();
        ["v1", "v2"].map(|version| served.iter().filter(|served| *served == version).count())
    }
}

/// A command that goes on, and the JSON lines it prints. Killed when dropped.
struct Going {
    child: Child,
    lines: Receiver<String>,
}

impl Going {
    fn start(house: &House, arguments: &[&str]) -> Self {
        let mut child = house
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn next(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).unwrap()).unwrap()
    }

    /// All up to the one that is `wanted`.
    fn until(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut all = vec![self.next()];
        while !all.last().is_some_and(&wanted) {
            all.push(self.next());
        }
        all
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn weights_kill_and_unkill_move_the_next_request() {
    let house = house();
    assert!(
        house
            .done(&["weights", "shop", "v1=0", "v2=1", "--reason", "why"])
            .contains("shop: v1=0 v2=1")
    );
    assert_eq!(house.answers(20), [0, 20]);
    assert!(house.done(&["kill", "shop"]).contains("killed"));
    assert_eq!(house.answers(20), [20, 0]);
    let status = house.done(&["status"]);
    assert!(
        status.contains("warning: shop is killed") && status.contains("rollgate unkill shop"),
        "{status}"
    );
    assert!(house.done(&["kill", "shop"]).contains("nothing changed"));
    house.done(&["unkill", "shop"]);
    assert_eq!(house.answers(20), [0, 20]);
    house.done(&["kill", "--all", "--reason", "drill"]);
    assert_eq!(house.answers(20), [20, 0]);
    assert!(house.refused(&["unkill", "shop"]).contains("unkill --all"));
    house.done(&["unkill", "--all"]);
    assert_eq!(house.answers(20), [0, 20]);
    let events: Vec<Value> = house
        .done(&["events", "--after", "0", "--json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!(
        (told("weights"), told("kill"), told("unkill")),
        (1, 2, 2),
        "{events:#?}"
    );
    let reasons: Vec<&str> = events.iter().filter_map(|event| event["reason"].as_str()).collect();
    assert_eq!(reasons, ["why", "no reason given", "drill"]);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_word_on_what_to_do() {
    let house = house();
    assert!(house.refused(&["status", "shpo"]).contains("`shop`"));
    assert!(house.refused(&["kill", "shpo"]).contains("did you mean `shop`"));
    assert!(
        house
            .refused(&["weights", "shop", "v1=1"])
            .contains("name every version")
    );
    assert!(
        house
            .refused(&["weights", "shop", "v1=0", "v2=0"])
            .contains("all weights are 0")
    );
    assert!(
        house
            .refused(&["weights", "shop", "v1=99", "v2=1", "--if-generation", "999"])
            .contains("999")
    );
    house.refused(&["rollout", "rollback", "shop"]);
    assert_eq!(house.answers(100), [90, 10]);
    let generation = house.json(&["status"])["generation"].to_string();
    house.done(&["weights", "shop", "v1=99", "v2=1", "--if-generation", &generation]);
    assert_eq!(house.answers(100), [99, 1]);
}

#[test]
fn reload_waits_for_the_outcome() {
    let house = house();
    house
        .gate
        .write_config(&house.config.replace("weight: 10", "weight: 0"), Write::Rename);
    house.done(&["reload"]);
    assert_eq!(house.answers(20), [20, 0]);
    house.gate.write_config("listeners: 5\n", Write::Rename);
    let exit = house.run(&["reload"]);
    assert_eq!(exit.code, Some(3));
    assert!(
        exit.stderr.contains("rollgate.yaml:1:12: listeners: expected a list"),
        "{}",
        exit.stderr
    );
    let problem: Value = serde_json::from_str(&house.run(&["reload", "--json"]).stdout).unwrap();
    assert_eq!(
        (&problem["status"], &problem["problems"][0]["line"]),
        (&422.into(), &1.into())
    );
    let status = house.done(&["status", "shop"]);
    assert!(
        status.contains("the last reload failed") && status.contains("rollgate.yaml:1:12"),
        "{status}"
    );
    // Killing needs no file that is right, also where the file is asked for the way.
    house.done(&[
        "kill",
        "--all",
        "--config",
        "rollgate.yaml",
        "--admin",
        "unix:run/rollgate.sock",
    ]);
}

#[test]
fn explain_asks_the_proxy_unless_it_is_given_a_file() {
    let house = house();
    let asked = [
        "explain",
        "http://shop.example.com/a?b=c",
        "-H",
        "x-user-id: ada",
        "-H",
        "x-user-id: second",
    ];
    let before = house.json(&asked);
    assert_eq!(
        (&before["service"], &before["reason"]),
        (&"shop".into(), &"bucket".into())
    );
    house.done(&["kill", "shop"]);
    assert_eq!(house.json(&asked)["reason"], "killed");
    assert!(house.done(&["explain", "shop"]).contains("kill switch"));
    assert!(house.done(&["explain", "shop.example.com"]).contains("killed"));
    let by_file = house.json(&[&asked[..], &["--config", "rollgate.yaml"]].concat());
    assert_eq!(by_file["bucket"], before["bucket"]);
    assert_eq!(by_file["reason"], "bucket");
    assert!(house.refused(&["explain", "shpo"]).contains("did you mean `shop`"));
}

#[test]
fn over_tcp_reading_is_free_and_changing_needs_the_token() {
    let house = house();
    let admin = format!("http://127.0.0.1:{}", house.gate.admin_port());
    assert!(house.done(&["status", "--admin", &admin]).contains("ready"));
    assert!(
        house
            .refused(&["kill", "shop", "--admin", &admin])
            .contains("--token-file FILE")
    );
    std::fs::write(
        house.gate.directory().join("other.token"),
        "another-another-another-another",
    )
    .unwrap();
    let wrong = ["kill", "shop", "--admin", &admin, "--token-file", "other.token"];
    assert!(house.refused(&wrong).contains("is not one of the proxy's"));
    assert_eq!(house.answers(100), [90, 10]);
    house.done(&["kill", "shop", "--admin", &admin, "--token-file", "admin.token"]);
    assert_eq!(house.answers(20), [20, 0]);
    // A listener is no admin API.
    let listener = format!("http://127.0.0.1:{}", house.gate.port());
    let exit = house.run(&["status", "--admin", &listener]);
    assert_eq!(exit.code, Some(4));
    assert!(exit.stderr.contains("not the admin API"), "{}", exit.stderr);
}

#[test]
fn events_are_followed_as_they_happen() {
    let house = house();
    let following = Going::start(
        &house,
        &["events", "--follow", "--limit", "0", "--json", "--service", "shop"],
    );
    // It may begin to follow only after this one.
    house.done(&["weights", "shop", "v1=91", "v2=9"]);
    house.done(&["kill", "shop", "--reason", "followed"]);
    let told = following.until(|event| event["type"] == "kill");
    let event = told.last().unwrap();
    assert_eq!(
        (&event["reason"], &event["service"]),
        (&"followed".into(), &"shop".into())
    );
}

/// Who follows is told of what happens in the process that took over.
#[test]
fn upgrade_answers_when_the_new_process_serves() {
    let mut house = house();
    house.done(&["kill", "shop"]);
    let following = Going::start(&house, &["events", "--follow", "--after", "0", "--json"]);
    let said = house.done(&["upgrade", "--reason", "newer"]);
    let first = house.gate.pid();
    // Until it ends, the old process may take a connection yet.
    house.gate.wait(PATIENCE);
    eventually(PATIENCE, "the log names who serves", || house.gate.serving() != first);
    let serving = house.gate.serving();
    assert!(said.contains(&format!("process {serving} serves now")), "{said}");
    assert_eq!(house.json(&["status"])["pid"], serving);
    assert_eq!(house.answers(20), [20, 0], "the kill switch stays on");
    house.done(&["unkill", "shop"]);
    let told = following.until(|event| event["type"] == "unkill");
    assert!(told.iter().any(|event| event["type"] == "upgraded"), "{told:#?}");
    let numbers: Vec<u64> = told.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(
        numbers.iter().copied().eq(1..=numbers.len() as u64),
        "none is missing and none is there twice: {numbers:?}"
    );
}

#[test]
fn a_proxy_that_has_ended_is_called_so() {
    let mut house = house();
    assert_eq!(house.json(&["status"])["pid"], house.gate.pid());
    house.gate.signal("KILL");
    house.gate.wait(PATIENCE);
    let exit = house.run(&["kill", "--all"]);
    assert_eq!(exit.code, Some(4));
    assert!(
        exit.stderr.contains("nobody listens on the socket run/rollgate.sock"),
        "{}",
        exit.stderr
    );
    assert!(exit.stderr.contains("`kill: true` in the file"), "{}", exit.stderr);
}

#[test]
fn watching_sees_a_change() {
    let house = house();
    let watching = Going::start(&house, &["status", "shop", "--watch", "--json"]);
    assert_eq!(watching.next()["killed"], false);
    house.done(&["kill", "shop"]);
    watching.until(|look| look["killed"] == true);
}

#[test]
fn what_a_step_can_find_is_asked_of_the_file_in_force() {
    let house = house();
    let rollout = "    rollout: { steps: [{ share: 50%, hold: 10m }], guard: { max_failures: 50 } }\n";
    house
        .gate
        .write_config(&format!("{}{rollout}", house.config), Write::Rename);
    eventually(PATIENCE, "the plan is in force", || {
        house.run(&["plan", "shop", "--rps", "50"]).code == Some(0)
    });
    let plan = house.json(&["plan", "shop", "--rps", "50"]);
    assert_eq!(plan["services"][0]["candidate"], "v2");
    assert_eq!(plan["services"][0]["steps"][0]["requests"]["candidate"], 15_000.0);
    let exit = house.run(&["plan", "shpo", "--rps", "50"]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("did you mean `shop`?"), "{}", exit.stderr);
}
