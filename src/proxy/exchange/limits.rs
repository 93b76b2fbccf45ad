//! What a service has no room for: turned away before a version serves it, so that it is no version's failure.

use super::Exchange;
use super::endings::Said;
use crate::outcome::Refusal;
use crate::proxy::downstream::Next;
use crate::routing::{RequestView, ServiceId, VersionId};
use crate::shared::{Inside, InsideOfKey};
use std::cell::Cell;
use std::time::Duration;

/// Which limit a request is beyond, and whose it is.
pub(super) struct Beyond {
    limit: Limit,
    service: ServiceId,
    version: Option<VersionId>,
}

enum Limit {
    /// And how long until it would not be.
    Rate(Duration),
    InFlight,
    KeyInFlight,
}

/// What a request takes up until it ends.
#[derive(Default)]
pub struct Places {
    service: Cell<Option<Inside>>,
    keys: Cell<Vec<InsideOfKey>>,
    version: Cell<Option<Inside>>,
}

impl Places {
    /// Gives back what it takes up.
    pub fn leave(&self) {
        drop((self.service.take(), self.keys.take(), self.version.take()));
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
        let beyond = |limit| Beyond {
            limit,
            service,
            version: None,
        };
        // First what a client is refused alone: it takes nothing from the others.
        if !settings.limits.keys_in_flight.is_empty() {
            let places = live.limits.enter_keys(request);
            self.places.keys.set(places.map_err(|_| beyond(Limit::KeyInFlight))?);
        }
        if let Some(most) = settings.limits.max_in_flight {
            let place = live.limits.in_flight.enter(most);
            self.places
                .service
                .set(Some(place.ok_or_else(|| beyond(Limit::InFlight))?));
        }
        if settings.limits.rates.is_empty() {
            return Ok(());
        }
        let now = self.client.worker.shared.uptime();
        let taken = live.limits.rates.take(request, now);
        taken.map_err(|wait| beyond(Limit::Rate(wait)))
    }

    /// Whether the version that is to serve has room for the request.
    pub(super) fn admit_to_version(
        &self,
        service: ServiceId,
        version: VersionId,
        request: &RequestView<'_>,
    ) -> Result<(), Beyond> {
        let beyond = |limit| Beyond {
            limit,
            service,
            version: Some(version),
        };
        let version = version.0 as usize;
        let settings = self.snapshot().services.get(service.0 as usize);
        let live = self.local.service(service);
        let (Some(settings), Some(live)) = (
            settings.and_then(|settings| settings.limits.of_version(version)),
            live.and_then(|live| live.limits.version(version)),
        ) else {
            return Ok(());
        };
        if let Some(most) = settings.max_in_flight {
            let place = live.in_flight.enter(most);
            self.places
                .version
                .set(Some(place.ok_or_else(|| beyond(Limit::InFlight))?));
        }
        if settings.rates.is_empty() {
            return Ok(());
        }
        let now = self.client.worker.shared.uptime();
        live.rates.take(request, now).map_err(|wait| beyond(Limit::Rate(wait)))
    }

    pub(super) async fn turn_away(&self, beyond: Beyond) -> Next {
        let whose = if beyond.version.is_some() { "version" } else { "service" };
        let (refusal, what) = match beyond.limit {
            Limit::Rate(_) => (Refusal::RateLimited, "a rate limit"),
            Limit::InFlight => (Refusal::MaxInFlight, "max_in_flight"),
            Limit::KeyInFlight => (Refusal::MaxInFlight, "max_in_flight_per_key"),
        };
        let fields = match beyond.limit {
            Limit::Rate(wait) => format!("Retry-After: {}\r\n", wait.as_millis().div_ceil(1000).max(1)),
            // Every 503 of ours has one.
            Limit::InFlight | Limit::KeyInFlight => String::new(),
        };
        // What it takes up is not held while its client takes the answer.
        self.places.leave();
        self.record.turned_away(beyond.service, beyond.version);
        self.record.refused(refusal, self.shown(refusal.status()));
        let said = Said {
            status: refusal.status(),
            why: &format!("{what} of the {whose} is reached"),
            fields: &fields,
            ..Said::default()
        };
        self.say(said, self.has_body()).await
    }
}
