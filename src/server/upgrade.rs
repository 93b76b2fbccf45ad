//! The side of the process that is replaced: it starts the program anew, gives it the sockets, and goes on serving until
//! that one serves. Whatever goes wrong before, nothing has changed.

use super::handover::{Broken, Link, Message, PROTOCOL, Role};
use super::notify::Manager;
use super::signals::Asked;
use super::successor;
use crate::runtime::Origin;
use crate::shared::Shared;
use async_trait::async_trait;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How long the new process may take from `go` to `serving`: it opens the state, no more.
const SERVING_WITHIN: Duration = Duration::from_secs(10);

/// How long a new process that has closed the link may take to end: its exit code says more.
const EXIT_WITHIN: Duration = Duration::from_millis(500);

/// How long a stop waits for an upgrade that it interrupts.
const INTERRUPT_WITHIN: Duration = Duration::from_secs(2);

/// How often the end of a process is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// What is started: this program, as it was started.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
}

impl Program {
    /// Asked for at the start: later the file may have been replaced, which is what an upgrade is for. A link on the way
    /// stays a link, so that turning it to another release is an upgrade, too.
    ///
    /// # Errors
    /// The system does not say where it is. That is no reason not to serve.
    pub fn this() -> Result<Self, String> {
        let mut arguments = std::env::args_os();
        let named = arguments.next().unwrap_or_default();
        let search = std::env::var_os("PATH").unwrap_or_default();
        let running = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
        Ok(Self {
            path: as_started(&named, &search, &running).unwrap_or(running),
            arguments: arguments.collect(),
        })
    }
}

/// The path by which `running` was started under the name `named`.
fn as_started(named: &OsStr, search: &OsStr, running: &Path) -> Option<PathBuf> {
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let candidates: Vec<PathBuf> = if Path::new(named).components().count() > 1 {
        vec![named.into()]
    } else {
        std::env::split_paths(search)
            .map(|directory| directory.join(named))
            .collect()
    };
    let mut candidates = candidates.into_iter().filter_map(|path| std::path::absolute(path).ok());
    // A process may be started under any name.
    candidates.find(|path| identity(path).is_some() && identity(path) == identity(running))
}

/// What only one process may change: it rests while another one takes over.
#[async_trait]
pub trait Custody: Send + Sync {
    /// From now on nothing is changed, and all of it is on the disk. Returns the lock on it, for the new process.
    ///
    /// # Errors
    /// That is not possible now.
    async fn freeze(&self) -> Result<Option<OwnedFd>, String>;

    /// Comes true when something is asked for that waits for nobody (a kill switch): the upgrade is given up, unless the new
    /// process serves already.
    async fn overruled(&self);

    /// As before [`Custody::freeze`], also when that has failed or was broken off. The new process has ended.
    async fn thaw(&self);
}

/// An upgrade has been made: this process drains and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgraded {
    /// The process that serves now.
    pub pid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Busy,
    HandedOver(Upgraded),
    /// The process stops.
    Closed,
}

struct Order {
    by: Origin,
    answer: oneshot::Sender<Result<Upgraded, String>>,
}

/// Asks for upgrades.
#[derive(Clone)]
pub struct Upgrader {
    state: watch::Sender<State>,
    orders: mpsc::Sender<Order>,
}

impl Upgrader {
    /// With the one who makes them, and drops `sockets` when there can be none any more.
    pub fn new(means: Means) -> (Self, Upgrades) {
        let (orders, received) = mpsc::channel(1);
        let state = watch::Sender::new(State::Idle);
        let upgrades = Upgrades {
            means,
            orders: received,
            state: state.clone(),
        };
        (Self { state, orders }, upgrades)
    }

    /// Replaces this process by the program as it is now on the disk, with the file as it is now. Returns once that one
    /// serves; it goes on when the caller does not wait.
    ///
    /// # Errors
    /// Why not: nothing has changed then. One at a time: another one meanwhile is refused.
    pub async fn upgrade(&self, by: Origin) -> Result<Upgraded, String> {
        let mut refused = None;
        self.state.send_if_modified(|state| {
            refused = match state {
                State::Idle => None,
                State::Busy => Some("an upgrade is under way already".to_owned()),
                State::HandedOver(Upgraded { pid }) => {
                    Some(format!("process {pid} has taken over already: ask that one"))
                }
                State::Closed => Some("this process is stopping".to_owned()),
            };
            if refused.is_none() {
                *state = State::Busy;
            }
            refused.is_none()
        });
        if let Some(refused) = refused {
            tracing::warn!(refused, by = by.who, from = by.from, "upgrade: refused");
            return Err(refused);
        }
        let (answer, answered) = oneshot::channel();
        let gone = |_| "nobody makes upgrades any more: the log says why".to_owned();
        self.orders
            .send(Order { by, answer })
            .await
            .map_err(|error| gone(error.to_string()))?;
        answered.await.map_err(|error| gone(error.to_string()))?
    }

    /// Until another process serves.
    pub async fn handed_over(&self) {
        let mut state = self.state.subscribe();
        // The sender is ours.
        let _ = state.wait_for(|state| matches!(state, State::HandedOver(_))).await;
    }

    /// Refuses further upgrades, and waits for one that is under way, which a stop interrupts. Whether another process has
    /// taken over all the same.
    pub async fn close(&self) -> bool {
        let mut state = self.state.subscribe();
        let over = state.wait_for(|state| *state != State::Busy);
        // Beyond that time the new process sees that this one has ended.
        let _ = tokio::time::timeout(INTERRUPT_WITHIN, over).await;
        let mut handed_over = false;
        self.state.send_modify(|state| {
            handed_over = matches!(state, State::HandedOver(_));
            if !handed_over {
                *state = State::Closed;
            }
        });
        // With the copies of the sockets: those who accept are the last to hold them, and leave nobody in their queues.
        let _ = tokio::time::timeout(INTERRUPT_WITHIN, self.orders.closed()).await;
        handed_over
    }
}

/// What an upgrade is made with.
pub struct Means {
    /// Why it is not known, otherwise.
    pub program: Result<Program, String>,
    pub sockets: Vec<(Role, OwnedFd)>,
    pub custody: Option<Arc<dyn Custody>>,
    pub shared: Arc<Shared>,
    pub asked: Asked,
    pub manager: Arc<Manager>,
}

/// Makes upgrades, one after the other.
pub struct Upgrades {
    means: Means,
    orders: mpsc::Receiver<Order>,
    state: watch::Sender<State>,
}

impl Upgrades {
    /// Until one has been made, or the process stops.
    pub async fn run(mut self) {
        let mut state = self.state.subscribe();
        let means = Arc::new(self.means);
        loop {
            let order = tokio::select! {
                order = self.orders.recv() => order,
                _ = state.wait_for(|state| *state == State::Closed) => return,
            };
            let Some(Order { by, answer }) = order else { return };
            let made = Self::make(&means, &by).await;
            let next = made
                .as_ref()
                .map_or(State::Idle, |upgraded| State::HandedOver(*upgraded));
            self.state.send_replace(next);
            // Who asked may have gone.
            let _ = answer.send(made.clone());
            if made.is_ok() {
                return;
            }
        }
    }

    async fn make(means: &Arc<Means>, by: &Origin) -> Result<Upgraded, String> {
        tracing::info!(by = by.who, from = by.from, "upgrade: starting the program anew");
        let made = means.attempt().await;
        match &made {
            Ok(Upgraded { pid }) => {
                let (manager, pid) = (Arc::clone(&means.manager), *pid);
                // Blocks; a task that panics has told nobody, which is logged as such.
                drop(tokio::task::spawn_blocking(move || manager.handed_over(pid)).await);
                tracing::info!(pid, "upgrade: another process serves now, this one drains");
            }
            Err(reason) => {
                means.shared.upgrades_failed.fetch_add(1, Ordering::Relaxed);
                for line in reason.lines() {
                    tracing::error!(reason = line, "upgrade: failed, this process goes on serving");
                }
            }
        }
        made
    }
}

impl Means {
    async fn attempt(self: &Arc<Self>) -> Result<Upgraded, String> {
        if std::process::id() == 1 {
            return Err(
                "this process is PID 1 of its container, which ends when it does: start another container instead"
                    .into(),
            );
        }
        let program = self.program.clone()?;
        let (child, link) = blocking(move || start(&program)).await?;
        let mut successor = Successor {
            child,
            link: Some(link),
        };
        let mut frozen = false;
        let handed_over = tokio::select! {
            biased;
            handed_over = self.hand_over(&mut successor, &mut frozen) => handed_over,
            () = self.asked.stop(1) => Err(Failure::Other("asked to stop meanwhile".into())),
        };
        let pid = successor.child.id();
        let Err(failure) = handed_over else {
            return Ok(Upgraded { pid });
        };
        // Before it thaws: no two processes may think that the state is theirs.
        let patience = match failure {
            Failure::Ended(_) => EXIT_WITHIN,
            Failure::Other(_) => Duration::ZERO,
        };
        let end = successor.end(patience).await;
        if let (true, Some(custody)) = (frozen, &self.custody) {
            custody.thaw().await;
        }
        Err(match failure {
            Failure::Ended(when) => {
                format!("the new process (pid {pid}) ended before it was {when} ({end}): its log says why")
            }
            Failure::Other(reason) => reason,
        })
    }

    async fn hand_over(self: &Arc<Self>, successor: &mut Successor, frozen: &mut bool) -> Result<(), Failure> {
        let within = self.shared.load().snapshot.limits.upgrade_timeout;
        let means = Arc::clone(self);
        successor
            .talk(move |link| {
                means
                    .offer(link)
                    .map_err(|error| Failure::of(Broken::Io(error), "ready"))?;
                expect(link, &Message::Ready, within, "ready")
            })
            .await?;
        let lock = match &self.custody {
            Some(custody) => {
                *frozen = true;
                custody.freeze().await.map_err(Failure::Other)?
            }
            None => None,
        };
        let serving = successor.talk(move |link| {
            let go = Message::Go { lock: lock.is_some() };
            link.send(&go, lock.as_ref().map(AsFd::as_fd))
                .map_err(|error| Failure::of(Broken::Io(error), "serving"))?;
            expect(link, &Message::Serving, SERVING_WITHIN, "serving")
        });
        tokio::select! {
            biased;
            serving = serving => serving,
            () = overruled(self.custody.as_deref()) => Err(Failure::Other("a kill switch came on meanwhile: ask again".into())),
        }
    }

    fn offer(&self, link: &Link) -> io::Result<()> {
        link.send(&Message::Hello { protocol: PROTOCOL }, None)?;
        for (role, socket) in &self.sockets {
            link.send(&Message::Socket(role.clone()), Some(socket.as_fd()))?;
        }
        link.send(&Message::Offered, None)
    }
}

async fn overruled(custody: Option<&dyn Custody>) {
    match custody {
        Some(custody) => custody.overruled().await,
        None => std::future::pending().await,
    }
}

fn expect(link: &mut Link, expected: &Message, within: Duration, what: &'static str) -> Result<(), Failure> {
    match link.receive(within) {
        Ok(message) if message == *expected => Ok(()),
        Ok(Message::Failed { reason }) => Err(Failure::Other(format!("the new process cannot serve: {reason}"))),
        Ok(other) => Err(Failure::Other(format!(
            "the new process said {other:?} instead of {what}"
        ))),
        Err(broken) => Err(Failure::of(broken, what)),
    }
}

/// Why an upgrade came to nothing.
enum Failure {
    /// The new process ended before it was so far.
    Ended(&'static str),
    Other(String),
}

impl Failure {
    fn of(broken: Broken, what: &'static str) -> Self {
        let gone =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        match broken {
            Broken::Closed => Self::Ended(what),
            Broken::Io(error) if gone(&error) => Self::Ended(what),
            Broken::Silent(within) => Self::Other(format!(
                "the new process was not {what} within {} s",
                within.as_secs_f32()
            )),
            other => Self::Other(other.to_string()),
        }
    }
}

/// The new process, while it is not known whether it will serve.
struct Successor {
    child: Child,
    /// `None` while somebody talks, and after who did was not waited for.
    link: Option<Link>,
}

impl Successor {
    async fn talk<T: Send + 'static>(
        &mut self,
        talk: impl FnOnce(&mut Link) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let Some(mut link) = self.link.take() else {
            return Err(Failure::Other("the link to the new process is lost".into()));
        };
        let talked = blocking(move || Ok((talk(&mut link), link))).await;
        let (result, link) = talked.map_err(Failure::Other)?;
        self.link = Some(link);
        result
    }

    /// Its end, after `patience` by SIGKILL; how it came about.
    async fn end(mut self, patience: Duration) -> String {
        let end = move || {
            let until = Instant::now() + patience;
            loop {
                match self.child.try_wait() {
                    Ok(Some(status)) => return Ok(status.to_string()),
                    Ok(None) if Instant::now() < until => std::thread::sleep(LOOK),
                    Ok(None) | Err(_) => break,
                }
            }
            let killed = self.child.kill().and_then(|()| self.child.wait());
            killed
                .map(|status| status.to_string())
                .map_err(|error| error.to_string())
        };
        blocking(end).await.unwrap_or_else(|error| error)
    }
}

fn start(program: &Program) -> Result<(Child, Link), String> {
    let path = program.path.display();
    let (link, stdin) = Link::pair().map_err(|error| format!("a pair of sockets: {error}"))?;
    let child = Command::new(&program.path)
        .args(&program.arguments)
        .env(successor::VARIABLE, "1")
        .stdin(Stdio::from(stdin))
        .spawn()
        .map_err(|error| format!("{path} cannot be started: {error}"))?;
    Ok((child, link))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.unwrap_or_else(|error| Err(error.to_string()))
}

#[cfg(test)]
mod tests;
