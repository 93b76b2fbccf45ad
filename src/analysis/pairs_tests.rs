//! Copies beside their originals: [`Window::mirrored`].

use super::tests::{NAMES, every_kind, judge, observed};
use super::*;
use crate::analysis::{Test, Verdict};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn window<'w>(candidate: &'w Observed, stable: &'w Observed, forced: &'w Observed) -> Window<'w> {
    Window {
        candidate,
        forced,
        stable,
        share: Window::SHARE_OF_PAIRS,
        warming: false,
        mirrored: true,
    }
}

fn verdicts(judge: &Judge) -> Vec<Verdict> {
    judge.findings(NAMES).iter().map(|finding| finding.verdict).collect()
}

/// Without the application's numbers, which copies do not bring.
fn copies(requests: u64, failed: u64, us: u64) -> Observed {
    Observed {
        values: vec![Moments::default()],
        ..observed(requests, failed, us)
    }
}

#[test]
fn good_copies_pass_every_check_and_numbers_of_the_application_hold_nothing_up() {
    let mut judge = judge(every_kind());
    let none = Observed::default();
    let (copy, original) = (copies(20, 0, 100_000), copies(20, 0, 100_000));
    for seconds in 1..=60 {
        judge.tick(&window(&copy, &original, &none), SECOND);
        let expected = if seconds < 10 {
            Verdict::NoEvidence
        } else {
            Verdict::Pass
        };
        assert_eq!(
            verdicts(&judge)[..6],
            [expected; 6],
            "{seconds} s: {:#?}",
            judge.findings(NAMES)
        );
    }
    let reason = &judge.findings(NAMES)[4].reason;
    assert!(
        reason.contains("basket is not taken from the answers to copies"),
        "{reason}"
    );
}

#[test]
fn copies_that_fail_or_are_slow_are_convicted_by_comparisons_and_limits() {
    let none = Observed::default();
    let mut failing = judge(every_kind());
    failing.tick(&window(&copies(0, 0, 1), &copies(0, 0, 1), &none), SECOND);
    let (copy, original) = (copies(1, 1, 100_000), copies(1, 0, 100_000));
    let convicted = (1..30).find(|_| {
        failing.burst(&window(&copy, &original, &none));
        verdicts(&failing)[0] == Verdict::Fail
    });
    assert!(convicted.is_some_and(|copies| copies <= 16), "{convicted:?}");
    assert_eq!(verdicts(&failing)[2], Verdict::Fail);
    let mut slow = judge(every_kind());
    for _ in 0..60 {
        slow.tick(&window(&copies(20, 0, 600_000), &copies(20, 0, 100_000), &none), SECOND);
    }
    let found = verdicts(&slow);
    assert_eq!(
        (found[0], found[1], found[2], found[3]),
        (Verdict::Pass, Verdict::Fail, Verdict::Pass, Verdict::Fail)
    );
}

#[test]
fn what_follows_a_mirror_step_has_thresholds_of_its_own() {
    let none = Observed::default();
    let (quantile, tolerance) = (0.9, 0.2);
    let mut judge = judge(vec![Check {
        metric: "latency_p90".to_owned(),
        test: Test::LatencyCompared { quantile, tolerance },
    }]);
    for _ in 0..60 {
        judge.tick(&window(&copies(50, 0, 10_000), &copies(50, 0, 10_000), &none), SECOND);
    }
    judge.begin_step();
    // Whole answers take longer than their first bytes, and of the candidate's half of them a little more than stable's.
    let mut stable = Observed::default();
    let mut candidate = Observed::default();
    for request in 0..200 {
        stable.durations.record(if request % 2 == 0 { 20_000 } else { 100_000 });
        candidate
            .durations
            .record(if request % 2 == 0 { 30_000 } else { 100_000 });
    }
    (stable.requests.begun, stable.requests.ended) = (200, 200);
    candidate.requests = stable.requests;
    for _ in 0..300 {
        let users = Window {
            share: 0.5,
            mirrored: false,
            ..window(&candidate, &stable, &none)
        };
        judge.tick(&users, SECOND);
    }
    assert_eq!(verdicts(&judge), [Verdict::Pass], "{:#?}", judge.findings(NAMES));
}

#[test]
fn the_share_of_pairs_does_not_outlast_the_step() {
    let none = Observed::default();
    let mut judge = judge(vec![every_kind().swap_remove(0)]);
    for _ in 0..60 {
        judge.tick(&window(&copies(20, 0, 1), &copies(20, 0, 1), &none), SECOND);
    }
    judge.begin_step();
    let (failed, others) = (copies(1, 1, 1), copies(99, 0, 1));
    let users = Window {
        share: 0.01,
        mirrored: false,
        ..window(&failed, &others, &none)
    };
    let convicted = (1..=8).find(|_| {
        judge.burst(&users);
        verdicts(&judge) == [Verdict::Fail]
    });
    assert!(convicted.is_some(), "{:#?}", judge.findings(NAMES));
}

#[test]
fn statuses_are_compared_where_requests_are_copied_and_hold_nothing_up_elsewhere() {
    let none = Observed::default();
    let limit = 0.02;
    let check = || Check {
        metric: "mismatch_rate".to_owned(),
        test: Test::MismatchesAtMost { limit },
    };
    let mismatched = |copies: Observed, mismatched| Observed { mismatched, ..copies };
    let run = |each: u64, seconds| {
        let mut judge = judge(vec![check()]);
        for _ in 0..seconds {
            let copy = mismatched(copies(50, 0, 1), each);
            judge.tick(&window(&copy, &copies(50, 0, 1), &none), SECOND);
        }
        judge
    };
    assert_eq!(verdicts(&run(0, 3)), [Verdict::NoEvidence]);
    assert_eq!(verdicts(&run(0, 60)), [Verdict::Pass]);
    let many = run(5, 60);
    let finding = &many.findings(NAMES)[0];
    assert_eq!(finding.verdict, Verdict::Fail);
    assert!(
        finding
            .reason
            .contains("v2 answers 10 % (300/3000) of its copies with another status than v1, at most 2 % may"),
        "{finding:?}"
    );
    // What follows has no copies, whatever comes.
    let mut good = run(0, 60);
    good.begin_step();
    let users = |share| Window {
        share,
        mirrored: false,
        ..window(&none, &none, &none)
    };
    good.tick(&users(0.1), SECOND);
    assert_eq!(verdicts(&good), [Verdict::NoEvidence], "it needs its requests");
    let seen = mismatched(copies(300, 0, 1), 300);
    good.tick(
        &Window {
            candidate: &seen,
            stable: &seen,
            ..users(0.1)
        },
        SECOND,
    );
    assert_eq!(verdicts(&good), [Verdict::Pass], "{:#?}", good.findings(NAMES));
}

/// A generator of our own: the same draws on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, chance: f64) -> bool {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 / (1_u64 << 53) as f64) < chance
    }
}

/// Of a candidate that fails as often as stable, with failures that come at once and good answers that take seconds, and
/// requests that are bad by themselves: how many of `runs` are convicted, looked at after each second and each failure.
fn false_alarms(runs: u64, alone: f64, both: f64, confidence: f64) -> u64 {
    let convicted = |run: u64| {
        let mut dice = Dice(run.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 77);
        let mut judge = Judge::new(Rules {
            confidence,
            min_requests: 10,
            checks: vec![Check {
                metric: "error_rate".to_owned(),
                test: Test::ErrorsCompared { tolerance: 0.0 },
            }],
        });
        let none = Observed::default();
        let arm = |begun, ended, bad| Observed {
            requests: Arm { begun, ended, bad },
            ..Observed::default()
        };
        // Copies that end well do so four seconds later.
        let mut good = std::collections::VecDeque::from([0_u64; 4]);
        (0..120).any(|_| {
            let (mut failed, mut failed_originals, mut later) = (0, 0, 0);
            for _ in 0..20 {
                let bad = dice.below(both);
                failed_originals += u64::from(bad | dice.below(alone));
                let copy = bad | dice.below(alone);
                failed += u64::from(copy);
                later += u64::from(!copy);
            }
            let original = arm(20, 20, failed_originals);
            judge.burst(&window(&arm(20, failed, failed), &original, &none));
            let by_burst = verdicts(&judge)[0] == Verdict::Fail;
            good.push_back(later);
            let ended = good.pop_front().unwrap_or_default();
            judge.tick(&window(&arm(0, ended, 0), &none, &none), SECOND);
            by_burst || verdicts(&judge)[0] == Verdict::Fail
        })
    };
    (0..runs).filter(|run| convicted(*run)).count() as u64
}

#[test]
fn a_candidate_as_good_as_stable_is_convicted_no_more_often_than_the_confidence_allows() {
    for (alone, both) in [(0.01, 0.0), (0.0, 0.05), (0.05, 0.2), (0.2, 0.0)] {
        let alarms = false_alarms(300, alone, both, 0.9);
        assert!(alarms <= 30, "{alarms} of 300 with {alone} alone and {both} of both");
    }
}

proptest! {
    /// The inequality of [`crate::analysis::evidence`] on pairs, whatever hangs together in them.
    #[test]
    fn a_pair_within_the_tolerance_is_expected_to_gain_nothing(
        ratio in 1.01_f64..50.0, tolerance in 0.0_f64..2.0, both in 0.0_f64..0.5, original in 0.0_f64..0.2, part in 0.0_f64..=1.0,
    ) {
        let copy = part * ((1.0 + tolerance) * (both + original) - both).max(0.0).min(1.0 - both - original);
        let null = (1.0 + tolerance) / (2.0 + tolerance);
        let denominator = 1.0 + null * (ratio - 1.0);
        let expected = (1.0 - both - original - copy)
            + copy * ratio / denominator
            + original / denominator
            + both * ratio / (denominator * denominator);
        prop_assert!(expected <= 1.0 + 1e-9, "{expected}");
    }
}
