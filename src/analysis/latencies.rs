//! A model of latencies for forecasts and simulations: [`Latencies`].

use std::f64::consts::SQRT_2;

/// How long the requests of a version take: log-normal, as most services are but for their longest tail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latencies {
    median_us: f64,
    /// Of the logarithm.
    spread: f64,
}

impl Latencies {
    /// Microseconds: `median_us` of half of the requests, `p99_us` of 99 %. `None`: not above 0, or the p99 not above the
    /// median.
    #[must_use]
    pub fn new(median_us: f64, p99_us: f64) -> Option<Self> {
        let sound = median_us > 0.0 && p99_us > median_us && p99_us.is_finite();
        sound.then(|| Self::of_spread(median_us, libm::log(p99_us / median_us) / normal_quantile(0.99)))
    }

    /// Microseconds, and the standard deviation of their natural logarithm: both above 0.
    #[must_use]
    pub fn of_spread(median_us: f64, spread: f64) -> Self {
        Self { median_us, spread }
    }

    /// What the part `p` of the requests does not exceed, in microseconds. `p` is 0.0 to 1.0; at the ends it is what one
    /// request in many billions has.
    #[must_use]
    pub fn quantile_us(&self, p: f64) -> f64 {
        self.median_us * libm::exp(self.spread * normal_quantile(p))
    }

    /// The part of the requests, 0.0 to 1.0, that takes longer than `us`.
    #[must_use]
    pub fn above(&self, us: f64) -> f64 {
        match us > 0.0 {
            true => 0.5 * libm::erfc(libm::log(us / self.median_us) / self.spread / SQRT_2),
            false => 1.0,
        }
    }
}

/// By bisection of the distribution function: exact enough, and short.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        match 0.5 * libm::erfc(-middle / SQRT_2) < p {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_tails_are_each_others_inverse() {
        let latencies = Latencies::new(100_000.0, 320_000.0).unwrap();
        assert!((latencies.quantile_us(0.99) - 320_000.0).abs() < 1.0);
        assert!((latencies.quantile_us(0.5) - 100_000.0).abs() < 1.0);
        for p in [0.001, 0.1, 0.5, 0.9, 0.999] {
            assert!(
                (latencies.above(latencies.quantile_us(p)) - (1.0 - p)).abs() < 1e-9,
                "{p}"
            );
        }
        assert!((latencies.above(0.0) - 1.0).abs() < 1e-12);
        assert!(latencies.quantile_us(0.0) > 0.0 && latencies.quantile_us(1.0).is_finite());
    }

    #[test]
    fn what_is_no_latency_is_none() {
        for (median, p99) in [
            (0.0, 1.0),
            (-1.0, 1.0),
            (2.0, 2.0),
            (2.0, 1.0),
            (1.0, f64::INFINITY),
            (f64::NAN, 1.0),
        ] {
            assert_eq!(Latencies::new(median, p99), None, "{median} {p99}");
        }
    }
}
