//! The rollout machine: [`advance`].
//!
//! # What a step needs to end
//!
//! Each [`Event::Look`] asks, in this order, and stops at the first no (which is [`State::wait`]): has the hold passed;
//! does every check pass now (or was waited long enough for evidence, where the plan says to proceed then); was the step
//! approved; is the service not killed; does the shell know no obstacle; is no freeze window open; do all gates say yes;
//! are the other services of the train as far. Before the first step there is nothing to hold, judge or approve. A
//! person's `promote` needs no hold, verdict and approval, but all the rest.
//!
//! # What makes a share fall
//!
//! A failed check, the guard, the end of the wait for evidence, a kill switch, a command, another service of the train.
//! None of them waits for anything, and none is stopped by a pause or a freeze.
//!
//! # Time
//!
//! Holds count the uptime between events, at most [`LONGEST_GAP`] at once, and are kept as time elapsed: neither a jump of
//! the wall clock, nor a process that stood still, nor a restart makes a step end early or never.

use super::event::{Companion, Effect, Event, Judgement, Look, Now, Toward};
use super::freeze::frozen;
use super::moves::Judged;
use super::plan::{Action, Notice, OnNoEvidence, Plan};
use super::share::Share;
use super::state::{Cause, Phase, Reason, State, Wait};
use super::words::{self, kept};
use std::time::Duration;

/// The most time that counts between two events: what nobody looked at is no time of a hold.
pub const LONGEST_GAP: Duration = Duration::from_secs(10);

/// The next state of a rollout, and what is to be done about it. Total: it gives an answer for any plan, state, event and
/// time, and never panics. A command that makes no sense changes nothing and gives [`Effect::Refused`].
///
/// Effects are to be carried out whole and in order, see [`super::toward`]; when they cannot be made durable, the old state
/// stays and it is as if the event had not been.
///
/// The plan is always that of the file in force. A plan with [`Plan::with`] goes on only through
/// [`super::advance_train`].
pub fn advance(plan: &Plan, state: State, event: Event, now: Now) -> (State, Vec<Effect>) {
    let mut machine = Machine {
        plan,
        state,
        now,
        effects: Vec::new(),
    };
    machine.count_time();
    machine.happen(event);
    (machine.state, machine.effects)
}

/// A state while an event is worked in.
pub(super) struct Machine<'p> {
    pub(super) plan: &'p Plan,
    pub(super) state: State,
    pub(super) now: Now,
    pub(super) effects: Vec<Effect>,
}

impl Machine<'_> {
    fn count_time(&mut self) {
        let seen = self.state.live.seen_ms.replace(self.now.uptime_ms);
        let gone = seen.map_or(0, |seen| self.now.uptime_ms.saturating_sub(seen));
        if self.state.is_advancing() {
            let counted = gone.min(millis(LONGEST_GAP));
            self.state.elapsed_ms = self.state.elapsed_ms.saturating_add(counted);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Look(look) => self.look(look),
            Event::Command(command) => self.command(&command),
            Event::Gate { gate, window, answer } => self.gate(gate, window, answer),
            Event::Loaded => self.loaded(),
            Event::Removed => self.removed(),
            Event::Restored => self.restored(),
            Event::Killed(by) => self.killed(&by),
            Event::Unkilled(by) => {
                self.state.killed = false;
                self.report(format!("{}: the kill switch is released {by}", self.plan.service));
            }
            Event::WeightsSet { share, by } => self.weights_set(share, &by),
            Event::FileWeights(weights) if self.state.owns_split() => {
                self.report(format!(
                    "{}: the file's weights are recorded, and applied when the rollout of {} ends",
                    self.plan.service,
                    self.candidate()
                ));
                self.state.recorded = Some(weights);
            }
            Event::FileWeights(weights) => self.effects.push(Effect::ApplyWeights(weights)),
            Event::Train(companion) => self.train(companion),
        }
    }

    // ---- looking ----

    fn look(&mut self, look: Look) {
        if !self.state.owns_split() {
            return;
        }
        self.state.obstacle = look.obstacle.as_deref().map(kept);
        self.state.live.ready_ms = None;
        if look.window != self.state.window {
            return;
        }
        if let Some(max) = self.plan.max_failures
            && look.failures >= max
        {
            let text = format!("{} failed requests, {max} are allowed (guard)", look.failures);
            return self.roll_back(Cause::Guard, &text);
        }
        match look.judgement {
            Judgement::Fail { action, sentence } => self.failed(action, &sentence),
            Judgement::Pass => self.proceed(&Judged::Pass),
            Judgement::NoEvidence(missing) => self.proceed(&Judged::NoEvidence(missing)),
        }
    }

    fn failed(&mut self, action: Action, sentence: &str) {
        let paused = matches!(self.state.phase, Phase::Paused(_));
        match action {
            Action::Rollback => self.roll_back(Cause::Check, sentence),
            Action::StepBack => self.step_back(Cause::Check, sentence),
            Action::Pause if paused => {}
            Action::Pause => self.pause(Cause::Check, sentence),
        }
    }

    /// Goes on if all is in order, else notes what is not.
    fn proceed(&mut self, judged: &Judged) {
        if !self.state.is_advancing() {
            return;
        }
        if self.state.step > 0 && !self.state.promoting {
            match self.step_waits(judged) {
                StepWaits::For(wait, why) => return self.wait(wait, why),
                StepWaits::TooLong(why) => return self.roll_back(Cause::NoEvidence, &why),
                StepWaits::No => {}
            }
        }
        if let Some((wait, why)) = self.move_waits() {
            return self.wait(wait, why);
        }
        if self.plan.with.is_empty() {
            self.depart();
        } else {
            self.state.live.ready_ms = Some(self.now.uptime_ms);
            let others = words::list(&self.plan.with);
            self.wait(Wait::Train, format!("is ready, and goes on together with {others}"));
        }
    }

    /// What the step itself still lacks.
    fn step_waits(&mut self, judged: &Judged) -> StepWaits {
        let Some(step) = self.plan.step(self.state.step) else {
            return StepWaits::No;
        };
        let approval_missing = step.approval && !self.state.approved;
        if self.state.phase == Phase::WaitingApproval && approval_missing {
            return StepWaits::For(Wait::Approval, String::new());
        }
        let elapsed = Duration::from_millis(self.state.elapsed_ms);
        if elapsed < step.hold {
            return StepWaits::For(Wait::Hold, String::new());
        }
        if let Judged::NoEvidence(missing) = judged {
            let analysis = &self.plan.analysis;
            let over = match (analysis.on_no_evidence, analysis.max_hold) {
                (OnNoEvidence::Hold, _) => false,
                (_, None) => true,
                (_, Some(max_hold)) => elapsed >= max_hold,
            };
            let waited = words::duration(Duration::from_secs(elapsed.as_secs()));
            match analysis.on_no_evidence {
                OnNoEvidence::Rollback if over => {
                    return StepWaits::TooLong(format!("no evidence after {waited}: {missing}"));
                }
                OnNoEvidence::Proceed if over => {}
                _ => return StepWaits::For(Wait::Evidence, format!("waits for evidence: {missing}")),
            }
        }
        if approval_missing {
            self.ask_approval();
            return StepWaits::For(Wait::Approval, String::new());
        }
        StepWaits::No
    }

    fn ask_approval(&mut self) {
        self.state.phase = Phase::WaitingApproval;
        let (service, step) = (&self.plan.service, self.state.step);
        let sentence = format!(
            "{service}: {} has passed step {step} of {} ({}) and waits for approval: `rollgate rollout approve {service}`",
            self.candidate(),
            self.plan.last(),
            self.state.share
        );
        self.notify(Notice::Approval, sentence);
    }

    /// What forbids any move toward the candidate.
    fn move_waits(&mut self) -> Option<(Wait, String)> {
        if let Some(refused) = self.held() {
            return Some(refused);
        }
        let closed = self.closed_gates();
        if closed == 0 {
            return None;
        }
        self.ask(closed);
        Some((Wait::Gate, "waits for its gates".to_owned()))
    }

    /// What holds back even a person's `promote`.
    pub(super) fn held(&self) -> Option<(Wait, String)> {
        if self.state.killed {
            return Some((Wait::Unkill, "waits until the kill switch is released".to_owned()));
        }
        if let Some(obstacle) = &self.state.obstacle {
            return Some((Wait::Obstacle, format!("waits: {obstacle}")));
        }
        frozen(&self.plan.freeze, self.now.unix_s).map(|until| (Wait::Freeze, format!("is {until}")))
    }

    fn wait(&mut self, wait: Wait, why: String) {
        if self.state.wait != wait && !why.is_empty() {
            let position = words::position(self.plan, &self.state);
            self.report(format!(
                "{}: {}, {position}, {why}",
                self.plan.service,
                self.candidate()
            ));
        }
        self.state.wait = wait;
    }

    // ---- what comes from outside ----

    fn loaded(&mut self) {
        match &self.state.candidate {
            Some(known) if *known == self.plan.candidate => self.edited(),
            Some(_) => {
                if self.state.owns_split() {
                    let text = format!("the file now names {} as the candidate", self.plan.candidate);
                    self.roll_back(Cause::Superseded, &text);
                }
                self.appeared();
            }
            None => self.appeared(),
        }
    }

    fn removed(&mut self) {
        if self.state.owns_split() {
            self.give(self.state.share, &[], Share::ZERO);
            let sentence = format!(
                "{}: the file has no rollout of {} any more: its weights stay as they are",
                self.plan.service,
                self.candidate()
            );
            self.report(sentence);
            self.release(false);
        }
        self.state = State {
            attempt: self.state.attempt,
            window: self.state.window.saturating_add(1),
            killed: self.state.killed,
            live: self.state.live,
            ..State::default()
        };
    }

    /// The durable state is in force again, whatever was done of it before the end of the process.
    fn restored(&mut self) {
        self.state.live.seen_ms = Some(self.now.uptime_ms);
        self.state.live.ready_ms = None;
        // What an admin command set is more than a share, and durable by itself.
        let by_admin = matches!(&self.state.phase, Phase::Paused(reason) if reason.cause == Cause::Weights);
        if self.state.owns_split() {
            if !by_admin {
                self.effects.push(Effect::SetShare {
                    candidate: self.candidate(),
                    share: self.state.share,
                    toward: Toward::Stable,
                });
            }
            self.effects.push(Effect::Admit {
                candidate: self.candidate(),
                segments: self.state.segments.clone(),
                toward: Toward::Stable,
            });
            self.effects.push(Effect::Mirror {
                candidate: self.candidate(),
                share: self.state.mirror,
                toward: Toward::Stable,
            });
        }
    }

    fn killed(&mut self, by: &super::event::By) {
        let already = std::mem::replace(&mut self.state.killed, true);
        let sentence = format!("{}: killed {by}: everything goes to stable", self.plan.service);
        self.notify(Notice::Kill, sentence);
        // What began under a switch waits for its end. What comes under one is over, also before its first step: whoever kills
        // does not want what would begin at the end of the switch.
        let begun = self.state.step > 0 || self.state.share > Share::ZERO;
        if self.state.owns_split() && (begun || !already) {
            self.roll_back(Cause::Killed, &format!("killed {by}"));
        }
    }

    fn weights_set(&mut self, share: Share, by: &super::event::By) {
        if !self.state.owns_split() {
            return;
        }
        // Copies are of the step, and what is in force now is not.
        self.mirror(Share::ZERO, false);
        self.state.share = share;
        self.effects.push(Effect::TakeSplit);
        if matches!(&self.state.phase, Phase::Paused(reason) if reason.cause == Cause::Weights) {
            return;
        }
        self.pause(Cause::Weights, &format!("its weights were set {by}"));
    }

    fn train(&mut self, companion: Companion) {
        match companion {
            Companion::Depart if is_ready(&self.state, self.now) => self.depart(),
            Companion::RolledBack { service, reason } if self.state.owns_split() => {
                self.roll_back(
                    Cause::Train,
                    &format!("{service} of its train was rolled back: {}", reason.text),
                );
            }
            Companion::SteppedBack { service, step } if self.state.owns_split() && self.state.step > step => {
                self.step_back(
                    Cause::Train,
                    &format!("{service} of its train went back to step {step}"),
                );
            }
            Companion::Depart | Companion::RolledBack { .. } | Companion::SteppedBack { .. } => {}
        }
    }

    // ---- telling ----

    pub(super) fn candidate(&self) -> Box<str> {
        self.state
            .candidate
            .clone()
            .unwrap_or_else(|| self.plan.candidate.clone())
    }

    pub(super) fn report(&mut self, sentence: String) {
        self.effects.push(Effect::Report(sentence));
    }

    pub(super) fn notify(&mut self, notice: Notice, sentence: String) {
        self.effects.push(Effect::Notify { notice, sentence });
    }

    pub(super) fn reason(cause: Cause, text: &str) -> Reason {
        Reason {
            cause,
            text: kept(text),
        }
    }
}

/// What a step lacks.
enum StepWaits {
    No,
    For(Wait, String),
    /// For evidence, longer than the plan allows.
    TooLong(String),
}

/// Whether a member of a train could go on at its last look, which was not long ago.
pub(super) fn is_ready(state: &State, now: Now) -> bool {
    let fresh = |ready: u64| now.uptime_ms.saturating_sub(ready) <= millis(LONGEST_GAP);
    state.is_advancing() && !state.killed && state.live.ready_ms.is_some_and(fresh)
}

/// Milliseconds, as far as they go.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
