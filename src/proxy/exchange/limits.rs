//! What a service has no room for: turned away before a version serves it, so that it is no version's failure.

use super::Exchange;
use super::endings::Said;
use crate::outcome::{Refusal, Uncopied};
use crate::proxy::downstream::Next;
use crate::proxy::worker::Local;
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

impl<'g> Gauge<'g> {
    fn of_version(local: &'g Local, service: ServiceId, version: VersionId) -> Option<Self> {
        let index = version.0 as usize;
        let settings = local.in_force.snapshot.services.get(service.0 as usize)?;
        let settings = settings.limits.of_version(index)?;
        let live = local.service(service)?.limits.version(index)?;
        Some(Self {
            max_in_flight: settings.max_in_flight,
            in_flight: &live.in_flight,
            rates: &live.rates,
        })
    }

    /// A place, where there is a limit to them.
    fn place(&self) -> Result<Option<Inside>, Limit> {
        let enter = |most| self.in_flight.enter(most).ok_or(Limit::InFlight);
        self.max_in_flight.map(enter).transpose()
    }

    /// What the rates allow.
    fn take(&self, request: &RequestView<'_>, uptime: impl FnOnce() -> Duration) -> Result<(), Limit> {
        if self.rates.is_empty() {
            return Ok(());
        }
        self.rates.take(request, uptime()).map_err(Limit::Rate)
    }

    /// Somebody was turned away.
    fn reject(&self, limit: &Limit) {
        match limit {
            Limit::Rate(_) => self.rates.reject(),
            Limit::InFlight | Limit::KeyInFlight => self.in_flight.reject(),
        }
    }
}

/// A place on the version for a copy that is about to be sent: what waits takes up none.
pub fn place_for_copy(local: &Local, service: ServiceId, version: VersionId) -> Result<Option<Inside>, Uncopied> {
    let gauge = Gauge::of_version(local, service, version);
    let place = gauge.map(|gauge| gauge.place()).transpose();
    place.map(Option::flatten).map_err(|_| Uncopied::MaxInFlight)
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
        let Some(gauge) = Gauge::of_version(&self.local, service, version) else {
            return Ok(());
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
        let entered = gauge.place().and_then(|inside| {
            place.set(inside);
            gauge.take(request, || self.client.worker.shared.uptime())
        });
        entered.inspect_err(|limit| gauge.reject(limit))
    }

    /// Takes what the version's rates allow for a copy of the request. They are asked when it is made: its keys are the
    /// request's. A copy that is refused is not among the requests that were turned away.
    pub(super) fn admit_copy(&self, service: ServiceId, version: VersionId) -> Result<(), Uncopied> {
        let Some(gauge) = Gauge::of_version(&self.local, service, version) else {
            return Ok(());
        };
        let fields = self.head.fields(self.bytes);
        let taken = gauge.take(&self.view(&fields), || self.client.worker.shared.uptime());
        taken.map_err(|_| Uncopied::RateLimited)
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
