//! The listening sockets: bound by this process, or taken over from the one before. Either way they are there before
//! anything else starts.

use super::handover::Role;
use crate::admin::{Listener, SocketFile, listen_on_socket, take_over_socket};
use crate::config::Snapshot;
use crate::config::snapshot::Admin;
use crate::proxy::accept::Bound;
use anyhow::Context;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

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
    pub admin_socket: Option<AdminSocket>,
}

/// The unix socket of the admin side.
pub struct AdminSocket {
    pub path: PathBuf,
    pub mode: u32,
    pub socket: UnixListener,
    pub file: SocketFile,
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
            admin_socket: admin_socket(&snapshot.admin, inherited)?,
        })
    }

    /// What the admin side listens on, and the file of its socket: they are taken.
    pub fn admin_side(&mut self) -> (Vec<Listener>, Option<SocketFile>) {
        let tcp = self.admin.take().map(|(_, listener)| Listener::Tcp(listener));
        let (unix, file) = self.admin_socket.take().map_or((None, None), |unix| {
            let AdminSocket { mode, socket, file, .. } = unix;
            (Some(Listener::Unix { socket, mode }), Some(file))
        });
        (unix.into_iter().chain(tcp).collect(), file)
    }

    /// A copy of each, for the process that takes over.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn copies(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        let listeners = self.listeners.iter();
        let listeners = listeners.map(|bound| (Role::Listener(bound.configured), bound.socket.as_fd()));
        let admin = self.admin.iter();
        let admin = admin.map(|(address, socket)| (Role::AdminAddress(*address), socket));
        let admin = admin.map(|(role, socket)| (role, socket.as_fd()));
        let unix = self.admin_socket.iter();
        let unix = unix.map(|unix| (Role::AdminSocket(unix.path.clone()), unix.socket.as_fd()));
        let copy = |(role, socket): (Role, BorrowedFd<'_>)| Ok((role, socket.try_clone_to_owned()?));
        listeners.chain(admin).chain(unix).map(copy).collect()
    }
}

/// That of the process before is served from where it is: who connects meanwhile waits, and is not refused.
fn admin_socket(admin: &Admin, inherited: &mut Inherited) -> anyhow::Result<Option<AdminSocket>> {
    let Some(path) = admin.socket.clone() else {
        return Ok(None);
    };
    let mode = admin.socket_mode;
    let (socket, file) = match inherited.take(&Role::AdminSocket(path.clone())) {
        Some(socket) => take_over_socket(socket, &path, mode)?,
        None => listen_on_socket(&path, mode)?,
    };
    Ok(Some(AdminSocket {
        path,
        mode,
        socket,
        file,
    }))
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
