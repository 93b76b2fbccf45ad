//! What the data plane sees of a [`Revocation`].

use crate::runtime::Revocation;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// No end.
const NEVER: u64 = u64::MAX;

/// Until when what is in flight on a version may go on. One for all publications and threads: whoever runs on the version
/// sees a revocation that came later.
#[derive(Default)]
pub struct Revoked {
    killed: AtomicBool,
    by_kill: Ends,
    by_rollback: Ends,
    /// The publication that brought the rollback.
    rolled_back: AtomicU64,
}

struct Ends {
    /// Milliseconds of uptime.
    at_ms: AtomicU64,
    /// Only whoever publishes locks it.
    revocation: Mutex<Revocation>,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            at_ms: AtomicU64::new(NEVER),
            revocation: Mutex::default(),
        }
    }
}

impl Ends {
    /// See [`Revocation::next`]. Whether it has just begun.
    fn set(&self, revoked: bool, drain: Option<Duration>, now_ms: u64) -> bool {
        let mut revocation = self.revocation.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *revocation;
        *revocation = before.next(revoked, drain, now_ms);
        self.at_ms.store(revocation.ends_ms.unwrap_or(NEVER), Ordering::Relaxed);
        before.since_ms.is_none() && revoked
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.at_ms.load(Ordering::Relaxed) <= now_ms
    }
}

impl Revoked {
    /// Whether the version is revoked by a kill switch, and by the rollback of its rollout (`None`: as it was).
    /// `generation`: that of the publication.
    pub(super) fn set(
        &self,
        (killed, rolled_back): (bool, Option<bool>),
        drain: Option<Duration>,
        now_ms: u64,
        generation: u64,
    ) {
        self.killed.store(killed, Ordering::Relaxed);
        self.by_kill.set(killed, drain, now_ms);
        if let Some(rolled_back) = rolled_back
            && self.by_rollback.set(rolled_back, drain, now_ms)
        {
            self.rolled_back.store(generation, Ordering::Relaxed);
        }
    }

    /// The version is revoked by a kill switch, whatever else holds.
    pub(super) fn kill(&self, drain: Option<Duration>, now_ms: u64) {
        self.killed.store(true, Ordering::Relaxed);
        self.by_kill.set(true, drain, now_ms);
    }

    /// Whether a kill switch is on at this moment, whatever may still go on: nothing new is to be sent to the version.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Whether what is in flight must end, decided under `generation`. `now_ms`: milliseconds of
    /// [`super::Shared::uptime`]. After a rollback whoever is sent to the version (by a rule) is sent there nevertheless.
    pub fn is_over(&self, now_ms: u64, generation: u64) -> bool {
        let before_rollback = || generation < self.rolled_back.load(Ordering::Relaxed);
        self.by_kill.is_over(now_ms) || (self.by_rollback.is_over(now_ms) && before_rollback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Option<Duration> = Some(Duration::from_secs(5));

    #[test]
    fn a_rollback_ends_what_was_decided_before_it_and_a_kill_everything() {
        let revoked = Revoked::default();
        revoked.set((false, Some(false)), DRAIN, 0, 6);
        assert!(!revoked.is_over(1_000_000, 6));
        revoked.set((false, Some(true)), DRAIN, 1_000, 7);
        // Published again meanwhile.
        revoked.set((false, Some(true)), DRAIN, 2_000, 8);
        for (now_ms, generation, over) in [
            (5_999, 6, false),
            (6_000, 6, true),
            (60_000, 7, false),
            (60_000, 8, false),
        ] {
            assert_eq!(revoked.is_over(now_ms, generation), over, "{now_ms} {generation}");
        }
        assert!(!revoked.is_killed());
        revoked.set((true, Some(true)), DRAIN, 60_000, 9);
        assert!(
            revoked.is_killed(),
            "at once, and not only when what is in flight must end"
        );
        assert!(!revoked.is_over(64_999, 8));
        assert!(revoked.is_over(65_000, 8), "the kill ends what the rollback has left");
        revoked.set((false, Some(false)), DRAIN, 70_000, 10);
        assert!(!revoked.is_killed());
        assert!(!revoked.is_over(80_000, 6), "the end of both lets everything go on");
        revoked.set((false, Some(true)), DRAIN, 90_000, 11);
        revoked.set((false, None), None, 91_000, 12);
        assert!(
            revoked.is_over(95_000, 10),
            "another rollback, and then nothing new of it"
        );
    }
}
