//! How much a service takes.

use super::{Context, MAX_KEY_SOURCES, MAX_RATE_LIMIT_KEYS, MAX_RATE_LIMITS};
use crate::balancing::Rate;
use crate::config::decode::List;
use crate::config::problem::Path;
use crate::config::schema;
use crate::config::snapshot::{KeyInFlight, RateLimit, Service, ServiceLimits, VersionLimits};
use crate::routing::KeySource;
use std::time::Duration;

/// Beyond it a rate is a quota, which a restart would refill.
const LONGEST_PER: Duration = Duration::from_secs(86_400);

fn most(limit: schema::InFlight) -> Option<u32> {
    u32::try_from(limit.0).ok()
}

impl Context<'_> {
    pub(super) fn service_limits(
        &mut self,
        service: &schema::Service,
        versions: &List<schema::Version>,
        path: &Path<'_>,
    ) -> Option<ServiceLimits> {
        let rates = self.rates(&service.rate_limits, path);
        let keys_in_flight = self.keys_in_flight(&service.max_in_flight_per_key, &path.key("max_in_flight_per_key"));
        let versions_path = path.key("versions");
        let of_versions = versions.compile(|index, version| {
            Some(VersionLimits {
                rates: self.rates(&version.rate_limits, &versions_path.index(index))?,
                max_in_flight: version.max_in_flight.and_then(most),
            })
        })?;
        let limited = of_versions.iter().any(|limits| *limits != VersionLimits::default());
        Some(ServiceLimits {
            rates: rates?,
            max_in_flight: service.max_in_flight.and_then(most),
            keys_in_flight: keys_in_flight?,
            versions: if limited { of_versions } else { Box::default() },
        })
    }

    /// `rate_limits` of what stands at `path`; those with a key first.
    fn rates(&mut self, limits: &List<schema::RateLimit>, path: &Path<'_>) -> Option<Box<[RateLimit]>> {
        let here = path.key("rate_limits");
        if !self.count(limits, 0, MAX_RATE_LIMITS, "rate limits", &here) {
            return None;
        }
        let mut known: Vec<(usize, RateLimit)> = Vec::new();
        let mut rates = limits.compile(|index, limit| {
            let rate = self.rate_limit(limit, &here.index(index))?;
            // It would be counted as one with the other.
            if let Some((first, _)) = known.iter().find(|(_, other)| *other == rate) {
                let message = format!("the same limit as {}: expected each one once", here.index(*first));
                self.problems.add(&here.index(index), message);
                return None;
            }
            known.push((index, rate.clone()));
            Some(rate)
        })?;
        rates.sort_by_key(|limit| limit.key.is_empty());
        Some(rates)
    }

    fn keys_in_flight(&mut self, limits: &List<schema::KeyInFlight>, path: &Path<'_>) -> Option<Box<[KeyInFlight]>> {
        if !self.count(limits, 0, MAX_RATE_LIMITS, "limits", path) {
            return None;
        }
        let mut taken: Vec<(usize, Box<[KeySource]>)> = Vec::new();
        limits.compile(|index, limit| {
            let here = path.index(index);
            let key = limit.key.get()?;
            let some = self.count(key, 1, MAX_KEY_SOURCES, "sources of the key", &here.key("key"));
            let key = some.then(|| self.key_sources(key, None, &here.key("key"))).flatten()?;
            if let Some((first, _)) = taken.iter().find(|(_, known)| *known == key) {
                let message = format!("the same key as {}: expected one limit for it", path.index(*first));
                self.problems.add(&here.key("key"), message);
                return None;
            }
            taken.push((index, key.clone()));
            Some(KeyInFlight {
                most: limit.requests.get().copied().and_then(most)?,
                key,
                max_keys: usize::try_from(limit.max_keys.0).ok()?,
            })
        })
    }

    fn rate_limit(&mut self, limit: &schema::RateLimit, path: &Path<'_>) -> Option<RateLimit> {
        let key = match &limit.key {
            None => Some(Box::default()),
            Some(key) => {
                let here = path.key("key");
                let some = self.count(key, 1, MAX_KEY_SOURCES, "sources of the key", &here);
                some.then(|| self.key_sources(key, None, &here)).flatten()
            }
        };
        if limit.per.0 > LONGEST_PER {
            self.problems
                .add(&path.key("per"), "expected a duration of at most `24h`");
            return None;
        }
        let requests = limit.requests.get()?.0;
        let burst = limit.burst.map_or(requests, |burst| burst.0);
        Some(RateLimit {
            rate: Rate::new(requests, limit.per.0, burst),
            key: key?,
            max_keys: usize::try_from(limit.max_keys.0).ok()?,
        })
    }

    /// Reports tables that would be too large together.
    pub(super) fn rate_limit_keys<'s>(&mut self, services: impl Iterator<Item = &'s Service>) {
        let keys = services.map(|service| {
            let limits = &service.limits;
            let rates = limits
                .rates
                .iter()
                .chain(limits.versions.iter().flat_map(|version| &version.rates));
            let keyed = rates.filter(|limit| !limit.key.is_empty()).map(|limit| limit.max_keys);
            let in_flight = limits.keys_in_flight.iter().map(|limit| limit.max_keys);
            keyed.chain(in_flight).fold(0, usize::saturating_add)
        });
        let keys = keys.fold(0, usize::saturating_add);
        if keys > MAX_RATE_LIMIT_KEYS {
            let message = format!(
                "all limits with a key would remember {keys} keys: at most {MAX_RATE_LIMIT_KEYS} in a file, see `max_keys`"
            );
            self.problems.add(&Path::ROOT.key("services"), message);
        }
    }
}
