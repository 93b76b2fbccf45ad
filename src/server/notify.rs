//! What systemd is told: the datagrams of `sd_notify(3)` to `NOTIFY_SOCKET`. Without that variable, nothing.

use super::handover::send;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// How long the manager may take to hear that another process is the service.
const HEARD_WITHIN: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// The service manager, if there is one.
pub struct Manager(Option<UnixDatagram>);

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
        self.tell(|socket| notify(socket, "READY=1"));
    }

    /// The process ends, and nobody takes over.
    pub fn stopping(&self) {
        self.tell(|socket| notify(socket, "STOPPING=1"));
    }

    /// Another process is the service from now on. Only the one before may say so (`NotifyAccess=main`), and it may not end
    /// before that was heard: its end would be taken for the end of the service. Blocks, for [`HEARD_WITHIN`] at most.
    pub fn handed_over(&self, pid: u32) {
        self.tell(|socket| {
            notify(socket, &format!("MAINPID={pid}"))?;
            barrier(socket)
        });
    }

    fn tell(&self, tell: impl Fn(&UnixDatagram) -> io::Result<()>) {
        if let Some(Err(error)) = self.0.as_ref().map(tell) {
            tracing::warn!(%error, "systemd could not be told of the state of this process");
        }
    }
}

fn notify(socket: &UnixDatagram, state: &str) -> io::Result<()> {
    socket.send(state.as_bytes()).map(drop)
}

/// Waits until all that was said before is heard: the manager closes the descriptor then (`sd_notify_barrier(3)`).
fn barrier(socket: &UnixDatagram) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    send(socket, b"BARRIER=1", Some(writer.as_fd()))?;
    drop(writer);
    let closed = retry_on_intr(|| poll(&mut [PollFd::new(&reader, PollFlags::empty())], Some(&HEARD_WITHIN)))?;
    if closed == 0 {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it does not confirm that it has heard",
        ));
    }
    Ok(())
}

/// A path, or a name in the abstract namespace, written with an `@` first.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let manager = match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some((b'/', _)) => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("it is neither an absolute path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&manager)?;
    // A manager that does not read must not hold up a drain.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    fn manager(name: &OsStr) -> Manager {
        Manager(Some(connect(name).unwrap()))
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
            let manager = manager(&name);
            manager.ready();
            manager.stopping();
            assert_eq!([received(&socket), received(&socket)], ["READY=1", "STOPPING=1"]);
        }
    }

    #[test]
    fn the_end_of_the_main_process_waits_until_it_is_heard_that_it_is_not_the_main_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let heard = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(received(&socket), "MAINPID=17");
                // Far less than is waited for.
                std::thread::sleep(Duration::from_millis(50));
                heard.store(true, Ordering::SeqCst);
                // Received by `recv`, the descriptor is closed.
                assert_eq!(received(&socket), "BARRIER=1");
            });
            manager(path.as_os_str()).handed_over(17);
            assert!(heard.load(Ordering::SeqCst));
        });
        // One that never reads is not waited for without end.
        manager(path.as_os_str()).handed_over(18);
    }

    #[test]
    fn what_is_no_socket_is_no_reason_to_fail() {
        for name in ["relative", "vsock:2:1", "/nowhere/notify"] {
            assert!(connect(name.as_ref()).is_err(), "{name}");
        }
        Manager(None).handed_over(17);
    }
}
