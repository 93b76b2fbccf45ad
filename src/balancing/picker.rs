//! One pick: total, without allocation, and never an endpoint that is not allowed.

use std::net::{IpAddr, SocketAddr};

/// How a pool chooses; the meaning of `balance` in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The less busy of two drawn by weight (Mitzenmacher, "The power of two choices", 2001).
    PowerOfTwo,
    /// The least busy of all; ties are drawn by weight.
    LeastRequests,
    /// Smooth weighted round robin, nginx's sequence: never in bursts.
    RoundRobin,
    /// Weighted rendezvous (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005): the same key, the same
    /// endpoint; when one leaves only its keys move. Without a key: as [`Method::PowerOfTwo`].
    Hash,
}

/// What is fixed about an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// 1 to 1,000,000; 0 counts as 1.
    pub weight: u32,
    /// [`address_hash`] of its address.
    pub hash: u64,
}

/// What moves about the endpoints, asked for by position.
pub trait Candidates {
    /// Whether this one may be picked now.
    fn allowed(&self, index: usize) -> bool;
    /// Requests it carries now.
    fn in_flight(&self, index: usize) -> u32;
}

/// Longest precomputed round; larger weights are rounded to it, so that shares are right to 1 in 4096.
const LONGEST_ROUND: usize = 4096;
/// Steps (length of the round times endpoints) spent on computing a round, so that a reload stays quick.
const ROUND_WORK: usize = 4 << 20;
/// Turns one pick may consume while it skips what is not allowed; then it looks on without consuming.
const TURNS_MOST: usize = 32;
/// Draws that may fall on what is not allowed before all endpoints are looked at.
const DRAWS_MOST: usize = 4;

/// A pool's choice, prepared once.
#[derive(Debug)]
pub struct Picker {
    method: Method,
    entries: Box<[Entry]>,
    /// Running sums of the weights.
    sums: Box<[u64]>,
    /// All weights are the same.
    even: bool,
    /// Positions in the order of one round; empty unless the method is round robin.
    round: Box<[u32]>,
}

impl Picker {
    pub fn new(method: Method, entries: impl Into<Box<[Entry]>>) -> Self {
        let mut entries: Box<[Entry]> = entries.into();
        for entry in &mut entries {
            entry.weight = entry.weight.max(1);
        }
        let weights: Vec<u32> = entries.iter().map(|entry| entry.weight).collect();
        let sums = weights
            .iter()
            .scan(0_u64, |sum, &weight| {
                *sum += u64::from(weight);
                Some(*sum)
            })
            .collect();
        let round = match method {
            Method::RoundRobin => round(&weights),
            Method::PowerOfTwo | Method::LeastRequests | Method::Hash => Box::default(),
        };
        Self {
            method,
            entries,
            sums,
            even: all_equal(&weights),
            round,
        }
    }

    /// The position of the chosen endpoint; `None`: none is allowed.
    ///
    /// `draw`: random bits. `key`: the user's hash. `turn`: the next number of the pool's sequence, called only for
    /// round robin and at most 32 times.
    pub fn pick(
        &self,
        candidates: &impl Candidates,
        draw: u64,
        key: Option<u32>,
        turn: impl FnMut() -> u64,
    ) -> Option<usize> {
        match self.entries.len() {
            0 => return None,
            1 => return candidates.allowed(0).then_some(0),
            _ => {}
        }
        match (self.method, key) {
            (Method::Hash, Some(key)) => self.rendezvous(candidates, key),
            (Method::PowerOfTwo | Method::Hash, _) => self.power_of_two(candidates, Draws(draw)),
            (Method::LeastRequests, _) => self.least_requests(candidates, Draws(draw)),
            (Method::RoundRobin, _) => self.round_robin(candidates, turn),
        }
    }

    fn power_of_two(&self, candidates: &impl Candidates, mut draws: Draws) -> Option<usize> {
        let first = self.draw(candidates, &mut draws, None)?;
        let Some(second) = self.draw(candidates, &mut draws, Some(first)) else {
            return Some(first);
        };
        // A tie goes to the first: so an idle pool is used by weight.
        if self.busier(candidates, first, second) {
            Some(second)
        } else {
            Some(first)
        }
    }

    /// One allowed position other than `except`, by weight.
    fn draw(&self, candidates: &impl Candidates, draws: &mut Draws, except: Option<usize>) -> Option<usize> {
        for _ in 0..DRAWS_MOST {
            let index = self.by_weight(draws.next());
            if Some(index) != except && candidates.allowed(index) {
                return Some(index);
            }
        }
        // Mostly forbidden: draw among the rest exactly. The chance of each is the same as by drawing on and on.
        let eligible = |index: usize| Some(index) != except && candidates.allowed(index);
        let total: u64 = self
            .weights()
            .filter(|&(index, _)| eligible(index))
            .map(|(_, w)| w)
            .sum();
        let target = scale(draws.next(), total);
        let mut sum = 0;
        let mut last = None;
        for (index, weight) in self.weights().filter(|&(index, _)| eligible(index)) {
            sum += weight;
            last = Some(index);
            if target < sum {
                break;
            }
        }
        last
    }

    fn by_weight(&self, bits: u64) -> usize {
        if self.even {
            return scale(bits, self.entries.len() as u64) as usize;
        }
        let target = scale(bits, self.sums.last().copied().unwrap_or(0));
        self.sums.partition_point(|&sum| sum <= target)
    }

    fn least_requests(&self, candidates: &impl Candidates, mut draws: Draws) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        let mut tied = 0_u64;
        for (index, weight) in self.weights() {
            if !candidates.allowed(index) {
                continue;
            }
            let load = u64::from(candidates.in_flight(index));
            let order = best.map_or(std::cmp::Ordering::Less, |(_, best_load, best_weight)| {
                (load * best_weight).cmp(&(best_load * weight))
            });
            match order {
                std::cmp::Ordering::Less => {
                    best = Some((index, load, weight));
                    tied = weight;
                }
                std::cmp::Ordering::Equal => {
                    tied += weight;
                    if scale(draws.next(), tied) < weight {
                        best = Some((index, load, weight));
                    }
                }
                std::cmp::Ordering::Greater => {}
            }
        }
        best.map(|(index, ..)| index)
    }

    fn round_robin(&self, candidates: &impl Candidates, mut turn: impl FnMut() -> u64) -> Option<usize> {
        let length = self.round.len() as u64;
        if length == 0 {
            return None;
        }
        let mut place = 0;
        // A forbidden endpoint's turn is used up, so that the others keep their proportions; were the next one taken in
        // its place, that one would get both shares.
        for _ in 0..TURNS_MOST {
            place = (turn() % length) as usize;
            let index = self.round.get(place).map(|&index| index as usize)?;
            if candidates.allowed(index) {
                return Some(index);
            }
        }
        let after = self.round.iter().cycle().skip(place).take(self.round.len());
        after
            .map(|&index| index as usize)
            .find(|&index| candidates.allowed(index))
    }

    fn rendezvous(&self, candidates: &impl Candidates, key: u32) -> Option<usize> {
        let seed = mix(u64::from(key));
        let mut best: Option<(f64, u64, usize)> = None;
        for (index, entry) in self.entries.iter().enumerate() {
            if !candidates.allowed(index) {
                continue;
            }
            let place = mix(entry.hash ^ seed);
            // With even weights the score would rise with `place` alone, so the logarithm is saved; both ways choose
            // the same, so that a weight that changes moves no more keys than it must.
            let score = if self.even { 0.0 } else { score(place, entry.weight) };
            if best.is_none_or(|(best_score, best_place, _)| (score, place) > (best_score, best_place)) {
                best = Some((score, place, index));
            }
        }
        best.map(|(_, _, index)| index)
    }

    /// Whether `a` carries more for its weight than `b`.
    fn busier(&self, candidates: &impl Candidates, a: usize, b: usize) -> bool {
        let weight = |index: usize| self.entries.get(index).map_or(1, |entry| u64::from(entry.weight));
        u64::from(candidates.in_flight(a)) * weight(b) > u64::from(candidates.in_flight(b)) * weight(a)
    }

    fn weights(&self) -> impl Iterator<Item = (usize, u64)> {
        self.entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (index, u64::from(entry.weight)))
    }
}

/// The position of an address among the keys of [`Method::Hash`]: the same in every process, so that several proxies
/// agree.
pub fn address_hash(address: SocketAddr) -> u64 {
    let bits = match address.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let high = mix((bits >> 64) as u64 ^ u64::from(address.port()));
    mix(high ^ bits as u64)
}

/// One round of smooth weighted round robin: at each step every endpoint gains its weight, the largest is taken and
/// pays the sum. Over a round each is taken exactly in proportion to its weight.
fn round(weights: &[u32]) -> Box<[u32]> {
    let longest = LONGEST_ROUND.min(ROUND_WORK / weights.len().max(1)).max(weights.len());
    let weights = shortened(weights, longest as u64);
    if all_equal(&weights) {
        return (0..weights.len() as u32).collect();
    }
    let total: i64 = weights.iter().map(|&weight| i64::from(weight)).sum();
    let mut gained = vec![0_i64; weights.len()];
    (0..total)
        .map(|_| {
            let mut best = 0_u32;
            let mut most = i64::MIN;
            for (index, (gain, &weight)) in (0_u32..).zip(gained.iter_mut().zip(&weights)) {
                *gain += i64::from(weight);
                if *gain > most {
                    most = *gain;
                    best = index;
                }
            }
            if let Some(gain) = gained.get_mut(best as usize) {
                *gain -= total;
            }
            best
        })
        .collect()
}

/// The same proportions with a sum of about `longest` at most: by the greatest common divisor, then by rounding (no
/// weight below 1).
fn shortened(weights: &[u32], longest: u64) -> Vec<u32> {
    let reduce = |weights: Vec<u32>| -> Vec<u32> {
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        weights.into_iter().map(|weight| weight / divisor).collect()
    };
    let weights = reduce(weights.to_vec());
    let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    if sum <= longest {
        return weights;
    }
    let rounded = |weight: u32| ((u64::from(weight) * longest + sum / 2) / sum).max(1) as u32;
    reduce(weights.into_iter().map(rounded).collect())
}

fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn all_equal(weights: &[u32]) -> bool {
    weights.windows(2).all(|pair| pair.first() == pair.last())
}

/// A weighted rendezvous score: `-weight / ln(u)` with u in (0, 1) made of `place`.
fn score(place: u64, weight: u32) -> f64 {
    let unit = ((place >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(weight) / -libm::log(unit)
}

/// `bits` as a position in `0..range`; 0 for an empty range.
fn scale(bits: u64, range: u64) -> u64 {
    ((u128::from(bits) * u128::from(range)) >> 64) as u64
}

/// The finisher of splitmix64 (Steele, Lea and Flood 2014), a bijection.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// More draws out of one.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        let bits = mix(self.0);
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        bits
    }
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
