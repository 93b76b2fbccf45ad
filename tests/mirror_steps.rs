//! Rollouts that begin with copies, with the real binary: no user sees the candidate before it has passed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self};
use std::time::Duration;
use support::rollouts::{ERRORS, LATENCY, Users, Version, rollout, wait_for, wait_for_phase};
use support::{Config, Gate, Operator, PATIENCE, Service, Then, Upstream, Write, eventually};

/// What came to a version.
trait Copied {
    /// Requests that came as copies, and that came from users.
    fn copies_and_users(&self) -> (usize, usize);

    /// How many copies came, when no more do: none is under way, and users (while there are any) bring no further ones.
    fn settled(&self, gate: &Gate) -> usize;
}

impl Copied for Version {
    fn copies_and_users(&self) -> (usize, usize) {
        let requests = self.upstream.requests();
        let is_copy = |request: &&support::Received| request.head.get("x-rollgate-mirror") == Some("true");
        let copies = requests.iter().filter(is_copy).count();
        (copies, requests.len() - copies)
    }

    fn settled(&self, gate: &Gate) -> usize {
        let mut copies = 0;
        eventually(PATIENCE, "no more copies come", || {
            copies = self.copies_and_users().0;
            thread::sleep(Duration::from_millis(300));
            gate.metric("rollgate_mirror_requests_in_flight", &[]) == 0.0 && self.copies_and_users().0 == copies
        });
        copies
    }
}

const LONG: &str = "[{ mirror: 100%, hold: 1h }, { share: 10%, hold: 1h }]";

/// With a guard that three failures of users would reach.
fn config(v1: &Version, v2: &Version, steps: &str, checks: &str) -> String {
    let plan = format!(
        "rollout: {{ steps: {steps}, analysis: {{ warmup: 0s, min_requests: 20, confidence: 99%, checks: [{checks}] }}, guard: \
         {{ max_failures: 3 }} }}"
    );
    let service = Service::split(v1.upstream.port(), 95, v2.upstream.port(), 5)
        .never_eject()
        .key(&plan)
        .key("affinity: { key: [ { header: x-user } ] }");
    Config::with(service).text()
}

#[test]
fn a_candidate_that_fails_copies_is_rolled_back_and_no_user_ever_saw_it() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let gate = Gate::start(&config(&v1, &v2, LONG, ERRORS));
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    let step = wait_for(&operator, "in the mirror step", |rollout| rollout["step"] == 1);
    assert_eq!(
        (step["mirror"].as_f64(), step["share"].as_f64()),
        (Some(100.0), Some(0.0))
    );
    assert!(
        step["summary"].as_str().unwrap().contains("a mirror of 100 %"),
        "{step:#}"
    );
    gate.expect_metric("rollgate_rollout_mirror_target", &[("service", "shop")], 100.0);
    eventually(PATIENCE, "copies arrive", || v2.copies_and_users().0 > 50);
    v2.fails();
    let over = wait_for_phase(&operator, "rolled_back");
    let told = over["reason"].as_str().unwrap();
    assert!(told.contains("v2 fails") && told.contains("evidence"), "{told}");
    assert_eq!(
        (over["cause"].as_str(), over["failures"].as_u64()),
        (Some("check"), Some(0))
    );
    assert_eq!(over["mirror"], 0.0);
    let copies = v2.settled(&gate);
    assert!(copies > 50);
    users.end_in_order();
    assert_eq!(v2.copies_and_users(), (copies, 0), "and none came later");
    let seen = gate.metrics().sum("rollgate_requests_total", &[("version", "v2")]);
    assert_eq!(seen, 0.0);
    gate.expect_metric("rollgate_rollout_detections_total", &[("service", "shop")], 1.0);
}

#[test]
fn a_good_candidate_goes_on_to_users_and_no_more_copies_arrive() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let steps = "[{ mirror: 50%, hold: 1s }, { share: 20%, hold: 1s }, { share: 100%, hold: 1s }]";
    let gate = Gate::start(&config(&v1, &v2, steps, ERRORS));
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    let second = wait_for(&operator, "past the mirror step", |rollout| {
        rollout["step"].as_u64() >= Some(2)
    });
    assert_eq!(second["mirror"], 0.0);
    let copies = v2.settled(&gate);
    // Half of what stable had, give or take; a verdict needs twenty.
    assert!(copies >= 20, "{copies}");
    wait_for_phase(&operator, "succeeded");
    eventually(PATIENCE, "users are served by it", || v2.copies_and_users().1 > 50);
    users.end_in_order();
    assert_eq!(v2.copies_and_users().0, copies, "copies end with their step");
    assert_eq!(gate.get("/", &[("x-user", "a")]).served_by(), "v2");
}

#[test]
fn a_slow_candidate_trips_a_latency_check_and_a_pause_goes_on_copying() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    v2.delay_ms.store(250, Ordering::Relaxed);
    let gate = Gate::start(&config(&v1, &v2, LONG, &format!("{ERRORS}, {LATENCY}")));
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    let paused = wait_for_phase(&operator, "paused");
    let told = paused["reason"].as_str().unwrap();
    assert!(told.contains("at p90 against"), "{told}");
    assert_eq!(
        (paused["step"].as_u64(), paused["mirror"].as_f64()),
        (Some(1), Some(100.0))
    );
    let before = v2.copies_and_users().0;
    eventually(PATIENCE, "copies go on while it is paused", || {
        v2.copies_and_users().0 > before + 50
    });
    operator.post("/v1/services/shop/rollout/rollback", "").expect_ok();
    let copies = v2.settled(&gate);
    thread::sleep(Duration::from_millis(500));
    users.end_in_order();
    assert_eq!(v2.copies_and_users(), (copies, 0));
}

#[test]
fn a_kill_ends_the_copies_and_a_retry_begins_them_again() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let gate = Gate::start(&config(&v1, &v2, LONG, ERRORS));
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    eventually(PATIENCE, "copies arrive", || v2.copies_and_users().0 > 20);
    operator
        .put("/v1/services/shop/kill", r#"{"reason":"test"}"#)
        .expect_ok();
    assert_eq!(rollout(&operator)["phase"], "rolled_back");
    let copies = v2.settled(&gate);
    operator.delete("/v1/services/shop/kill").expect_ok();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(
        v2.copies_and_users(),
        (copies, 0),
        "the end of a kill switch gives nothing"
    );
    operator.post("/v1/services/shop/rollout/retry", "").expect_ok();
    eventually(PATIENCE, "copies arrive again", || {
        v2.copies_and_users().0 > copies + 20
    });
    users.end_in_order();
    assert_eq!(v2.copies_and_users().1, 0);
}

#[test]
fn a_crash_in_a_mirror_step_goes_on_in_it_with_its_evidence() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let text = config(&v1, &v2, LONG, ERRORS);
    let gate = Gate::start(&text);
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    // What it has seen is written every two seconds: most of it long ago when this is so.
    wait_for(&operator, "seven seconds old", |rollout| {
        rollout["step"] == 1 && rollout["elapsed_s"].as_f64().unwrap() > 7.0
    });
    users.end_in_order();
    let gate = gate.crash(&text);
    let operator = Operator::of(&gate);
    let now = rollout(&operator);
    assert_eq!(
        (
            now["step"].as_u64(),
            now["attempt"].as_u64(),
            now["mirror"].as_f64(),
            now["share"].as_f64()
        ),
        (Some(1), Some(1), Some(100.0), Some(0.0))
    );
    assert!(now["elapsed_s"].as_f64().unwrap() > 2.0, "{now:#}");
    let users = Users::of(&gate);
    let before = v2.copies_and_users().0;
    eventually(PATIENCE, "copies arrive again", || {
        v2.copies_and_users().0 > before + 20
    });
    // Seen before the crash and after it.
    let passing = wait_for(&operator, "passing", |rollout| {
        rollout["checks"][0]["verdict"] == "pass"
    });
    let reason = passing["checks"][0]["reason"].as_str().unwrap().to_owned();
    let (_, counted) = reason.split_once("(0/").unwrap();
    let counted: usize = counted.split_once(')').unwrap().0.parse().unwrap();
    assert!(counted > before / 4, "{reason}, {before} copies before the crash");
    v2.fails();
    let over = wait_for_phase(&operator, "rolled_back");
    assert_eq!(over["cause"], "check");
    users.end_in_order();
    assert_eq!(v2.copies_and_users().1, 0);
}

#[test]
fn one_user_whose_request_fails_as_a_copy_rolls_nothing_back() {
    let v1 = Version::new("v1");
    let v2 = Upstream::with("v2", |exchange| {
        let status = if exchange.request.target == "/odd" { 500 } else { 200 };
        exchange.answer(status, &[], b"")
    });
    let v2 = Version {
        upstream: v2,
        status: Arc::default(),
        delay_ms: Arc::default(),
    };
    let gate = Gate::start(&config(&v1, &v2, LONG, ERRORS));
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    wait_for(&operator, "in the mirror step", |rollout| rollout["step"] == 1);
    let mut odd = gate.client();
    // While the candidate stands still, more copies may wait than there is room for: these are not sent.
    eventually(PATIENCE, "many of its copies have failed", || {
        for _ in 0..20 {
            assert_eq!(odd.get("/odd", &[("x-user", "odd")]).status, 200);
        }
        gate.metric("rollgate_mirror_compared_total", &[("result", "failed")]) >= 200.0
    });
    let passing = wait_for(&operator, "passing", |rollout| {
        rollout["checks"][0]["verdict"] == "pass"
    });
    assert!(
        passing["checks"][0]["reason"].as_str().unwrap().contains("(1/"),
        "{passing:#}"
    );
    users.end_in_order();
}

#[test]
fn a_candidate_that_lacks_a_page_is_rolled_back_by_its_statuses() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let checks = format!("{ERRORS}, {{ metric: mismatch_rate, max: 2%, on_fail: rollback }}");
    let gate = Gate::start(&config(&v1, &v2, LONG, &checks));
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    let passing = wait_for(&operator, "passing", |rollout| {
        rollout["checks"][1]["verdict"] == "pass"
    });
    assert_eq!(passing["step"], 1);
    v2.status.store(404, Ordering::Relaxed);
    let over = wait_for_phase(&operator, "rolled_back");
    let told = over["reason"].as_str().unwrap();
    assert!(told.contains("of its copies with another status than v1"), "{told}");
    users.end_in_order();
    assert_eq!(v2.copies_and_users().1, 0);
}

/// What waits behind 64 copies that hang is not sent when the step is over.
#[test]
fn copies_that_wait_when_the_step_ends_are_never_sent() {
    let v1 = Version::new("v1");
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let v2 = Upstream::with("v2", move |_| {
        // Nobody is answered before the end of the test.
        let _ = held.lock().unwrap().recv();
        Then::Close
    });
    let rollout = format!("rollout: {{ steps: {LONG}, analysis: {{ checks: [{ERRORS}] }} }}");
    let service = Service::split(v1.upstream.port(), 100, v2.port(), 0).key(&rollout);
    let gate = Gate::start(&Config::with(service).top("threads: 1").text());
    let operator = Operator::of(&gate);
    wait_for(&operator, "in the mirror step", |rollout| rollout["step"] == 1);
    let mut client = gate.client();
    for _ in 0..164 {
        assert_eq!(client.get("/", &[]).status, 200);
    }
    gate.expect_metric("rollgate_mirror_requests_in_flight", &[("service", "shop")], 64.0);
    operator.post("/v1/services/shop/rollout/rollback", "").expect_ok();
    drop(release);
    gate.expect_metric("rollgate_mirror_dropped_total", &[("reason", "step_ended")], 100.0);
    gate.expect_metric("rollgate_mirror_requests_in_flight", &[("service", "shop")], 0.0);
    assert!(v2.count() <= 64, "{}", v2.count());
}

/// The share of a step, and the file's mirror otherwise; methods are the mirror's.
#[test]
fn the_mirror_of_the_file_says_which_methods_and_is_in_force_outside_of_the_step() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let text = |start: &str| {
        let plan = format!(
            "rollout: {{ start: {start}, steps: {LONG}, analysis: {{ warmup: 0s, min_requests: 20, checks: [{ERRORS}] }} }}"
        );
        let service = Service::split(v1.upstream.port(), 100, v2.upstream.port(), 0)
            .never_eject()
            .key(&plan)
            .key("mirror: { version: v2, share: 0%, methods: [POST] }");
        Config::with(service).text()
    };
    let gate = Gate::start(&text("manual"));
    let operator = Operator::of(&gate);
    let mut client = gate.client();
    let send = |client: &mut support::Client| {
        for _ in 0..30 {
            assert_eq!(client.request("POST", "/", &[], b"x").status, 200);
            assert_eq!(client.get("/", &[]).status, 200);
        }
    };
    send(&mut client);
    assert_eq!(v2.settled(&gate), 0, "nothing is copied before it begins");
    operator.post("/v1/services/shop/rollout/start", "").expect_ok();
    wait_for(&operator, "in the mirror step", |rollout| rollout["step"] == 1);
    send(&mut client);
    eventually(PATIENCE, "the copies have arrived", || v2.copies_and_users().0 == 30);
    assert!(v2.upstream.requests().iter().all(|request| request.method == "POST"));
    let generation = gate.metric("rollgate_config_generation", &[]);
    gate.write_config(&text("manual").replace("share: 0%, ", ""), Write::Rename);
    eventually(PATIENCE, "the file is in force", || {
        gate.metric("rollgate_config_generation", &[]) > generation
    });
    operator.post("/v1/services/shop/rollout/rollback", "").expect_ok();
    let before = v2.settled(&gate);
    send(&mut client);
    eventually(PATIENCE, "the file's mirror copies again", || {
        v2.copies_and_users().0 == before + 30
    });
    assert_eq!(rollout(&operator)["phase"], "rolled_back");
}
