//! The listening service: one accept loop a thread and listener, each thread with a runtime of its own.
//!
//! A connection stays on the thread that accepted it: its request, its upstream connection and its counters never meet
//! another thread. All threads wait on the same listening socket (not on one each by `SO_REUSEPORT`): whichever is free
//! takes the next connection, and closing a thread's copy loses nobody who is waiting in the queue.

use super::answers::OwnAnswer;
use super::downstream::{self, Client};
use super::stream::Stream;
use super::worker::Worker;
use crate::outcome::{Refusal, Termination};
use crate::shared::{Shared, ThreadStats};
use crate::telemetry::access_log::LogShard;
use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a thread rests when no descriptor is left: what it has must end first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket, bound before anything else starts so that a conflict is an error of the start.
pub struct Bound {
    /// As in the file: the name under which the descriptor is handed over.
    pub configured: SocketAddr,
    pub socket: StdListener,
}

/// When the threads of the data plane stop accepting, and when they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connections wait in the queue: nothing is known of the endpoints yet.
    Starting,
    Serving,
    /// No new connections; those in flight finish.
    Closing,
    /// Whatever is still in flight is cut.
    Over,
}

/// The data plane as a service of pingora-core's server.
pub struct DataPlane {
    pub shared: Arc<Shared>,
    pub listeners: Vec<Bound>,
    pub stage: watch::Receiver<Stage>,
    /// One a thread; empty: no access log.
    pub logs: Vec<LogShard>,
    /// The most connections that descriptors allow, whatever `limits.max_connections` says.
    pub connections_cap: usize,
    /// Threads that have not ended yet.
    pub running: Arc<AtomicUsize>,
}

#[async_trait]
impl Service for DataPlane {
    async fn start_service(&mut self, fds: Option<ListenFds>, _shutdown: ShutdownWatch, _per_fd: usize) {
        self.offer_descriptors(fds).await;
        for bound in &self.listeners {
            match bound.socket.local_addr() {
                Ok(address) => tracing::info!(%address, "listening"),
                Err(error) => tracing::error!(configured = %bound.configured, %error, "a listener has no address"),
            }
        }
        let mut logs = std::mem::take(&mut self.logs).into_iter();
        for (index, stats) in self.shared.threads.iter().enumerate() {
            if let Err(error) = self.start_thread(index, Arc::clone(stats), logs.next()) {
                tracing::error!(thread = index, %error, "a thread of the data plane could not be started");
            }
        }
        let mut stage = self.stage.clone();
        // An error says that the sender is gone: over all the same.
        let _ = stage.wait_for(|stage| *stage == Stage::Over).await;
    }

    fn name(&self) -> &str {
        "data plane"
    }

    /// One thread coordinates; the workers are threads of their own.
    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(
            self.listeners
                .iter()
                .map(|bound| bound.configured.to_string())
                .collect(),
        )
    }
}

impl DataPlane {
    /// A successor process can be handed our descriptors.
    async fn offer_descriptors(&self, fds: Option<ListenFds>) {
        let Some(fds) = fds else { return };
        let mut fds = fds.lock();
        for bound in &self.listeners {
            fds.add(bound.configured.to_string(), bound.socket.as_raw_fd());
        }
    }

    fn start_thread(&self, index: usize, stats: Arc<ThreadStats>, log: Option<LogShard>) -> io::Result<()> {
        let sockets: Vec<_> = self
            .listeners
            .iter()
            .map(|bound| bound.socket.try_clone())
            .collect::<Result<_, _>>()?;
        let (shared, stage, running) = (Arc::clone(&self.shared), self.stage.clone(), Arc::clone(&self.running));
        let cap = self.connections_cap;
        running.fetch_add(1, Ordering::SeqCst);
        let body = move || {
            if let Err(error) = run_thread(index, shared, stats, log, sockets, stage, cap) {
                tracing::error!(thread = index, %error, "a thread of the data plane has failed");
            }
            running.fetch_sub(1, Ordering::SeqCst);
        };
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(body)
            .map(drop)
    }
}

/// One thread's life, in a runtime of its own whose tasks need not be able to leave it.
fn run_thread(
    index: usize,
    shared: Arc<Shared>,
    stats: Arc<ThreadStats>,
    log: Option<LogShard>,
    sockets: Vec<StdListener>,
    stage: watch::Receiver<Stage>,
    cap: usize,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let worker = Worker::new(index, shared, stats, log);
    runtime.block_on(serve(worker, sockets, stage, cap))
    // What is still in flight is dropped with the runtime, and told as such.
}

/// Runs one thread until the stage is [`Stage::Over`].
async fn serve(
    worker: Rc<Worker>,
    sockets: Vec<StdListener>,
    mut stage: watch::Receiver<Stage>,
    cap: usize,
) -> io::Result<()> {
    // An error says that the sender is gone: then the next wait says so too.
    let _ = stage.wait_for(|stage| *stage >= Stage::Serving).await;
    let ticks = tokio::task::spawn_local(Rc::clone(&worker).run_ticks());
    let loops: Vec<_> = sockets
        .into_iter()
        .map(|socket| {
            let listener = TcpListener::from_std(socket)?;
            Ok(tokio::task::spawn_local(accept_loop(Rc::clone(&worker), listener, cap)))
        })
        .collect::<io::Result<_>>()?;
    // An error says that the sender is gone: over all the same.
    let _ = stage.wait_for(|stage| *stage >= Stage::Closing).await;
    loops.iter().for_each(tokio::task::JoinHandle::abort);
    worker.close();
    let _ = stage.wait_for(|stage| *stage >= Stage::Over).await;
    ticks.abort();
    if let Some(log) = worker.log.borrow_mut().as_mut() {
        log.flush();
    }
    Ok(())
}

async fn accept_loop(worker: Rc<Worker>, listener: TcpListener, cap: usize) {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => admit(&worker, tcp, peer, cap),
            // One client's trouble (it left while it waited) is nobody else's.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted for the moment");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Counts a connection from here to its end.
struct Counted(Rc<Worker>);

impl Counted {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.stats.connection_opened();
        Self(Rc::clone(worker))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.stats.connection_closed();
    }
}

fn admit(worker: &Rc<Worker>, tcp: TcpStream, peer: SocketAddr, cap: usize) {
    let open: i64 = worker.shared.threads.iter().map(|thread| thread.connections()).sum();
    let most = worker.local().in_force.snapshot.limits.max_connections.min(cap);
    if usize::try_from(open).unwrap_or(0) >= most {
        return turn_away(worker, &tcp);
    }
    let counted = Counted::new(worker);
    let slot = worker.deadlines.slot();
    let client = Client {
        worker: Rc::clone(worker),
        stream: Stream::new(tcp),
        peer: peer.ip().to_canonical(),
        slot,
        answering: Cell::new(false),
    };
    tokio::task::spawn_local(async move {
        let _counted = counted;
        downstream::serve(client).await;
    });
}

/// 503, if the socket takes it at once: a proxy at its limit waits for nobody.
fn turn_away(worker: &Worker, tcp: &TcpStream) {
    worker.stats.refused(Refusal::MaxConnections);
    worker.stats.terminated(Termination::Refused);
    let request_id = super::headers::hex_id(worker.draw_id());
    let mut out = Vec::new();
    let date = worker.date();
    OwnAnswer {
        status: Refusal::MaxConnections.status(),
        text: "limits.max_connections is reached",
        request_id: std::str::from_utf8(&request_id).unwrap_or_default(),
        date: &date,
        close: true,
        head_only: false,
    }
    .write(&mut out);
    // What it does not take is lost with the connection.
    let _ = tcp.try_write(&out);
}
