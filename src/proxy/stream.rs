//! A connection's byte stream, plain or TLS: both directions usable at once from one task.

mod tls;

pub use tls::Tls;

use super::buffer::Buffer;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connected socket. Borrowed only inside a poll, never across one, so that the two directions of an exchange may
/// share it.
pub struct Stream(RefCell<Kind>);

enum Kind {
    Plain(TcpStream),
    /// Boxed: a plain connection that waits does not hold the room of a session.
    Tls(Box<Tls>),
}

impl Kind {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }
}

impl Stream {
    pub fn new(tcp: TcpStream) -> Self {
        Self(RefCell::new(Kind::Plain(tcp)))
    }

    /// A connection whose handshake is done.
    pub fn tls(tls: Tls) -> Self {
        Self(RefCell::new(Kind::Tls(Box::new(tls))))
    }

    /// Whether both ends have agreed on HTTP/2 in the handshake (ALPN).
    pub fn agreed_on_http2(&self) -> bool {
        match &*self.0.borrow() {
            Kind::Plain(_) => false,
            Kind::Tls(tls) => tls.common().alpn_protocol() == Some(b"h2"),
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(&*self.0.borrow(), Kind::Tls(_))
    }

    /// The socket of a plain stream, for a handshake; `None`: there was one already.
    pub fn into_plain(self) -> Option<TcpStream> {
        match self.0.into_inner() {
            Kind::Plain(tcp) => Some(tcp),
            Kind::Tls(_) => None,
        }
    }

    /// Reads what is there into `buffer`, taking storage only once something is. `Ok(0)`: the peer has finished
    /// sending, or `limit` unread bytes are already held.
    pub fn poll_fill(&self, context: &mut Context<'_>, buffer: &mut Buffer, limit: usize) -> Poll<io::Result<usize>> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => poll_fill(tcp, context, buffer, limit),
            Kind::Tls(tls) => tls.poll_fill(context, buffer, limit),
        }
    }

    /// See [`Stream::poll_fill`].
    pub async fn fill(&self, buffer: &mut Buffer, limit: usize) -> io::Result<usize> {
        poll_fn(|context| self.poll_fill(context, buffer, limit)).await
    }

    /// Until there is something to read (or the peer has gone), holding no buffer.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => tcp.poll_read_ready(context).map(drop),
            Kind::Tls(tls) => tls.poll_readable(context),
        }
    }

    /// Whether nothing at all has come in, by what the reactor already knows: no system call.
    pub fn is_quiet(&self) -> bool {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => would_block(tcp.try_io(Interest::READABLE, || Ok(()))),
            Kind::Tls(tls) => tls.is_quiet(),
        }
    }

    /// Whether nothing at all has come in, asked of the kernel.
    pub fn is_quiet_for_sure(&self) -> bool {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => would_block(socket2::SockRef::from(&*tcp).peek(&mut [MaybeUninit::uninit()])),
            Kind::Tls(tls) => tls.is_quiet_for_sure(),
        }
    }

    /// How many bytes of `parts` were taken, which `accepted` is told. One system call on a plain connection (a plain send
    /// where there is one part). With TLS they are sealed, and sent as far as the socket takes them: [`Stream::poll_flush`].
    pub fn poll_write(
        &self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        accepted: &impl Fn(u64),
    ) -> Poll<io::Result<usize>> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => {
                let written = match parts {
                    [part] => Pin::new(tcp).poll_write(context, part),
                    parts => Pin::new(tcp).poll_write_vectored(context, parts),
                };
                let n = ready!(written)?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                accepted(n as u64);
                Poll::Ready(Ok(n))
            }
            Kind::Tls(tls) => tls.poll_write(context, parts, accepted),
        }
    }

    /// Until the socket has taken all that [`Stream::poll_write`] took; `accepted` hears of each step.
    pub fn poll_flush(&self, context: &mut Context<'_>, accepted: &impl Fn(u64)) -> Poll<io::Result<()>> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(_) => Poll::Ready(Ok(())),
            Kind::Tls(tls) => tls.poll_flush(context, accepted),
        }
    }

    /// Writes what the socket takes of `parts` at once; the rest, copied together, is `None` when there is none. An empty
    /// rest is one that only [`Stream::write_all`] can get out.
    pub async fn write_now(
        &self,
        mut parts: &mut [IoSlice<'_>],
        accepted: impl Fn(u64),
    ) -> io::Result<Option<Vec<u8>>> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let write = |context: &mut Context<'_>| Poll::Ready(self.poll_write(context, parts, &accepted));
            match poll_fn(write).await {
                Poll::Ready(n) => IoSlice::advance_slices(&mut parts, n?),
                Poll::Pending => return Ok(Some(joined(parts))),
            }
        }
        match poll_fn(|context| Poll::Ready(self.poll_flush(context, &accepted))).await {
            Poll::Ready(flushed) => flushed.map(|()| None),
            Poll::Pending => Ok(Some(Vec::new())),
        }
    }

    /// Writes all of `parts`, in as few system calls as the socket takes; `accepted` is told
    /// of bytes as they are.
    pub async fn write_all(&self, mut parts: &mut [IoSlice<'_>], accepted: impl Fn(u64)) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let n = poll_fn(|context| self.poll_write(context, parts, &accepted)).await?;
            IoSlice::advance_slices(&mut parts, n);
        }
        poll_fn(|context| self.poll_flush(context, &accepted)).await
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_finish(context)).await
    }

    /// See [`Stream::finish`].
    pub fn poll_finish(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Kind::Tls(tls) => tls.poll_finish(context),
        }
    }

    /// The close that follows will be a reset: the peer sees that what it has is not all.
    pub fn reset_on_close(&self) {
        // Failing to do so leaves an ordinary close: nothing better can be done then.
        let _ = socket2::SockRef::from(self.0.borrow().tcp()).set_linger(Some(std::time::Duration::ZERO));
        if let Kind::Tls(tls) = &mut *self.0.borrow_mut() {
            tls.says_farewell(false);
        }
    }

    /// Takes [`Stream::reset_on_close`] back: the peer has got all.
    pub fn close_in_order(&self) {
        let _ = socket2::SockRef::from(self.0.borrow().tcp()).set_linger(None);
        if let Kind::Tls(tls) = &mut *self.0.borrow_mut() {
            tls.says_farewell(true);
        }
    }

    /// The error the kernel holds for this socket, and clears: a reset that came after the last write.
    pub fn take_error(&self) -> Option<io::Error> {
        self.0.borrow().tcp().take_error().ok().flatten()
    }

    /// Our own address of it.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.borrow().tcp().local_addr()
    }

    /// Both directions have ended, or the peer has reset the connection.
    pub fn is_over(&self) -> bool {
        self.0.borrow().tcp().peer_addr().is_err()
    }
}

fn poll_fill(
    tcp: &mut TcpStream,
    context: &mut Context<'_>,
    buffer: &mut Buffer,
    limit: usize,
) -> Poll<io::Result<usize>> {
    ready!(tcp.poll_read_ready(context))?;
    let mut room = ReadBuf::new(buffer.room(limit));
    let read = Pin::new(tcp).poll_read(context, &mut room);
    let n = room.filled().len();
    buffer.filled(n);
    if read.is_pending() {
        buffer.release();
    }
    read.map_ok(|()| n)
}

fn would_block<T>(result: io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn joined(parts: &[IoSlice<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}
