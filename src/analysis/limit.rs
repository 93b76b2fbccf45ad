//! Whether more than a given part of the candidate's requests is bad, valid at every instant.
//!
//! The [mixture](super::mixture) with the limit as the probability and requests as trials: a request multiplies by
//! `r/D` if bad and by `1/D` if not, of mean `(1 + p (r - 1)) / D <= 1` for every `p` up to the limit. The product is a
//! supermartingale request by request, so one may look at any instant, and as `1 + u` averages to less than it seems
//! (the inequality of the arithmetic and geometric mean) it is enough that the *mean* of the probabilities is within the
//! limit. (A mixture over a grid where the beta-binomial one has a density: no special functions, and the same code.)
//!
//! A latency quantile has the same form: the 99th percentile is above 500 ms exactly if more than 1 % of the requests
//! take longer than that.
//!
//! # Requests that are under way
//!
//! What ends first is not what began first. Where failures come at once and good answers take seconds, the first to end
//! are failures: so a failure's trial is counted when its request begins. When traffic stops, the last to end are the slow
//! ones, or the failures that took long: so for a minute after half or more of the requests stayed away, trials are
//! counted as if they had not. Either is worth having: without it the rate would be called too high in every such case.

use super::evidence::Arm;
use super::mixture::Mixture;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Requests after which an interval may end.
const ENOUGH: u64 = 50;
/// The age at which an interval ends with what it has.
const OLD: Duration = Duration::from_secs(120);
/// How long requests of a time with more traffic may still end.
const SETTLING: Duration = Duration::from_secs(60);

/// A limit of 0 is judged as this: one in a million.
pub(super) const LEAST_LIMIT: f64 = 1e-6;

/// Which requests are trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Trials {
    Begun,
    Ended,
}

/// Requests begun and trials in a second, when traffic was as usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Pace {
    begun: f64,
    trials: f64,
}

impl Pace {
    /// Up at once and down slowly, within half of the time to settle: a single second says little, and too much is safe.
    fn follow(self, now: Self, seconds: f64) -> Self {
        let part = seconds / (seconds + SETTLING.as_secs_f64() / 2.0);
        let follow = |usual: f64, now: f64| now.max(usual + (now - usual) * part);
        Self {
            begun: follow(self.begun, now.begun),
            trials: follow(self.trials, now.trials),
        }
    }
}

/// What speaks for "more of the requests are bad than the limit".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitEvidence {
    /// 0.0 to 1.0.
    limit: f64,
    trials: Trials,
    mixture: Mixture,
    open: Arm,
    age: Duration,
    usual: Pace,
    /// How long traffic has been less than half of that.
    fallen: Duration,
}

impl LimitEvidence {
    /// None yet, on failures: a request is a trial when it begins. `limit`: the part of the requests that may fail, 0.0 to
    /// 1.0; 0 is judged as one in a million.
    #[must_use]
    pub fn of_failures(limit: f64) -> Self {
        Self::new(limit, Trials::Begun)
    }

    /// None yet, on slow requests: a request is a trial when it has ended and its duration counts. `limit`: the part of
    /// those that may be slow, 0.0 to 1.0.
    #[must_use]
    pub fn of_slow(limit: f64) -> Self {
        Self::new(limit, Trials::Ended)
    }

    fn new(limit: f64, trials: Trials) -> Self {
        Self {
            limit: limit.max(LEAST_LIMIT),
            trials,
            mixture: Mixture::default(),
            open: Arm::default(),
            age: Duration::ZERO,
            usual: Pace::default(),
            fallen: Duration::ZERO,
        }
    }

    /// Adds what was counted since the last call, at an instant that the clock chose, `elapsed` after the last tick.
    pub fn tick(&mut self, counts: Arm, elapsed: Duration) {
        self.open.add(counts);
        self.age = self.age.saturating_add(elapsed);
        if self.open.begun.max(self.open.ended) >= ENOUGH || self.age >= OLD {
            self.close();
        }
    }

    /// Adds what was counted since the last call, at any other instant, such as that of a failure.
    pub fn burst(&mut self, counts: Arm) {
        self.open.add(counts);
    }

    /// What comes from now on is of another kind: nothing of what was begun before comes late.
    pub(super) fn part(&mut self) {
        self.close();
        (self.usual, self.fallen) = (Pace::default(), Duration::ZERO);
    }

    fn close(&mut self) {
        self.mixture.charge(self.limit, self.open.bad, self.trials());
        let fallen = self.fallen.saturating_add(self.age);
        let seconds = self.age.as_secs_f64().max(0.001);
        let now = Pace {
            begun: self.open.begun as f64 / seconds,
            trials: self.counted() as f64 / seconds,
        };
        if !self.has_fallen() {
            self.usual = self.usual.follow(now, seconds);
            self.fallen = Duration::ZERO;
        } else if fallen < SETTLING {
            self.fallen = fallen;
        } else {
            self.usual = now;
            self.fallen = Duration::ZERO;
        }
        self.open = Arm::default();
        self.age = Duration::ZERO;
    }

    fn has_fallen(&self) -> bool {
        (self.open.begun as f64) < self.usual.begun * self.age.as_secs_f64() / 2.0
    }

    fn counted(&self) -> u64 {
        match self.trials {
            Trials::Begun => self.open.begun.max(self.open.ended),
            Trials::Ended => self.open.ended,
        }
    }

    fn trials(&self) -> u64 {
        let settling = SETTLING.saturating_sub(self.fallen).min(self.age);
        let usual = (self.usual.trials * settling.as_secs_f64()) as u64;
        self.counted().max(if self.has_fallen() { usual } else { 0 })
    }

    /// The natural logarithm of how many times more likely what was seen is with the limit exceeded. It reaches
    /// `ln(1/a)` with a probability of at most `a`, ever, if it is not.
    #[must_use]
    pub fn log(&self) -> f64 {
        self.mixture.log_with(self.limit, self.open.bad, self.trials())
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
