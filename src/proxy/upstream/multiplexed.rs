//! Connections of HTTP/2 to endpoints: each carries the streams of many requests of this thread at once. Like idle ones of
//! HTTP/1.1 they belong to one thread, one endpoint and so to one version.

use super::driver::Driver;
use super::idle::{BOUND_LIFE, Key, PointerHasher};
use super::{Age, Connection, OnBehalf, open_unhurried, out_of_time};
use crate::config::snapshot::{Limits, Timeouts};
use crate::http1::HeadLimits;
use crate::opening::Addresses;
use crate::proxy::body::{FrameReader, Outgoing};
use crate::proxy::buffer::Buffer;
use crate::proxy::io::{End, Io, Meter, Outbox};
use crate::proxy::stream::Stream;
use crate::shared::Endpoint;
use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use http::Request;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::hash::BuildHasherDefault;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify};

/// Streams at once on one connection, if its endpoint takes as many; then another is opened.
const STREAMS: usize = 128;

/// The limit of a connection whose endpoint has not told its own yet (SETTINGS, in 32 bits): a number that no endpoint can tell,
/// and not the one that stands for none. It means [`STREAMS_UNTOLD`].
const UNTOLD: usize = usize::MAX - 1;

/// Streams begun until then. The first request of a connection does not wait for SETTINGS; what an endpoint that takes few
/// streams is sent beyond them, it refuses.
const STREAMS_UNTOLD: usize = 1;

/// Connections of one thread to one endpoint; when all of them are full, requests wait. With their windows it bounds what an
/// endpoint may have us hold.
const CONNECTIONS: usize = 32;

/// No stream came free in time: all that our connections may carry were taken. The bound is ours even where the endpoint
/// allows few streams on each, since it might well take more connections.
#[derive(Debug, thiserror::Error)]
#[error(
    "all {streams} streams{} of this thread's {CONNECTIONS} connections were taken for timeouts.connect",
    if *streams < CONNECTIONS * STREAMS { " that the endpoint allows" } else { "" }
)]
pub struct NoStream {
    streams: usize,
}

/// Bytes an endpoint may send on one stream before they are passed on. On all of them together so many times more: a client
/// that takes nothing holds up its own answer, and nobody else's.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// Bytes of requests held for one stream while the endpoint does not take them.
const SEND_BUFFER: usize = 64 << 10;

/// A stream that its client takes back before the endpoint has answered is reset at the second tick from then (0.1 to 0.2 s). A
/// server that finds a request and its reset in one read takes many of them for an attack and ends the connection
/// (CVE-2023-44487), and other clients' requests are on it.
const TAKEN_BACK_TICKS: u32 = 2;

/// The connections of one thread, up to a bound over all endpoints on those that carry nothing.
pub struct Multiplexed {
    most: usize,
    /// So many were opened: the number of the latest.
    opened: u64,
    partings: Rc<Partings>,
    by_use: HashMap<Key, Entry, BuildHasherDefault<PointerHasher>>,
}

/// Streams that are about to be reset, the oldest first. No more than the connections have.
#[derive(Default)]
struct Partings {
    tick: Cell<u32>,
    queue: RefCell<VecDeque<(u32, Parting)>>,
}

impl Partings {
    fn add(&self, parting: Parting) {
        self.queue.borrow_mut().push_back((self.tick.get(), parting));
    }

    /// The next one whose time has come.
    fn next(&self) -> Option<Parting> {
        let mut queue = self.queue.borrow_mut();
        let (tick, _) = queue.front()?;
        let is_due = self.tick.get().wrapping_sub(*tick) >= TAKEN_BACK_TICKS;
        is_due.then(|| queue.pop_front()).flatten().map(|(_, parting)| parting)
    }
}

/// A stream that counts for its connection until this is dropped. Before its end, that resets it.
struct Parting {
    load: Rc<Load>,
    begun: Option<Begun>,
}

impl Drop for Parting {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.load.meter.forget(begun.stream);
        }
        self.load.streams.set(self.load.streams.get() - 1);
        self.load.freed.notify_one();
    }
}

struct Entry {
    /// Held so that the address that is the key stays this endpoint's.
    endpoint: Arc<Endpoint>,
    connections: Vec<Shared>,
    /// One at a time opens a connection, which the others may then use.
    opens: Rc<Mutex<()>>,
    /// See [`Load`].
    freed: Rc<Notify>,
}

/// Why a request waits, rather than that a connection is opened for it.
enum Wait {
    /// There are as many as there may be.
    Full,
    /// One has room as soon as its limit is told.
    Untold,
}

/// A connection, as it is taken for further streams.
struct Shared {
    /// Of those of the thread: a later one has a higher number.
    number: u64,
    send: SendRequest<Bytes>,
    load: Rc<Load>,
    /// See [`Connection`].
    edition: u64,
    /// How long it is kept without a stream.
    life: Duration,
    /// Without a stream since.
    idle_since: Option<Instant>,
}

/// What a connection, its task and its streams know of each other.
pub(super) struct Load {
    stream: Rc<Stream>,
    pub outbox: Rc<Outbox>,
    pub meter: Rc<Meter>,
    pub streams: Cell<usize>,
    /// A stream has begun since this was looked at last.
    used: Cell<bool>,
    /// It takes no further streams.
    retired: Cell<bool>,
    /// A stream has ended, or all who wait have reason to look again.
    pub freed: Rc<Notify>,
}

impl Shared {
    /// Streams at once that it may carry.
    fn most(&self) -> usize {
        match self.send.current_max_send_streams() {
            UNTOLD => STREAMS_UNTOLD,
            told => told.min(STREAMS),
        }
    }

    fn has_room(&self) -> bool {
        self.load.streams.get() < self.most()
    }

    fn is_untold(&self) -> bool {
        self.send.current_max_send_streams() == UNTOLD
    }

    fn lease(&self, partings: &Rc<Partings>, reused: bool) -> Lease {
        self.load.streams.set(self.load.streams.get() + 1);
        self.load.used.set(true);
        Lease {
            send: self.send.clone(),
            stream: Parting {
                load: Rc::clone(&self.load),
                begun: None,
            },
            partings: Rc::clone(partings),
            reused,
            answered: Cell::new(false),
        }
    }

    /// Whether it has been without a stream for all its life.
    fn is_stale(&mut self, now: Instant) -> bool {
        if self.load.used.take() || self.load.streams.get() > 0 {
            self.idle_since = None;
        }
        let since = *self.idle_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.life
    }
}

/// Whether further streams may begin: neither side has said otherwise, and the endpoint takes them.
fn is_alive(send: &mut SendRequest<Bytes>, load: &Load) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    !load.retired.get() && !load.outbox.is_broken() && !matches!(send.poll_ready(&mut nobody), Poll::Ready(Err(_)))
}

impl Multiplexed {
    /// `most`: connections held while some of them carry nothing.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            opened: 0,
            partings: Rc::default(),
            by_use: HashMap::default(),
        }
    }

    /// Takes a new connection, for a request.
    fn add(&mut self, endpoint: &Arc<Endpoint>, told: Option<Addresses>, mut shared: Shared) -> Lease {
        self.opened += 1;
        shared.number = self.opened;
        let held: usize = self.by_use.values().map(|entry| entry.connections.len()).sum();
        if held >= self.most {
            self.clear();
        }
        let lease = shared.lease(&self.partings, false);
        self.entry(endpoint, told).connections.push(shared);
        lease
    }

    /// The connection with the fewest streams that has room for another, of those opened after number `after`.
    fn take(&mut self, endpoint: &Arc<Endpoint>, told: Option<Addresses>, after: u64) -> Option<Lease> {
        let connections = &mut self.by_use.get_mut(&Key::new(endpoint, told))?.connections;
        let edition = endpoint.transport.edition();
        connections.retain_mut(|shared| shared.edition == edition && is_alive(&mut shared.send, &shared.load));
        let with_room = connections
            .iter()
            .filter(|shared| shared.number > after && shared.has_room());
        let shared = with_room.min_by_key(|shared| shared.load.streams.get())?;
        Some(shared.lease(&self.partings, true))
    }

    /// What is to be waited for where [`Multiplexed::take`] has found nothing; `None`: a connection may be opened.
    fn wait(&mut self, endpoint: &Arc<Endpoint>, told: Option<Addresses>, after: u64) -> Option<Wait> {
        let connections = &self.entry(endpoint, told).connections;
        if connections.len() >= CONNECTIONS {
            return Some(Wait::Full);
        }
        let untold = connections
            .iter()
            .any(|shared| shared.number > after && shared.is_untold());
        untold.then_some(Wait::Untold)
    }

    /// Why there was no room in time.
    fn why_late(&mut self, endpoint: &Arc<Endpoint>, told: Option<Addresses>) -> io::Error {
        let connections = &self.entry(endpoint, told).connections;
        if connections.len() < CONNECTIONS || connections.iter().any(Shared::is_untold) {
            return out_of_time();
        }
        let streams = connections.iter().map(Shared::most).sum();
        io::Error::other(NoStream { streams })
    }

    /// Connections up to this number are too old for a request.
    fn too_old(&self, age: Age) -> u64 {
        match age {
            Age::Any => 0,
            Age::New => self.opened,
            Age::Own => u64::MAX,
        }
    }

    fn entry(&mut self, endpoint: &Arc<Endpoint>, told: Option<Addresses>) -> &mut Entry {
        self.by_use.entry(Key::new(endpoint, told)).or_insert_with(|| Entry {
            endpoint: Arc::clone(endpoint),
            connections: Vec::new(),
            opens: Rc::default(),
            freed: Rc::default(),
        })
    }

    /// Lets go of connections that ended, or that nobody has used for long, and of endpoints that left the configuration.
    /// What still runs on one runs to its end.
    pub fn sweep(&mut self, now: Instant) {
        self.by_use.retain(|_, entry| {
            let edition = entry.endpoint.transport.edition();
            let left = Arc::strong_count(&entry.endpoint) == 1;
            entry.connections.retain_mut(|shared| {
                !left && shared.edition == edition && !shared.is_stale(now) && is_alive(&mut shared.send, &shared.load)
            });
            // Whoever is opening one holds the entry's lock.
            !entry.connections.is_empty() || Rc::strong_count(&entry.opens) > 1
        });
    }

    /// A tick has passed: resets streams that were taken back.
    pub fn tick(&self) {
        self.partings.tick.set(self.partings.tick.get().wrapping_add(1));
        while let Some(parting) = self.partings.next() {
            drop(parting);
        }
    }

    /// Lets go of all that carry nothing.
    pub fn clear(&mut self) {
        for entry in self.by_use.values_mut() {
            entry.connections.retain(|shared| shared.load.streams.get() > 0);
        }
    }
}

/// Room for one stream on a connection, and the stream once it has begun. Dropped before its end, the stream is reset.
pub struct Lease {
    send: SendRequest<Bytes>,
    stream: Parting,
    partings: Rc<Partings>,
    /// The connection was there before.
    pub reused: bool,
    /// The endpoint has answered the request, or ended it.
    answered: Cell<bool>,
}

struct Begun {
    stream: u32,
    outgoing: Outgoing,
    answer: RefCell<ResponseFuture>,
}

impl Lease {
    /// Sends the head of the request. `ended`: nothing follows it.
    ///
    /// # Errors
    /// The connection takes no further streams.
    pub fn begin(&mut self, request: Request<()>, ended: bool) -> Result<(), h2::Error> {
        let (answer, stream) = self.send.send_request(request, ended)?;
        let id = stream.stream_id().as_u32();
        if !ended {
            self.stream.load.meter.expect(id);
        }
        self.stream.begun = Some(Begun {
            stream: id,
            outgoing: Outgoing::after_request(stream, ended),
            answer: RefCell::new(answer),
        });
        Ok(())
    }

    /// No further streams begin on the connection; those that have run to their end.
    pub fn retire_connection(&self) {
        self.stream.load.retired.set(true);
        self.stream.load.freed.notify_waiters();
    }

    pub fn is_tls(&self) -> bool {
        self.stream.load.stream.is_tls()
    }

    /// What follows the head; `None` before it was sent.
    pub fn outgoing(&self) -> Option<&Outgoing> {
        self.stream.begun.as_ref().map(|begun| &begun.outgoing)
    }

    /// The next head of the answer, with the body behind it if it is the last. `limits`: of what follows its body.
    ///
    /// # Errors
    /// The endpoint has reset the stream, or its connection is gone.
    pub async fn next_head(
        &self,
        limits: HeadLimits,
    ) -> Result<(http::response::Parts, Option<Box<FrameReader>>), h2::Error> {
        let Some(begun) = &self.stream.begun else {
            return std::future::pending().await;
        };
        let head = poll_fn(|context| {
            let mut answer = begun.answer.borrow_mut();
            match answer.poll_informational(context) {
                Poll::Ready(Some(interim)) => {
                    let (head, ()) = interim?.into_parts();
                    Poll::Ready(Ok((head, None)))
                }
                Poll::Ready(None) => Pin::new(&mut *answer).poll(context).map_ok(|answer| {
                    let (head, body) = answer.into_parts();
                    (
                        head,
                        Some(Box::new(FrameReader::answer(body, &self.stream.load.meter, limits))),
                    )
                }),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        self.answered.set(true);
        head
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.answered.get() {
            return;
        }
        if let Some(begun) = self.stream.begun.take() {
            let load = Rc::clone(&self.stream.load);
            load.streams.set(load.streams.get() + 1);
            self.partings.add(Parting {
                load,
                begun: Some(begun),
            });
        }
    }
}

/// Room for a stream to `endpoint`, within `timeouts.connect`: on a connection of this thread that has some and is not too
/// old, or on a new one. `sure`: a connection that only waited is given the chance to tell that it has ended.
pub async fn lease(
    on_behalf: &OnBehalf<'_>,
    endpoint: &Arc<Endpoint>,
    timeouts: &Timeouts,
    age: Age,
    sure: bool,
) -> io::Result<Lease> {
    let leased = tokio::time::timeout(
        timeouts.connect,
        lease_unhurried(on_behalf, endpoint, timeouts, age, sure),
    );
    leased.await.unwrap_or_else(|_| {
        let mut pool = on_behalf.client.worker.multiplexed.borrow_mut();
        Err(pool.why_late(endpoint, on_behalf.tells(endpoint)))
    })
}

async fn lease_unhurried(
    on_behalf: &OnBehalf<'_>,
    endpoint: &Arc<Endpoint>,
    timeouts: &Timeouts,
    age: Age,
    sure: bool,
) -> io::Result<Lease> {
    let pool = &on_behalf.client.worker.multiplexed;
    let told = on_behalf.tells(endpoint);
    let mut after = pool.borrow().too_old(age);
    loop {
        let taken = pool.borrow_mut().take(endpoint, told, after);
        if let Some(lease) = taken {
            match settled(lease, sure).await {
                Some(lease) => return Ok(lease),
                None => continue,
            }
        }
        let (opens, freed) = {
            let mut pool = pool.borrow_mut();
            let entry = pool.entry(endpoint, told);
            (Rc::clone(&entry.opens), Rc::clone(&entry.freed))
        };
        let turn = opens.lock().await;
        if let Some(lease) = pool.borrow_mut().take(endpoint, told, after) {
            return Ok(lease);
        }
        let wait = pool.borrow_mut().wait(endpoint, told, after);
        match wait {
            None => {
                let shared = open(on_behalf, endpoint, timeouts, freed).await?;
                return Ok(pool.borrow_mut().add(endpoint, told, shared));
            }
            // An old one is better than none.
            Some(Wait::Full) if after > 0 => after = 0,
            Some(Wait::Full | Wait::Untold) => {
                drop(turn);
                freed.notified().await;
            }
        }
    }
}

/// The lease, if its connection lives. `sure`: where it only waited, what has come in is read first.
async fn settled(mut lease: Lease, sure: bool) -> Option<Lease> {
    let load = &lease.stream.load;
    if !sure || load.streams.get() > 1 || load.stream.is_quiet_for_sure() {
        return Some(lease);
    }
    tokio::task::yield_now().await;
    is_alive(&mut lease.send, &lease.stream.load).then_some(lease)
}

async fn open(
    on_behalf: &OnBehalf<'_>,
    endpoint: &Arc<Endpoint>,
    timeouts: &Timeouts,
    freed: Rc<Notify>,
) -> io::Result<Shared> {
    let worker = &on_behalf.client.worker;
    let Connection { stream, edition, .. } = open_unhurried(on_behalf, endpoint).await?;
    if stream.is_tls() && !stream.agreed_on_http2() {
        return Err(io::Error::other("the endpoint does not agree on HTTP/2 (ALPN `h2`)"));
    }
    let stream = Rc::new(stream);
    let load = Rc::new(Load {
        outbox: Outbox::new(Rc::clone(&stream), End::Client),
        stream,
        meter: Meter::new(End::Client, worker.recently()),
        streams: Cell::new(0),
        used: Cell::new(true),
        retired: Cell::new(false),
        freed,
    });
    let io = Io::new(Rc::clone(&load.outbox), Buffer::default(), Rc::clone(&load.meter));
    let settings = settings(&worker.local().in_force.snapshot.limits);
    let (send, connection) = settings.handshake(io).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(Driver::new(connection, worker, Rc::clone(&load)).run());
    Ok(Shared {
        number: 0,
        send,
        load,
        edition,
        life: match on_behalf.tells(endpoint) {
            Some(_) => timeouts.idle.min(BOUND_LIFE),
            None => timeouts.idle,
        },
        idle_since: None,
    })
}

fn settings(limits: &Limits) -> client::Builder {
    let mut builder = client::Builder::new();
    // As for clients: the limit itself is the parser's.
    let head = u32::try_from(limits.max_head).unwrap_or(u32::MAX).saturating_mul(2);
    builder
        .enable_push(false)
        .initial_max_send_streams(UNTOLD)
        .max_header_list_size(head)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        // What comes for a stream that a client has taken back is answered with a reset once it is forgotten: no number of
        // such clients may end the connection of the others.
        .max_local_error_reset_streams(None);
    builder
}
