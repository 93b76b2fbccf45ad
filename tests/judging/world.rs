//! Synthetic traffic of two versions in virtual time.

use super::dice::Dice;
use rollgate::analysis::{Arm, Histogram, Observed, bucket_of};

/// A thing that changes with time, given in seconds.
pub type Course = fn(f64) -> f64;

/// What happens in a run. Times count from the start of the rollout.
#[derive(Clone, Copy)]
pub struct World {
    pub seconds: f64,
    /// Requests a second, both versions together.
    pub rate: f64,
    /// The candidate's share, 0.0 to 1.0.
    pub share: Course,
    /// The part of stable's requests that fail.
    pub errors: Course,
    /// How many times as often the candidate's do.
    pub errors_times: Course,
    /// What stable's latencies are multiplied by.
    pub latency: Course,
    /// What the candidate's are multiplied by, beside that.
    pub latency_times: f64,
    /// Whether latencies are drawn at all: most of the cost of a run.
    pub with_latency: bool,
}

pub const ONE: Course = |_| 1.0;

/// Half an hour at a share of 10 %, failing at 0.5 %, two identical versions.
pub const IDENTICAL: World = World {
    seconds: 1_800.0,
    rate: 50.0,
    share: |_| 0.1,
    errors: |_| 0.005,
    errors_times: ONE,
    latency: ONE,
    latency_times: 1.0,
    with_latency: false,
};

/// A ramp in four steps while failures and latencies of both versions rise and fall: Simpson's trap.
pub const RAMP_WITH_DRIFT: World = World {
    share: |at| [0.01, 0.05, 0.25, 0.5][((at / 450.0) as usize).min(3)],
    errors: |at| 0.002 + 0.018 * libm::pow(at / 1_800.0, 2.0),
    latency: |at| 1.0 + at / 1_800.0 + 0.3 * libm::sin(at / 100.0),
    with_latency: true,
    ..IDENTICAL
};

/// Latencies: log-normal with a median of 100 ms and a p99 of 320 ms, as atoms, the longest first.
pub struct Latencies {
    /// Microseconds, and the chance given that no longer one was drawn.
    atoms: Vec<(f64, f64)>,
}

impl Latencies {
    pub fn new() -> Self {
        // Survival from 1 in 20,000 to 1 in 2, each 1.25 times the last; the rest is the median.
        let mut atoms = Vec::new();
        let (mut above, mut next) = (0.0, 0.000_05);
        while next < 0.6 {
            let middle: f64 = (above + next) / 2.0;
            atoms.push((
                100_000.0 * libm::exp(0.5 * normal_quantile(1.0 - middle)),
                (next - above) / (1.0 - above),
            ));
            above = next;
            next *= 1.25;
        }
        atoms.push((70_000.0, 1.0));
        Self { atoms }
    }

    fn draw(&self, dice: &mut Dice, count: u64, times: f64, into: &mut Histogram) {
        let mut left = count;
        for (us, chance) in &self.atoms {
            if left == 0 {
                return;
            }
            let drawn = dice.binomial(left, *chance);
            if drawn > 0 {
                into.add(bucket_of((us * times) as u64), drawn);
            }
            left -= drawn;
        }
    }
}

/// By bisection of the distribution function: exact enough, and short.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        match 0.5 * libm::erfc(-middle / std::f64::consts::SQRT_2) < p {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

/// What both versions did in one tick.
pub struct Seen {
    pub candidate: Observed,
    pub stable: Observed,
    pub share: f64,
}

impl World {
    /// The tick of `length` seconds that begins at `at`. Users are split by chance, as by their keys.
    pub fn tick(&self, dice: &mut Dice, latencies: &Latencies, at: f64, length: f64) -> Seen {
        let share = (self.share)(at);
        let requests = dice.poisson(self.rate * length);
        let candidate = dice.binomial(requests, share);
        let errors = (self.errors)(at);
        let mut observed = |count: u64, errors: f64, times: f64| {
            let bad = dice.binomial(count, errors.min(1.0));
            let mut durations = Histogram::default();
            if self.with_latency {
                latencies.draw(dice, count, times, &mut durations);
            }
            Observed {
                requests: Arm {
                    begun: count,
                    ended: count,
                    bad,
                },
                durations,
                values: Vec::new(),
            }
        };
        let latency = (self.latency)(at);
        Seen {
            candidate: observed(
                candidate,
                errors * (self.errors_times)(at),
                latency * self.latency_times,
            ),
            stable: observed(requests - candidate, errors, latency),
            share,
        }
    }
}
