//! The listening service: one accept loop a thread and listener, each thread with a runtime of its own.
//!
//! A connection stays on the thread that accepted it: its request, its upstream connection and its counters never meet
//! another thread. All threads wait on the same listening socket (not on one each by `SO_REUSEPORT`): whichever is free
//! takes the next connection, and closing a thread's copy loses nobody who is waiting in the queue.

use super::answers::OwnAnswer;
use super::buffer::Buffer;
use super::downstream::{self, Client, Link};
use super::handshakes::{self, Turn};
use super::opening::{self, Formalities};
use super::record::log_unread;
use super::stream::Stream;
use super::worker::Worker;
use crate::http1::Version;
use crate::outcome::Refusal;
use crate::shared::{Shared, ThreadStats};
use crate::telemetry::access_log::LogShard;
use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// How long a thread rests when no descriptor is left: what it has must end first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Connections taken from the queue when the listener closes; the others are refused with it.
const QUEUED_MOST: usize = 4096;

/// How often that is told.
const EXHAUSTED_TOLD: Duration = Duration::from_secs(1);

/// A listening socket, bound before anything else starts so that a conflict is an error of the start.
pub struct Bound {
    /// As in the file: the name under which the socket is handed over to another process.
    pub configured: SocketAddr,
    pub socket: StdListener,
}

/// How long idle connections are left open after another process has taken over: most send their next request by then, and
/// learn from its answer that it was the last. Closing them at once would meet requests on their way.
pub const IDLE_GRACE: Duration = Duration::from_secs(5);

/// How long a connection on which nothing was ever asked may still bring its first request when the process closes: most are
/// new, and theirs is on its way. Others (opened in advance, or by a balancer to see whether somebody listens) never
/// bring one, and must not hold up the stop for more than a second.
pub const FIRST_GRACE: Duration = Duration::from_millis(700);

/// When the threads of the data plane stop accepting, and when they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connections wait in the queue: nothing is known of the endpoints yet.
    Starting,
    Serving,
    /// No new connections: another process takes them. Idle ones may send one more request.
    Yielding,
    /// No new connections; those in flight finish, first requests that are on their way too.
    Closing,
    /// Tunnels are ended: their peers are told, and have time to say that they have heard.
    Leaving,
    /// What is still in flight is ended, and its clients are told as far as their protocol has a word for it.
    Ending,
    /// Whatever is there even so is cut.
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
    pub threads: Arc<Threads>,
}

/// How far the threads of the data plane are.
#[derive(Default)]
pub struct Threads {
    /// Those that have not ended yet.
    pub running: AtomicUsize,
    /// Those that may still take a connection.
    pub accepting: AtomicUsize,
    /// One could not be started, or has failed: the process had better end than serve with less than it was told to.
    pub failed: Notify,
}

#[async_trait]
impl Service for DataPlane {
    async fn start_service(&mut self, _handed_over: Option<ListenFds>, _shutdown: ShutdownWatch, _per_fd: usize) {
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
                self.threads.failed.notify_one();
            }
        }
        // The threads have their own copies: the last one to be closed is one of which the queue was emptied just before.
        self.listeners.clear();
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
}

impl DataPlane {
    fn start_thread(&self, index: usize, stats: Arc<ThreadStats>, log: Option<LogShard>) -> io::Result<()> {
        let sockets: Vec<_> = self
            .listeners
            .iter()
            .map(|bound| bound.socket.try_clone())
            .collect::<Result<_, _>>()?;
        let part = Part {
            index,
            shared: Arc::clone(&self.shared),
            stats,
            log,
            sockets,
            stage: self.stage.clone(),
            cap: self.connections_cap,
            threads: Arc::clone(&self.threads),
        };
        let body = move || {
            let threads = Arc::clone(&part.threads);
            threads.running.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = part.run() {
                tracing::error!(thread = index, %error, "a thread of the data plane has failed");
                threads.failed.notify_one();
            }
            threads.running.fetch_sub(1, Ordering::SeqCst);
        };
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(body)
            .map(drop)
    }
}

/// What one thread is given.
struct Part {
    index: usize,
    shared: Arc<Shared>,
    stats: Arc<ThreadStats>,
    log: Option<LogShard>,
    sockets: Vec<StdListener>,
    stage: watch::Receiver<Stage>,
    cap: usize,
    threads: Arc<Threads>,
}

/// Tasks that run before a busy thread asks the kernel what else has come (tokio: 61): fewer questions, and more answers to one
/// client in one write. A few milliseconds of work at most.
const TURN: u32 = 256;

impl Part {
    /// The thread's life, in a runtime of its own whose tasks need not be able to leave it.
    fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(TURN)
            .build_local(tokio::runtime::LocalOptions::default())?;
        let most_idle = self.cap / self.shared.threads.len().max(1);
        let worker = Worker::new(self.index, self.shared, self.stats, self.log, most_idle.max(16));
        let served = runtime.block_on(serve(&worker, self.sockets, self.stage, self.cap, &self.threads));
        // What is still in flight is dropped with the runtime, and told as such.
        drop(runtime);
        if let Some(log) = worker.log.borrow_mut().as_mut() {
            log.flush();
        }
        served
    }
}

/// Runs one thread until the stage is [`Stage::Over`].
async fn serve(
    worker: &Rc<Worker>,
    sockets: Vec<StdListener>,
    mut stage: watch::Receiver<Stage>,
    cap: usize,
    threads: &Threads,
) -> io::Result<()> {
    // An error says that the sender is gone: then the next wait says so too.
    let _ = stage.wait_for(|stage| *stage >= Stage::Serving).await;
    tokio::task::spawn_local(Rc::clone(worker).run_ticks());
    let mut loops = tokio::task::JoinSet::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        let listener = Listener {
            socket: TcpListener::from_std(socket)?,
            index,
        };
        loops.spawn_local(accept_loop(Rc::clone(worker), listener, cap, stage.clone()));
    }
    threads.accepting.fetch_add(1, Ordering::SeqCst);
    loops.join_all().await;
    threads.accepting.fetch_sub(1, Ordering::SeqCst);
    for next in [Stage::Closing, Stage::Leaving, Stage::Ending] {
        let _ = stage.wait_for(|stage| *stage >= next).await;
        worker.enter(next);
    }
    let _ = stage.wait_for(|stage| *stage >= Stage::Over).await;
    Ok(())
}

/// A thread's copy of a listening socket.
struct Listener {
    socket: TcpListener,
    /// Position in [`crate::shared::InForce::listeners`].
    index: usize,
}

/// Accepts until the stage is [`Stage::Yielding`] or later; then takes those who already wait, and closes.
async fn accept_loop(worker: Rc<Worker>, listener: Listener, cap: usize, mut stage: watch::Receiver<Stage>) {
    let mut told = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage >= Stage::Yielding) => break,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => admit(&worker, tcp, peer, listener.index, cap),
            // One client's trouble (it left while it waited) is nobody else's.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let now = worker.recently();
                if told.is_none_or(|told| now.duration_since(told) >= EXHAUSTED_TOLD) {
                    tracing::warn!(%error, "no connection can be accepted for the moment");
                    told = Some(now);
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
    let Listener { socket, index } = listener;
    let Ok(socket) = socket.into_std() else { return };
    for _ in 0..QUEUED_MOST {
        match take_queued(&socket) {
            Ok((tcp, peer)) => admit(&worker, tcp, peer, index, cap),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => break,
        }
    }
}

/// One that the kernel has let in already. Asked of the kernel, not of the reactor, which hears of it later: whoever is
/// left in the queue is reset.
fn take_queued(socket: &StdListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (tcp, peer) = socket.accept()?;
    tcp.set_nonblocking(true)?;
    Ok((TcpStream::from_std(tcp)?, peer))
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

/// `listener`: position in [`crate::shared::InForce::listeners`].
fn admit(worker: &Rc<Worker>, tcp: TcpStream, peer: SocketAddr, listener: usize, cap: usize) {
    let open: i64 = worker.shared.threads.iter().map(|thread| thread.connections()).sum();
    let local = worker.local();
    let most = local.in_force.snapshot.limits.max_connections.min(cap);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let formalities = local.in_force.listeners.get(listener).map(|listener| Formalities {
        proxy_header: listener.spec.proxy_protocol,
        tls: listener.tls.clone(),
    });
    let formalities = formalities.filter(|formalities| formalities.proxy_header || formalities.tls.is_some());
    if usize::try_from(open).unwrap_or(0) >= most {
        let speaks_tls = formalities.is_some_and(|formalities| formalities.tls.is_some());
        return turn_away(worker, &tcp, peer.ip(), speaks_tls);
    }
    let client = Client {
        worker: Rc::clone(worker),
        link: Link::Wire(Stream::new(tcp)),
        peer,
        destination: None,
        certificate: None,
        listener,
        slot: worker.deadlines.slot(),
        since: worker.recently(),
        asked: Cell::new(false),
        answering: Cell::new(false),
    };
    let counted = Counted::new(worker);
    match formalities {
        None => {
            tokio::task::spawn_local(async move {
                let _counted = counted;
                downstream::serve(client, Buffer::default()).await;
            });
        }
        Some(formalities) => serve_formally(client, formalities, counted),
    }
}

/// Serves a connection that opens with more than a request.
fn serve_formally(client: Client, formalities: Formalities, counted: Counted) {
    let worker = Rc::clone(&client.worker);
    let turn = formalities.tls.is_some().then(|| Turn::new(&worker));
    let place = turn.as_ref().map(Turn::place);
    let task = tokio::task::spawn_local(async move {
        let _counted = counted;
        // Boxed: none of it is held any more once requests come.
        let opened = Box::pin(async move {
            let _turn = turn;
            opening::open(client, formalities).await
        });
        if let Some((client, input)) = opened.await {
            downstream::serve(client, input).await;
        }
    });
    if let Some(place) = place {
        handshakes::begun(&worker, place, task.abort_handle());
    }
}

/// 503, if the socket takes it at once: a proxy at its limit waits for nobody, and shakes no hands either.
fn turn_away(worker: &Worker, tcp: &TcpStream, peer: IpAddr, speaks_tls: bool) {
    let request_id = super::headers::hex_id(worker.draw_id());
    let request_id = std::str::from_utf8(&request_id).unwrap_or_default();
    log_unread(worker, peer, Version::Http11, Refusal::MaxConnections, request_id, None);
    if speaks_tls {
        return;
    }
    let mut out = Vec::new();
    let date = worker.date();
    let body = OwnAnswer {
        status: Refusal::MaxConnections.status(),
        text: "limits.max_connections is reached",
        request_id,
        date: &date,
        client: Version::Http11,
        close: true,
        head_only: false,
        fields: "",
        is_grpc: false,
        content: None,
    }
    .write(&mut out);
    out.extend_from_slice(&body);
    // What it does not take is lost with the connection.
    let _ = tcp.try_write(&out);
}
