//! A connection as the `h2` crate wants one, with a count of its frames, and with writes of many frames.

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

/// Bytes of frames held back at most, so that they go out together: a TLS record.
const HELD_BYTES: usize = 16 * 1024;

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

/// Frames on their way out. The `h2` crate would send each DATA frame on its own; here they wait until the connection's
/// task has given out what all streams have for it, and leave by one system call and in one TLS record.
pub struct Outbox {
    stream: Rc<Stream>,
    held: RefCell<Buffer>,
}

impl Outbox {
    pub fn new(stream: Rc<Stream>) -> Rc<Self> {
        Rc::new(Self {
            stream,
            held: RefCell::default(),
        })
    }

    /// Until the socket has taken all there is. Whoever polls the connection polls this afterwards.
    ///
    /// # Errors
    /// The peer has gone.
    pub fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.held.borrow_mut();
        while !held.is_empty() {
            match self.stream.poll_write(context, &[IoSlice::new(held.unread())], &|_| {}) {
                Poll::Ready(written) => held.consume(written?),
                Poll::Pending => {
                    held.settle();
                    return Poll::Pending;
                }
            }
        }
        held.release();
        self.stream.poll_flush(context, &|_| {})
    }

    /// Holds `parts`, all of them; what is too large to be held goes to the socket behind what is.
    fn poll_take(&self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.held.borrow().unread().len() + length > HELD_BYTES {
            ready!(self.poll_send(context))?;
        }
        if length > HELD_BYTES {
            return self.stream.poll_write(context, parts, &|_| {});
        }
        let mut held = self.held.borrow_mut();
        Poll::Ready(Ok(parts.iter().map(|part| held.push(part, HELD_BYTES)).sum()))
    }
}

/// See the module.
pub struct Io {
    stream: Rc<Stream>,
    outbox: Rc<Outbox>,
    /// Read already: by who found out what is spoken, or more at once than there was room for.
    ahead: Buffer,
    meter: Rc<Meter>,
}

impl Io {
    pub fn new(outbox: Rc<Outbox>, ahead: Buffer, meter: Rc<Meter>) -> Self {
        Self {
            stream: Rc::clone(&outbox.stream),
            outbox,
            ahead,
            meter,
        }
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
        let written = ready!(self.outbox.poll_take(context, parts))?;
        self.wrote(parts, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: see [`Outbox`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.outbox.poll_send(context))?;
        self.stream.poll_finish(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Both ends of a connection, ours as the `h2` crate has it.
    async fn connection() -> (Io, Rc<Outbox>, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let outbox = Outbox::new(Rc::new(Stream::new(listener.accept().await.unwrap().0)));
        let meter = Meter::new(End::Server, Instant::now());
        (Io::new(Rc::clone(&outbox), Buffer::default(), meter), outbox, peer)
    }

    async fn sent(outbox: &Outbox) {
        poll_fn(|context| outbox.poll_send(context)).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_written_waits_until_it_is_sent() {
        let (mut io, outbox, mut peer) = connection().await;
        for part in [&b"HEADERS"[..], b"DATA", b"HEADERS"] {
            io.write_all(part).await.unwrap();
            io.flush().await.unwrap();
        }
        assert_eq!(outbox.held.borrow().unread(), b"HEADERSDATAHEADERS");
        sent(&outbox).await;
        assert_eq!(outbox.held.borrow().held(), 0, "no storage is kept");
        let mut read = [0; 18];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"HEADERSDATAHEADERS");
    }

    #[tokio::test]
    async fn much_goes_at_once_and_behind_what_is_held() {
        let (mut io, outbox, mut peer) = connection().await;
        io.write_all(b"first").await.unwrap();
        io.write_all(&[b'x'; HELD_BYTES + 1]).await.unwrap();
        assert!(outbox.held.borrow().is_empty());
        io.write_all(b"last").await.unwrap();
        io.shutdown().await.unwrap();
        let mut read = Vec::new();
        peer.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [&b"first"[..], &[b'x'; HELD_BYTES + 1], b"last"].concat());
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_holds_the_writer_up() {
        let (mut io, outbox, mut peer) = connection().await;
        let mut written = 0;
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        // Far more than both sockets buffer.
        while written < 64 << 20 {
            match Pin::new(&mut io).poll_write(&mut nobody, &[b'x'; 1000]) {
                Poll::Ready(n) => written += n.unwrap(),
                Poll::Pending => break,
            }
        }
        assert!(written < 64 << 20, "it took everything");
        let held = outbox.held.borrow().held();
        assert!((1..=HELD_BYTES).contains(&held), "{held} bytes of storage");
        let reads = async {
            let mut read = 0;
            while read < written {
                read += peer.read(&mut [0; 1 << 16]).await.unwrap();
            }
        };
        tokio::join!(sent(&outbox), reads);
    }
}
