//! Seeded draws: the same on every machine.

/// Draws from a seed.
pub struct Dice(fastrand::Rng);

impl Dice {
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
