//! The martingale that every judgement on counts stands on.
//!
//! Trials come in batches. Of the `trials` of a batch, `hits` speak against the candidate; if it is innocent, a trial is
//! a hit with a probability of at most `null`, whatever came before. For a ratio `r > 1` the batch multiplies
//!
//! ```text
//! f(r) = r^hits / D^trials        D = 1 + null (r - 1)
//! ```
//!
//! which is the likelihood ratio of "the odds of a hit are `r` times what they should be" to "as they should be", and
//! whose mean is at most 1 for an innocent candidate. It falls as `null` rises: erring upwards there is safe.
//!
//! Nobody knows the ratio, nor when a fault begins. So this is a mixture over both. Over eight ratios, equally; and over
//! the batch in which the fault begins: one half of the stake is on "from the first on", the rest is laid out bit by bit
//! as time goes by. With `S(r)` the sum over the beginnings `j` of `w(j) f(r) of batch j … f(r) of this batch`:
//!
//! ```text
//! S(r) <- (S(r) + w) f(r)         E = mean of S(r) over r + what is not laid out yet
//! ```
//!
//! `w` is decided before the batch and the stakes sum to 1, so `E` begins at 1, is never negative, and its mean never
//! rises for an innocent candidate: a non-negative supermartingale. By Ville's inequality it ever reaches `1 / a` with a
//! probability of at most `a`, however often one looks.
//!
//! Why beginnings: without them (the mixture of Lindon & Malek, 2011.03567) each batch in which the candidate is fine
//! divides every term, and a candidate that breaks after an hour must first make up for that hour: after 20,000 bad
//! requests shared fairly at 10 %, 277 failures in a row convict; here 10 do. On the first batches it costs next to
//! nothing. The sum over beginnings is that of Shiryaev and Roberts; weighted to sum to 1 it keeps the probability of a
//! false alarm for ever rather than the mean time to one (compare e-detectors, Shin, Ramdas & Rinaldo, 2203.03532).

use serde::{Deserialize, Serialize};

/// How many times the odds of a hit may be what they should be.
const RATIOS: [f64; 8] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0];
/// The part of the stake that is on a fault from the beginning.
const FIRST_STAKE: f64 = 0.5;

/// Nine numbers: what must be kept to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Mixture {
    /// Natural logarithms of `S(r)`.
    logs: [f64; RATIOS.len()],
    /// Hits that were to be expected until now of a candidate just innocent: the clock by which stakes are laid out.
    expected: f64,
}

impl Default for Mixture {
    fn default() -> Self {
        Self {
            logs: [libm::log(FIRST_STAKE); RATIOS.len()],
            expected: 0.0,
        }
    }
}

/// The part of the stake not laid out when so many hits were to be expected: falls slowly enough that a fault in the
/// second week still finds some.
fn unspent(expected: f64) -> f64 {
    (1.0 - FIRST_STAKE) / (1.0 + libm::log1p(expected))
}

/// `ln f(r)`.
fn log_factor(ratio: f64, null: f64, hits: u64, trials: u64) -> f64 {
    hits as f64 * libm::log(ratio) - trials as f64 * libm::log1p(null * (ratio - 1.0))
}

/// `ln(e^a + e^b)`.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        return high;
    }
    high + libm::log1p(libm::exp(low - high))
}

impl Mixture {
    /// Takes a batch. `null`, above 0 and up to 1, must not depend on which trials of it are hits. A batch without
    /// trials, or whose `null` is no such number, says nothing.
    pub(super) fn charge(&mut self, null: f64, hits: u64, trials: u64) {
        if !(null > 0.0 && null <= 1.0) || trials == 0 {
            return;
        }
        let before = unspent(self.expected);
        self.expected += null * trials as f64;
        let stake = libm::log(before - unspent(self.expected));
        for (log, ratio) in self.logs.iter_mut().zip(RATIOS) {
            *log += log_factor(ratio, null, hits, trials);
            // Laid out now, so for the batches to come.
            if stake.is_finite() {
                *log = log_add(*log, stake);
            }
        }
    }

    /// `ln E`, if a batch were added to those taken.
    pub(super) fn log_with(&self, null: f64, hits: u64, trials: u64) -> f64 {
        let informative = null > 0.0 && null <= 1.0;
        let (hits, trials) = if informative { (hits, trials) } else { (0, 0) };
        let count = libm::log(RATIOS.len() as f64);
        let terms = self.logs.iter().zip(RATIOS);
        let terms = terms.map(|(log, ratio)| log + log_factor(ratio, null, hits, trials) - count);
        terms.fold(libm::log(unspent(self.expected)), log_add)
    }

    /// By how much a hit and another trial change the logarithm of the term of each ratio.
    pub(super) fn steps(null: f64) -> [(f64, f64); RATIOS.len()] {
        RATIOS.map(|ratio| (log_factor(ratio, null, 1, 1), log_factor(ratio, null, 0, 1)))
    }

    /// `ln E` of a mixture whose whole stake is on the first beginning: a function of the sums of hits and trials alone.
    /// To find a fault that is there from the start takes about as long with it as with the later beginnings, which make
    /// up for their part of the stake.
    pub(super) fn log_without_beginnings(null: f64, hits: u64, trials: u64) -> f64 {
        let logs = RATIOS.map(|ratio| log_factor(ratio, null, hits, trials));
        logs.into_iter().fold(f64::NEG_INFINITY, log_add) - libm::log(RATIOS.len() as f64)
    }

    /// What the logarithm of one term must reach, without help of the others, for that to reach `needed`.
    pub(super) fn needed_of_one(needed: f64) -> f64 {
        needed + libm::log(RATIOS.len() as f64)
    }
}

#[cfg(test)]
#[path = "mixture_tests.rs"]
mod tests;
