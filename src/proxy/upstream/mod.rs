//! The side of the endpoints.

mod driver;
mod idle;
mod link;
mod multiplexed;

pub use idle::IdlePool;
pub use link::{Link, NotBegun};
use multiplexed::NoStream;
pub use multiplexed::{Lease, Multiplexed};

use super::downstream::Client;
use super::stream::{Stream, Tls};
use crate::config::snapshot::Timeouts;
use crate::opening::{Addresses, write_proxy_header};
use crate::shared::{Endpoint, Transport, explain_tls};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A silent host is asked by the kernel for a sign of life after so much silence, and so often.
const PROBED_AFTER: Duration = Duration::from_secs(10);
const PROBED_EVERY: Duration = Duration::from_secs(5);

/// A host that acknowledges nothing for so long is gone.
const HOST_GONE: Duration = Duration::from_secs(30);

/// A connection to an endpoint, and whether it has carried a request before.
pub struct Connection {
    pub stream: Stream,
    pub reused: bool,
    /// Of the TLS settings it was made by: [`crate::shared::Transport::edition`].
    edition: u64,
}

/// Whose request a connection is for.
pub struct OnBehalf<'c> {
    pub client: &'c Client,
    /// The client's address: its own, or what a trusted proxy says of it.
    pub client_ip: IpAddr,
}

impl OnBehalf<'_> {
    /// What connections to `endpoint` tell it of whom they are for, if they tell it that.
    fn tells(&self, endpoint: &Endpoint) -> Option<Addresses> {
        endpoint.transport.send_proxy_protocol.map(|_| self.addresses())
    }

    /// What a PROXY protocol header says. The port is 0 where a trusted proxy names the client: it names no port.
    fn addresses(&self) -> Addresses {
        let peer = self.client.peer;
        let port = if peer.ip() == self.client_ip { peer.port() } else { 0 };
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Addresses {
            source: SocketAddr::new(self.client_ip, port),
            destination: self.client.connected_to().unwrap_or(unknown),
        }
    }

    /// Keeps a connection to `endpoint` for later requests it may serve.
    pub fn keep(&self, endpoint: &Arc<Endpoint>, connection: Connection, life: Duration) {
        let worker = &self.client.worker;
        worker
            .idle
            .borrow_mut()
            .give(endpoint, self.tells(endpoint), connection, worker.recently(), life);
    }
}

/// How new the connection of a request has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    Any,
    /// No earlier request has used it. One that carries streams was opened after this was asked for: of several requests whose
    /// connection ends, the first opens one, and the others go with it.
    New,
    /// Opened for this request, which is the first on it.
    Own,
}

/// A way to `endpoint`: an idle connection of this thread, a stream of one, or a new one.
///
/// `sure`: an idle one is asked of the kernel whether it still lives, because the request could not be repeated on
/// another if it did not.
pub async fn connect(
    on_behalf: &OnBehalf<'_>,
    endpoint: &Arc<Endpoint>,
    timeouts: &Timeouts,
    age: Age,
    sure: bool,
) -> io::Result<Link> {
    if endpoint.transport.http2 {
        return Box::pin(stream(on_behalf, endpoint, timeouts, age, sure)).await;
    }
    let idle = match age {
        Age::Any => idle(on_behalf, endpoint, sure),
        Age::New | Age::Own => None,
    };
    match idle {
        Some(idle) => Ok(Link::Wire(idle)),
        // Boxed: the rarer case, and the larger.
        None => Box::pin(open(on_behalf, endpoint, timeouts)).await,
    }
}

fn idle(on_behalf: &OnBehalf<'_>, endpoint: &Arc<Endpoint>, sure: bool) -> Option<Connection> {
    let mut pool = on_behalf.client.worker.idle.borrow_mut();
    loop {
        let idle = pool.take(endpoint, on_behalf.tells(endpoint))?;
        if !sure || idle.stream.is_quiet_for_sure() {
            return Some(idle);
        }
    }
}

async fn open(on_behalf: &OnBehalf<'_>, endpoint: &Arc<Endpoint>, timeouts: &Timeouts) -> io::Result<Link> {
    // Always a real timer, because the connection's slot may be watching something else.
    let opened = tokio::time::timeout(timeouts.connect, open_unhurried(on_behalf, endpoint)).await;
    opened.map_err(|_| out_of_time())?.map(Link::Wire)
}

async fn stream(
    on_behalf: &OnBehalf<'_>,
    endpoint: &Arc<Endpoint>,
    timeouts: &Timeouts,
    age: Age,
    sure: bool,
) -> io::Result<Link> {
    let lease = multiplexed::lease(on_behalf, endpoint, timeouts, age, sure).await?;
    Ok(Link::Frames(Box::new(lease)))
}

fn out_of_time() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no connection within timeouts.connect")
}

async fn open_unhurried(on_behalf: &OnBehalf<'_>, endpoint: &Endpoint) -> io::Result<Connection> {
    let tcp = TcpStream::connect(endpoint.address).await?;
    tcp.set_nodelay(true)?;
    if endpoint.transport.http2 {
        end_with_host(&tcp)?;
    }
    let Transport {
        send_proxy_protocol,
        tls,
        http2: _,
    } = &endpoint.transport;
    let mut stream = Stream::new(tcp);
    if let Some(version) = *send_proxy_protocol {
        let mut header = Vec::new();
        write_proxy_header(&mut header, version, Some(&on_behalf.addresses()));
        stream.write_all(&mut [IoSlice::new(&header)], |_| {}).await?;
    }
    let mut edition = 0;
    if let Some(tls) = tls {
        let (config, current) = tls.settings.load();
        edition = current;
        let config = config.ok_or_else(|| io::Error::other("the pool's `tls` cannot be used: the log says why"))?;
        let tcp = stream.into_plain().ok_or(io::ErrorKind::Other)?;
        let shaken = Tls::connect(tcp, config, tls.name.clone()).await;
        stream = Stream::tls(shaken.map_err(|error| not_shaken(on_behalf, endpoint, &error))?);
    }
    Ok(Connection {
        stream,
        reused: false,
        edition,
    })
}

/// Has the kernel end a connection whose other host is gone. Streams may be silent on it for long, with a PING only every few
/// minutes (see [`crate::http2::Liveness`]), and what is sent to nobody would be repeated for a quarter of an hour.
fn end_with_host(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    let probes = TcpKeepalive::new().with_time(PROBED_AFTER).with_interval(PROBED_EVERY);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(HOST_GONE))
}

/// Why there is no TLS with an endpoint, also told in the log: somebody has to look at its certificate, or at ours.
fn not_shaken(on_behalf: &OnBehalf<'_>, endpoint: &Endpoint, error: &io::Error) -> io::Error {
    let why = explain_tls(error);
    if on_behalf.client.worker.may_warn() {
        let (endpoint, address) = (&endpoint.label, endpoint.address);
        tracing::warn!(%endpoint, %address, error = why, "no TLS with an endpoint (at most one such line a second)");
    }
    io::Error::new(error.kind(), format!("TLS: {why}"))
}

/// Whether there was no stream because as many are open as there may be.
pub fn is_full(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<NoStream>())
}

/// Whether there was no connection for want of something of our own: descriptors, ports, memory, streams.
pub fn is_ours(error: &io::Error) -> bool {
    use nix::errno::Errno;
    if is_full(error) {
        return true;
    }
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::EADDRNOTAVAIL | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_watches_over_the_host() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        end_with_host(&tcp).unwrap();
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBED_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBED_EVERY);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(HOST_GONE));
    }
}
