//! Rules of the version that serves, with what their variables stand for in this exchange, and what else an answer tells.

use super::{Exchange, hsts};
use crate::http1::{Edits, Moved, PieceFacts, Rewrite, request_trailers};
use crate::proxy::relay::{Rules, Told};
use crate::routing::VersionId;

impl Exchange<'_> {
    /// The name of a version of the request's service.
    pub(super) fn name_of(&self, version: VersionId) -> &str {
        let services = &self.snapshot().policy.services;
        let service = self
            .record
            .service()
            .and_then(|service| services.get(service.0 as usize));
        let version = service.and_then(|service| service.versions.get(version.0 as usize));
        version.map_or("", |version| &version.name)
    }

    /// What is changed in requests to this version of their service, and in its answers; `None`: nothing.
    pub(super) fn rewrite(&self, version: VersionId) -> Option<(&Rewrite, PieceFacts<'_>)> {
        let service = self.service()?;
        let rewrite = service.rewrites.get(version.0 as usize)?.as_ref()?;
        let facts = PieceFacts {
            client_ip: self.client_ip,
            host: self.head.authority(self.bytes),
            https: self.is_https(),
            request_id: self.request_id(),
            client_cert: self.client.certificate.as_deref(),
        };
        Some((rewrite, facts))
    }

    fn exposed_version(&self) -> Option<&str> {
        let service = self.service()?;
        service.expose_version.then(|| self.record.version_name(&self.local))
    }
}

impl Rules for Exchange<'_> {
    fn told(&self) -> Told<'_> {
        let serving = self.record.serving().and_then(|(_, version)| self.rewrite(version));
        let edits = serving.map(|(rewrite, facts)| {
            let moved = (!rewrite.keep_locations).then(|| rewrite.moved(self.head.canonical_path(self.bytes)));
            Edits {
                fields: &rewrite.response,
                facts,
                moved: moved.flatten().map(|moved| Moved {
                    port: self.record.endpoint_port(),
                    ..moved
                }),
            }
        });
        Told {
            version: self.exposed_version(),
            hsts: hsts(&self.local, self.client),
            edits,
        }
    }

    fn request_trailers(&self, came: &[u8]) -> Vec<u8> {
        let serving = self.record.serving().and_then(|(_, version)| self.rewrite(version));
        let rules = serving.map(|(rewrite, _)| &rewrite.request);
        request_trailers(came, self.head, self.bytes, rules)
    }
}
