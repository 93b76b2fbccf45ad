//! One address: counted by the data plane, probed by the control plane.

use crate::balancing::{Ejections, Health, address_hash};
use crate::config::snapshot::HealthCheck;
use crate::shared::tls::Transport;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const HEALTHY: u8 = 1;
const PROBED: u8 = 1 << 1;
const PROBED_OK: u8 = 1 << 2;

/// Changes of an endpoint's state are logged at most once in so many milliseconds.
const LOG_EVERY_MS: u64 = 1_000;

/// One address of a pool.
///
/// The atomics are what requests read; `standing` is where they come from, locked only when something changes.
pub struct Endpoint {
    /// As written in the file.
    pub label: Box<str>,
    pub address: SocketAddr,
    pub weight: u32,
    pub transport: Transport,
    /// Service and version, for the log.
    owner: Box<str>,
    hash: u64,
    /// One a thread.
    in_flight: Box<[ThreadCell]>,
    health: AtomicU8,
    ejected_until_ms: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    standing: Mutex<Standing>,
}

/// Written by one thread alone, so that a plain load and store count without a locked instruction; on a cache line of its
/// own, so that threads do not disturb each other.
#[repr(align(64))]
#[derive(Default)]
struct ThreadCell(AtomicU32);

struct Standing {
    health: Health,
    ejections: Ejections,
    logged_ms: Option<u64>,
    /// Changes since then that were not logged.
    unlogged: u32,
}

impl Endpoint {
    /// `owner`: `service/version`, for the log. `assumed_healthy`: before the first probe; true for stable, false for a
    /// canary. `threads`: worker threads of the data plane.
    pub fn new(
        owner: impl Into<Box<str>>,
        label: impl Into<Box<str>>,
        address: SocketAddr,
        weight: u32,
        assumed_healthy: bool,
        threads: usize,
    ) -> Self {
        let health = Health::assumed(assumed_healthy);
        Self {
            label: label.into(),
            address,
            weight,
            transport: Transport::default(),
            owner: owner.into(),
            hash: address_hash(address),
            in_flight: (0..threads.max(1)).map(|_| ThreadCell::default()).collect(),
            health: AtomicU8::new(bits(health)),
            ejected_until_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            standing: Mutex::new(Standing {
                health,
                ejections: Ejections::default(),
                logged_ms: None,
                unlogged: 0,
            }),
        }
    }

    /// The same, not used yet, with connections made otherwise than as plain TCP.
    #[must_use]
    pub fn over(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// The same address with another weight: what is known of it is kept, its requests in flight are counted anew.
    #[must_use]
    pub fn reweighted(&self, weight: u32) -> Self {
        let next = Self::new(
            self.owner.clone(),
            self.label.clone(),
            self.address,
            weight,
            false,
            self.in_flight.len(),
        )
        .over(self.transport.clone());
        {
            let (from, mut to) = (self.standing(), next.standing());
            to.health = from.health;
            to.ejections = from.ejections;
            next.health.store(bits(to.health), Ordering::Relaxed);
            next.ejected_until_ms.store(to.ejections.until_ms(), Ordering::Relaxed);
        }
        next
    }

    /// Counts a request on this endpoint until the result is dropped, on the same thread. `thread`: position of the calling
    /// worker thread; a request of a thread that the endpoint was not made for is not counted.
    pub fn begin(self: &Arc<Self>, thread: usize) -> InFlight {
        if let Some(ThreadCell(cell)) = self.in_flight.get(thread) {
            cell.store(cell.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        }
        InFlight {
            endpoint: Arc::clone(self),
            thread,
        }
    }

    /// Requests in flight, over all threads.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.iter().fold(0, |sum: u32, ThreadCell(cell)| {
            sum.saturating_add(cell.load(Ordering::Relaxed))
        })
    }

    /// Healthy and not ejected.
    pub fn usable(&self, now_ms: u64) -> bool {
        self.healthy() && !self.ejected(now_ms)
    }

    /// What active probes say, or what was assumed before the first.
    pub fn healthy(&self) -> bool {
        self.has(HEALTHY)
    }

    /// Whether any probe has ended.
    pub fn probed(&self) -> bool {
        self.has(PROBED)
    }

    /// Whether any probe has succeeded.
    pub fn probed_ok(&self) -> bool {
        self.has(PROBED_OK)
    }

    /// Whether it is left alone because of failures.
    pub fn ejected(&self, now_ms: u64) -> bool {
        now_ms < self.ejected_until_ms.load(Ordering::Relaxed)
    }

    /// The address as a number, for consistent hash.
    pub fn address_hash(&self) -> u64 {
        self.hash
    }

    /// Takes note of an active probe that ran from `began_ms` to `now_ms`; `failure`: why it failed, `None` if it did not.
    /// Returns whether a success is being confirmed: the endpoint is still unhealthy, though this probe succeeded.
    pub fn probe_ended(&self, failure: Option<&dyn Display>, check: &HealthCheck, began_ms: u64, now_ms: u64) -> bool {
        let success = failure.is_none();
        let mut standing = self.standing();
        let was = standing.health;
        let health = was.after(success, check.healthy_after, check.unhealthy_after);
        standing.health = health;
        self.health.store(bits(health), Ordering::Relaxed);

        let until_ms = standing.ejections.until_ms();
        standing.ejections = standing.ejections.probed(success, began_ms, now_ms);
        let reached = standing.ejections.until_ms() != until_ms;
        if reached {
            self.ejected_until_ms
                .store(standing.ejections.until_ms(), Ordering::Relaxed);
        }

        let turned = health.healthy() != was.healthy() || !was.probed() && !success;
        // The last word must not be one that is no longer true.
        let overdue = standing.unlogged > 0 && standing.may_log(now_ms);
        let news = (turned || reached || overdue).then(|| standing.news(now_ms)).flatten();
        drop(standing);
        match (news, failure) {
            (Some(news), None) if turned => self.log(&news, &"healthy"),
            (Some(news), Some(failure)) if turned => self.log(&news, &format_args!("unhealthy: {failure}")),
            (Some(news), _) if reached => self.log(&news, &"reachable again"),
            (Some(news), _) => self.log(&news, &"changed meanwhile"),
            (None, _) => {}
        }
        health.recovering()
    }

    /// One more failure; returns how many came in a row.
    pub(super) fn blame(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Ends the run of failures. Looks before it writes: the line stays shared among the threads.
    pub(super) fn forgive(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn eject(&self, base_ms: u64, unreachable: bool, now_ms: u64) {
        let mut standing = self.standing();
        standing.ejections = standing.ejections.eject(now_ms, base_ms, unreachable);
        self.ejected_until_ms
            .store(standing.ejections.until_ms(), Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        let news = standing.news(now_ms);
        drop(standing);
        if let Some(news) = news {
            self.log(&news, &"ejected: it failed again and again");
        }
    }

    fn has(&self, bit: u8) -> bool {
        self.health.load(Ordering::Relaxed) & bit != 0
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without the lock of `standing`: whoever waits for that must not wait for the log.
    fn log(&self, news: &News, what: &dyn Display) {
        let News {
            healthy,
            ejected_for_ms,
            unlogged_changes,
        } = *news;
        let (version, endpoint, address) = (&self.owner, &self.label, &self.address);
        if healthy && ejected_for_ms == 0 {
            tracing::info!(%version, %endpoint, %address, healthy, ejected_for_ms, unlogged_changes, "endpoint {what}");
        } else {
            tracing::warn!(%version, %endpoint, %address, healthy, ejected_for_ms, unlogged_changes, "endpoint {what}");
        }
    }
}

/// What a line of the log says of an endpoint.
struct News {
    healthy: bool,
    ejected_for_ms: u64,
    unlogged_changes: u32,
}

impl Standing {
    fn may_log(&self, now_ms: u64) -> bool {
        self.logged_ms
            .is_none_or(|at| now_ms >= at.saturating_add(LOG_EVERY_MS))
    }

    /// What to log of a change. At most once a second, `None` in between: an endpoint that flaps must not fill the log.
    fn news(&mut self, now_ms: u64) -> Option<News> {
        if !self.may_log(now_ms) {
            self.unlogged = self.unlogged.saturating_add(1);
            return None;
        }
        self.logged_ms = Some(now_ms);
        Some(News {
            healthy: self.health.healthy(),
            ejected_for_ms: self.ejections.until_ms().saturating_sub(now_ms),
            unlogged_changes: std::mem::take(&mut self.unlogged),
        })
    }
}

fn bits(health: Health) -> u8 {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    bit(health.healthy(), HEALTHY) | bit(health.probed(), PROBED) | bit(health.probed_ok(), PROBED_OK)
}

/// A request in flight on an endpoint, counted until it is dropped.
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    thread: usize,
}

impl InFlight {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(ThreadCell(cell)) = self.endpoint.in_flight.get(self.thread) {
            cell.store(cell.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        }
    }
}

/// The endpoints one request has already tried, by address: at most [`Tried::MOST`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    hashes: [u64; Self::MOST],
    count: u8,
}

impl Tried {
    /// How many it remembers; more attempts than that are not remembered, so do not make them.
    pub const MOST: usize = 4;

    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers an endpoint; when full, does nothing.
    pub fn add(&mut self, endpoint: &Arc<Endpoint>) {
        if let Some(place) = self.hashes.get_mut(usize::from(self.count)) {
            *place = endpoint.address_hash();
            self.count += 1;
        }
    }

    pub fn contains(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.hashes
            .iter()
            .take(self.len())
            .any(|&hash| hash == endpoint.address_hash())
    }

    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
