//! The only writer of what is in force: every change becomes one new immutable value, published whole or not at all.

use super::cookie_key::Keeper;
use super::damping::{CHANGES, Damping, QUIET, WINDOW};
use super::endpoint_registry::EndpointRegistry;
use super::file_rule::How;
use super::file_watcher::{FileEvent, FileWatcher};
use super::health_checker::HealthChecker;
use super::listeners::listeners;
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
use tokio::time::Instant;

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
            listeners: listeners(&snapshot, previous),
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
    pub flapping: Flapping,
}

/// What the writer knows of a source that flaps.
#[derive(Default)]
pub struct Flapping {
    damping: Damping,
    /// The last text, not compiled yet, and until when it is held.
    held: Option<(Arc<str>, Instant)>,
}

impl Writer {
    /// Publishes what the file and the resolver bring, until it is dropped.
    pub async fn run(mut self, resolver: Arc<Resolver>) -> Infallible {
        let mut addresses = resolver.changes();
        loop {
            let held_until = self.flapping.held.as_ref().map(|(_, until)| *until);
            tokio::select! {
                Some(event) = self.events.recv() => self.on_file(event).await,
                Ok(()) = addresses.changed() => self.publish(Arc::clone(&self.shared.load().snapshot)).await,
                () = tokio::time::sleep_until(held_until.unwrap_or_else(Instant::now)), if held_until.is_some() => {
                    self.on_quiet().await;
                }
                // Both sources have ended: nothing will ever change again.
                else => std::future::pending().await,
            }
        }
    }

    async fn on_file(&mut self, event: FileEvent) {
        let before = self.flapping.held.take();
        let text = match event {
            FileEvent::Changed {
                text,
                how: How::Explicit,
            } => {
                self.flapping.damping.release();
                text
            }
            FileEvent::Changed { text, .. } => match self.flapping.damping.hold(self.shared.uptime()) {
                Some(hold) => return self.hold(text, hold, before.is_some()),
                None => text,
            },
            FileEvent::Unreadable { error } => return self.failed(format!("{}: {error}", self.path.display())),
            FileEvent::Withheld { reason } => return self.failed(format!("{}: {reason}", self.path.display())),
        };
        self.on_text(text).await;
    }

    /// What was held is the last that came, and nothing has come since.
    async fn on_quiet(&mut self) {
        if let Some((text, _)) = self.flapping.held.take() {
            self.flapping.damping.release();
            self.on_text(text).await;
        }
    }

    async fn on_text(&mut self, text: Arc<str>) {
        let compiled = self.compile(&text).await;
        self.flapping.damping.judged(compiled.is_ok(), self.shared.uptime());
        match compiled {
            Ok(snapshot) => {
                self.tell_changes(&snapshot);
                self.publish(Arc::new(snapshot)).await;
                self.watcher.set_in_force(text);
                self.succeeded();
            }
            Err(error) => self.failed(error),
        }
    }

    /// Told once a hold, however many texts come.
    fn hold(&mut self, text: Arc<str>, hold: Duration, already: bool) {
        self.flapping.held = Some((text, Instant::now() + hold));
        if already {
            return;
        }
        let error = format!(
            "{}: the file went from good to bad or back {CHANGES} times within {} minutes: it is not looked at until it has \
             not changed for {} s, or SIGHUP or `rollgate reload` asks for it",
            self.path.display(),
            WINDOW.as_secs() / 60,
            QUIET.as_secs()
        );
        self.failed(error);
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    fn text(weight: &str) -> Arc<str> {
        format!(
            "listeners: [{{ address: \"127.0.0.1:0\" }}]\nservices:\n  - name: s\n    versions: [{{ name: v1, weight: {weight}, \
             pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}]\n"
        )
        .into()
    }

    /// A writer at work on files that the test sends.
    async fn at_work(directory: &Path) -> (Arc<Shared>, mpsc::Sender<FileEvent>, Arc<FileWatcher>) {
        let path = directory.join("rollgate.yaml");
        std::fs::write(&path, &*text("1")).unwrap();
        let started = Arc::new(load::load(&path).unwrap());
        let resolver = Arc::new(Resolver::new());
        let mut assembly = Assembly::new(1, Arc::clone(&resolver), Keeper::new(directory).unwrap());
        let first = assembly.next(Arc::clone(&started), None).await;
        let shared = Arc::new(Shared::new(first, 1));
        let watcher = Arc::new(FileWatcher::spawn(&path, text("1")).unwrap().0);
        let (sender, events) = mpsc::channel(1);
        let writer = Writer {
            shared: Arc::clone(&shared),
            assembly,
            health: Arc::new(HealthChecker::new(Arc::clone(&shared))),
            path,
            started,
            watcher: Arc::clone(&watcher),
            events,
            flapping: Flapping::default(),
        };
        tokio::spawn(writer.run(resolver));
        (shared, sender, watcher)
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_text_of_a_source_that_flapped_is_taken_when_it_has_rested() {
        let directory = tempfile::tempdir().unwrap();
        let (shared, sender, _watcher) = at_work(directory.path()).await;
        let send = async |weight: &str| {
            let event = FileEvent::Changed {
                text: text(weight),
                how: How::Atomic,
            };
            sender.send(event).await.unwrap();
            // Virtual time stands while the text is compiled.
            sleep(Duration::from_secs(1)).await;
        };
        for weight in ["-1", "2", "-1", "3"] {
            send(weight).await;
        }
        assert_eq!(
            shared.load().generation,
            2,
            "three changes of verdict: the fourth text is held"
        );
        sleep(Duration::from_secs(40)).await;
        send("4").await;
        sleep(Duration::from_secs(50)).await;
        assert_eq!(shared.load().generation, 2, "it has not rested for long enough");
        assert!(shared.reload.lock().unwrap().error.is_some());
        sleep(Duration::from_secs(20)).await;
        assert_eq!(shared.load().generation, 3);
        assert!(shared.reload.lock().unwrap().error.is_none());
        send("5").await;
        assert_eq!(shared.load().generation, 4, "it begins anew");
    }
}
