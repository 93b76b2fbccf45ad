//! What systemd is told: the datagrams of `sd_notify(3)` to `NOTIFY_SOCKET`. Without that variable, nothing.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager, if there is one.
pub struct Manager(Option<(UnixDatagram, SocketAddr)>);

impl Manager {
    /// The one that the environment names. One that cannot be reached is no reason not to serve: the log says so.
    pub fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        let socket = connect(&name);
        if let Err(error) = &socket {
            tracing::warn!(socket = %name.to_string_lossy(), %error, "NOTIFY_SOCKET cannot be used: systemd is told nothing");
        }
        Self(socket.ok())
    }

    /// Requests are served.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The process ends, and nobody takes over.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Another process is the service from now on. Only the one before may say so (`NotifyAccess=main`).
    pub fn handed_over(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}"));
    }

    fn tell(&self, state: &str) {
        let Some((socket, manager)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), manager) {
            tracing::warn!(state, %error, "systemd could not be told");
        }
    }
}

/// A path, or a name in the abstract namespace, written with an `@` first.
fn connect(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some((b'/', _)) => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("it is neither an absolute path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up a drain.
    socket.set_nonblocking(true)?;
    Ok((socket, manager))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn both_kinds_of_socket_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("rollgate-test-{}", std::process::id());
        let abstract_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, name) in [
            (at_path, path.into()),
            (abstract_name, OsString::from(format!("@{name}"))),
        ] {
            let manager = Manager(Some(connect(&name).unwrap()));
            manager.ready();
            manager.handed_over(17);
            manager.stopping();
            let states = [received(&socket), received(&socket), received(&socket)];
            assert_eq!(states, ["READY=1", "MAINPID=17", "STOPPING=1"]);
        }
    }

    #[test]
    fn what_is_no_socket_is_no_reason_to_fail() {
        for name in ["relative", "vsock:2:1", "/nowhere/notify"] {
            if let Ok(socket) = connect(&name.into()) {
                Manager(Some(socket)).ready();
            }
        }
        assert!(connect(&"relative".into()).is_err() && connect(&"vsock:2:1".into()).is_err());
    }
}
