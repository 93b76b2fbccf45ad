//! Whether the candidate fails more often than stable: the count e-process, valid at every instant.
//!
//! # Intervals
//!
//! Time is cut into intervals. Of interval `k` four numbers are used: requests and bad ones of the candidate (`n`, `x`)
//! and of stable (`m`, `y`). With the candidate allowed `1 + d` times the failure rate of stable, put
//!
//! ```text
//! null = (1 + d) n / ((1 + d) n + m)        f(r) = r^x / D^(x + y),  D = 1 + null (r - 1)
//! ```
//!
//! and feed the [mixture](super::mixture) with `x` hits in `x + y` trials.
//!
//! **It is valid** (the mean of `f(r)` is at most 1 for an innocent candidate) under two assumptions: requests fail
//! independently of each other, each with a probability of its own, and within an interval those of the candidate do so
//! with at most `1 + d` times the *mean* probability `q` of stable's. For, given `n` and `m` and with `p` the candidate's mean,
//! a request of the candidate multiplies by `r/D` if bad, one of stable by `1/D`, and `1 + u <= e^u`:
//!
//! ```text
//! E f <= exp( n p (r/D - 1) + m q (1/D - 1) )            r/D - 1 = (1 - null)(r - 1)/D,  1/D - 1 = -null (r - 1)/D
//!      = exp( (r - 1)(1 - null) n / D * (p - (1 + d) q) )   as m null = (1 + d) n (1 - null)
//!     <= 1                                                 as p <= (1 + d) q
//! ```
//!
//! Nothing is asked of what happens from one interval to the next: the share may ramp and the failure rate common to
//! both may drift, by itself or with the share. (Lindon & Malek, 2011.03567, condition on the bad events instead; the
//! process is the same. A z-test of the sums is wrong in most ramps with drift: Simpson's paradox.)
//!
//! # Which share
//!
//! `n / (n + m)` must not depend on what was bad. Taken is the largest of these, as a larger one is never unsafe:
//! - the share of the requests that *ended* in the interval;
//! - the share of those *begun* in it: where good answers take long and failures come at once, the first to end after
//!   a ramp are failures, and by them alone the candidate would seem to have no traffic;
//! - for a minute after the share in force fell, the share from before: failures that took long belong to it.
//!
//! # When an interval ends
//!
//! At a tick of the clock, when both versions have five requests or when it is two minutes old, and when the share in
//! force changes. Never because of a failure: that would choose the boundaries by the outcomes, and with them the share.
//!
//! # The open interval
//!
//! It counts at once, so that a burst convicts without waiting for a boundary; but whoever looks right after a failure
//! looks when the candidate is a request or two ahead of its share. So the open interval forgives the candidate its first
//! two failures, and its share is at least the one in force. Then looking at it is covered by the same supermartingale
//! as the boundaries: order the requests of the interval so that the candidate never is ahead of its share of the whole
//! interval (each of its requests waits until enough of stable's have come). If it is ahead by at most two at any
//! instant, then the value seen there is at most the value of the reordered process, with the last two candidate
//! requests left out, whether they were bad or not; and that process is a supermartingale, as with probability `p` for
//! every request its compensator after `i` requests is `p (r - 1)/D (n_i - null i) <= 0`. Splits without a key are
//! exact to within a request or so; with keys, users in random order make each bad request the candidate's with a
//! probability of its share, which is the supermartingale directly. Either way six failed requests in a row convict a fresh candidate at 5 % and a confidence
//! of 99 %.
//!
//! # Pairs
//!
//! In a mirror step the candidate's requests are copies of stable's, and a request that is bad by itself is bad twice: the two
//! of a pair are not independent. They need not be. Let the original alone be bad with probability `b`, the copy alone with
//! `a`, both with `c`; a candidate within the tolerance has `a + c <= (1 + d)(b + c)`. A pair multiplies by `r/D`, `1/D` and
//! `r/D²` then, with `null = (1 + d)/(2 + d)` and `u = r - 1`:
//!
//! ```text
//! E f - 1 = (u/D) (a (1 - null) - b null) + c (r/D² - 1)
//!        <= c ( u (2 null - 1)/D + r/D² - 1 )               as a <= (1 + d) b + d c
//!        <= 0                                               as D² - r - u (2 null - 1) D = null (1 - null) u² >= 0
//! ```
//!
//! An original counts when its copy begins and the copy when it ends, so what is seen at any instant is at most what the pairs
//! begun until then will come to, in the order in which they began: whatever ends first, good or bad, it is no more than
//! that supermartingale.

use super::mixture::Mixture;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Requests of each version after which an interval may end.
pub(super) const ENOUGH: u64 = 5;
/// The age at which an interval ends with what it has.
pub(super) const OLD: Duration = Duration::from_secs(120);
/// How long failures of requests begun at a larger share may still come.
const SETTLING: Duration = Duration::from_secs(60);
/// Failures of the candidate that do not count in the open interval.
const FORGIVEN: u64 = 2;

/// Requests of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// Requests that began.
    pub begun: u64,
    /// Requests that ended, good or bad.
    pub ended: u64,
    /// Bad ones among those that ended.
    pub bad: u64,
}

impl Arm {
    pub(super) fn add(&mut self, more: Self) {
        self.begun = self.begun.saturating_add(more.begun);
        self.ended = self.ended.saturating_add(more.ended);
        self.bad = self.bad.saturating_add(more.bad);
    }
}

/// Requests of both versions in the same stretch of time. Those of several proxies add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub candidate: Arm,
    pub stable: Arm,
}

impl Counts {
    /// Adds those of another proxy, or of the time after.
    pub fn add(&mut self, more: Self) {
        self.candidate.add(more.candidate);
        self.stable.add(more.stable);
    }

    /// The candidate's share of the requests, 0.0 to 1.0, by those begun or those ended, whichever is larger.
    fn share(self) -> f64 {
        let part = |candidate: u64, stable: u64| candidate as f64 / (candidate as f64 + stable as f64).max(1.0);
        let begun = part(self.candidate.begun, self.stable.begun);
        begun.max(part(self.candidate.ended, self.stable.ended))
    }
}

/// What speaks for "the candidate is bad more than `1 + tolerance` times as often as stable".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    tolerance: f64,
    mixture: Mixture,
    open: Counts,
    age: Duration,
    /// The share in force in the open interval.
    share: f64,
    /// The share of the interval that ended last.
    last: f64,
    /// A share that fell, and how long it still counts.
    settling: Option<(f64, Duration)>,
}

impl Evidence {
    /// None yet. `tolerance`: by how much the candidate may be worse, relatively (0.1: 10 %).
    #[must_use]
    pub fn new(tolerance: f64) -> Self {
        Self {
            tolerance,
            mixture: Mixture::default(),
            open: Counts::default(),
            age: Duration::ZERO,
            share: 0.0,
            last: 0.0,
            settling: None,
        }
    }

    /// Adds what was counted since the last call, at an instant that the clock chose, or the change of a share.
    /// `share`, 0.0 to 1.0: the candidate's, in force for all of the `elapsed` since the last tick. Whether an interval
    /// ended.
    pub fn tick(&mut self, counts: Counts, share: f64, elapsed: Duration) -> bool {
        let changed = share != self.share;
        if changed {
            self.close();
            if share < self.share {
                self.settling = Some((self.floor().max(self.last).max(self.share), SETTLING));
            }
            self.share = share;
        }
        self.open.add(counts);
        self.age = self.age.saturating_add(elapsed);
        let fewest = self.open.candidate.ended.min(self.open.stable.ended);
        if fewest >= ENOUGH || self.age >= OLD {
            self.close();
            return true;
        }
        changed
    }

    /// Adds what was counted since the last call, at any other instant, such as that of a failure.
    pub fn burst(&mut self, counts: Counts) {
        self.open.add(counts);
    }

    /// What comes from now on is of another kind: nothing of what was begun before comes late.
    pub(super) fn part(&mut self) {
        self.close();
        (self.settling, self.share, self.last) = (None, 0.0, 0.0);
    }

    fn close(&mut self) {
        if self.open != Counts::default() {
            self.last = self.open.share();
            let (hits, trials) = hits_and_trials(self.open, 0);
            self.mixture.charge(self.null(self.last), hits, trials);
        }
        self.settling = self.settling.and_then(|(share, left)| {
            let left = left.saturating_sub(self.age);
            (!left.is_zero()).then_some((share, left))
        });
        self.open = Counts::default();
        self.age = Duration::ZERO;
    }

    fn floor(&self) -> f64 {
        self.settling.map_or(0.0, |(share, _)| share)
    }

    /// The probability that a bad request is the candidate's, if it is just within the tolerance.
    fn null(&self, share: f64) -> f64 {
        let odds = (1.0 + self.tolerance) * share.max(self.floor());
        odds / (odds + 1.0 - share.max(self.floor()))
    }

    /// The natural logarithm of how many times more likely what was seen is with a candidate that is worse. It reaches
    /// `ln(1/a)` with a probability of at most `a`, ever, if the candidate is not.
    #[must_use]
    pub fn log(&self) -> f64 {
        let (hits, trials) = hits_and_trials(self.open, FORGIVEN);
        let share = self.open.share().max(self.share);
        self.mixture.log_with(self.null(share), hits, trials)
    }
}

fn hits_and_trials(counts: Counts, forgiven: u64) -> (u64, u64) {
    let hits = counts.candidate.bad.saturating_sub(forgiven);
    (hits, hits.saturating_add(counts.stable.bad))
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
