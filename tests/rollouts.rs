//! Rollouts with the real binary: versions that are good, broken, slow and idle, under traffic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self};
use std::time::Duration;
use std::time::Instant;
use support::rollouts::{ERRORS, LATENCY, Users, Version, rollout, wait_for, wait_for_phase};
use support::{Config, Gate, Nginx, Operator, PATIENCE, Service, Upstream, Write, eventually};

/// Judged by its errors: on a busy machine a version that has just got its first requests is slow for a moment.
fn plan(steps: &str) -> String {
    judged(steps, ERRORS)
}

fn judged(steps: &str, checks: &str) -> String {
    format!(
        "rollout: {{ steps: {steps}, analysis: {{ warmup: 0s, min_requests: 10, confidence: 99%, checks: [{checks}] }}, guard: \
         {{ max_failures: 1000 }} }}"
    )
}

const QUICK: &str = "[{ share: 10%, hold: 1s }, { share: 50%, hold: 1s }, { share: 100%, hold: 1s }]";
const LONG: &str = "[{ share: 25%, hold: 1h }, { share: 100%, hold: 1s }]";

fn config(v1: u16, v2: u16, plan: &str, more: &str) -> Config {
    let service = Service::split(v1, 95, v2, 5).never_eject().key(plan);
    let service = if more.is_empty() { service } else { service.key(more) };
    Config::with(service)
}

fn texts(operator: &Operator, kind: &str) -> Vec<String> {
    let events = operator.get("/v1/events?after=0").expect_ok();
    let events = events["events"].as_array().unwrap().iter();
    let of_kind = events.filter(|event| event["type"] == kind);
    of_kind
        .map(|event| event["text"].as_str().unwrap().to_owned())
        .collect()
}

/// Asks one by one until the rollout is rolled back, and after each request that the candidate fails waits until the proxy
/// has looked at it: how many it fails does not depend on the machine then. Users see one of `statuses`.
fn asked_until_rolled_back(gate: &Gate, operator: &Operator, candidate: &Version, statuses: &[u16]) -> (Value, u64) {
    let before = candidate.upstream.count();
    for number in 0..2000 {
        let status = gate.get("/", &[("x-user", &number.to_string())]).status;
        assert!(statuses.contains(&status), "{status}");
        let failed = (candidate.upstream.count() - before) as u64;
        let looked = wait_for(operator, "looked at", |rollout| {
            rollout["failures"].as_u64().unwrap() >= failed || rollout["phase"] == "rolled_back"
        });
        if looked["phase"] == "rolled_back" {
            return (looked, failed);
        }
    }
    panic!("it is never rolled back: {:#}", rollout(operator));
}

#[test]
fn a_good_candidate_gets_everything_and_bakes() {
    let (v1, v2) = (Nginx::named("v1"), Nginx::named("v2"));
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan(QUICK), "").text());
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    let done = wait_for_phase(&operator, "succeeded");
    assert_eq!((done["step"].as_u64(), done["share"].as_f64()), (Some(3), Some(100.0)));
    users.end_in_order();
    gate.expect_metric(
        "rollgate_rollout_phase",
        &[("service", "shop"), ("phase", "succeeded")],
        1.0,
    );
    gate.expect_metric("rollgate_rollout_step", &[("service", "shop")], 3.0);
    gate.expect_metric("rollgate_version_share_target", &[("version", "v2")], 100.0);
    let steps = texts(&operator, "step");
    assert!(steps[0].contains("v2 gets 10 % (step 1 of 3)"), "{steps:?}");
    let bakes = texts(&operator, "promote");
    assert!(bakes[0].contains("v2 gets everything (step 3 of 3)"), "{bakes:?}");
    assert_eq!(texts(&operator, "success"), ["shop: v2 is delivered"]);
    assert_eq!(gate.get("/", &[]).served_by(), "v2");
}

#[test]
fn a_candidate_that_breaks_is_rolled_back_and_users_of_gets_see_nothing() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let rescue =
        "rescue: { methods: [GET], on: [connect, reset, timeout, 5xx] }\naffinity: { key: [ { header: x-user } ] }";
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan(LONG), rescue).text());
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    wait_for(&operator, "at 25 %", |rollout| rollout["share"] == 25.0);
    eventually(PATIENCE, "the candidate has traffic", || v2.upstream.count() > 50);
    users.end_in_order();
    let began = Instant::now();
    v2.fails();
    let (over, failed) = asked_until_rolled_back(&gate, &operator, &v2, &[200]);
    let told = over["reason"].as_str().unwrap();
    assert!(told.contains("v2 fails") && told.contains("evidence"), "{told}");
    assert_eq!(over["cause"], "check");
    assert_eq!(over["failures"], failed);
    assert!(failed <= 40, "{failed} requests failed before the rollback");
    gate.expect_metric(
        "rollgate_rollout_rollbacks_total",
        &[("service", "shop"), ("cause", "check")],
        1.0,
    );
    gate.expect_metric("rollgate_rollout_detections_total", &[("service", "shop")], 1.0);
    let detected = gate.metric("rollgate_rollout_detection_seconds_total", &[]);
    assert!(detected <= began.elapsed().as_secs_f64(), "{detected}");
    // It stays so, until a person says otherwise: nothing is sent to it any more.
    v2.status.store(200, Ordering::Relaxed);
    let (users, sent) = (Users::of(&gate), v2.upstream.count());
    thread::sleep(Duration::from_secs(2));
    assert_eq!(rollout(&operator)["phase"], "rolled_back");
    assert_eq!(v2.upstream.count(), sent);
    operator.post("/v1/services/shop/rollout/retry", "").expect_ok();
    let again = wait_for(&operator, "at 25 % again", |rollout| rollout["share"] == 25.0);
    assert_eq!(again["attempt"], 2);
    drop(users);
}

/// Issue: one at 5 % that fails every request is gone after at most 6 failures.
#[test]
fn a_dead_candidate_is_gone_after_six_failures() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    v2.fails();
    let steps = "[{ share: 5%, hold: 1h }, { share: 100%, hold: 1s }]";
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan(steps), "").text());
    let operator = Operator::of(&gate);
    wait_for(&operator, "at 5 %", |rollout| rollout["share"] == 5.0);
    let (over, failed) = asked_until_rolled_back(&gate, &operator, &v2, &[200, 500]);
    assert!(failed <= 6, "{failed} requests, {over:#}");
    assert_eq!(over["cause"], "check");
}

#[test]
fn a_slow_candidate_pauses() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    // Far more than what a busy machine adds to both.
    v2.delay_ms.store(300, Ordering::Relaxed);
    let plan = judged(LONG, &format!("{ERRORS}, {LATENCY}"));
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan, "").text());
    let operator = Operator::of(&gate);
    let _users = Users::of(&gate);
    let paused = wait_for_phase(&operator, "paused");
    let told = paused["reason"].as_str().unwrap();
    assert!(told.contains("at p90 against"), "{told}");
    assert_eq!(paused["share"], 25.0, "a pause takes nothing back");
    // Weights that a person sets stay, and a resume goes on with less.
    operator.weights(90, 10).expect_ok();
    assert_eq!(rollout(&operator)["share"], 10.0);
    operator
        .post("/v1/services/shop/rollout/rollback", r#"{"reason":"too slow"}"#)
        .expect_ok();
    let over = rollout(&operator);
    assert_eq!(
        (over["phase"].as_str(), over["cause"].as_str()),
        (Some("rolled_back"), Some("command"))
    );
    gate.expect_metric("rollgate_version_share_target", &[("version", "v2")], 0.0);
}

#[test]
fn an_idle_service_holds() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan(QUICK), "").text());
    let operator = Operator::of(&gate);
    let waiting = wait_for(&operator, "waiting for evidence", |rollout| {
        rollout["waits_for"] == "evidence"
    });
    assert_eq!(
        (waiting["step"].as_u64(), waiting["phase"].as_str()),
        (Some(1), Some("progressing"))
    );
    thread::sleep(Duration::from_secs(2));
    let still = rollout(&operator);
    assert_eq!((still["step"].as_u64(), still["share"].as_f64()), (Some(1), Some(10.0)));
    assert!(
        still["checks"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("requests needed"),
        "{still:#}"
    );
}

#[test]
fn a_crash_in_mid_step_goes_on_and_edits_do_not_begin_again() {
    let (v1, v2, v3) = (Version::new("v1"), Version::new("v2"), Version::new("v3"));
    let text = config(v1.port(), v2.port(), &plan(LONG), "").text();
    let gate = Gate::start(&text);
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    // It is written every two seconds, and a busy disk has some to spare.
    wait_for(&operator, "seven seconds old", |rollout| {
        rollout["share"] == 25.0 && rollout["elapsed_s"].as_f64().unwrap() > 7.0
    });
    drop(users.end());
    let gate = gate.crash(&text);
    let operator = Operator::of(&gate);
    let now = rollout(&operator);
    assert_eq!(
        (now["share"].as_f64(), now["attempt"].as_u64(), now["step"].as_u64()),
        (Some(25.0), Some(1), Some(1))
    );
    assert!(now["elapsed_s"].as_f64().unwrap() > 2.0, "{now:#}");
    gate.expect_metric("rollgate_version_share_target", &[("version", "v2")], 25.0);
    // Another hold is no reason to begin again; a passed one lets it go on.
    let users = Users::of(&gate);
    gate.write_config(&text.replace("hold: 1h", "hold: 2s"), Write::Rename);
    wait_for_phase(&operator, "succeeded");
    assert_eq!(rollout(&operator)["attempt"], 1);
    // A candidate of another name is.
    let service = Service::new("shop")
        .stable("v1", 95, &[v1.port()])
        .canary("v3", 5, &[v3.port()])
        .never_eject()
        .key(&plan(LONG));
    gate.write_config(&Config::with(service).text(), Write::Rename);
    let begun = wait_for(&operator, "with v3", |rollout| {
        rollout["candidate"] == "v3" && rollout["share"] == 25.0
    });
    assert_eq!(begun["attempt"], 2);
    users.end_in_order();
}

#[test]
fn a_candidate_whose_endpoints_die_is_rolled_back_and_users_of_gets_see_nothing() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let rescue = "rescue: { methods: [GET], on: [connect, reset, timeout, 5xx] }";
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan(LONG), rescue).text());
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    wait_for(&operator, "at 25 %", |rollout| rollout["share"] == 25.0);
    eventually(PATIENCE, "the candidate has traffic", || v2.upstream.count() > 50);
    v2.upstream.kill();
    let over = wait_for_phase(&operator, "rolled_back");
    assert_eq!(over["cause"], "check", "{over:#}");
    users.end_in_order();
}

/// What breaks both is not the candidate's fault, and no time to go on.
#[test]
fn when_both_break_nothing_is_rolled_back_and_nothing_goes_on() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let steps = "[{ share: 30%, hold: 6s }, { share: 100%, hold: 1s }]";
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan(steps).replace("1000", "1000000"), "").text());
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    wait_for(&operator, "at 30 %", |rollout| rollout["share"] == 30.0);
    for version in [&v1, &v2] {
        version.fails();
    }
    eventually(PATIENCE, "many fail", || users.errors() > 300);
    let now = wait_for(&operator, "beyond its hold", |rollout| {
        rollout["failures"].as_u64().unwrap() > 50 && rollout["elapsed_s"].as_f64().unwrap() > 8.0
    });
    assert_eq!(
        (now["phase"].as_str(), now["share"].as_f64()),
        (Some("progressing"), Some(30.0)),
        "{now:#}"
    );
}

#[test]
fn another_process_goes_on_with_the_rollout() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan(LONG), "").text());
    let operator = Operator::of(&gate);
    // A connection may end with the old process, between two requests.
    let user = |number: u64| gate.get("/", &[("x-user", &number.to_string())]).status;
    wait_for(&operator, "at 25 %", |rollout| rollout["share"] == 25.0);
    for number in 0..400 {
        assert_eq!(user(number), 200);
    }
    let judged = |rollout: &Value| {
        rollout["checks"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("fails 0 % (0/")
    };
    wait_for(&operator, "judged", |rollout| {
        judged(rollout) && rollout["elapsed_s"].as_f64().unwrap() > 4.0
    });
    let before = gate.successors().len();
    gate.signal("USR2");
    eventually(PATIENCE, "another process serves", || gate.successors().len() > before);
    let now = wait_for(&operator, "judged by the new process", judged);
    assert_eq!(
        (now["attempt"].as_u64(), now["step"].as_u64(), now["share"].as_f64()),
        (Some(1), Some(1), Some(25.0))
    );
    assert!(now["elapsed_s"].as_f64().unwrap() > 2.0, "{now:#}");
    v2.fails();
    for number in 0..200 {
        user(number);
    }
    let over = wait_for_phase(&operator, "rolled_back");
    // The good requests of before count: one in a hundred and more has failed, not every one.
    let told = over["reason"].as_str().unwrap();
    let share = told
        .split_once("fails ")
        .unwrap()
        .1
        .split_once(" %")
        .unwrap()
        .0
        .parse::<f64>()
        .unwrap();
    assert!(share < 50.0, "{told}");
}

#[test]
fn a_kill_ends_a_rollout_and_unkill_gives_nothing_back() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan(LONG), "").text());
    let operator = Operator::of(&gate);
    let _users = Users::of(&gate);
    wait_for(&operator, "at 25 %", |rollout| rollout["share"] == 25.0);
    operator
        .put("/v1/services/shop/kill", r#"{"reason":"odd"}"#)
        .expect_ok();
    let over = rollout(&operator);
    assert_eq!(
        (over["phase"].as_str(), over["cause"].as_str()),
        (Some("rolled_back"), Some("killed"))
    );
    let refused = operator.post("/v1/services/shop/rollout/retry", "");
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(
        refused.body["detail"].as_str().unwrap().contains("kill switch"),
        "{}",
        refused.body
    );
    operator.delete("/v1/services/shop/kill").expect_ok();
    gate.expect_metric("rollgate_version_share_target", &[("version", "v2")], 0.0);
    // What was on its way to it when the kill came may yet arrive.
    eventually(PATIENCE, "nothing is sent to it any more", || {
        let served = v2.upstream.count();
        thread::sleep(Duration::from_millis(500));
        v2.upstream.count() == served
    });
}

#[test]
fn an_approval_is_asked_for_and_a_promote_skips_it() {
    let (v1, v2) = (Version::new("v1"), Version::new("v2"));
    let steps = "[{ share: 20%, hold: 1s, approval: true }, { share: 60%, hold: 1h }, { share: 100%, hold: 1h }]";
    let gate = Gate::start(&config(v1.port(), v2.port(), &plan(steps), "").text());
    let operator = Operator::of(&gate);
    let _users = Users::of(&gate);
    wait_for_phase(&operator, "waiting_approval");
    operator
        .post("/v1/services/shop/rollout/approve", r#"{"reason":"fine"}"#)
        .expect_ok();
    wait_for(&operator, "at 60 %", |rollout| rollout["share"] == 60.0);
    operator.post("/v1/services/shop/rollout/promote", "").expect_ok();
    let now = rollout(&operator);
    assert_eq!(
        (now["phase"].as_str(), now["share"].as_f64()),
        (Some("baking"), Some(100.0))
    );
    let twice = operator.post("/v1/services/shop/rollout/promote", "");
    assert_eq!(twice.status, 409, "{}", twice.body);
}

/// A version that writes `x-orders: 1` into one of `every` answers, and `0` into the others.
fn ordering(name: &str, every: u64) -> Upstream {
    let turn = AtomicU64::new(0);
    Upstream::with(name, move |exchange| {
        let is_order = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(every);
        exchange.answer(200, &[("x-orders", if is_order { "1" } else { "0" })], b"hello")
    })
}

#[test]
fn a_candidate_that_sells_less_is_rolled_back_by_the_applications_own_numbers() {
    let (v1, v2) = (ordering("v1", 2), ordering("v2", 10));
    let plan = "rollout: { steps: [{ share: 50%, hold: 1h }], analysis: { min_requests: 10, metrics: { orders: { from_header: \
                x-orders, worse: lower } }, checks: [{ metric: orders, compared_to: stable, tolerance: 5%, on_fail: rollback }] } }";
    let gate = Gate::start(&config(v1.port(), v2.port(), plan, "").text());
    let operator = Operator::of(&gate);
    let users = Users::of(&gate);
    let over = wait_for_phase(&operator, "rolled_back");
    assert_eq!(over["cause"], "check");
    let told = over["reason"].as_str().unwrap();
    assert!(told.contains("orders"), "{told}");
    users.end_in_order();
    assert_eq!(gate.get("/", &[]).header("x-orders"), None);
}

#[test]
fn how_versions_differ_in_a_number_that_no_check_asks_for_is_said_and_nothing_follows() {
    let (v1, v2) = (ordering("v1", 2), ordering("v2", 10));
    let plan = "rollout: { steps: [{ share: 50%, hold: 1s, approval: true }], analysis: { min_requests: 10, metrics: { orders: { \
                from_header: x-orders, worse: lower } } } }";
    let gate = Gate::start(&config(v1.port(), v2.port(), plan, "").text());
    let operator = Operator::of(&gate);
    let _users = Users::of(&gate);
    let told = wait_for(&operator, "significant", |rollout| {
        let reason = rollout["checks"][0]["reason"].as_str().unwrap_or_default();
        reason.contains("more orders than v1") && reason.ends_with(": significant")
    });
    let check = &told["checks"][0];
    assert_eq!(
        (&check["metric"], &check["verdict"], &check["on_fail"]),
        (&"orders".into(), &"pass".into(), &"nothing".into())
    );
    wait_for_phase(&operator, "waiting_approval");
}
