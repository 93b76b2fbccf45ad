//! Rules of the version that serves, with what their variables stand for in this exchange, and what else an answer tells.

use super::{Exchange, hsts};
use crate::http1::{Edits, PieceFacts, Rewrite};
use crate::proxy::relay::Told;

impl Exchange<'_> {
    /// What is changed in the request; `None`: nothing.
    pub(super) fn rewrite(&self) -> Option<(&Rewrite, PieceFacts<'_>)> {
        let (service, version) = self.record.serving()?;
        let service = self.snapshot().services.get(service.0 as usize)?;
        let rewrite = service.rewrites.get(version.0 as usize)?.as_ref()?;
        let facts = PieceFacts {
            client_ip: self.client_ip,
            host: self.head.authority(self.bytes),
            https: self.is_https(),
            request_id: self.request_id(),
        };
        Some((rewrite, facts))
    }

    /// What the client is told with the answer.
    pub(super) fn told(&self) -> Told<'_> {
        let edits = self.rewrite().map(|(rewrite, facts)| {
            let fields = &rewrite.response;
            Edits { fields, facts }
        });
        Told {
            version: self.exposed_version(),
            hsts: hsts(&self.local, self.client),
            edits,
        }
    }

    fn exposed_version(&self) -> Option<&str> {
        let service = self.snapshot().services.get(self.record.service()?.0 as usize)?;
        service.expose_version.then(|| self.record.version_name(&self.local))
    }
}
