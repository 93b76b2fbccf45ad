//! What the judge of a rollout learns of an exchange.

use super::Exchange;
use crate::outcome::{FailureKind, Outcome};
use crate::routing::{Decision, HashName, Reason, Service, ServiceId};
use crate::shared::{Ending, Evidence, Sent};

impl Exchange<'_> {
    /// Where evidence of the service is collected: `None` without a rollout in the file.
    pub fn evidence(&self, service: ServiceId) -> Option<&Evidence> {
        self.local.service(service)?.evidence.as_deref()
    }

    /// The request begins on the version that was decided.
    pub(super) fn watch(&self, decision: &Decision) {
        let Some(evidence) = self.evidence(decision.service) else {
            return;
        };
        let thread = self.client.worker.index;
        let sent = match decision.reason {
            Reason::Bucket | Reason::Weight | Reason::Kept | Reason::Fallback => Some(Sent::Split),
            Reason::Rule(_) | Reason::Ring => Some(Sent::Forced),
            Reason::Killed => None,
        };
        let bucket = self.bucket_of_user(decision);
        let counted = evidence.begin(thread, decision.chosen.0, sent, bucket);
        if decision.reason != Reason::Fallback {
            return self.record.watched(counted);
        }
        // It has failed there before it was sent.
        let ending = Ending {
            outcome: Outcome::Failure(FailureKind::NoEndpoint),
            duration: None,
            values: &[],
        };
        evidence.end(thread, counted, &ending);
    }

    /// By which the user is told from others, whatever decided.
    pub(super) fn bucket_of_user(&self, decision: &Decision) -> Option<u32> {
        let service: &Service = self.snapshot().policy.services.get(decision.service.0 as usize)?;
        let affinity = service.affinity.as_ref()?;
        // Those of other hashes are coarser: a user's failure would leave a hundredth of all users out.
        if let (Some(bucket), HashName::Rollgate1) = (decision.bucket, affinity.hash) {
            return Some(bucket);
        }
        let fields = self.head.fields(self.bytes);
        let key = affinity.user_key(&self.view(&fields))?;
        Some(HashName::Rollgate1.bucket(&affinity.salt, key.as_bytes()))
    }
}
