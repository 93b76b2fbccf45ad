//! Copies for a mirror: made when the request has been answered, so that they cost its client nothing, and can be compared
//! with what it got.

use super::Exchange;
use crate::config::snapshot::Mirror;
use crate::outcome::Uncopied;
use crate::proxy::buffer::HeadBytes;
use crate::proxy::mirror::{self, Copy, From};
use crate::proxy::relay::Upload;
use crate::routing::{Role, ServiceId, VersionId};
use crate::shared::{Ended, MirrorStats, Tried};
use std::rc::Rc;
use std::sync::Arc;

/// Shares of mirrors are parts of this.
const WHOLE: u64 = 100_000;

/// Tells the version that nobody waits for its answer.
const MARK: &[u8] = b"x-rollgate-mirror: true\r\n\r\n";

impl Exchange<'_> {
    /// The mirror that gets a share of requests like this one while `serving` serves it.
    pub(super) fn mirror(&self, serving: VersionId) -> Option<&Mirror> {
        let service = self.record.service()?.0 as usize;
        let mirror = self.snapshot().services.get(service)?.mirror.as_ref()?;
        let method = self.head.method(self.bytes);
        let fits = !self.upgrading().is_asked() && mirror.methods.iter().any(|one| **one == *method);
        (fits && mirror.version != serving).then_some(mirror)
    }

    /// The request is over: a copy of it is sent, if it is one of those that are copied.
    pub(super) fn mirror_it(&self, upload: &mut Upload<'_, '_>) {
        let Some((service, mirror, original)) = self.to_be_copied() else {
            return;
        };
        let live = self.local.service(service).and_then(|service| service.mirror.as_ref());
        let Some(stats) = live.map(Arc::clone) else { return };
        let worker = &self.client.worker;
        match self.copy(service, mirror.version, upload, (original, Arc::clone(&stats))) {
            Ok(copy) => mirror::send(worker, copy),
            Err(why) => stats.uncopied(worker.index, why),
        }
    }

    /// Whether the request is one of the share, and how it ended itself. One whose client has left is not copied: there is
    /// nothing to compare with. Nor is one that the version has failed already, and another has answered instead.
    fn to_be_copied(&self) -> Option<(ServiceId, &Mirror, Ended)> {
        let (service, serving) = self.record.serving()?;
        let mirror = self.mirror(serving)?;
        if self.record.rescued_from() == Some(mirror.version) {
            return None;
        }
        let original = self.record.answer(self.started)?;
        let drawn = self.client.worker.draw() % WHOLE < u64::from(mirror.share);
        drawn.then_some((service, mirror, original))
    }

    fn copy(
        &self,
        service: ServiceId,
        version: VersionId,
        upload: &mut Upload<'_, '_>,
        (original, stats): (Ended, Arc<MirrorStats>),
    ) -> Result<Copy, Uncopied> {
        let live = self.local.version(service, version).ok_or(Uncopied::NoEndpoint)?;
        if live.pool.role() == Role::Canary && self.local.in_force.is_killed(service.0 as usize) {
            return Err(Uncopied::Killed);
        }
        let body = upload.replay.take().filter(|_| upload.reader.is_done());
        let body = body.ok_or(Uncopied::Body)?;
        let endpoint = self.pick(live, &Tried::default()).ok_or(Uncopied::NoEndpoint)?;
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
            is_grpc: self.is_grpc,
            from: From {
                peer: self.client.peer,
                client_ip: self.client_ip,
                destination: self.client.destination.clone(),
                listener: self.client.listener,
            },
            original,
            stats,
        })
    }
}
