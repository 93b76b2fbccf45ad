//! The control plane as one background service: probes, lookups, the writer, and the moment from which requests are
//! served.

use super::signals::Asked;
use super::successor::Predecessor;
use super::upgrade::{Upgrader, Upgrades};
use super::{AdminSide, Life};
use crate::control::assembly::{Assembly, LOOKUP_BOUND};
use crate::control::commands::{Commander, Order};
use crate::control::cookie_key::Keeper;
use crate::control::event_log::EventLog;
use crate::control::file_watcher::FileWatcher;
use crate::control::health_checker::{HealthChecker, first_pass};
use crate::control::http_client::HttpClient;
use crate::control::notifier::Notifier;
use crate::control::resolver::Resolver;
use crate::control::rollout_driver::{self, Driver, Outside};
use crate::control::store::{Options, Restored, Store};
use crate::control::tls::{self, TlsFiles};
use crate::control::writer::{self, Loaded, Rollouts, Unbegun};
use crate::proxy::accept::Stage;
use crate::runtime::{EventKind, Origin};
use crate::shared::Shared;
use anyhow::Context;
use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use std::convert::Infallible;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the start waits for the first probe of every endpoint.
const FIRST_PASS: Duration = Duration::from_secs(1);

/// The same for a process that takes over: the one before serves meanwhile, so there is time to know more.
const FIRST_PASS_OF_SUCCESSOR: Duration = Duration::from_secs(5);

/// Before a task of the control plane that panicked is begun again.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// How long the threads of the data plane may take to accept.
const ACCEPTING_WITHIN: Duration = Duration::from_secs(5);

/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// What the control plane runs.
pub struct Parts {
    writer: Unbegun,
    driver: Arc<Driver>,
    resolver: Arc<Resolver>,
    health: Arc<HealthChecker>,
    tls: Arc<TlsFiles>,
    pub commander: Commander,
    /// `None`: it comes with the word of the process before.
    pub state: Option<(Store, Restored)>,
    pub log: Arc<EventLog>,
}

/// The planes' meeting place and the control plane, by the file alone: nothing is served yet. `None`: it was asked to stop
/// meanwhile.
///
/// # Errors
/// A thread, a watch or random bytes cannot be had.
pub fn assemble(
    loaded: Loaded,
    threads: usize,
    state: Option<(Store, Restored)>,
    asked: &Asked,
) -> anyhow::Result<Option<(Arc<Shared>, Parts)>> {
    let resolver = Arc::new(Resolver::new());
    let started = Arc::new(loaded.snapshot);
    let key = Keeper::new().context("the key of affinity cookies")?;
    let mut assembly = Assembly::new(threads, Arc::clone(&resolver), key);
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let first = executor.block_on(async {
        tokio::select! {
            biased;
            () = asked.stop(1) => None,
            first = assembly.next(Arc::clone(&started), Arc::default(), None, LOOKUP_BOUND) => Some(first),
            never = resolver.run() => match never {},
        }
    });
    // A lookup that hangs holds a thread: it is not waited for.
    executor.shutdown_background();
    let Some(first) = first else { return Ok(None) };
    let shared = Arc::new(Shared::new(first, threads));
    {
        let mut status = shared.reload.lock().unwrap_or_else(PoisonError::into_inner);
        status.last_success_s = writer::now_s();
        status.text = Arc::clone(&loaded.text);
    }
    let log = Arc::new(EventLog::new(Vec::new(), 0));
    let (commander, orders) = Commander::new();
    let health = Arc::new(HealthChecker::new(Arc::clone(&shared)));
    let (watcher, events) = FileWatcher::spawn(&loaded.path, loaded.text).context("watching the file")?;
    let tls = assembly.tls();
    let (asks, asked_of_driver) = mpsc::channel(rollout_driver::ASKS);
    let driver = Driver {
        shared: Arc::clone(&shared),
        commander: commander.clone(),
        failures: assembly.failures(),
        asks: tokio::sync::Mutex::new(asked_of_driver),
        outside: Outside::new(HttpClient::new()),
    };
    let writer = Unbegun {
        shared: Arc::clone(&shared),
        assembly,
        health: Arc::clone(&health),
        path: loaded.path,
        started,
        watcher,
        events,
        orders,
        log: Arc::clone(&log),
        rollouts: Rollouts::new(asks),
    };
    let parts = Parts {
        writer,
        driver: Arc::new(driver),
        resolver,
        health,
        tls,
        commander,
        state,
        log,
    };
    Ok(Some((shared, parts)))
}

/// What is taken by the one start.
pub struct Start {
    pub parts: Parts,
    pub upgrades: Upgrades,
    pub predecessor: Option<Predecessor>,
    pub admin: AdminSide,
}

/// The control plane as one background service.
pub struct Control {
    start: Mutex<Option<Start>>,
    life: Life,
}

#[async_trait]
impl BackgroundService for Control {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Some(start) = self.start.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        tokio::spawn(start.upgrades.run());
        tokio::spawn(upgrade_on_signal(self.life.upgrader.clone(), self.life.asked.clone()));
        if let Err(error) = self.serve(start.parts, start.predecessor, start.admin).await {
            for line in format!("{error:#}").lines() {
                tracing::error!("{line}");
            }
            self.life.threads.failed.notify_one();
        }
        std::future::pending::<()>().await;
    }
}

impl Control {
    pub fn new(start: Start, life: Life) -> Self {
        Self {
            start: Mutex::new(Some(start)),
            life,
        }
    }

    fn run_checks(&self, parts: &Parts) {
        let (health, resolver) = (Arc::clone(&parts.health), Arc::clone(&parts.resolver));
        tokio::spawn(supervise("health checks", move || {
            let health = Arc::clone(&health);
            async move { health.run().await }
        }));
        tokio::spawn(supervise("name lookups", move || {
            let resolver = Arc::clone(&resolver);
            async move { resolver.run().await }
        }));
        let (files, shared) = (Arc::clone(&parts.tls), Arc::clone(&self.life.shared));
        let driver = Arc::clone(&parts.driver);
        tokio::spawn(supervise("rollouts", move || {
            let driver = Arc::clone(&driver);
            async move { driver.run().await }
        }));
        tokio::spawn(supervise("certificate files", move || {
            tls::follow(Arc::clone(&files), Arc::clone(&shared))
        }));
    }

    async fn run_writer(
        &self,
        unbegun: Unbegun,
        (store, mut restored): (Store, Restored),
        (kind, driver): (EventKind, &Driver),
    ) {
        let kept = std::mem::take(&mut restored.outbox);
        let shared = Arc::clone(&self.life.shared);
        let notifier = Arc::new(Notifier::new(shared, store.clone(), HttpClient::new(), kept));
        self.life.state.set(store.clone(), Arc::clone(&notifier));
        // Once a process.
        let _ = driver.outside.notifier.set(Arc::clone(&notifier));
        tokio::spawn(supervise("notifications", move || {
            let notifier = Arc::clone(&notifier);
            async move { notifier.run().await }
        }));
        let writer = unbegun.begin(store, restored, kind).await;
        tokio::spawn(write(writer.run(), Arc::clone(&self.life.shared)));
    }

    /// From probing the endpoints to serving requests. A process that takes over serves when the one before says so, and
    /// says that it does.
    async fn serve(&self, parts: Parts, predecessor: Option<Predecessor>, mut admin: AdminSide) -> anyhow::Result<()> {
        self.run_checks(&parts);
        let driver = Arc::clone(&parts.driver);
        tokio::spawn(reload_on_hangup(parts.commander, self.life.asked.clone()));
        let mut unbegun = Some(parts.writer);
        if let (Some(state), Some(writer)) = (parts.state, unbegun.take_if(|_| predecessor.is_none())) {
            self.run_writer(writer, state, (EventKind::Started, &driver)).await;
        }
        let patience = match predecessor {
            Some(_) => FIRST_PASS_OF_SUCCESSOR,
            None => FIRST_PASS,
        };
        if !first_pass(&self.life.shared, patience).await {
            tracing::warn!("some endpoints have not answered a probe yet");
        }
        let predecessor = match (predecessor, unbegun) {
            (Some(predecessor), Some(writer)) => {
                let (predecessor, lock) = told_to_go(predecessor).await?;
                let state = match self.open_state(lock).await {
                    Ok(state) => state,
                    Err(error) => {
                        predecessor.refuse(&format!("{error:#}"));
                        return Err(error);
                    }
                };
                self.run_writer(writer, state, (EventKind::Upgraded, &driver)).await;
                Some(predecessor)
            }
            _ => None,
        };
        // A stop that was asked for meanwhile stands.
        self.life.stage.send_if_modified(|stage| {
            let starting = *stage == Stage::Starting;
            if starting {
                *stage = Stage::Serving;
            }
            starting
        });
        self.life.shared.ready.store(true, Ordering::SeqCst);
        let Some(predecessor) = predecessor else {
            self.life.manager.ready();
            return Ok(());
        };
        if let Err(error) = admin.serve() {
            predecessor.refuse(&format!("{error:#}"));
            return Err(error);
        }
        self.wait_until_all_accept().await;
        predecessor.serving();
        Ok(())
    }

    /// The state that the process before has given up, with its lock.
    async fn open_state(&self, lock: Option<OwnedFd>) -> anyhow::Result<(Store, Restored)> {
        let directory = self.life.shared.load().snapshot.state_dir.clone();
        let options = Options {
            recover: false,
            lock: lock.map(File::from),
        };
        Ok(tokio::task::spawn_blocking(move || Store::open(&directory, options)).await??)
    }

    async fn wait_until_all_accept(&self) {
        let all = self.life.shared.threads.len();
        let accepting = async {
            while self.life.threads.accepting.load(Ordering::SeqCst) < all {
                tokio::time::sleep(LOOK).await;
            }
        };
        // A thread that is missing is told of, and ends the process.
        let _ = tokio::time::timeout(ACCEPTING_WITHIN, accepting).await;
    }
}

async fn told_to_go(mut predecessor: Predecessor) -> anyhow::Result<(Predecessor, Option<OwnedFd>)> {
    let waiting = tokio::task::spawn_blocking(move || predecessor.wait_for_go().map(|lock| (predecessor, lock)));
    waiting.await?
}

/// Runs a task of the control plane, and runs it again when it panics: at most once in [`BEGIN_AGAIN`].
async fn supervise<F>(what: &'static str, begin: impl Fn() -> F)
where
    F: Future<Output = Infallible> + Send + 'static,
{
    loop {
        let Err(error) = tokio::spawn(begin()).await;
        if error.is_cancelled() {
            // The process ends.
            return;
        }
        tracing::error!(what, %error, "broke off, beginning again");
        tokio::time::sleep(BEGIN_AGAIN).await;
    }
}

/// Runs the writer. It is not begun again: what it left half done is not known. What is in force goes on being served.
async fn write(writer: impl Future<Output = Infallible> + Send + 'static, shared: Arc<Shared>) {
    let Err(error) = tokio::spawn(writer).await;
    if error.is_cancelled() {
        return;
    }
    let error = format!("reloading broke off, no change will be taken until a restart: {error}");
    tracing::error!("{error}");
    let mut status = shared.reload.lock().unwrap_or_else(PoisonError::into_inner);
    status.failed += 1;
    status.error = Some(error);
}

async fn reload_on_hangup(commander: Commander, mut asked: Asked) {
    loop {
        asked.reload().await;
        // What is wrong with the file the writer has told.
        drop(commander.submit(Order::Reload, by_signal("SIGHUP"), None).await);
    }
}

async fn upgrade_on_signal(upgrader: Upgrader, mut asked: Asked) {
    loop {
        asked.upgrade().await;
        let upgrader = upgrader.clone();
        // How it went is in the log. A second one meanwhile is refused at once.
        tokio::spawn(async move { drop(upgrader.upgrade(by_signal("SIGUSR2")).await) });
    }
}

fn by_signal(name: &str) -> Origin {
    Origin {
        who: name.to_owned(),
        from: "signal".to_owned(),
        at_ms: writer::now_ms(),
        reason: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture;
    use std::sync::atomic::AtomicUsize;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_begun_again() {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let supervised = supervise("a test", move || {
            let number = count.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(number >= 2, "the first two break");
                std::future::pending().await
            }
        });
        let over = tokio::time::timeout(Duration::from_secs(60), supervised).await;
        assert!(over.is_err());
        assert_eq!(begun.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_writer_that_panics_is_a_failed_reload() {
        let shared = fixture::shared(fixture::in_force(1, 1, &[]), 1);
        write(async { panic!("broken") }, Arc::clone(&shared)).await;
        let status = shared.reload.lock().unwrap().clone();
        assert_eq!(status.failed, 1);
        assert!(status.error.unwrap().contains("until a restart"));
    }
}
