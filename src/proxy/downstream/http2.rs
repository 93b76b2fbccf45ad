//! HTTP/2 connections of clients: many exchanges at once, each a task with a slot of its own. Framing is the `h2` crate's;
//! what it leaves open (who may hold a connection, and for how long; what a peer may cost) is decided here.

use super::{Client, Link, Next, linger};
use crate::config::snapshot::Limits;
use crate::http1::{HeadError, RequestBody, RequestHead, Version};
use crate::http2::{Budget, grpc, read_request};
use crate::outcome::Refusal;
use crate::proxy::body::{BodyReader, Outgoing};
use crate::proxy::buffer::{Buffer, HeadBytes};
use crate::proxy::deadlines::{Expired, Slot};
use crate::proxy::exchange::{self, Unread};
use crate::proxy::headers::hex_id;
use crate::proxy::io::{End, Io, Meter, Outbox};
use crate::proxy::record::log_unread;
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;
use crate::routing::ClientCert;
use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, header, request};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Bytes a client may send on one stream, and on all, before they are passed on: what a connection may hold of bodies.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Bytes of answers held for one stream while its client does not take them.
const SEND_BUFFER: usize = 64 << 10;

/// Streams that a client may reset as soon as it has begun them, and how many more a second (CVE-2023-44487). A stream that
/// is not reset gives one back.
const RESETS: u64 = 500;
const RESETS_PER_SECOND: u64 = 100;

/// A stream that is reset later than this is one that its client has waited for, not a flood: calls have deadlines.
const RAPID: Duration = Duration::from_secs(1);

/// Streams of a connection that may be reset for breaking the protocol (CVE-2025-8671).
const BROKEN_STREAMS: usize = 64;

/// How long a connection that is told to end may take over it when nothing runs on it.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves a connection to its end; `input` begins with the preface.
pub async fn serve(client: Client, input: Buffer) {
    let Client {
        worker,
        link: Link::Wire(stream),
        peer,
        destination,
        certificate,
        listener,
        slot,
        since,
        ..
    } = client
    else {
        return;
    };
    let meter = Meter::new(End::Server, worker.recently());
    let shared = Rc::new(Shared {
        resets: RefCell::new(Budget::new(RESETS, RESETS_PER_SECOND, worker.recently())),
        worker,
        stream: Rc::new(stream),
        peer,
        destination,
        certificate,
        listener,
        since,
        open: Cell::new(0),
        too_many_resets: Cell::new(false),
        waker: Cell::new(None),
    });
    let local = shared.worker.local();
    let limits = &local.in_force.snapshot.limits;
    slot.clear_total();
    slot.set_phase(limits.header_timeout);
    let outbox = Outbox::new(Rc::clone(&shared.stream), End::Server);
    let io = Io::new(Rc::clone(&outbox), input, Rc::clone(&meter));
    let mut greeting = pin!(settings(limits).handshake(io));
    let greeted = poll_fn(|context| {
        shared.worker.hurry(&slot);
        greeting.as_mut().poll(context)
    });
    let Ok(Ok(connection)) = slot.guard(greeted).await else {
        return;
    };
    slot.set_total(limits.connection_age);
    drop(local);
    let mut connection = Connection {
        connection,
        outbox,
        shared,
        slot,
        meter,
        asked: false,
        busy: false,
        end: Ending::No,
    };
    if connection.run().await == Closed::ByUs {
        // Frames that still come in are not answered with a reset that might overtake the last answer.
        let Connection { shared, slot, .. } = &connection;
        linger::close(&shared.stream, slot, &mut Buffer::default()).await;
    }
}

fn settings(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    // It counts 32 bytes a field besides, and refuses without a word in our log: the limit itself is the parser's.
    let head = u32::try_from(limits.max_head).unwrap_or(u32::MAX).saturating_mul(2);
    builder
        .max_header_list_size(head)
        .max_concurrent_streams(limits.max_streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(BROKEN_STREAMS));
    builder
}

/// What the task of a connection and those of its streams share.
struct Shared {
    worker: Rc<Worker>,
    stream: Rc<Stream>,
    peer: SocketAddr,
    destination: Option<Rc<SocketAddr>>,
    certificate: Option<Rc<ClientCert>>,
    listener: usize,
    since: Instant,
    /// Exchanges that run.
    open: Cell<usize>,
    resets: RefCell<Budget>,
    too_many_resets: Cell<bool>,
    /// Of the connection's task.
    waker: Cell<Option<Waker>>,
}

impl Shared {
    fn register(&self, waker: &Waker) {
        let held = self.waker.take().filter(|held| held.will_wake(waker));
        self.waker.set(Some(held.unwrap_or_else(|| waker.clone())));
    }

    /// A stream that began at `began` has ended, reset by the client or not.
    fn ended(&self, began: Instant, reset: bool) {
        let mut resets = self.resets.borrow_mut();
        let now = self.worker.recently();
        if !reset {
            resets.earn(1);
        } else if now.saturating_duration_since(began) < RAPID && !resets.spend(1, now) {
            self.too_many_resets.set(true);
        }
    }
}

/// Counts an exchange for its connection while it runs.
struct Open(Rc<Shared>);

impl Open {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.open.set(shared.open.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

struct Connection {
    connection: server::Connection<Io, Bytes>,
    outbox: Rc<Outbox>,
    shared: Rc<Shared>,
    slot: Slot,
    meter: Rc<Meter>,
    /// A request has come on this connection.
    asked: bool,
    /// Exchanges ran when this was looked at last.
    busy: bool,
    end: Ending,
}

/// Whether the client was told that its connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// What runs may finish.
    InOrder,
    AtOnce,
}

#[derive(PartialEq, Eq)]
enum Closed {
    ByUs,
    ByThem,
}

enum Event {
    Closed(Option<h2::Error>),
    Flooded,
    Late(Expired),
}

impl Connection {
    async fn run(&mut self) -> Closed {
        loop {
            match poll_fn(|context| self.poll_event(context)).await {
                Event::Flooded => self.refuse_flood(),
                Event::Late(Expired::Total) => {
                    // It has lived long enough.
                    self.slot.clear_total();
                    self.end_in_order();
                }
                Event::Late(_) if self.end == Ending::AtOnce => return Closed::ByThem,
                Event::Late(_) => self.end_at_once(Reason::NO_ERROR),
                Event::Closed(error) => {
                    if let Some(refusal) = error.as_ref().and_then(fault) {
                        self.log(refusal);
                    }
                    return if self.end == Ending::InOrder {
                        Closed::ByUs
                    } else {
                        Closed::ByThem
                    };
                }
            }
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        self.shared.register(context.waker());
        self.watch_closing();
        while let Poll::Ready(accepted) = self.connection.poll_accept(context) {
            match accepted {
                Some(Ok((request, respond))) => self.begin(request, respond),
                Some(Err(error)) => return Poll::Ready(Event::Closed(Some(error))),
                None => return Poll::Ready(Event::Closed(None)),
            }
        }
        if let Poll::Ready(Err(_)) = self.outbox.poll_send(context) {
            return Poll::Ready(Event::Closed(None));
        }
        let flooded = self.shared.too_many_resets.take() || self.meter.is_flooded(self.shared.worker.recently());
        if flooded && self.end != Ending::AtOnce {
            return Poll::Ready(Event::Flooded);
        }
        self.watch_rest();
        if let Some(expired) = self.slot.expired() {
            return Poll::Ready(Event::Late(expired));
        }
        self.slot.register(context.waker());
        Poll::Pending
    }

    /// Whoever is told to end before its first request has nowhere else to send that to.
    fn watch_closing(&mut self) {
        if self.asked && self.shared.worker.is_closing() {
            self.end_in_order();
        } else if self.end == Ending::No && !self.asked {
            self.shared.worker.hurry(&self.slot);
        }
    }

    /// A connection on which nothing runs any more may rest for a while.
    fn watch_rest(&mut self) {
        let busy = self.shared.open.get() > 0;
        if std::mem::replace(&mut self.busy, busy) && !busy {
            let patience = match self.end {
                Ending::No => self.shared.worker.local().in_force.snapshot.limits.keepalive_timeout,
                Ending::InOrder | Ending::AtOnce => FAREWELL,
            };
            self.slot.set_phase(patience);
        }
    }

    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        if self.shared.worker.answers_close() {
            self.end_in_order();
        }
        self.asked = true;
        self.busy = true;
        self.slot.clear_phase();
        let open = Open::new(&self.shared);
        let worker = &self.shared.worker;
        let limits = worker.local().in_force.snapshot.limits.heads();
        let (parts, body) = request.into_parts();
        let mut bytes = HeadBytes::new();
        let mut parser = worker.head_parser();
        let head = read_request(&mut bytes, &parts, body.is_end_stream(), &limits, &mut parser);
        let head = head.map_err(|error| Unreadable::new(error, &parts));
        let none = head.as_ref().is_ok_and(is_bodiless);
        let body = BodyReader::frames(body, none, limits);
        let request = Incoming { head, bytes, body };
        tokio::task::spawn_local(serve_stream(open, request, respond));
    }

    fn end_in_order(&mut self) {
        if self.end == Ending::No {
            self.end = Ending::InOrder;
            self.connection.graceful_shutdown();
            if self.shared.open.get() == 0 {
                self.slot.set_phase(FAREWELL);
            }
        }
    }

    fn end_at_once(&mut self, reason: Reason) {
        self.end = Ending::AtOnce;
        self.connection.abrupt_shutdown(reason);
        self.slot.set_phase(FAREWELL);
    }

    fn refuse_flood(&mut self) {
        self.log(Refusal::Flood);
        self.end_at_once(Reason::ENHANCE_YOUR_CALM);
    }

    fn log(&self, refusal: Refusal) {
        let request_id = hex_id(self.shared.worker.draw_id());
        let request_id = std::str::from_utf8(&request_id).unwrap_or_default();
        log_unread(
            &self.shared.worker,
            self.shared.peer.ip(),
            Version::Http2,
            refusal,
            request_id,
        );
    }
}

/// How a connection is told that broke the protocol.
fn fault(error: &h2::Error) -> Option<Refusal> {
    match error.reason() {
        _ if !error.is_library() => None,
        Some(Reason::ENHANCE_YOUR_CALM) => Some(Refusal::Flood),
        _ => Some(Refusal::BadRequest),
    }
}

/// A request whose head has arrived.
struct Incoming {
    head: Result<RequestHead, Unreadable>,
    bytes: HeadBytes,
    body: BodyReader<'static>,
}

fn is_bodiless(head: &RequestHead) -> bool {
    matches!(head.body, RequestBody::None | RequestBody::Length(0))
}

/// A head that is refused, and how its client is to be answered.
struct Unreadable {
    error: HeadError,
    head_only: bool,
    is_grpc: bool,
}

impl Unreadable {
    fn new(error: HeadError, head: &request::Parts) -> Self {
        let content_type = head.headers.get(header::CONTENT_TYPE);
        Self {
            error,
            head_only: head.method == Method::HEAD,
            is_grpc: content_type.is_some_and(|value| grpc::is_grpc(value.as_bytes())),
        }
    }
}

/// One request and its answer.
async fn serve_stream(open: Open, request: Incoming, respond: SendResponse<Bytes>) {
    let shared = &open.0;
    let began = shared.worker.recently();
    let client = Client {
        worker: Rc::clone(&shared.worker),
        link: Link::Frames(Outgoing::answer(respond), Rc::clone(&shared.stream)),
        peer: shared.peer,
        destination: shared.destination.clone(),
        certificate: shared.certificate.clone(),
        listener: shared.listener,
        slot: shared.worker.deadlines.slot(),
        since: shared.since,
        asked: Cell::new(true),
        answering: Cell::new(false),
    };
    let Incoming { head, bytes, mut body } = request;
    // Boxed, so that the task, which is moved about as a whole when it begins and when it ends, is small.
    match &head {
        Ok(head) => Box::pin(exchange::run(&client, head, &bytes, &mut body)).await,
        Err(unreadable) => Box::pin(refuse(&client, unreadable)).await,
    };
    if !body.is_done() && client.link.has_ended() {
        linger::read_on(&client.slot, &mut body).await;
    }
    if let Ok(head) = head {
        client.worker.recycle(head);
    }
    if let Link::Frames(outgoing, _) = &client.link {
        shared.ended(began, outgoing.was_reset());
    }
}

async fn refuse(client: &Client, head: &Unreadable) -> Next {
    let unread = Unread {
        bytes: &[],
        head_only: head.head_only,
        is_grpc: head.is_grpc,
    };
    exchange::refuse_unread(client, head.error.status(), &head.error.to_string(), &unread).await
}
