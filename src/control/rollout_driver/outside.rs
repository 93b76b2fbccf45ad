//! Who is outside of a rollout: receivers that are told, gates that are asked, servers that have numbers. None of them is
//! waited for.

use crate::config::snapshot::Service;
use crate::control::gates::{Gates, Question};
use crate::control::http_client::HttpClient;
use crate::control::notifier::{Notification, Notifier};
use crate::control::numbers::Numbers;
use crate::rollout::{Phase, Plan};
use crate::runtime::{Ask, Command, RolloutState, Steer};
use crate::shared::InForce;
use crate::telemetry::rfc3339;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// See the module.
pub struct Outside {
    /// Set once the state is this process's: before it is, there is nothing to tell.
    pub notifier: OnceLock<Arc<Notifier>>,
    pub gates: Gates,
    numbers: Numbers,
}

impl Outside {
    pub fn new(client: HttpClient) -> Self {
        Self {
            notifier: OnceLock::new(),
            gates: Gates::new(client.clone()),
            numbers: Numbers::new(client),
        }
    }

    /// Begins to do what is asked. A rollout that has left the file has nobody to tell or to ask.
    pub fn pass_on(&self, in_force: &InForce, ask: Ask) {
        let (Ask::Notify { service, .. } | Ask::Gate { service, .. }) = &ask;
        let Some((plan, rollout)) = planned(in_force, service) else {
            return;
        };
        let machine = &rollout.machine;
        match ask {
            Ask::Notify { notice, sentence, .. } => {
                let Some(notifier) = self.notifier.get() else { return };
                let evidence = rollout.findings.iter().map(|finding| finding.reason.as_str().into());
                let notification = Notification {
                    notice,
                    service: plan.service.clone(),
                    version: machine.candidate.clone().unwrap_or_else(|| plan.candidate.clone()),
                    phase: machine.phase.word().into(),
                    step: machine.step,
                    share: machine.share,
                    reason: sentence.into(),
                    evidence: evidence.collect(),
                    generation: in_force.generation,
                    time: rfc3339(SystemTime::now()).into(),
                };
                notifier.tell(&plan.notify, &notification);
            }
            Ask::Gate { gate, window, .. } => {
                let Some(asked) = plan.gates.get(gate) else { return };
                let question = Question {
                    service: plan.service.clone(),
                    candidate: plan.candidate.clone(),
                    gate,
                    window,
                    attempt: machine.attempt,
                    step: machine.step,
                    share: machine.share,
                };
                self.gates.ask(asked, question);
            }
        }
    }

    /// The numbers of rollouts that are judged now, by service and position of the check.
    pub fn numbers(&self, in_force: &InForce) -> Vec<(Box<str>, usize, Result<f64, String>)> {
        let services = in_force.snapshot.policy.services.iter();
        let mut numbers = Vec::new();
        for (policy, Service { rollout, .. }) in services.zip(&in_force.snapshot.services) {
            let Some(plan) = rollout else { continue };
            let Some(state) = in_force.state.rollout(&plan.service) else {
                continue;
            };
            let stable = usize::try_from(policy.stable.0)
                .ok()
                .and_then(|at| policy.versions.get(at));
            let (true, Some(stable)) = (is_judged(&state.machine.phase), stable) else {
                continue;
            };
            self.numbers.follow(plan, &stable.name, state.machine.window);
            for check in 0..plan.analysis.checks.len() {
                let latest = self.numbers.latest(&plan.service, check);
                numbers.extend(latest.map(|latest| (plan.service.clone(), check, latest)));
            }
        }
        numbers
    }

    /// What gates have answered since the last call, each as the command that says it.
    pub fn answers(&self) -> impl Iterator<Item = Command> + use<> {
        self.gates.answers().into_iter().map(|answered| Command::Rollout {
            service: answered.service.to_string(),
            steer: Steer::Gate {
                gate: answered.gate,
                window: answered.window,
                answer: answered.answer,
            },
        })
    }
}

fn planned<'f>(in_force: &'f InForce, service: &str) -> Option<(&'f Plan, &'f RolloutState)> {
    let mut plans = in_force.snapshot.plans();
    let plan = plans.find(|plan| *plan.service == *service)?;
    Some((plan, in_force.state.rollout(service)?))
}

fn is_judged(phase: &Phase) -> bool {
    matches!(phase, Phase::Progressing | Phase::WaitingApproval | Phase::Baking)
}
