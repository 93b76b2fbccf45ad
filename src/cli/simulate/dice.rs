//! Seeded draws, the same on every machine: [`Dice`], and latencies drawn with them: [`Atoms`].

use crate::analysis::{Histogram, Latencies, bucket_of};
use crate::rollout::simulate::Draws;

/// Draws from a seed.
#[derive(Debug, Clone)]
pub struct Dice(fastrand::Rng);

impl Dice {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Above 0, below 1.
    pub fn unit(&mut self) -> f64 {
        self.0.f64().max(f64::MIN_POSITIVE)
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * libm::log(self.unit())).sqrt() * libm::cos(std::f64::consts::TAU * self.unit())
    }

    /// Successes in `n` trials: by inversion where few are expected, else the normal approximation.
    pub fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        if p <= 0.0 || n == 0 {
            return 0;
        }
        let mean = n as f64 * p;
        if mean > 40.0 {
            let drawn = mean + self.normal() * (mean * (1.0 - p)).sqrt();
            return (drawn.round().max(0.0) as u64).min(n);
        }
        let odds = p / (1.0 - p);
        let mut chance = libm::exp(n as f64 * libm::log1p(-p));
        let mut left = self.unit();
        for successes in 0..n {
            if left < chance {
                return successes;
            }
            left -= chance;
            chance *= (n - successes) as f64 / (successes + 1) as f64 * odds;
        }
        n
    }

    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 40.0 {
            return (mean + self.normal() * mean.sqrt()).round().max(0.0) as u64;
        }
        let mut chance = libm::exp(-mean);
        let mut left = self.unit();
        let mut count = 0;
        while left >= chance && count < 1_000 {
            left -= chance;
            count += 1;
            chance *= mean / count as f64;
        }
        count
    }
}

impl Draws for Dice {
    fn count(&mut self, _of: usize, mean: f64) -> u64 {
        self.poisson(mean.max(0.0))
    }

    fn failures(&mut self, _of: usize, all: u64, chance: f64) -> u64 {
        self.binomial(all, chance)
    }
}

/// Latencies as a few dozen atoms, so that thousands are drawn at once: the tail finely, the faster half as one.
#[derive(Debug, Clone)]
pub struct Atoms {
    /// Microseconds, the longest first, and the chance given that no longer one was drawn.
    atoms: Vec<(f64, f64)>,
}

impl Atoms {
    #[must_use]
    pub fn new(latencies: &Latencies) -> Self {
        // Survival from 1 in 20,000 to 1 in 2, each 1.25 times the last; the rest is the median.
        let mut atoms = Vec::new();
        let (mut above, mut next) = (0.0, 0.000_05);
        while next < 0.6 {
            let middle: f64 = (above + next) / 2.0;
            atoms.push((latencies.quantile_us(1.0 - middle), (next - above) / (1.0 - above)));
            above = next;
            next *= 1.25;
        }
        atoms.push((latencies.quantile_us(0.5) * 0.7, 1.0));
        Self { atoms }
    }

    /// Draws `count`, each multiplied by `times`.
    pub fn draw(&self, dice: &mut Dice, count: u64, times: f64, into: &mut Histogram) {
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
