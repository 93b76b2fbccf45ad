//! What persons and gates say to the machine.

use super::event::{Answer, Command, Effect, Scope, Verb};
use super::machine::{Machine, millis};
use super::plan::{Before, MAX_GATES, Notice};
use super::share::Share;
use super::state::{Cause, Phase, Wait};
use super::words::{self, kept};
use std::time::Duration;

/// How long after gates were asked those that did not say yes are asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);

impl Machine<'_> {
    pub(super) fn command(&mut self, command: &Command) {
        let by = command.by.to_string();
        let refused = match command.verb {
            Verb::Start => self.start(&by),
            Verb::Pause => self.pause_by(&by),
            Verb::Resume => self.resume(&by),
            Verb::Approve => self.approve(&by),
            Verb::Promote => self.promote(&by),
            Verb::Retry => self.retry(&by),
            Verb::Rollback => {
                self.roll_back(Cause::Command, &by);
                None
            }
        };
        if let Some(why) = refused {
            self.effects
                .push(Effect::Refused(format!("{}: {why}", self.plan.service)));
        }
    }

    /// Why a command makes no sense now, how the rollout stands, and what does.
    fn no(&self, why: &str) -> Option<String> {
        let (standing, next) = (
            words::standing(self.plan, &self.state),
            words::next(self.plan, &self.state),
        );
        Some(format!("{why}: {} is {standing} ({next})", self.candidate()))
    }

    fn start(&mut self, by: &str) -> Option<String> {
        match &self.state.phase {
            Phase::Idle => self.begin_by("started", by),
            Phase::RolledBack(_) | Phase::Succeeded => self.no("it is over"),
            _ => self.no("one rollout at a time"),
        }
    }

    fn retry(&mut self, by: &str) -> Option<String> {
        match &self.state.phase {
            Phase::RolledBack(_) => self.begin_by("tried again", by),
            _ => self.no("only what was rolled back can be tried again"),
        }
    }

    fn begin_by(&mut self, how: &str, by: &str) -> Option<String> {
        if self.state.killed {
            return Some("a kill switch holds it: release that first (`rollgate unkill`)".to_owned());
        }
        self.state.candidate = Some(self.plan.candidate.clone());
        self.begin(&format!("{how} {by}"));
        None
    }

    fn pause_by(&mut self, by: &str) -> Option<String> {
        if self.state.is_advancing() {
            self.pause(Cause::Command, by);
            return None;
        }
        if matches!(self.state.phase, Phase::Paused(_)) {
            self.report(format!(
                "{}: {} was paused already",
                self.plan.service,
                self.candidate()
            ));
            return None;
        }
        self.no("no rollout is under way")
    }

    fn resume(&mut self, by: &str) -> Option<String> {
        if !matches!(self.state.phase, Phase::Paused(_)) {
            return self.no("nothing is paused");
        }
        self.go_on();
        let position = words::position(self.plan, &self.state);
        let sentence = format!(
            "{}: {} goes on {position}: resumed {by}",
            self.plan.service,
            self.candidate()
        );
        self.notify(Notice::Resume, sentence);
        None
    }

    /// The end of a pause, if there is one. It gives the candidate nothing.
    fn go_on(&mut self) {
        match self.state.phase.reason().map(|reason| reason.cause) {
            // What the failed check saw would fail it again at once; a person knows better.
            Some(Cause::Check | Cause::Train) => {
                self.at(self.state.step);
                self.state.step_backs = 0;
                self.reset(Scope::Checks);
            }
            // The step goes on at what was set, where that is less than what it gives.
            Some(Cause::Weights) => {
                let reached = self.settle(self.state.step.min(self.plan.last()));
                self.at(reached);
                self.reset(Scope::Step);
            }
            _ => {}
        }
        self.run();
        self.state.wait = Wait::Look;
    }

    fn approve(&mut self, by: &str) -> Option<String> {
        if self.state.phase != Phase::WaitingApproval {
            return self.no("nothing waits for approval");
        }
        self.run();
        self.state.approved = true;
        let sentence = format!(
            "{}: step {} of {} of {} is approved {by}: it ends while its checks pass",
            self.plan.service,
            self.state.step,
            self.plan.last(),
            self.candidate()
        );
        self.report(sentence);
        None
    }

    fn promote(&mut self, by: &str) -> Option<String> {
        if !self.state.owns_split() {
            return self.no("no rollout is under way");
        }
        let Some(whole) = self.plan.whole().filter(|_| self.state.share < Share::WHOLE) else {
            return self.no("it has everything already");
        };
        if let Some((_, why)) = self.held() {
            return Some(format!("{} cannot be promoted: it {why}", self.candidate()));
        }
        self.report(format!("{}: {} is promoted {by}", self.plan.service, self.candidate()));
        self.state.promoting = true;
        let open = self.closed_gates() == 0;
        if open && self.plan.with.is_empty() {
            if matches!(&self.state.phase, Phase::Paused(reason) if reason.cause == Cause::Check) {
                self.reset(Scope::Checks);
            }
            self.enter(whole);
            return None;
        }
        self.go_on();
        // A train leaves when all of it may.
        self.state.promoting = true;
        self.state.live.ready_ms = open.then_some(self.now.uptime_ms);
        None
    }

    // ---- gates ----

    pub(super) fn close_gates(&mut self) {
        self.state.gates_open = 0;
        self.state.asked_ms = None;
        self.state.gate_said = None;
    }

    /// The gates before the next move that did not say yes yet, as bits.
    pub(super) fn closed_gates(&self) -> u32 {
        let next = self.next_step();
        let rises_to_all =
            self.plan.step(next).is_some_and(|step| step.share == Share::WHOLE) && self.state.share < Share::WHOLE;
        let applies = |before: Before| match before {
            Before::Start => self.state.step == 0 && !self.state.promoting,
            Before::Step => self.state.step > 0 && !self.state.promoting && next <= self.plan.last(),
            Before::Promote => rises_to_all,
        };
        let gates = self.plan.gates.iter().take(MAX_GATES).zip(0u32..);
        let asked = gates
            .filter(|(gate, _)| applies(gate.before))
            .fold(0, |bits, (_, index)| bits | 1 << index);
        asked & !self.state.gates_open
    }

    /// Asks the gates in `bits`, now and then.
    pub(super) fn ask(&mut self, bits: u32) {
        let elapsed = self.state.elapsed_ms;
        let again = self
            .state
            .asked_ms
            .is_none_or(|asked| elapsed >= asked.saturating_add(millis(ASK_AGAIN)));
        if !again {
            return;
        }
        self.state.asked_ms = Some(elapsed);
        for gate in (0..MAX_GATES).filter(|gate| bits & 1 << gate != 0) {
            self.effects.push(Effect::AskGate {
                gate,
                window: self.state.window,
            });
        }
    }

    /// The next look goes through gates that are open, with a verdict of its own.
    pub(super) fn gate(&mut self, gate: usize, window: u64, answer: Answer) {
        let asked = gate < self.plan.gates.len().min(MAX_GATES) && window == self.state.window;
        if !asked || !self.state.is_advancing() {
            return;
        }
        let Some(webhook) = self.plan.gates.get(gate).map(|gate| gate.webhook.to_string()) else {
            return;
        };
        let said = match answer {
            Answer::Yes => {
                self.state.gates_open |= 1 << gate;
                format!("gate {webhook} says yes")
            }
            Answer::No(why) => format!("gate {webhook} says no: {why}"),
            Answer::Error(why) => format!("gate {webhook} gave no answer: {why}"),
        };
        let said = kept(&said);
        if self.state.gate_said.as_ref() != Some(&said) {
            self.report(format!("{}: {said}", self.plan.service));
            self.state.gate_said = Some(said);
        }
    }
}

#[cfg(test)]
#[path = "commands_tests.rs"]
mod tests;
