//! What an operator changes while requests flow: in force when the answer arrives, there after a kill -9.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Config, Gate, Operator, PATIENCE, Service, Stop, Upstream, eventually};

/// A gate that keeps its state, before two upstreams that tell their names.
fn gate(v1: &Upstream, v2: &Upstream) -> Gate {
    Gate::start(&config(v1, v2))
}

fn config(v1: &Upstream, v2: &Upstream) -> String {
    let service = Service::split(v1.port(), 90, v2.port(), 10).never_eject();
    Config::with(service).top("state_dir: state").text()
}

/// 64 connections, and changes of the weights beneath them: no request sent after an answer is routed the old way.
#[test]
fn when_the_answer_arrives_no_request_is_routed_the_old_way() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let gate = gate(&v1, &v2);
    let operator = Operator::of(&gate);
    // Which version must serve what is sent from now on: 0 while a change is under way.
    let (must, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (stale, checked) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let mut client = gate.client();
                while !stop.load(Ordering::SeqCst) {
                    let before = must.load(Ordering::SeqCst);
                    let served = client.get("/", &[]).text();
                    // A change that began meanwhile may have been in force or not.
                    if before == 0 || must.load(Ordering::SeqCst) != before {
                        continue;
                    }
                    checked.fetch_add(1, Ordering::SeqCst);
                    if served != format!("v{}", before % 10) {
                        stale.lock().unwrap().push((before, served));
                    }
                }
            });
        }
        // Also when this thread panics: the others must end.
        let _stop = Stop(&stop);
        for change in 0..60_u64 {
            must.store(0, Ordering::SeqCst);
            let version = 1 + change % 2;
            match change % 6 {
                // Killed with everything on v2: all of it goes to v1.
                4 => operator.put("/v1/services/shop/kill", "{}").expect_ok(),
                5 => operator.delete("/v1/services/shop/kill").expect_ok(),
                _ => operator
                    .weights(100 * (2 - version as u32), 100 * (version as u32 - 1))
                    .expect_ok(),
            };
            // After `unkill` the weights from before hold: those of the fourth change, all on v2.
            must.store(10 * (change + 1) + version, Ordering::SeqCst);
            let before = checked.load(Ordering::SeqCst);
            eventually(PATIENCE, "it is checked", || {
                checked.load(Ordering::SeqCst) > before + 20
            });
        }
    });
    let stale = stale.into_inner().unwrap();
    let checked = checked.load(Ordering::SeqCst);
    assert!(
        stale.is_empty(),
        "{} of {checked} were stale: {:?}",
        stale.len(),
        &stale[..stale.len().min(5)]
    );
}

#[test]
fn a_kill_survives_a_kill_nine_and_a_bad_file_and_unkill_gives_back_what_was_in_force() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let gate = gate(&v1, &v2);
    let operator = Operator::of(&gate);
    operator.weights(0, 100).expect_ok();
    assert_eq!(gate.get("/", &[]).text(), "v2");
    let killed = operator
        .put("/v1/services/shop/kill", r#"{"reason":"it burns"}"#)
        .expect_ok();
    assert_eq!(killed["durable"], true, "{killed}");
    let before = killed["generation"].as_u64().unwrap();
    assert_eq!(gate.get("/", &[]).text(), "v1");
    gate.write_config("services: [broken", support::Write::Rename);
    let gate = gate.crash(&config(&v1, &v2));
    let operator = Operator::of(&gate);
    assert_eq!(gate.get("/", &[]).text(), "v1");
    let status = operator.get("/v1/services/shop").expect_ok();
    assert_eq!(
        (&status["killed"], &status["kill"]["reason"]),
        (&true.into(), &"it burns".into()),
        "{status}"
    );
    // No generation is given twice: who expects the one from before the crash is told that it is stale.
    let stale = [("if-match", &*format!("\"{before}\""))];
    let told = operator.ask("DELETE", "/v1/services/shop/kill", &stale, "").unwrap();
    assert_eq!(told.status, 412, "{}", told.body);
    let unkilled = operator.delete("/v1/services/shop/kill").expect_ok();
    assert!(unkilled["generation"].as_u64().unwrap() > before + 1, "{unkilled}");
    assert_eq!(gate.get("/", &[]).text(), "v2");
    let events = operator.get("/v1/events?limit=1000").expect_ok();
    let kinds: Vec<&str> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    for kind in ["weights", "kill", "unkill"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}

/// Changes one after another, and the process is killed at a random instant: what was last answered, or what was asked
/// for after it, is there afterwards. Two hundred times.
#[test]
fn what_was_answered_is_there_after_a_kill_nine_at_any_instant() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let text = config(&v1, &v2);
    let mut gate = Gate::start(&text);
    let mut random = fastrand::Rng::with_seed(7);
    // The last weight of v2 that was answered, and the one asked for after it.
    let (mut answered, mut asked) = (10_u32, 10_u32);
    for round in 0..200 {
        let operator = Operator::of(&gate);
        let (last, next) = (AtomicU64::new(u64::from(answered)), AtomicU64::new(u64::from(asked)));
        let (changes, then) = (random.u64(0..8), Duration::from_micros(random.u64(0..10_000)));
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| {
                for weight in asked + 1.. {
                    next.store(u64::from(weight), Ordering::SeqCst);
                    match operator.try_weights(1000, weight) {
                        Some(200) => last.store(u64::from(weight), Ordering::SeqCst),
                        // The process has gone; or the disk was too slow, and nothing changed.
                        None | Some(503) => return,
                        Some(status) => panic!("round {round}: {status}"),
                    }
                }
            });
            eventually(PATIENCE, "so many changes are answered", || {
                changing.is_finished() || last.load(Ordering::SeqCst) >= u64::from(asked) + changes
            });
            let began = Instant::now();
            while began.elapsed() < then {
                std::hint::spin_loop();
            }
            gate.signal("KILL");
        });
        (answered, asked) = (last.load(Ordering::SeqCst) as u32, next.load(Ordering::SeqCst) as u32);
        gate = gate.crash(&text);
        let status = Operator::of(&gate).get("/v1/services/shop").expect_ok();
        let found = status["versions"][1]["weight"].as_u64().unwrap() as u32;
        assert!(
            found == answered || found == asked,
            "round {round}: {found}, answered {answered}, asked {asked}"
        );
        (answered, asked) = (found, asked.max(found));
    }
    assert!(asked > 300, "only {asked} changes");
}
