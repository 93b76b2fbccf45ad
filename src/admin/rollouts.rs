//! How rollouts stand, for those who ask.

use super::api::{CheckStatus, RolloutStatus, StepStatus};
use crate::analysis::{Finding, Verdict};
use crate::rollout::{self, CheckPlan, Plan, Step};
use crate::runtime::RolloutState;
use crate::shared::InForce;
use serde_json::Value;

/// The rollout of the service at this position; `None`: the file has none.
pub fn status(in_force: &InForce, service: usize) -> Option<RolloutStatus> {
    let plan = in_force.snapshot.services.get(service)?.rollout.as_ref()?;
    let none = RolloutState::default();
    let known = in_force.state.rollout(&plan.service);
    let rollout = known.unwrap_or(&none);
    let machine = &rollout.machine;
    let reason = machine.phase.reason();
    Some(RolloutStatus {
        candidate: machine.candidate.as_ref().unwrap_or(&plan.candidate).to_string(),
        phase: machine.phase.word().to_owned(),
        reason: reason.map(|reason| reason.text.to_string()),
        cause: reason.map(|reason| reason.cause.word().to_owned()),
        summary: rollout::standing(plan, machine),
        step: machine.step,
        steps: plan.last(),
        share: machine.share.fraction() * 100.0,
        segments: machine.segments.iter().map(ToString::to_string).collect(),
        mirror: machine.mirror.fraction() * 100.0,
        elapsed_s: machine.elapsed_ms as f64 / 1000.0,
        hold_s: plan.step(machine.step).map_or(0.0, |step| step.hold.as_secs_f64()),
        waits_for: machine.wait.word().to_owned(),
        obstacle: machine.obstacle.as_ref().map(ToString::to_string),
        attempt: machine.attempt,
        failures: rollout.failures,
        max_failures: plan.max_failures,
        recorded_weights: machine.recorded.clone(),
        checks: checks(plan, &rollout.findings),
        plan: plan.steps.iter().map(step).collect(),
    })
}

fn step(step: &Step) -> StepStatus {
    StepStatus {
        share: step.share.fraction() * 100.0,
        segments: step.segments.iter().map(ToString::to_string).collect(),
        mirror: step.mirror.fraction() * 100.0,
        hold_s: step.hold.as_secs_f64(),
        approval: step.approval,
    }
}

fn checks(plan: &Plan, findings: &[Finding]) -> Vec<CheckStatus> {
    let status = |(index, planned): (usize, &CheckPlan)| {
        let finding = findings.get(index);
        CheckStatus {
            metric: planned.check.metric.clone(),
            verdict: word(&finding.map_or(Verdict::NoEvidence, |finding| finding.verdict)),
            reason: finding.map_or_else(|| "nothing was seen yet".to_owned(), |finding| finding.reason.clone()),
            on_fail: match planned.check.test.is_report() {
                true => "nothing".to_owned(),
                false => word(&planned.on_fail),
            },
            evidence: finding.and_then(|finding| finding.evidence),
            needed: finding.and_then(|finding| finding.needed),
        }
    };
    plan.analysis.checks.iter().enumerate().map(status).collect()
}

/// A word of a fixed list, as it is written everywhere.
fn word(of: &impl serde::Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}
