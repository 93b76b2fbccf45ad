//! What a service has no room for: turned away before a version serves it, so that it is no version's failure.

use super::Exchange;
use super::endings::Said;
use crate::outcome::Refusal;
use crate::proxy::downstream::Next;
use crate::routing::{RequestView, ServiceId, VersionId};
use crate::shared::Inside;
use std::cell::Cell;
use std::time::Duration;

/// Which limit a request is beyond.
pub(super) enum Beyond {
    /// And how long until it would not be.
    Rate(Duration),
    ServiceInFlight,
    VersionInFlight,
}

/// What a request takes up until it ends.
#[derive(Default)]
pub struct Places {
    service: Cell<Option<Inside>>,
    version: Cell<Option<Inside>>,
}

impl Places {
    /// Gives back what it takes up.
    pub fn leave(&self) {
        drop((self.service.take(), self.version.take()));
    }
}

impl Exchange<'_> {
    /// Whether the service has room for the request.
    pub(super) fn admit(&self, service: ServiceId, request: &RequestView<'_>) -> Result<(), Beyond> {
        let (Some(settings), Some(live)) = (
            self.snapshot().services.get(service.0 as usize),
            self.local.service(service),
        ) else {
            return Ok(());
        };
        if let Some(most) = settings.limits.max_in_flight {
            let place = live.limits.in_flight.enter(most);
            self.places.service.set(Some(place.ok_or(Beyond::ServiceInFlight)?));
        }
        if settings.limits.rates.is_empty() {
            return Ok(());
        }
        let now = self.client.worker.shared.uptime();
        live.limits.take(request, now).map_err(Beyond::Rate)
    }

    /// Whether the version that is to serve has room for the request.
    pub(super) fn admit_to_version(&self, service: ServiceId, version: VersionId) -> Result<(), Beyond> {
        let version = version.0 as usize;
        let settings = self.snapshot().services.get(service.0 as usize);
        let live = self.local.service(service);
        let most = settings.and_then(|settings| settings.limits.of_version(version));
        if let (Some(most), Some(gate)) = (most, live.and_then(|live| live.limits.version(version))) {
            let place = gate.enter(most);
            self.places.version.set(Some(place.ok_or(Beyond::VersionInFlight)?));
        }
        Ok(())
    }

    pub(super) async fn turn_away(&self, beyond: Beyond) -> Next {
        let (refusal, why) = match beyond {
            Beyond::Rate(_) => (Refusal::RateLimited, "a rate limit of the service is reached"),
            Beyond::ServiceInFlight => (Refusal::MaxInFlight, "max_in_flight of the service is reached"),
            Beyond::VersionInFlight => (Refusal::MaxInFlight, "max_in_flight of the version is reached"),
        };
        let fields = match beyond {
            Beyond::Rate(wait) => format!("Retry-After: {}\r\n", wait.as_millis().div_ceil(1000).max(1)),
            // Every 503 of ours has one.
            Beyond::ServiceInFlight | Beyond::VersionInFlight => String::new(),
        };
        // What it takes up is not held while its client takes the answer.
        self.places.leave();
        self.record.refused(refusal, self.shown(refusal.status()));
        let said = Said {
            status: refusal.status(),
            why,
            fields: &fields,
            ..Said::default()
        };
        self.say(said, self.has_body()).await
    }
}
