//! What a connection may cost before it is closed: spent by what only hostile peers do in quantity, earned by what they
//! were meant to do, and with time.

use std::time::{Duration, Instant};

/// A number of units that are spent and earned.
#[derive(Debug, Clone)]
pub struct Budget {
    left: u64,
    most: u64,
    per_second: u64,
    /// Up to when time has been paid for.
    paid: Instant,
}

impl Budget {
    /// `most` units, all of them there; `per_second` come back with time.
    pub fn new(most: u64, per_second: u64, now: Instant) -> Self {
        Self {
            left: most,
            most,
            per_second,
            paid: now,
        }
    }

    /// Gives `units` back, up to the most there may be.
    pub fn earn(&mut self, units: u64) {
        self.left = self.left.saturating_add(units).min(self.most);
    }

    /// Takes `units` off; whether there were as many. Once there were not, there are none left.
    pub fn spend(&mut self, units: u64, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.paid).as_secs();
        self.paid += Duration::from_secs(seconds);
        self.earn(seconds.saturating_mul(self.per_second));
        let enough = self.left >= units;
        self.left = self.left.saturating_sub(units);
        enough
    }
}
