//! A version's endpoints as they are now: health, ejection, requests in flight.

mod endpoint;

pub use crate::balancing::RetryBudget;
pub use endpoint::{Endpoint, InFlight, Tried};

use crate::balancing::{Candidates, Entry, Method, Picker, most_ejected};
use crate::config::snapshot::{self, Balance};
use crate::outcome::FailureKind;
use crate::routing::Role;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The endpoints of a version, resolved.
pub struct Pool {
    pub spec: Arc<snapshot::Pool>,
    pub endpoints: Box<[Arc<Endpoint>]>,
    role: Role,
    picker: Picker,
    /// Turns of round robin: one sequence for all threads.
    turn: AtomicU64,
    /// Held while an endpoint is ejected, so that two threads together do not pass the cap. Never on the way of a
    /// request that succeeds.
    ejecting: Mutex<()>,
}

impl Pool {
    /// `threads`: worker threads of the data plane; the endpoints were made for as many.
    pub fn new(spec: Arc<snapshot::Pool>, endpoints: Box<[Arc<Endpoint>]>, role: Role, _threads: usize) -> Self {
        let method = match spec.balance {
            Balance::PowerOfTwo => Method::PowerOfTwo,
            Balance::LeastRequests => Method::LeastRequests,
            Balance::RoundRobin => Method::RoundRobin,
            Balance::Hash => Method::Hash,
        };
        let entries: Vec<Entry> = endpoints
            .iter()
            .map(|endpoint| Entry {
                weight: endpoint.weight,
                hash: endpoint.address_hash(),
            })
            .collect();
        Self {
            spec,
            endpoints,
            role,
            picker: Picker::new(method, entries),
            turn: AtomicU64::new(0),
            ejecting: Mutex::new(()),
        }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether the pool can take a request. A canary needs a usable endpoint; stable any at all, since nobody else would
    /// answer (panic mode). `now_ms`: milliseconds of [`super::Shared::uptime`], here and below.
    pub fn usable(&self, now_ms: u64) -> bool {
        match self.role {
            Role::Stable => !self.endpoints.is_empty(),
            Role::Canary => self.endpoints.iter().any(|endpoint| self.admits(endpoint, now_ms)),
        }
    }

    /// The endpoint for one attempt: a usable one that was not tried yet. For stable, when there is none, any that was not
    /// tried yet (panic mode). `None`: nothing is left.
    ///
    /// `draw`: random bits. `key`: the user's hash, for consistent hash.
    pub fn pick(
        &self,
        _thread: usize,
        now_ms: u64,
        draw: u64,
        key: Option<u32>,
        tried: &Tried,
    ) -> Option<&Arc<Endpoint>> {
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        let mut view = View {
            pool: self,
            tried,
            now_ms,
            panic: false,
        };
        let mut picked = self.picker.pick(&view, draw, key, turn);
        if picked.is_none() && self.role == Role::Stable {
            view.panic = true;
            picked = self.picker.pick(&view, draw, key, turn);
        }
        self.endpoints.get(picked?)
    }

    /// The endpoint answered well: its run of failures ends. Costs one load where there was none.
    pub fn succeeded(&self, endpoint: &Endpoint) {
        endpoint.forgive();
    }

    /// Counts a failure; `consecutive_failures` of them in a row eject the endpoint, as far as `at_most` allows.
    ///
    /// An endpoint of a canary that cannot be reached ([`FailureKind::Connect`], [`FailureKind::Reset`]) is ejected beyond
    /// the cap, to the last one, unless `at_most` is 0: without usable endpoint the canary's users go to stable, which is
    /// safe, while sending them on to a closed door is not. The cap protects what has nothing behind it.
    pub fn failed(&self, endpoint: &Endpoint, kind: FailureKind, now_ms: u64) {
        let unreachable = match kind {
            FailureKind::Connect | FailureKind::Reset => true,
            FailureKind::Timeout | FailureKind::Status5xx | FailureKind::Protocol | FailureKind::Grpc => false,
            FailureKind::NoEndpoint => return,
        };
        // What ends while the endpoint is away was begun before, or is panic mode: it does not count against its return.
        if endpoint.ejected(now_ms) {
            return;
        }
        if endpoint.blame() >= self.spec.ejection.consecutive_failures.max(1) {
            self.eject(endpoint, unreachable, now_ms);
        }
    }

    #[cold]
    fn eject(&self, endpoint: &Endpoint, unreachable: bool, now_ms: u64) {
        let ejection = &self.spec.ejection;
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        if endpoint.ejected(now_ms) {
            return;
        }
        let already = self.endpoints.iter().filter(|other| other.ejected(now_ms)).count();
        let within_cap = already < most_ejected(self.endpoints.len(), ejection.at_most);
        let beyond_cap = self.role == Role::Canary && unreachable && ejection.at_most > 0.0;
        if within_cap || beyond_cap {
            let base_ms = u64::try_from(ejection.base.as_millis()).unwrap_or(u64::MAX);
            endpoint.eject(base_ms, unreachable, now_ms);
        }
    }

    fn admits(&self, endpoint: &Endpoint, now_ms: u64) -> bool {
        // The second half matters where a stable version, assumed healthy, has become a canary before its first probe.
        endpoint.usable(now_ms) && (self.role == Role::Stable || endpoint.probed_ok())
    }
}

/// A pool as the picker sees it during one pick.
struct View<'a> {
    pool: &'a Pool,
    tried: &'a Tried,
    now_ms: u64,
    panic: bool,
}

impl Candidates for View<'_> {
    fn allowed(&self, index: usize) -> bool {
        self.pool.endpoints.get(index).is_some_and(|endpoint| {
            !self.tried.contains(endpoint) && (self.panic || self.pool.admits(endpoint, self.now_ms))
        })
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.pool
            .endpoints
            .get(index)
            .map_or(0, |endpoint| endpoint.in_flight())
    }
}

#[cfg(test)]
#[path = "pool/tests.rs"]
mod tests;
