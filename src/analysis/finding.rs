//! Verdicts, each with its numbers and one plain sentence.

use super::check::{Limits, Reading, Rules, State};
use super::evidence::{Arm, Counts};
use super::histogram::Histogram;
use super::judge::Step;
use super::mean::{MeanDifference, Moments, Worse, log_beyond};
use super::wording::{duration, number, percent, to_one};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a check says at this instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Enough was seen, and nothing speaks against the candidate.
    Pass,
    /// The evidence against the candidate is as strong as the confidence asks.
    Fail,
    /// Too little was seen, or what was seen is doubtful.
    NoEvidence,
    /// The number could not be had.
    Error,
}

/// What the versions are called.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub candidate: &'a str,
    pub stable: &'a str,
}

/// What was measured of a version: a part of its requests (0.0 to 1.0), microseconds, or a mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    pub value: f64,
    /// Of how many requests.
    pub requests: u64,
}

/// The verdict on one check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// As in the configuration.
    pub metric: String,
    pub verdict: Verdict,
    /// One plain sentence.
    pub reason: String,
    pub candidate: Option<Measured>,
    /// Only of a comparison.
    pub stable: Option<Measured>,
    /// How many to one what was seen speaks against the candidate, up to 10^15, and how many the check needs to fail.
    /// `None`: it does not go by evidence, or there is too little.
    pub evidence: Option<f64>,
    pub needed: Option<f64>,
}

/// The evidence of one check against what it needs, both as natural logarithms.
#[derive(Debug, Clone, Copy)]
struct Weight {
    log: f64,
    needed: f64,
}

impl Weight {
    fn fails(self) -> bool {
        self.log >= self.needed
    }

    /// Half the way to failing, in orders of magnitude: too much to send more users there. A candidate that is no worse
    /// gets there with a probability of at most the root of that of a false alarm, and does not stay.
    fn is_doubtful(self) -> bool {
        self.log >= self.needed / 2.0
    }

    fn words(self) -> String {
        format!("evidence {} to 1, limit {} to 1", to_one(self.log), to_one(self.needed))
    }
}

/// What a finding is made from, beside the state of its check.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) names: Names<'a>,
    pub(super) rules: &'a Rules,
    pub(super) step: &'a Step,
    /// Sent by the split, in all steps; and pairs of mirror steps.
    pub(super) rollout: Counts,
    /// Whether it is a mirror step.
    pub(super) mirrored: bool,
}

impl View<'_> {
    /// The finding on a check.
    pub(super) fn finding(&self, metric: &str, state: &State) -> Finding {
        let mut finding = match state {
            State::ErrorsCompared(evidence) => self.errors_compared(evidence.log()),
            State::ErrorsAtMost { limit, evidence } => self.errors_at_most(*limit, evidence.log()),
            State::MismatchesAtMost { limit, evidence } => self.mismatches_at_most(*limit, evidence.log()),
            State::LatencyCompared { quantile, evidence } => {
                self.latency_compared(*quantile, quantile_name(metric), evidence.log())
            }
            State::LatencyAtMost {
                quantile,
                limit_us,
                evidence,
            } => self.latency_at_most(*quantile, quantile_name(metric), *limit_us, evidence.log()),
            State::MeanCompared {
                worse,
                tolerance,
                evidence,
                ..
            } => self.mean_compared(metric, *worse, *tolerance, evidence),
            State::MeanReported { evidence, .. } => self.mean_reported(metric, evidence),
            State::MeanWithin {
                limits,
                candidate,
                stable,
                ..
            } => self.mean_within(metric, *limits, *candidate, *stable),
            State::OutsideWithin {
                limits,
                fresh_for,
                reading,
            } => self.outside(metric, *limits, *fresh_for, reading.as_ref()),
        };
        metric.clone_into(&mut finding.metric);
        finding
    }

    fn weight(&self, log: f64) -> Weight {
        Weight {
            log,
            needed: libm::log(self.rules.needed()),
        }
    }

    fn errors_compared(&self, log: f64) -> Finding {
        let (candidate, stable) = (self.rollout.candidate, self.rollout.stable);
        let seen = format!("{} against {}", self.failing(candidate), failed(stable));
        let missing = self.missing_for_comparison(self.step.split.candidate.ended, self.step.split.stable.ended);
        let mut finding = self.by_evidence(Some(log), seen, missing);
        finding.candidate = rate(candidate);
        finding.stable = rate(stable);
        finding
    }

    fn errors_at_most(&self, limit: f64, log: f64) -> Finding {
        let all = self.step.all;
        let seen = format!("{}, at most {} may", self.failing(all), percent(limit));
        let measured = rate(all);
        let over = measured.is_some_and(|rate| rate.value > limit);
        let mut finding = self.by_evidence(Some(log), seen, self.missing(all.ended).or_else(|| over.then(too_high)));
        finding.candidate = measured;
        finding
    }

    fn mismatches_at_most(&self, limit: f64, log: f64) -> Finding {
        let copies = self.step.split.candidate;
        let measured = rate(Arm {
            bad: self.step.mismatched,
            ..copies
        });
        let measured = measured.filter(|_| self.mirrored);
        let seen = match self.mirrored {
            true => format!(
                "{} answers {} ({}/{}) of its copies with another status than {}, at most {} may",
                self.names.candidate,
                percent(measured.map_or(0.0, |rate| rate.value)),
                self.step.mismatched,
                copies.ended,
                self.names.stable,
                percent(limit)
            ),
            false => "statuses are compared where requests are copied".to_owned(),
        };
        let over = measured.is_some_and(|rate| rate.value > limit);
        let missing = self.missing(self.step.all.ended).or_else(|| over.then(too_high));
        let mut finding = self.by_evidence(Some(log), seen, missing);
        finding.candidate = measured;
        finding
    }

    fn latency_compared(&self, quantile: f64, name: &str, log: f64) -> Finding {
        let candidate = latency(&self.step.candidate_durations, quantile);
        let stable = latency(&self.step.stable_durations, quantile);
        let seen = format!(
            "{} takes {} at {name} against {}",
            self.names.candidate,
            in_words(candidate),
            in_words(stable)
        );
        let requests = |measured: Option<Measured>| measured.map_or(0, |measured| measured.requests);
        let missing = self.missing_for_comparison(requests(candidate), requests(stable));
        let mut finding = self.by_evidence(Some(log), seen, missing);
        finding.candidate = candidate;
        finding.stable = stable;
        finding
    }

    fn latency_at_most(&self, quantile: f64, name: &str, limit_us: u64, log: f64) -> Finding {
        let measured = latency(&self.step.all_durations, quantile);
        let seen = format!(
            "{} takes {} at {name}, at most {}",
            self.names.candidate,
            in_words(measured),
            duration(limit_us as f64)
        );
        // The bucket's lower bound: a quantile that may be just within the limit is not above it.
        let low = self
            .step
            .all_durations
            .quantile(quantile)
            .map(|quantile| quantile.low_us);
        let over = low.is_some_and(|low| low > limit_us);
        let missing = self.missing(measured.map_or(0, |measured| measured.requests));
        let mut finding = self.by_evidence(Some(log), seen, missing.or_else(|| over.then(too_high)));
        finding.candidate = measured;
        finding
    }

    fn mean_compared(&self, metric: &str, worse: Worse, tolerance: f64, evidence: &MeanDifference) -> Finding {
        let means = evidence.means();
        let seen = means.map_or_else(
            || self.no_values("too few values", metric),
            |[candidate, stable]| {
                let (of_candidate, of_stable) = (number(candidate.value), number(stable.value));
                format!(
                    "{} has a mean {metric} of {of_candidate} against {of_stable}",
                    self.names.candidate
                )
            },
        );
        let missing = self.missing_for_comparison(self.step.split.candidate.ended, self.step.split.stable.ended);
        let nothing = || (self.mirrored || self.step.share <= 0.0).then_some(0.0);
        let log = evidence.log_worse(worse, tolerance).or_else(nothing);
        let mut finding = self.by_evidence(log, seen, missing);
        finding.candidate = means.map(|[candidate, _]| candidate);
        finding.stable = means.map(|[_, stable]| stable);
        finding
    }

    fn mean_reported(&self, metric: &str, evidence: &MeanDifference) -> Finding {
        let means = evidence.means();
        let difference = evidence.difference(self.rules.confidence);
        Finding {
            metric: String::new(),
            verdict: Verdict::Pass,
            reason: difference.map_or_else(
                || format!("too few values of {metric} to say how the versions differ"),
                |difference| difference.statement(self.names, metric),
            ),
            candidate: means.map(|[candidate, _]| candidate),
            stable: means.map(|[_, stable]| stable),
            evidence: None,
            needed: None,
        }
    }

    fn mean_within(&self, metric: &str, limits: Limits, values: Moments, stable: Moments) -> Finding {
        let mean = values.mean();
        let seen = mean.map_or_else(
            || self.no_values("no values", metric),
            |mean| {
                format!(
                    "{} has a mean {metric} of {}, {}",
                    self.names.candidate,
                    number(mean),
                    range(limits)
                )
            },
        );
        let below = limits.min.map(|min| log_beyond(values, stable, min, Worse::Lower));
        let above = limits.max.map(|max| log_beyond(values, stable, max, Worse::Higher));
        // The mean of two lines of evidence is one; their maximum is not.
        let both = |below: Option<f64>, above: Option<f64>| {
            let (below, above) = (below?, above?);
            Some(below.max(above) + libm::log1p(libm::exp(-(below - above).abs())) - libm::log(2.0))
        };
        let log = [below, above].into_iter().flatten().reduce(both).flatten();
        let log = log.or_else(|| self.mirrored.then_some(0.0));
        let out = mean.is_some_and(|mean| !limits.admit(mean));
        let missing = self.missing(self.step.all.ended);
        let out = || out.then(|| "not within, but not for certain".to_owned());
        let mut finding = self.by_evidence(log, seen, missing.or_else(out));
        finding.candidate = mean.map(|value| Measured {
            value,
            requests: values.count,
        });
        finding
    }

    /// Nobody has acted on the answer to a copy: an application's numbers in it say nothing, and hold a mirror step up for
    /// nothing.
    fn no_values(&self, fewer: &str, metric: &str) -> String {
        match self.mirrored {
            true => format!("{metric} is not taken from the answers to copies"),
            false => format!("{fewer} of {metric}"),
        }
    }

    fn outside(&self, metric: &str, limits: Limits, fresh_for: Duration, reading: Option<&Reading>) -> Finding {
        let plain = |verdict, reason| Finding {
            metric: String::new(),
            verdict,
            reason,
            candidate: None,
            stable: None,
            evidence: None,
            needed: None,
        };
        let Some(reading) = reading else {
            return plain(
                Verdict::NoEvidence,
                format!("{metric} was not asked for in this step yet"),
            );
        };
        if reading.age > fresh_for {
            let reason = format!("the last answer about {metric} came {} s ago", reading.age.as_secs());
            return plain(Verdict::NoEvidence, reason);
        }
        let value = match &reading.answer {
            Ok(value) => *value,
            Err(reason) => return plain(Verdict::Error, format!("{metric} could not be had: {reason}")),
        };
        let seen = format!("{metric} is {}, {}", number(value), range(limits));
        let mut finding = match self.missing(self.step.all.ended) {
            Some(missing) => plain(Verdict::NoEvidence, format!("{seen}, but {missing}")),
            None if limits.admit(value) => plain(Verdict::Pass, seen),
            None => plain(Verdict::Fail, seen),
        };
        finding.candidate = Some(Measured {
            value,
            requests: self.step.all.ended,
        });
        finding
    }

    /// Fails by evidence alone; passes when nothing is missing and the evidence is not doubtful. `log` is `None` while
    /// there are too few values for any.
    fn by_evidence(&self, log: Option<f64>, seen: String, missing: Option<String>) -> Finding {
        let weight = log.map(|log| self.weight(log));
        let (verdict, reason) = match (weight, missing) {
            (Some(weight), _) if weight.fails() => (Verdict::Fail, format!("{seen}: {}", weight.words())),
            (_, Some(missing)) => (Verdict::NoEvidence, format!("{seen}: {missing}")),
            (None, None) => (Verdict::NoEvidence, format!("{seen}: too few values for a verdict")),
            (Some(weight), None) if weight.is_doubtful() => {
                (Verdict::NoEvidence, format!("{seen}: doubtful, {}", weight.words()))
            }
            (Some(weight), None) => (Verdict::Pass, format!("{seen}: {}", weight.words())),
        };
        Finding {
            metric: String::new(),
            verdict,
            reason,
            candidate: None,
            stable: None,
            evidence: weight.map(|weight| libm::exp(weight.log).min(1e15)),
            needed: weight.map(|_| self.rules.needed()),
        }
    }

    fn missing(&self, requests: u64) -> Option<String> {
        let needed = self.rules.min_requests;
        (requests < needed).then(|| {
            format!(
                "{} has had {requests} of the {needed} requests needed",
                self.names.candidate
            )
        })
    }

    /// What a comparison lacks in this step. A ring (no share) and a whole (no stable) cannot be compared, and are not
    /// held up for it: a ring needs its requests all the same, and a whole needs a comparison from before.
    fn missing_for_comparison(&self, candidate: u64, stable: u64) -> Option<String> {
        let share = self.step.share;
        if share <= 0.0 {
            return self.missing(self.step.all.ended);
        }
        if share >= 1.0 {
            let (before, with) = (self.rollout.candidate.ended, self.rollout.stable.ended);
            let compared = before.min(with) >= self.rules.min_requests;
            let never = || {
                format!(
                    "{} has no traffic to compare with, and had too little before",
                    self.names.stable
                )
            };
            return self.missing(self.step.all.ended).or_else(|| (!compared).then(never));
        }
        // Where the candidate has most of the traffic, stable is asked for as much less.
        let needed = (self.rules.min_requests as f64 * ((1.0 - share) / share).min(1.0)).ceil() as u64;
        let of_stable = || format!("{} has had {stable} of the {needed} requests needed", self.names.stable);
        self.missing(candidate).or_else(|| (stable < needed).then(of_stable))
    }

    fn failing(&self, arm: Arm) -> String {
        format!("{} fails {}", self.names.candidate, failed(arm))
    }
}

fn too_high() -> String {
    "too high, but not for certain".to_owned()
}

fn rate(arm: Arm) -> Option<Measured> {
    (arm.ended > 0).then(|| Measured {
        value: arm.bad as f64 / arm.ended as f64,
        requests: arm.ended,
    })
}

/// `2.1 % (63/3000)`
fn failed(arm: Arm) -> String {
    let part = rate(arm).map_or(0.0, |rate| rate.value);
    format!("{} ({}/{})", percent(part), arm.bad, arm.ended)
}

fn latency(durations: &Histogram, quantile: f64) -> Option<Measured> {
    durations.quantile(quantile).map(|found| Measured {
        value: found.middle_us(),
        requests: durations.count(),
    })
}

fn in_words(latency: Option<Measured>) -> String {
    latency.map_or_else(|| "an unknown time".to_owned(), |measured| duration(measured.value))
}

fn range(limits: Limits) -> String {
    match (limits.min, limits.max) {
        (Some(min), Some(max)) => format!("from {} to {} is allowed", number(min), number(max)),
        (Some(min), None) => format!("at least {} is asked", number(min)),
        (None, Some(max)) => format!("at most {} is allowed", number(max)),
        (None, None) => "anything is allowed".to_owned(),
    }
}

/// `p99` of `latency_p99`.
fn quantile_name(metric: &str) -> &str {
    metric.strip_prefix("latency_").unwrap_or(metric)
}
