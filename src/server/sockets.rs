//! The listening sockets: bound by this process, or taken over from the one before. Either way they are there before
//! anything else starts.

use super::handover::Role;
use crate::config::Snapshot;
use crate::proxy::accept::Bound;
use anyhow::Context;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

/// Connections that may wait to be accepted (the kernel lowers it to `net.core.somaxconn`).
const BACKLOG: i32 = 65_535;

/// What the process before has handed over and nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(pub Vec<(Role, OwnedFd)>);

impl Inherited {
    /// The first of this role: with port 0 there may be several.
    fn take(&mut self, role: &Role) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(offered, _)| offered == role)?;
        Some(self.0.remove(at).1)
    }
}

pub struct Sockets {
    pub listeners: Vec<Bound>,
    /// With its address in the file.
    pub admin: Option<(SocketAddr, TcpListener)>,
}

impl Sockets {
    /// Those that `snapshot` asks for. What it does not ask for stays in `inherited`.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub fn open(snapshot: &Snapshot, inherited: &mut Inherited) -> anyhow::Result<Self> {
        let listeners = snapshot.listeners.iter().enumerate();
        let listeners = listeners.map(|(index, listener)| {
            let key = format!("listeners[{index}].address");
            let configured = listener.address;
            let socket = open(configured, &Role::Listener(configured), &key, inherited)?;
            Ok(Bound { configured, socket })
        });
        let listeners = listeners.collect::<anyhow::Result<_>>()?;
        let admin = snapshot.admin.address.map(|address| {
            let socket = open(address, &Role::AdminAddress(address), "admin.address", inherited)?;
            Ok::<_, anyhow::Error>((address, socket))
        });
        Ok(Self {
            listeners,
            admin: admin.transpose()?,
        })
    }

    /// A copy of each, for the process that takes over.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn copies(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        let listeners = self.listeners.iter();
        let listeners = listeners.map(|bound| (Role::Listener(bound.configured), &bound.socket));
        let admin = self.admin.iter();
        let admin = admin.map(|(address, socket)| (Role::AdminAddress(*address), socket));
        let copy = |(role, socket): (Role, &TcpListener)| Ok((role, socket.as_fd().try_clone_to_owned()?));
        listeners.chain(admin).map(copy).collect()
    }
}

/// A listening socket, not blocking. Accepted connections inherit TCP_NODELAY from it.
fn open(address: SocketAddr, role: &Role, key: &str, inherited: &mut Inherited) -> anyhow::Result<TcpListener> {
    if let Some(socket) = inherited.take(role) {
        return Ok(TcpListener::from(socket));
    }
    let bind = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok::<_, io::Error>(TcpListener::from(socket))
    };
    bind().with_context(|| format!("{key}: cannot listen on {address} (is it taken? `ss -ltnp` shows by whom)"))
}
