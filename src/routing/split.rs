//! Weights -> version: monotone for users, low-discrepancy without a key.
//!
//! # By user, `rollgate-1`
//!
//! With two versions the canary takes exactly the buckets `b < share * 1000` (share in percent), in integers:
//! `b * total < weight * 100000`. Stable takes the rest.
//!
//! With more, each version `v` has a clock `E(v)` that depends on the user alone, exponentially distributed with mean
//! one, and the version with the least `E(v) / weight(v)` wins (weighted rendezvous; a race of exponential clocks).
//! The clocks come from 64 bits of `salt ":" key` (Murmur3 with seeds 1 and 2), mixed with 64 bits of the version's name:
//! not with its position, so that only which canary is the first of the file matters, not the order of the others.
//!
//! - Shares: the least of independent `E(v) / w(v)` is that of `v` with probability `w(v) / sum of w`.
//! - Monotone: when one weight rises, only that quotient changes, and it falls; so the winner stays or becomes the
//!   version whose weight rose. Read backwards: when one falls, users only leave it. As nobody else moves, the moved
//!   population is the change of the share: the least possible.
//! - Two versions: for two such clocks `u = E1 / (E1 + E2)` is uniform on (0, 1) and independent of `G = E1 + E2`,
//!   which has the Gamma(2) distribution, as has `-ln u2 - ln u3`. So take `u = b / 100000` from the bucket, `G` from
//!   further hashes, `E = u G` for the FIRST canary of the file and `E = (1 - u) G` for stable. Then the canary beats
//!   stable if `u / w(canary) < (1 - u) / w(stable)`, that is `b * total < weight * 100000`: the rule for two versions.
//!   Hence a third version of weight 0 changes nobody, and raising it from 0 only moves users into it.
//! - Exact in floating point: between those two the integers decide; each quotient is one rounded division of exact
//!   integers, times `G`, both monotone, so the winner of the pair never has the larger clock of the two; a tie with a
//!   third version goes to the pair. No step of the proof needs more than that. `libm::log` gives the same on every
//!   platform.
//!
//! What no function of (user, weights) can give for three versions or more is the same for a *transfer* between two of
//! them with the third unchanged: each version's users would have to depend on its own share alone, and three such sets
//! cannot partition the users for all weights. So raise or lower one weight and leave the others as they are.
//!
//! # By user, other hashes
//!
//! `unleash-1` and `flagd-2` choose as those SDKs do. With two versions they are monotone as well (`flagd-2`: users
//! move between neighbours only); with more, only `rollgate-1` promises it.
//!
//! # Without a key
//!
//! The n-th request of a service stands at `n * 2^64 / golden ratio` modulo 2^64 (a Weyl sequence, of which the golden
//! ratio's has the least discrepancy), and the versions own the ranges of that circle in file order, from 0, each as wide
//! as its share.

use super::bucket::{self, BUCKETS, HashName, Murmur3};
use super::{Role, Service};

/// The weights over a service's versions, in file order. Their sum is above zero (held when it is built).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    weights: Box<[u32]>,
    total: u64,
}

/// What [`Split::by_user`] drew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Position in the weights.
    pub index: usize,
    /// The user's bucket, 0..100000.
    pub bucket: u32,
}

/// 2^64 divided by the golden ratio, made odd.
const GOLDEN_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The streams of `u2` and `u3`; the other clocks' are the hashes of the versions' names.
const GAMMA_STREAMS: (u64, u64) = (1, 2);

impl Split {
    /// `None` when all weights are zero (or there are none).
    pub fn new(weights: impl Into<Box<[u32]>>) -> Option<Self> {
        let weights = weights.into();
        let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
        (total > 0).then_some(Self { weights, total })
    }

    pub fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// The share of the version at `index`, 0.0 to 100.0; 0 for an unknown one.
    pub fn share_percent(&self, index: usize) -> f64 {
        self.weights
            .get(index)
            .map_or(0.0, |&w| f64::from(w) * 100.0 / self.total as f64)
    }

    /// The weight of the version at `index`; 0 for an unknown one.
    pub fn weight(&self, index: usize) -> u32 {
        self.weights.get(index).copied().unwrap_or(0)
    }

    /// The version of the `turn`-th request without a key: a position in the weights, never one of weight 0.
    ///
    /// Over any 10,000 turns in a row a version's count is within 3 of its share at 5 %, and never in bursts.
    pub fn by_turn(&self, turn: u64) -> usize {
        let position = turn.wrapping_mul(GOLDEN_STEP);
        // Below `total`, as position / 2^64 is below one.
        let point = ((u128::from(position) * u128::from(self.total)) >> 64) as u64;
        self.at_point(point)
    }

    /// The version of the user `key`: a position in the weights, never one of weight 0.
    ///
    /// `service` says which versions are the pair of the bucket rule (stable, first canary) and names the others.
    pub fn by_user(&self, hash: HashName, salt: &str, key: &[u8], service: &Service) -> Drawn {
        let (stable, canary) = pair(service);
        let bucket = hash.bucket(salt, key);
        let (of_stable, of_canary) = (self.weight(stable), canary.map_or(0, |index| self.weight(index)));
        let of_pair = u64::from(of_stable) + u64::from(of_canary);
        let canary = canary.unwrap_or(stable);
        let either = |in_canary: bool| if in_canary { canary } else { stable };
        let index = match hash {
            HashName::Flagd2 => self.at_hash(bucket::flagd_hash(salt, key)),
            HashName::Rollgate1 if of_pair == self.total => either(first_canary_wins(bucket, of_canary, of_stable)),
            HashName::Unleash1 if of_pair == self.total => {
                let percentile = u128::from(bucket::unleash_percentile(salt, key));
                either(of_canary > 0 && percentile * u128::from(of_pair) <= u128::from(of_canary) * 100)
            }
            HashName::Unleash1 => {
                let position = bucket::unleash_variant(salt, key, self.total);
                return Drawn {
                    index: self.at_point(position - 1),
                    bucket: ((u128::from(position - 1) * u128::from(BUCKETS)) / u128::from(self.total)) as u32,
                };
            }
            HashName::Rollgate1 => {
                let in_canary = first_canary_wins(bucket, of_canary, of_stable);
                let (weight, part) = if in_canary {
                    (of_canary, bucket)
                } else {
                    (of_stable, BUCKETS - bucket)
                };
                self.race(
                    salt,
                    key,
                    service,
                    (stable, canary),
                    Runner {
                        index: either(in_canary),
                        weight,
                        part,
                    },
                )
            }
        };
        Drawn { index, bucket }
    }

    /// The race of more than two versions; `first` is the winner of the pair.
    fn race(&self, salt: &str, key: &[u8], service: &Service, pair: (usize, usize), first: Runner) -> usize {
        let user = wide(|seed| Murmur3::of_pair(seed, salt, key));
        let mut winner = first.index;
        let mut least = if first.weight == 0 {
            f64::INFINITY
        } else {
            let gamma = -libm::log(unit(user, GAMMA_STREAMS.0) * unit(user, GAMMA_STREAMS.1));
            gamma * (f64::from(first.part) / (f64::from(BUCKETS) * f64::from(first.weight)))
        };
        for (index, &weight) in self.weights.iter().enumerate() {
            if weight == 0 || index == pair.0 || index == pair.1 {
                continue;
            }
            let name = service.versions.get(index).map_or("", |version| &version.name);
            let name = wide(|seed| Murmur3::new(seed).write(name.as_bytes()));
            let clock = -libm::log(unit(user, name)) / f64::from(weight);
            if clock < least {
                (winner, least) = (index, clock);
            }
        }
        winner
    }

    /// The version that owns `hash` (of 2^32 values), in file order from 0.
    fn at_hash(&self, hash: u32) -> usize {
        self.at_point(((u128::from(hash) * u128::from(self.total)) >> 32) as u64)
    }

    /// The version that owns `point` (0..total), in file order from 0.
    fn at_point(&self, point: u64) -> usize {
        let mut end = 0;
        for (index, &weight) in self.weights.iter().enumerate() {
            end += u64::from(weight);
            if point < end {
                return index;
            }
        }
        // Not reached: the sum of the weights is `total`, and `point` is below it.
        0
    }
}

/// A version in the race: its `part` of [`BUCKETS`] times the pair's common clock is its own clock.
struct Runner {
    index: usize,
    weight: u32,
    part: u32,
}

/// The versions between which the bucket alone decides: stable, and the first canary of the file.
fn pair(service: &Service) -> (usize, Option<usize>) {
    let stable = service.stable.0 as usize;
    let canary = service
        .versions
        .iter()
        .enumerate()
        .position(|(index, version)| version.role == Role::Canary && index != stable);
    (stable, canary)
}

/// `bucket < share * 1000`, in integers.
fn first_canary_wins(bucket: u32, of_canary: u32, of_stable: u32) -> bool {
    let total = u128::from(of_canary) + u128::from(of_stable);
    u128::from(bucket) * total < u128::from(of_canary) * u128::from(BUCKETS)
}

/// 64 bits from two Murmur3 hashes; the bucket's seed 0 is not among theirs.
fn wide(hash: impl Fn(u32) -> Murmur3) -> u64 {
    u64::from(hash(1).finish()) << 32 | u64::from(hash(2).finish())
}

/// A number above 0 and below 1, in steps of 2^-52: one for each user and stream.
fn unit(user: u64, stream: u64) -> f64 {
    let bits = mix(user ^ mix(stream)) >> 12;
    (bits as f64 + 0.5) / 4_503_599_627_370_496.0
}

/// The finaliser of MurmurHash3 x64 (`fmix64`): every bit of the argument reaches every bit of the result.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
