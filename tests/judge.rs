//! The judge over whole rollouts in virtual time, against a world in which the truth is known. A small version of
//! `cargo bench --bench judge`, with the same seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod judging;

use judging::rules::{Flagger, NAMES, PeekedZ, Ratio, Rollgate, errors_compared, p99_compared, rules};
use judging::world::{Course, IDENTICAL, RAMP_WITH_DRIFT, World};
use judging::{Figures, NewRule, judge};
use rollgate::analysis::{Arm, Judge, Observed, Verdict, Window};
use std::time::Duration;

const ERRORS: NewRule = || Box::new(Rollgate::new(rules(0.95, vec![errors_compared()])));
const ERRORS_AND_P99: NewRule = || Box::new(Rollgate::new(rules(0.95, vec![errors_compared(), p99_compared()])));
/// What a confidence of 95 % leaves; about 2 % is found.
const ALLOWED: f64 = 0.05;

fn at(rate: f64, world: World) -> World {
    World { rate, ..world }
}

fn only(figures: Vec<Figures>) -> Figures {
    assert_eq!(figures.len(), 1);
    figures[0]
}

#[test]
fn identical_versions_are_not_rolled_back_by_errors() {
    let runs = 300;
    let ramp = World {
        with_latency: false,
        ..RAMP_WITH_DRIFT
    };
    for rate in [2.0, 50.0, 1_000.0] {
        for world in [IDENTICAL, ramp] {
            let found = only(judge(&at(rate, world), runs, 5.0, &[ERRORS]));
            println!("{rate}/s: {found:?}");
            assert!(found.share() <= ALLOWED, "{rate}/s: {found:?}");
        }
    }
}

#[test]
fn identical_versions_are_not_rolled_back_by_errors_or_latency() {
    let runs = 40;
    let steady = World {
        with_latency: true,
        ..IDENTICAL
    };
    for rate in [2.0, 50.0] {
        for world in [steady, RAMP_WITH_DRIFT] {
            let found = only(judge(&at(rate, world), runs, 10.0, &[ERRORS_AND_P99]));
            println!("{rate}/s: {found:?}");
            assert!(found.share() <= ALLOWED, "{rate}/s: {found:?}");
        }
    }
}

/// What the field does, in the same world: this is what the bounds above are worth.
#[test]
fn other_rules_roll_identical_versions_back() {
    let others: [NewRule; 3] = [
        || Box::new(Flagger::new(1, 400.0)),
        || Box::new(Ratio::default()),
        || Box::new(PeekedZ::default()),
    ];
    for found in judge(&at(50.0, IDENTICAL), 100, 10.0, &others) {
        assert!(found.share() >= 0.15, "{found:?}");
    }
}

#[test]
fn regressions_are_found_and_sooner_than_by_five_failed_minutes() {
    let runs = 100;
    let regressions: [(f64, Course, f64, f64); 5] = [
        (50.0, |_| 2.0, 0.95, 9.0),
        (50.0, |_| 5.0, 1.0, 2.0),
        (1_000.0, |_| 2.0, 1.0, 1.0),
        (2.0, |_| 5.0, 0.6, 17.0),
        (2.0, |_| 20.0, 1.0, 4.0),
    ];
    for (rate, errors_times, share, minutes) in regressions {
        let world = World {
            rate,
            errors_times,
            ..IDENTICAL
        };
        let figures = judge(&world, runs, 5.0, &[ERRORS, || Box::new(Flagger::new(5, 400.0))]);
        let (ours, flagger) = (figures[0], figures[1]);
        println!("{rate}/s: {ours:?}, {flagger:?}");
        assert!(ours.share() >= share, "{rate}/s: {ours:?}");
        let median = ours.median_seconds.unwrap();
        assert!(
            median <= minutes * 60.0 && median <= flagger.median_seconds.unwrap(),
            "{rate}/s: {ours:?}, {flagger:?}"
        );
    }
}

#[test]
fn a_slower_candidate_is_found() {
    let world = World {
        latency_times: 1.5,
        with_latency: true,
        ..IDENTICAL
    };
    let found = only(judge(&world, 40, 10.0, &[ERRORS_AND_P99]));
    println!("{found:?}");
    assert!(
        found.share() == 1.0 && found.median_seconds.unwrap() <= 180.0,
        "{found:?}"
    );
}

/// A fault that begins after twenty good minutes is found as fast as if the minutes had not been.
#[test]
fn a_late_fault_is_found_within_seconds() {
    let world = World {
        errors_times: |at| if at < 1_200.0 { 1.0 } else { 200.0 },
        rate: 200.0,
        ..IDENTICAL
    };
    let found = only(judge(&world, 30, 1.0, &[ERRORS]));
    println!("{found:?}");
    assert!(
        found.share() == 1.0 && found.median_seconds.unwrap() <= 1_202.0,
        "{found:?}"
    );
}

/// A candidate that fails every request at a share of 5 %, judged after each, at a confidence of 99 %.
#[test]
fn six_failures_in_a_row_convict() {
    let observed = |requests: u64, bad: u64| Observed {
        requests: Arm {
            begun: requests,
            ended: requests,
            bad,
        },
        ..Observed::default()
    };
    let (none, failed, others) = (observed(0, 0), observed(1, 1), observed(19, 0));
    let window = |candidate, stable| Window {
        candidate,
        forced: &none,
        stable,
        share: 0.05,
        warming: true,
        mirrored: false,
    };
    let mut judge = Judge::new(rules(0.99, vec![errors_compared()]));
    judge.tick(&window(&none, &none), Duration::from_secs(1));
    let convicted = (1..=6).find(|_| {
        judge.burst(&window(&failed, &others));
        judge.findings(NAMES)[0].verdict == Verdict::Fail
    });
    assert!(convicted.is_some(), "{:?}", judge.findings(NAMES));
}
