//! The moves of the machine: beginning, entering a step, going back, ending.

use super::event::{Effect, Scope, Toward};
use super::machine::Machine;
use super::plan::{Notice, Step};
use super::share::Share;
use super::state::{Cause, Phase, Wait};
use super::words;

/// How often a rollout may go back a step before it waits for a person.
const MAX_STEP_BACKS: u32 = 3;

/// A judgement that does not act.
pub(super) enum Judged {
    Pass,
    NoEvidence(String),
}

impl Machine<'_> {
    /// A candidate of a new name.
    pub(super) fn appeared(&mut self) {
        self.state.candidate = Some(self.plan.candidate.clone());
        self.state.phase = Phase::Idle;
        self.state.step = 0;
        let (service, candidate) = (&self.plan.service, &self.plan.candidate);
        if self.plan.start == super::plan::Start::Automatic {
            self.begin("a candidate of a new name");
        } else {
            self.report(format!(
                "{service}: {candidate} can be rolled out: `rollgate rollout start {service}`"
            ));
        }
    }

    /// From no share and nobody admitted to the first step, which the next look enters.
    pub(super) fn begin(&mut self, why: &str) {
        self.state.attempt = self.state.attempt.saturating_add(1);
        self.state.phase = Phase::Progressing;
        self.state.step_backs = 0;
        self.state.recorded = None;
        self.state.obstacle = Some("nobody has looked at it yet".into());
        self.at(0);
        self.effects.push(Effect::TakeSplit);
        self.expose_none();
        self.reset(Scope::Rollout);
        let (service, steps) = (&self.plan.service, self.plan.last());
        let sentence = format!(
            "{service}: the rollout of {} begins, {steps} steps: {why}",
            self.candidate()
        );
        self.notify(Notice::Start, sentence);
    }

    /// On to the next step; after the last: delivered.
    pub(super) fn depart(&mut self) {
        let next = self.next_step();
        if next > self.plan.last() {
            self.succeed();
        } else {
            self.enter(next);
        }
    }

    /// The step that would be next: with a `promote` under way, that which gives everything.
    pub(super) fn next_step(&self) -> u32 {
        let whole = self.state.promoting.then(|| self.plan.whole()).flatten();
        whole.unwrap_or_else(|| self.state.step.saturating_add(1))
    }

    pub(super) fn enter(&mut self, number: u32) {
        let Some(step) = self.plan.step(number) else { return };
        self.give(step.share, &step.segments, step.mirror);
        self.at(number);
        self.state.phase = running(step);
        self.reset(Scope::Step);
        let (service, candidate, last) = (&self.plan.service, self.candidate(), self.plan.last());
        let hold = words::duration(step.hold);
        if step.share == Share::WHOLE {
            let sentence =
                format!("{service}: {candidate} gets everything (step {number} of {last}), judged for at least {hold}");
            self.notify(Notice::Promote, sentence);
        } else {
            let exposure = words::exposure(step.share, &step.segments, step.mirror);
            let sentence =
                format!("{service}: {candidate} gets {exposure} (step {number} of {last}) for at least {hold}");
            self.notify(Notice::Step, sentence);
        }
    }

    /// Notes that a step begins, without what was true of the one before.
    pub(super) fn at(&mut self, number: u32) {
        self.state.step = number;
        self.state.elapsed_ms = 0;
        self.state.approved = false;
        self.state.promoting = false;
        self.state.wait = if number > 0 { Wait::Hold } else { Wait::Look };
        self.close_gates();
        self.state.live.ready_ms = None;
    }

    fn succeed(&mut self) {
        self.give(self.state.share, &[], Share::ZERO);
        self.state.phase = Phase::Succeeded;
        self.state.wait = Wait::Look;
        let sentence = format!("{}: {} is delivered", self.plan.service, self.candidate());
        self.notify(Notice::Success, sentence);
        self.release(false);
    }

    pub(super) fn pause(&mut self, cause: Cause, text: &str) {
        let position = words::position(self.plan, &self.state);
        let sentence = format!(
            "{}: {} is paused {position}: {text}",
            self.plan.service,
            self.candidate()
        );
        self.state.phase = Phase::Paused(Self::reason(cause, text));
        self.state.approved = false;
        self.state.promoting = false;
        self.state.live.ready_ms = None;
        self.notify(Notice::Pause, sentence);
    }

    /// To no share and nobody admitted, from anywhere and at once.
    pub(super) fn roll_back(&mut self, cause: Cause, text: &str) {
        let from = if self.state.owns_split() || self.state.phase == Phase::Succeeded {
            format!(" {}", words::position(self.plan, &self.state))
        } else {
            String::new()
        };
        self.state.candidate = Some(self.candidate());
        self.expose_none();
        let sentence = format!(
            "{}: {} is rolled back{from}: {text}",
            self.plan.service,
            self.candidate()
        );
        self.notify(Notice::Rollback, sentence);
        self.state.phase = Phase::RolledBack(Self::reason(cause, text));
        self.state.approved = false;
        self.state.promoting = false;
        self.state.wait = Wait::Look;
        self.state.live.ready_ms = None;
        self.release(true);
    }

    /// To the step before; from the first: rolled back. One that was paused stays so.
    pub(super) fn step_back(&mut self, cause: Cause, text: &str) {
        let from = self.state.step;
        if from <= 1 {
            return self.roll_back(cause, text);
        }
        self.state.step_backs = self.state.step_backs.saturating_add(1);
        let reached = self.settle(from - 1);
        self.at(reached);
        self.effects.push(Effect::Revoke);
        self.reset(Scope::Checks);
        let position = words::position(self.plan, &self.state);
        let sentence = format!(
            "{}: {} goes back, it is {position}: {text}",
            self.plan.service,
            self.candidate()
        );
        self.notify(Notice::Step, sentence);
        if matches!(self.state.phase, Phase::Paused(_)) {
            return;
        }
        self.run();
        if self.state.step_backs >= MAX_STEP_BACKS {
            self.pause(
                cause,
                &format!("it went back {MAX_STEP_BACKS} times, the last time: {text}"),
            );
        }
    }

    /// The phase of a step that goes on.
    pub(super) fn run(&mut self) {
        self.state.phase = self.plan.step(self.state.step).map_or(Phase::Progressing, running);
    }

    /// The plan may have been edited: finds the place in it, without giving the candidate anything.
    pub(super) fn edited(&mut self) {
        if !self.state.owns_split() {
            return;
        }
        self.close_gates();
        self.state.window = self.state.window.saturating_add(1);
        self.state.live.ready_ms = None;
        // What a person set stays until a person resumes.
        let paused = match &self.state.phase {
            Phase::Paused(reason) if reason.cause == Cause::Weights => return,
            Phase::Paused(_) => true,
            _ => false,
        };
        let before = (self.state.step, self.state.share);
        let reached = match self.same_step() {
            Some(step) => step,
            None => self.settle(self.state.step.min(self.plan.last())),
        };
        if reached != before.0 {
            self.at(reached);
            self.reset(Scope::Step);
        }
        let step = self.plan.step(self.state.step);
        let still_waits = self.state.phase == Phase::WaitingApproval && step.is_some_and(|step| step.approval);
        if !paused && !still_waits {
            self.run();
        }
        if (self.state.step, self.state.share) != before {
            let position = words::position(self.plan, &self.state);
            self.report(format!(
                "{}: by the edited plan {} is {position}",
                self.plan.service,
                self.candidate()
            ));
        }
    }

    /// The step that gives exactly what is in force, nearest to the one in force.
    fn same_step(&self) -> Option<u32> {
        if self.state.step == 0 {
            return None;
        }
        let state = &self.state;
        let same =
            |step: &Step| (step.share, step.mirror) == (state.share, state.mirror) && *step.segments == *state.segments;
        let steps = (1u32..).zip(&self.plan.steps).filter(|(_, step)| same(step));
        steps
            .map(|(number, _)| number)
            .min_by_key(|number| number.abs_diff(self.state.step))
    }

    /// The last step up to `limit` that gives no more than what is in force, after that was cut to what `limit` gives:
    /// nothing rises, and no step is left out. Where even the first gives more, it is 0, and nothing is in force. A mirror
    /// of any size is less than users.
    pub(super) fn settle(&mut self, limit: u32) -> u32 {
        let mut share = self.state.share;
        let mut segments = self.state.segments.clone();
        let bound = self.plan.step(limit);
        let mut mirror = bound.map_or(Share::ZERO, |bound| bound.mirror);
        if !self.state.has_users() {
            mirror = mirror.min(self.state.mirror);
        }
        share = share.min(bound.map_or(Share::ZERO, |bound| bound.share));
        segments.retain(|segment| bound.is_some_and(|bound| bound.segments.contains(segment)));
        let given = |step: &Step| {
            step.share <= share
                && step.mirror <= mirror
                && step.segments.iter().all(|segment| segments.contains(segment))
        };
        let reached = (1..=limit)
            .rev()
            .find(|number| self.plan.step(*number).is_some_and(given))
            .unwrap_or(0);
        if reached == 0 {
            (share, segments, mirror) = (Share::ZERO, Vec::new(), Share::ZERO);
        }
        self.give(share, &segments, mirror);
        reached
    }

    // ---- effects ----

    pub(super) fn reset(&mut self, scope: Scope) {
        self.state.window = self.state.window.saturating_add(1);
        self.effects.push(Effect::ResetEvidence {
            scope,
            window: self.state.window,
        });
    }

    /// All that is in force for the candidate from now on.
    pub(super) fn give(&mut self, share: Share, segments: &[Box<str>], mirror: Share) {
        let had_users = self.state.has_users();
        self.set_share(share);
        self.admit(segments);
        self.mirror(mirror, had_users);
    }

    fn set_share(&mut self, share: Share) {
        let before = std::mem::replace(&mut self.state.share, share);
        if share == before {
            return;
        }
        self.effects.push(Effect::SetShare {
            candidate: self.candidate(),
            share,
            toward: if share > before { Toward::Canary } else { Toward::Stable },
        });
    }

    fn admit(&mut self, segments: &[Box<str>]) {
        if *segments == *self.state.segments {
            return;
        }
        let more = segments.iter().any(|segment| !self.state.segments.contains(segment));
        self.state.segments = segments.to_vec();
        self.effects.push(Effect::Admit {
            candidate: self.candidate(),
            segments: segments.to_vec(),
            toward: if more { Toward::Canary } else { Toward::Stable },
        });
    }

    /// `had_users`: copies instead of users, however many, are less than before.
    pub(super) fn mirror(&mut self, share: Share, had_users: bool) {
        let before = std::mem::replace(&mut self.state.mirror, share);
        if share == before {
            return;
        }
        let more = share > before && !had_users;
        self.effects.push(Effect::Mirror {
            candidate: self.candidate(),
            share,
            toward: if more { Toward::Canary } else { Toward::Stable },
        });
    }

    /// Nobody gets the candidate, and it no copies, whatever was in force.
    fn expose_none(&mut self) {
        self.state.share = Share::ZERO;
        self.state.segments = Vec::new();
        self.state.mirror = Share::ZERO;
        let (candidate, toward) = (self.candidate(), Toward::Stable);
        let share = Share::ZERO;
        self.effects.push(Effect::SetShare {
            candidate: candidate.clone(),
            share,
            toward,
        });
        self.effects.push(Effect::Admit {
            candidate: candidate.clone(),
            segments: Vec::new(),
            toward,
        });
        self.effects.push(Effect::Mirror {
            candidate,
            share,
            toward,
        });
        self.effects.push(Effect::Revoke);
    }

    /// The split is anybody's again. Weights of the file that waited come into force; after a rollback not those of the
    /// candidate.
    pub(super) fn release(&mut self, rolled_back: bool) {
        self.effects.push(Effect::ReleaseSplit);
        let Some(mut weights) = self.state.recorded.take() else {
            return;
        };
        let service = &self.plan.service;
        let candidate = self.candidate();
        if rolled_back && let Some(weight) = weights.get_mut(&*candidate) {
            *weight = 0;
        }
        if weights.values().all(|weight| *weight == 0) {
            self.report(format!(
                "{service}: the file's weights are not applied, as they leave stable nothing"
            ));
            return;
        }
        let but = if rolled_back {
            format!(", but for that of {candidate}")
        } else {
            String::new()
        };
        self.report(format!("{service}: the file's weights of meanwhile are applied{but}"));
        self.effects.push(Effect::ApplyWeights(weights));
    }
}

fn running(step: &Step) -> Phase {
    if step.share == Share::WHOLE {
        Phase::Baking
    } else {
        Phase::Progressing
    }
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod mirror_tests;
