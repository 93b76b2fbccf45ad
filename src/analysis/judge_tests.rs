use super::*;
use crate::analysis::{Limits, Test, Verdict, Worse};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
pub(super) const NAMES: Names<'static> = Names {
    candidate: "v2",
    stable: "v1",
};

fn check(metric: &str, test: Test) -> Check {
    Check {
        metric: metric.to_owned(),
        test,
    }
}

fn errors_compared() -> Check {
    check("error_rate", Test::ErrorsCompared { tolerance: 0.1 })
}

fn p99_compared() -> Check {
    let (quantile, tolerance) = (0.99, 0.2);
    check("latency_p99", Test::LatencyCompared { quantile, tolerance })
}

fn errors_at_most() -> Check {
    check("error_rate", Test::ErrorsAtMost { limit: 0.02 })
}

fn p99_at_most() -> Check {
    let (quantile, limit_us) = (0.99, 500_000);
    check("latency_p99", Test::LatencyAtMost { quantile, limit_us })
}

fn outside() -> Check {
    let limits = Limits {
        min: Some(10.0),
        max: None,
    };
    let fresh_for = Duration::from_secs(90);
    check("conversion", Test::OutsideWithin { limits, fresh_for })
}

pub(super) fn every_kind() -> Vec<Check> {
    let basket = Limits {
        min: Some(20.0),
        max: Some(60.0),
    };
    let lower = |value| Test::MeanCompared {
        value,
        worse: Worse::Lower,
        tolerance: 0.05,
    };
    vec![
        errors_compared(),
        p99_compared(),
        errors_at_most(),
        p99_at_most(),
        check("basket", lower(0)),
        check(
            "basket",
            Test::MeanWithin {
                value: 0,
                limits: basket,
            },
        ),
        outside(),
    ]
}

pub(super) fn judge(checks: Vec<Check>) -> Judge {
    Judge::new(Rules {
        confidence: 0.99,
        min_requests: 200,
        checks,
    })
}

/// Of `requests`, so many failed; each took `us`, give or take, and had a basket of about 40.
pub(super) fn observed(requests: u64, failed: u64, us: u64) -> Observed {
    let mut durations = Histogram::default();
    let mut basket = Moments::default();
    for request in 0..requests {
        durations.record(us + us * (request % 10) / 20);
        basket.record(30.0 + 2.0 * (request % 11) as f64);
    }
    Observed {
        requests: Arm {
            begun: requests,
            ended: requests,
            bad: failed,
        },
        mismatched: 0,
        durations,
        values: vec![basket],
    }
}

/// A window of a tenth for the candidate, and nothing forced.
struct Seen {
    candidate: Observed,
    forced: Observed,
    stable: Observed,
    share: f64,
    warming: bool,
    mirrored: bool,
}

impl Seen {
    fn new(candidate: Observed, stable: Observed) -> Self {
        Self {
            candidate,
            forced: Observed::default(),
            stable,
            share: 0.1,
            warming: false,
            mirrored: false,
        }
    }

    fn window(&self) -> Window<'_> {
        Window {
            candidate: &self.candidate,
            forced: &self.forced,
            stable: &self.stable,
            share: self.share,
            warming: self.warming,
            mirrored: self.mirrored,
        }
    }
}

fn verdicts(judge: &Judge) -> Vec<Verdict> {
    judge.findings(NAMES).iter().map(|finding| finding.verdict).collect()
}

/// A second of good traffic: 20 requests of the candidate, 180 of stable.
fn good() -> Seen {
    Seen::new(observed(20, 0, 100_000), observed(180, 1, 100_000))
}

fn run(judge: &mut Judge, seen: &Seen, seconds: u32) {
    (0..seconds).for_each(|_| judge.tick(&seen.window(), SECOND));
}

#[test]
fn nothing_seen_is_no_evidence_and_so_is_no_traffic() {
    let mut judge = judge(every_kind());
    assert_eq!(verdicts(&judge), vec![Verdict::NoEvidence; 7]);
    run(&mut judge, &Seen::new(Observed::default(), Observed::default()), 3_600);
    run(
        &mut judge,
        &Seen::new(Observed::default(), observed(100, 50, 100_000)),
        3_600,
    );
    assert_eq!(verdicts(&judge), vec![Verdict::NoEvidence; 7]);
}

#[test]
fn a_good_candidate_passes_every_check_once_it_has_its_requests() {
    let mut judge = judge(every_kind());
    run(&mut judge, &good(), 9);
    judge.outside(6, Ok(12.0));
    assert_eq!(verdicts(&judge), vec![Verdict::NoEvidence; 7]);
    run(&mut judge, &good(), 2);
    assert_eq!(verdicts(&judge), vec![Verdict::Pass; 7], "{:#?}", judge.findings(NAMES));
    judge.begin_step();
    assert_eq!(verdicts(&judge), vec![Verdict::NoEvidence; 7], "each step anew");
}

#[test]
fn a_bad_candidate_fails_each_check_and_only_those_it_violates() {
    let failing = Seen::new(observed(20, 4, 100_000), observed(180, 1, 100_000));
    let slow = Seen::new(observed(20, 0, 700_000), observed(180, 1, 100_000));
    for (seen, failed) in [(failing, [0, 2]), (slow, [1, 3])] {
        let mut judge = judge(every_kind());
        run(&mut judge, &seen, 60);
        let found: Vec<_> = verdicts(&judge)
            .iter()
            .enumerate()
            .filter(|(_, v)| **v == Verdict::Fail)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(found, failed, "{:#?}", judge.findings(NAMES));
    }
    let mut poor = good();
    poor.candidate.values[0].sum /= 3.0;
    poor.candidate.values[0].sum_of_squares /= 9.0;
    let mut judge = judge(every_kind());
    run(&mut judge, &poor, 60);
    judge.outside(6, Ok(8.0));
    assert_eq!(
        verdicts(&judge)[4..],
        [Verdict::Fail; 3],
        "{:#?}",
        judge.findings(NAMES)
    );
}

#[test]
fn a_burst_convicts_between_two_ticks() {
    let mut judge = judge(vec![errors_compared(), errors_at_most(), p99_compared(), p99_at_most()]);
    let mut none = Seen::new(Observed::default(), Observed::default());
    none.share = 0.05;
    judge.tick(&none.window(), SECOND);
    let mut one = Seen::new(observed(1, 1, 100_000), observed(19, 0, 100_000));
    one.share = 0.05;
    let requests = (1..=6).find(|_| {
        judge.burst(&one.window());
        judge.findings(NAMES)[0].verdict == Verdict::Fail
    });
    assert!(requests.is_some(), "{:#?}", judge.findings(NAMES));
}

#[test]
fn in_warm_up_latency_does_not_count_and_failures_do() {
    let mut judge = judge(vec![errors_compared(), p99_compared(), errors_at_most(), p99_at_most()]);
    let mut seen = Seen::new(observed(20, 4, 900_000), observed(180, 1, 100_000));
    seen.warming = true;
    run(&mut judge, &seen, 60);
    assert_eq!(
        verdicts(&judge),
        [Verdict::Fail, Verdict::NoEvidence, Verdict::Fail, Verdict::NoEvidence]
    );
    let reason = &judge.findings(NAMES)[3].reason;
    assert!(reason.contains("0 of the 200 requests"), "{reason}");
}

#[test]
fn what_was_forced_counts_for_limits_alone() {
    let mut judge = judge(vec![errors_compared(), errors_at_most(), p99_compared(), p99_at_most()]);
    let mut seen = good();
    seen.forced = observed(50, 20, 900_000);
    run(&mut judge, &seen, 60);
    assert_eq!(
        verdicts(&judge),
        [Verdict::Pass, Verdict::Fail, Verdict::Pass, Verdict::Fail]
    );
}

#[test]
fn a_ring_needs_its_requests_and_is_not_held_up_by_comparisons() {
    let mut judge = judge(vec![errors_compared(), p99_compared(), errors_at_most()]);
    let mut seen = Seen::new(Observed::default(), observed(180, 1, 100_000));
    seen.share = 0.0;
    seen.forced = observed(10, 0, 100_000);
    run(&mut judge, &seen, 19);
    assert_eq!(verdicts(&judge), [Verdict::NoEvidence; 3]);
    run(&mut judge, &seen, 1);
    assert_eq!(verdicts(&judge), [Verdict::Pass; 3], "{:#?}", judge.findings(NAMES));
}

#[test]
fn all_traffic_on_the_candidate_rests_on_the_comparison_before() {
    let mut whole = Seen::new(observed(200, 1, 100_000), Observed::default());
    whole.share = 1.0;
    let mut fresh = judge(vec![errors_compared(), p99_compared()]);
    run(&mut fresh, &whole, 60);
    assert_eq!(verdicts(&fresh), [Verdict::NoEvidence; 2], "never compared");
    let reason = &fresh.findings(NAMES)[0].reason;
    assert!(reason.contains("v1 has no traffic to compare with"), "{reason}");
    let mut compared = judge(vec![errors_compared(), p99_compared()]);
    run(&mut compared, &good(), 60);
    compared.begin_step();
    run(&mut compared, &whole, 60);
    assert_eq!(
        verdicts(&compared),
        [Verdict::Pass; 2],
        "{:#?}",
        compared.findings(NAMES)
    );
}

#[test]
fn stable_must_have_traffic_too() {
    let mut judge = judge(vec![errors_compared()]);
    run(
        &mut judge,
        &Seen::new(observed(20, 0, 100_000), Observed::default()),
        60,
    );
    assert_eq!(verdicts(&judge), [Verdict::NoEvidence]);
    let reason = &judge.findings(NAMES)[0].reason;
    assert!(reason.contains("v1 has had 0 of the 200 requests"), "{reason}");
}

#[test]
fn a_doubtful_candidate_neither_passes_nor_fails() {
    let mut judge = judge(vec![errors_compared()]);
    let mut once = good();
    once.candidate.requests.bad = 7;
    judge.tick(&once.window(), SECOND);
    run(&mut judge, &good(), 10);
    let finding = &judge.findings(NAMES)[0];
    assert_eq!(finding.verdict, Verdict::NoEvidence, "{finding:?}");
    assert!(finding.reason.contains("doubtful"), "{finding:?}");
    run(&mut judge, &good(), 120);
    assert_eq!(verdicts(&judge), [Verdict::Pass], "doubts go");
}

#[test]
fn numbers_from_elsewhere_count_when_they_are_fresh_and_the_candidate_has_traffic() {
    let mut judge = judge(vec![outside(), errors_compared()]);
    let verdict = |judge: &Judge| judge.findings(NAMES)[0].verdict;
    judge.outside(0, Ok(3.0));
    assert_eq!(verdict(&judge), Verdict::NoEvidence, "of no requests");
    run(&mut judge, &good(), 20);
    assert_eq!(verdict(&judge), Verdict::Fail);
    judge.outside(0, Ok(10.0));
    assert_eq!(verdict(&judge), Verdict::Pass);
    run(&mut judge, &good(), 90);
    assert_eq!(verdict(&judge), Verdict::Pass);
    run(&mut judge, &good(), 1);
    assert_eq!(verdict(&judge), Verdict::NoEvidence, "stale");
    judge.outside(0, Err("é".repeat(1_000)));
    assert_eq!(verdict(&judge), Verdict::Error);
    assert!(judge.findings(NAMES)[0].reason.chars().count() < 400);
    judge.outside(0, Ok(f64::NAN));
    assert_eq!(verdict(&judge), Verdict::Error);
    judge.outside(0, Ok(10.0));
    judge.outside(1, Ok(0.0));
    judge.outside(7, Ok(0.0));
    assert_eq!(verdict(&judge), Verdict::Pass, "other checks take no numbers");
    judge.begin_step();
    run(&mut judge, &good(), 20);
    assert_eq!(verdict(&judge), Verdict::NoEvidence, "asked anew in each step");
}

#[test]
fn an_edit_of_the_checks_keeps_the_evidence_of_those_that_stay() {
    let mut edited = judge(vec![errors_compared(), p99_compared(), outside()]);
    run(
        &mut edited,
        &Seen::new(observed(20, 4, 100_000), observed(180, 1, 100_000)),
        60,
    );
    let mut rules = edited.rules().clone();
    rules.checks = vec![
        p99_at_most(),
        errors_compared(),
        check("error_rate", Test::ErrorsCompared { tolerance: 0.2 }),
    ];
    edited.adopt(rules.clone());
    assert_eq!(edited.rules(), &rules);
    assert_eq!(verdicts(&edited)[1], Verdict::Fail, "as before");
    let other = edited.findings(NAMES)[2].evidence.unwrap();
    assert!(
        (other - 1.0).abs() < 1e-9,
        "another tolerance is another check: {other}"
    );
}

#[test]
fn a_report_says_how_the_versions_differ_and_nothing_follows() {
    let mut judge = judge(vec![check("basket", Test::MeanReported { value: 0 })]);
    assert!((judge.rules().needed() - 100.0).abs() < 1e-9);
    let told = |judge: &Judge| {
        let finding = judge.findings(NAMES).remove(0);
        assert_eq!((finding.verdict, finding.evidence), (Verdict::Pass, None));
        finding.reason
    };
    assert_eq!(told(&judge), "too few values of basket to say how the versions differ");
    // Baskets of 40 on an average, of both.
    let same = || Seen::new(observed(22, 0, 100_000), observed(198, 0, 100_000));
    run(&mut judge, &same(), 600);
    assert!(told(&judge).ends_with(": not significant"), "{}", told(&judge));
    let mut worse = same();
    worse.candidate.values = vec![Moments {
        count: 22,
        sum: 110.0,
        sum_of_squares: 700.0,
    }];
    run(&mut judge, &worse, 600);
    let reason = told(&judge);
    assert!(
        reason.contains("more basket than v1") && reason.ends_with(": significant"),
        "{reason}"
    );
}

#[test]
fn the_confidence_is_shared_out_over_the_checks_that_go_by_evidence() {
    let needed = |checks: Vec<Check>| judge(checks).rules().needed();
    assert!((needed(vec![errors_compared()]) - 100.0).abs() < 1e-9);
    assert!((needed(vec![errors_compared(), outside()]) - 100.0).abs() < 1e-9);
    assert!((needed(every_kind()) - 600.0).abs() < 1e-9);
    assert!(needed(vec![outside()]).is_finite());
}

#[test]
fn the_reasons_are_plain_sentences() {
    let mut judge = judge(every_kind());
    let reasons = |judge: &Judge| {
        judge
            .findings(NAMES)
            .into_iter()
            .map(|finding| finding.reason)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        reasons(&judge),
        [
            "v2 fails 0 % (0/0) against 0 % (0/0): v2 has had 0 of the 200 requests needed",
            "v2 takes an unknown time at p99 against an unknown time: v2 has had 0 of the 200 requests needed",
            "v2 fails 0 % (0/0), at most 2 % may: v2 has had 0 of the 200 requests needed",
            "v2 takes an unknown time at p99, at most 500 ms: v2 has had 0 of the 200 requests needed",
            "too few values of basket: v2 has had 0 of the 200 requests needed",
            "no values of basket: v2 has had 0 of the 200 requests needed",
            "conversion was not asked for in this step yet",
        ]
    );
    run(
        &mut judge,
        &Seen::new(observed(3_000, 63, 212_000), observed(27_000, 140, 100_000)),
        2,
    );
    judge.outside(6, Ok(8.125));
    let found = reasons(&judge);
    assert_eq!(
        found,
        [
            "v2 fails 2.1 % (126/6000) against 0.5 % (280/54000): evidence more than a billion to 1, limit 600 to 1",
            "v2 takes 309 ms at p99 against 144 ms: evidence more than a billion to 1, limit 600 to 1",
            "v2 fails 2.1 % (126/6000), at most 2 % may: too high, but not for certain",
            "v2 takes 309 ms at p99, at most 500 ms: evidence 0.1 to 1, limit 600 to 1",
            "v2 has a mean basket of 39.99 against 40: evidence less than 0.1 to 1, limit 600 to 1",
            "v2 has a mean basket of 39.99, from 20 to 60 is allowed: evidence less than 0.1 to 1, limit 600 to 1",
            "conversion is 8.125, at least 10 is asked",
        ]
    );
}

fn windows() -> impl Strategy<Value = Vec<(u64, u64, u64, u64, bool)>> {
    prop::collection::vec(
        (0_u64..60, 0_u64..200, 0_u64..3, 50_000_u64..600_000, any::<bool>()),
        1..12,
    )
}

fn feed(judge: &mut Judge, windows: &[(u64, u64, u64, u64, bool)]) {
    for (candidate, stable, failed, us, tick) in windows {
        let seen = Seen::new(
            observed(*candidate, *failed.min(candidate), *us),
            observed(*stable, 1.min(*stable), 100_000),
        );
        match tick {
            true => judge.tick(&seen.window(), SECOND),
            false => judge.burst(&seen.window()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A restart at any instant changes nothing of what comes after.
    #[test]
    fn a_judge_that_was_stored_and_read_again_goes_on_as_the_one_that_was_not(first in windows(), second in windows()) {
        let mut kept = judge(every_kind());
        feed(&mut kept, &first);
        kept.outside(6, Ok(11.0));
        let text = serde_json::to_string(&kept).unwrap();
        let mut restored: Judge = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&restored, &kept);
        feed(&mut kept, &second);
        feed(&mut restored, &second);
        prop_assert_eq!(restored.findings(NAMES), kept.findings(NAMES));
        prop_assert_eq!(restored, kept);
    }
}
