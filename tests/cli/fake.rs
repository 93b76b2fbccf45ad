//! An admin API that says what a test wants said, over a unix socket or TCP, and keeps what it was asked.

use crate::support::Head;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub head: Head,
    pub body: String,
}

impl Asked {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Both directions of a connection.
pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

type Handler = dyn Fn(&Asked, &mut dyn Stream) + Send + Sync;

/// Running until it is dropped. Each connection carries one request, and is closed when the handler returns.
pub struct Fake {
    /// For `--admin`.
    pub address: String,
    pub directory: TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
    stopped: Arc<AtomicBool>,
}

impl Fake {
    pub fn unix(handler: impl Fn(&Asked, &mut dyn Stream) + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let accept = move || {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(false)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        Self::start(format!("unix:{}", path.display()), directory, accept, Box::new(handler))
    }

    pub fn tcp(handler: impl Fn(&Asked, &mut dyn Stream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let accept = move || {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(false)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        Self::start(address, tempfile::tempdir().unwrap(), accept, Box::new(handler))
    }

    /// One that gives the same answer to everything.
    pub fn saying(status: u16, content_type: &str, body: &str) -> Self {
        let answer = answer(status, content_type, body);
        Self::unix(move |_, stream| drop(stream.write_all(answer.as_bytes())))
    }

    fn start(
        address: String,
        directory: TempDir,
        mut accept: impl FnMut() -> std::io::Result<Box<dyn Stream>> + Send + 'static,
        handler: Box<Handler>,
    ) -> Self {
        let fake = Self {
            address,
            directory,
            asked: Arc::default(),
            stopped: Arc::default(),
        };
        let (asked, stopped) = (Arc::clone(&fake.asked), Arc::clone(&fake.stopped));
        let handler: Arc<Handler> = handler.into();
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok(mut stream) = accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                let (asked, handler) = (Arc::clone(&asked), Arc::clone(&handler));
                std::thread::spawn(move || {
                    let Some(request) = read(&mut *stream) else { return };
                    asked.lock().unwrap().push(request.clone());
                    handler(&request, &mut *stream);
                });
            }
        });
        fake
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The only request there was.
    pub fn asked_once(&self) -> Asked {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:#?}");
        asked[0].clone()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// `None`: the peer left before.
fn read(stream: &mut dyn Stream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let count = stream.read(&mut chunk).ok().filter(|&count| count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    };
    let head = Head::parse(&bytes[..end]).unwrap();
    let length = head.length().unwrap_or(0);
    while bytes.len() < end + length {
        let count = stream.read(&mut chunk).ok().filter(|&count| count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    }
    let mut words = head.start.split(' ').map(str::to_owned);
    Some(Asked {
        method: words.next().unwrap(),
        target: words.next().unwrap(),
        body: String::from_utf8(bytes[end..].to_vec()).unwrap(),
        head,
    })
}

pub fn answer(status: u16, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Answer\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
}

pub fn json(value: &Value) -> String {
    answer(200, "application/json", &value.to_string())
}

pub fn problem(status: u16, detail: &str, help: Option<&str>) -> String {
    let body = serde_json::json!({
        "type": "urn:rollgate:problem:x", "title": "Title", "status": status, "detail": detail, "help": help,
    });
    answer(status, "application/problem+json; charset=utf-8", &body.to_string())
}
