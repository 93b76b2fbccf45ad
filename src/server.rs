//! Assembly: the file, the sockets, the planes, the signals, and the order in which they start and stop.

mod control_plane;
mod custody;
mod drain;
mod handover;
mod notify;
mod signals;
mod sockets;
mod successor;
pub mod upgrade;

use self::control_plane::{Control, Parts, Start, assemble};
use self::custody::{Held, StateCustody};
use self::drain::Drain;
use self::handover::Role;
use self::notify::Manager;
use self::signals::Asked;
use self::sockets::{Inherited, Sockets};
use self::successor::Predecessor;
use self::upgrade::{Means, Program, Upgrader};
use crate::admin;
use crate::control::load;
use crate::control::store::{Options, Store};
use crate::control::writer::Loaded;
use crate::proxy::accept::{DataPlane, Stage, Threads};
use crate::shared::Shared;
use crate::telemetry::access_log::{AccessLog, LogShard};
use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::background::background_service;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Descriptors kept for everything but connections: admin, logs, state, and the 256 probes that may run at once. Where
/// there are few, a quarter.
const RESERVED_DESCRIPTORS: u64 = 384;

/// Runs the proxy on `config` until it is told to stop, or another process has taken over and nothing is left here.
/// `recover_state`: see [`Options::recover`].
///
/// # Errors
/// The file is not valid, an address is taken, the state cannot be used, or a thread or file cannot be had: nothing was
/// served then.
pub fn run(config: &Path, recover_state: bool) -> anyhow::Result<()> {
    let asked = Asked::listen()?;
    let program = Program::this();
    let (mut predecessor, inherited) = Predecessor::from_environment()?.unzip();
    let given = Given {
        config,
        recover_state,
        inherited: inherited.unwrap_or_default(),
        // A predecessor gives its state up last.
        opens_state: predecessor.is_none(),
    };
    let ended = start(given, program, asked, &mut predecessor);
    if let (Err(error), Some(predecessor)) = (&ended, predecessor) {
        predecessor.refuse(&format!("{error:#}"));
    }
    ended
}

/// What the process is started with.
struct Given<'g> {
    config: &'g Path,
    recover_state: bool,
    inherited: Inherited,
    opens_state: bool,
}

/// As [`run`]. Takes the predecessor once nothing can go wrong that it does not hear of otherwise.
fn start(
    given: Given<'_>,
    program: Result<Program, String>,
    asked: Asked,
    predecessor: &mut Option<Predecessor>,
) -> anyhow::Result<()> {
    let Some(prepared) = prepare(given, &asked)? else {
        tracing::info!("asked to stop before anything was served");
        return Ok(());
    };
    let (stage, watched) = watch::channel(Stage::Starting);
    let (admin_stop, stopped) = watch::channel(false);
    let shared = prepared.shared;
    let mut admin = AdminSide {
        listener: prepared.sockets.admin.map(|(_, listener)| listener),
        shared: Arc::clone(&shared),
        stopped,
    };
    if predecessor.is_none() {
        // A predecessor answers until this process serves.
        admin.serve()?;
    }
    let manager = Arc::new(Manager::from_environment());
    let state = Held::default();
    let (upgrader, upgrades) = Upgrader::new(Means {
        program,
        sockets: prepared.copies,
        custody: Some(Arc::new(StateCustody {
            commander: prepared.parts.commander.clone(),
            held: state.clone(),
        })),
        shared: Arc::clone(&shared),
        asked: asked.clone(),
        manager: Arc::clone(&manager),
    });
    let life = Life {
        shared,
        stage,
        threads: Arc::default(),
        asked,
        upgrader,
        manager,
        admin_stop,
        state,
    };
    let data_plane = DataPlane {
        shared: Arc::clone(&life.shared),
        listeners: prepared.sockets.listeners,
        stage: watched,
        logs: shards(prepared.access_log.as_ref(), life.shared.threads.len()),
        connections_cap: connections_cap(prepared.descriptors),
        threads: Arc::clone(&life.threads),
    };
    let start = Start {
        parts: prepared.parts,
        upgrades,
        predecessor: predecessor.take(),
        admin,
    };
    serve(data_plane, start, &life);
    life.state.close();
    if let Some(log) = prepared.access_log {
        log.close(Duration::from_secs(1));
    }
    tracing::info!("stopped");
    Ok(())
}

/// All that can fail.
struct Prepared {
    shared: Arc<Shared>,
    parts: Parts,
    sockets: Sockets,
    /// Of the sockets, for a process that takes over.
    copies: Vec<(Role, OwnedFd)>,
    access_log: Option<AccessLog>,
    /// How many there may be.
    descriptors: u64,
}

/// `None`: it was asked to stop meanwhile.
fn prepare(given: Given<'_>, asked: &Asked) -> anyhow::Result<Option<Prepared>> {
    let Given {
        config, mut inherited, ..
    } = given;
    let loaded = load_file(config)?;
    let snapshot = &loaded.snapshot;
    let threads = snapshot
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let descriptors = raise_descriptor_limit();
    let sockets = Sockets::open(snapshot, &mut inherited)?;
    // What the file does not have any more: the process before closes its copies when it ends.
    drop(inherited);
    let copies = sockets.copies().context("copies of the listening sockets")?;
    let access_log = snapshot.access_log.clone();
    let options = Options {
        recover: given.recover_state,
        lock: None,
    };
    let state = given
        .opens_state
        .then(|| Store::open(&snapshot.state_dir, options))
        .transpose()?;
    let Some((shared, parts)) = assemble(loaded, threads, state, asked)? else {
        return Ok(None);
    };
    let access_log = access_log
        .map(|spec| AccessLog::open(&spec, Arc::clone(&shared.log_dropped)).context("access_log.path"))
        .transpose()?;
    Ok(Some(Prepared {
        shared,
        parts,
        sockets,
        copies,
        access_log,
        descriptors,
    }))
}

fn shards(log: Option<&AccessLog>, threads: usize) -> Vec<LogShard> {
    let shards = |log: &AccessLog| (0..threads).map(|_| log.shard()).collect();
    log.map(shards).unwrap_or_default()
}

/// What those who start and stop the process share.
#[derive(Clone)]
struct Life {
    shared: Arc<Shared>,
    stage: watch::Sender<Stage>,
    threads: Arc<Threads>,
    asked: Asked,
    upgrader: Upgrader,
    manager: Arc<Manager>,
    admin_stop: watch::Sender<bool>,
    state: Held,
}

/// Runs both planes to their end.
fn serve(data_plane: DataPlane, start: Start, life: &Life) {
    let mut server = Server::new_with_opt_and_conf(None, server_conf());
    server.bootstrap();
    server.add_service(data_plane);
    server.add_service(background_service("control", Control::new(start, life.clone())));
    server.run(RunArgs {
        shutdown_signal: Box::new(Drain(life.clone())),
    });
    // The admin side goes with the process's last answer.
    let _ = life.admin_stop.send(true);
}

/// The admin interface, until it is served.
struct AdminSide {
    /// `None`: there is none, or it is served.
    listener: Option<TcpListener>,
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
}

impl AdminSide {
    fn serve(&mut self) -> anyhow::Result<()> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        tracing::info!(address = %listener.local_addr()?, "admin listening");
        admin::serve(listener, Arc::clone(&self.shared), self.stopped.clone()).context("the admin thread")?;
        Ok(())
    }
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
