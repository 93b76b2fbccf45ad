//! The limits of services as they are now: rates, and requests in flight.
//!
//! One for all threads, so that a limit is the one that the file says whatever their number: a request of a service with
//! limits costs one locked instruction a limit, one of a service without them none. Nothing waits.

mod in_flight;
mod keyed;

use crate::balancing::Rate;
use crate::config::snapshot::{self, KeyInFlight, RateLimit};
use crate::routing::{KeySource, RequestView, first_key};
use in_flight::KeyedGates;
pub use in_flight::{Full, InsideOfKey};
use keyed::KeyedBuckets;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A service's limits; kept while its name stays.
#[derive(Default)]
pub struct ServiceLimits {
    /// Of the whole service.
    pub rates: Rates,
    /// Likewise.
    pub in_flight: Arc<Gate>,
    /// Parallel to those of the file, and how they are told apart.
    keys: Box<[(KeyInFlight, Arc<KeyedGates>)]>,
    rejected_by_key: Arc<AtomicU64>,
    /// Parallel to its versions.
    versions: Box<[VersionLimits]>,
}

/// A version's limits; kept while its name stays.
pub struct VersionLimits {
    name: Box<str>,
    pub rates: Rates,
    pub in_flight: Arc<Gate>,
}

impl ServiceLimits {
    /// These limits with the next file: what did not change goes on, a rate that changed begins anew.
    pub fn next<'n>(&self, spec: &snapshot::ServiceLimits, versions: impl Iterator<Item = &'n str>) -> Self {
        let version = |(index, name): (usize, &str)| {
            let same = self.versions.iter().find(|known| *known.name == *name);
            let rates = spec.of_version(index).map_or(&[][..], |limits| &limits.rates);
            VersionLimits {
                name: name.into(),
                rates: same.map_or(&Rates::default(), |known| &known.rates).next(rates),
                in_flight: same.map_or_else(Arc::default, |known| Arc::clone(&known.in_flight)),
            }
        };
        let gates = |spec: &KeyInFlight| {
            // Who is inside stays inside, also where another number may be.
            let same = |known: &KeyInFlight| known.key == spec.key && known.max_keys == spec.max_keys;
            let same = self.keys.iter().find(|(known, _)| same(known));
            let gates = same.map_or_else(
                || Arc::new(KeyedGates::new(spec.max_keys)),
                |(_, gates)| Arc::clone(gates),
            );
            (spec.clone(), gates)
        };
        Self {
            rates: self.rates.next(&spec.rates),
            in_flight: Arc::clone(&self.in_flight),
            keys: spec.keys_in_flight.iter().map(gates).collect(),
            rejected_by_key: Arc::clone(&self.rejected_by_key),
            versions: versions.enumerate().map(version).collect(),
        }
    }

    /// One more of each of the request's keys, until the result is dropped.
    ///
    /// # Errors
    /// One of them has as many inside as it may; then none is counted.
    pub fn enter_keys(&self, request: &RequestView<'_>) -> Result<Vec<InsideOfKey>, Full> {
        let mut all = Vec::new();
        for (spec, gates) in &self.keys {
            let entered = with_key(&spec.key, request, |key| gates.enter(&key, spec.most)).transpose();
            let entered = entered.inspect_err(|_| {
                self.rejected_by_key.fetch_add(1, Ordering::Relaxed);
            })?;
            all.extend(entered.flatten());
        }
        Ok(all)
    }

    /// Of the version at this position.
    pub fn version(&self, version: usize) -> Option<&VersionLimits> {
        self.versions.get(version)
    }

    /// Requests whose key had too many in flight.
    pub fn rejected_by_key(&self) -> u64 {
        self.rejected_by_key.load(Ordering::Relaxed)
    }
}

/// Rates that requests must pass.
#[derive(Default)]
pub struct Rates {
    /// Parallel to those of the file.
    limiters: Box<[Arc<RateLimiter>]>,
    rejected: Arc<AtomicU64>,
}

impl Rates {
    fn next(&self, specs: &[RateLimit]) -> Self {
        let rate = |spec: &RateLimit| {
            let same = self.limiters.iter().find(|limiter| limiter.spec == *spec);
            same.map_or_else(|| Arc::new(RateLimiter::new(spec.clone())), Arc::clone)
        };
        Self {
            limiters: specs.iter().map(rate).collect(),
            rejected: Arc::clone(&self.rejected),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.limiters.is_empty()
    }

    /// Whether all let this request in. `now`: time since the process began.
    ///
    /// A request that one refuses takes from none: all are looked at before anything is taken. What another thread takes
    /// meanwhile is seen while taking, and what was taken until then is given back, unless somebody has taken after it: then it
    /// stays taken, so that no limit ever lets in more than it allows.
    ///
    /// # Errors
    /// Some do not: how long until they would.
    pub fn take(&self, request: &RequestView<'_>, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let waits = self.limiters.iter().filter_map(|rate| rate.wait(request, now));
        match waits.max() {
            Some(longest) => Err(longest),
            None => take_all(&self.limiters, request, now),
        }
    }

    /// A request was turned away by one of them.
    pub fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were turned away.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
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
        let entered = self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        entered.ok().map(|_| Inside(Arc::clone(self)))
    }

    /// A request was turned away by it.
    pub fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were turned away.
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

    /// How long until it lets the request in; `None`: now.
    fn wait(&self, request: &RequestView<'_>, now: u64) -> Option<Duration> {
        let rate = &self.spec.rate;
        let arrival = match &self.buckets {
            Buckets::One(arrival) => arrival.load(Ordering::Relaxed),
            Buckets::Keyed(buckets) => with_key(&self.spec.key, request, |key| buckets.arrival(&key))?,
        };
        rate.take(arrival, now).err()
    }

    /// `None`: nothing had to be taken.
    fn take(&self, request: &RequestView<'_>, now: u64) -> Result<Option<Taken<'_>>, Duration> {
        let rate = &self.spec.rate;
        match &self.buckets {
            Buckets::One(arrival) => take(rate, arrival, now).map(Some),
            Buckets::Keyed(buckets) => {
                with_key(&self.spec.key, request, |key| buckets.take(rate, &key, now)).unwrap_or(Ok(None))
            }
        }
    }
}

/// From each, or from none. As deep as a file may have limits.
fn take_all(limiters: &[Arc<RateLimiter>], request: &RequestView<'_>, now: u64) -> Result<(), Duration> {
    let Some((first, others)) = limiters.split_first() else {
        return Ok(());
    };
    let taken = first.take(request, now)?;
    take_all(others, request, now).inspect_err(|_| {
        if let Some(taken) = taken {
            taken.give_back();
        }
    })
}

/// One that was taken from a bucket.
struct Taken<'b> {
    arrival: &'b AtomicU64,
    before: u64,
    after: u64,
}

impl Taken<'_> {
    /// Where nobody has taken since. Who has may have found the bucket full, with nothing in it to be given back.
    fn give_back(self) {
        let _ = self
            .arrival
            .compare_exchange(self.after, self.before, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// What `count` makes of whose limit it is; `None`: the request has none of the sources. The source belongs to the key:
/// nobody can use up an address's limit by a header that names it.
fn with_key<T>(sources: &[KeySource], request: &RequestView<'_>, count: impl FnOnce((usize, &[u8])) -> T) -> Option<T> {
    let request = RequestView {
        client_ip: network_of(request.canonical_client_ip()),
        ..*request
    };
    let (source, key) = first_key(sources, &request)?;
    Some(count((source, key.as_bytes())))
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
fn take<'b>(rate: &Rate, arrival: &'b AtomicU64, now: u64) -> Result<Taken<'b>, Duration> {
    let mut seen = arrival.load(Ordering::Relaxed);
    loop {
        let next = rate.take(seen, now)?;
        // Whoever fails has been overtaken by one that succeeded.
        match arrival.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(before) => {
                return Ok(Taken {
                    arrival,
                    before,
                    after: next,
                });
            }
            Err(newer) => seen = newer,
        }
    }
}

#[cfg(test)]
mod tests;
