//! The writer looks at the rollouts that are under way: what was seen since the last look becomes a command like any other.

use super::{Envelope, Writer};
use crate::analysis::{Arm, Moments, Observed};
use crate::control::commands::{Looking, Order};
use crate::control::records::Saving;
use crate::rollout::{Cause, Notice, Phase, Plan};
use crate::routing::Service;
use crate::runtime::{self, Ask, Change, Command, EventKind, Origin, Seen, State, Steer};
use crate::shared::{Evidence, InForce, Sent, ServiceInForce};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How often what only time changed is written: as much of it is lost by a kill -9.
const QUIET_SAVE: Duration = Duration::from_secs(2);

/// What the writer keeps of rollouts beside the state.
pub struct Rollouts {
    /// By service: how far the counters were at the last look.
    seen: HashMap<Box<str>, Baseline>,
    /// For whoever tells receivers and asks gates.
    asks: mpsc::Sender<Ask>,
    saved_ms: u64,
}

/// Counters at the last look.
struct Baseline {
    evidence: Arc<Evidence>,
    candidate_is: usize,
    candidate: Observed,
    forced: Observed,
    stable: Observed,
    copies: Observed,
    originals: Observed,
    failures: u64,
    ticked_ms: u64,
    /// When the first failure of this rollout was seen.
    failing_since_ms: Option<u64>,
}

/// One service with a plan.
struct Subject<'s> {
    policy: &'s Service,
    plan: &'s Plan,
    live: &'s ServiceInForce,
}

impl Rollouts {
    /// What is asked of others goes to `asks`.
    pub fn new(asks: mpsc::Sender<Ask>) -> Self {
        Self {
            seen: HashMap::new(),
            asks,
            saved_ms: 0,
        }
    }

    /// How far the counters are, for the next look to go on from.
    fn baseline(&self, subject: &Subject<'_>, now_ms: u64, burst: bool) -> Option<Baseline> {
        let evidence = Arc::clone(subject.live.evidence.as_ref()?);
        let position = |name: &str| {
            subject
                .policy
                .versions
                .iter()
                .position(|version| *version.name == *name)
        };
        let candidate_is = position(&subject.plan.candidate)?;
        let stable_is = usize::try_from(subject.policy.stable.0).ok()?;
        let before = self.known(subject, &evidence, candidate_is);
        Some(Baseline {
            candidate: evidence.observed(candidate_is, Sent::Split),
            forced: evidence.observed(candidate_is, Sent::Forced),
            stable: evidence.observed(stable_is, Sent::Split),
            copies: evidence.observed(candidate_is, Sent::Copied),
            originals: evidence.observed(stable_is, Sent::Original),
            failures: evidence.failures(candidate_is),
            ticked_ms: match before {
                Some(before) if burst => before.ticked_ms,
                _ => now_ms,
            },
            failing_since_ms: before.and_then(|before| before.failing_since_ms),
            candidate_is,
            evidence,
        })
    }

    fn known(&self, subject: &Subject<'_>, evidence: &Arc<Evidence>, candidate_is: usize) -> Option<&Baseline> {
        let known = self.seen.get(&subject.policy.name)?;
        (Arc::ptr_eq(&known.evidence, evidence) && known.candidate_is == candidate_is).then_some(known)
    }

    /// What came between the last look and `now`. Evidence that is new was collected since it is in force.
    fn since(&self, subject: &Subject<'_>, now: &Baseline, now_ms: u64) -> Seen {
        let before = self.known(subject, &now.evidence, now.candidate_is);
        let Some(before) = before else {
            // The same counters, about another candidate: nothing of it is about this one.
            let other = self.seen.get(&subject.policy.name);
            let is_new = other.is_none_or(|other| !Arc::ptr_eq(&other.evidence, &now.evidence));
            return match is_new {
                true => Seen {
                    candidate: now.candidate.clone(),
                    forced: now.forced.clone(),
                    stable: now.stable.clone(),
                    copies: now.copies.clone(),
                    originals: now.originals.clone(),
                    failures: now.failures,
                    ..Seen::default()
                },
                false => Seen::default(),
            };
        };
        Seen {
            candidate: difference(&now.candidate, &before.candidate),
            forced: difference(&now.forced, &before.forced),
            stable: difference(&now.stable, &before.stable),
            copies: difference(&now.copies, &before.copies),
            originals: difference(&now.originals, &before.originals),
            failures: now.failures.saturating_sub(before.failures),
            elapsed: Duration::from_millis(now_ms.saturating_sub(before.ticked_ms)),
            ..Seen::default()
        }
    }
}

/// What was counted after `before`.
fn difference(now: &Observed, before: &Observed) -> Observed {
    let arm = |now: Arm, before: Arm| Arm {
        begun: now.begun.saturating_sub(before.begun),
        ended: now.ended.saturating_sub(before.ended),
        bad: now.bad.saturating_sub(before.bad),
    };
    let values = now.values.iter().zip(&before.values).map(|(now, before)| Moments {
        count: now.count.saturating_sub(before.count),
        sum: now.sum - before.sum,
        sum_of_squares: now.sum_of_squares - before.sum_of_squares,
    });
    Observed {
        requests: arm(now.requests, before.requests),
        mismatched: now.mismatched.saturating_sub(before.mismatched),
        durations: now.durations.since(&before.durations),
        values: values.collect(),
    }
}

fn subject<'s>(in_force: &'s InForce, name: &str) -> Option<Subject<'s>> {
    let services = in_force
        .snapshot
        .policy
        .services
        .iter()
        .zip(&in_force.snapshot.services);
    let mut services = services.zip(&*in_force.services);
    let ((policy, file), live) = services.find(|((policy, _), _)| *policy.name == *name)?;
    let plan = file.rollout.as_ref()?;
    Some(Subject { policy, plan, live })
}

/// Services whose rollout owns the split.
fn under_way(in_force: &InForce, state: &State) -> Vec<Box<str>> {
    let is_under_way = |plan: &&Plan| {
        state
            .service(&plan.service)
            .is_some_and(runtime::ServiceState::is_rolled_out)
    };
    in_force
        .snapshot
        .plans()
        .filter(is_under_way)
        .map(|plan| plan.service.clone())
        .collect()
}

/// What a look found out.
struct Looked {
    change: Change,
    baseline: Baseline,
    service: Box<str>,
}

impl Writer {
    /// Judges every rollout under way, and does what follows.
    pub(super) async fn on_look(&mut self, looking: &Looking) {
        for service in under_way(&self.shared.load(), &self.records.state) {
            let Some(looked) = self.look(&service, looking) else {
                continue;
            };
            if self.gives_to_a_canary(&looked.change) {
                self.go_on(looked).await;
            } else {
                self.settle_look(looked);
            }
        }
    }

    /// The same while something waits for the disk: only what goes toward stable. Returns whether anything did.
    pub(super) fn on_look_meanwhile(&mut self, looking: &Looking) -> bool {
        let mut fell = false;
        for service in under_way(&self.shared.load(), &self.records.state) {
            let looked = self.look(&service, looking);
            if let Some(looked) = looked.filter(|looked| self.takes_from_a_canary(&looked.change)) {
                self.settle_look(looked);
                fell = true;
            }
        }
        fell
    }

    /// Looks at the rollouts that `command` is about, so that what was seen before it is judged as it was then.
    pub(super) fn look_before(&mut self, command: &Command) {
        let in_force = self.shared.load();
        let concerned: Vec<Box<str>> = match command {
            Command::Rollout { service, .. } | Command::Weights { service, .. } => {
                let with = subject(&in_force, service).map_or(&[][..], |subject| &subject.plan.with);
                std::iter::once(service.as_str().into())
                    .chain(with.iter().cloned())
                    .collect()
            }
            Command::Load => in_force.snapshot.plans().map(|plan| plan.service.clone()).collect(),
            _ => Vec::new(),
        };
        for service in concerned {
            let Some(looked) = self.look(&service, &Looking::default()) else {
                self.skip(&service);
                continue;
            };
            if !self.gives_to_a_canary(&looked.change) {
                self.settle_look(looked);
            }
        }
    }

    /// What came of looking at a rollout under way now; nothing is carried out yet.
    fn look(&self, service: &str, looking: &Looking) -> Option<Looked> {
        let in_force = self.shared.load();
        let subject = subject(&in_force, service)?;
        if !self.records.state.service(service)?.is_rolled_out() {
            return None;
        }
        let now_ms = self.uptime_ms();
        let mut baseline = self.rollouts.baseline(&subject, now_ms, looking.burst)?;
        let mut seen = self.rollouts.since(&subject, &baseline, now_ms);
        if seen.failures > 0 || seen.copies.requests.bad > 0 {
            baseline.failing_since_ms.get_or_insert(now_ms);
        }
        seen.burst = looking.burst;
        let outside = looking.outside.iter().filter(|(of, ..)| **of == *service);
        seen.outside = outside.map(|(_, check, answer)| (*check, answer.clone())).collect();
        seen.obstacle = self.obstacle(&subject, baseline.candidate_is, now_ms);
        let command = Command::Rollout {
            service: service.to_owned(),
            steer: Steer::Look(Box::new(seen)),
        };
        let change = runtime::apply(
            &self.records.state,
            &in_force.snapshot,
            &command,
            &Origin::rollout(super::now_ms()),
            self.now(),
        );
        Some(Looked {
            change: change.ok()?,
            baseline,
            service: service.into(),
        })
    }

    /// What forbids traffic for the candidate now.
    fn obstacle(&self, subject: &Subject<'_>, candidate: usize, now_ms: u64) -> Option<String> {
        let usable = |version: &crate::shared::VersionInForce| version.pool.usable(now_ms);
        if !subject.live.versions.get(candidate).is_some_and(usable) {
            return Some(format!("{} has no usable endpoint", subject.plan.candidate));
        }
        let why = self.records.keep.not_durable()?;
        Some(format!("the state cannot be made durable: {why}"))
    }

    /// What was seen of a service without a rollout under way is about none.
    fn skip(&mut self, service: &str) {
        let in_force = self.shared.load();
        let baseline =
            subject(&in_force, service).and_then(|subject| self.rollouts.baseline(&subject, self.uptime_ms(), false));
        if let Some(baseline) = baseline {
            let failing_since_ms = None;
            self.rollouts.seen.insert(
                service.into(),
                Baseline {
                    failing_since_ms,
                    ..baseline
                },
            );
        }
    }

    /// On toward the canary: durable first.
    async fn go_on(&mut self, looked: Looked) {
        let (answer, answered) = oneshot::channel();
        let envelope = Envelope {
            order: Order::Look(Looking::default()),
            by: Origin::rollout(super::now_ms()),
            expected: None,
            answer,
        };
        let before = Arc::clone(&self.records.state);
        if self.keep_first(looked.change, envelope).await {
            self.rollouts.seen.insert(looked.service, looked.baseline);
            self.count_from_now(&before);
        }
        drop(answered);
    }

    /// While a change toward a canary was made durable, requests went on at the share of before: they say nothing of the
    /// new one, but for failures, which the guard counts.
    pub(super) fn count_from_now(&mut self, before: &State) {
        let in_force = self.shared.load();
        let share = |state: &State, name: &str| {
            let machine = &state.rollout(name)?.machine;
            Some((machine.share, machine.mirror))
        };
        for name in under_way(&in_force, &in_force.state) {
            if share(before, &name) == share(&in_force.state, &name) {
                continue;
            }
            let fresh =
                subject(&in_force, &name).and_then(|subject| self.rollouts.baseline(&subject, self.uptime_ms(), false));
            if let (Some(fresh), Some(known)) = (fresh, self.rollouts.seen.get_mut(&name)) {
                let failures = known.failures;
                *known = Baseline { failures, ..fresh };
            }
        }
    }

    fn settle_look(&mut self, looked: Looked) {
        let Looked {
            change,
            baseline,
            service,
        } = looked;
        self.rollouts.seen.insert(service, baseline);
        if change
            .happened
            .iter()
            .any(|happened| happened.kind != EventKind::Rollout)
        {
            drop(self.publish_change(change, &Origin::rollout(super::now_ms())));
            return;
        }
        self.go_on_quietly(change.state);
        if !change.happened.is_empty() {
            let (in_force, state) = (self.shared.load(), Arc::clone(&self.records.state));
            let events = self.records.number(
                change.happened,
                &Origin::rollout(super::now_ms()),
                &in_force,
                in_force.generation,
            );
            drop(self.records.settle(state, events));
        }
        self.hand_over(change.asks);
    }

    /// Only time has gone on for a rollout, and evidence has grown: that is no new generation, and no reason to wait.
    pub(super) fn go_on_quietly(&mut self, state: State) {
        let state = Arc::new(state);
        let previous = self.shared.load();
        self.records.state = Arc::clone(&state);
        self.shared.publish(InForce {
            generation: previous.generation,
            ..super::with_state(state, &previous)
        });
        let now_ms = self.uptime_ms();
        if now_ms.saturating_sub(self.rollouts.saved_ms) >= QUIET_SAVE.as_millis() as u64 {
            self.rollouts.saved_ms = now_ms;
            let _saving: Saving = self.records.confirm();
        }
    }

    pub(super) fn gives_to_a_canary(&self, change: &Change) -> bool {
        let in_force = self.shared.load();
        let after = runtime::traffic(&change.state, &in_force.snapshot);
        runtime::moves_toward_canary(&in_force.snapshot, &in_force.traffic, &after)
    }

    fn takes_from_a_canary(&self, change: &Change) -> bool {
        let in_force = self.shared.load();
        let after = runtime::traffic(&change.state, &in_force.snapshot);
        after != in_force.traffic && !runtime::moves_toward_canary(&in_force.snapshot, &in_force.traffic, &after)
    }

    /// Hands over what others have to do about a change that is in force.
    pub(super) fn hand_over(&mut self, asks: Vec<Ask>) {
        let in_force = self.shared.load();
        for ask in asks {
            if let Ask::Notify { service, notice, .. } = &ask {
                self.note(&in_force, service, *notice);
            }
            if self.rollouts.asks.try_send(ask).is_err() {
                tracing::error!("too many notifications and questions to gates wait at once: one is lost");
            }
        }
    }

    /// What the beginning and the end of a rollout mean for its counters.
    fn note(&mut self, in_force: &InForce, service: &str, notice: Notice) {
        let Some(subject) = subject(in_force, service) else {
            return;
        };
        let Some(evidence) = &subject.live.evidence else { return };
        match notice {
            Notice::Start => {
                evidence.forgive();
                if let Some(baseline) = self.rollouts.seen.get_mut(service) {
                    baseline.failing_since_ms = None;
                }
            }
            Notice::Rollback => {
                let state = in_force.state.rollout(service);
                let Some(Phase::RolledBack(reason)) = state.map(|rollout| &rollout.machine.phase) else {
                    return;
                };
                let since = self.rollouts.seen.get(service).and_then(|seen| seen.failing_since_ms);
                let detected = matches!(reason.cause, Cause::Check | Cause::Guard)
                    .then(|| Duration::from_millis(self.uptime_ms().saturating_sub(since.unwrap_or(self.uptime_ms()))));
                subject.live.rollbacks.count(reason.cause, detected);
            }
            _ => {}
        }
    }

    pub(super) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.shared.uptime().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn now(&self) -> crate::rollout::Now {
        crate::rollout::Now {
            uptime_ms: self.uptime_ms(),
            unix_s: i64::try_from(super::now_s()).unwrap_or(i64::MAX),
        }
    }
}

#[cfg(test)]
#[path = "rollouts_tests.rs"]
mod tests;
