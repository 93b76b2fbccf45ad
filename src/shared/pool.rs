//! A version's endpoints as they are now: health, ejection, requests in flight.

use crate::config::snapshot;
use std::net::SocketAddr;
use std::sync::Arc;

/// One address of a pool.
pub struct Endpoint {
    /// As written in the file.
    pub label: Box<str>,
    pub address: SocketAddr,
    pub weight: u32,
}

/// A request in flight on an endpoint, counted until it is dropped.
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    thread: usize,
}

/// The endpoints one request has already tried.
#[derive(Default)]
pub struct Tried {}

/// Retries a pool allows: one a thread.
pub struct RetryBudget {}

/// The endpoints of a version, resolved.
pub struct Pool {
    pub spec: Arc<snapshot::Pool>,
    pub endpoints: Box<[Arc<Endpoint>]>,
}
