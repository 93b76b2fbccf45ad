//! What a service has no room for: turned away before a version serves it, so that it is no version's failure.

use super::Exchange;
use super::endings::Said;
use crate::outcome::Refusal;
use crate::proxy::downstream::Next;
use crate::routing::{RequestView, ServiceId, VersionId};
use crate::shared::{Gate, Inside, InsideOfKey, Rates};
use std::cell::Cell;
use std::sync::Arc;
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

/// What a service, or one of its versions, is limited by.
struct Gauge<'g> {
    max_in_flight: Option<u32>,
    in_flight: &'g Arc<Gate>,
    rates: &'g Rates,
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
        let gauge = Gauge {
            max_in_flight: settings.limits.max_in_flight,
            in_flight: &live.limits.in_flight,
            rates: &live.limits.rates,
        };
        self.enter(&gauge, &self.places.service, request).map_err(beyond)
    }

    /// Whether the version that is to serve has room for the request.
    pub(super) fn admit_to_version(
        &self,
        service: ServiceId,
        version: VersionId,
        request: &RequestView<'_>,
    ) -> Result<(), Beyond> {
        let index = version.0 as usize;
        let settings = self.snapshot().services.get(service.0 as usize);
        let live = self.local.service(service);
        let (Some(settings), Some(live)) = (
            settings.and_then(|settings| settings.limits.of_version(index)),
            live.and_then(|live| live.limits.version(index)),
        ) else {
            return Ok(());
        };
        let gauge = Gauge {
            max_in_flight: settings.max_in_flight,
            in_flight: &live.in_flight,
            rates: &live.rates,
        };
        self.enter(&gauge, &self.places.version, request)
            .map_err(|limit| Beyond {
                limit,
                service,
                version: Some(version),
            })
    }

    /// Takes up a place, and what the rates allow.
    fn enter(&self, gauge: &Gauge<'_>, place: &Cell<Option<Inside>>, request: &RequestView<'_>) -> Result<(), Limit> {
        if let Some(most) = gauge.max_in_flight {
            place.set(Some(gauge.in_flight.enter(most).ok_or(Limit::InFlight)?));
        }
        if gauge.rates.is_empty() {
            return Ok(());
        }
        let now = self.client.worker.shared.uptime();
        gauge.rates.take(request, now).map_err(Limit::Rate)
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
