//! What a rollout asks for, carried out on the state: its machine is `rollout`, its judge `analysis`. Nothing here looks at
//! a clock or at a counter: what was seen comes as [`Seen`], what others have to do goes as an [`Ask`].

use super::apply::known_service;
use super::state::{FileSplit, RolloutState, ServiceState, State, WeightsSet};
use super::{EventKind, Happened, Origin, Refusal, Weights};
use crate::analysis::{Finding, Judge, Names, Observed, Window};
use crate::config::Snapshot;
use crate::rollout::{
    self, By, Effect, Event, Judgement, Look, Notice, Now, Phase, Plan, Scope, Share, advance, advance_train, at_share,
    share_of,
};
use crate::routing::{Service, Version};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What happens to a service's rollout from outside the state.
#[derive(Debug, Clone, PartialEq)]
pub enum Steer {
    /// About once a second, and at once after failures.
    Look(Box<Seen>),
    Verb(rollout::Verb),
    /// What a gate answered.
    Gate {
        gate: usize,
        window: u64,
        answer: rollout::Answer,
    },
}

/// What was seen of a service since the last look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// What the split sent to the candidate.
    pub candidate: Observed,
    /// What a rule or a ring sent to it.
    pub forced: Observed,
    /// What the split sent to stable.
    pub stable: Observed,
    /// Copies of a mirror step that ended, and the requests of which copies were begun.
    pub copies: Observed,
    pub originals: Observed,
    /// Failed requests of the candidate, whoever sent them.
    pub failures: u64,
    /// Since the last look that was none for a burst.
    pub elapsed: Duration,
    /// Whether a failure made somebody look, not the clock.
    pub burst: bool,
    /// New answers to queries, by the position of the check.
    pub outside: Vec<(usize, Result<f64, String>)>,
    /// What forbids traffic for the candidate, in a sentence.
    pub obstacle: Option<String>,
}

/// What somebody outside has to do about a change, once it is in force.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Tell the receivers of the plan.
    Notify {
        service: String,
        notice: Notice,
        sentence: String,
    },
    /// Ask a gate of the plan, by its position.
    Gate { service: String, gate: usize, window: u64 },
}

const STABLE_FAILS: &str = "stable itself fails a fifth of its requests or more";

/// A state on its way to the next one.
pub(super) struct Steering<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) by: &'a Origin,
    pub(super) now: Now,
    pub(super) state: State,
    pub(super) happened: Vec<Happened>,
    pub(super) asks: Vec<Ask>,
    refused: Option<String>,
}

impl<'a> Steering<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, by: &'a Origin, now: Now, state: State) -> Self {
        Self {
            snapshot,
            by,
            now,
            state,
            happened: Vec::new(),
            asks: Vec::new(),
            refused: None,
        }
    }

    /// # Errors
    /// The service has no rollout, or its machine refuses the command.
    pub(super) fn steer(&mut self, name: &str, steer: &Steer) -> Result<(), Refusal> {
        known_service(self.snapshot, name)?;
        if plan(self.snapshot, name).is_none() {
            let service = name.to_owned();
            return Err(Refusal::NoRollout { service });
        }
        match steer {
            Steer::Look(seen) => self.look(name, seen),
            Steer::Verb(verb) => {
                let (verb, by) = (*verb, self.person());
                self.happen(name, Event::Command(rollout::Command { verb, by }));
            }
            Steer::Gate { gate, window, answer } => {
                let (gate, window, answer) = (*gate, *window, answer.clone());
                self.happen(name, Event::Gate { gate, window, answer });
            }
        }
        self.refused.take().map_or(Ok(()), |why| Err(Refusal::Rollout { why }))
    }

    /// Judges what was seen, and lets the machine look at the verdict.
    fn look(&mut self, name: &str, seen: &Seen) {
        let (Some((service, plan)), Some(known)) = (planned(self.snapshot, name), self.state.service(name)) else {
            return;
        };
        let Some(mut rollout) = known.rollout.clone().filter(|rollout| rollout.machine.owns_split()) else {
            return;
        };
        let judge = rollout
            .judge
            .get_or_insert_with(|| Box::new(Judge::new(plan.analysis.rules())));
        for (check, answer) in &seen.outside {
            judge.outside(*check, answer.clone());
        }
        let machine = &rollout.machine;
        let mirrored = machine.is_mirroring();
        // The originals are among what stable was sent: they count once. Copies outside of mirror steps count nowhere.
        let (candidate, stable) = match mirrored {
            true => (&seen.copies, &seen.originals),
            false => (&seen.candidate, &seen.stable),
        };
        let window = Window {
            candidate,
            forced: &seen.forced,
            stable,
            share: judged_share(machine),
            warming: Duration::from_millis(machine.elapsed_ms) < plan.analysis.warmup,
            mirrored,
        };
        rollout.stable.see(&seen.stable.requests);
        if seen.burst {
            judge.burst(&window);
        } else {
            judge.tick(&window, seen.elapsed);
            rollout.stable.tick(seen.elapsed);
        }
        rollout.failures = rollout.failures.saturating_add(seen.failures);
        let stable_fails = || rollout.stable.fails().then(|| STABLE_FAILS.to_owned());
        rollout.findings = judge.findings(names(service, plan));
        let look = Look {
            window: machine.window,
            judgement: judgement(plan, machine.step, &rollout.findings),
            failures: rollout.failures,
            obstacle: seen.obstacle.clone().or_else(stable_fails),
        };
        self.state.edit(name, |service| service.rollout = Some(rollout));
        self.happen(name, Event::Look(look));
    }

    /// What happens to the rollout of `name` and to those that are delivered with it. A service without a plan is left
    /// alone.
    pub(super) fn happen(&mut self, name: &str, event: Event) {
        let Some(own) = plan(self.snapshot, name) else { return };
        let others = own.with.iter().filter_map(|other| plan(self.snapshot, other));
        let plans: Vec<&Plan> = std::iter::once(own).chain(others).collect();
        let members: Vec<(&Plan, rollout::State)> =
            plans.iter().map(|plan| (*plan, self.machine(&plan.service))).collect();
        let before: Vec<rollout::State> = members.iter().map(|(_, state)| state.clone()).collect();
        let answers = match members.len() {
            1 => members
                .into_iter()
                .map(|(plan, state)| advance(plan, state, event.clone(), self.now))
                .collect(),
            _ => advance_train(members, 0, event, self.now),
        };
        for ((plan, before), (machine, effects)) in plans.into_iter().zip(before).zip(answers) {
            self.carry_out(plan, &before, machine, effects);
        }
    }

    /// The same for a service whose plan has left the file.
    fn removed(&mut self, name: &str) {
        let before = self.machine(name);
        let Some(candidate) = &before.candidate else { return };
        let departed = Plan::departed(name, candidate);
        let (machine, effects) = advance(&departed, before.clone(), Event::Removed, self.now);
        self.carry_out(&departed, &before, machine, effects);
        self.state.edit(name, |service| {
            if let Some(rollout) = &mut service.rollout {
                (rollout.judge, rollout.findings) = (None, Vec::new());
            }
        });
    }

    /// The process ended and begins again: what the state says of rollouts is in force.
    pub(super) fn restored(&mut self) {
        let snapshot = self.snapshot;
        for plan in snapshot.plans() {
            if self
                .state
                .service(&plan.service)
                .is_some_and(|known| known.rollout.is_some())
            {
                self.happen(&plan.service, Event::Restored);
            }
        }
    }

    /// A file was read, in which the splits of the services in `edited` are others.
    pub(super) fn loaded(&mut self, edited: &[String]) {
        for name in edited {
            let weights = self
                .state
                .service(name)
                .map(|known| known.file.weights())
                .unwrap_or_default();
            self.happen(name, Event::FileWeights(weights));
        }
        // A switch ends what was under way, and not what the file begins beside it.
        self.tell_kills();
        let snapshot = self.snapshot;
        for plan in snapshot.plans() {
            let rules = plan.analysis.rules();
            self.state.edit(&plan.service, |service| {
                let judge = service.rollout.as_mut().and_then(|rollout| rollout.judge.as_mut());
                if let Some(judge) = judge.filter(|judge| *judge.rules() != rules) {
                    judge.adopt(rules);
                }
            });
            self.happen(&plan.service, Event::Loaded);
            self.fit(&plan.service);
        }
        let departed = |(name, known): (&Arc<str>, &Arc<ServiceState>)| {
            let gone = known.rollout.is_some() && plan(snapshot, name).is_none();
            (gone && policy(snapshot, name).is_some()).then(|| name.to_string())
        };
        let departed: Vec<String> = self.state.services.iter().filter_map(departed).collect();
        for name in departed {
            self.removed(&name);
        }
    }

    /// Weights for the versions of the file, where a rollout owns them.
    fn fit(&mut self, name: &str) {
        let (Some(service), Some(known)) = (policy(self.snapshot, name), self.state.service(name)) else {
            return;
        };
        let Some(rollout) = known.rollout.as_ref().filter(|rollout| rollout.machine.owns_split()) else {
            return;
        };
        let weights = match (&rollout.machine.candidate, rollout.weights_are_a_persons()) {
            (Some(candidate), false) if gives(service, &known.weights(), candidate, rollout.machine.share) => return,
            (Some(candidate), false) => weights_at(service, known, candidate, rollout.machine.share),
            _ => completed(service, &known.file, &known.weights()),
        };
        let at_ms = self.by.at_ms;
        self.state.edit(name, |state| set_weights(state, weights, at_ms));
    }

    /// Tells each rollout whether a kill switch holds its service, where that is news.
    pub(super) fn tell_kills(&mut self) {
        let snapshot = self.snapshot;
        for plan in snapshot.plans() {
            let Some(known) = self.state.service(&plan.service) else {
                continue;
            };
            let killed = self.state.all_killed() || known.is_killed();
            if self.machine(&plan.service).killed != killed {
                let by = self.person();
                let event = if killed { Event::Killed(by) } else { Event::Unkilled(by) };
                self.happen(&plan.service, event);
            }
        }
    }

    /// A person set the weights of `name`. Returns what that did to its rollout, for who asked.
    pub(super) fn weights_set(&mut self, name: &str, weights: &Weights) -> String {
        let (Some(service), Some(plan)) = (policy(self.snapshot, name), plan(self.snapshot, name)) else {
            return String::new();
        };
        let known = self.machine(name).candidate;
        let candidate = known.as_ref().unwrap_or(&plan.candidate);
        let names = service.versions.iter().map(|version| &*version.name);
        let in_order: Vec<u32> = names.map(|name| weights.get(name).copied().unwrap_or(0)).collect();
        let position = service.versions.iter().position(|version| version.name == *candidate);
        let share = share_of(&in_order, position.unwrap_or(usize::MAX));
        let by = self.person();
        self.happen(name, Event::WeightsSet { share, by });
        match self.state.rollout(name) {
            Some(rollout) if rollout.weights_are_a_persons() => {
                format!("; its rollout is paused: `rollgate rollout resume {name}` goes on")
            }
            _ => String::new(),
        }
    }

    fn person(&self) -> By {
        By {
            who: self.by.who.clone(),
            why: self.by.reason.clone(),
        }
    }

    pub(super) fn machine(&self, name: &str) -> rollout::State {
        let rollout = self.state.rollout(name);
        rollout.map(|rollout| rollout.machine.clone()).unwrap_or_default()
    }

    fn carry_out(&mut self, plan: &Plan, before: &rollout::State, machine: rollout::State, effects: Vec<Effect>) {
        let name = plan.service.to_string();
        let after = told(&machine);
        for effect in effects {
            match effect {
                Effect::Notify { notice, sentence } => {
                    // The switch tells of itself.
                    if notice != Notice::Kill {
                        self.note(&name, kind_of(notice), (told(before), after.clone()), &sentence);
                    }
                    let service = name.clone();
                    self.asks.push(Ask::Notify {
                        service,
                        notice,
                        sentence,
                    });
                }
                Effect::Report(sentence) => {
                    self.note(&name, EventKind::Rollout, (told(before), after.clone()), &sentence);
                }
                Effect::AskGate { gate, window } => {
                    let service = name.clone();
                    self.asks.push(Ask::Gate { service, gate, window });
                }
                Effect::Refused(why) => self.refused = Some(why),
                effect => self.move_traffic(plan, effect),
            }
        }
        if *before != machine {
            self.state.edit(&name, |service| {
                let rollout = service.rollout.get_or_insert_default();
                if judged_share(before) != judged_share(&machine)
                    && let Some(judge) = &mut rollout.judge
                {
                    end_window(judge, &machine);
                }
                rollout.machine = machine;
            });
        }
    }

    fn move_traffic(&mut self, plan: &Plan, effect: Effect) {
        let Some(service) = policy(self.snapshot, &plan.service) else {
            return;
        };
        let at_ms = self.by.at_ms;
        self.state.edit(&plan.service, |state| match effect {
            Effect::TakeSplit => {
                let before = state.weights();
                state.rollout.get_or_insert_default().before = before;
            }
            Effect::SetShare { candidate, share, .. } => {
                let given = gives(service, &state.weights(), &candidate, share);
                let weights = (!given).then(|| weights_at(service, state, &candidate, share));
                weights
                    .into_iter()
                    .for_each(|weights| set_weights(state, weights, at_ms));
            }
            Effect::ApplyWeights(weights) => {
                let weights = completed(service, &state.file, &weights);
                set_weights(state, weights, at_ms);
            }
            Effect::Revoke => state.epoch = state.epoch.wrapping_add(1),
            Effect::ResetEvidence { scope, .. } => {
                reset(state.rollout.get_or_insert_default(), plan, scope);
            }
            // Segments and mirror are read off the machine's state; whose the split is, too.
            _ => {}
        });
    }

    fn note(&mut self, service: &str, kind: EventKind, (before, after): (Value, Value), sentence: &str) {
        self.happened.push(Happened {
            kind,
            service: Some(service.to_owned()),
            before,
            after,
            text: sentence.to_owned(),
        });
    }
}

/// A step that shows the candidate to nobody has nothing to be judged by.
fn judgement(plan: &Plan, step: u32, findings: &[Finding]) -> Judgement {
    match step {
        0 => Judgement::Pass,
        _ => plan.analysis.judgement(findings),
    }
}

fn reset(rollout: &mut RolloutState, plan: &Plan, scope: Scope) {
    if scope == Scope::Rollout {
        rollout.failures = 0;
    }
    match (&mut rollout.judge, scope) {
        (Some(judge), Scope::Step) => judge.begin_step(),
        (judge, _) => *judge = Some(Box::new(Judge::new(plan.analysis.rules()))),
    }
    rollout.findings = Vec::new();
}

/// What was seen until now was seen at another share: nothing that comes is counted together with it.
fn end_window(judge: &mut Judge, machine: &rollout::State) {
    let nothing = Observed::default();
    let window = Window {
        candidate: &nothing,
        forced: &nothing,
        stable: &nothing,
        share: judged_share(machine),
        warming: false,
        mirrored: machine.is_mirroring(),
    };
    judge.tick(&window, Duration::ZERO);
}

/// The candidate's share of what is compared.
fn judged_share(machine: &rollout::State) -> f64 {
    match machine.is_mirroring() {
        true => Window::SHARE_OF_PAIRS,
        false => machine.share.fraction(),
    }
}

fn set_weights(state: &mut ServiceState, weights: Weights, at_ms: u64) {
    if state.weights() == weights {
        return;
    }
    let by = Origin::rollout(at_ms);
    state.set = Some(WeightsSet { weights, by });
}

/// Whether `weights` are of the versions that there are, and give the candidate `share` already, to the nearest thousandth of a
/// percent: what a person set is left as they set it.
fn gives(service: &Service, weights: &Weights, candidate: &str, share: Share) -> bool {
    let names = || service.versions.iter().map(|version| &*version.name);
    let in_order: Option<Vec<u32>> = names().map(|name| weights.get(name).copied()).collect();
    let position = names().position(|name| name == candidate).unwrap_or(usize::MAX);
    in_order.is_some_and(|in_order| weights.len() == in_order.len() && share_of(&in_order, position) == share)
}

/// The weights of all versions that give the candidate `share`, by those that were in force before the rollout.
fn weights_at(service: &Service, state: &ServiceState, candidate: &str, share: Share) -> Weights {
    let before = state
        .rollout
        .as_ref()
        .map(|rollout| rollout.before.clone())
        .unwrap_or_default();
    let before = completed(service, &state.file, &before);
    let names = service.versions.iter().map(|version| version.name.to_string());
    let weights: Vec<u32> = names
        .clone()
        .map(|name| before.get(&name).copied().unwrap_or(0))
        .collect();
    let position = service.versions.iter().position(|version| *version.name == *candidate);
    let stable = usize::try_from(service.stable.0).unwrap_or(usize::MAX);
    let weights = at_share(&weights, stable, position.unwrap_or(usize::MAX), share);
    names.zip(weights).collect()
}

/// `weights` for the versions that there are: a canary that it does not know has nothing, a stable version what the file
/// gives it. Where nobody has anything, stable has it all.
fn completed(service: &Service, file: &FileSplit, weights: &Weights) -> Weights {
    let stable = stable_of(service).map(|stable| &*stable.name);
    let given = file.weights();
    let weight = |version: &Version| {
        let by_file = given.get(&*version.name).filter(|_| stable == Some(&*version.name));
        let weight = weights.get(&*version.name).or(by_file).copied().unwrap_or(0);
        (version.name.to_string(), weight)
    };
    let mut completed: Weights = service.versions.iter().map(weight).collect();
    if completed.values().all(|&weight| weight == 0)
        && let Some(stable) = stable
    {
        completed.insert(stable.to_owned(), 100);
    }
    completed
}

fn stable_of(service: &Service) -> Option<&Version> {
    service.versions.get(usize::try_from(service.stable.0).ok()?)
}

/// How a rollout stands, for the audit log.
fn told(machine: &rollout::State) -> Value {
    json!({
        "candidate": machine.candidate,
        "phase": machine.phase.word(),
        "step": machine.step,
        "share": machine.share.fraction() * 100.0,
        "segments": machine.segments,
        "mirror": machine.mirror.fraction() * 100.0,
        "reason": machine.phase.reason().map(|reason| &reason.text),
    })
}

fn kind_of(notice: Notice) -> EventKind {
    match notice {
        Notice::Start => EventKind::Start,
        Notice::Step => EventKind::Step,
        Notice::Approval => EventKind::Approval,
        Notice::Pause => EventKind::Pause,
        Notice::Resume => EventKind::Resume,
        Notice::Promote => EventKind::Promote,
        Notice::Success => EventKind::Success,
        Notice::Rollback => EventKind::Rollback,
        Notice::Kill => EventKind::Kill,
    }
}

pub(super) fn policy<'s>(snapshot: &'s Snapshot, name: &str) -> Option<&'s Service> {
    snapshot.policy.services.iter().find(|service| *service.name == *name)
}

pub(super) fn plan<'s>(snapshot: &'s Snapshot, name: &str) -> Option<&'s Plan> {
    planned(snapshot, name).map(|(_, plan)| plan)
}

fn planned<'s>(snapshot: &'s Snapshot, name: &str) -> Option<(&'s Service, &'s Plan)> {
    let mut services = snapshot.policy.services.iter().zip(&snapshot.services);
    let (service, file) = services.find(|(service, _)| *service.name == *name)?;
    Some((service, file.rollout.as_ref()?))
}

fn names<'s>(service: &'s Service, plan: &'s Plan) -> Names<'s> {
    Names {
        candidate: &plan.candidate,
        stable: stable_of(service).map_or("stable", |stable| &stable.name),
    }
}

impl RolloutState {
    /// Whether it is a person's pause by weights: what is in force then is what they set.
    pub(super) fn weights_are_a_persons(&self) -> bool {
        matches!(&self.machine.phase, Phase::Paused(reason) if reason.cause == rollout::Cause::Weights)
    }
}

#[cfg(test)]
#[path = "rollouts_tests.rs"]
mod tests;
