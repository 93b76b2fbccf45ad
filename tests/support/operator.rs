//! Who talks to the admin socket.

use super::api::exchange;
use super::{Gate, PATIENCE};
use serde_json::Value;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Asks the API over its unix socket, one connection a question.
pub struct Operator {
    socket: PathBuf,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Told {
    pub status: u16,
    pub body: Value,
}

impl Told {
    /// The body of a 200.
    ///
    /// # Panics
    /// When it is another answer.
    pub fn expect_ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }
}

impl Operator {
    /// Of a gate whose configuration has `admin.socket: rollgate.sock`, as that of [`super::Config`].
    pub fn of(gate: &Gate) -> Self {
        Self {
            socket: gate.directory().join("rollgate.sock"),
        }
    }

    /// What is answered; `None` when nobody is there, or leaves before the answer is whole.
    pub fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Option<Told> {
        let stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let lines = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines = format!("host: localhost\r\n{}", lines.collect::<String>());
        let answer = exchange(stream, &format!("{method} {path}"), &lines, body)?;
        let (status, body) = (answer.status, answer.json);
        Some(Told { status, body })
    }

    pub fn get(&self, path: &str) -> Told {
        self.ask("GET", path, &[], "").expect("the admin socket answers")
    }

    pub fn put(&self, path: &str, body: &str) -> Told {
        self.ask("PUT", path, &[], body).expect("the admin socket answers")
    }

    pub fn post(&self, path: &str, body: &str) -> Told {
        self.ask("POST", path, &[], body).expect("the admin socket answers")
    }

    pub fn delete(&self, path: &str) -> Told {
        self.ask("DELETE", path, &[], "").expect("the admin socket answers")
    }

    /// Sets the weights of `shop`.
    pub fn weights(&self, v1: u32, v2: u32) -> Told {
        self.put("/v1/services/shop/weights", &weights(v1, v2))
    }

    /// The same, of a process that may be gone: the status.
    pub fn try_weights(&self, v1: u32, v2: u32) -> Option<u16> {
        let told = self.ask("PUT", "/v1/services/shop/weights", &[], &weights(v1, v2))?;
        Some(told.status)
    }
}

fn weights(v1: u32, v2: u32) -> String {
    format!(r#"{{"weights":{{"v1":{v1},"v2":{v2}}}}}"#)
}
