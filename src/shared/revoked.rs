//! What the data plane sees of a [`Revocation`].

use crate::runtime::Revocation;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// No end.
const NEVER: u64 = u64::MAX;

/// Until when what is in flight on a version may go on. One for all publications and threads: whoever runs on the version
/// sees a revocation that came later.
pub struct Revoked {
    /// Milliseconds of uptime.
    ends_ms: AtomicU64,
    /// Only whoever publishes locks it.
    revocation: Mutex<Revocation>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self {
            ends_ms: AtomicU64::new(NEVER),
            revocation: Mutex::default(),
        }
    }
}

impl Revoked {
    /// See [`Revocation::next`].
    pub(super) fn set(&self, revoked: bool, drain: Option<Duration>, now_ms: u64) {
        let mut revocation = self.revocation.lock().unwrap_or_else(PoisonError::into_inner);
        *revocation = revocation.next(revoked, drain, now_ms);
        self.ends_ms
            .store(revocation.ends_ms.unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// Whether what is in flight must end. `now_ms`: milliseconds of [`super::Shared::uptime`].
    pub fn is_over(&self, now_ms: u64) -> bool {
        self.ends_ms.load(Ordering::Relaxed) <= now_ms
    }
}
