//! Copies of requests for another version, whose answers are read and dropped.
//!
//! They go out as any request does (`relay`), to a client that is nowhere, from a few tasks of their own: the request that
//! was copied is over by then. What the version does with them is counted apart ([`MirrorStats`]), moves no health and no
//! ejection, and is evidence only of the rollout's step that made them, as long as that is in force.

use super::body::{BodyReader, Coding};
use super::buffer::{Buffer, HeadBytes};
use super::downstream::{Client, Link};
use super::exchange::{place_for_copy, status_of};
use super::record::Record;
use super::relay::{Answered, Attempt, Failed, Progress, Rules, Upload};
use super::upstream::{self, Age, NotBegun, OnBehalf};
use super::worker::{Local, Worker};
use crate::config::snapshot::Timeouts;
use crate::http1::{Protocols, RequestHead};
use crate::outcome::{Comparison, FailureKind, Outcome, Termination, Uncopied};
use crate::routing::{Role, ServiceId, VersionId};
use crate::shared::{Ended, Ending, Endpoint, Inside, MirrorStats, Pair, Tried, VersionInForce};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// What its route says of time, instead of the version's pool.
    pub timeouts: Option<Timeouts>,
    /// How long its answer may take to begin.
    pub first_byte: Duration,
    /// How long it may take altogether.
    pub time_limit: Duration,
    /// How the request itself ended.
    pub original: Ended,
    pub stats: Arc<MirrorStats>,
    /// Of a copy that a rollout's step asked for.
    pub judged: Option<Judged>,
}

/// What makes a copy evidence.
#[derive(Clone, Copy)]
pub struct Judged {
    /// Of the step: see `routing::StepMirror`.
    pub window: u64,
    /// Of the user who sent the request.
    pub bucket: Option<u32>,
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

/// Nobody is told anything, and trailers are not copied.
impl Rules for Copy {}

impl Copy {
    fn bytes(&self) -> usize {
        self.text.len() + self.body.len()
    }

    /// It begins, and is evidence beside its original. `None`: this user's do not count any more.
    fn pair(&self, judged: Judged, worker: &Worker) -> Option<Pair> {
        let (service, version) = self.version;
        let stable = self
            .local
            .in_force
            .snapshot
            .policy
            .services
            .get(service.0 as usize)?
            .stable;
        let evidence = self.local.service(service)?.evidence.as_ref()?;
        let original = ending(&self.original);
        evidence.begin_copy(worker.index, (version.0, stable.0), judged.bucket, &original)
    }

    /// Its turn has come: it may have waited, so what it is asked is what holds now. Its place on the version is kept until it
    /// has ended.
    fn enter(&self, live: &VersionInForce, worker: &Worker) -> Result<Option<Inside>, Uncopied> {
        let (service, version) = self.version;
        let step_is_over = |judged| !in_step(&worker.local(), service, judged);
        if self.judged.is_some_and(step_is_over) {
            return Err(Uncopied::StepEnded);
        }
        if live.revoked.is_killed() {
            return Err(Uncopied::Killed);
        }
        place_for_copy(&self.local, service, version)
    }

    async fn send(self, worker: &Rc<Worker>) {
        let (service, version) = self.version;
        let Some(live) = self.local.version(service, version) else {
            return;
        };
        let _place = match self.enter(live, worker) {
            Ok(place) => place,
            Err(why) => return self.stats.uncopied(worker.index, why),
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
            asked: Cell::new(true),
            answering: Cell::new(false),
        };
        if live.pool.role() == Role::Canary {
            client.slot.runs_on_canary(&self.local, service, version);
        }
        client.slot.set_total(self.time_limit);
        let counted = Counted::begin(&self, worker);
        let end = self.attempts(&client, live).await;
        counted.end(Ended {
            status: end.status,
            grpc_status: end.grpc_status,
            outcome: end.outcome,
            duration: end.duration,
            upgraded: false,
        });
    }

    /// As with the request itself, what one endpoint did not take is not the version's failure yet: where nothing may happen
    /// twice, a stale connection is replaced, and one other endpoint tried; not after a kill.
    async fn attempts(&self, client: &Client, version: &VersionInForce) -> End {
        let may_repeat = |end: &End| end.repeatable && !version.revoked.is_killed();
        let mut end = self.attempt(client, version, &self.endpoint, Age::Any).await;
        if end.stale && may_repeat(&end) {
            end = self.attempt(client, version, &self.endpoint, Age::New).await;
        }
        if !may_repeat(&end) {
            return end;
        }
        let mut tried = Tried::default();
        tried.add(&self.endpoint);
        let worker = &client.worker;
        let now_ms = worker.shared.uptime_ms_at(Instant::now());
        match version.pool.pick(worker.index, now_ms, worker.draw(), None, &tried) {
            Some(other) => self.attempt(client, version, other, Age::Any).await,
            None => end,
        }
    }

    async fn attempt(&self, client: &Client, version: &VersionInForce, endpoint: &Arc<Endpoint>, age: Age) -> End {
        let began = Instant::now();
        let mut end = self.sent_to(client, version, endpoint, age).await;
        let until = end.first_byte.unwrap_or_else(Instant::now);
        end.duration = until.saturating_duration_since(began);
        end
    }

    async fn sent_to(&self, client: &Client, version: &VersionInForce, endpoint: &Arc<Endpoint>, age: Age) -> End {
        let limits = &self.local.in_force.snapshot.limits;
        let timeouts = self.timeouts.as_ref().unwrap_or(&version.pool.spec.timeouts);
        let _in_flight = endpoint.begin(client.worker.index);
        let on_behalf = OnBehalf {
            client,
            client_ip: self.from.client_ip,
        };
        let sure = !self.head.method_kind.is_idempotent();
        let mut link = match upstream::connect(&on_behalf, endpoint, timeouts, age, sure).await {
            Ok(link) => link,
            Err(error) => return End::unconnected(&error),
        };
        let mut text = HeadBytes::copy_of(&self.text);
        if let Err(why) = link.begin(&mut text, self.body.is_empty()) {
            return End::not_begun(&why);
        }
        let attempt = Attempt {
            client,
            upstream: &link,
            request: &self.head,
            asked: Protocols::default(),
            is_grpc: self.is_grpc,
            limits,
            timeouts,
            first_byte: self.first_byte,
            set_cookie: None,
            rules: self,
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
                    on_behalf.keep(endpoint, connection, timeouts.idle);
                }
                end
            }
            Err(failed) => End::of(&failed, &progress, &link, self.head.method_kind.is_idempotent()),
        };
        end.first_byte = progress.first_byte.get();
        end
    }
}

/// Whether the step that made a copy is in force. As long as it is, no other file is: services and versions have their places.
fn in_step(local: &Local, service: ServiceId, judged: Judged) -> bool {
    let live = local.in_force.traffic.services.get(service.0 as usize);
    live.and_then(|live| live.mirror)
        .is_some_and(|step| step.window == judged.window)
}

fn ending(ended: &Ended) -> Ending<'static> {
    Ending {
        outcome: ended.outcome,
        duration: Some(ended.duration),
        values: &[],
    }
}

/// A copy under way: that it has ended is counted whatever becomes of its task.
struct Counted<'w> {
    stats: Arc<MirrorStats>,
    worker: &'w Worker,
    service: ServiceId,
    pair: Option<(Judged, Pair)>,
    original: Ended,
    copy: Ended,
}

impl<'w> Counted<'w> {
    fn begin(copy: &Copy, worker: &'w Worker) -> Self {
        copy.stats.begin(worker.index);
        Self {
            stats: Arc::clone(&copy.stats),
            worker,
            service: copy.version.0,
            pair: copy
                .judged
                .and_then(|judged| Some((judged, copy.pair(judged, worker)?))),
            original: copy.original,
            copy: Ended {
                status: 503,
                grpc_status: None,
                outcome: Outcome::ClientAbort,
                duration: Duration::ZERO,
                upgraded: true,
            },
        }
    }

    fn end(mut self, ended: Ended) {
        self.copy = ended;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let thread = self.worker.index;
        let result = self.stats.ended(thread, &self.original, &self.copy);
        let (Some(result), Some((judged, pair))) = (result, self.pair) else {
            return;
        };
        let mismatched = result != Comparison::Same && self.original.outcome == Outcome::Success;
        let local = self.worker.local();
        let evidence = local.service(self.service).and_then(|live| live.evidence.as_ref());
        if let Some(evidence) = evidence.filter(|_| in_step(&local, self.service, judged)) {
            evidence.end_copy(thread, pair, &ending(&self.copy), mismatched);
        }
    }
}

/// How an attempt ended.
struct End {
    status: u16,
    grpc_status: Option<u32>,
    outcome: Outcome,
    first_byte: Option<Instant>,
    /// Until that.
    duration: Duration,
    /// A new connection may do better: nothing was received on one that was there before, most likely because it had been
    /// closed meanwhile, or the endpoint has not begun.
    stale: bool,
    /// Nothing happens twice when the copy is sent again.
    repeatable: bool,
}

impl End {
    fn new(status: u16, outcome: Outcome) -> Self {
        Self {
            status,
            grpc_status: None,
            outcome,
            first_byte: None,
            duration: Duration::ZERO,
            stale: false,
            repeatable: false,
        }
    }

    fn failed(status: u16, kind: FailureKind) -> Self {
        Self::new(status, Outcome::Failure(kind))
    }

    fn answered(answered: &Answered) -> Self {
        let outcome = answered.verdict.failure.map_or(Outcome::Success, Outcome::Failure);
        Self {
            grpc_status: answered.verdict.grpc_status,
            ..Self::new(answered.status, outcome)
        }
    }

    fn unconnected(error: &std::io::Error) -> Self {
        if upstream::is_ours(error) {
            return Self::new(503, Outcome::ClientAbort);
        }
        let status = status_of(Termination::UpstreamConnect, &error.to_string());
        Self {
            repeatable: true,
            ..Self::failed(status, FailureKind::Connect)
        }
    }

    fn not_begun(why: &NotBegun) -> Self {
        match why {
            // What it holds is its client's affair.
            NotBegun::Untranslatable => Self::new(400, Outcome::ClientAbort),
            NotBegun::Gone(_) => Self {
                stale: true,
                repeatable: true,
                ..Self::failed(502, FailureKind::Reset)
            },
        }
    }

    fn of(failed: &Failed, progress: &Progress, link: &upstream::Link, idempotent: bool) -> Self {
        let begun = progress.status.get();
        let sent = link.has_begun() || progress.sent.get() > 0;
        match failed {
            // Its body is longer than what is read to be dropped.
            Failed::Client(_) => match begun {
                Some(status @ 500..=599) => Self::failed(status, FailureKind::Status5xx),
                status => Self::new(status.unwrap_or(200), Outcome::Success),
            },
            Failed::Upstream {
                termination,
                nothing_received,
                unprocessed,
                why,
            } => {
                let status = begun.unwrap_or_else(|| status_of(*termination, why));
                let kind = termination.failure().unwrap_or(FailureKind::Reset);
                let untouched = *unprocessed || (*nothing_received && (idempotent || !sent));
                Self {
                    stale: *unprocessed || (*nothing_received && link.reused()),
                    repeatable: *termination == Termination::UpstreamReset && untouched,
                    ..Self::failed(status, kind)
                }
            }
            Failed::Idle | Failed::Deadline => Self::failed(begun.unwrap_or(504), FailureKind::Timeout),
            Failed::Refused(..) | Failed::Withheld { .. } | Failed::Revoked | Failed::Drained => {
                Self::new(begun.unwrap_or(503), Outcome::ClientAbort)
            }
        }
    }
}
