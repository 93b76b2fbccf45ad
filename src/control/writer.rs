//! The only writer of what is in force: every change becomes one new immutable value, published whole or not at all.

use super::cookie_key::Keeper;
use super::endpoint_registry::EndpointRegistry;
use super::file_watcher::{FileEvent, FileWatcher};
use super::health_checker::HealthChecker;
use super::load;
use super::resolver::Resolver;
use crate::config::Snapshot;
use crate::config::diff::restart_required;
use crate::routing::{Rule, Service, ServiceTraffic, Traffic, Version};
use crate::shared::{InForce, Pool, ServiceInForce, Shared, VersionInForce, VersionStats};
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// How long a publication waits for names that were never looked up.
const LOOKUP_BOUND: Duration = Duration::from_secs(2);

/// The file as it was loaded at the start.
pub struct Loaded {
    pub path: PathBuf,
    pub text: Arc<str>,
    pub snapshot: Snapshot,
}

/// What a publication is made with, and what it keeps of the one before.
pub struct Assembly {
    threads: usize,
    registry: EndpointRegistry,
    resolver: Arc<Resolver>,
    key: Keeper,
}

impl Assembly {
    /// `threads`: worker threads of the data plane.
    pub fn new(threads: usize, resolver: Arc<Resolver>, key: Keeper) -> Self {
        Self {
            threads,
            registry: EndpointRegistry::new(threads),
            resolver,
            key,
        }
    }

    /// The next thing in force, with `snapshot` in it. What did not change is carried over from `previous`: health,
    /// ejections, counters, idle connections.
    pub async fn next(&mut self, snapshot: Arc<Snapshot>, previous: Option<&InForce>) -> InForce {
        let resolved = self.resolver.resolve_all(&snapshot, LOOKUP_BOUND).await;
        let pools = self.registry.pools(&snapshot, &resolved);
        let before = previous.map(LiveParts::of).unwrap_or_default();
        let services = snapshot.policy.services.iter().zip(pools);
        let services = services.map(|(service, pools)| before.carried(service, pools, self.threads));
        InForce {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            services: services.collect(),
            traffic: traffic(&snapshot),
            cookie_key: self.key.key(&snapshot),
            snapshot,
        }
    }
}

/// What was in force, by the names of services.
#[derive(Default)]
struct LiveParts<'p>(HashMap<&'p str, (&'p Service, &'p ServiceInForce)>);

impl<'p> LiveParts<'p> {
    fn of(in_force: &'p InForce) -> Self {
        let services = in_force.snapshot.policy.services.iter().zip(&in_force.services);
        Self(
            services
                .map(|(service, live)| (&*service.name, (service, live)))
                .collect(),
        )
    }

    /// The live part of `service` with its new pools: statistics and sequences of what stays, by name, go on.
    fn carried(&self, service: &Service, pools: Box<[Arc<Pool>]>, threads: usize) -> ServiceInForce {
        let before = self.0.get(&*service.name);
        let stats = |version: &Version| {
            let (policy, live) = before?;
            let same = |other: &Version| other.name == version.name && other.role == version.role;
            let index = policy.versions.iter().position(same)?;
            live.versions.get(index).map(|version| Arc::clone(&version.stats))
        };
        let turn = |rule: &Rule| {
            let (policy, live) = before?;
            let index = policy.rules.iter().position(|other| other.name == rule.name)?;
            live.rule_turns.get(index).map(Arc::clone)
        };
        let versions = service
            .versions
            .iter()
            .zip(pools)
            .map(|(version, pool)| VersionInForce {
                stats: stats(version).unwrap_or_else(|| Arc::new(VersionStats::new(threads))),
                pool,
            });
        ServiceInForce {
            turn: before.map_or_else(Arc::default, |(_, live)| Arc::clone(&live.turn)),
            rule_turns: service
                .rules
                .iter()
                .map(|rule| turn(rule).unwrap_or_default())
                .collect(),
            versions: versions.collect(),
        }
    }
}

/// The traffic as the file asks for it.
pub fn traffic(snapshot: &Snapshot) -> Traffic {
    let service = |service: &crate::config::snapshot::Service| ServiceTraffic {
        split: service.split.clone(),
        killed: service.killed,
        epoch: 0,
        ring: None,
    };
    Traffic {
        killed: snapshot.killed,
        services: snapshot.services.iter().map(service).collect(),
    }
}

/// The keys that `run` and a reload refuse rather than do something else than the file says; `None`: there are none.
pub fn refused(file: &Path, snapshot: &Snapshot) -> Option<String> {
    let refused = snapshot.unsupported.iter().filter(|key| key.refuses_to_run);
    let lines: Vec<String> = refused
        .map(|key| {
            format!(
                "{}:{}:{}: {}: {}",
                file.display(),
                key.line,
                key.column,
                key.path,
                key.message
            )
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// See the module.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub assembly: Assembly,
    pub health: Arc<HealthChecker>,
    pub path: PathBuf,
    /// What the process started with: what needs a restart is still as it says.
    pub started: Arc<Snapshot>,
    pub watcher: Arc<FileWatcher>,
    pub events: mpsc::Receiver<FileEvent>,
}

impl Writer {
    /// Publishes what the file and the resolver bring, until it is dropped.
    pub async fn run(mut self, resolver: Arc<Resolver>) -> Infallible {
        let mut addresses = resolver.changes();
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => self.on_file(event).await,
                Ok(()) = addresses.changed() => self.publish(Arc::clone(&self.shared.load().snapshot)).await,
                // Both sources have ended: nothing will ever change again.
                else => std::future::pending().await,
            }
        }
    }

    async fn on_file(&mut self, event: FileEvent) {
        let text = match event {
            FileEvent::Changed { text, .. } => text,
            FileEvent::Unreadable { error } => return self.failed(format!("{}: {error}", self.path.display())),
            FileEvent::Withheld { reason } => return self.failed(format!("{}: {reason}", self.path.display())),
        };
        match self.compile(&text).await {
            Ok(snapshot) => {
                self.tell_changes(&snapshot);
                self.publish(Arc::new(snapshot)).await;
                self.watcher.set_in_force(text);
                self.succeeded();
            }
            Err(error) => self.failed(error),
        }
    }

    /// Off this thread: a file of ten thousand services is worth milliseconds, and the files it names are on a disk.
    async fn compile(&self, text: &Arc<str>) -> Result<Snapshot, String> {
        let (path, text) = (self.path.clone(), Arc::clone(text));
        let compiled = tokio::task::spawn_blocking(move || {
            let snapshot = load::compile(&path, text.as_bytes()).map_err(|error| error.to_string())?;
            match refused(&path, &snapshot) {
                Some(refused) => Err(refused),
                None => Ok(snapshot),
            }
        });
        compiled
            .await
            .unwrap_or_else(|error| Err(format!("compiling the file: {error}")))
    }

    async fn publish(&mut self, snapshot: Arc<Snapshot>) {
        let previous = self.shared.load();
        let next = self.assembly.next(snapshot, Some(&previous)).await;
        let generation = next.generation;
        self.shared.publish(next);
        self.health.published();
        tracing::info!(generation, "in force");
    }

    fn tell_changes(&self, snapshot: &Snapshot) {
        for key in restart_required(&self.started, snapshot) {
            tracing::warn!(key, "not as at the start; takes effect after a restart");
        }
        for key in &snapshot.unsupported {
            tracing::warn!(key = key.path, line = key.line, "{}", key.message);
        }
    }

    fn succeeded(&self) {
        let mut status = self.shared.reload.lock().unwrap_or_else(PoisonError::into_inner);
        status.error = None;
        status.succeeded += 1;
        status.last_success_s = now_s();
    }

    fn failed(&self, error: String) {
        for line in error.lines() {
            tracing::error!(error = line, "the file is not taken; the last good one stays in force");
        }
        let mut status = self.shared.reload.lock().unwrap_or_else(PoisonError::into_inner);
        status.failed += 1;
        status.error = Some(error);
    }
}

/// Seconds since the Unix epoch.
pub fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
