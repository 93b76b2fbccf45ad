//! An admin side on loopback and on a unix socket, with a writer that does what a test says.

mod changing;
mod following;
mod guarding;
mod reading;
mod serving;

use super::*;
use crate::control::commands::{Done, Envelope, NotDone, Order};
use crate::control::event_log::Event;
use crate::routing::Role;
use crate::runtime::{Origin, State};
use crate::shared::InForce;
use crate::telemetry::fixture::{V, in_force, shared};
use async_trait::async_trait;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Few clients at once, and times that a busy machine keeps: a test of one makes it short.
const PATIENT: Limits = Limits {
    connections: 2,
    followers: 1,
    header: NEVER,
    body: NEVER,
    answer: NEVER,
    upgrade: NEVER,
    age: NEVER,
    last_answer: Duration::from_millis(500),
    heartbeat: Duration::from_millis(100),
    wrong_token: Duration::from_millis(20),
};
/// How long a test waits for what must come.
const LONG: Duration = Duration::from_secs(20);
/// No test lives to see it.
const NEVER: Duration = Duration::from_secs(3600);

const TOKEN: &str = "0123456789abcdef";

/// The events after a number, at most so many.
type History = Box<dyn Fn(u64, usize) -> Result<Vec<Event>, String> + Send + Sync>;

/// A disk that says what it is told to.
struct Disk {
    is_full: AtomicBool,
    history: History,
}

#[async_trait]
impl Kept for Disk {
    fn not_durable(&self) -> Option<String> {
        self.is_full
            .load(Ordering::Relaxed)
            .then(|| "the disk is full".to_owned())
    }

    async fn events(&self, after: u64, limit: usize) -> Result<Vec<Event>, String> {
        (self.history)(after, limit)
    }
}

/// What an order was answered with, by the test.
type Writer = Box<dyn Fn(&Order, &Origin, Option<u64>) -> Result<Done, NotDone> + Send>;

/// How an admin side is made.
struct Bench {
    limits: Limits,
    in_force: InForce,
    writer: Writer,
    history: History,
    events: EventLog,
    upgrade: Upgrade,
    /// The text of the token file, if one is configured.
    tokens: Option<String>,
    hosts: &'static [&'static str],
    socket_mode: u32,
}

struct Running {
    address: SocketAddr,
    directory: tempfile::TempDir,
    shared: Arc<Shared>,
    disk: Arc<Disk>,
    events: Arc<EventLog>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// An answer, whole.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn of(text: String) -> Self {
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text:?}"));
        Self {
            status: head.get(9..12).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The word of a problem.
    fn problem(&self) -> String {
        assert!(
            self.head.contains("\r\ncontent-type: application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        for text in ["title", "detail", "help"] {
            assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        let word = problem["type"].as_str().unwrap().strip_prefix("urn:rollgate:problem:");
        word.unwrap().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

fn done(text: &str) -> Done {
    Done {
        generation: 2,
        changed: true,
        text: text.to_owned(),
        not_durable: None,
        restart_required: Vec::new(),
    }
}

impl Default for Bench {
    fn default() -> Self {
        let versions = [
            V("v1", Role::Stable, 90, &["127.0.0.1:9001"]),
            V("v2", Role::Canary, 10, &["127.0.0.1:9002"]),
        ];
        Self {
            limits: PATIENT,
            in_force: in_force(1, 1, &[("shop", &versions)]),
            writer: Box::new(|_, _, _| Ok(done("done"))),
            history: Box::new(|_, _| Ok(Vec::new())),
            events: EventLog::new(Vec::new(), 0),
            upgrade: Arc::new(|_| Box::pin(std::future::ready(Ok(42)))),
            tokens: Some(format!("ci: {TOKEN}")),
            hosts: &[],
            socket_mode: 0o600,
        }
    }
}

impl Bench {
    fn start(mut self) -> Running {
        let directory = tempfile::tempdir().unwrap();
        let tokens = self.tokens.map(|text| {
            let file = directory.path().join("admin.token");
            std::fs::write(&file, text).unwrap();
            file
        });
        let snapshot = Arc::get_mut(&mut self.in_force.snapshot).unwrap();
        snapshot.admin.token_file = tokens;
        snapshot.admin.hosts = self.hosts.iter().map(|host| named(host)).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (socket, _) = listen_on_socket(&directory.path().join("rollgate.sock"), self.socket_mode).unwrap();
        let shared = shared(self.in_force, 1);
        let (commander, orders) = Commander::new();
        std::thread::spawn(move || writing(orders, &self.writer));
        let disk = Arc::new(Disk {
            is_full: AtomicBool::new(false),
            history: self.history,
        });
        let events = Arc::new(self.events);
        let parts = Parts {
            shared: Arc::clone(&shared),
            commander,
            kept: Arc::clone(&disk) as Arc<dyn Kept>,
            events: Arc::clone(&events),
            file: directory.path().join("rollgate.yaml"),
            state_dir: directory.path().join("state"),
            upgrade: self.upgrade,
            listeners: vec![
                Listener::Tcp(listener),
                Listener::Unix {
                    socket,
                    mode: self.socket_mode,
                },
            ],
        };
        let (stop, stopped) = watch::channel(false);
        let thread = serve_within(self.limits, parts, stopped).unwrap();
        Running {
            address,
            directory,
            shared,
            disk,
            events,
            stop,
            thread,
        }
    }
}

fn named(host: &str) -> crate::config::snapshot::AdminHost {
    let (name, port) = crate::config::host_and_port(host).unwrap();
    crate::config::snapshot::AdminHost {
        name: name.into(),
        port,
    }
}

/// Answers orders until nobody can send any more.
fn writing(mut orders: crate::control::commands::Orders, writer: &Writer) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        loop {
            let envelope = tokio::select! {
                Some(envelope) = orders.urgent.recv() => envelope,
                Some(envelope) = orders.ordinary.recv() => envelope,
                else => return,
            };
            let Envelope {
                order,
                by,
                expected,
                answer,
            } = envelope;
            drop(answer.send(writer(&order, &by, expected)));
        }
    });
}

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    fn connect_unix(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.path().join("rollgate.sock")).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    fn local(&self) -> String {
        format!("host: {}\r\n", self.address)
    }

    /// Over TCP, with these header lines (each ends in CRLF) and this body.
    fn tcp(&self, start: &str, lines: &str, body: &str) -> Answer {
        exchange(self.connect(), start, lines, body)
    }

    /// As the one who has the token, with a JSON body.
    fn trusted(&self, start: &str, body: &str) -> Answer {
        let lines = format!(
            "{}authorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n",
            self.local()
        );
        self.tcp(start, &lines, body)
    }

    /// Over the unix socket, with a JSON body.
    fn unix(&self, start: &str, body: &str) -> Answer {
        let lines = "host: localhost\r\ncontent-type: application/json\r\n";
        exchange(self.connect_unix(), start, lines, body)
    }

    /// `GET` over TCP by our name.
    fn get(&self, path: &str) -> Answer {
        self.tcp(&format!("GET {path}"), &self.local(), "")
    }

    /// Ends the thread, and waits until it has.
    fn stop(self) {
        self.stop.send(true).unwrap();
        let until = Instant::now() + LONG;
        while !self.thread.is_finished() {
            assert!(Instant::now() < until, "it does not stop");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.thread.join().unwrap();
    }
}

/// One exchange on a connection of its own.
fn exchange(mut stream: impl Read + Write, start: &str, lines: &str, body: &str) -> Answer {
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    // A server that refuses early may have closed already.
    let _ = write!(
        stream,
        "{start} HTTP/1.1\r\n{lines}{length}connection: close\r\n\r\n{body}"
    );
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    Answer::of(answer)
}
