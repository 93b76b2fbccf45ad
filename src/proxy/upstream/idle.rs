//! Idle connections to endpoints: one pool a thread, keyed by endpoint, so that versions never share a connection.

use super::Connection;
use crate::opening::Addresses;
use crate::shared::Endpoint;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a connection is kept that may serve one client alone.
pub(super) const BOUND_LIFE: Duration = Duration::from_secs(15);

struct Idle {
    connection: Connection,
    until: Instant,
}

impl Idle {
    /// Whether nothing has come in, and what it was made by still holds.
    fn is_good(&self, edition: u64) -> bool {
        self.connection.edition == edition && self.connection.stream.is_quiet()
    }
}

struct Entry {
    /// Held so that the address that is the key stays this endpoint's.
    endpoint: Arc<Endpoint>,
    idle: Vec<Idle>,
}

/// The idle connections of one thread, up to a bound over all endpoints.
pub struct IdlePool {
    most: usize,
    held: usize,
    by_use: HashMap<Key, Entry, BuildHasherDefault<PointerHasher>>,
}

/// What a connection is of use for.
#[derive(PartialEq, Eq)]
pub(super) struct Key {
    endpoint: usize,
    /// What it was told it is for (`send_proxy_protocol`), the ports as well: it may serve nothing else.
    told: Option<Addresses>,
}

impl Key {
    pub(super) fn new(endpoint: &Arc<Endpoint>, told: Option<Addresses>) -> Self {
        Self {
            endpoint: Arc::as_ptr(endpoint).addr(),
            told,
        }
    }
}

impl Hash for Key {
    /// Of the endpoint alone, mostly: one multiplication.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.endpoint);
        if let Some(told) = self.told {
            told.hash(state);
        }
    }
}

/// Pointers are distinct already: a multiplication spreads them.
#[derive(Default)]
pub(super) struct PointerHasher(u64);

impl Hasher for PointerHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(usize::from(byte));
        }
    }

    fn write_usize(&mut self, n: usize) {
        self.0 = (self.0 ^ n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    }
}

impl IdlePool {
    /// `most`: connections held; one more is closed instead.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            held: 0,
            by_use: HashMap::default(),
        }
    }

    /// The connection used last, if it is still quiet: one that was closed, on which something came unasked, or that was
    /// made by TLS settings of before is dropped. `told`: what it was told it is for, if such connections are.
    pub fn take(&mut self, endpoint: &Arc<Endpoint>, told: Option<Addresses>) -> Option<Connection> {
        let idle = &mut self.by_use.get_mut(&Key::new(endpoint, told))?.idle;
        let before = idle.len();
        let edition = endpoint.transport.edition();
        let found = std::iter::from_fn(|| idle.pop())
            .find(|idle| idle.is_good(edition))
            .map(|idle| idle.connection);
        self.held -= before - idle.len();
        found
    }

    /// Keeps a connection for up to `life`, for the next that takes one for the same endpoint, which is told the same.
    pub fn give(
        &mut self,
        endpoint: &Arc<Endpoint>,
        told: Option<Addresses>,
        connection: Connection,
        now: Instant,
        life: Duration,
    ) {
        if self.held >= self.most {
            return;
        }
        let entry = || Entry {
            endpoint: Arc::clone(endpoint),
            idle: Vec::new(),
        };
        let entry = self.by_use.entry(Key::new(endpoint, told)).or_insert_with(entry);
        let life = if told.is_some() { life.min(BOUND_LIFE) } else { life };
        // A life too long for the clock is a life without end: the peer's word then ends it.
        let until = now.checked_add(life).unwrap_or(now + Duration::from_secs(86_400));
        let connection = Connection {
            reused: true,
            ..connection
        };
        entry.idle.push(Idle { connection, until });
        self.held += 1;
    }

    /// Drops connections that are too old or no longer quiet, and endpoints that left the configuration.
    pub fn sweep(&mut self, now: Instant) {
        self.by_use.retain(|_, entry| {
            let edition = entry.endpoint.transport.edition();
            entry.idle.retain(|idle| idle.until > now && idle.is_good(edition));
            entry.idle.shrink_to(entry.idle.len() * 2);
            // Other threads' pools hold it, too: an endpoint that left is given up when nothing of it is idle.
            !entry.idle.is_empty() && Arc::strong_count(&entry.endpoint) > 1
        });
        self.held = self.by_use.values().map(|entry| entry.idle.len()).sum();
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.by_use.clear();
        self.held = 0;
    }
}
