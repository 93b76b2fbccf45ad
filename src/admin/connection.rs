//! Listeners and their connections: how many, how long, and who is at the other end.

use super::{Limits, stopped};
use axum::Router;
use hyper::Request;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::Uid;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Bytes of a request head.
const MAX_HEAD: usize = 32 * 1024;
/// After a failed accept (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client that has just connected when the thread is told to stop may take to send its request.
const NEWCOMER: Duration = Duration::from_millis(100);
/// Permission bits that let others than the owner connect.
const OTHERS_MAY_WRITE: u32 = 0o022;

/// What is listened on.
pub enum Listener {
    Tcp(std::net::TcpListener),
    Unix {
        socket: std::os::unix::net::UnixListener,
        /// Its permission bits: with those of the owner alone, only root and our own user are let in.
        mode: u32,
    },
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine.
    Unix {
        uid: u32,
        /// Whether the socket is for this user.
        admitted: bool,
    },
    Tcp {
        client: SocketAddr,
        /// The address that the client connected to.
        local: SocketAddr,
    },
}

/// What handlers know of the connection that a request came on.
pub struct Link {
    pub peer: Peer,
    /// Of all connections of the listener.
    followers: Arc<Semaphore>,
    /// Answers of this connection that follow events.
    following: AtomicUsize,
}

/// The right to follow events, until dropped.
pub struct Following {
    link: Arc<Link>,
    _permit: OwnedSemaphorePermit,
}

impl Link {
    /// `None`: too many follow already.
    pub fn follow(self: &Arc<Self>) -> Option<Following> {
        let permit = Arc::clone(&self.followers).try_acquire_owned().ok()?;
        self.following.fetch_add(1, Ordering::Relaxed);
        Some(Following {
            link: Arc::clone(self),
            _permit: permit,
        })
    }

    fn is_followed(&self) -> bool {
        self.following.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.link.following.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, u32),
}

/// A listener at work. Each has connections of its own: who fills one does not fill another.
pub struct Door {
    socket: Socket,
    limits: Limits,
    connections: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

/// An accepted connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Listener {
    /// To be called in the runtime that serves.
    pub(super) fn open(self, limits: Limits) -> io::Result<Door> {
        let socket = match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Socket::Tcp(TcpListener::from_std(listener)?)
            }
            Self::Unix { socket, mode } => {
                socket.set_nonblocking(true)?;
                Socket::Unix(UnixListener::from_std(socket)?, mode)
            }
        };
        Ok(Door {
            socket,
            limits,
            connections: Arc::new(Semaphore::new(limits.connections as usize)),
            followers: Arc::new(Semaphore::new(limits.followers as usize)),
        })
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                let local = stream.local_addr()?;
                Ok((Box::new(stream), Peer::Tcp { client, local }))
            }
            Self::Unix(listener, mode) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                let admitted = admits(*mode, uid, Uid::effective().as_raw());
                Ok((Box::new(stream), Peer::Unix { uid, admitted }))
            }
        }
    }
}

/// Whether a socket of these permission bits is for `uid`. Whom bits for others let in, the kernel has let in; otherwise it
/// is for `owner` and root, whatever was done to the file meanwhile.
fn admits(mode: u32, uid: u32, owner: u32) -> bool {
    mode & OTHERS_MAY_WRITE != 0 || uid == 0 || uid == owner
}

impl Door {
    /// Accepts and serves until `stop`; what is in flight then has its last answer.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let accepted = async || {
            // The semaphore is never closed.
            let permit = Arc::clone(&self.connections).acquire_owned().await.ok();
            (permit, self.socket.accept().await)
        };
        let mut accepting = pin!(accepted());
        loop {
            let (permit, accept) = tokio::select! {
                () = stopped(&mut stop) => break,
                accept = &mut accepting => accept,
            };
            match accept {
                Ok((stream, peer)) => {
                    let link = Arc::new(Link {
                        peer,
                        followers: Arc::clone(&self.followers),
                        following: AtomicUsize::new(0),
                    });
                    let connection = connection(self.limits, stream, link, router.clone(), stop.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "admin: accept failed");
                    drop(permit);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            accepting.set(accepted());
        }
        // Every connection gives its permit back: all of them here means that none is left.
        accepting.set(accepted());
        let all = self.connections.acquire_many(self.limits.connections);
        let _ = timeout(self.limits.last_answer, all).await;
    }
}

/// Serves one connection to its end. Errors are the client's affair: it left, or did not speak HTTP.
async fn connection(
    limits: Limits,
    stream: Box<dyn Stream>,
    link: Arc<Link>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    let on_link = Arc::clone(&link);
    let service = service_fn(move |mut request: Request<_>| {
        request.extensions_mut().insert(Arc::clone(&on_link));
        router.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stopped(&mut stop) => {
            // A connection without a request yet closes at once when it is shut down.
            if timeout(NEWCOMER, serving.as_mut()).await.is_ok() {
                return;
            }
        }
        () = aged(limits.age, &link) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = timeout(limits.last_answer, serving).await;
}

/// Until the connection is old. One that follows events may be as old as it likes.
async fn aged(age: Duration, link: &Link) {
    loop {
        sleep(age).await;
        if !link.is_followed() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_the_owner_is_for_nobody_else() {
        for (mode, uid, admitted) in [
            (0o600, 1000, true),
            (0o600, 0, true),
            (0o600, 1001, false),
            (0o644, 1001, false),
            (0o660, 1001, true),
            (0o666, 1001, true),
        ] {
            assert_eq!(admits(mode, uid, 1000), admitted, "{mode:o} {uid}");
        }
    }
}
