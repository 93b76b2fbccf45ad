//! The admin side over HTTP: probes and metrics, on a thread of its own, so that it answers while every worker is busy.
//!
//! Bounded in connections, in what a connection may send, and in how long it may take: whoever reaches the address
//! can slow this thread, never the traffic.

pub mod api;
mod routes;

use crate::shared::Shared;
use crate::telemetry::ShareWindow;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Bytes of a request head.
const MAX_HEAD: usize = 32 * 1024;
/// After a failed accept (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client that has just connected when the thread is told to stop may take to send its request.
const NEWCOMER: Duration = Duration::from_millis(100);
/// How often the shares that versions really get are sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What one client, or all of them, may take.
#[derive(Clone, Copy)]
struct Limits {
    /// Connections served at once; more wait in the kernel's queue.
    connections: u32,
    /// For a whole request head, and between two requests of a connection.
    header: Duration,
    /// Age at which a connection is closed after the answer it is on.
    age: Duration,
    /// For that last answer, and for all answers in flight when the thread is told to stop.
    last_answer: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    header: Duration::from_secs(10),
    age: Duration::from_secs(120),
    last_answer: Duration::from_secs(2),
};

/// What the handlers see.
struct Admin {
    shared: Arc<Shared>,
    /// Only this thread's tasks lock it, and never across an await.
    window: Mutex<ShareWindow>,
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

/// Serves `/metrics`, `/livez` and `/readyz` on `listener`, from a thread of its own, until `shutdown` is true (or its
/// sender is gone); answers in flight then have 2 s. The thread ends by itself afterwards.
///
/// # Errors
/// When the thread, its runtime or the registration of the listener cannot be made.
pub fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    serve_within(LIMITS, listener, shared, shutdown)
}

fn serve_within(
    limits: Limits,
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let admin = Arc::new(Admin {
        shared,
        window: Mutex::default(),
    });
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        runtime.block_on(run(limits, listener, admin, shutdown));
    })
}

async fn run(
    limits: Limits,
    listener: tokio::net::TcpListener,
    admin: Arc<Admin>,
    mut shutdown: watch::Receiver<bool>,
) {
    let router = routes::router(Arc::clone(&admin));
    let connections = Arc::new(Semaphore::new(limits.connections as usize));
    let mut samples = interval(SAMPLE_EVERY);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let accepted = async || {
        // The semaphore is never closed.
        let permit = Arc::clone(&connections).acquire_owned().await.ok();
        (permit, listener.accept().await)
    };
    let mut accepting = pin!(accepted());
    loop {
        tokio::select! {
            _ = stopped(&mut shutdown) => break,
            _ = samples.tick() => admin.sample(),
            (permit, accept) = &mut accepting => {
                match accept {
                    Ok((stream, _)) => {
                        let connection = connection(limits, stream, router.clone(), shutdown.clone());
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
        }
    }
    // Every connection gives its permit back: all of them here means that none is left.
    accepting.set(accepted());
    let _ = timeout(limits.last_answer, connections.acquire_many(limits.connections)).await;
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it whoever could stop us later.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Serves one connection to its end. Errors are the client's affair: it left, or did not speak HTTP.
async fn connection(
    limits: Limits,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stopped(&mut shutdown) => {
            // A connection without a request yet closes at once when it is shut down.
            if timeout(NEWCOMER, serving.as_mut()).await.is_ok() {
                return;
            }
        }
        () = sleep(limits.age) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = timeout(limits.last_answer, serving).await;
}

#[cfg(test)]
mod tests;
