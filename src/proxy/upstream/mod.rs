//! The side of the endpoints.

mod idle;

pub use idle::IdlePool;

use super::stream::Stream;
use super::worker::Worker;
use crate::config::snapshot::Timeouts;
use crate::shared::Endpoint;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A connection to an endpoint, and whether it has carried a request before.
pub struct Connection {
    pub stream: Stream,
    pub reused: bool,
}

/// A connection to `endpoint`: an idle one of this thread, or a new one.
///
/// `sure`: an idle one is asked of the kernel whether it still lives, because the request could not be repeated on
/// another if it did not.
pub async fn connect(
    worker: &Worker,
    endpoint: &Arc<Endpoint>,
    timeouts: &Timeouts,
    sure: bool,
) -> io::Result<Connection> {
    loop {
        let idle = worker.idle.borrow_mut().take(endpoint);
        match idle {
            Some(stream) if sure && !stream.is_quiet_for_sure() => {}
            Some(stream) => return Ok(Connection { stream, reused: true }),
            // Boxed: the rarer case, and the larger.
            None => return Box::pin(open(endpoint, timeouts.connect)).await,
        }
    }
}

/// A new connection, within `limit`: always a real timer, because the connection's slot may be watching something else.
pub async fn open(endpoint: &Endpoint, limit: Duration) -> io::Result<Connection> {
    let tcp = tokio::time::timeout(limit, TcpStream::connect(endpoint.address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection within timeouts.connect"))??;
    tcp.set_nodelay(true)?;
    Ok(Connection {
        stream: Stream::new(tcp),
        reused: false,
    })
}

/// Whether a connection could not be made for want of something of our own: descriptors, ports, memory.
pub fn is_ours(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::EADDRNOTAVAIL | Errno::ENOBUFS | Errno::ENOMEM)
    )
}
