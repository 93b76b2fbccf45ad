//! All that both planes may touch: the configuration in force, live counters, health bits.
//!
//! The control plane publishes; the data plane reads, and writes only counters and what it saw of an endpoint.

mod cell;
mod departed;
mod durations;
mod evidence;
mod limits;
mod mirror;
mod notifications;
mod pool;
mod rejected;
mod revoked;
mod rollbacks;
mod stats;
mod tls;

pub use departed::Departed;
pub use evidence::{Counted, Ending, Evidence, Pair, Sent};
pub use limits::{Gate, Inside, InsideOfKey, Rates, ServiceLimits};
pub use mirror::MirrorStats;
pub use notifications::{NotificationEnd, Notifications};
pub use pool::{Endpoint, InFlight, Pool, RetryBudget, Tried};
pub use rejected::{Rejected, RejectedLog};
pub use revoked::Revoked;
pub use rollbacks::Rollbacks;
pub use stats::{DURATION_BOUNDS_US, Ended, ThreadStats, Totals, VersionStats};
pub use tls::{
    CertificateStatus, ClientTls, EndpointTls, LISTENER_PROTOCOLS, ServerTls, Transport, explain as explain_tls,
};

use crate::config::{Snapshot, snapshot};
use crate::rollout::Phase;
use crate::routing::{CookieKey, Role, Traffic};
use crate::runtime::State;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is in force: one immutable value, replaced whole.
pub struct InForce {
    /// Rises by one with each change, from 1; a process goes on from the last change that it knows of.
    pub generation: u64,
    pub snapshot: Arc<Snapshot>,
    /// What moves at run time, with who moved it; `traffic` is made of it.
    pub state: Arc<State>,
    pub traffic: Traffic,
    /// Signs affinity cookies.
    pub cookie_key: CookieKey,
    /// One for each socket that the process listens on, in the order of the file it started with.
    pub listeners: Arc<[ListenerInForce]>,
    /// Parallel to the services of the snapshot.
    pub services: Arc<[ServiceInForce]>,
    pub departed: Arc<[Departed]>,
}

/// A listener's settings, for connections accepted from now on.
#[derive(Clone)]
pub struct ListenerInForce {
    pub spec: snapshot::Listener,
    pub tls: Option<Arc<ServerTls>>,
}

/// A service's live part; kept across publications while its name stays.
pub struct ServiceInForce {
    /// The sequence of requests without a key: one for all threads, so that their split is exact together.
    pub turn: Arc<AtomicU64>,
    /// The same for each rule, parallel to the service's rules; kept while the rule's name stays.
    pub rule_turns: Box<[Arc<AtomicU64>]>,
    pub limits: ServiceLimits,
    /// Parallel to the service's versions.
    pub versions: Box<[VersionInForce]>,
    /// What the judge sees; `None` without a rollout in the file. Kept while the versions stay.
    pub evidence: Option<Arc<Evidence>>,
    /// What is counted of copies; `None` without a mirror in the file.
    pub mirror: Option<Arc<MirrorStats>>,
    /// Kept while the service's name stays.
    pub rollbacks: Arc<Rollbacks>,
}

/// A version's live part; statistics are kept while service, version and role stay, the pool's endpoints while they do.
pub struct VersionInForce {
    pub stats: Arc<VersionStats>,
    pub pool: Arc<Pool>,
    /// Until when what is in flight on it may go on; kept while service and version stay.
    pub revoked: Arc<Revoked>,
}

impl InForce {
    /// Revokes the canaries of services whose kill switch is on, those that have left the file included, and the candidates
    /// that were rolled back; no others.
    fn revoke(&self, now_ms: u64) {
        let settings = self.snapshot.policy.services.iter().zip(&self.snapshot.services);
        let live = self.services.iter().zip(&self.traffic.services);
        for ((policy, file), (live, traffic)) in settings.zip(live) {
            let killed = self.traffic.killed || traffic.killed;
            for (version, live) in policy.versions.iter().zip(&live.versions) {
                let revoked = match version.role {
                    Role::Canary => (killed, self.is_rolled_back(&policy.name, &version.name)),
                    Role::Stable => (false, Some(false)),
                };
                live.revoked.set(revoked, file.kill_drain, now_ms, self.generation);
            }
        }
        for canary in &*self.departed {
            canary.revoke(self, now_ms);
        }
    }

    /// Whether the rollout of the version was rolled back; `None`: the service's rollout is not of this version (any more).
    fn is_rolled_back(&self, service: &str, version: &str) -> Option<bool> {
        let rollout = self.state.service(service)?.rollout.as_ref()?;
        let machine = &rollout.machine;
        (machine.candidate.as_deref() == Some(version)).then_some(matches!(machine.phase, Phase::RolledBack(_)))
    }

    /// Whether everything of the service goes to stable.
    pub fn is_killed(&self, service: usize) -> bool {
        self.traffic.killed || self.traffic.services.get(service).is_some_and(|live| live.killed)
    }

    /// What the version is to get of the service's requests that no rule decides, in percent, 0 to 100. Positions as in
    /// the file.
    pub fn share_target(&self, service: usize, version: usize) -> f64 {
        if self.is_killed(service) {
            let stable = self.snapshot.policy.services.get(service).map(|policy| policy.stable.0);
            return if stable == u32::try_from(version).ok() {
                100.0
            } else {
                0.0
            };
        }
        self.traffic
            .services
            .get(service)
            .map_or(0.0, |live| live.split.share_percent(version))
    }
}

/// How the last load of the file went.
#[derive(Debug, Clone, Default)]
pub struct ReloadStatus {
    /// What was wrong, as `check` prints it; `None`: the file in force is the file on disk.
    pub error: Option<String>,
    pub succeeded: u64,
    pub failed: u64,
    /// Seconds since the Unix epoch of the last success.
    pub last_success_s: u64,
    /// The text in force.
    pub text: Arc<str>,
    /// Keys of it that hold only after a restart.
    pub restart_required: Vec<String>,
}

/// A thread's view of what is in force: see [`Shared::cached`].
pub type Cached = arc_swap::Cache<Arc<ArcSwap<InForce>>, Arc<InForce>>;

/// The meeting place of the planes: one for the process.
pub struct Shared {
    in_force: Arc<ArcSwap<InForce>>,
    /// One a worker thread of the data plane.
    pub threads: Box<[Arc<ThreadStats>]>,
    pub reload: std::sync::Mutex<ReloadStatus>,
    /// Of TLS; written by `control::tls` alone.
    pub certificates: std::sync::Mutex<Box<[CertificateStatus]>>,
    /// First health pass done, listeners open.
    pub ready: AtomicBool,
    /// Stopping: `/readyz` says 503, answers close their connections.
    pub draining: AtomicBool,
    /// Another process has taken over: answers close their connections.
    pub handed_over: AtomicBool,
    /// Upgrades that came to nothing.
    pub upgrades_failed: AtomicU64,
    /// Lines of the access log dropped because the writer fell behind.
    pub log_dropped: Arc<AtomicU64>,
    /// The last messages that were refused as such.
    pub rejected: RejectedLog,
    pub notifications: Notifications,
    started: Instant,
}

impl Shared {
    pub fn new(first: InForce, threads: usize) -> Self {
        let started = Instant::now();
        first.revoke(0);
        Self {
            in_force: Arc::new(ArcSwap::from_pointee(first)),
            threads: (0..threads.max(1)).map(|_| Arc::default()).collect(),
            reload: std::sync::Mutex::default(),
            certificates: std::sync::Mutex::default(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            upgrades_failed: AtomicU64::new(0),
            log_dropped: Arc::default(),
            notifications: Notifications::default(),
            rejected: RejectedLog::default(),
            started,
        }
    }

    /// What is in force now.
    pub fn load(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// What is in force, for a thread that looks at every request: a look is one load while nothing has changed.
    pub fn cached(&self) -> Cached {
        Cached::new(Arc::clone(&self.in_force))
    }

    /// Only `control::writer` calls this.
    pub fn publish(&self, next: InForce) {
        // Before: what is decided by `next` must not meet a revocation that it ends.
        next.revoke(self.uptime_ms_at(Instant::now()));
        self.in_force.store(Arc::new(next));
    }

    /// Time since the process began: the clock of health and ejection, unmoved by changes of the wall clock.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// As [`Shared::uptime`], at `instant`, in milliseconds.
    pub fn uptime_ms_at(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether a connection ends with the answer it is on.
    pub fn answers_close(&self) -> bool {
        self.is_draining() || self.handed_over.load(Ordering::Relaxed)
    }
}
