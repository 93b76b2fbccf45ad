//! Copies of requests for another version, whose answers are read and dropped.
//!
//! They go out as any request does (`relay`), to a client that is nowhere, from a few tasks of their own: the request that
//! was copied is over by then. What the version does with them is counted apart ([`MirrorStats`]), moves no health and no
//! ejection, and is no evidence.

use super::body::{BodyReader, Coding};
use super::buffer::{Buffer, HeadBytes};
use super::downstream::{Client, Link};
use super::exchange::status_of;
use super::record::Record;
use super::relay::{Answered, Attempt, Failed, Progress, Told, Upload};
use super::upstream::{self, OnBehalf};
use super::worker::{Local, Worker};
use crate::http1::RequestHead;
use crate::outcome::{FailureKind, Outcome, Termination, Uncopied};
use crate::routing::{Role, ServiceId, VersionId};
use crate::shared::{Ended, Endpoint, MirrorStats, VersionInForce};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Copies that a thread has under way at the same time.
const MOST_SENDING: usize = 64;
/// Copies that wait until one of these has ended.
const MOST_WAITING: usize = 256;
/// Bytes of heads and bodies of those that wait.
const MOST_WAITING_BYTES: usize = 4 << 20;

/// A request to be sent once more.
pub struct Copy {
    pub local: Rc<Local>,
    /// That gets it.
    pub version: (ServiceId, VersionId),
    pub endpoint: Arc<Endpoint>,
    pub head: RequestHead,
    /// The head as it is sent.
    pub text: HeadBytes,
    pub body: Vec<u8>,
    pub coding: Coding,
    /// See [`Attempt`].
    pub is_grpc: bool,
    pub from: From,
    /// How the request itself ended.
    pub original: Ended,
    pub stats: Arc<MirrorStats>,
}

/// Whose request was copied.
pub struct From {
    pub peer: SocketAddr,
    pub client_ip: IpAddr,
    pub destination: Option<Rc<SocketAddr>>,
    pub listener: usize,
}

/// The copies of one thread.
#[derive(Default)]
pub struct Copies {
    waiting: RefCell<VecDeque<Copy>>,
    waiting_bytes: Cell<usize>,
    sending: Cell<usize>,
}

impl Copies {
    /// Whether there is room for it.
    fn wait(&self, copy: Copy) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let bytes = self.waiting_bytes.get() + copy.bytes();
        if waiting.len() >= MOST_WAITING || bytes > MOST_WAITING_BYTES {
            return false;
        }
        self.waiting_bytes.set(bytes);
        waiting.push_back(copy);
        true
    }

    fn next(&self) -> Option<Copy> {
        let copy = self.waiting.borrow_mut().pop_front()?;
        self.waiting_bytes.set(self.waiting_bytes.get() - copy.bytes());
        Some(copy)
    }
}

/// A place among those that send, until it is dropped.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let sending = &worker.copies.sending;
        let free = sending.get() < MOST_SENDING;
        free.then(|| {
            sending.set(sending.get() + 1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let sending = &self.0.copies.sending;
        sending.set(sending.get() - 1);
    }
}

/// Sends the copy, as soon as there is a place; drops it when as many wait as may.
pub fn send(worker: &Rc<Worker>, copy: Copy) {
    let Some(place) = Place::take(worker) else {
        let stats = Arc::clone(&copy.stats);
        if !worker.copies.wait(copy) {
            stats.uncopied(worker.index, Uncopied::QueueFull);
        }
        return;
    };
    tokio::task::spawn_local(async move {
        let worker = &place.0;
        let mut next = Some(copy);
        while let Some(copy) = next {
            // Boxed: a task that is done is small until it has gone.
            Box::pin(copy.send(worker)).await;
            next = worker.copies.next();
        }
    });
}

impl Copy {
    fn bytes(&self) -> usize {
        self.text.len() + self.body.len()
    }

    async fn send(self, worker: &Rc<Worker>) {
        let (service, version) = self.version;
        let Some(live) = self.local.version(service, version) else {
            return;
        };
        let client = Client {
            worker: Rc::clone(worker),
            link: Link::Nowhere,
            peer: self.from.peer,
            destination: self.from.destination.clone(),
            certificate: None,
            listener: self.from.listener,
            slot: worker.deadlines.slot(),
            since: worker.recently(),
            answering: Cell::new(false),
        };
        if live.pool.role() == Role::Canary {
            client.slot.runs_on_canary(&self.local, service, version);
        }
        client
            .slot
            .set_total(self.local.in_force.snapshot.limits.request_timeout);
        let counted = Counted::begin(&self, worker.index);
        let began = Instant::now();
        let mut end = self.attempt(&client, live, false).await;
        if end.stale && self.head.method_kind.is_idempotent() {
            end = self.attempt(&client, live, true).await;
        }
        let until = end.first_byte.unwrap_or_else(Instant::now);
        counted.end(Ended {
            status: end.status,
            outcome: end.outcome,
            duration: until.saturating_duration_since(began),
            upgraded: false,
        });
    }

    /// `fresh`: on a new connection.
    async fn attempt(&self, client: &Client, version: &VersionInForce, fresh: bool) -> End {
        let limits = &self.local.in_force.snapshot.limits;
        let timeouts = &version.pool.spec.timeouts;
        let _in_flight = self.endpoint.begin(client.worker.index);
        let on_behalf = OnBehalf {
            client,
            client_ip: self.from.client_ip,
        };
        let connected = if fresh {
            upstream::open(&on_behalf, &self.endpoint, timeouts).await
        } else {
            let sure = !self.head.method_kind.is_idempotent();
            upstream::connect(&on_behalf, &self.endpoint, timeouts, sure).await
        };
        let mut link = match connected {
            Ok(link) => link,
            Err(error) => return End::unconnected(&error),
        };
        let mut text = HeadBytes::copy_of(&self.text);
        if link.begin(&mut text, self.body.is_empty()).is_err() {
            return End::failed(502, FailureKind::Reset);
        }
        let attempt = Attempt {
            client,
            upstream: &link,
            request: &self.head,
            is_grpc: self.is_grpc,
            limits,
            timeouts,
            first_byte: timeouts.first_byte,
            set_cookie: None,
            told: &Told::default,
            // What a copy is answered counts for nothing.
            service: None,
            record: &Record::default(),
            withholds: None,
            progress: Progress::default(),
        };
        let mut reader = BodyReader::Kept;
        let mut upload = Upload {
            reader: &mut reader,
            coding: self.coding,
            replay: Some(self.body.clone()),
            bytes: self.body.len() as u64,
        };
        let result = attempt.run(text, &mut upload, &mut Buffer::default()).await;
        let progress = attempt.progress;
        let mut end = match result {
            Ok(answered) => {
                let end = End::answered(&answered);
                if let (true, upstream::Link::Wire(connection)) = (answered.reusable, link) {
                    on_behalf.keep(&self.endpoint, connection, timeouts.idle);
                }
                end
            }
            Err(failed) => End::of(&failed, &progress, link.reused() && !fresh),
        };
        end.first_byte = progress.first_byte.get();
        end
    }
}

/// A copy under way: that it has ended is counted whatever becomes of its task.
struct Counted {
    stats: Arc<MirrorStats>,
    thread: usize,
    original: Ended,
    copy: Ended,
}

impl Counted {
    fn begin(copy: &Copy, thread: usize) -> Self {
        copy.stats.begin(thread);
        Self {
            stats: Arc::clone(&copy.stats),
            thread,
            original: copy.original,
            copy: Ended {
                status: 503,
                outcome: Outcome::ClientAbort,
                duration: std::time::Duration::ZERO,
                upgraded: true,
            },
        }
    }

    fn end(mut self, ended: Ended) {
        self.copy = ended;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.stats.ended(self.thread, &self.original, &self.copy);
    }
}

/// How an attempt ended.
struct End {
    status: u16,
    outcome: Outcome,
    first_byte: Option<Instant>,
    /// Most likely because the connection had been closed while it was idle.
    stale: bool,
}

impl End {
    fn new(status: u16, outcome: Outcome) -> Self {
        Self {
            status,
            outcome,
            first_byte: None,
            stale: false,
        }
    }

    fn failed(status: u16, kind: FailureKind) -> Self {
        Self::new(status, Outcome::Failure(kind))
    }

    fn answered(answered: &Answered) -> Self {
        let outcome = answered.verdict.failure.map_or(Outcome::Success, Outcome::Failure);
        Self::new(answered.status, outcome)
    }

    fn unconnected(error: &std::io::Error) -> Self {
        if upstream::is_ours(error) {
            return Self::new(503, Outcome::ClientAbort);
        }
        let status = status_of(Termination::UpstreamConnect, &error.to_string());
        Self::failed(status, FailureKind::Connect)
    }

    fn of(failed: &Failed, progress: &Progress, reused: bool) -> Self {
        let begun = progress.status.get();
        match failed {
            // Its body is longer than what is read to be dropped.
            Failed::Client(_) => match begun {
                Some(status @ 500..=599) => Self::failed(status, FailureKind::Status5xx),
                status => Self::new(status.unwrap_or(200), Outcome::Success),
            },
            Failed::Upstream {
                termination,
                nothing_received,
                why,
                ..
            } => {
                let status = begun.unwrap_or_else(|| status_of(*termination, why));
                let kind = termination.failure().unwrap_or(FailureKind::Reset);
                Self {
                    stale: reused && *nothing_received,
                    ..Self::failed(status, kind)
                }
            }
            Failed::Idle | Failed::Deadline => Self::failed(begun.unwrap_or(504), FailureKind::Timeout),
            Failed::Refused(..) | Failed::Withheld { .. } | Failed::Revoked => {
                Self::new(begun.unwrap_or(503), Outcome::ClientAbort)
            }
        }
    }
}
