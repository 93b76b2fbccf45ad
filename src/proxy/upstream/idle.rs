//! Idle connections to endpoints: one pool a thread, keyed by endpoint, so that versions never share a connection.

use crate::proxy::stream::Stream;
use crate::shared::Endpoint;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Idle {
    stream: Stream,
    until: Instant,
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
    by_endpoint: HashMap<usize, Entry, std::hash::BuildHasherDefault<PointerHasher>>,
}

/// Pointers are distinct already: a multiplication spreads them.
#[derive(Default)]
struct PointerHasher(u64);

impl std::hash::Hasher for PointerHasher {
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

fn key(endpoint: &Arc<Endpoint>) -> usize {
    Arc::as_ptr(endpoint).addr()
}

impl IdlePool {
    /// `most`: connections held; one more is closed instead.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            held: 0,
            by_endpoint: HashMap::default(),
        }
    }

    /// The connection used last, if it is still quiet: one that was closed, or on which something came unasked, is
    /// dropped.
    pub fn take(&mut self, endpoint: &Arc<Endpoint>) -> Option<Stream> {
        let idle = &mut self.by_endpoint.get_mut(&key(endpoint))?.idle;
        let before = idle.len();
        let found = std::iter::from_fn(|| idle.pop())
            .map(|idle| idle.stream)
            .find(Stream::is_quiet);
        self.held -= before - idle.len();
        found
    }

    /// Keeps a connection for up to `life`.
    pub fn give(&mut self, endpoint: &Arc<Endpoint>, stream: Stream, now: Instant, life: Duration) {
        if self.held >= self.most {
            return;
        }
        let entry = || Entry {
            endpoint: Arc::clone(endpoint),
            idle: Vec::new(),
        };
        let entry = self.by_endpoint.entry(key(endpoint)).or_insert_with(entry);
        // A life too long for the clock is a life without end: the peer's word then ends it.
        let until = now.checked_add(life).unwrap_or(now + Duration::from_secs(86_400));
        entry.idle.push(Idle { stream, until });
        self.held += 1;
    }

    /// Drops connections that are too old or no longer quiet, and endpoints that left the configuration.
    pub fn sweep(&mut self, now: Instant) {
        self.by_endpoint.retain(|_, entry| {
            entry.idle.retain(|idle| idle.until > now && idle.stream.is_quiet());
            entry.idle.shrink_to(entry.idle.len() * 2);
            // Other threads' pools hold it, too: an endpoint that left is given up when nothing of it is idle.
            !entry.idle.is_empty() && Arc::strong_count(&entry.endpoint) > 1
        });
        self.held = self.by_endpoint.values().map(|entry| entry.idle.len()).sum();
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.by_endpoint.clear();
        self.held = 0;
    }
}
