//! Rescue: a failed attempt on a canary that stable answers instead. The failure is the canary's all the same.
//!
//! Rescues that help are unlimited: what they send to stable is what stable gets anyway once the canary is rolled back. One
//! that does not help, because stable fails too, is counted against the canary's retry budget, and without budget there is
//! no rescue: then at most a fifth of the canary's requests, beside those under way at the same time, are sent twice.

use super::Exchange;
use super::attempts::Failure;
use crate::config::snapshot::Rescue;
use crate::outcome::{FailureKind, Outcome};
use crate::proxy::relay::{Failed, Upload};
use crate::routing::{ServiceId, VersionId};
use crate::shared::{Ended, VersionInForce};
use std::sync::Arc;
use std::time::Instant;

impl Exchange<'_> {
    /// How this request may be rescued while `serving` serves it: the version is a canary, and the method is one of those
    /// configured.
    pub(super) fn rescue(&self, serving: VersionId) -> Option<&Rescue> {
        let service = self.record.service()?.0 as usize;
        let snapshot = self.snapshot();
        let rescue = snapshot.services.get(service)?.rescue.as_ref()?;
        let is_canary = snapshot.policy.services.get(service)?.stable != serving;
        let method = self.head.method(self.bytes);
        (is_canary && rescue.methods.iter().any(|one| **one == *method)).then_some(rescue)
    }

    /// Whether stable is to answer instead of a canary that fails by `kind`.
    pub(super) fn takes_rescue(&self, serving: VersionId, kind: FailureKind) -> bool {
        self.rescue(serving).is_some_and(|rescue| rescue.on.contains(&kind))
            && self.with_budget(serving, |budget| budget.allows(self.now_ms())) == Some(true)
    }

    /// The version that answers instead of `serving` after this failure, the request begun on it; `None`: nobody.
    pub(super) fn rescuer(
        &self,
        serving: VersionId,
        failure: &Failure,
        upload: &Upload<'_, '_>,
    ) -> Option<(VersionId, &VersionInForce)> {
        let (kind, status) = match &failure.failed {
            // That was asked when its head came.
            Failed::Withheld { status, kind } => (*kind, *status),
            Failed::Upstream { termination, why, .. } => {
                let kind = termination.failure()?;
                let takes = !failure.answer_begun && upload.can_repeat() && self.takes_rescue(serving, kind);
                (kind, takes.then(|| super::endings::status_of(*termination, why))?)
            }
            _ => return None,
        };
        let service = self.record.service()?;
        let stable = self.snapshot().policy.services.get(service.0 as usize)?.stable;
        let rescuer = self.local.version(service, stable)?;
        self.hand_over(service, serving, (kind, status));
        self.client.slot.off_canary();
        let thread = self.client.worker.index;
        rescuer.stats.begin(thread);
        self.record.rescued(serving, stable, Arc::clone(&rescuer.stats));
        Some((stable, rescuer))
    }

    /// The request has ended on the canary, and failed.
    fn hand_over(&self, service: ServiceId, canary: VersionId, (kind, status): (FailureKind, u16)) {
        let Some(canary) = self.local.version(service, canary) else {
            return;
        };
        let ended = Ended {
            status,
            grpc_status: None,
            outcome: Outcome::Failure(kind),
            duration: Instant::now().saturating_duration_since(self.started),
            upgraded: false,
        };
        let thread = self.client.worker.index;
        canary.stats.end(thread, &ended);
        canary.stats.rescued(thread);
        if let Some(evidence) = self.evidence(service) {
            self.record.judged(evidence, thread, ended.outcome, ended.duration);
        }
    }

    /// The request is over: a rescue that was in vain is counted.
    pub(super) fn settle_rescue(&self) {
        if let Some(canary) = self.record.rescued_from()
            && self.record.has_failed()
        {
            self.with_budget(canary, |budget| budget.count(self.now_ms()));
        }
    }
}
