//! The judge of one rollout: observations in, findings out.

use super::check::{Check, Reading, Rules, State};
use super::evidence::{Arm, Counts};
use super::finding::{Finding, Names, View};
use super::histogram::Histogram;
use super::mean::Moments;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest reason kept for a number that could not be had, in characters.
const MAX_REASON: usize = 300;

/// What was seen of one version in a stretch of time. Client aborts are in none of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Requests begun, ended, and failed.
    pub requests: Arm,
    /// Of copies: how many were answered with another status than their originals, which had not failed.
    #[serde(default)]
    pub mismatched: u64,
    /// How long those that ended took; upgraded streams are not in it.
    pub durations: Histogram,
    /// The application's numbers, by position.
    pub values: Vec<Moments>,
}

/// What was seen since the last call.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// What the split sent to the candidate.
    pub candidate: &'a Observed,
    /// What a rule or a ring sent to the candidate: it counts for limits, not for comparisons.
    pub forced: &'a Observed,
    /// What the split sent to stable.
    pub stable: &'a Observed,
    /// The candidate's share in force all the time, 0.0 to 1.0. A change of it ends a window.
    pub share: f64,
    /// Whether the step is too young for latencies to count.
    pub warming: bool,
    /// Whether it is of a mirror step: `candidate` are copies that ended, and `stable` the requests that copies were begun
    /// of. The share is [`Window::SHARE_OF_PAIRS`].
    pub mirrored: bool,
}

/// What was seen in the current step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) share: f64,
    /// Sent by the split.
    pub(super) split: Counts,
    /// Sent to the candidate by anything.
    pub(super) all: Arm,
    /// Copies with another status than their originals.
    #[serde(default)]
    pub(super) mismatched: u64,
    pub(super) candidate_durations: Histogram,
    pub(super) stable_durations: Histogram,
    pub(super) all_durations: Histogram,
}

/// All that a rollout's judgement must remember: written and read again, it goes on as if nothing had happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    rules: Rules,
    /// Parallel to the checks.
    states: Vec<State>,
    step: Step,
    /// Sent by the split, in all steps; and pairs of mirror steps.
    rollout: Counts,
    /// Whether what was seen last is of a mirror step.
    #[serde(default)]
    mirrored: bool,
}

impl Judge {
    /// At the start of a rollout, in its first step.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let states = rules.checks.iter().map(|check| State::new(&check.test)).collect();
        Self {
            rules,
            states,
            step: Step::default(),
            rollout: Counts::default(),
            mirrored: false,
        }
    }

    /// Judges by other rules from now on. Checks that are in both keep their evidence.
    pub fn adopt(&mut self, rules: Rules) {
        let mut known: Vec<(Check, State)> = std::mem::take(&mut self.rules.checks)
            .into_iter()
            .zip(std::mem::take(&mut self.states))
            .collect();
        let state = |check: &Check| {
            let same = known.iter().position(|(old, _)| old == check);
            same.map_or_else(|| State::new(&check.test), |at| known.swap_remove(at).1)
        };
        self.states = rules.checks.iter().map(state).collect();
        self.rules = rules;
    }

    /// What is judged and how.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// A step begins: its requests are counted anew, numbers from elsewhere must come anew. Evidence stays.
    pub fn begin_step(&mut self) {
        self.step = Step::default();
        for state in &mut self.states {
            if let State::OutsideWithin { reading, .. } = state {
                *reading = None;
            }
        }
    }

    /// Takes what was seen since the last call, at an instant that the clock chose (about once a second), or when the
    /// share changes. `elapsed`: since the last tick.
    pub fn tick(&mut self, window: &Window<'_>, elapsed: Duration) {
        self.count(window);
        for state in &mut self.states {
            state.tick(window, elapsed);
        }
    }

    /// Takes what was seen since the last call, at any other instant, such as that of a failure. (The difference matters:
    /// intervals must not end where a failure is.)
    pub fn burst(&mut self, window: &Window<'_>) {
        self.count(window);
        for state in &mut self.states {
            state.burst(window);
        }
    }

    /// Takes the answer to the query of a check, or why there is none. `check`: its position.
    pub fn outside(&mut self, check: usize, answer: Result<f64, String>) {
        if let Some(State::OutsideWithin { reading, .. }) = self.states.get_mut(check) {
            let answer = answer.map_err(|reason| reason.chars().take(MAX_REASON).collect());
            let answer = answer.and_then(|value: f64| match value.is_nan() {
                true => Err("the answer is not a number".to_owned()),
                false => Ok(value),
            });
            *reading = Some(Reading {
                answer,
                age: Duration::ZERO,
            });
        }
    }

    /// The verdict on each check, in their order.
    #[must_use]
    pub fn findings(&self, names: Names<'_>) -> Vec<Finding> {
        let view = View {
            names,
            rules: &self.rules,
            step: &self.step,
            rollout: self.rollout,
            mirrored: self.mirrored,
        };
        let checks = self.rules.checks.iter().zip(&self.states);
        checks
            .map(|(check, state)| view.finding(&check.metric, state))
            .collect()
    }

    fn count(&mut self, window: &Window<'_>) {
        if self.mirrored != window.mirrored {
            self.mirrored = window.mirrored;
            self.states.iter_mut().for_each(State::part);
            if window.mirrored {
                // What stable had before is nothing that a copy was compared with.
                self.rollout = Counts::default();
            }
        }
        let split = Counts {
            candidate: window.candidate.requests,
            stable: window.stable.requests,
        };
        self.rollout.add(split);
        let step = &mut self.step;
        step.share = window.share;
        step.split.add(split);
        step.all.add(window.candidate.requests);
        step.all.add(window.forced.requests);
        step.mismatched = step.mismatched.saturating_add(window.candidate.mismatched);
        if !window.warming {
            step.candidate_durations.merge(&window.candidate.durations);
            step.stable_durations.merge(&window.stable.durations);
            step.all_durations.merge(&window.candidate.durations);
            step.all_durations.merge(&window.forced.durations);
        }
    }
}

impl State {
    /// From copies to requests of users, or back: these are measured in another way, and nothing of before comes late.
    fn part(&mut self) {
        match self {
            Self::ErrorsCompared(evidence) => evidence.part(),
            Self::LatencyCompared { evidence, .. } => evidence.part(),
            Self::ErrorsAtMost { evidence, .. }
            | Self::MismatchesAtMost { evidence, .. }
            | Self::LatencyAtMost { evidence, .. } => evidence.part(),
            Self::MeanCompared { .. }
            | Self::MeanReported { .. }
            | Self::MeanWithin { .. }
            | Self::OutsideWithin { .. } => {}
        }
    }

    fn tick(&mut self, window: &Window<'_>, elapsed: Duration) {
        match self {
            Self::ErrorsCompared(evidence) => {
                evidence.tick(window.counts(), window.share, elapsed);
            }
            Self::ErrorsAtMost { evidence, .. } => evidence.tick(window.failures(), elapsed),
            Self::MismatchesAtMost { evidence, .. } => evidence.tick(window.mismatches(), elapsed),
            Self::LatencyCompared { evidence, .. } if !window.warming => {
                let (candidate, stable) = (&window.candidate.durations, &window.stable.durations);
                evidence.tick(candidate, stable, window.share, elapsed);
            }
            Self::LatencyAtMost { limit_us, evidence, .. } if !window.warming => {
                evidence.tick(window.slow(*limit_us), elapsed);
            }
            Self::LatencyCompared { .. } | Self::LatencyAtMost { .. } => {}
            Self::MeanCompared { value, evidence, .. } | Self::MeanReported { value, evidence } => {
                let (candidate, stable) = (window.candidate.value(*value), window.stable.value(*value));
                evidence.tick(candidate, stable, window.share, elapsed);
            }
            Self::MeanWithin {
                value,
                candidate,
                stable,
                ..
            } => {
                candidate.add(window.candidate.value(*value));
                candidate.add(window.forced.value(*value));
                stable.add(window.stable.value(*value));
            }
            Self::OutsideWithin { reading, .. } => {
                if let Some(reading) = reading {
                    reading.age = reading.age.saturating_add(elapsed);
                }
            }
        }
    }

    fn burst(&mut self, window: &Window<'_>) {
        match self {
            Self::ErrorsCompared(evidence) => evidence.burst(window.counts()),
            Self::ErrorsAtMost { evidence, .. } => evidence.burst(window.failures()),
            Self::MismatchesAtMost { evidence, .. } => evidence.burst(window.mismatches()),
            Self::LatencyCompared { evidence, .. } if !window.warming => {
                evidence.burst(&window.candidate.durations, &window.stable.durations);
            }
            Self::LatencyAtMost { limit_us, evidence, .. } if !window.warming => {
                evidence.burst(window.slow(*limit_us));
            }
            Self::LatencyCompared { .. } | Self::LatencyAtMost { .. } | Self::OutsideWithin { .. } => {}
            Self::MeanCompared { value, evidence, .. } | Self::MeanReported { value, evidence } => {
                evidence.burst(window.candidate.value(*value), window.stable.value(*value));
            }
            Self::MeanWithin {
                value,
                candidate,
                stable,
                ..
            } => {
                candidate.add(window.candidate.value(*value));
                candidate.add(window.forced.value(*value));
                stable.add(window.stable.value(*value));
            }
        }
    }
}

impl Observed {
    fn value(&self, position: usize) -> Moments {
        self.values.get(position).copied().unwrap_or_default()
    }
}

impl Window<'_> {
    /// The candidate's share of a mirror step's pairs: each copy has one original.
    pub const SHARE_OF_PAIRS: f64 = 0.5;

    fn counts(&self) -> Counts {
        Counts {
            candidate: self.candidate.requests,
            stable: self.stable.requests,
        }
    }

    /// Failures among all requests of the candidate.
    fn failures(&self) -> Arm {
        let mut all = self.candidate.requests;
        all.add(self.forced.requests);
        all
    }

    /// Copies with another status than their originals, among all copies.
    fn mismatches(&self) -> Arm {
        match self.mirrored {
            true => Arm {
                bad: self.candidate.mismatched,
                ..self.candidate.requests
            },
            false => Arm::default(),
        }
    }

    /// Requests among all of the candidate that took longer.
    fn slow(&self, limit_us: u64) -> Arm {
        let (split, forced) = (&self.candidate.durations, &self.forced.durations);
        Arm {
            begun: self.failures().begun,
            ended: split.count().saturating_add(forced.count()),
            bad: split.above(limit_us).saturating_add(forced.above(limit_us)),
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod pairs_tests;
