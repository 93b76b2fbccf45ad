//! What is judged: the checks of a rollout and how much evidence a verdict needs.

use super::evidence::Evidence;
use super::limit::LimitEvidence;
use super::mean::{MeanDifference, Moments, Worse};
use super::quantile::QuantileEvidence;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The range that a number may be in; an end that is absent is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl Limits {
    /// Whether a number is in the range, ends included. One that is not a number is not.
    #[must_use]
    pub fn admit(self, value: f64) -> bool {
        !value.is_nan() && self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

/// The condition of a check. Tolerances are relative: 0.1 is 10 %.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// The part of the requests that fail, compared to stable.
    ErrorsCompared { tolerance: f64 },
    /// The part of the requests that fail is at most `limit`, 0.0 to 1.0.
    ErrorsAtMost { limit: f64 },
    /// The part of the copies of a mirror step that are answered with another status than an original that did not fail is at
    /// most `limit`, 0.0 to 1.0. In other steps there is nothing to see.
    MismatchesAtMost { limit: f64 },
    /// A quantile of the latency (0.99 for p99), compared to stable.
    LatencyCompared { quantile: f64, tolerance: f64 },
    /// A quantile of the latency is at most so many microseconds.
    LatencyAtMost { quantile: f64, limit_us: u64 },
    /// The mean of an application's number, compared to stable. `value`: which of [`Observed::values`].
    ///
    /// [`Observed::values`]: super::Observed::values
    MeanCompared { value: usize, worse: Worse, tolerance: f64 },
    /// How the mean of an application's number differs from stable's: said, and never judged.
    MeanReported { value: usize },
    /// The mean of an application's number is within limits.
    MeanWithin { value: usize, limits: Limits },
    /// A number from elsewhere (a query) is within limits. It counts for `fresh_for` after it came.
    OutsideWithin { limits: Limits, fresh_for: Duration },
}

impl Test {
    /// Whether it is decided by evidence from a sample, and so has a part in the confidence. A number from elsewhere is
    /// taken as it is.
    fn is_statistical(&self) -> bool {
        !matches!(self, Self::OutsideWithin { .. } | Self::MeanReported { .. })
    }

    /// Whether nothing follows from it.
    #[must_use]
    pub fn is_report(&self) -> bool {
        matches!(self, Self::MeanReported { .. })
    }
}

/// One condition on one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The metric as in the configuration, such as `latency_p99`.
    pub metric: String,
    pub test: Test,
}

/// How a candidate is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// The probability with which a candidate that violates no check fails none, over the whole rollout: 0.5 to 0.99999.
    pub confidence: f64,
    /// Requests of the candidate in a step without which no check passes.
    pub min_requests: u64,
    pub checks: Vec<Check>,
}

impl Rules {
    /// How many to one the evidence of a check must be to fail it. What the confidence leaves for false alarms is
    /// shared out equally over the checks that go by evidence, so that together they keep within it, however their
    /// metrics hang together (Bonferroni). At most 3,200,000 for 32 checks.
    #[must_use]
    pub fn needed(&self) -> f64 {
        let checks = self.checks.iter().filter(|check| check.test.is_statistical()).count();
        checks.max(1) as f64 / (1.0 - self.confidence.clamp(0.5, 0.999_99))
    }
}

/// What is known about one check: all that must be kept to go on judging it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    ErrorsCompared(Evidence),
    ErrorsAtMost {
        limit: f64,
        evidence: LimitEvidence,
    },
    MismatchesAtMost {
        limit: f64,
        evidence: LimitEvidence,
    },
    LatencyCompared {
        quantile: f64,
        evidence: QuantileEvidence,
    },
    LatencyAtMost {
        quantile: f64,
        limit_us: u64,
        evidence: LimitEvidence,
    },
    MeanCompared {
        value: usize,
        worse: Worse,
        tolerance: f64,
        evidence: MeanDifference,
    },
    MeanReported {
        value: usize,
        evidence: MeanDifference,
    },
    MeanWithin {
        value: usize,
        limits: Limits,
        candidate: Moments,
        stable: Moments,
    },
    OutsideWithin {
        limits: Limits,
        fresh_for: Duration,
        reading: Option<Reading>,
    },
}

/// The last answer about a number from elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Reading {
    pub(super) answer: Result<f64, String>,
    pub(super) age: Duration,
}

impl State {
    /// Before anything was seen.
    pub(super) fn new(test: &Test) -> Self {
        match *test {
            Test::ErrorsCompared { tolerance } => Self::ErrorsCompared(Evidence::new(tolerance)),
            Test::ErrorsAtMost { limit } => Self::ErrorsAtMost {
                limit,
                evidence: LimitEvidence::of_failures(limit),
            },
            Test::MismatchesAtMost { limit } => Self::MismatchesAtMost {
                limit,
                evidence: LimitEvidence::of_failures(limit),
            },
            Test::LatencyCompared { quantile, tolerance } => Self::LatencyCompared {
                quantile,
                evidence: QuantileEvidence::new(quantile, tolerance),
            },
            Test::LatencyAtMost { quantile, limit_us } => Self::LatencyAtMost {
                quantile,
                limit_us,
                evidence: LimitEvidence::of_slow(1.0 - quantile),
            },
            Test::MeanCompared {
                value,
                worse,
                tolerance,
            } => Self::MeanCompared {
                value,
                worse,
                tolerance,
                evidence: MeanDifference::default(),
            },
            Test::MeanReported { value } => Self::MeanReported {
                value,
                evidence: MeanDifference::default(),
            },
            Test::MeanWithin { value, limits } => Self::MeanWithin {
                value,
                limits,
                candidate: Moments::default(),
                stable: Moments::default(),
            },
            Test::OutsideWithin { limits, fresh_for } => Self::OutsideWithin {
                limits,
                fresh_for,
                reading: None,
            },
        }
    }
}
