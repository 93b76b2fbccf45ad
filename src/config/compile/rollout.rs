//! Rescue; and the parts of a service that are accepted and not acted on yet: mirror, rollout. They are checked in full,
//! so that a file written today is right when they are.

use super::Context;
use super::service::Versions;
use crate::config::problem::{Path, nearest, printable, shown};
use crate::config::schema;
use crate::config::snapshot::Rescue;
use crate::config::units::{self, Share};
use crate::outcome::FailureKind;
use crate::routing::Role;

const MAX_STEPS: usize = 100;
const MAX_CHECKS: usize = 32;
const MAX_WEBHOOKS: usize = 16;
const OWN_METRICS: [&str; 6] = [
    "error_rate",
    "latency_p50",
    "latency_p90",
    "latency_p95",
    "latency_p99",
    "latency_p999",
];

/// A metric that the proxy measures itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnMetric {
    ErrorRate,
    Latency,
}

fn own_metric(name: &str) -> Option<OwnMetric> {
    if name == "error_rate" {
        return Some(OwnMetric::ErrorRate);
    }
    let quantile = name.strip_prefix("latency_p")?;
    let known = quantile == "999" || (quantile.len() == 2 && units::whole(quantile, 1, 99).is_some());
    known.then_some(OwnMetric::Latency)
}

fn failure_kind(on: schema::RescueOn) -> FailureKind {
    match on {
        schema::RescueOn::Connect => FailureKind::Connect,
        schema::RescueOn::Reset => FailureKind::Reset,
        schema::RescueOn::Timeout => FailureKind::Timeout,
        schema::RescueOn::Status5xx => FailureKind::Status5xx,
        schema::RescueOn::Protocol => FailureKind::Protocol,
        schema::RescueOn::NoEndpoint => FailureKind::NoEndpoint,
    }
}

impl Context<'_> {
    pub(super) fn unsupported_parts(&mut self, service: &schema::Service, versions: &Versions<'_>, path: &Path<'_>) {
        if let Some(mirror) = &service.mirror {
            let here = path.key("mirror");
            self.unsupported(&here, "no request is copied", false);
            self.methods(&mirror.methods, &here.key("methods"));
            if let Some(name) = mirror.version.get() {
                self.version(name, versions, &here.key("version"));
            }
        }
        if let Some(rollout) = &service.rollout {
            self.rollout(rollout, versions, &path.key("rollout"));
        }
    }

    pub(super) fn rescue(&mut self, rescue: &schema::Rescue, path: &Path<'_>) -> Option<Rescue> {
        let methods = self.methods(&rescue.methods, &path.key("methods"));
        let known = self.count(&rescue.on, 1, 16, "failures", &path.key("on"));
        let on = rescue.on.compile(|_, on| Some(failure_kind(*on)));
        let on = on.filter(|_| known)?;
        Some(Rescue { methods: methods?, on })
    }

    fn rollout(&mut self, rollout: &schema::Rollout, versions: &Versions<'_>, path: &Path<'_>) {
        self.unsupported(path, "weights move only by the file", false);
        self.candidate(rollout, versions, path);
        if let Some(steps) = rollout.steps.get() {
            let steps_path = path.key("steps");
            self.count(steps, 1, MAX_STEPS, "steps", &steps_path);
            let mut reached = Share::ZERO;
            for (index, step) in steps.iter() {
                self.step(step, &mut reached, &steps_path.index(index));
            }
        }
        self.analysis(&rollout.analysis, &path.key("analysis"));
        self.notify(rollout, path);
    }

    fn candidate(&mut self, rollout: &schema::Rollout, versions: &Versions<'_>, path: &Path<'_>) {
        let here = path.key("candidate");
        let Some(name) = &rollout.candidate else {
            if versions.canaries() != 1 && !self.problems.any_below(&here) {
                let message = format!(
                    "the service has {} canaries: expected `candidate` to say which one is delivered",
                    versions.canaries()
                );
                self.problems.add(path, message);
            }
            return;
        };
        let candidate = self.version(name, versions, &here);
        if candidate.is_some_and(|id| versions.role(id) == Some(Role::Stable)) {
            self.problems.add(&here, "expected a canary, found the stable version");
        }
    }

    fn step(&mut self, step: &schema::RolloutStep, reached: &mut Share, path: &Path<'_>) {
        if step.share.is_none() && step.segments.is_none() && !self.problems.any_below(path) {
            self.problems
                .add(path, "a step without an effect: expected `share` or `segments`");
        }
        if let Some(segments) = &step.segments {
            let here = path.key("segments");
            self.count(segments, 1, 64, "segments", &here);
            for (index, name) in segments.iter() {
                self.segment(name, &here.index(index));
            }
        }
        if let Some(share) = step.share {
            if share < *reached {
                let message = "a share below that of a step before: expected shares that never fall";
                self.problems.add(&path.key("share"), message);
            }
            *reached = share.max(*reached);
        }
    }

    fn analysis(&mut self, analysis: &schema::Analysis, path: &Path<'_>) {
        let confidence = analysis.confidence.thousandths_percent();
        if !(50_000..100_000).contains(&confidence) {
            self.problems
                .add(&path.key("confidence"), "expected a percentage from `50%` to `99.999%`");
        }
        let checks_path = path.key("checks");
        self.count(&analysis.checks, 0, MAX_CHECKS, "checks", &checks_path);
        for (index, check) in analysis.checks.iter() {
            self.check(check, &checks_path.index(index));
        }
    }

    fn check(&mut self, check: &schema::Check, path: &Path<'_>) {
        if let Some(prometheus) = &check.prometheus {
            let here = path.key("prometheus");
            if let Some(url) = prometheus.url.get() {
                self.url(url, &here.key("url"));
            }
            if prometheus.query.get().is_some_and(|query| query.trim().is_empty()) {
                self.problems
                    .add(&here.key("query"), "expected a query, found an empty string");
            }
        }
        let limited = check.max.is_some() || check.min.is_some();
        let compared = check.compared_to.is_some();
        match (compared, limited) {
            (true, true) => {
                self.problems
                    .add(path, "`compared_to` is given beside a limit: expected only one of them");
            }
            (false, false) if !self.problems.any_below(path) => {
                self.problems.add(
                    path,
                    "a check without a condition: expected `compared_to`, `max` or `min`",
                );
            }
            _ => {}
        }
        if compared != check.tolerance.is_some() && !self.problems.any_below(path) {
            self.problems.add(
                path,
                "`compared_to` and `tolerance` belong together: expected both or neither",
            );
        }
        self.metric(check, path);
    }

    fn metric(&mut self, check: &schema::Check, path: &Path<'_>) {
        let Some(name) = check.metric.get() else { return };
        let here = path.key("metric");
        let own = own_metric(name);
        match (own, &check.prometheus) {
            (None, None) if !self.problems.any_below(&path.key("prometheus")) => {
                let suggestion = nearest(name, OWN_METRICS);
                let message = format!(
                    "`{}` is not measured by the proxy: expected `error_rate`, `latency_p50` to `latency_p99`, \
                     `latency_p999`, or a `prometheus` query",
                    printable(name)
                );
                self.problems.add_with(&here, message, suggestion);
            }
            (Some(_), Some(_)) => {
                let message = format!("`{name}` is measured by the proxy itself: expected another name for a query");
                self.problems.add(&here, message);
            }
            (None, _) => {
                self.name(name, &here);
            }
            (Some(_), None) => {}
        }
        if own.is_some() && check.min.is_some() {
            let message = format!("`{name}` is better the lower it is: expected `max`");
            self.problems.add(&path.key("min"), message);
        }
        for (key, limit) in [("max", &check.max), ("min", &check.min)] {
            if let Some(limit) = limit {
                self.limit(own, limit, &path.key(key));
            }
        }
    }

    /// A limit in the unit of its metric.
    fn limit(&mut self, own: Option<OwnMetric>, limit: &str, path: &Path<'_>) {
        let error = match own {
            Some(OwnMetric::ErrorRate) => units::share(limit).err(),
            Some(OwnMetric::Latency) => units::duration(limit).err(),
            None => {
                let known =
                    units::number(limit).is_some() || units::share(limit).is_ok() || units::duration(limit).is_ok();
                (!known).then_some(units::UnitError {
                    message: "a number, a percentage or a duration",
                    suggestion: None,
                })
            }
        };
        if let Some(error) = error {
            let message = format!("expected {}, found {}", error.message, shown(limit));
            self.problems.add_with(path, message, error.suggestion);
        }
    }

    fn notify(&mut self, rollout: &schema::Rollout, path: &Path<'_>) {
        let notify_path = path.key("notify");
        self.count(&rollout.notify, 0, MAX_WEBHOOKS, "notifications", &notify_path);
        for (index, notify) in rollout.notify.iter() {
            let here = notify_path.index(index);
            for (key, url) in [("slack", &notify.slack), ("webhook", &notify.webhook)] {
                if let Some(url) = url {
                    self.url(url, &here.key(key));
                }
            }
            if notify.slack.is_some() == notify.webhook.is_some() && !self.problems.any_below(&here) {
                self.problems
                    .add(&here, "expected exactly one of `slack` and `webhook`");
            }
            if let Some(events) = &notify.events {
                self.count(events, 1, MAX_WEBHOOKS, "events", &here.key("events"));
            }
        }
        let gates_path = path.key("gates");
        self.count(&rollout.gates, 0, MAX_WEBHOOKS, "gates", &gates_path);
        for (index, gate) in rollout.gates.iter() {
            let here = gates_path.index(index);
            if let Some(url) = gate.webhook.get() {
                self.url(url, &here.key("webhook"));
            }
        }
    }
}
