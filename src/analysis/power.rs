//! What a comparison or a limit can find before it begins: for `rollgate plan`.
//!
//! Of the bad requests of both versions each is the candidate's with a probability that follows from its share and from
//! how many times as often it fails; of the requests of the candidate each is bad with the probability that it fails with.
//! So the evidence is a function of two counts, trials and hits among them, and the chance that it ever reaches what is
//! needed is that of a random walk to cross a boundary: computed exactly, step by step, up to [`STEPS`] trials, and by the
//! normal approximation beyond. Left out are the later beginnings of the [mixture](super::mixture), and that intervals cost
//! a request or two where there are few.

use super::limit::LEAST_LIMIT;
use super::mixture::Mixture;
use std::time::Duration;

/// The chance of being found that counts as found.
pub const POWER: f64 = 0.8;
/// Its normal quantile.
const POWER_NORMAL: f64 = 0.841_621;
/// Trials that are walked through one by one.
const STEPS: usize = 10_000;
/// What is less likely than this is left out of the walk.
const NEGLIGIBLE: f64 = 1e-9;
/// What takes longer than this, about 100 years, takes for ever.
const FOR_EVER_S: f64 = 3.2e9;

/// Traffic of both versions, and what a comparison of how often they fail needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// Requests a second, both versions together.
    pub rate: f64,
    /// The candidate's share of them, 0.0 to 1.0.
    pub share: f64,
    /// The part of stable's requests that is bad: failed, or slow (0.01 for a p99).
    pub bad: f64,
    /// By how much the candidate may be worse, relatively.
    pub tolerance: f64,
    /// How many to one the evidence must be ([`super::Rules::needed`]).
    pub needed: f64,
}

/// What a comparison can find, with a chance of [`POWER`].
#[derive(Debug, Clone)]
pub struct Power {
    traffic: Traffic,
    walk: Walk,
}

impl Power {
    /// Takes some milliseconds. `None`: one of the numbers is out of range, or there is nothing to compare (a share of
    /// 0 or 1, no traffic, nothing bad).
    #[must_use]
    pub fn new(traffic: Traffic) -> Option<Self> {
        let sound =
            is_part(traffic.share) && is_part(traffic.bad) && is_positive(traffic.rate) && is_positive(traffic.needed);
        (sound && traffic.tolerance >= 0.0 && traffic.tolerance.is_finite()).then(|| Self {
            traffic,
            walk: Walk::new(null(&traffic), traffic.needed),
        })
    }

    /// The chance, 0.0 to 1.0, that a candidate that is bad `times` as often as stable is found within `hold`.
    #[must_use]
    pub fn chance(&self, times: f64, hold: Duration) -> f64 {
        let bad = self.bad_a_second(times) * hold.as_secs_f64();
        self.walk.chance(self.chance_of_candidate(times), bad)
    }

    /// How many times as often as stable a candidate must at least be bad to be found within `hold`. `None`: not even
    /// one that is always bad is.
    #[must_use]
    pub fn smallest_found(&self, hold: Duration) -> Option<f64> {
        smallest(1.0, 1.0 / self.traffic.bad, |times| self.chance(times, hold))
    }

    /// How long it takes to find a candidate that is bad `times` as often as stable. `None`: for ever, or nearly (100
    /// years).
    #[must_use]
    pub fn hold_to_find(&self, times: f64) -> Option<Duration> {
        lasting(self.bad_to_find(times)?, self.bad_a_second(times))
    }

    /// How many bad requests, of both versions together, it takes to find a candidate that is bad `times` as often as
    /// stable. `None`: no number is enough.
    #[must_use]
    pub fn bad_to_find(&self, times: f64) -> Option<f64> {
        self.walk.trials_to_find(self.chance_of_candidate(times))
    }

    fn bad_a_second(&self, times: f64) -> f64 {
        let Traffic { rate, share, bad, .. } = self.traffic;
        rate * (bad * (1.0 - share) + (bad * times).min(1.0) * share)
    }

    /// The chance that a bad request is the candidate's.
    fn chance_of_candidate(&self, times: f64) -> f64 {
        let Traffic { share, bad, .. } = self.traffic;
        let of_candidate = share * (bad * times).min(1.0);
        of_candidate / (of_candidate + bad * (1.0 - share))
    }
}

/// What an absolute limit can find, with a chance of [`POWER`].
#[derive(Debug, Clone)]
pub struct LimitPower {
    /// Requests of the candidate a second.
    rate: f64,
    limit: f64,
    walk: Walk,
}

impl LimitPower {
    /// Takes some milliseconds. `rate`: requests of the candidate a second; `limit`: the part of them that may be bad, 0.0
    /// to 1.0; `needed`: how many to one the evidence must be. `None`: a number is out of range, or there is no traffic.
    #[must_use]
    pub fn new(rate: f64, limit: f64, needed: f64) -> Option<Self> {
        let limit = limit.max(LEAST_LIMIT);
        let sound = is_positive(rate) && is_part(limit) && is_positive(needed);
        sound.then(|| Self {
            rate,
            limit,
            walk: Walk::new(limit, needed),
        })
    }

    /// The chance, 0.0 to 1.0, that a candidate of whose requests the part `bad` is bad is found within `hold`.
    #[must_use]
    pub fn chance(&self, bad: f64, hold: Duration) -> f64 {
        self.walk.chance(bad.clamp(0.0, 1.0), self.rate * hold.as_secs_f64())
    }

    /// Which part of the candidate's requests must at least be bad to be found within `hold`. `None`: not even all are
    /// enough.
    #[must_use]
    pub fn smallest_found(&self, hold: Duration) -> Option<f64> {
        smallest(self.limit, 1.0, |bad| self.chance(bad, hold))
    }

    /// How long it takes to find a candidate of whose requests the part `bad` is bad. `None`: for ever, or nearly (100
    /// years).
    #[must_use]
    pub fn hold_to_find(&self, bad: f64) -> Option<Duration> {
        lasting(self.walk.trials_to_find(bad.clamp(0.0, 1.0))?, self.rate)
    }
}

fn is_part(value: f64) -> bool {
    value > 0.0 && value < 1.0
}

fn is_positive(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

/// The least from `missed` to `found` that is found, to within 1 %, in at most 16 halvings for ratios up to a billion.
fn smallest(mut missed: f64, mut found: f64, chance: impl Fn(f64) -> f64) -> Option<f64> {
    if chance(found) < POWER {
        return None;
    }
    while found / missed > 1.01 {
        let middle = (found * missed).sqrt();
        match chance(middle) < POWER {
            true => missed = middle,
            false => found = middle,
        }
    }
    Some(found)
}

fn lasting(trials: f64, a_second: f64) -> Option<Duration> {
    let seconds = trials / a_second;
    (seconds < FOR_EVER_S).then(|| Duration::from_secs_f64(seconds))
}

/// Trials of which each is a hit or not, and how many hits are too many.
#[derive(Debug, Clone)]
struct Walk {
    /// The probability of a hit for a candidate that is just innocent.
    null: f64,
    log_needed: f64,
    /// How many of so many trials must be hits.
    boundary: Vec<usize>,
}

impl Walk {
    fn new(null: f64, needed: f64) -> Self {
        let log_needed = libm::log(needed);
        Self {
            null,
            log_needed,
            boundary: boundary(null, log_needed),
        }
    }

    /// That the boundary is crossed within so many trials, each a hit with the probability `hit`.
    fn chance(&self, hit: f64, trials: f64) -> f64 {
        let walked = self.chances(hit).take(trials as usize).last().unwrap_or(0.0);
        match trials <= STEPS as f64 {
            true => walked,
            // Where it looks at the end alone, what was crossed on the way stays crossed.
            false => walked.max(self.approximate_chance(hit, trials)),
        }
    }

    fn trials_to_find(&self, hit: f64) -> Option<f64> {
        let walked = self.chances(hit).position(|chance| chance >= POWER);
        walked
            .map(|steps| (steps + 1) as f64)
            .or_else(|| Some(self.approximate_trials(hit)?.max(STEPS as f64)))
    }

    /// The chance to have crossed the boundary after one trial, two, three …
    fn chances(&self, hit: f64) -> impl Iterator<Item = f64> + '_ {
        // Chances of having `lowest`, `lowest + 1`, … hits without having crossed.
        let (mut alive, mut lowest, mut crossed) = (vec![1.0_f64], 0, 0.0);
        self.boundary.iter().map(move |boundary| {
            let mut below = 0.0;
            for chance in &mut alive {
                let here = *chance;
                *chance = here * (1.0 - hit) + below * hit;
                below = here;
            }
            alive.push(below * hit);
            crossed += alive
                .drain(boundary.saturating_sub(lowest).min(alive.len())..)
                .sum::<f64>();
            let rare = alive.iter().take_while(|chance| **chance < NEGLIGIBLE).count();
            alive.drain(..rare);
            lowest += rare;
            crossed
        })
    }

    /// Mean and variance of the logarithm that one trial adds under each ratio, those that rise.
    fn drifts(&self, hit: f64) -> impl Iterator<Item = (f64, f64)> {
        let drifts = Mixture::steps(self.null).into_iter();
        let drifts = drifts.map(move |(with_hit, without)| {
            let mean = hit * with_hit + (1.0 - hit) * without;
            (mean, hit * (1.0 - hit) * (with_hit - without).powi(2))
        });
        drifts.filter(|(mean, _)| *mean > 0.0)
    }

    fn approximate_chance(&self, hit: f64, trials: f64) -> f64 {
        let needed = Mixture::needed_of_one(self.log_needed);
        let chances = self.drifts(hit).map(|(mean, variance)| {
            let above = trials * mean - needed;
            let spread = (trials * variance).sqrt();
            // Hits only: there is no spread, and the sum is what it is.
            let normal = if spread > 0.0 { above / spread } else { above * f64::MAX };
            0.5 * libm::erfc(-normal / std::f64::consts::SQRT_2)
        });
        chances.fold(0.0, f64::max)
    }

    fn approximate_trials(&self, hit: f64) -> Option<f64> {
        let needed = Mixture::needed_of_one(self.log_needed);
        // Solves trials mean - normal sqrt(trials variance) = needed.
        let enough = self.drifts(hit).map(|(mean, variance)| {
            let spread = POWER_NORMAL * variance.sqrt();
            let root = (spread + (spread * spread + 4.0 * mean * needed).sqrt()) / (2.0 * mean);
            root * root
        });
        enough.min_by(f64::total_cmp)
    }
}

fn null(traffic: &Traffic) -> f64 {
    let odds = (1.0 + traffic.tolerance) * traffic.share;
    odds / (odds + 1.0 - traffic.share)
}

fn boundary(null: f64, needed: f64) -> Vec<usize> {
    let mut hits = 0;
    let least = (1..=STEPS).map(|bad| {
        while hits <= bad && Mixture::log_without_beginnings(null, hits as u64, bad as u64) < needed {
            hits += 1;
        }
        hits
    });
    least.collect()
}

#[cfg(test)]
#[path = "power_tests.rs"]
mod tests;
