//! The mean of an application's own numbers (from an answer's header): whether it differs between versions, and
//! whether it is within limits, valid at every instant.
//!
//! # The difference
//!
//! As in [`super::evidence`], only values of the same interval are compared. Interval `k` with `n` values of the candidate
//! (mean `a`) and `m` of stable (mean `b`) gives `a - g b`, weighted by `w = n m / (n + m)`, which is in proportion to its precision
//! and known without looking at a value; `g` is 1 or `1 ± tolerance`. What is common to both, drifting with the share or
//! not, falls out. The sum
//!
//! ```text
//! S = sum of w (a - g b)      V = var (sum of w²/n + g² sum of w²/m)
//! ```
//!
//! is a martingale if the means are equal, and `V` its variance. `var` is the variance within intervals, pooled over all of
//! them.
//!
//! # The bound
//!
//! Values are not bounded, and may have heavy tails; no bound for finite samples exists then. This is an *asymptotic
//! confidence sequence* (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic
//! confidence sequences", 2103.06476): the sum is close to a Brownian motion at all times at once (strong invariance),
//! and for that Robbins' normal mixture bound holds at every instant,
//!
//! ```text
//! two-sided:  |S| < sqrt( (V + v) (ln((V + v)/v) + 2 ln(1/a)) )
//! one-sided:  E = 2 sqrt(v/(V + v)) exp(S²/2(V + v)) Phi(S/sqrt(V + v)),    ever E >= 1/a with probability <= a
//! ```
//!
//! where `v`, at which the bound begins, is `V` after [`BEGIN`] values of each version. Before that nothing is said.
//!
//! "Asymptotic" is not enough by itself for a few hundred rare or heavy-tailed values: a candidate that by chance has had
//! none of the large ones has a low mean *and* seems to vary little, so it would be convicted in 18 of 100 runs at a
//! confidence of 99.75 % (values that are 1 in one of 200 requests, else 0; a share of 10 %). So
//! - `var` is the larger of the two versions' variances, for both: that of the version with more traffic is known better,
//!   and does not fall with the candidate's mean;
//! - `V` grows by `S²` over the degrees of freedom (of Welch and Satterthwaite): the variance about the value tested
//!   instead of about the mean found, which makes the sum self-normalised (Shao 1997) and is Student's correction.
//!
//! With these it is 0, and false alarms keep within what the confidence allows down to 2.5 moments (Pareto), whatever the
//! share; the tests show some.

use super::evidence::{ENOUGH, OLD};
use super::finding::{Measured, Names};
use super::wording::number;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Values of each version before which nothing is said.
pub const BEGIN: u64 = 200;

/// Number, sum and sum of squares of values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    pub count: u64,
    pub sum: f64,
    pub sum_of_squares: f64,
}

impl Moments {
    /// Adds one value. One that is not finite is not a value.
    pub fn record(&mut self, value: f64) {
        if value.is_finite() {
            self.add(Self {
                count: 1,
                sum: value,
                sum_of_squares: value * value,
            });
        }
    }

    /// Adds those of others.
    pub fn add(&mut self, more: Self) {
        self.count = self.count.saturating_add(more.count);
        self.sum += more.sum;
        self.sum_of_squares += more.sum_of_squares;
    }

    /// `None` without values.
    #[must_use]
    pub fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    fn variance(self) -> f64 {
        self.scatter() / self.count.saturating_sub(1).max(1) as f64
    }

    /// Sum of the squared distances to the mean.
    fn scatter(self) -> f64 {
        let mean = self.mean().unwrap_or_default();
        (self.sum_of_squares - mean * self.sum).max(0.0)
    }
}

/// One version's part of a [`MeanDifference`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Side {
    values: u64,
    /// Sum of `w` times the interval's mean.
    weighted_sum: f64,
    /// Sum of `w²/n`.
    inverse: f64,
    /// Sum of squared distances to the means of the intervals, and its degrees of freedom.
    scatter: f64,
    freedom: u64,
}

impl Side {
    fn take(&mut self, values: Moments, weight: f64) {
        self.values = self.values.saturating_add(values.count);
        self.weighted_sum += weight * values.mean().unwrap_or_default();
        self.inverse += weight * weight / values.count.max(1) as f64;
        self.scatter += values.scatter();
        self.freedom = self.freedom.saturating_add(values.count.saturating_sub(1));
    }

    /// The variance of a value.
    fn variance(self) -> f64 {
        self.scatter / self.freedom.max(1) as f64
    }
}

/// A difference of means with its confidence sequence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The candidate's mean less stable's.
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

impl Difference {
    /// Whether zero is excluded.
    #[must_use]
    pub fn significant(self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// A sentence for the report of an A/B test.
    #[must_use]
    pub fn statement(self, names: Names<'_>, metric: &str) -> String {
        let Names { candidate, stable } = names;
        let [estimate, low, high] = [self.estimate, self.low, self.high].map(number);
        let verdict = if self.significant() {
            "significant"
        } else {
            "not significant"
        };
        format!("{candidate} has {estimate} more {metric} than {stable} (from {low} to {high}): {verdict}")
    }
}

/// Which way is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worse {
    Higher,
    Lower,
}

/// Values of both versions, interval by interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MeanDifference {
    open: (Moments, Moments),
    age: Duration,
    share: f64,
    weight: f64,
    candidate: Side,
    stable: Side,
    /// Variances of the two weighted sums when the bound began.
    begin: Option<(f64, f64)>,
}

impl MeanDifference {
    /// Adds the values since the last call; as [`super::Evidence::tick`]. An interval that is still open does not count.
    pub fn tick(&mut self, candidate: Moments, stable: Moments, share: f64, elapsed: Duration) {
        if share != self.share {
            self.close();
            self.share = share;
        }
        self.burst(candidate, stable);
        self.age = self.age.saturating_add(elapsed);
        if self.open.0.count.min(self.open.1.count) >= ENOUGH || self.age >= OLD {
            self.close();
        }
    }

    /// Adds the values since the last call, at any other instant.
    pub fn burst(&mut self, candidate: Moments, stable: Moments) {
        self.open.0.add(candidate);
        self.open.1.add(stable);
    }

    fn close(&mut self) {
        let (candidate, stable) = std::mem::take(&mut self.open);
        self.age = Duration::ZERO;
        if candidate.count == 0 || stable.count == 0 {
            return;
        }
        let (n, m) = (candidate.count as f64, stable.count as f64);
        let weight = n * m / (n + m);
        self.weight += weight;
        self.candidate.take(candidate, weight);
        self.stable.take(stable, weight);
        if self.begin.is_none() && self.candidate.values.min(self.stable.values) >= BEGIN {
            self.begin = self.variances();
        }
    }

    /// Of the two weighted sums, `None` while all values of a version are the same in each interval.
    fn variances(&self) -> Option<(f64, f64)> {
        let variance = self.candidate.variance().max(self.stable.variance());
        let known = variance > 0.0 && variance.is_finite();
        known.then_some((variance * self.candidate.inverse, variance * self.stable.inverse))
    }

    /// The mean of the candidate and that of stable, each weighted over the intervals by the precision of their
    /// difference. `None` before there is an interval with both.
    #[must_use]
    pub fn means(&self) -> Option<[Measured; 2]> {
        let mean = |side: Side| Measured {
            value: side.weighted_sum / self.weight,
            requests: side.values,
        };
        (self.weight > 0.0).then(|| [mean(self.candidate), mean(self.stable)])
    }

    /// `None` before the bound has begun. `factor`: what stable's values are multiplied by.
    fn spread(&self, factor: f64) -> Option<Spread> {
        let total = |(of_candidate, of_stable): (f64, f64)| of_candidate + factor * factor * of_stable;
        let (of_candidate, of_stable) = self.variances()?;
        let now = total((of_candidate, of_stable));
        let uncertain = |variance: f64, side: Side| variance * variance / side.freedom.max(1) as f64;
        let of_stable = factor * factor * of_stable;
        Some(Spread {
            now,
            begin: total(self.begin?),
            freedom: now * now / (uncertain(of_candidate, self.candidate) + uncertain(of_stable, self.stable)),
        })
    }

    /// The natural logarithm of how many times more likely what was seen is with a candidate that is worse by more than
    /// `tolerance` (of stable's mean, which is taken to be positive). `None`: too few values.
    #[must_use]
    pub fn log_worse(&self, worse: Worse, tolerance: f64) -> Option<f64> {
        let (sign, factor) = match worse {
            Worse::Higher => (1.0, 1.0 + tolerance),
            Worse::Lower => (-1.0, 1.0 - tolerance),
        };
        let sum = sign * (self.candidate.weighted_sum - factor * self.stable.weighted_sum);
        log_or_nothing_worse(self.spread(factor), sum, self.candidate.values.min(self.stable.values))
    }

    /// The difference of the means, weighted over the intervals by precision, with bounds that hold at every instant
    /// with the `confidence` given (0.99: 99 %). For reports of an A/B test: significant is what excludes zero. `None`:
    /// too few values, or all the same.
    #[must_use]
    pub fn difference(&self, confidence: f64) -> Option<Difference> {
        let half = self.spread(1.0)?.half_width(confidence) / self.weight;
        let estimate = (self.candidate.weighted_sum - self.stable.weighted_sum) / self.weight;
        Some(Difference {
            estimate,
            low: estimate - half,
            high: estimate + half,
        })
    }
}

/// The natural logarithm of how many times more likely the candidate's values are with a mean above `limit`; below it,
/// with [`Worse::Lower`]. Stable's say how much values vary. `None`: too few values.
#[must_use]
pub fn log_beyond(candidate: Moments, stable: Moments, limit: f64, worse: Worse) -> Option<f64> {
    let count = candidate.count as f64;
    let variance = candidate.variance().max(stable.variance());
    let spread = Spread {
        now: variance * count,
        begin: variance * BEGIN as f64,
        freedom: count,
    };
    let known = candidate.count >= BEGIN && variance > 0.0 && variance.is_finite();
    let sum = match worse {
        Worse::Higher => candidate.sum - limit * count,
        Worse::Lower => limit * count - candidate.sum,
    };
    log_or_nothing_worse(known.then_some(spread), sum, candidate.count)
}

/// Values that are all the same do not tell how much the next may differ: they speak against nobody, and not for
/// certain, but where they are no worse there is nothing to hold against them either.
fn log_or_nothing_worse(spread: Option<Spread>, sum: f64, values: u64) -> Option<f64> {
    match spread {
        Some(spread) => Some(spread.log_one_sided(sum)),
        None => (values >= BEGIN && sum <= 0.0).then_some(0.0),
    }
}

/// How far a sum may be from zero by chance.
#[derive(Debug, Clone, Copy)]
struct Spread {
    /// Its variance `V`, and `v`.
    now: f64,
    begin: f64,
    /// How many values the estimate of the variance rests on (Welch and Satterthwaite).
    freedom: f64,
}

impl Spread {
    fn log_one_sided(self, sum: f64) -> f64 {
        let total = self.now + sum * sum / self.freedom + self.begin;
        let normal = sum / total.sqrt();
        libm::log(2.0) + 0.5 * libm::log(self.begin / total) + log_scaled_phi(normal)
    }

    /// Half of the interval in which the sum is, less its mean. Infinite with fewer values than the confidence needs.
    fn half_width(self, confidence: f64) -> f64 {
        let total = self.now + self.begin;
        let bound = libm::log(total / self.begin) - 2.0 * libm::log(1.0 - confidence);
        match bound < self.freedom {
            true => (total * bound / (1.0 - bound / self.freedom)).sqrt(),
            false => f64::INFINITY,
        }
    }
}

/// `ln(exp(x²/2) Phi(x))`, also where `Phi` underflows.
fn log_scaled_phi(x: f64) -> f64 {
    if x < -20.0 {
        // Mills' ratio; off by less than 1 in 400 there.
        return -libm::log(-x * std::f64::consts::TAU.sqrt());
    }
    x * x / 2.0 + libm::log(0.5 * libm::erfc(-x / std::f64::consts::SQRT_2))
}

#[cfg(test)]
#[path = "mean_tests.rs"]
mod tests;
