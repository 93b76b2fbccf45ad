//! Active health: what probes have shown of an endpoint.

/// The verdict of the probes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    healthy: bool,
    probed: bool,
    probed_ok: bool,
    /// Probes in a row that contradict `healthy`.
    against: u32,
}

impl Health {
    /// Not probed yet. A stable endpoint is assumed healthy, one of a canary is not: it must show itself first.
    pub fn assumed(healthy: bool) -> Self {
        Self {
            healthy,
            probed: false,
            probed_ok: false,
            against: 0,
        }
    }

    pub fn healthy(&self) -> bool {
        self.healthy
    }

    /// Whether any probe has ended.
    pub fn probed(&self) -> bool {
        self.probed
    }

    /// Whether any probe has succeeded.
    pub fn probed_ok(&self) -> bool {
        self.probed_ok
    }

    /// Unhealthy, but the last probe succeeded.
    pub fn recovering(&self) -> bool {
        !self.healthy && self.against > 0
    }

    /// After one more probe. `healthy_after` successes in a row make it healthy, `unhealthy_after` failures unhealthy. Until its
    /// first success one probe is enough either way: nothing is known that would speak for patience, and a pool that
    /// starts with a dead endpoint should not send it anybody.
    #[must_use]
    pub fn after(mut self, success: bool, healthy_after: u32, unhealthy_after: u32) -> Self {
        let needed = match (self.probed_ok, success) {
            (false, _) => 1,
            (true, true) => healthy_after,
            (true, false) => unhealthy_after,
        };
        self.probed = true;
        self.probed_ok |= success;
        self.against = if success == self.healthy { 0 } else { self.against + 1 };
        if self.against >= needed.max(1) {
            self.healthy = success;
            self.against = 0;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(health: Health, probes: &[bool]) -> Health {
        probes
            .iter()
            .fold(health, |health, &success| health.after(success, 2, 3))
    }

    #[test]
    fn the_first_success_makes_a_canary_healthy_at_once() {
        let fresh = Health::assumed(false);
        assert!(!fresh.healthy() && !fresh.probed() && !fresh.probed_ok());
        let health = after(fresh, &[false, false, true]);
        assert!(health.healthy() && health.probed_ok());
    }

    #[test]
    fn the_first_failure_makes_an_assumed_endpoint_unhealthy_at_once() {
        let health = after(Health::assumed(true), &[false]);
        assert!(!health.healthy() && health.probed() && !health.probed_ok());
        assert!(after(health, &[true]).healthy());
    }

    #[test]
    fn later_changes_need_their_number_in_a_row() {
        let good = after(Health::assumed(true), &[true]);
        assert!(after(good, &[false, false, true, false, false]).healthy());
        let bad = after(good, &[false, false, false]);
        assert!(!bad.healthy());
        assert!(!after(bad, &[true, false, true]).healthy());
        assert!(after(bad, &[true]).recovering() && !after(bad, &[true, false]).recovering());
        assert!(after(bad, &[true, true]).healthy());
    }

    #[test]
    fn zero_thresholds_count_as_one() {
        let good = Health::assumed(true).after(true, 0, 0);
        let bad = good.after(false, 0, 0);
        assert!(!bad.healthy() && bad.after(true, 0, 0).healthy());
    }
}
