//! The admin side over HTTP: the API, probes and metrics, on a thread of its own, so that it answers while every worker
//! is busy.
//!
//! Who may what:
//!
//! - over the unix socket, whom its permissions let in: everything. With a socket of the owner alone, the kernel's word
//!   for who is at the other end is asked for, too;
//! - over TCP, anyone: to read. To change something, or to see what may hold secrets, a token is needed.
//!
//! A browser is an involuntary client: over TCP `Host` must be ours (else a page whose name was made to point here could
//! read), and a request that another site's page makes is refused. There is no CORS, and no GET changes anything.
//!
//! Bounded in connections, in what a connection may send, and in how long it may take: whoever reaches the address
//! can slow this thread, never the traffic; and whoever fills it from TCP does not fill the unix socket.

pub mod api;
mod body;
mod certificates;
mod changes;
mod configuration;
mod connection;
mod dashboard;
mod document;
mod events;
mod explaining;
mod guard;
mod problem;
mod reading;
mod rollouts;
mod routes;
mod socket;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

pub use changes::Upgrade;
pub use connection::Listener;
pub use events::Kept;
pub use routes::openapi;
pub use socket::{SocketFile, listen_on_socket, take_over_socket};

use crate::control::commands::Commander;
use crate::control::event_log::EventLog;
use crate::shared::Shared;
use crate::telemetry::ShareWindow;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};

/// How often what versions do is sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Threads that wait for disks on this side's behalf.
const BLOCKING_THREADS: usize = 4;

/// What one client, or all of them, may take.
#[derive(Clone, Copy)]
struct Limits {
    /// Connections served at once by each listener; more wait in the kernel's queue.
    connections: u32,
    /// Of these, how many may follow events.
    followers: u32,
    /// For a whole request head, and between two requests of a connection.
    header: Duration,
    /// For a whole body.
    body: Duration,
    /// From a request's head to its answer.
    answer: Duration,
    /// The same where another process is started.
    upgrade: Duration,
    /// Age at which a connection is closed after the answer it is on.
    age: Duration,
    /// For that last answer, and for all answers in flight when the thread is told to stop.
    last_answer: Duration,
    /// Between two signs of life to who follows events.
    heartbeat: Duration,
    /// Before a wrong token is answered.
    wrong_token: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    followers: 16,
    header: Duration::from_secs(10),
    body: Duration::from_secs(10),
    answer: Duration::from_secs(30),
    upgrade: Duration::from_secs(120),
    age: Duration::from_secs(120),
    last_answer: Duration::from_secs(2),
    heartbeat: Duration::from_secs(15),
    wrong_token: Duration::from_millis(200),
};

/// What the admin side is made of.
pub struct Parts {
    pub shared: Arc<Shared>,
    /// Where changes go.
    pub commander: Commander,
    /// Where the state is kept.
    pub kept: Arc<dyn Kept>,
    /// The latest events.
    pub events: Arc<EventLog>,
    /// The configuration's file.
    pub file: PathBuf,
    /// The directory of the state, as at the start.
    pub state_dir: PathBuf,
    pub upgrade: Upgrade,
    pub listeners: Vec<Listener>,
}

/// What the handlers see.
struct Admin {
    shared: Arc<Shared>,
    commander: Commander,
    kept: Arc<dyn Kept>,
    events: Arc<EventLog>,
    file: PathBuf,
    state_dir: PathBuf,
    upgrade: Upgrade,
    limits: Limits,
    /// Only this thread's tasks lock it, and never across an await.
    window: Mutex<ShareWindow>,
    tokens: tokens::TokenFile,
    users: users::Users,
    wrong_tokens: guard::WrongTokens,
    /// Texts compiled at once, for who asks whether they are right.
    compiling: Semaphore,
    stop: watch::Receiver<bool>,
}

impl Admin {
    fn sample(&self) {
        let in_force = self.shared.load();
        self.window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sample(&in_force);
    }
}

/// Serves the admin side on the listeners of `parts`, from a thread of its own, until `stop` is true (or its sender is
/// gone); answers in flight then have 2 s. The thread ends by itself afterwards.
///
/// # Errors
/// When the thread, its runtime or the registration of a listener cannot be made.
pub fn serve(parts: Parts, stop: watch::Receiver<bool>) -> io::Result<JoinHandle<()>> {
    serve_within(LIMITS, parts, stop)
}

fn serve_within(limits: Limits, parts: Parts, stop: watch::Receiver<bool>) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let doors = {
        let _inside = runtime.enter();
        let doors = parts.listeners.into_iter().map(|listener| listener.open(limits));
        doors.collect::<io::Result<Vec<_>>>()?
    };
    let admin = Arc::new(Admin {
        shared: parts.shared,
        commander: parts.commander,
        kept: parts.kept,
        events: parts.events,
        file: parts.file,
        state_dir: parts.state_dir,
        upgrade: parts.upgrade,
        limits,
        window: Mutex::default(),
        tokens: tokens::TokenFile::default(),
        users: users::Users::default(),
        wrong_tokens: guard::WrongTokens::default(),
        compiling: Semaphore::new(1),
        stop: stop.clone(),
    });
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        runtime.block_on(run(admin, doors, stop));
        // A disk that hangs holds a thread: it is not waited for.
        runtime.shutdown_background();
    })
}

async fn run(admin: Arc<Admin>, doors: Vec<connection::Door>, mut stop: watch::Receiver<bool>) {
    let router = routes::router(Arc::clone(&admin));
    let mut serving = tokio::task::JoinSet::new();
    for door in doors {
        serving.spawn(door.serve(router.clone(), stop.clone()));
    }
    let looked = Arc::clone(&admin);
    tokio::spawn(async move { looked.tokens.look(&looked.shared).await });
    let mut samples = interval(SAMPLE_EVERY);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            _ = samples.tick() => admin.sample(),
        }
    }
    // Each ends within `last_answer`.
    serving.join_all().await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it whoever could stop us later.
    let _ = stop.wait_for(|stop| *stop).await;
}
