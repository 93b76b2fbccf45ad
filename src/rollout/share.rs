//! A candidate's share of the traffic, and the weights that give it: [`Share`], [`at_share`], [`share_of`].

use serde::{Deserialize, Serialize};
use std::fmt;

/// A part of the traffic in thousandths of a percent: 0 to 100,000. One thousandth is one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Share(u32);

impl Share {
    pub const ZERO: Self = Self(0);
    pub const WHOLE: Self = Self(100_000);

    /// What is above the whole is the whole.
    pub const fn from_thousandths(thousandths_percent: u32) -> Self {
        if thousandths_percent > Self::WHOLE.0 {
            Self::WHOLE
        } else {
            Self(thousandths_percent)
        }
    }

    /// 0 to 100,000.
    pub const fn thousandths_percent(self) -> u32 {
        self.0
    }

    /// 0.0 to 1.0.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE.0)
    }
}

/// A number above the whole, from a store that something else wrote, is the whole.
impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self::from_thousandths)
    }
}

/// `10 %`, `0.1 %`, `33.333 %`
impl fmt::Display for Share {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, thousandths) = (self.0 / 1_000, self.0 % 1_000);
        if thousandths == 0 {
            return write!(out, "{whole} %");
        }
        let decimals = format!("{thousandths:03}");
        write!(out, "{whole}.{} %", decimals.trim_end_matches('0'))
    }
}

/// The largest weight, as in the file.
const MAX_WEIGHT: u64 = 1_000_000;
/// One thousandth of a percent is this much of [`MAX_WEIGHT`].
const PER_THOUSANDTH: u64 = MAX_WEIGHT / Share::WHOLE.0 as u64;

/// The weights that give the candidate `share`, in the order of `before`: the weights from before the rollout, of which
/// the candidate's own is not looked at. `stable` and `candidate` are positions in it; a candidate outside gets nothing.
///
/// - The share is exact.
/// - The other versions keep their ratios to each other, so that raising the share only moves users into the candidate
///   (see `routing::Split`). They are exact as long as integers up to 1,000,000 can say it, else each is off by
///   at most a millionth of all traffic.
/// - No weight is above 1,000,000. What stable had is never rounded to 0; where no other version has any weight, stable
///   gets all that the candidate does not.
/// - At 0 % the others have exactly the weights of `before`. At 100 % they have 0.
pub fn at_share(before: &[u32], stable: usize, candidate: usize, share: Share) -> Box<[u32]> {
    let mut others: Vec<u64> = before.iter().map(|&weight| u64::from(weight).min(MAX_WEIGHT)).collect();
    let share = if candidate < others.len() { share } else { Share::ZERO };
    set(&mut others, candidate, 0);
    if share == Share::WHOLE {
        let mut weights = vec![0; others.len()];
        set(&mut weights, candidate, 100);
        return narrowed(weights);
    }
    if others.iter().all(|&weight| weight == 0) {
        set(&mut others, stable, 100);
    }
    if share == Share::ZERO {
        return narrowed(others);
    }
    narrowed(exact(&others, candidate, share).unwrap_or_else(|| apportioned(&others, stable, candidate, share)))
}

fn set(weights: &mut [u64], index: usize, weight: u64) {
    if let Some(slot) = weights.get_mut(index) {
        *slot = weight;
    }
}

fn narrowed(weights: Vec<u64>) -> Box<[u32]> {
    let narrow = |weight: u64| u32::try_from(weight).unwrap_or(u32::MAX);
    weights.into_iter().map(narrow).collect()
}

/// The smallest weights that say it exactly, made to add up to 100 where they can; `None`: a weight would be too large.
fn exact(others: &[u64], candidate: usize, share: Share) -> Option<Vec<u64>> {
    let (part, rest) = (u64::from(share.0), u64::from(Share::WHOLE.0 - share.0));
    let sum: u64 = others.iter().sum();
    // At most 64 weights of a million each: far below the bound of u64.
    let all = sum.checked_mul(part)?;
    let shrink = gcd(all, rest);
    let mut weights: Vec<u64> = others.iter().map(|&weight| weight * (rest / shrink)).collect();
    set(&mut weights, candidate, all / shrink);
    let common = weights.iter().fold(0, |common, &weight| gcd(common, weight)).max(1);
    let total = weights.iter().sum::<u64>() / common;
    let stretch = if total > 0 && 100 % total == 0 { 100 / total } else { 1 };
    weights
        .iter_mut()
        .for_each(|weight| *weight = *weight / common * stretch);
    weights.iter().all(|&weight| weight <= MAX_WEIGHT).then_some(weights)
}

/// Weights that add up to a million: the candidate's exactly, the rest dealt out by the largest remainder.
fn apportioned(others: &[u64], stable: usize, candidate: usize, share: Share) -> Vec<u64> {
    let rest = u64::from(Share::WHOLE.0 - share.0) * PER_THOUSANDTH;
    let sum = others.iter().sum::<u64>().max(1);
    let mut weights: Vec<u64> = others.iter().map(|&weight| weight * rest / sum).collect();
    let mut by_remainder: Vec<usize> = (0..others.len()).collect();
    by_remainder.sort_by_key(|&index| {
        let remainder = others.get(index).map_or(0, |&weight| weight * rest % sum);
        // Stable first among equals.
        std::cmp::Reverse((remainder, index == stable))
    });
    let missing = rest.saturating_sub(weights.iter().sum());
    for index in by_remainder
        .into_iter()
        .take(usize::try_from(missing).unwrap_or(usize::MAX))
    {
        if let Some(weight) = weights.get_mut(index) {
            *weight += 1;
        }
    }
    if others.get(stable).is_some_and(|&weight| weight > 0) && weights.get(stable) == Some(&0) {
        let largest = (0..weights.len()).max_by_key(|&index| weights.get(index).copied());
        let taken = largest.and_then(|index| weights.get_mut(index));
        if let Some(taken) = taken {
            *taken -= 1;
            set(&mut weights, stable, 1);
        }
    }
    set(&mut weights, candidate, u64::from(share.0) * PER_THOUSANDTH);
    weights
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The share that `weights` give the version at `candidate`, to the nearest thousandth of a percent; only none at all is 0
/// %, and only all is 100 %.
pub fn share_of(weights: &[u32], candidate: usize) -> Share {
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let own = weights.get(candidate).map_or(0, |&weight| u64::from(weight));
    if own == 0 {
        return Share::ZERO;
    }
    if own == total {
        return Share::WHOLE;
    }
    let nearest = (own * 2 * u64::from(Share::WHOLE.0) + total) / (2 * total);
    Share(u32::try_from(nearest).unwrap_or(0).clamp(1, Share::WHOLE.0 - 1))
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
