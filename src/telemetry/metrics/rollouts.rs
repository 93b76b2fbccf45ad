//! The families of rollouts: a sample for each service whose file has one.

use super::family::Family;
use crate::analysis::Verdict;
use crate::rollout::{Cause, Phase, Share, Wait};
use crate::runtime::RolloutState;
use crate::shared::{InForce, Rollbacks};
use prometheus::proto::MetricFamily;

struct Rollouts {
    phase: Family,
    waits: Family,
    step: Family,
    share: Family,
    mirror: Family,
    failures: Family,
    evidence: Family,
    needed: Family,
    verdict: Family,
    rollbacks: Family,
    detections: Family,
    detection_seconds: Family,
}

impl Rollouts {
    fn new() -> Self {
        Self {
            phase: Family::gauge(
                "rollgate_rollout_phase",
                "1 for the phase that the rollout is in, 0 for the others.",
            ),
            waits: Family::gauge(
                "rollgate_rollout_waits",
                "1 for what the end of the step waits for while the rollout is under way, 0 for the rest.",
            ),
            step: Family::gauge(
                "rollgate_rollout_step",
                "The step in force, from 1; 0 before the first.",
            ),
            share: Family::gauge(
                "rollgate_rollout_share_target",
                "What the rollout gives the candidate, in percent, 0 to 100.",
            ),
            mirror: Family::gauge(
                "rollgate_rollout_mirror_target",
                "How many of the requests to stable the rollout's step copies for the candidate, in percent, 0 to 100.",
            ),
            failures: Family::gauge(
                "rollgate_rollout_failures",
                "Failed requests of the candidate in this rollout: what the guard counts.",
            ),
            evidence: Family::gauge(
                "rollgate_rollout_check_evidence",
                "How many to one what was seen speaks against the candidate; absent where nothing can be said.",
            ),
            needed: Family::gauge(
                "rollgate_rollout_check_needed",
                "How many to one the evidence must be for the check to fail.",
            ),
            verdict: Family::gauge(
                "rollgate_rollout_check_verdict",
                "1 for what the check says now, 0 for the rest.",
            ),
            rollbacks: Family::counter("rollgate_rollout_rollbacks_total", "Rollbacks, by their cause."),
            detections: Family::counter(
                "rollgate_rollout_detections_total",
                "Rollbacks that a check or the guard caused.",
            ),
            detection_seconds: Family::counter(
                "rollgate_rollout_detection_seconds_total",
                "From the candidate's first failed request to those rollbacks.",
            ),
        }
    }

    fn push(&mut self, service: &str, rollout: &RolloutState, metrics: &[&str]) {
        let machine = &rollout.machine;
        for phase in Phase::WORDS {
            let now = f64::from(u8::from(phase == machine.phase.word()));
            self.phase.push(&[("service", service), ("phase", phase)], now);
        }
        for wait in Wait::ALL {
            let now = f64::from(u8::from(machine.is_advancing() && wait == machine.wait));
            self.waits.push(&[("service", service), ("for", wait.word())], now);
        }
        let labels = [("service", service)];
        self.step.push(&labels, f64::from(machine.step));
        self.share.push(&labels, machine.share.fraction() * 100.0);
        let mirror = if machine.is_mirroring() {
            machine.mirror
        } else {
            Share::ZERO
        };
        self.mirror.push(&labels, mirror.fraction() * 100.0);
        self.failures.push(&labels, rollout.failures as f64);
        for ((finding, metric), number) in rollout.findings.iter().zip(metrics).zip(1_u32..) {
            let number = number.to_string();
            let labels = [("service", service), ("check", number.as_str()), ("metric", metric)];
            finding
                .evidence
                .iter()
                .for_each(|evidence| self.evidence.push(&labels, *evidence));
            finding
                .needed
                .iter()
                .for_each(|needed| self.needed.push(&labels, *needed));
            for (verdict, word) in VERDICTS {
                let now = f64::from(u8::from(verdict == finding.verdict));
                let labels = [labels[0], labels[1], labels[2], ("verdict", word)];
                self.verdict.push(&labels, now);
            }
        }
    }

    fn push_ends(&mut self, service: &str, rollbacks: &Rollbacks) {
        for cause in Cause::ALL {
            let labels = [("service", service), ("cause", cause.word())];
            self.rollbacks.push(&labels, rollbacks.of(cause) as f64);
        }
        let (detected, took) = rollbacks.detected();
        self.detections.push(&[("service", service)], detected as f64);
        self.detection_seconds.push(&[("service", service)], took.as_secs_f64());
    }

    fn finish(self) -> impl Iterator<Item = MetricFamily> {
        [
            self.phase,
            self.waits,
            self.step,
            self.share,
            self.mirror,
            self.failures,
            self.evidence,
            self.needed,
            self.verdict,
            self.rollbacks,
            self.detections,
            self.detection_seconds,
        ]
        .into_iter()
        .filter_map(Family::finish)
    }
}

const VERDICTS: [(Verdict, &str); 4] = [
    (Verdict::Pass, "pass"),
    (Verdict::Fail, "fail"),
    (Verdict::NoEvidence, "no_evidence"),
    (Verdict::Error, "error"),
];

pub(super) fn rollouts(page: &mut Vec<MetricFamily>, in_force: &InForce) {
    let mut families = Rollouts::new();
    let none = RolloutState::default();
    for (file, live) in in_force.snapshot.services.iter().zip(&*in_force.services) {
        let Some(plan) = &file.rollout else { continue };
        let known = in_force.state.rollout(&plan.service);
        let checks = plan.analysis.checks.iter();
        let metrics: Vec<&str> = checks.map(|planned| planned.check.metric.as_str()).collect();
        families.push(&plan.service, known.unwrap_or(&none), &metrics);
        families.push_ends(&plan.service, &live.rollbacks);
    }
    page.extend(families.finish());
}
