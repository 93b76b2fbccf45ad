//! What a service does beside the split: mirror, rescue, rollout.

use super::Context;
use super::service::Versions;
use crate::analysis::Test;
use crate::config::problem::Path;
use crate::config::schema;
use crate::config::snapshot::{Mirror, Rescue};
use crate::config::units;
use crate::outcome::FailureKind;
use crate::rollout::{self, Analysis, Before, Freeze, Gate, Notice, Notify, Plan, Receiver, Share, Start, Step, Url};
use crate::routing::Role;
use std::time::Duration;

/// The methods copied by a mirror step where the service has no mirror: as of a mirror that lists none.
const SAFE: [&str; 2] = ["GET", "HEAD"];

const MAX_STEPS: usize = 100;
const MAX_SEGMENTS_A_STEP: usize = 64;
const MAX_WEBHOOKS: usize = 16;
const MAX_FREEZES: usize = 64;

/// A share of the file as rollouts have it.
pub(super) fn rollout_share(share: units::Share) -> Share {
    Share::from_thousandths(share.thousandths_percent())
}

fn failure_kind(on: schema::RescueOn) -> FailureKind {
    match on {
        schema::RescueOn::Connect => FailureKind::Connect,
        schema::RescueOn::Reset => FailureKind::Reset,
        schema::RescueOn::Timeout => FailureKind::Timeout,
        schema::RescueOn::Status5xx => FailureKind::Status5xx,
        schema::RescueOn::Protocol => FailureKind::Protocol,
        schema::RescueOn::NoEndpoint => FailureKind::NoEndpoint,
        schema::RescueOn::Grpc => FailureKind::Grpc,
    }
}

impl Context<'_> {
    pub(super) fn mirror(
        &mut self,
        mirror: &schema::Mirror,
        versions: &Versions<'_>,
        path: &Path<'_>,
    ) -> Option<Mirror> {
        let methods = self.methods(&mirror.methods, &path.key("methods"));
        let version = self.version(mirror.version.get()?, versions, &path.key("version"));
        Some(Mirror {
            version: version?,
            share: mirror.share.thousandths_percent(),
            methods: methods?,
        })
    }

    pub(super) fn rescue(&mut self, rescue: &schema::Rescue, path: &Path<'_>) -> Option<Rescue> {
        let methods = self.methods(&rescue.methods, &path.key("methods"));
        let known = self.count(&rescue.on, 1, 16, "failures", &path.key("on"));
        let on = rescue.on.compile(|_, on| Some(failure_kind(*on)));
        let on = on.filter(|_| known)?;
        Some(Rescue { methods: methods?, on })
    }

    /// The plan of a service; `None`: something is wrong. The other services of its train are put in later, when all are
    /// known.
    pub(super) fn rollout(
        &mut self,
        rollout: &schema::Rollout,
        service: Option<&str>,
        versions: &Versions<'_>,
        path: &Path<'_>,
    ) -> Option<Plan> {
        let candidate = self.candidate(rollout, versions, path);
        let steps = self.steps(rollout, &path.key("steps"));
        let analysis = self.analysis(&rollout.analysis, &path.key("analysis"));
        let notify = self.notify(rollout, &path.key("notify"));
        let gates = self.gates(rollout, &path.key("gates"));
        let freeze = self.freeze(rollout, &path.key("freeze"));
        if let (Some(steps), Some(analysis)) = (&steps, &analysis) {
            self.mismatches(steps, analysis, &path.key("analysis").key("checks"));
        }
        let max_failures = match &rollout.guard {
            Some(guard) => Some(guard.max_failures.get()?.0),
            None => None,
        };
        Some(Plan {
            service: service?.into(),
            candidate: candidate?,
            start: match rollout.start {
                schema::Start::Automatic => Start::Automatic,
                schema::Start::Manual => Start::Manual,
            },
            steps: steps?,
            analysis: analysis?,
            max_failures,
            gates: gates?,
            notify: notify?,
            freeze: freeze?,
            with: Box::default(),
        })
    }

    fn candidate(&mut self, rollout: &schema::Rollout, versions: &Versions<'_>, path: &Path<'_>) -> Option<Box<str>> {
        let here = path.key("candidate");
        let Some(name) = &rollout.candidate else {
            if versions.canaries() != 1 && !self.problems.any_below(&here) {
                let message = format!(
                    "the service has {} canaries: expected `candidate` to say which one is delivered",
                    versions.canaries()
                );
                self.problems.add(path, message);
            }
            return versions.only_canary().map(Box::from);
        };
        let candidate = self.version(name, versions, &here)?;
        if versions.role(candidate) == Some(Role::Stable) {
            self.problems.add(&here, "expected a canary, found the stable version");
            return None;
        }
        Some(name.as_str().into())
    }

    fn steps(&mut self, rollout: &schema::Rollout, path: &Path<'_>) -> Option<Box<[Step]>> {
        let steps = rollout.steps.get()?;
        self.count(steps, 1, MAX_STEPS, "steps", path);
        let mut reached = Step {
            share: Share::ZERO,
            segments: Box::default(),
            mirror: Share::ZERO,
            hold: Duration::ZERO,
            approval: false,
        };
        let compiled = steps.compile(|index, step| self.step(step, &mut reached, &path.index(index)));
        let mut compiled = compiled?.into_vec();
        if reached.share < Share::WHOLE {
            compiled.push(Step {
                share: Share::WHOLE,
                mirror: Share::ZERO,
                hold: Duration::ZERO,
                approval: false,
                ..reached
            });
        }
        Some(compiled.into())
    }

    /// `reached` is the step before, and then this one.
    fn step(&mut self, step: &schema::RolloutStep, reached: &mut Step, path: &Path<'_>) -> Option<Step> {
        let shows_nobody = step.share.is_none() && step.segments.is_none();
        if shows_nobody && step.mirror.is_none() && !self.problems.any_below(path) {
            self.problems.add(
                path,
                "a step without an effect: expected `share`, `segments` or `mirror`",
            );
        }
        let mirror = std::mem::replace(&mut reached.mirror, step.mirror.map_or(Share::ZERO, rollout_share));
        if step.mirror.is_some() {
            self.mirror_step(shows_nobody, mirror, reached, &path.key("mirror"));
        }
        if let Some(segments) = &step.segments {
            let here = path.key("segments");
            self.count(segments, 1, MAX_SEGMENTS_A_STEP, "segments", &here);
            let named = segments
                .compile(|index, name| self.segment(name, &here.index(index)).map(|_| Box::from(name.as_str())));
            reached.segments = named?;
        }
        if let Some(share) = step.share.map(rollout_share) {
            if share < reached.share {
                let message = "a share below that of a step before: expected shares that never fall";
                self.problems.add(&path.key("share"), message);
            }
            reached.share = share.max(reached.share);
        }
        reached.hold = step.hold.get()?.0;
        reached.approval = step.approval;
        Some(reached.clone())
    }

    /// What is judged in a mirror step is not a version beside another, but copies beside their originals: it cannot be a step of
    /// both. `before`: the mirror of the step before.
    fn mirror_step(&mut self, alone: bool, before: Share, reached: &Step, path: &Path<'_>) {
        let shown = reached.share > Share::ZERO || !reached.segments.is_empty();
        let message = match reached.mirror {
            _ if !alone => "a mirror beside a `share` or `segments`: expected a step of its own, before those",
            _ if shown => "a mirror after the candidate had users: expected mirrors in the first steps",
            Share::ZERO => "a mirror of nothing: expected a share above `0%`",
            mirror if mirror < before => "a mirror below that of the step before: expected shares that never fall",
            _ => return,
        };
        self.problems.add(path, message);
    }

    /// Statuses of copies cannot be compared where there are none.
    fn mismatches(&mut self, steps: &[Step], analysis: &Analysis, path: &Path<'_>) {
        if steps.iter().any(|step| step.mirror > Share::ZERO) {
            return;
        }
        for (index, planned) in analysis.checks.iter().enumerate() {
            if let Test::MismatchesAtMost { .. } = planned.check.test {
                let message = "is measured in steps with a `mirror`: expected such a step";
                self.problems.add(&path.index(index).key("metric"), message);
            }
        }
    }

    /// The service's mirror; one that copies nothing by itself where only steps of the rollout have one.
    pub(super) fn mirror_with_steps(
        &mut self,
        mirror: Option<Mirror>,
        plan: Option<&Plan>,
        versions: &Versions<'_>,
        path: &Path<'_>,
    ) -> Option<Mirror> {
        let Some(plan) = plan.filter(|plan| plan.steps.iter().any(|step| step.mirror > Share::ZERO)) else {
            return mirror;
        };
        let candidate = self.version(&plan.candidate, versions, path)?;
        match mirror {
            Some(mirror) if mirror.version != candidate => {
                let message = format!(
                    "copies for another version than the candidate of a rollout with mirror steps: expected `{}`",
                    plan.candidate
                );
                self.problems.add(&path.key("version"), message);
                None
            }
            Some(mirror) => Some(mirror),
            None => Some(Mirror {
                version: candidate,
                share: 0,
                methods: SAFE.map(Box::from).into(),
            }),
        }
    }

    fn notify(&mut self, rollout: &schema::Rollout, path: &Path<'_>) -> Option<Box<[Notify]>> {
        self.count(&rollout.notify, 0, MAX_WEBHOOKS, "notifications", path);
        rollout.notify.compile(|index, notify| {
            let here = path.index(index);
            for (key, url) in [("slack", &notify.slack), ("webhook", &notify.webhook)] {
                if let Some(url) = url {
                    self.url(url, &here.key(key));
                }
            }
            if notify.slack.is_some() == notify.webhook.is_some() && !self.problems.any_below(&here) {
                self.problems
                    .add(&here, "expected exactly one of `slack` and `webhook`");
            }
            let events = match &notify.events {
                Some(events) => {
                    self.count(events, 1, MAX_WEBHOOKS, "events", &here.key("events"));
                    Some(events.compile(|_, event| Some(notice(*event)))?)
                }
                None => None,
            };
            let to = match (&notify.slack, &notify.webhook) {
                (Some(url), _) => Receiver::Slack(Url::new(url)),
                (None, Some(url)) => Receiver::Webhook(Url::new(url)),
                (None, None) => return None,
            };
            Some(Notify { to, events })
        })
    }

    fn gates(&mut self, rollout: &schema::Rollout, path: &Path<'_>) -> Option<Box<[Gate]>> {
        self.count(&rollout.gates, 0, rollout::MAX_GATES, "gates", path);
        rollout.gates.compile(|index, gate| {
            let here = path.index(index);
            let webhook = gate.webhook.get()?;
            self.url(webhook, &here.key("webhook"));
            let before = match gate.before.get()? {
                schema::GateBefore::Start => Before::Start,
                schema::GateBefore::Step => Before::Step,
                schema::GateBefore::Promote => Before::Promote,
            };
            let webhook = Url::new(webhook);
            Some(Gate { before, webhook })
        })
    }

    fn freeze(&mut self, rollout: &schema::Rollout, path: &Path<'_>) -> Option<Box<[Freeze]>> {
        self.count(&rollout.freeze, 0, MAX_FREEZES, "windows", path);
        rollout.freeze.compile(|index, text| {
            // What is wrong with a window may need all time zones to say: not for problems that nobody will see.
            if self.problems.is_full() {
                return None;
            }
            let parsed = Freeze::parse(text);
            if let Err(error) = &parsed {
                let suggestion = error.suggestion.clone();
                self.problems
                    .add_with(&path.index(index), error.message.as_str(), suggestion);
            }
            parsed.ok()
        })
    }
}

fn notice(event: schema::RolloutEvent) -> Notice {
    match event {
        schema::RolloutEvent::Start => Notice::Start,
        schema::RolloutEvent::Step => Notice::Step,
        schema::RolloutEvent::Approval => Notice::Approval,
        schema::RolloutEvent::Pause => Notice::Pause,
        schema::RolloutEvent::Resume => Notice::Resume,
        schema::RolloutEvent::Promote => Notice::Promote,
        schema::RolloutEvent::Success => Notice::Success,
        schema::RolloutEvent::Rollback => Notice::Rollback,
        schema::RolloutEvent::Kill => Notice::Kill,
    }
}
