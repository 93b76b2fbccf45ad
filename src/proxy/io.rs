//! A connection as the `h2` crate wants one, with a count of its frames, and with writes of many frames.

use super::buffer::{BUFFER_BYTES, Buffer};
use super::stream::Stream;
use crate::http2::{Budget, FrameCount, PREFACE};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
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
    /// Likewise, HEADERS or DATA.
    carried: Cell<bool>,
    /// How often the `h2` crate has asked for bytes. It has used all it had whenever it does.
    reads: Cell<u64>,
    /// The answers that may end before their requests, by stream, each with the read that brought its end.
    answers: RefCell<HashMap<u32, Option<u64>>>,
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
            carried: Cell::new(false),
            reads: Cell::new(0),
            answers: RefCell::default(),
        })
    }

    /// The answer on `stream` may end before its request does, until it is forgotten.
    pub fn expect(&self, stream: u32) {
        self.answers.borrow_mut().insert(stream, None);
    }

    pub fn forget(&self, stream: u32) {
        self.answers.borrow_mut().remove(&stream);
    }

    /// Whether the `h2` crate was given all of that answer. It forgets that itself when the connection ends.
    pub fn has_ended(&self, stream: u32) -> bool {
        let answers = self.answers.borrow();
        matches!(answers.get(&stream), Some(Some(read)) if *read < self.reads.get())
    }

    fn read(&self, bytes: &[u8]) {
        self.heard.set(true);
        let mut count = self.read.borrow_mut();
        count.pass(bytes, |stream| {
            if let Some(ended) = self.answers.borrow_mut().get_mut(&stream) {
                ended.get_or_insert(self.reads.get());
            }
        });
        self.carried.set(self.carried.get() || count.carries());
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

    /// Whether HEADERS or DATA have come in since this was asked last.
    pub fn carried(&self) -> bool {
        self.carried.take()
    }
}

/// Frames on their way out. The `h2` crate would send each DATA frame on its own; here they wait until the connection's
/// task has given out what all streams have for it, and leave by one system call and in one TLS record.
pub struct Outbox {
    stream: Rc<Stream>,
    held: RefCell<Buffer>,
    end: End,
    /// The peer takes nothing any more.
    broken: Cell<bool>,
}

impl Outbox {
    pub fn new(stream: Rc<Stream>, end: End) -> Rc<Self> {
        Rc::new(Self {
            stream,
            held: RefCell::default(),
            end,
            broken: Cell::new(false),
        })
    }

    /// Whether a server has stopped taking anything: see [`Outbox::poll_send`].
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Until the socket has taken all there is. Whoever polls the connection polls this afterwards.
    ///
    /// # Errors
    /// The client has gone. A server that has gone is no error here: it may have answered before, and what it said is still
    /// to be read. What is for it is dropped, and the end of what it said is the connection's.
    pub fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.get() {
            return Poll::Ready(Ok(()));
        }
        self.or_drop(ready!(self.poll_send_held(context)), ())
    }

    /// `sent`, or as much as `dropped` where nobody takes it any more.
    fn or_drop<T>(&self, sent: io::Result<T>, dropped: T) -> Poll<io::Result<T>> {
        if sent.is_ok() || self.end == End::Server {
            return Poll::Ready(sent);
        }
        self.broken.set(true);
        *self.held.borrow_mut() = Buffer::default();
        Poll::Ready(Ok(dropped))
    }

    fn poll_send_held(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        if self.broken.get() {
            return Poll::Ready(Ok(length));
        }
        if length > HELD_BYTES {
            let written = ready!(self.stream.poll_write(context, parts, &|_| {}));
            return self.or_drop(written, length);
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
            count.pass(part, |_| {});
            left -= part.len();
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.meter.reads.set(this.meter.reads.get() + 1);
        if this.ahead.is_empty() {
            ready!(this.stream.poll_fill(context, &mut this.ahead, BUFFER_BYTES))?;
        }
        let held = this.ahead.unread();
        let held = held.get(..held.len().min(room.remaining())).unwrap_or_default();
        room.put_slice(held);
        this.meter.read(held);
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
    async fn connection(end: End) -> (Io, Rc<Outbox>, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let outbox = Outbox::new(Rc::new(Stream::new(listener.accept().await.unwrap().0)), end);
        let meter = Meter::new(end, Instant::now());
        (Io::new(Rc::clone(&outbox), Buffer::default(), meter), outbox, peer)
    }

    async fn sent(outbox: &Outbox) {
        poll_fn(|context| outbox.poll_send(context)).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_written_waits_until_it_is_sent() {
        let (mut io, outbox, mut peer) = connection(End::Server).await;
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
        let (mut io, outbox, mut peer) = connection(End::Server).await;
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
        let (mut io, outbox, mut peer) = connection(End::Server).await;
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
    /// The peer has answered and gone, without reading what was sent to it.
    async fn reset_behind_an_answer(end: End) -> (Io, Rc<Outbox>) {
        let (mut io, outbox, mut peer) = connection(end).await;
        io.write_all(b"request").await.unwrap();
        sent(&outbox).await;
        peer.write_all(b"answer").await.unwrap();
        peer.readable().await.unwrap();
        drop(peer);
        (io, outbox)
    }

    #[tokio::test]
    async fn what_a_server_said_before_it_went_is_read() {
        let (mut io, outbox) = reset_behind_an_answer(End::Client).await;
        for size in [4, HELD_BYTES + 1] {
            io.write_all(&vec![b'x'; size]).await.unwrap();
            sent(&outbox).await;
        }
        assert!(outbox.is_broken() && outbox.held.borrow().is_empty());
        let mut answer = [0; 6];
        io.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        assert!(matches!(io.read(&mut answer).await, Ok(0) | Err(_)), "and then the end");
    }

    #[tokio::test]
    async fn a_client_that_has_gone_is_an_error() {
        let (mut io, outbox) = reset_behind_an_answer(End::Server).await;
        io.write_all(b"more").await.unwrap();
        poll_fn(|context| outbox.poll_send(context)).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_answer_has_ended_once_its_last_frame_was_used() {
        let (mut io, _, mut peer) = connection(End::Client).await;
        let last = |stream| [0, 0, 1, 0, 1, 0, 0, 0, stream, b'x'];
        peer.write_all(&[last(3), last(5), last(7)].concat()).await.unwrap();
        let meter = Rc::clone(&io.meter);
        for stream in [3, 7, 9] {
            meter.expect(stream);
        }
        io.read_exact(&mut [0; 29]).await.unwrap();
        assert!(!meter.has_ended(7), "a byte is missing");
        io.read_exact(&mut [0; 1]).await.unwrap();
        assert!(meter.has_ended(3) && !meter.has_ended(7), "nobody has asked for more");
        peer.shutdown().await.unwrap();
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(meter.has_ended(7) && !meter.has_ended(5) && !meter.has_ended(9));
        meter.forget(7);
        assert!(!meter.has_ended(7));
        meter.forget(3);
        meter.forget(9);
        assert!(meter.answers.borrow().is_empty());
    }
}
