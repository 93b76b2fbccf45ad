//! A connection's byte stream: both directions usable at once from one task.

use super::buffer::Buffer;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connected socket. Borrowed only inside a poll, never across one, so that the two directions of an exchange may
/// share it.
pub struct Stream(RefCell<TcpStream>);

impl Stream {
    pub fn new(tcp: TcpStream) -> Self {
        Self(RefCell::new(tcp))
    }

    /// Reads what is there into `buffer`, taking storage only once something is. `Ok(0)`: the peer has finished
    /// sending, or `limit` unread bytes are already held.
    pub fn poll_fill(&self, context: &mut Context<'_>, buffer: &mut Buffer, limit: usize) -> Poll<io::Result<usize>> {
        let mut tcp = self.0.borrow_mut();
        ready!(tcp.poll_read_ready(context))?;
        let mut room = ReadBuf::new(buffer.room(limit));
        let read = Pin::new(&mut *tcp).poll_read(context, &mut room);
        let n = room.filled().len();
        buffer.filled(n);
        if read.is_pending() {
            buffer.release();
        }
        read.map_ok(|()| n)
    }

    /// Reads what is there, for who brings room of his own.
    pub fn poll_read(&self, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(context, room)
    }

    /// See [`Stream::poll_fill`].
    pub async fn fill(&self, buffer: &mut Buffer, limit: usize) -> io::Result<usize> {
        poll_fn(|context| self.poll_fill(context, buffer, limit)).await
    }

    /// Until there is something to read (or the peer has gone), holding no buffer.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow().poll_read_ready(context)
    }

    /// Whether nothing at all has come in, by what the reactor already knows: no system call.
    pub fn is_quiet(&self) -> bool {
        would_block(self.0.borrow().try_io(Interest::READABLE, || Ok(())))
    }

    /// Whether nothing at all has come in, asked of the kernel.
    pub fn is_quiet_for_sure(&self) -> bool {
        would_block(socket2::SockRef::from(&*self.0.borrow()).peek(&mut [MaybeUninit::uninit()]))
    }

    /// One system call: a plain send where there is one part.
    pub fn poll_write(&self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut tcp = self.0.borrow_mut();
        match parts {
            [part] => Pin::new(&mut *tcp).poll_write(context, part),
            parts => Pin::new(&mut *tcp).poll_write_vectored(context, parts),
        }
    }

    /// Writes what the socket takes of `parts` at once; the rest, copied together, is `None` when there is none.
    pub async fn write_now(
        &self,
        mut parts: &mut [IoSlice<'_>],
        accepted: impl Fn(u64),
    ) -> io::Result<Option<Vec<u8>>> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let write = |context: &mut Context<'_>| Poll::Ready(self.poll_write(context, parts));
            match poll_fn(write).await {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    accepted(n as u64);
                    IoSlice::advance_slices(&mut parts, n);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Some(joined(parts))),
            }
        }
        Ok(None)
    }

    /// Writes all of `parts`, in as few system calls as the socket takes; `accepted` is told
    /// of bytes as they are.
    pub async fn write_all(&self, mut parts: &mut [IoSlice<'_>], accepted: impl Fn(u64)) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let n = poll_fn(|context| self.poll_write(context, parts)).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            accepted(n as u64);
            IoSlice::advance_slices(&mut parts, n);
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_finish(context)).await
    }

    /// See [`Stream::finish`].
    pub fn poll_finish(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(context)
    }

    /// The close that follows will be a reset: the peer sees that what it has is not all.
    pub fn reset_on_close(&self) {
        // Failing to do so leaves an ordinary close: nothing better can be done then.
        let _ = socket2::SockRef::from(&*self.0.borrow()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Takes [`Stream::reset_on_close`] back: the peer has got all.
    pub fn close_in_order(&self) {
        let _ = socket2::SockRef::from(&*self.0.borrow()).set_linger(None);
    }

    /// The error the kernel holds for this socket, and clears: a reset that came after the last write.
    pub fn take_error(&self) -> Option<io::Error> {
        self.0.borrow().take_error().ok().flatten()
    }

    /// Both directions have ended, or the peer has reset the connection.
    pub fn is_over(&self) -> bool {
        self.0.borrow().peer_addr().is_err()
    }
}

fn would_block<T>(result: io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn joined(parts: &[IoSlice<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}
