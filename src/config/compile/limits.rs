//! How much a service takes.

use super::{Context, MAX_KEY_SOURCES, MAX_RATE_LIMIT_KEYS, MAX_RATE_LIMITS};
use crate::balancing::Rate;
use crate::config::decode::List;
use crate::config::problem::Path;
use crate::config::schema;
use crate::config::snapshot::{RateLimit, Service, ServiceLimits};
use std::time::Duration;

/// Beyond it a rate is a quota, which a restart would refill.
const LONGEST_PER: Duration = Duration::from_secs(86_400);

impl Context<'_> {
    pub(super) fn service_limits(
        &mut self,
        service: &schema::Service,
        versions: &List<schema::Version>,
        path: &Path<'_>,
    ) -> Option<ServiceLimits> {
        let here = path.key("rate_limits");
        if !self.count(&service.rate_limits, 0, MAX_RATE_LIMITS, "rate limits", &here) {
            return None;
        }
        let rates = service
            .rate_limits
            .compile(|index, limit| self.rate_limit(limit, &here.index(index)));
        let mut rates = rates?.into_vec();
        rates.sort_by_key(|limit| limit.key.is_empty());
        let most = |limit: schema::InFlight| u32::try_from(limit.0).ok();
        let of_versions: Vec<Option<u32>> = versions
            .iter()
            .map(|(_, version)| version.max_in_flight.and_then(most))
            .collect();
        let limited = of_versions.iter().any(Option::is_some);
        Some(ServiceLimits {
            rates: rates.into(),
            max_in_flight: service.max_in_flight.and_then(most),
            versions: if limited { of_versions.into() } else { Box::default() },
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
        let rates = services.flat_map(|service| &service.limits.rates);
        let keyed = rates.filter(|limit| !limit.key.is_empty());
        let keys = keyed.fold(0_usize, |sum, limit| sum.saturating_add(limit.max_keys));
        if keys > MAX_RATE_LIMIT_KEYS {
            let message = format!(
                "all `rate_limits` with a key would remember {keys} keys: at most {MAX_RATE_LIMIT_KEYS} in a file, see \
                 `max_keys`"
            );
            self.problems.add(&Path::ROOT.key("services"), message);
        }
    }
}
