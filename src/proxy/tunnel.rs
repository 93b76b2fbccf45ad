//! After a 101: bytes both ways, until both sides have finished or nothing moves for `timeouts.idle`, or the
//! version it runs on has been revoked, or the process stops. A WebSocket that the proxy ends itself it ends with a close
//! frame, wherever one fits: between two frames. Of other protocols it knows nothing, and closes both connections.
//!
//! Who ends it first, ends it: what breaks after that is of no account. A side breaks it off with a reset, or within a frame
//! of a WebSocket. Nobody does once a close frame has passed: both are leaving, and few wait for the other's.

use super::body::{Accepted, BodyError, BodyReader, BodyWriter, Coding, Framing};
use super::buffer::{Buffer, HeadBytes};
use super::deadlines::{Expired, Slot};
use super::stream::Stream;
use super::worker::Worker;
use crate::http1::websocket::{FrameScan, GOING_AWAY, SERVICE_RESTART, close_frame};
use crate::outcome::Termination;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// How long a peer may take over its close frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a tunnel joins.
pub struct Ends<'a> {
    pub client: &'a Stream,
    pub upstream: &'a Stream,
    pub worker: &'a Worker,
    /// Of the client's connection.
    pub slot: &'a Slot,
    /// Nothing moving for so long ends it.
    pub idle: Duration,
    /// Both speak WebSocket.
    pub web_socket: bool,
    /// Masks what the proxy sends to the endpoint by itself. It hides nothing.
    pub mask: [u8; 4],
}

/// What both directions know of the end.
#[derive(Default)]
struct End {
    /// A WebSocket's close frame has passed.
    closing: Cell<bool>,
    /// By one of both sides.
    first: Cell<Option<Termination>>,
}

impl End {
    /// A side has ended it; `broken`: without a word.
    fn settle(&self, broken: Option<Termination>) {
        let ended = broken.filter(|_| !self.closing.get()).unwrap_or(Termination::Ok);
        self.first.set(self.first.get().or(Some(ended)));
    }
}

/// One direction: from one side, whose buffer has what it had already sent and goes first, to the other.
struct Way<'a> {
    from: &'a Stream,
    to: &'a Stream,
    breaks: Breaks,
    end: &'a End,
    passed: Accepted<'a>,
    /// Of a WebSocket.
    frames: Option<RefCell<FrameScan>>,
    /// A piece is under way, and nobody knows how much of it was taken; or the end was told.
    writing: Cell<bool>,
}

/// Joins both connections. Each direction comes with the buffer of what had already been sent, which goes first, and with
/// the count of bytes passed on. The side that finishes is told on; the other may go on until it finishes too. The total
/// deadline of the request does not count here: a tunnel lives while it is used. Both connections close when they are
/// dropped.
pub async fn run(ends: &Ends<'_>, up: (&mut Buffer, Accepted<'_>), down: (&mut Buffer, Accepted<'_>)) -> Termination {
    let slot = ends.slot;
    slot.clear_total();
    slot.set_phase(ends.idle);
    let end = End::default();
    let to_endpoint = Way::new((ends.client, ends.upstream), Breaks::UP, &end, up.1, ends.web_socket);
    let to_client = Way::new(
        (ends.upstream, ends.client),
        Breaks::DOWN,
        &end,
        down.1,
        ends.web_socket,
    );
    let ended = {
        let mut up = pin!(to_endpoint.copy(up.0));
        let mut down = pin!(to_client.copy(down.0));
        let (mut up_done, mut down_done) = (false, false);
        let both = poll_fn(|context| {
            up_done = up_done || up.as_mut().poll(context).is_ready();
            down_done = down_done || down.as_mut().poll(context).is_ready();
            if up_done && down_done {
                Poll::Ready(Ended::Itself)
            } else if ends.worker.is_leaving() {
                Poll::Ready(Ended::Drained)
            } else {
                Poll::Pending
            }
        });
        slot.guard(both).await
    };
    // What the endpoint sent before it was gone may have been read after a write had told of that.
    let said = to_client
        .frames
        .as_ref()
        .is_some_and(|frames| frames.borrow().has_closed());
    let broken = end.first.get().filter(|&first| first != Termination::Ok && !said);
    let (termination, code) = match ended {
        Ok(Ended::Itself) => return broken.unwrap_or(Termination::Ok),
        Ok(Ended::Drained) => (Termination::Drain, GOING_AWAY),
        Err(Expired::Revoked) => (Termination::Revoked, SERVICE_RESTART),
        Err(Expired::Phase | Expired::Total) => (Termination::Idle, GOING_AWAY),
    };
    slot.off_canary();
    to_client.close(slot, &close_frame(code, None)).await;
    to_endpoint.close(slot, &close_frame(GOING_AWAY, Some(ends.mask))).await;
    broken.unwrap_or(termination)
}

/// How a tunnel ends that no limit ends.
enum Ended {
    /// Both sides have finished.
    Itself,
    /// The process stops, and what is in flight has had its time.
    Drained,
}

/// What it is when a direction breaks.
struct Breaks {
    /// Whose bytes they are has reset the connection.
    reset: Termination,
    /// Or ended within a frame.
    cut: Termination,
    /// Who is to get them has reset the connection.
    refused: Termination,
}

impl Breaks {
    const UP: Self = Self {
        reset: Termination::ClientAbortAnswer,
        cut: Termination::ClientAbortAnswer,
        refused: Termination::UpstreamReset,
    };
    const DOWN: Self = Self {
        reset: Termination::UpstreamReset,
        cut: Termination::UpstreamTruncated,
        refused: Termination::ClientAbortAnswer,
    };
}

impl<'a> Way<'a> {
    fn new(
        (from, to): (&'a Stream, &'a Stream),
        breaks: Breaks,
        end: &'a End,
        passed: Accepted<'a>,
        web_socket: bool,
    ) -> Self {
        Self {
            from,
            to,
            breaks,
            end,
            passed,
            frames: web_socket.then(RefCell::default),
            writing: Cell::new(false),
        }
    }

    /// To its end or its failure.
    async fn copy(&self, buffer: &mut Buffer) {
        let mut reader = BodyReader::wire(self.from, buffer, Framing::UntilClose);
        let mut writer = BodyWriter::wire(self.to, HeadBytes::default(), Coding::Plain, self.passed);
        loop {
            match reader.next().await {
                Ok(Some(piece)) => self.feed(piece),
                Ok(None) => break self.finished(),
                // Many leave TLS without a word.
                Err(BodyError::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => break self.finished(),
                Err(_) => break self.end.settle(Some(self.breaks.reset)),
            }
            self.passed.slot.set_phase(self.passed.idle);
            self.writing.set(true);
            if let Err(error) = writer.pass(&mut reader).await {
                // It had finished before: the other direction knows how.
                if error.kind() != ErrorKind::BrokenPipe {
                    self.end.settle(Some(self.breaks.refused));
                }
                break;
            }
            self.writing.set(false);
        }
        self.writing.set(true);
        // A peer that is gone cannot be told.
        let _ = self.to.finish().await;
    }

    fn feed(&self, piece: &[u8]) {
        if let Some(frames) = &self.frames {
            let mut frames = frames.borrow_mut();
            frames.feed(piece);
            self.end.closing.set(self.end.closing.get() || frames.has_closed());
        }
    }

    /// Whose bytes they are has said that there are no more.
    fn finished(&self) {
        let frames = self.frames.as_ref();
        let within = frames.is_some_and(|frames| frames.borrow().is_within_frame());
        self.end.settle(within.then_some(self.breaks.cut));
    }

    /// Sends `frame`, if it fits in.
    async fn close(&self, slot: &Slot, frame: &[u8]) {
        let fits = self.frames.as_ref().is_some_and(|frames| frames.borrow().may_follow());
        if self.writing.get() || !fits {
            return;
        }
        slot.set_phase(FAREWELL);
        // A peer that takes nothing any more is closed without it.
        let _ = slot.guard(self.to.write_all(&mut [IoSlice::new(frame)], |_| {})).await;
    }
}
