//! The limits of services as they are now: rates, and requests in flight.
//!
//! One for all threads, so that a limit is the one that the file says whatever their number: a request of a service with
//! limits costs one locked instruction a limit, one of a service without them none. Nothing waits.

mod keyed;

use crate::balancing::Rate;
use crate::config::snapshot::RateLimit;
use crate::routing::{RequestView, first_key};
use keyed::KeyedBuckets;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A service's limits; kept while its name stays.
#[derive(Default)]
pub struct ServiceLimits {
    /// Parallel to those of the file.
    rates: Box<[Arc<RateLimiter>]>,
    rejected_by_rate: Arc<AtomicU64>,
    /// Of the whole service.
    pub in_flight: Arc<Gate>,
    /// By name; parallel to its versions.
    versions: Box<[(Box<str>, Arc<Gate>)]>,
}

impl ServiceLimits {
    /// These limits with the next file: what did not change goes on, a rate that changed begins anew.
    pub fn next<'n>(&self, rates: &[RateLimit], versions: impl Iterator<Item = &'n str>) -> Self {
        let rate = |spec: &RateLimit| {
            let same = self.rates.iter().find(|limiter| limiter.spec == *spec);
            same.map_or_else(|| Arc::new(RateLimiter::new(spec.clone())), Arc::clone)
        };
        let gate = |name: &str| {
            let same = self.versions.iter().find(|(known, _)| **known == *name);
            (
                name.into(),
                same.map_or_else(Arc::default, |(_, gate)| Arc::clone(gate)),
            )
        };
        Self {
            rates: rates.iter().map(rate).collect(),
            rejected_by_rate: Arc::clone(&self.rejected_by_rate),
            in_flight: Arc::clone(&self.in_flight),
            versions: versions.map(gate).collect(),
        }
    }

    /// Whether all rates let this request in. `now`: time since the process began.
    ///
    /// # Errors
    /// One does not: how long until it would.
    pub fn take(&self, request: &RequestView<'_>, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let taken = self.rates.iter().try_for_each(|rate| rate.take(request, now));
        taken.inspect_err(|_| {
            self.rejected_by_rate.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Of the version at this position.
    pub fn version(&self, version: usize) -> Option<&Arc<Gate>> {
        self.versions.get(version).map(|(_, gate)| gate)
    }

    /// Requests that a rate did not let in.
    pub fn rejected_by_rate(&self) -> u64 {
        self.rejected_by_rate.load(Ordering::Relaxed)
    }
}

/// Requests in flight behind a limit.
#[derive(Default)]
pub struct Gate {
    inside: AtomicU32,
    rejected: AtomicU64,
}

impl Gate {
    /// One more, until the result is dropped; `None`: `most` are inside already. Exact over all threads.
    pub fn enter(self: &Arc<Self>, most: u32) -> Option<Inside> {
        let next = |inside: u32| (inside < most).then(|| inside + 1);
        match self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Some(Inside(Arc::clone(self))),
            Err(_) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Requests that were not let in.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }
}

/// A request behind a [`Gate`].
pub struct Inside(Arc<Gate>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One rate, for all or for each key.
struct RateLimiter {
    spec: RateLimit,
    buckets: Buckets,
}

enum Buckets {
    One(AtomicU64),
    Keyed(KeyedBuckets),
}

impl RateLimiter {
    fn new(spec: RateLimit) -> Self {
        let buckets = if spec.key.is_empty() {
            Buckets::One(AtomicU64::new(0))
        } else {
            Buckets::Keyed(KeyedBuckets::new(spec.max_keys))
        };
        Self { spec, buckets }
    }

    fn take(&self, request: &RequestView<'_>, now: u64) -> Result<(), Duration> {
        let rate = &self.spec.rate;
        match &self.buckets {
            Buckets::One(arrival) => take(rate, arrival, now),
            Buckets::Keyed(buckets) => {
                let request = RequestView {
                    client_ip: network_of(request.canonical_client_ip()),
                    ..*request
                };
                match first_key(&self.spec.key, &request) {
                    // The source belongs to the key: nobody can use up an address's rate by a header that names it.
                    Some((source, key)) => buckets.take(rate, &(source, key.as_bytes()), now),
                    None => Ok(()),
                }
            }
        }
    }
}

/// An IPv6 client has a network of its own, and changes its address in it as it likes: 64 bits are who it is.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

/// One more from the bucket at `arrival`.
fn take(rate: &Rate, arrival: &AtomicU64, now: u64) -> Result<(), Duration> {
    let mut seen = arrival.load(Ordering::Relaxed);
    loop {
        let next = rate.take(seen, now)?;
        // Whoever fails has been overtaken by one that succeeded.
        match arrival.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(newer) => seen = newer,
        }
    }
}

#[cfg(test)]
mod tests;
