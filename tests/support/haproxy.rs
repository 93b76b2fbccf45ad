//! A real HAProxy in front of a port.

use super::{PATIENCE, Port, eventually};
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub struct Haproxy {
    child: Child,
    port: Port,
    directory: TempDir,
}

impl Haproxy {
    /// Passes connections on to `port`; `options` are those of its `server` line, as `send-proxy`. `None`, and a line that
    /// says so, where HAProxy is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub fn before(port: u16, options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port_of_own = Port::reserved();
        let own = port_of_own.number();
        let config = format!(
            "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 20s\n  timeout client 20s\n  timeout server 20s\n\
             frontend in\n  bind 127.0.0.1:{own}\n  default_backend out\n\
             backend out\n  server gate 127.0.0.1:{port} {options}\n"
        );
        let path = directory.path().join("haproxy.cfg");
        fs::write(&path, config).unwrap();
        let started = Command::new("haproxy")
            .env(
                "PATH",
                format!(
                    "{}:/usr/sbin:/usr/local/sbin",
                    std::env::var("PATH").unwrap_or_default()
                ),
            )
            .args(["-db", "-q", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) => {
                eprintln!("NOT CHECKED: behind HAProxy, which cannot be started ({error}); `make test` installs it");
                return None;
            }
        };
        let mut haproxy = Self {
            child,
            port: port_of_own,
            directory,
        };
        eventually(PATIENCE, "HAProxy listens", || {
            assert!(haproxy.child.try_wait().unwrap().is_none(), "HAProxy ended");
            TcpStream::connect(("127.0.0.1", own)).is_ok()
        });
        Some(haproxy)
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
