//! Canaries that have left the file while something may still run on them: a kill switch reaches these, too.

use super::{InForce, Revoked};
use crate::config::Snapshot;
use crate::routing::Role;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
#[derive(Clone)]
pub struct Departed {
    pub service: Box<str>,
    pub version: Box<str>,
    /// The service's `kill.drain` when it left; `None`: never.
    drain: Option<Duration>,
    pub revoked: Arc<Revoked>,
}

impl Departed {
    /// Those that are known to `before`, or leave with it, and are not in `next`. One is forgotten when no publication that
    /// had it is in use any more: then nothing runs on it.
    pub fn after(before: &InForce, next: &Snapshot) -> Arc<[Self]> {
        // It is in the list of `before`, and nowhere else.
        let known = before
            .departed
            .iter()
            .filter(|known| Arc::strong_count(&known.revoked) > 1);
        let known = known.cloned().chain(Self::canaries(before));
        known.filter(|canary| !canary.is_in(next)).collect()
    }

    fn canaries(of: &InForce) -> impl Iterator<Item = Self> {
        let services = of.snapshot.policy.services.iter().zip(&of.snapshot.services);
        services.zip(&*of.services).flat_map(|((policy, file), live)| {
            let versions = policy.versions.iter().zip(&live.versions);
            let canaries = versions.filter(|(version, _)| version.role == Role::Canary);
            canaries.map(|(version, live)| Self {
                service: policy.name.clone(),
                version: version.name.clone(),
                drain: file.kill_drain,
                revoked: Arc::clone(&live.revoked),
            })
        })
    }

    fn is_in(&self, snapshot: &Snapshot) -> bool {
        let mut services = snapshot.policy.services.iter();
        let service = services.find(|service| service.name == self.service);
        service.is_some_and(|service| service.versions.iter().any(|version| version.name == self.version))
    }

    /// Revokes it where `of` sends everything of its service to stable. That is for good: it has no traffic to come back to.
    pub(super) fn revoke(&self, of: &InForce, now_ms: u64) {
        let services = &of.snapshot.policy.services;
        let at = services.iter().position(|service| service.name == self.service);
        if at.map_or(of.traffic.killed, |at| of.is_killed(at)) {
            let file = at.and_then(|at| of.snapshot.services.get(at));
            self.revoked
                .kill(file.map_or(self.drain, |file| file.kill_drain), now_ms);
        }
    }
}
