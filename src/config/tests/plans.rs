//! What the `rollout` of a service becomes.

use super::*;
use crate::analysis::{Limits, Test, Worse};
use crate::rollout::{Action, Before, HeaderMetric, Notice, OnNoEvidence, Plan, Receiver, Share, Start, Step};
use std::time::Duration;

fn plan(text: &str) -> Plan {
    let snapshot = valid(&with_service(&format!(
        "    rollout: {{ {text} }}\nsegments:\n  staff: {{ header: a, exists: true }}\n  japan: {{ header: b, exists: true }}\n"
    )));
    snapshot.services[0].rollout.clone().unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn share(thousandths: u32) -> Share {
    Share::from_thousandths(thousandths)
}

/// Share, ring, hold in seconds, approval.
fn told(steps: &[Step]) -> Vec<(u32, String, u64, bool)> {
    let one = |step: &Step| {
        (
            step.share.thousandths_percent(),
            step.segments.join("+"),
            step.hold.as_secs(),
            step.approval,
        )
    };
    steps.iter().map(one).collect()
}

#[test]
fn the_plan_of_the_full_example() {
    let snapshot = valid(FULL);
    let plan = snapshot.services[0].rollout.as_ref().unwrap();
    assert_eq!(
        (&*plan.service, &*plan.candidate, plan.start),
        ("checkout", "v2", Start::Automatic)
    );
    let staff = || "staff".to_owned();
    assert_eq!(
        told(&plan.steps),
        [
            (0, staff(), 600, false),
            (1_000, staff(), 300, false),
            (10_000, staff(), 600, false),
            (50_000, staff(), 1_800, true),
            (100_000, staff(), 3_600, false),
        ]
    );
    let analysis = &plan.analysis;
    assert_eq!(
        (analysis.warmup, analysis.min_requests, analysis.confidence),
        (seconds(30), 200, share(99_000))
    );
    assert_eq!((analysis.on_no_evidence, analysis.max_hold), (OnNoEvidence::Hold, None));
    let within = |min, max| Limits { min, max };
    let (quantile, fresh_for) = (0.99, seconds(90));
    let checks = [
        ("error_rate", Test::ErrorsCompared { tolerance: 0.1 }, Action::Rollback),
        (
            "latency_p99",
            Test::LatencyCompared {
                quantile,
                tolerance: 0.2,
            },
            Action::Pause,
        ),
        ("error_rate", Test::ErrorsAtMost { limit: 0.02 }, Action::Rollback),
        (
            "latency_p99",
            Test::LatencyAtMost {
                quantile,
                limit_us: 500_000,
            },
            Action::Rollback,
        ),
        (
            "conversion",
            Test::OutsideWithin {
                limits: within(Some(0.1), None),
                fresh_for,
            },
            Action::Rollback,
        ),
    ];
    assert_eq!(analysis.checks.len(), checks.len());
    for (planned, (metric, test, on_fail)) in analysis.checks.iter().zip(checks) {
        assert_eq!(
            (planned.check.metric.as_str(), &planned.check.test, planned.on_fail),
            (metric, &test, on_fail)
        );
    }
    let query = analysis.checks[4].prometheus.as_ref().unwrap();
    assert_eq!(
        (query.url.secret(), &*query.query, query.every),
        ("http://127.0.0.1:9090", "…", seconds(30))
    );
    assert_eq!(plan.max_failures, Some(50));
    assert!(matches!(&plan.notify[0].to, Receiver::Slack(_)) && plan.notify[0].events.is_none());
    assert_eq!(
        plan.notify[1].events.as_deref(),
        Some(&[Notice::Step, Notice::Pause, Notice::Rollback, Notice::Promote][..])
    );
    assert_eq!(
        (plan.gates[0].before, plan.gates[0].webhook.secret()),
        (Before::Promote, "http://127.0.0.1:7000/gate/check")
    );
    assert!(plan.freeze.is_empty() && plan.with.is_empty());
    assert!(
        !format!("{snapshot:?}").contains("gate/check"),
        "what may be a secret is not shown"
    );
}

#[test]
fn what_a_step_leaves_out_is_as_in_the_step_before() {
    let steps = "steps: [{ segments: [staff], hold: 0s }, { share: 1%, hold: 1s }, { segments: [japan], hold: 2s, approval: true }]";
    let (staff, japan) = (|| "staff".to_owned(), || "japan".to_owned());
    assert_eq!(
        told(&plan(steps).steps),
        [
            (0, staff(), 0, false),
            (1_000, staff(), 1, false),
            (1_000, japan(), 2, true),
            (100_000, japan(), 0, false)
        ],
        "and what ends below 100 % goes there"
    );
    assert_eq!(
        told(&plan("steps: [{ share: 100%, hold: 1m }]").steps),
        [(100_000, String::new(), 60, false)]
    );
}

#[test]
fn limits_are_in_the_unit_of_their_metric_or_in_their_own() {
    let test = |check: &str| {
        let plan = plan(&"steps: [{ share: 1%, hold: 1s }], analysis: { checks: [{ CHECK }] }".replace("CHECK", check));
        plan.analysis.checks[0].check.test.clone()
    };
    for (metric, quantile) in [("p50", 0.5), ("p01", 0.01), ("p95", 0.95), ("p999", 0.999)] {
        let limit_us = 1_009_000;
        assert_eq!(
            test(&format!("metric: latency_{metric}, max: 1.009s")),
            Test::LatencyAtMost { quantile, limit_us }
        );
    }
    let query = "metric: queue, prometheus: { url: \"http://h\", query: q, every: 1m }";
    for (text, limit) in [("5", 5.0), ("-0.5", -0.5), ("5%", 0.05), ("5s", 5.0)] {
        let limits = Limits {
            min: Some(limit),
            max: Some(limit),
        };
        let fresh_for = seconds(180);
        assert_eq!(
            test(&format!("{query}, min: {text}, max: {text}")),
            Test::OutsideWithin { limits, fresh_for },
            "{text}"
        );
    }
}

#[test]
fn checks_are_made_on_numbers_of_the_application() {
    let plan = plan(
        "steps: [{ share: 1%, hold: 1s }], analysis: { \
         metrics: { cost: { from_header: X-Cost, worse: higher }, orders: { from_header: x-orders, worse: lower }, \
         reviews: { from_header: x-reviews, worse: lower } }, \
         checks: [{ metric: orders, compared_to: stable, tolerance: 5%, on_fail: pause }, { metric: cost, min: 0, max: 2.5 }, \
         { metric: orders, min: 3% }] }",
    );
    let metrics: Vec<_> = plan.analysis.metrics.iter().collect();
    assert_eq!(
        metrics,
        [
            &HeaderMetric {
                name: "cost".into(),
                from_header: "x-cost".into(),
                worse: Worse::Higher
            },
            &HeaderMetric {
                name: "orders".into(),
                from_header: "x-orders".into(),
                worse: Worse::Lower
            },
            &HeaderMetric {
                name: "reviews".into(),
                from_header: "x-reviews".into(),
                worse: Worse::Lower
            }
        ]
    );
    let within = |value, min, max| Test::MeanWithin {
        value,
        limits: Limits { min, max },
    };
    let compared = Test::MeanCompared {
        value: 1,
        worse: Worse::Lower,
        tolerance: 0.05,
    };
    let tests: Vec<Test> = plan
        .analysis
        .rules()
        .checks
        .into_iter()
        .map(|check| check.test)
        .collect();
    assert_eq!(
        tests,
        [
            compared,
            within(0, Some(0.0), Some(2.5)),
            within(1, Some(0.03), None),
            Test::MeanReported { value: 2 }
        ]
    );
}

#[test]
fn all_of_a_train_know_the_others() {
    let service = |name: &str, with: &str| {
        format!(
            "- {{name: {name}, routes: [{{host: {name}.example}}], versions: [{{name: v1, pool: {{endpoints: [\"h:1\"]}}}}, {{name: v2, \
             pool: {{endpoints: [\"h:2\"]}}}}], rollout: {{steps: [{{share: 1%, hold: 1m}}]{with}}}}}\n"
        )
    };
    let snapshot = valid(&format!(
        "{LISTENERS}services:\n{}{}{}{}",
        service("a", ""),
        service("b", ", with: [c, a], freeze: [\"Fri 16:00-Mon 08:00 Europe/Berlin\"]"),
        service("c", ""),
        service("d", "")
    ));
    let with: Vec<String> = snapshot
        .services
        .iter()
        .map(|service| service.rollout.as_ref().unwrap().with.join(" "))
        .collect();
    assert_eq!(with, ["b c", "c a", "b a", ""]);
    let freeze = &snapshot.services[1].rollout.as_ref().unwrap().freeze;
    assert_eq!(freeze[0].to_string(), "Fri 16:00-Mon 08:00 Europe/Berlin");
}

#[test]
fn mirror_steps_come_first_and_end_with_the_step() {
    let steps =
        plan("steps: [{ mirror: 10%, hold: 10m }, { mirror: 50%, hold: 5m }, { segments: [staff], hold: 1m }]").steps;
    let mirrors: Vec<u32> = steps.iter().map(|step| step.mirror.thousandths_percent()).collect();
    assert_eq!(mirrors, [10_000, 50_000, 0, 0]);
    assert_eq!(
        told(&steps),
        [
            (0, String::new(), 600, false),
            (0, String::new(), 300, false),
            (0, "staff".to_owned(), 60, false),
            (100_000, "staff".to_owned(), 0, false),
        ]
    );
}

#[test]
fn a_mirror_step_copies_what_the_mirror_of_the_service_would() {
    let mirror = |text: &str| {
        let rollout = "    rollout: { steps: [{ mirror: 10%, hold: 10m }] }\n";
        let snapshot = valid(&with_service(&format!("{rollout}{text}")));
        let mirror = snapshot.services[0].mirror.as_ref().unwrap();
        (mirror.version.0, mirror.share, mirror.methods.join(" "))
    };
    assert_eq!(
        mirror(""),
        (1, 0, "GET HEAD".to_owned()),
        "and outside of the step nothing"
    );
    let own = "    mirror: { version: v2, share: 5%, methods: [GET, POST] }\n";
    assert_eq!(mirror(own), (1, 5_000, "GET POST".to_owned()));
    let without = valid(&with_service("    rollout: { steps: [{ share: 10%, hold: 10m }] }\n"));
    assert!(without.services[0].mirror.is_none());
}
