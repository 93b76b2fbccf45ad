//! When what is in flight on a version ends.

use std::time::Duration;

/// How long what is in flight on a version may go on. Times are milliseconds of uptime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revocation {
    /// Since when the version is revoked; `None`: it is not.
    pub since_ms: Option<u64>,
    /// What is still in flight then is cut; `None`: nothing is.
    pub ends_ms: Option<u64>,
}

impl Revocation {
    /// What follows `self` at `now_ms`, when the version is `revoked` or is not, and what is in flight may go on for
    /// `drain` (`None`: to its end).
    ///
    /// A revocation that goes on counts from its beginning, so that another `drain` in the file holds for what is in
    /// flight already; one that ends lets everything go on.
    #[must_use]
    pub fn next(self, revoked: bool, drain: Option<Duration>, now_ms: u64) -> Self {
        if !revoked {
            return Self::default();
        }
        let since_ms = self.since_ms.unwrap_or(now_ms);
        let after = |drain: Duration| since_ms.saturating_add(u64::try_from(drain.as_millis()).unwrap_or(u64::MAX));
        Self {
            since_ms: Some(since_ms),
            ends_ms: drain.map(after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DRAIN: Option<Duration> = Some(Duration::from_secs(5));

    #[test]
    fn what_is_in_flight_ends_a_drain_after_the_beginning() {
        let revoked = Revocation::default().next(true, DRAIN, 1_000);
        assert_eq!(revoked.ends_ms, Some(6_000));
        assert_eq!(revoked.next(true, DRAIN, 4_000), revoked, "published again meanwhile");
        let shorter = revoked.next(true, Some(Duration::from_secs(1)), 4_000);
        assert_eq!(shorter.ends_ms, Some(2_000), "another drain in the file");
        assert_eq!(shorter.next(true, None, 4_500).ends_ms, None, "never");
    }

    #[test]
    fn the_end_of_the_revocation_lets_everything_go_on() {
        let revoked = Revocation::default().next(true, DRAIN, 1_000);
        let released = revoked.next(false, DRAIN, 5_999);
        assert_eq!(released, Revocation::default());
        assert_eq!(
            released.next(true, DRAIN, 9_000).ends_ms,
            Some(14_000),
            "it begins anew"
        );
    }

    proptest! {
        #[test]
        fn nothing_ends_without_a_revocation_nor_before_its_drain(
            steps in proptest::collection::vec((any::<bool>(), proptest::option::of(0u64..100_000), 0u64..10_000), 1..50),
        ) {
            let (mut now, mut revocation) = (0, Revocation::default());
            for (revoked, drain, later) in steps {
                now += later;
                revocation = revocation.next(revoked, drain.map(Duration::from_millis), now);
                prop_assert_eq!(revocation.since_ms.is_some(), revoked);
                match revocation.ends_ms {
                    None => prop_assert!(!revoked || drain.is_none()),
                    Some(ends) => prop_assert_eq!(ends, revocation.since_ms.unwrap() + drain.unwrap()),
                }
                prop_assert!(revocation.since_ms.is_none_or(|since| since <= now));
            }
        }

        #[test]
        fn no_duration_overflows(now in any::<u64>(), drain in any::<u64>()) {
            let revocation = Revocation::default().next(true, Some(Duration::from_secs(drain)), now);
            prop_assert!(revocation.ends_ms >= Some(now));
        }
    }
}
