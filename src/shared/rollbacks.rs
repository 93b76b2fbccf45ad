//! How rollouts of a service ended in a rollback, and how fast: written by the one writer, shown by `/metrics`.

use crate::rollout::Cause;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the process began.
#[derive(Debug, Default)]
pub struct Rollbacks {
    by_cause: [AtomicU64; Cause::ALL.len()],
    detected: AtomicU64,
    detected_ms: AtomicU64,
}

impl Rollbacks {
    /// Counts one. `detected`: from the candidate's first failure in the rollout to its rollback, where the proxy found out by
    /// itself.
    pub fn count(&self, cause: Cause, detected: Option<Duration>) {
        if let Some(counter) = self.by_cause.get(cause as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(detected) = detected {
            let ms = u64::try_from(detected.as_millis()).unwrap_or(u64::MAX);
            self.detected_ms.fetch_add(ms, Ordering::Relaxed);
            self.detected.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn of(&self, cause: Cause) -> u64 {
        let counter = self.by_cause.get(cause as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// How many rollbacks the proxy found out by itself, and how long that took altogether.
    pub fn detected(&self) -> (u64, Duration) {
        let ms = self.detected_ms.load(Ordering::Relaxed);
        (self.detected.load(Ordering::Relaxed), Duration::from_millis(ms))
    }
}
