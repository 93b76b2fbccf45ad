//! What share of a service's requests each version really got, lately.

use crate::shared::{InForce, VersionStats};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Samples kept, one a second: the oldest is 60 s old.
const SAMPLES: usize = 61;

/// The requests of each version in force over the last 60 seconds. Bounded by the versions of the configuration.
#[derive(Default)]
pub struct ShareWindow {
    /// By address of the statistics, which the ring keeps alive: an address is not used twice.
    rings: HashMap<usize, Ring>,
}

struct Ring {
    stats: Arc<VersionStats>,
    /// Requests begun until then, oldest first.
    begun: VecDeque<u64>,
    /// In force when the last sample was taken.
    seen: bool,
}

impl ShareWindow {
    /// Takes a sample of every version in force and forgets those that left; to be called once a second.
    pub fn sample(&mut self, in_force: &InForce) {
        for version in in_force.services.iter().flat_map(|service| &service.versions) {
            let ring = self.rings.entry(address(&version.stats)).or_insert_with(|| Ring {
                stats: Arc::clone(&version.stats),
                begun: VecDeque::with_capacity(SAMPLES),
                seen: true,
            });
            ring.seen = true;
            if ring.begun.len() == SAMPLES {
                ring.begun.pop_front();
            }
            ring.begun.push_back(ring.stats.begun());
        }
        self.rings.retain(|_, ring| std::mem::take(&mut ring.seen));
    }

    /// Requests that began on the version within the window; all of them while the version is younger than that.
    pub fn requests(&self, version: &Arc<VersionStats>) -> u64 {
        let before = self
            .rings
            .get(&address(version))
            .filter(|ring| ring.begun.len() == SAMPLES)
            .and_then(|ring| ring.begun.front().copied())
            .unwrap_or(0);
        version.begun().saturating_sub(before)
    }
}

fn address(stats: &Arc<VersionStats>) -> usize {
    Arc::as_ptr(stats) as usize
}
