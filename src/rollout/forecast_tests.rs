use super::super::fixture::*;
use super::super::*;
use super::*;
use crate::analysis::{Check, Limits, Worse};
use proptest::prelude::*;

/// 200 requests a second, 0.5 % of which fail; a p99 of 320 ms; 1 % from segments.
fn assumed() -> Assumed {
    Assumed {
        rate: 200.0,
        error_rate: 0.005,
        latencies: Latencies::new(100_000.0, 320_000.0).unwrap(),
        in_segments: Share::from_thousandths(1_000),
        copyable: Share::WHOLE,
    }
}

fn check(metric: &str, test: Test) -> CheckPlan {
    CheckPlan {
        check: Check {
            metric: metric.to_owned(),
            test,
        },
        on_fail: Action::Rollback,
        prometheus: None,
    }
}

fn compared() -> CheckPlan {
    check("error_rate", Test::ErrorsCompared { tolerance: 0.1 })
}

fn at_most(limit: f64) -> CheckPlan {
    check("error_rate", Test::ErrorsAtMost { limit })
}

fn slower() -> CheckPlan {
    let (quantile, tolerance) = (0.99, 0.2);
    check("latency_p99", Test::LatencyCompared { quantile, tolerance })
}

fn judged(steps: Vec<Step>, checks: Vec<CheckPlan>) -> Plan {
    let mut plan = Plan {
        max_failures: None,
        ..plan(steps)
    };
    plan.analysis.checks = checks.into();
    plan
}

/// 1, 10, 50 and 100 %.
fn ramp() -> Vec<Step> {
    vec![
        step(1_000, 300),
        step(10_000, 600),
        step(50_000, 1_800),
        step(100_000, 3_600),
    ]
}

fn told(plan: &Plan, assumed: &Assumed) -> String {
    let forecast = forecast(plan, assumed);
    let mut text = format!("{:.0} to 1, lasts {:?}\n", forecast.needed, forecast.lasts);
    for step in &forecast.steps {
        text += &format!(
            "{} {}: hold {} lasts {:?}, {:.0} and {:.0} requests",
            step.number,
            step.exposure,
            duration(step.hold),
            step.lasts,
            step.candidate,
            step.stable
        );
        for of in [Of::Errors, Of::Slowness] {
            let (times, twice) = (step.times(of), step.twice_takes(of).map(about));
            text += &format!("; {of:?} from {times:.2?}, twice {twice:?}");
        }
        text += "\n";
    }
    forecast
        .warnings
        .iter()
        .for_each(|warning| text += &format!("! {warning}\n"));
    text
}

#[test]
fn a_plan_with_enough_traffic() {
    let stays = |step| with_ring(&["staff"], step);
    let mut steps: Vec<Step> = ramp().into_iter().map(stays).collect();
    steps.insert(0, ring(&["staff"], 600));
    let slow = Test::LatencyAtMost {
        quantile: 0.99,
        limit_us: 500_000,
    };
    let checks = vec![compared(), slower(), at_most(0.02), check("latency_p99", slow)];
    insta::assert_snapshot!(told(&judged(steps, checks), &assumed()));
}

#[test]
fn a_plan_with_too_little_traffic() {
    let assumed = Assumed { rate: 2.0, ..assumed() };
    let mut plan = judged(ramp(), vec![compared(), slower()]);
    insta::assert_snapshot!("waits", told(&plan, &assumed));
    plan.analysis.max_hold = Some(Duration::from_secs(7_200));
    plan.analysis.on_no_evidence = OnNoEvidence::Rollback;
    insta::assert_snapshot!("rolls_back", told(&plan, &assumed));
    plan.analysis.on_no_evidence = OnNoEvidence::Proceed;
    insta::assert_snapshot!("proceeds", told(&plan, &assumed));
}

fn warnings(plan: &Plan, assumed: &Assumed) -> Vec<String> {
    forecast(plan, assumed).warnings
}

#[test]
fn what_nobody_would_find_is_said() {
    let plan = judged(ramp(), Vec::new());
    assert_eq!(
        warnings(&plan, &assumed()),
        ["nothing is judged: there are no checks and no `guard`, so v2 is delivered however it does"]
    );
    let guarded = Plan {
        max_failures: Some(100_000),
        ..plan
    };
    assert_eq!(
        warnings(&guarded, &assumed()),
        ["there are no checks: v2 is delivered unless 100000 of its requests fail"]
    );
    assert_eq!(
        warnings(
            &judged(vec![ring(&["staff"], 600), step(100_000, 600)], vec![compared()]),
            &assumed()
        ),
        [
            "step 1 (segment staff) finds nothing: there is nothing to compare v2 with, and no check has a `max` for it",
            "step 2 (100 %) finds nothing: there is nothing to compare v2 with, and no check has a `max` for it",
            "step 2 (100 %) never ends: v2 has not had 200 requests to be compared by in the steps before",
        ]
    );
    assert_eq!(
        warnings(
            &judged(vec![step(50_000, 600), step(100_000, 0)], vec![at_most(0.02), slower()]),
            &assumed()
        ),
        [
            "step 2 (100 %) has no hold: what goes wrong there is not found",
            "step 2 (100 %) lasts 1s rather than 0ms, until a verdict has the 200 requests it needs"
        ]
    );
    let nobody = Assumed {
        in_segments: Share::ZERO,
        copyable: Share::WHOLE,
        ..assumed()
    };
    assert_eq!(
        warnings(&judged(vec![ring(&["staff"], 600)], vec![at_most(0.02)]), &nobody),
        [
            "step 1 (segment staff) finds nothing: v2 has no traffic there",
            "step 1 (segment staff) never ends: v2 has no requests there, and a verdict needs 200"
        ]
    );
}

#[test]
fn a_limit_or_a_guard_that_stable_itself_would_break_is_said() {
    let plan = judged(vec![step(50_000, 600), step(100_000, 600)], vec![at_most(0.002)]);
    assert_eq!(
        warnings(&plan, &assumed()),
        [
            "stable itself fails 0.5 % of its requests, by assumption: a candidate as good does not keep to a `max` of 0.2 %"
        ]
    );
    let slow = check(
        "latency_p99",
        Test::LatencyAtMost {
            quantile: 0.99,
            limit_us: 250_000,
        },
    );
    assert_eq!(
        warnings(
            &judged(vec![step(50_000, 600), step(100_000, 600)], vec![slow]),
            &assumed()
        ),
        [
            "99 % of the requests to stable take up to 320ms, by assumption: a candidate as good does not keep to a `max` of 250ms"
        ]
    );
    let guarded = |most| Plan {
        max_failures: Some(most),
        ..judged(vec![step(50_000, 600), step(100_000, 600)], vec![at_most(0.02)])
    };
    assert_eq!(
        warnings(&guarded(500), &assumed()),
        [
            "a v2 that fails no more than stable has about 900 failed requests by the end of step 2 (100 %): the guard of \
          500 may roll it back"
        ]
    );
    assert_eq!(warnings(&guarded(1_100), &assumed()), Vec::<String>::new());
}

#[test]
fn what_is_not_foretold_holds_no_step_up_but_for_its_requests() {
    let value = |test| check("orders", test);
    let (worse, limits) = (Worse::Lower, Limits::default());
    let checks = vec![
        value(Test::MeanCompared {
            value: 0,
            worse,
            tolerance: 0.05,
        }),
        value(Test::OutsideWithin {
            limits,
            fresh_for: Duration::from_secs(90),
        }),
    ];
    let forecast = forecast(&judged(vec![step(1_000, 60)], checks), &assumed());
    assert!(forecast.steps[0].finds.is_empty());
    assert_eq!(forecast.lasts, Some(Duration::from_secs(100)));
    assert_eq!(forecast.warnings.len(), 1, "{:?}", forecast.warnings);
}

fn plans() -> impl Strategy<Value = Plan> {
    let check = prop_oneof![
        Just(compared()),
        Just(slower()),
        (0.001..0.1).prop_map(at_most),
        (0.5..0.99).prop_map(|quantile| check(
            "latency_p",
            Test::LatencyAtMost {
                quantile,
                limit_us: 1_000
            }
        )),
    ];
    let steps = prop::collection::vec((0_u32..=100_000, 0_u64..7_200, any::<bool>()), 1..4);
    let waits = prop_oneof![
        Just(OnNoEvidence::Hold),
        Just(OnNoEvidence::Proceed),
        Just(OnNoEvidence::Rollback)
    ];
    (steps, prop::collection::vec(check, 0..3), waits).prop_map(|(mut steps, checks, on_no_evidence)| {
        steps.sort_unstable();
        let steps = steps.into_iter().map(|(share, hold, ring)| match ring {
            true => with_ring(&["staff"], step(share, hold)),
            false => step(share, hold),
        });
        let mut plan = judged(steps.collect(), checks);
        plan.analysis.on_no_evidence = on_no_evidence;
        plan
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn more_traffic_finds_more_and_takes_no_longer(plan in plans(), rate in 0.1..2_000.0) {
        let less = forecast(&plan, &Assumed { rate, ..assumed() });
        let more = forecast(&plan, &Assumed { rate: rate * 3.0, ..assumed() });
        prop_assert_eq!(less.steps.len(), plan.steps.len());
        for (less, more) in less.steps.iter().zip(&more.steps) {
            prop_assert!(more.candidate >= less.candidate && more.stable >= less.stable);
            if let (Some(less), Some(more)) = (less.evidence_takes, more.evidence_takes) {
                prop_assert!(more <= less);
            }
            for of in [Of::Errors, Of::Slowness] {
                let (less, more) = (less.times(of), more.times(of));
                prop_assert!(
                    less.is_none_or(|less| more.is_some_and(|more| more <= less * 1.2 && more >= 1.0)),
                    "{:?} {:?}", less, more
                );
            }
        }
    }
}

#[test]
fn a_mirror_finds_by_pairs_what_a_small_share_would_not() {
    let checks = vec![compared(), slower(), at_most(0.02)];
    let plan = judged(
        vec![mirror(10_000, 300), step(1_000, 300), step(100_000, 600)],
        checks.clone(),
    );
    insta::assert_snapshot!(told(&plan, &assumed()));
    let forecast = forecast(&plan, &assumed());
    let steps = &forecast.steps;
    assert_eq!((steps[0].candidate, steps[0].stable), (6_000.0, 6_000.0));
    assert!(steps[0].times(Of::Errors) < steps[1].times(Of::Errors));
    let half = Assumed {
        copyable: Share::from_thousandths(50_000),
        ..assumed()
    };
    assert_eq!(super::forecast(&plan, &half).steps[0].candidate, 3_000.0);
    // Straight from copies to everything: they are the comparison from before.
    let dark = judged(vec![mirror(100_000, 600), step(100_000, 600)], checks);
    assert!(super::forecast(&dark, &assumed()).lasts.is_some());
    let guarded = Plan {
        max_failures: Some(1_000),
        ..judged(vec![mirror(100_000, 36_000), step(1_000, 60)], vec![compared()])
    };
    assert_eq!(
        warnings(&guarded, &assumed()).len(),
        1,
        "of the last step alone: {:?}",
        warnings(&guarded, &assumed())
    );
}
