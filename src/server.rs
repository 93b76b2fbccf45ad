//! Assembly: the file, the sockets, the planes, the signals, and the order in which they start and stop.

mod signals;

use self::signals::Asked;
use crate::admin;
use crate::config::Snapshot;
use crate::control::assembly::{Assembly, LOOKUP_BOUND};
use crate::control::commands::{Commander, Order};
use crate::control::cookie_key::Keeper;
use crate::control::event_log::{Event, EventLog};
use crate::control::file_watcher::FileWatcher;
use crate::control::health_checker::{HealthChecker, first_pass};
use crate::control::records::{Keep, Records, Saving};
use crate::control::resolver::Resolver;
use crate::control::tls;
use crate::control::writer::{Loaded, Reading, Writer};
use crate::control::{load, writer};
use crate::proxy::accept::{Bound, DataPlane, Stage, Threads};
use crate::runtime::{self, Command, Origin, State};
use crate::shared::Shared;
use crate::telemetry::access_log::AccessLog;
use anyhow::Context;
use async_trait::async_trait;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora_core::services::background::{BackgroundService, background_service};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the start waits for the first probe of every endpoint.
const FIRST_PASS: Duration = Duration::from_secs(1);

/// Descriptors kept for everything but connections: admin, logs, state, and the 256 probes that may run at once. Where
/// there are few, a quarter.
const RESERVED_DESCRIPTORS: u64 = 384;

/// Before a task of the control plane that panicked is begun again.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// How often a stopping process looks whether it is idle.
const LOOK: Duration = Duration::from_millis(5);

/// Connections that may wait to be accepted (the kernel lowers it to `net.core.somaxconn`).
const BACKLOG: i32 = 65_535;

/// Runs the proxy on `config` until it is told to stop.
///
/// # Errors
/// The file is not valid, an address is taken, or a thread or file cannot be had: nothing was served then.
pub fn run(config: &Path) -> anyhow::Result<()> {
    let asked = Asked::listen()?;
    let loaded = load_file(config)?;
    let snapshot = &loaded.snapshot;
    let threads = snapshot
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let descriptors = raise_descriptor_limit();
    let listeners = bind_listeners(snapshot)?;
    let admin = snapshot
        .admin
        .address
        .map(|address| bind(address, "admin.address"))
        .transpose()?;
    let access_log = snapshot.access_log.clone();
    let resolver = Arc::new(Resolver::new());
    let Some((shared, control)) = assemble(loaded, threads, resolver, &asked)? else {
        tracing::info!("asked to stop before anything was served");
        return Ok(());
    };
    let access_log = access_log
        .map(|spec| AccessLog::open(&spec, Arc::clone(&shared.log_dropped)).context("access_log.path"))
        .transpose()?;

    let (stage, watched) = watch::channel(Stage::Starting);
    let (admin_stop, admin_stopped) = watch::channel(false);
    if let Some(listener) = admin {
        tracing::info!(address = %listener.local_addr()?, "admin listening");
        admin::serve(listener, Arc::clone(&shared), admin_stopped).context("the admin thread")?;
    }
    let threads_state = Arc::new(Threads::default());
    let data_plane = DataPlane {
        shared: Arc::clone(&shared),
        listeners,
        stage: watched,
        logs: access_log
            .iter()
            .flat_map(|log| (0..threads).map(|_| log.shard()))
            .collect(),
        connections_cap: connections_cap(descriptors),
        threads: Arc::clone(&threads_state),
    };
    let signals = Signals {
        shared: Arc::clone(&shared),
        stage: stage.clone(),
        threads: threads_state,
        asked: asked.clone(),
    };
    let control = Control {
        parts: Mutex::new(Some(control)),
        asked,
        shared,
        stage,
    };

    let mut server = Server::new_with_opt_and_conf(None, server_conf());
    server.bootstrap();
    server.add_service(data_plane);
    server.add_service(background_service("control", control));
    server.run(RunArgs {
        shutdown_signal: Box::new(signals),
    });
    // The admin side has gone with the process's last answer.
    let _ = admin_stop.send(true);
    if let Some(log) = access_log {
        log.close(Duration::from_secs(1));
    }
    tracing::info!("stopped");
    Ok(())
}

fn load_file(config: &Path) -> anyhow::Result<Loaded> {
    let bytes = load::read(config)?;
    let snapshot = load::compile(config, &bytes)?;
    if let Some(refused) = load::refused(config, &snapshot) {
        anyhow::bail!(refused);
    }
    for key in &snapshot.unsupported {
        tracing::warn!(key = key.path, line = key.line, "{}", key.message);
    }
    let text = String::from_utf8(bytes).context("the file is not UTF-8")?.into();
    Ok(Loaded {
        path: config.to_owned(),
        text,
        snapshot,
    })
}

/// Only `threads` and a few limits are ours to say here: pingora's own data services are not used.
fn server_conf() -> ServerConf {
    ServerConf {
        threads: 1,
        work_stealing: true,
        grace_period_seconds: Some(0),
        ..ServerConf::default()
    }
}

/// As many descriptors as the system lets us have; returns how many.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Each connection may need two descriptors, the client's and an endpoint's, and leave one idle.
fn connections_cap(descriptors: u64) -> usize {
    let reserved = RESERVED_DESCRIPTORS.min(descriptors / 4);
    usize::try_from((descriptors - reserved) / 3)
        .unwrap_or(usize::MAX)
        .max(16)
}

fn bind_listeners(snapshot: &Snapshot) -> anyhow::Result<Vec<Bound>> {
    let listeners = snapshot.listeners.iter().enumerate();
    listeners
        .map(|(index, listener)| {
            let socket = bind(listener.address, &format!("listeners[{index}].address"))?;
            Ok(Bound {
                configured: listener.address,
                socket,
            })
        })
        .collect()
}

/// A listening socket, not blocking. Accepted connections inherit TCP_NODELAY from it.
fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let open = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(TcpListener::from(socket))
    };
    open().with_context(|| format!("{key}: cannot listen on {address} (is it taken? `ss -ltnp` shows by whom)"))
}

/// What the control plane runs.
struct Parts {
    writer: Writer,
    resolver: Arc<Resolver>,
    health: Arc<HealthChecker>,
    commander: Commander,
}

/// The planes' meeting place and the control plane; `None`: it was asked to stop meanwhile.
fn assemble(
    loaded: Loaded,
    threads: usize,
    resolver: Arc<Resolver>,
    asked: &Asked,
) -> anyhow::Result<Option<(Arc<Shared>, Parts)>> {
    let started = Arc::new(loaded.snapshot);
    let key = Keeper::new(&started.state_dir).context("the key of affinity cookies")?;
    let mut assembly = Assembly::new(threads, Arc::clone(&resolver), key);
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let by = Origin {
        who: "file".to_owned(),
        from: loaded.path.display().to_string(),
        at_ms: writer::now_ms(),
        reason: None,
    };
    let change = runtime::apply(&State::default(), &started, &Command::Load, &by)?;
    let traffic = runtime::traffic(&change.state, &started);
    let first = executor.block_on(async {
        tokio::select! {
            biased;
            () = asked.stop(1) => None,
            first = assembly.next(Arc::clone(&started), traffic, None, LOOKUP_BOUND) => Some(first),
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
    let records = Records::new(change.state, Arc::new(Unkept), Arc::clone(&log));
    let (commander, orders) = Commander::new();
    let health = Arc::new(HealthChecker::new(Arc::clone(&shared)));
    let (watcher, events) = FileWatcher::spawn(&loaded.path, loaded.text).context("watching the file")?;
    let writer = Writer {
        shared: Arc::clone(&shared),
        assembly,
        health: Arc::clone(&health),
        path: loaded.path,
        started,
        watcher,
        events,
        orders,
        records,
        reading: Reading::default(),
    };
    let parts = Parts {
        writer,
        resolver,
        health,
        commander,
    };
    Ok(Some((shared, parts)))
}

/// The control plane as one background service.
struct Control {
    /// Taken by the one start.
    parts: Mutex<Option<Parts>>,
    asked: Asked,
    shared: Arc<Shared>,
    stage: watch::Sender<Stage>,
}

#[async_trait]
impl BackgroundService for Control {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Some(parts) = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let Parts {
            writer,
            resolver,
            health,
            commander,
        } = parts;
        let looked_up = Arc::clone(&resolver);
        tokio::spawn(supervise("health checks", move || {
            let health = Arc::clone(&health);
            async move { health.run().await }
        }));
        tokio::spawn(supervise("name lookups", move || {
            let resolver = Arc::clone(&looked_up);
            async move { resolver.run().await }
        }));
        let (certificates, shared) = (writer.assembly.tls(), Arc::clone(&self.shared));
        tokio::spawn(supervise("certificate files", move || {
            tls::follow(Arc::clone(&certificates), Arc::clone(&shared))
        }));
        tokio::spawn(write(writer.run(), Arc::clone(&self.shared)));
        tokio::spawn(reload_on_hangup(commander, self.asked.clone()));
        if !first_pass(&self.shared, FIRST_PASS).await {
            tracing::warn!("some endpoints have not answered a probe yet");
        }
        // A stop that was asked for meanwhile stands.
        self.stage.send_if_modified(|stage| {
            let starting = *stage == Stage::Starting;
            if starting {
                *stage = Stage::Serving;
            }
            starting
        });
        self.shared.ready.store(true, Ordering::SeqCst);
        std::future::pending::<()>().await;
    }
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
        let by = Origin {
            who: "SIGHUP".to_owned(),
            from: "signal".to_owned(),
            at_ms: writer::now_ms(),
            reason: None,
        };
        // What is wrong with the file the writer has told.
        drop(commander.submit(Order::Reload, by, None).await);
    }
}

/// For a process that keeps nothing: it says so, and gives a canary nothing more.
struct Unkept;

impl Keep for Unkept {
    fn save(&self, _state: Arc<State>, _events: Vec<Arc<Event>>) -> Saving {
        Box::pin(std::future::ready(Err("the state is kept in memory alone".to_owned())))
    }

    fn not_durable(&self) -> Option<String> {
        Some("the state is kept in memory alone".to_owned())
    }
}

/// SIGTERM and SIGINT: the first one drains, the second one ends at once.
struct Signals {
    shared: Arc<Shared>,
    stage: watch::Sender<Stage>,
    threads: Arc<Threads>,
    asked: Asked,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        tokio::select! {
            () = self.asked.stop(1) => {}
            () = self.threads.failed.notified() => tracing::error!("stopping: a thread of the data plane is missing"),
        }
        tokio::select! {
            () = self.drain() => {}
            () = self.asked.stop(2) => tracing::warn!("asked twice: stopping at once"),
        }
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    /// Not ready first, then no new connections, then the end as soon as nothing is in flight.
    async fn drain(&self) {
        let limits = self.shared.load().snapshot.limits.clone();
        tracing::info!(
            delay_ms = limits.drain_delay.as_millis() as u64,
            timeout_ms = limits.drain_timeout.as_millis() as u64,
            "draining"
        );
        self.shared.draining.store(true, Ordering::SeqCst);
        tokio::time::sleep(limits.drain_delay).await;
        self.stage.send_replace(Stage::Closing);
        let until = Instant::now() + limits.drain_timeout;
        // First nobody accepts any more; only then does the count say who is left.
        self.wait(Duration::from_secs(1), || {
            self.threads.accepting.load(Ordering::SeqCst) == 0
        })
        .await;
        self.wait(until.saturating_duration_since(Instant::now()), || {
            self.connections() == 0
        })
        .await;
        let cut = self.connections();
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "limits.drain_timeout has passed: cutting what is still in flight"
            );
        }
        self.stage.send_replace(Stage::Over);
        self.wait(Duration::from_secs(1), || {
            self.threads.running.load(Ordering::SeqCst) == 0
        })
        .await;
    }

    /// Until `done`, or `bound` has passed.
    async fn wait(&self, bound: Duration, done: impl Fn() -> bool) {
        let until = Instant::now() + bound;
        while !done() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn connections(&self) -> i64 {
        self.shared.threads.iter().map(|thread| thread.connections()).sum()
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
