//! What a comparison can find before it begins: for `rollgate plan`.
//!
//! Of the bad requests of both versions each is the candidate's with a probability that follows from its share and from
//! how many times as often it fails. So the evidence is a function of two counts, bad requests and those among them that
//! are the candidate's, and the chance that it ever reaches what is needed is that of a random walk to cross a boundary:
//! computed exactly, step by step, up to [`STEPS`] bad requests, and by the normal approximation beyond. Left out are the
//! later beginnings of the [mixture](super::mixture), and that intervals cost a request or two where there are few.

use super::mixture::Mixture;
use std::time::Duration;

/// The chance of being found that counts as found.
pub const POWER: f64 = 0.8;
/// Its normal quantile.
const POWER_NORMAL: f64 = 0.841_621;
/// Bad requests that are walked through one by one.
const STEPS: usize = 10_000;
/// What is less likely than this is left out of the walk.
const NEGLIGIBLE: f64 = 1e-9;

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
    /// How many of so many bad requests must be the candidate's.
    boundary: Vec<usize>,
}

impl Power {
    /// Takes some milliseconds. `None`: one of the numbers is out of range, or there is nothing to compare (a share of
    /// 0 or 1, no traffic, nothing bad).
    #[must_use]
    pub fn new(traffic: Traffic) -> Option<Self> {
        let part = |value: f64| value > 0.0 && value < 1.0;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let sound = part(traffic.share) && part(traffic.bad) && positive(traffic.rate) && positive(traffic.needed);
        (sound && traffic.tolerance >= 0.0 && traffic.tolerance.is_finite()).then(|| Self {
            traffic,
            boundary: boundary(null(&traffic), libm::log(traffic.needed)),
        })
    }

    /// The chance, 0.0 to 1.0, that a candidate that is bad `times` as often as stable is found within `hold`.
    #[must_use]
    pub fn chance(&self, times: f64, hold: Duration) -> f64 {
        let bad = self.bad_a_second(times) * hold.as_secs_f64();
        match bad <= STEPS as f64 {
            true => self.walk(times).take(bad as usize).last().unwrap_or(0.0),
            false => self.approximate_chance(times, bad),
        }
    }

    /// How many times as often as stable a candidate must at least be bad to be found within `hold`. `None`: not even
    /// one that is always bad is.
    #[must_use]
    pub fn smallest_found(&self, hold: Duration) -> Option<f64> {
        let (mut missed, mut found) = (1.0, 1.0 / self.traffic.bad);
        if self.chance(found, hold) < POWER {
            return None;
        }
        // To within 1 %, in at most 16 halvings for ratios up to a billion.
        while found / missed > 1.01 {
            let middle = (found * missed).sqrt();
            match self.chance(middle, hold) < POWER {
                true => missed = middle,
                false => found = middle,
            }
        }
        Some(found)
    }

    /// How long it takes to find a candidate that is bad `times` as often as stable. `None`: for ever, or nearly (100
    /// years).
    #[must_use]
    pub fn hold_to_find(&self, times: f64) -> Option<Duration> {
        let seconds = self.bad_to_find(times)? / self.bad_a_second(times);
        (seconds < 3.2e9).then(|| Duration::from_secs_f64(seconds))
    }

    /// How many bad requests, of both versions together, it takes to find a candidate that is bad `times` as often as
    /// stable. `None`: no number is enough.
    #[must_use]
    pub fn bad_to_find(&self, times: f64) -> Option<f64> {
        let walked = self.walk(times).position(|chance| chance >= POWER);
        walked
            .map(|steps| (steps + 1) as f64)
            .or_else(|| self.approximate_bad(times))
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

    /// The chance to have crossed the boundary after one bad request, two, three …
    fn walk(&self, times: f64) -> impl Iterator<Item = f64> + '_ {
        let up = self.chance_of_candidate(times);
        // Chances of having `lowest`, `lowest + 1`, … bad requests of the candidate without having crossed.
        let (mut alive, mut lowest, mut crossed) = (vec![1.0_f64], 0, 0.0);
        self.boundary.iter().map(move |boundary| {
            let mut below = 0.0;
            for chance in &mut alive {
                let here = *chance;
                *chance = here * (1.0 - up) + below * up;
                below = here;
            }
            alive.push(below * up);
            crossed += alive
                .drain(boundary.saturating_sub(lowest).min(alive.len())..)
                .sum::<f64>();
            let rare = alive.iter().take_while(|chance| **chance < NEGLIGIBLE).count();
            alive.drain(..rare);
            lowest += rare;
            crossed
        })
    }

    /// Mean and variance of the logarithm that one bad request adds under each ratio, those that rise.
    fn drifts(&self, times: f64) -> impl Iterator<Item = (f64, f64)> {
        let (null, up) = (null(&self.traffic), self.chance_of_candidate(times));
        let drifts = Mixture::steps(null).into_iter();
        let drifts =
            drifts.map(move |(hit, miss)| (up * hit + (1.0 - up) * miss, up * (1.0 - up) * (hit - miss).powi(2)));
        drifts.filter(|(mean, _)| *mean > 0.0)
    }

    fn approximate_chance(&self, times: f64, bad: f64) -> f64 {
        let needed = Mixture::needed_of_one(libm::log(self.traffic.needed));
        let chances = self.drifts(times).map(|(mean, variance)| {
            let normal = (bad * mean - needed) / (bad * variance).sqrt();
            0.5 * libm::erfc(-normal / std::f64::consts::SQRT_2)
        });
        chances.fold(0.0, f64::max)
    }

    fn approximate_bad(&self, times: f64) -> Option<f64> {
        let needed = Mixture::needed_of_one(libm::log(self.traffic.needed));
        // Solves bad mean - normal sqrt(bad variance) = needed.
        let enough = self.drifts(times).map(|(mean, variance)| {
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
