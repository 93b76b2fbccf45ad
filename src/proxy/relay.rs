//! One attempt: the request to an endpoint and its answer back, both at once, in one task.
//!
//! Two futures share the attempt's state: [`Attempt::send`] takes the request's body from the client to the endpoint
//! and then watches whether the client is still there; [`Attempt::receive`] brings the answer. The deadline slot of the
//! connection covers both: whoever makes progress pushes the phase's deadline on.

mod receive;
mod send;

use super::body::{Accepted, BodyReader, Coding};
use super::buffer::{Buffer, HeadBytes};
use super::deadlines::Expired;
use super::downstream::{Client, Link};
use super::record::Record;
use super::tunnel;
use super::upstream;
use crate::config::snapshot::{Limits, Service, Timeouts};
use crate::http1::{Edits, Protocols, RequestBody, RequestHead, Upgrading};
use crate::outcome::{FailureKind, Refusal, Termination};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Why an attempt gave no whole answer.
#[derive(Debug)]
pub enum Failed {
    /// The request cannot be served whatever the version: the client is told so and why, if nothing was answered yet.
    Refused(Refusal, &'static str),
    /// The client has gone, or takes nothing any more.
    Client(Termination),
    /// The endpoint's failure.
    Upstream {
        termination: Termination,
        nothing_received: bool,
        /// The endpoint has said that it has not begun with the request (REFUSED_STREAM, GOAWAY).
        unprocessed: bool,
        why: String,
    },
    /// A failure by answer (a 5xx, a `grpc-status`) that stable may better: the client has seen nothing of it.
    Withheld { status: u16, kind: FailureKind },
    /// Nothing came on an event stream, or within a call of gRPC that was being answered, for `timeouts.idle`.
    Idle,
    /// The time for the whole request has passed.
    Deadline,
    /// The version was revoked, and what was in flight on it has had its time.
    Revoked,
    /// The process stops, and what was in flight has had its time.
    Drained,
}

impl Failed {
    fn upstream(termination: Termination, why: impl Into<String>) -> Self {
        Self::Upstream {
            termination,
            nothing_received: false,
            unprocessed: false,
            why: why.into(),
        }
    }
}

/// A whole answer.
pub struct Answered {
    pub status: u16,
    /// The endpoint's connection can carry another request.
    pub reusable: bool,
    /// The client's connection can carry another request.
    pub keep_alive: bool,
    pub upgraded: bool,
    /// [`Termination::Ok`], unless an upgraded connection was ended by the proxy.
    pub termination: Termination,
    pub verdict: Verdict,
}

/// What an answer says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verdict {
    /// By its status, or its `grpc-status`.
    pub failure: Option<FailureKind>,
    pub grpc_status: Option<u32>,
}

/// The request's body and what is needed to send it again.
pub struct Upload<'c, 'b> {
    pub reader: &'c mut BodyReader<'b>,
    pub coding: Coding,
    /// What was read of it, while all of it is kept. `None`: not repeatable.
    pub replay: Option<Vec<u8>>,
    pub bytes: u64,
}

impl<'c, 'b> Upload<'c, 'b> {
    /// The body of the request with this head. `kept`: what is read of it, so that it can be sent again.
    pub fn new(head: &RequestHead, reader: &'c mut BodyReader<'b>, kept: bool) -> Self {
        let coding = match head.body {
            RequestBody::None | RequestBody::Length(_) => Coding::Plain,
            RequestBody::Chunked => Coding::Chunked,
        };
        Self {
            reader,
            coding,
            replay: kept.then(Vec::new),
            bytes: 0,
        }
    }

    /// Whether all that was read of the body is still there.
    pub fn can_repeat(&self) -> bool {
        self.bytes == 0 || self.replay.is_some()
    }
}

/// What the client is told with the final answer.
#[derive(Default)]
pub struct Told<'a> {
    pub version: Option<&'a str>,
    pub hsts: Option<&'a str>,
    /// What rules change in it.
    pub edits: Option<Edits<'a>>,
}

/// What is asked of who makes an attempt once its end is near.
pub trait Rules {
    /// What the client is told with the final answer.
    fn told(&self) -> Told<'_> {
        Told::default()
    }

    /// The trailer fields of the request that go on, of those that `came`.
    fn request_trailers(&self, _came: &[u8]) -> Vec<u8> {
        Vec::new()
    }
}

/// What an attempt needs to know; it changes only cells.
pub struct Attempt<'a> {
    pub client: &'a Client,
    pub upstream: &'a upstream::Link,
    pub request: &'a RequestHead,
    /// Of what the service lets through, what `request` asks to change the protocol to: the endpoint may.
    pub asked: Protocols,
    /// It is a call of gRPC, to an endpoint that may speak it: its answer's `grpc-status` counts, and either side may send
    /// for as long, as much and as slowly as it likes.
    pub is_grpc: bool,
    pub limits: &'a Limits,
    pub timeouts: &'a Timeouts,
    /// In place of `timeouts.first_byte`.
    pub first_byte: Duration,
    /// What is added to the final answer.
    pub set_cookie: Option<&'a [u8]>,
    /// Likewise, and of what follows the bodies.
    pub rules: &'a dyn Rules,
    /// Whose numbers its answer may hold, and where they are kept.
    pub service: Option<&'a Service>,
    pub record: &'a Record,
    /// Asked when the head of the answer says that it is a failure: whether another one will be had instead.
    pub withholds: Option<&'a dyn Fn(FailureKind) -> bool>,
    pub progress: Progress,
}

/// How far an attempt has come: read after it has ended, however it ended.
#[derive(Default)]
pub struct Progress {
    /// The whole request is sent.
    pub uploaded: Cell<bool>,
    /// Bytes the endpoint's socket accepted.
    pub sent: Cell<u64>,
    /// Likewise, of what the client sent behind an upgrade.
    pub tunneled: Cell<u64>,
    /// Bytes the client's socket accepted of the final answer's body, or behind a 101.
    pub answered: Cell<u64>,
    /// Likewise, of interim answers.
    interim: Cell<u64>,
    /// The status of the final answer, once its head is there.
    pub status: Cell<Option<u16>>,
    pub first_byte: Cell<Option<Instant>>,
    /// The client has finished sending, and waits (or has gone).
    pub half_closed: Cell<bool>,
    /// Because of that, less time is left for the answer to begin.
    hurried: Cell<bool>,
    /// The client has sent something behind this request: the next one, most likely.
    pub pipelined: Cell<bool>,
    /// The answer ends with the connection: cut short, it is to end with a reset.
    cut_by_reset: Cell<bool>,
    /// The answer is an event stream, or of gRPC and begun before its request was whole: it lasts for as long as both sides
    /// like.
    pub endless: Cell<bool>,
    /// How long more of the request's body was waited for.
    pub waited: Cell<Duration>,
    reading_client: Cell<bool>,
    /// A piece of the request's body waits until the endpoint takes it.
    writing_upstream: Cell<bool>,
    /// Something of the request's body has come.
    body_begun: Cell<bool>,
    /// And not all of it is kept: it cannot be sent again.
    body_lost: Cell<bool>,
    writing_client: Cell<bool>,
}

impl Progress {
    /// The final answer has begun: nothing else can be answered any more.
    pub fn answer_begun(&self) -> bool {
        self.status.get().is_some()
    }
}

impl Attempt<'_> {
    /// Runs the attempt to its end. `head`: the request's head as it is sent.
    pub async fn run(
        &self,
        head: HeadBytes,
        upload: &mut Upload<'_, '_>,
        answer: &mut Buffer,
    ) -> Result<Answered, Failed> {
        self.client.slot.set_phase(self.timeouts.idle);
        let result = {
            let mut send = pin!(self.send(head, upload));
            let mut receive = pin!(self.receive(answer));
            let both = poll_fn(|context| match poll_both(send.as_mut(), receive.as_mut(), context) {
                Poll::Pending if self.client.worker.is_ending() => Poll::Ready(Err(Failed::Drained)),
                polled => polled,
            });
            match self.client.slot.guard(both).await {
                Ok(result) => result,
                Err(expired) => return Err(self.too_late(expired)),
            }
        }?;
        match result {
            Received::Whole(answered) => Ok(answered),
            Received::Upgraded { web_socket } => Ok(Answered {
                termination: self.tunnel(upload.reader, answer, web_socket).await,
                status: 101,
                reusable: false,
                keep_alive: false,
                upgraded: true,
                verdict: Verdict::default(),
            }),
        }
    }

    /// Joins the connections of client and endpoint. Only what HTTP/1.1 brought can have been upgraded.
    async fn tunnel(&self, body: &mut BodyReader<'_>, answer: &mut Buffer, web_socket: bool) -> Termination {
        let (Link::Wire(client), Some(input)) = (&self.client.link, body.buffer()) else {
            return Termination::Ok;
        };
        let upstream::Link::Wire(connection) = self.upstream else {
            return Termination::Ok;
        };
        let ends = tunnel::Ends {
            client,
            upstream: &connection.stream,
            worker: &self.client.worker,
            slot: &self.client.slot,
            idle: self.timeouts.idle,
            web_socket,
            mask: self
                .client
                .worker
                .draw()
                .to_le_bytes()
                .first_chunk()
                .copied()
                .unwrap_or_default(),
        };
        Box::pin(tunnel::run(
            &ends,
            (input, self.accepted(&self.progress.tunneled)),
            (answer, self.accepted(&self.progress.answered)),
        ))
        .await
    }

    /// What the endpoint may change the protocol to.
    fn upgrading(&self) -> Upgrading<'_> {
        Upgrading {
            allowed: self.service.map(|service| &*service.upgrades).unwrap_or_default(),
            asked: self.asked,
        }
    }

    fn client_left(&self) -> Termination {
        if self.progress.answer_begun() {
            Termination::ClientAbortAnswer
        } else {
            Termination::ClientAbort
        }
    }

    /// Whose fault it is that a deadline passed.
    fn too_late(&self, expired: Expired) -> Failed {
        let progress = &self.progress;
        if expired == Expired::Revoked {
            return Failed::Revoked;
        }
        if progress.writing_upstream.get() {
            // The window may be the connection's, and spent for good: the next body would wait as long.
            self.upstream.retire();
        }
        if progress.writing_client.get() {
            return Failed::Client(Termination::ClientTimeout);
        }
        // Both sides of a call may be silent: neither is to blame for the other.
        let is_call = self.is_grpc && progress.answer_begun();
        if progress.reading_client.get() && progress.answer_begun() && !is_call {
            return Failed::Client(Termination::ClientTimeout);
        }
        if expired == Expired::Total && (is_call || !progress.reading_client.get()) {
            return Failed::Deadline;
        }
        if progress.endless.get() || is_call {
            return Failed::Idle;
        }
        if progress.answer_begun() {
            return Failed::upstream(Termination::UpstreamIdle, "silence for timeouts.idle within the answer");
        }
        if progress.reading_client.get() && !self.waits_for_100() {
            return Failed::Refused(Refusal::RequestTimeout, "the body did not arrive in time");
        }
        if progress.hurried.get() {
            return Failed::Client(Termination::ClientAbort);
        }
        let why = if progress.writing_upstream.get() {
            "the endpoint took nothing of the request's body for timeouts.idle"
        } else {
            "no first byte within timeouts.first_byte"
        };
        Failed::upstream(Termination::UpstreamTimeout, why)
    }

    /// The client waits for the endpoint's word (100, or an answer) before it sends its body.
    fn waits_for_100(&self) -> bool {
        self.request.expect_continue && !self.progress.body_begun.get() && self.progress.interim.get() == 0
    }

    /// What is told of the bytes that go to the client or to the endpoint.
    fn accepted<'p>(&'p self, bytes: &'p Cell<u64>) -> Accepted<'p> {
        Accepted {
            bytes,
            slot: &self.client.slot,
            idle: self.timeouts.idle,
        }
    }
}

enum Received {
    Whole(Answered),
    /// What follows belongs to another protocol.
    Upgraded {
        web_socket: bool,
    },
}

/// The answer when it is there; else the failure of the sending side.
fn poll_both(
    send: Pin<&mut impl Future<Output = Failed>>,
    receive: Pin<&mut impl Future<Output = Result<Received, Failed>>>,
    context: &mut Context<'_>,
) -> Poll<Result<Received, Failed>> {
    if let Poll::Ready(failed) = send.poll(context) {
        return Poll::Ready(Err(failed));
    }
    receive.poll(context)
}
