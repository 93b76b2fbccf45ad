//! The admin API of a [`Gate`], over the unix socket and over TCP, byte by byte.

use super::{Config, Gate, PATIENCE};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use tempfile::TempDir;

pub const TOKEN: &str = "integration-test-token-0001";

/// A site with an admin socket and a token called `ci`, in a directory that outlives its processes.
pub struct ApiSite {
    directory: TempDir,
}

/// What the API answered.
#[derive(Debug)]
pub struct ApiAnswer {
    pub status: u16,
    pub head: String,
    pub json: Value,
}

impl ApiSite {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("admin.token");
        fs::write(&file, format!("ci: {TOKEN}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Self { directory }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/rollgate.sock")
    }

    pub fn token_file(&self) -> PathBuf {
        self.directory.path().join("admin.token")
    }

    /// `config` with an admin socket, a token file and a state of this site.
    pub fn config(&self, config: &Config) -> String {
        let at = self.directory.path().display();
        let socket = "  socket: rollgate.sock\n";
        let text = config.text();
        assert!(text.contains(socket), "{text}");
        let own = format!("  socket: {at}/run/rollgate.sock\n  token_file: {at}/admin.token\nstate_dir: {at}/state\n");
        text.replace(socket, &own)
    }

    pub fn start(&self, config: &Config) -> Gate {
        Gate::start(&self.config(config))
    }

    /// Over the unix socket; `body` is JSON, or empty.
    pub fn ask(&self, start: &str, body: &str) -> ApiAnswer {
        self.ask_with(start, "", body)
    }

    /// As [`Self::ask`], with further header lines, each ending in CRLF.
    pub fn ask_with(&self, start: &str, lines: &str, body: &str) -> ApiAnswer {
        let stream = UnixStream::connect(self.socket()).expect("the admin socket");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        exchange(stream, start, &format!("host: localhost\r\n{lines}"), body).expect("a whole answer")
    }
}

/// Over TCP, by the gate's own address.
pub fn ask_tcp(gate: &Gate, start: &str, lines: &str, body: &str) -> ApiAnswer {
    let stream = TcpStream::connect(("127.0.0.1", gate.admin_port())).expect("the admin address");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = format!("host: 127.0.0.1:{}\r\n", gate.admin_port());
    exchange(stream, start, &format!("{host}{lines}"), body).expect("a whole answer")
}

/// The header line of who has the token.
pub fn authorization() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

/// One request and its answer; `None` when the other side leaves before the answer is whole. `body` is JSON, or empty.
pub fn exchange(mut stream: impl Read + Write, start: &str, lines: &str, body: &str) -> Option<ApiAnswer> {
    let kind = if body.is_empty() {
        ""
    } else {
        "content-type: application/json\r\n"
    };
    let length = body.len();
    write!(
        stream,
        "{start} HTTP/1.1\r\n{lines}{kind}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(ApiAnswer {
        status: head.get(9..12)?.parse().ok()?,
        head: head.to_owned(),
        json: serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())),
    })
}
