//! Active health: every endpoint in force is probed, at its pool's pace, whether or not requests come.

mod probe;

use self::probe::{ProbeError, probe};
use crate::config::snapshot::HealthCheck;
use crate::shared::{Endpoint, InForce, Shared};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;

/// A publication is noticed after so long, if nobody says so.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Probes under way at once.
const PROBES_MOST: usize = 256;
/// The shortest interval, whatever the file says.
const SHORTEST: Duration = Duration::from_millis(10);

/// Probes the endpoints of what is in force.
pub struct HealthChecker {
    shared: Arc<Shared>,
    published: Notify,
}

impl HealthChecker {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            published: Notify::new(),
        }
    }

    /// To be called after a publication: endpoints that it brought are probed at once, rather than within 100 ms.
    pub fn published(&self) {
        self.published.notify_one();
    }

    /// Probes until it is dropped. Endpoints that stay in force are probed on across publications; probes of others end.
    pub async fn run(&self) -> Infallible {
        let mut probes = Probes {
            shared: Arc::clone(&self.shared),
            slots: Arc::new(Semaphore::new(PROBES_MOST)),
            tasks: JoinSet::new(),
            running: HashMap::new(),
        };
        let mut generation = None;
        loop {
            let in_force = self.shared.load();
            if generation != Some(in_force.generation) {
                generation = Some(in_force.generation);
                probes.follow(&in_force);
            }
            drop(in_force);
            tokio::select! {
                () = self.published.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Some(ended) = probes.tasks.join_next() => probes.ended(ended),
            }
        }
    }
}

/// Waits until every endpoint in force has been probed once, `bound` at the longest. Returns whether all were.
pub async fn first_pass(shared: &Shared, bound: Duration) -> bool {
    let all_probed = async {
        while !endpoints(&shared.load()).all(|(endpoint, _)| endpoint.probed()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(bound, all_probed).await.is_ok()
}

fn endpoints(in_force: &InForce) -> impl Iterator<Item = (&Arc<Endpoint>, &HealthCheck)> {
    let versions = in_force.services.iter().flat_map(|service| &service.versions);
    versions.flat_map(|version| {
        version
            .pool
            .endpoints
            .iter()
            .map(|e| (e, &version.pool.spec.health_check))
    })
}

/// One task an endpoint.
struct Probes {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
    /// By the endpoint's [`place`].
    running: HashMap<usize, Running>,
}

struct Running {
    endpoint: Arc<Endpoint>,
    check: HealthCheck,
    task: AbortHandle,
}

/// Where an endpoint is in memory: its own as long as somebody holds it. Only compared.
fn place(endpoint: &Arc<Endpoint>) -> usize {
    Arc::as_ptr(endpoint).addr()
}

impl Probes {
    fn follow(&mut self, in_force: &InForce) {
        let mut wanted = HashSet::new();
        for (endpoint, check) in endpoints(in_force) {
            let place = place(endpoint);
            wanted.insert(place);
            if self.running.get(&place).is_some_and(|running| running.check == *check) {
                continue;
            }
            let next = Running {
                endpoint: Arc::clone(endpoint),
                check: check.clone(),
                task: self.spawn(endpoint, check, Duration::ZERO),
            };
            if let Some(before) = self.running.insert(place, next) {
                before.task.abort();
            }
        }
        self.running.retain(|place, running| {
            let keep = wanted.contains(place);
            if !keep {
                running.task.abort();
            }
            keep
        });
    }

    /// A probe loop never ends by itself: it was stopped, or it panicked and is begun again.
    fn ended(&mut self, ended: Result<(), JoinError>) {
        let Err(error) = ended else { return };
        if error.is_cancelled() {
            return;
        }
        let lost = self.running.values().find(|running| running.task.id() == error.id());
        let Some((endpoint, check)) = lost.map(|lost| (Arc::clone(&lost.endpoint), lost.check.clone())) else {
            return;
        };
        tracing::error!(endpoint = %endpoint.label, %error, "probing an endpoint broke off, beginning again");
        let task = self.spawn(&endpoint, &check, check.every.max(Duration::from_secs(1)));
        if let Some(running) = self.running.get_mut(&place(&endpoint)) {
            running.task = task;
        }
    }

    fn spawn(&mut self, endpoint: &Arc<Endpoint>, check: &HealthCheck, delay: Duration) -> AbortHandle {
        let (shared, slots) = (Arc::clone(&self.shared), Arc::clone(&self.slots));
        let (endpoint, check) = (Arc::clone(endpoint), check.clone());
        self.tasks.spawn(async move {
            tokio::time::sleep(delay).await;
            watch(&shared, &slots, &endpoint, &check).await;
        })
    }
}

/// Probes one endpoint on and on.
async fn watch(shared: &Shared, slots: &Semaphore, endpoint: &Endpoint, check: &HealthCheck) {
    let mut first = true;
    loop {
        let Ok(slot) = slots.acquire().await else { return };
        let (began, began_ms) = (Instant::now(), uptime_ms(shared));
        let failure = match tokio::time::timeout(check.timeout, probe(endpoint, check)).await {
            Ok(result) => result.err(),
            Err(_) => Some(ProbeError::Timeout),
        };
        drop(slot);
        let reason = failure.as_ref().map(|failure| failure as &dyn std::fmt::Display);
        let confirming = endpoint.probe_ended(reason, check, began_ms, uptime_ms(shared));
        tokio::time::sleep_until(began + pause(check.every, first, confirming, fastrand::f64())).await;
        first = false;
    }
}

/// From the beginning of a probe to the beginning of the next: `every` or a little less, so that probes of many endpoints
/// do not stay in step; after the first probe anything up to it, since all first probes come at once. A success that
/// needs confirmation is followed up in half the time, so that an endpoint is back within two intervals.
/// `draw`: 0.0 to 1.0.
fn pause(every: Duration, first: bool, confirming: bool, draw: f64) -> Duration {
    let part = match (first, confirming) {
        (_, true) => 0.5,
        (true, false) => 0.25 + 0.75 * draw,
        (false, false) => 0.95 + 0.05 * draw,
    };
    every.mul_f64(part.clamp(0.0, 1.0)).max(SHORTEST)
}

fn uptime_ms(shared: &Shared) -> u64 {
    u64::try_from(shared.uptime().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "health_checker_tests.rs"]
mod tests;
