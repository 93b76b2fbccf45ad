//! A connection as the `h2` crate wants one, with a count of its frames.

use super::buffer::{BUFFER_BYTES, Buffer};
use super::stream::Stream;
use crate::http2::{Budget, FrameCount, PREFACE};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Control frames a peer may send for nothing, and how many more a second.
const CONTROL_FRAMES: u64 = 10_000;
const CONTROL_FRAMES_PER_SECOND: u64 = 100;

/// How many more for each DATA or HEADERS frame in either direction: window updates, priorities, resets, pings beside
/// them.
const CONTROL_FRAMES_EARNED: u64 = 10;

/// Which end of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Server,
    Client,
}

/// What is known of a connection's traffic.
pub struct Meter {
    read: RefCell<FrameCount>,
    written: RefCell<FrameCount>,
    control: RefCell<Budget>,
    /// Something has come in since this was asked last.
    heard: Cell<bool>,
}

impl Meter {
    pub fn new(end: End, now: Instant) -> Rc<Self> {
        let (from_peer, to_peer) = match end {
            End::Server => (PREFACE.len(), 0),
            End::Client => (0, PREFACE.len()),
        };
        Rc::new(Self {
            read: RefCell::new(FrameCount::new(from_peer)),
            written: RefCell::new(FrameCount::new(to_peer)),
            control: RefCell::new(Budget::new(CONTROL_FRAMES, CONTROL_FRAMES_PER_SECOND, now)),
            heard: Cell::new(false),
        })
    }

    /// Whether the peer sends so many frames that carry nothing that its connection had better end (as CVE-2019-9512,
    /// 9513, 9515 did: pings, priorities, settings).
    pub fn is_flooded(&self, now: Instant) -> bool {
        let (read, written) = (self.read.borrow_mut().take(), self.written.borrow_mut().take());
        let mut control = self.control.borrow_mut();
        control.earn((read.carrying + written.carrying) * CONTROL_FRAMES_EARNED);
        !control.spend(read.control, now)
    }

    /// Whether anything has come in since this was asked last.
    pub fn heard(&self) -> bool {
        self.heard.take()
    }
}

/// See the module.
pub struct Io {
    stream: Rc<Stream>,
    /// Read already: by who found out what is spoken, or more at once than there was room for.
    ahead: Buffer,
    meter: Rc<Meter>,
}

impl Io {
    pub fn new(stream: Rc<Stream>, ahead: Buffer, meter: Rc<Meter>) -> Self {
        Self { stream, ahead, meter }
    }

    /// So many bytes of `parts` went out.
    fn wrote(&self, parts: &[IoSlice<'_>], written: usize) {
        let mut count = self.meter.written.borrow_mut();
        let mut left = written;
        for part in parts {
            let part = part.get(..left.min(part.len())).unwrap_or_default();
            count.pass(part);
            left -= part.len();
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            ready!(this.stream.poll_fill(context, &mut this.ahead, BUFFER_BYTES))?;
        }
        let held = this.ahead.unread();
        let held = held.get(..held.len().min(room.remaining())).unwrap_or_default();
        room.put_slice(held);
        this.meter.heard.set(true);
        this.meter.read.borrow_mut().pass(held);
        let used = held.len();
        this.ahead.consume(used);
        this.ahead.release();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream.poll_write(context, parts, &|_| {}))?;
        self.wrote(parts, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(context, &|_| {})
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_finish(context)
    }
}
