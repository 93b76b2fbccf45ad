//! Synthetic traffic of two versions in virtual time.

use rollgate::analysis::{Arm, Histogram, Latencies, Observed};
use rollgate::cli::simulate::dice::{Atoms, Dice};

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

/// Latencies: log-normal with a median of 100 ms and a p99 of 320 ms.
pub fn atoms() -> Atoms {
    Atoms::new(&Latencies::of_spread(100_000.0, 0.5))
}

/// What both versions did in one tick.
pub struct Seen {
    pub candidate: Observed,
    pub stable: Observed,
    pub share: f64,
}

impl World {
    /// The tick of `length` seconds that begins at `at`. Users are split by chance, as by their keys.
    pub fn tick(&self, dice: &mut Dice, latencies: &Atoms, at: f64, length: f64) -> Seen {
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
                mismatched: 0,
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
