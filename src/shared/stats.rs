//! Live counters: one shard a thread, written by that thread alone, summed by whoever reads.

use crate::outcome::Outcome;
use std::time::Duration;

/// How a request ended, for the counters.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The status sent, or 499 for a client that left.
    pub status: u16,
    pub outcome: Outcome,
    pub duration: Duration,
    /// Upgraded connections count, their duration does not.
    pub upgraded: bool,
}

/// The golden signals of one version.
pub struct VersionStats {}

/// What one worker thread counts beside versions.
#[derive(Default)]
pub struct ThreadStats {}
