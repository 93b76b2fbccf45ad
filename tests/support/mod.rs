//! What the integration tests share: the real binary ([`Gate`]), upstreams that obey or misbehave ([`Upstream`],
//! [`Nginx`], [`Blackhole`]), a client that sees every byte ([`Client`]). Plain threads and sockets: nothing here
//! shares code with what it tests.

// Each test crate uses a part of this, and none of it is compiled into the product.
#![allow(dead_code, unused_imports)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod api;
mod client;
mod config;
mod dam;
pub mod frames;
mod gate;
mod haproxy;
mod lint;
mod metrics;
mod nginx;
mod operator;
mod port;
mod prometheus;
mod python;
pub mod rollouts;
mod tls;
mod upstream;
mod wire;

pub use api::{ApiAnswer, ApiSite, ask_tcp, authorization};
pub use client::{Broken, Client, Response, WEB_SOCKET};
pub use config::{Config, Service};
pub use dam::{Dam, Stop};
pub use gate::{Exit, Gate, Write, lives, rollgate, signal};
pub use haproxy::Haproxy;
pub use lint::lint_forwarded_request;
pub use metrics::Metrics;
pub use nginx::Nginx;
pub use operator::{Operator, Told};
pub use port::Port;
pub use prometheus::Prometheus;
pub use python::{python_file, python_program};
pub use tls::{Authority, Leaf, Trust, Wire, der, file, self_signed};
pub use upstream::{Blackhole, Exchange, Received, Shaken, Then, Upstream, reset};
pub use wire::Head;

use std::time::{Duration, Instant};

/// How long anything may take that no promise bounds: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a busy machine may add to a time that is promised. A broken promise takes longer than both.
pub const SLACK: Duration = Duration::from_secs(5);

/// Waits until `holds`, and panics with `what` after `within`. Returns how long it took.
pub fn eventually(within: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// The time that half of these did not take.
pub fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

/// Runs `work` on `threads` threads and gives back what each returned. A panic in one is a panic here.
pub fn in_parallel<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
