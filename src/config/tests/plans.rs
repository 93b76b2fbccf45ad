//! What the `rollout` of a service becomes.

use super::*;
use crate::rollout::{
    Action, Before, Check, Condition, Limit, Metric, Notice, OnNoEvidence, Plan, Receiver, Share, Start, Step,
};
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
    let latency = Metric::Latency { per_mille: 990 };
    let compared = |thousandths| Condition::ComparedToStable {
        tolerance: share(thousandths),
    };
    let at_most = |max| Condition::Within {
        min: None,
        max: Some(max),
    };
    let (rollback, pause) = (Action::Rollback, Action::Pause);
    let own = [
        (Metric::ErrorRate, compared(10_000), rollback),
        (latency.clone(), compared(20_000), pause),
        (Metric::ErrorRate, at_most(Limit::Share(share(2_000))), rollback),
        (latency, at_most(Limit::Duration(Duration::from_millis(500))), rollback),
    ];
    for (check, (metric, condition, on_fail)) in analysis.checks.iter().zip(own) {
        assert_eq!(
            *check,
            Check {
                metric,
                condition,
                on_fail
            }
        );
    }
    let conversion = &analysis.checks[4];
    assert!(matches!(&conversion.metric, Metric::Prometheus { name, url, every, .. }
        if &**name == "conversion" && url.secret() == "http://127.0.0.1:9090" && *every == seconds(30)));
    let at_least = Condition::Within {
        min: Some(Limit::Share(share(10_000))),
        max: None,
    };
    assert_eq!(conversion.condition, at_least);
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
    let limits = |check: &str| {
        let plan = plan(&format!(
            "steps: [{{ share: 1%, hold: 1s }}], analysis: {{ checks: [{{ {check} }}] }}"
        ));
        (
            plan.analysis.checks[0].metric.clone(),
            plan.analysis.checks[0].condition,
        )
    };
    let within = |min, max| Condition::Within { min, max };
    for (metric, per_mille) in [("p50", 500), ("p01", 10), ("p95", 950), ("p999", 999)] {
        let limit = Some(Limit::Duration(seconds(1)));
        assert_eq!(
            limits(&format!("metric: latency_{metric}, max: 1s")),
            (Metric::Latency { per_mille }, within(None, limit))
        );
    }
    let query = "metric: queue, prometheus: { url: \"http://h\", query: q }";
    for (text, limit) in [
        ("5", Limit::Number(5.0)),
        ("-0.5", Limit::Number(-0.5)),
        ("5%", Limit::Share(share(5_000))),
        ("5s", Limit::Duration(seconds(5))),
    ] {
        let both = limits(&format!("{query}, min: {text}, max: {text}")).1;
        assert_eq!(both, within(Some(limit), Some(limit)), "{text}");
    }
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
