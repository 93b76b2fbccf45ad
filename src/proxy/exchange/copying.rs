//! Copies for a mirror: made when the request has been answered, so that they cost its client nothing, and can be compared
//! with what it got.

use super::Exchange;
use crate::config::snapshot::Mirror;
use crate::outcome::Uncopied;
use crate::proxy::buffer::HeadBytes;
use crate::proxy::mirror::{self, Copy, From, Judged};
use crate::proxy::relay::Upload;
use crate::routing::{ServiceId, StepMirror, VersionId};
use crate::shared::{Ended, MirrorStats, Tried};
use std::rc::Rc;
use std::sync::Arc;

/// Shares of mirrors are parts of this.
const WHOLE: u64 = 100_000;

/// Tells the version that nobody waits for its answer.
const MARK: &[u8] = b"x-rollgate-mirror: true\r\n\r\n";

/// A mirror at this moment.
pub(super) struct Mirroring<'m> {
    mirror: &'m Mirror,
    share: u32,
    /// Of a rollout, instead of the file.
    step: Option<StepMirror>,
}

impl Exchange<'_> {
    /// The mirror that gets a share of requests like this one while `serving` serves it.
    pub(super) fn mirror(&self, serving: VersionId) -> Option<Mirroring<'_>> {
        let service = self.record.service()?.0 as usize;
        let mirror = self.snapshot().services.get(service)?.mirror.as_ref()?;
        let step = self.local.in_force.traffic.services.get(service)?.mirror;
        let step = step.filter(|step| step.version == mirror.version);
        let share = step.map_or(mirror.share, |step| step.share);
        let from = match step {
            // The candidate is compared with stable, and with nobody else.
            Some(_) => self.snapshot().policy.services.get(service)?.stable == serving,
            None => mirror.version != serving,
        };
        let method = self.head.method(self.bytes);
        let fits = !self.upgrading().is_asked() && mirror.methods.iter().any(|one| **one == *method);
        (share > 0 && from && fits).then_some(Mirroring { mirror, share, step })
    }

    /// The request is over: a copy of it is sent, if it is one of those that are copied.
    pub(super) fn mirror_it(&self, upload: &mut Upload<'_, '_>) {
        let Some((service, mirror, original)) = self.to_be_copied() else {
            return;
        };
        let live = self.local.service(service).and_then(|service| service.mirror.as_ref());
        let Some(stats) = live.map(Arc::clone) else { return };
        let worker = &self.client.worker;
        let judged = mirror.step.map(|step| Judged {
            window: step.window,
            bucket: self.record.decision(|decision| self.bucket_of_user(decision)).flatten(),
        });
        let version = mirror.mirror.version;
        match self.copy((service, version), upload, (original, Arc::clone(&stats)), judged) {
            Ok(copy) => mirror::send(worker, copy),
            Err(why) => stats.uncopied(worker.index, why),
        }
    }

    /// Whether the request is one of the share, and how it ended itself. One whose client has left is not copied: there is
    /// nothing to compare with. Nor is one that the version has failed already, and another has answered instead.
    fn to_be_copied(&self) -> Option<(ServiceId, Mirroring<'_>, Ended)> {
        let (service, serving) = self.record.serving()?;
        let mirror = self.mirror(serving)?;
        if self.record.rescued_from() == Some(mirror.mirror.version) {
            return None;
        }
        let original = self.record.answer(self.started)?;
        let drawn = self.client.worker.draw() % WHOLE < u64::from(mirror.share);
        drawn.then_some((service, mirror, original))
    }

    fn copy(
        &self,
        (service, version): (ServiceId, VersionId),
        upload: &mut Upload<'_, '_>,
        (original, stats): (Ended, Arc<MirrorStats>),
        judged: Option<Judged>,
    ) -> Result<Copy, Uncopied> {
        let live = self.local.version(service, version).ok_or(Uncopied::NoEndpoint)?;
        // Not what was in force when the request began: it may have taken its time.
        if live.revoked.is_killed() {
            return Err(Uncopied::Killed);
        }
        let body = upload.replay.take().filter(|_| upload.reader.is_done());
        let body = body.ok_or(Uncopied::Body)?;
        let endpoint = self.pick(live, &Tried::default()).ok_or(Uncopied::NoEndpoint)?;
        self.admit_copy(service, version)?;
        let mut head = self.head.clone();
        // All of the body is there.
        head.expect_continue = false;
        let mut text = HeadBytes::new();
        self.write_head(&mut text, &head, &endpoint, version);
        let fields = text.len().saturating_sub(b"\r\n".len());
        text.truncate(fields);
        text.extend_from_slice(MARK);
        Ok(Copy {
            local: Rc::clone(&self.local),
            version: (service, version),
            endpoint,
            head,
            text,
            body,
            coding: upload.coding,
            is_grpc: self.is_call_to(live),
            from: From {
                peer: self.client.peer,
                client_ip: self.client_ip,
                destination: self.client.connected_to().map(Rc::new),
                listener: self.client.listener,
            },
            timeouts: self.attempt_timeouts(version).cloned(),
            first_byte: self.first_byte(version, &live.pool.spec.timeouts),
            time_limit: self.time_limit(),
            original,
            stats,
            judged,
        })
    }
}
