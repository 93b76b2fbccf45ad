//! The admin API of the real binary: what it changes, who may, and what is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::{
    ApiSite, Config, Gate, PATIENCE, Service, Then, Upstream, Write, ask_tcp, authorization, eventually, in_parallel,
};

/// A service with all traffic on its canary, so that what is killed is seen.
fn shop(v1: &Upstream, v2: &Upstream) -> Config {
    Config::with(Service::split(v1.port(), 0, v2.port(), 100))
}

fn served_by(gate: &Gate) -> String {
    gate.get("/", &[]).served_by().to_owned()
}

#[test]
fn a_change_that_has_answered_holds_for_every_request_that_follows() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let site = ApiSite::new();
    let gate = site.start(&shop(&v1, &v2));
    eventually(PATIENCE, "the canary serves", || served_by(&gate) == "v2");
    let mut kept = gate.client();
    for _ in 0..10 {
        let killed = site.ask("PUT /v1/services/shop/kill", r#"{"reason": "test"}"#);
        assert_eq!(
            (killed.status, &killed.json["durable"]),
            (200, &true.into()),
            "{killed:?}"
        );
        for _ in 0..5 {
            assert_eq!(served_by(&gate), "v1");
            assert_eq!(kept.get("/", &[]).served_by(), "v1");
        }
        assert_eq!(site.ask("DELETE /v1/services/shop/kill", "").status, 200);
        assert_eq!(served_by(&gate), "v2");
        assert_eq!(kept.get("/", &[]).served_by(), "v2");
    }
    let weights = r#"{"weights": {"v1": 1, "v2": 0}}"#;
    let set = ask_tcp(&gate, "PUT /v1/services/shop/weights", &authorization(), weights);
    assert_eq!(set.status, 200, "{set:?}");
    assert!((0..10).all(|_| served_by(&gate) == "v1"));
    let status = site.ask("GET /v1/services/shop", "");
    assert_eq!(status.json["weights_source"], "admin");
    assert_eq!(status.json["versions"][0]["share_target"], 100.0);
    assert!(status.json["versions"][0]["requests_total"].as_u64().unwrap() > 50);
}

#[test]
fn what_was_done_is_told_with_who_and_survives() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let site = ApiSite::new();
    let mut gate = site.start(&shop(&v1, &v2));
    site.ask("PUT /v1/kill", r#"{"reason": "fire drill"}"#);
    let lines = authorization();
    ask_tcp(
        &gate,
        "PUT /v1/services/shop/weights",
        &lines,
        r#"{"weights": {"v1": 3, "v2": 1}}"#,
    );
    let told = |site: &ApiSite| {
        let events = site.ask("GET /v1/events?limit=1000", "").json["events"].clone();
        let told = events.as_array().unwrap().iter().map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            (text("type"), text("who"), text("from"), text("reason"))
        });
        told.collect::<Vec<_>>()
    };
    let uid = fs::metadata(site.token_file()).unwrap().uid();
    let before = told(&site);
    assert_eq!(before.len(), 3, "{before:?}");
    let (kind, who, from, reason) = &before[1];
    assert_eq!(
        (kind.as_str(), from.as_str(), reason.as_str()),
        ("kill", "unix", "fire drill")
    );
    assert!(
        who.ends_with(&format!("(uid {uid})")) || *who == format!("uid {uid}"),
        "{who}"
    );
    assert_eq!(before[2].1, "token ci");
    let killed = &site.ask("GET /v1/events?after=1&limit=1", "").json["events"][0];
    assert_eq!(killed["evidence"]["shop"]["v2"]["failures"], 0, "{killed}");
    gate.signal("KILL");
    gate.wait(PATIENCE);
    drop(gate);
    let gate = site.start(&shop(&v1, &v2));
    let after = told(&site);
    assert_eq!(after[..3], before[..]);
    let status = site.ask("GET /v1/status", "").json;
    assert_eq!(status["kill"]["reason"], "fire drill");
    assert_eq!(
        (&status["state"]["durable"], &status["services"][0]["killed"]),
        (&true.into(), &true.into())
    );
    assert_eq!(status["services"][0]["versions"][0]["weight"], 3);
    assert_eq!(served_by(&gate), "v1");
}

#[test]
fn of_those_who_saw_the_same_only_one_changes_it() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let site = ApiSite::new();
    let _gate = site.start(&shop(&v1, &v2));
    let changed = AtomicU32::new(0);
    in_parallel(4, |_| {
        for _ in 0..15 {
            let seen = site.ask("GET /v1/services/shop", "");
            let tag = seen.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
            let weight = seen.json["versions"][0]["weight"].as_u64().unwrap();
            let body = format!(r#"{{"weights": {{"v1": {}, "v2": 100}}}}"#, weight + 1);
            let answer = site.ask_with("PUT /v1/services/shop/weights", &format!("if-match: {tag}\r\n"), &body);
            match answer.status {
                200 => drop(changed.fetch_add(1, Ordering::Relaxed)),
                412 => assert_eq!(answer.json["type"], "urn:rollgate:problem:stale-generation"),
                _ => panic!("{answer:?}"),
            }
        }
    });
    let changed = changed.into_inner();
    let weight = site.ask("GET /v1/services/shop", "").json["versions"][0]["weight"].clone();
    assert_eq!(weight, changed, "every change counted from what it saw");
    assert!(changed >= 15, "{changed}");
}

#[test]
fn the_socket_is_its_owners_and_goes_with_the_process() {
    let v1 = Upstream::named("v1");
    let site = ApiSite::new();
    let config = Config::with(Service::only(v1.port()));
    let mut gate = site.start(&config);
    let socket = fs::symlink_metadata(site.socket()).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(site.socket().parent().unwrap()).unwrap().mode() & 0o777,
        0o700
    );
    let refused = Gate::try_start(&site.config(&config)).err().unwrap();
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("another process answers on it"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains(site.socket().to_str().unwrap()),
        "{}",
        refused.stderr
    );
    assert_eq!(site.ask("GET /v1/status", "").status, 200, "the first one goes on");
    gate.signal("KILL");
    gate.wait(PATIENCE);
    assert!(site.socket().exists(), "nobody removed it");
    drop(gate);
    let mut gate = site.start(&config);
    assert_eq!(site.ask("GET /v1/status", "").json["pid"], gate.pid());
    gate.signal("TERM");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    assert!(!site.socket().exists(), "removed at a clean end");
}

#[test]
fn an_upgrade_keeps_the_socket() {
    let v1 = Upstream::named("v1");
    let site = ApiSite::new();
    let mut gate = site.start(&Config::with(Service::only(v1.port())));
    let inode = fs::metadata(site.socket()).unwrap().ino();
    let answer = site.ask("POST /v1/upgrade", r#"{"reason": "new release"}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    // Until it ends, the old process may have a connection of before.
    gate.wait(PATIENCE);
    let pid = site.ask("GET /v1/status", "").json["pid"].as_u64().unwrap();
    assert_ne!(pid, u64::from(gate.pid()));
    assert!(answer.json["message"].as_str().unwrap().contains(&pid.to_string()));
    assert_eq!(fs::metadata(site.socket()).unwrap().ino(), inode, "the same socket");
    assert_eq!(site.ask("GET /v1/status", "").status, 200);
    support::signal(u32::try_from(pid).unwrap(), "TERM");
    eventually(PATIENCE, "the socket is removed by the last one", || {
        !site.socket().exists()
    });
}

#[test]
fn an_upgrade_that_cannot_be_says_why_and_changes_nothing() {
    let v1 = Upstream::named("v1");
    let site = ApiSite::new();
    let gate = site.start(&Config::with(Service::only(v1.port())));
    gate.write_config("services: 1\n", Write::Rename);
    let answer = site.ask("POST /v1/upgrade", "");
    assert_eq!(
        (answer.status, &answer.json["type"]),
        (409, &"urn:rollgate:problem:not-upgraded".into())
    );
    assert!(
        answer.json["detail"].as_str().unwrap().contains("services"),
        "{answer:?}"
    );
    assert_eq!(site.ask("GET /v1/status", "").json["pid"], gate.pid());
    assert_eq!(served_by(&gate), "v1");
}

#[test]
fn a_file_is_reloaded_on_demand_and_refused_with_its_problems() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let site = ApiSite::new();
    let gate = site.start(&shop(&v1, &v2));
    let good = site.config(&Config::with(Service::split(v1.port(), 100, v2.port(), 0)));
    let bad = good.replace("weight: 100", "weight: many");
    gate.write_config(&bad, Write::Rename);
    let refused = site.ask("POST /v1/config/reload", "");
    assert_eq!(
        (refused.status, &refused.json["type"]),
        (422, &"urn:rollgate:problem:bad-configuration".into())
    );
    assert_eq!(refused.json["problems"][0]["path"], "services[0].versions[0].weight");
    let detail = refused.json["detail"].as_str().unwrap().to_owned();
    let status = site.ask("GET /v1/status", "").json;
    assert_eq!(status["config"]["error"], detail, "the same words");
    gate.write_config(&good, Write::Rename);
    let taken = site.ask("POST /v1/config/reload", "");
    assert_eq!(taken.status, 200, "{taken:?}");
    assert_eq!(served_by(&gate), "v1");
    let again = site.ask("POST /v1/config/reload", "");
    assert_eq!(
        (&again.json["changed"], &again.json["generation"]),
        (&false.into(), &taken.json["generation"])
    );
    let config = site.ask("GET /v1/config", "").json;
    assert_eq!(config["text"], good);
    let status = site.ask("GET /v1/status", "").json;
    assert_eq!(
        (&status["config"]["hash"], &status["config"]["error"]),
        (&config["hash"], &Value::Null)
    );
}

#[test]
fn followers_hear_of_what_happens_and_of_the_end() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let site = ApiSite::new();
    let mut gate = site.start(&shop(&v1, &v2));
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /v1/events?after=1 HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut until = |what: &str| lines.by_ref().map_while(Result::ok).find(|line| line.starts_with(what));
    until(": following").unwrap();
    site.ask("PUT /v1/services/shop/kill", "");
    assert_eq!(until("event: ").unwrap(), "event: kill");
    let data = until("data: ").unwrap();
    let event: Value = serde_json::from_str(&data["data: ".len()..]).unwrap();
    assert_eq!((&event["service"], &event["seq"]), (&"shop".into(), &2.into()));
    gate.signal("TERM");
    assert_eq!(until("data: "), None, "the stream ends");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
}

#[test]
fn what_was_refused_is_kept_without_what_is_secret() {
    let broken = Upstream::fixed(
        "broken",
        "HTTP/1.1 200 OK\r\nset-cookie: id=s3cr3t\r\nbad name: x\r\n\r\n",
        Then::Close,
    );
    let site = ApiSite::new();
    let gate = site.start(&Config::with(Service::only(broken.port())));
    let smuggled = "POST /a HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer s3cr3t\r\ncookie: id=s3cr3t\r\ncontent-length: 4\r\n\
                    transfer-encoding: chunked\r\n\r\n";
    assert_eq!(gate.client().send(smuggled).read(false).unwrap().status, 400);
    assert_eq!(gate.get("/b", &[]).status, 502);
    let rejected = site.ask("GET /v1/rejected", "").json;
    let rejected = rejected["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), 2, "{rejected:?}");
    assert_eq!(
        (&rejected[0]["message"], &rejected[0]["reason"]),
        (&"request".into(), &"bad_request".into())
    );
    assert_eq!(
        (&rejected[1]["message"], &rejected[1]["reason"]),
        (&"answer".into(), &"protocol".into())
    );
    assert_eq!(rejected[1]["from"], format!("127.0.0.1:{}", broken.port()));
    let text = serde_json::to_string(rejected).unwrap();
    assert!(!text.contains("s3cr3t"), "{text}");
    for shown in [
        "POST /a HTTP/1.1",
        "transfer-encoding: chunked",
        "content-length: 4",
        "Set-Cookie: (9 bytes)",
    ] {
        assert!(text.to_lowercase().contains(&shown.to_lowercase()), "{shown}: {text}");
    }
    for n in 0..40 {
        gate.client()
            .send(format!("GET /{n} HTTP/1.1\r\nhost : a\r\n\r\n"))
            .read(false)
            .unwrap();
    }
    let last = site.ask("GET /v1/rejected", "").json;
    let last = last["rejected"].as_array().unwrap();
    assert_eq!(last.len(), 16);
    assert_eq!(last[15]["head"][0], r"GET /39 HTTP/1.1\r\n");
}

/// Workers with more to do than they can, and kills that come through.
#[test]
fn a_kill_gets_through_while_every_worker_is_busy() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let site = ApiSite::new();
    let gate = site.start(&shop(&v1, &v2).top("threads: 1"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = gate.client();
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/", &[]).status, 200);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        let took = (0..21).map(|_| {
            let began = Instant::now();
            assert_eq!(site.ask("PUT /v1/kill", "").status, 200);
            assert_eq!(site.ask("GET /v1/status", "").status, 200);
            assert_eq!(site.ask("DELETE /v1/kill", "").status, 200);
            began.elapsed()
        });
        let mut took: Vec<_> = took.collect();
        over.store(true, Ordering::Relaxed);
        // The median: the machine itself may hold up some of them.
        took.sort_unstable();
        assert!(took[10] < Duration::from_secs(3), "three calls took {took:?}");
    });
}

#[test]
fn tokens_are_read_again_and_never_logged() {
    let v1 = Upstream::named("v1");
    let site = ApiSite::new();
    let config = site.config(&Config::with(Service::only(v1.port())));
    let gate = Gate::start_by_link(&config, &[("RUST_LOG", "trace")]);
    let kill = |token: &str| ask_tcp(&gate, "PUT /v1/kill", &format!("authorization: Bearer {token}\r\n"), "").status;
    let (first, second) = ("integration-test-token-0001", "rotated-token-number-two");
    assert_eq!((kill(first), kill(second)), (200, 401));
    fs::write(site.token_file(), format!("ci: {second}\n")).unwrap();
    assert_eq!((kill(first), kill(second)), (401, 200));
    fs::write(site.token_file(), "too short\n").unwrap();
    assert_eq!((kill(first), kill(second)), (503, 503));
    assert_eq!(site.ask("DELETE /v1/kill", "").status, 200);
    // A thread writes the log, and may be a little behind.
    eventually(PATIENCE, "what was wrong is logged", || {
        let log = gate.log();
        log.contains("a wrong token") && log.contains("admin.token_file: ")
    });
    let log = gate.log();
    for secret in [first, second, "too short"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
