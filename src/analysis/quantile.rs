//! Whether a quantile of the candidate's latency is worse than stable's by more than a tolerance, valid at every
//! instant.
//!
//! The [count e-process](super::evidence) with "slow" as bad. Each interval has a threshold `T`, decided before it
//! begins: stable's quantile in the intervals before. A request of stable is slow from `T` on, one of the candidate from
//! `(1 + tolerance) T` on. Tested is
//!
//! ```text
//! P(candidate takes (1 + tolerance) T or longer) <= P(stable takes T or longer)
//! ```
//!
//! A candidate whose latencies are stable's times `1 + tolerance` is exactly at its edge, whatever their distribution;
//! one that is the same as stable is well within.
//!
//! Why this, and not confidence bounds on both quantiles (Howard & Ramdas, 1906.09712), failing when the candidate's
//! lower bound exceeds stable's upper one: those are bounds on the distribution of all requests since the beginning.
//! While a share ramps and the latency of both drifts, the two samples are weighted differently in time, and bounds that
//! are right for each differ though the versions do not; here only requests of the same interval are compared. And two
//! bounds each pay for their own uncertainty, of which the comparison needs only one. What a stale `T` costs is power, not
//! validity: if the latency of both doubles, a larger part of both is slow for a while.
//!
//! Bounds of buckets are used for both thresholds, the candidate's rounded up: it is allowed up to 1.6 % more than
//! written. For medians the e-process is cautious (it treats slow requests as rare) and needs about twice the requests it might.

use super::evidence::{Arm, Counts, Evidence};
use super::histogram::{BUCKETS, Histogram, bounds_of, bucket_of};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many slow requests of stable a threshold should rest on; then older ones are forgotten.
const SLOW_FOR_THRESHOLD: f64 = 100.0;
/// Requests of stable without which there is no threshold.
const FEWEST: f64 = 50.0;

/// What speaks for "the candidate's quantile is more than `1 + tolerance` times stable's".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantileEvidence {
    quantile: f64,
    tolerance: f64,
    /// First slow bucket of stable and of the candidate.
    slow_from: Option<(usize, usize)>,
    /// Stable's latencies of late, and those from before.
    recent: Histogram,
    before: Histogram,
    evidence: Evidence,
}

impl QuantileEvidence {
    /// None yet. `quantile`: 0.0 to 1.0, such as 0.99; `tolerance`: by how much the candidate's may be larger,
    /// relatively.
    #[must_use]
    pub fn new(quantile: f64, tolerance: f64) -> Self {
        Self {
            quantile,
            tolerance,
            slow_from: None,
            recent: Histogram::default(),
            before: Histogram::default(),
            evidence: Evidence::new(0.0),
        }
    }

    /// Adds the latencies since the last call; as [`Evidence::tick`].
    pub fn tick(&mut self, candidate: &Histogram, stable: &Histogram, share: f64, elapsed: Duration) {
        let counts = self.counts(candidate, stable);
        self.recent.merge(stable);
        if self.evidence.tick(counts, share, elapsed) || self.slow_from.is_none() {
            self.choose_threshold();
        }
    }

    /// Adds the latencies since the last call; as [`Evidence::burst`].
    pub fn burst(&mut self, candidate: &Histogram, stable: &Histogram) {
        self.evidence.burst(self.counts(candidate, stable));
        self.recent.merge(stable);
    }

    /// As [`Evidence::part`]; latencies of another kind need a threshold of their own.
    pub(super) fn part(&mut self) {
        self.evidence.part();
        self.slow_from = None;
        (self.recent, self.before) = Default::default();
    }

    /// Nothing counts before there is a threshold.
    fn counts(&self, candidate: &Histogram, stable: &Histogram) -> Counts {
        let arm = |histogram: &Histogram, slow_from: usize| Arm {
            begun: 0,
            ended: histogram.count(),
            bad: histogram.from_bucket(slow_from),
        };
        self.slow_from
            .map_or_else(Counts::default, |(of_stable, of_candidate)| Counts {
                candidate: arm(candidate, of_candidate),
                stable: arm(stable, of_stable),
            })
    }

    fn choose_threshold(&mut self) {
        let slow_part = (1.0 - self.quantile).max(1e-6);
        let known = (self.recent.count() + self.before.count()) as f64;
        if known < FEWEST.max(1.0 / slow_part) {
            return;
        }
        let mut all = self.before.clone();
        all.merge(&self.recent);
        self.slow_from = all.quantile_bucket(self.quantile).map(|bucket| {
            let of_stable = (bucket + 1).min(BUCKETS - 1);
            (of_stable, bucket_from(bounds_of(of_stable).0, self.tolerance))
        });
        if self.recent.count() as f64 >= SLOW_FOR_THRESHOLD / slow_part {
            self.before = std::mem::take(&mut self.recent);
        }
    }

    /// The natural logarithm of how many times more likely what was seen is with a candidate that is worse. It reaches
    /// `ln(1/a)` with a probability of at most `a`, ever, if the candidate is not.
    #[must_use]
    pub fn log(&self) -> f64 {
        self.evidence.log()
    }

    /// What makes a request slow, in microseconds: of stable and of the candidate. `None`: not known yet.
    #[must_use]
    pub fn thresholds_us(&self) -> Option<(u64, u64)> {
        self.slow_from
            .map(|(of_stable, of_candidate)| (bounds_of(of_stable).0, bounds_of(of_candidate).0))
    }
}

/// The first bucket with no duration below `(1 + tolerance) us`; beyond the last, there is none (`BUCKETS`).
fn bucket_from(us: u64, tolerance: f64) -> usize {
    let us = (us as f64 * (1.0 + tolerance)).ceil() as u64;
    let bucket = bucket_of(us);
    bucket + usize::from(bounds_of(bucket).0 < us)
}

#[cfg(test)]
#[path = "quantile_tests.rs"]
mod tests;
