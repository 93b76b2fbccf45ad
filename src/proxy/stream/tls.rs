//! One TLS connection on rustls' unbuffered interface: records are opened where they were read and sealed where they are
//! sent from, in the thread's pooled buffers. rustls' buffered one keeps 4 KiB more for every connection that waits (7.9 KiB
//! in all instead of 3.7) and reads 4 KiB at a time.

use crate::proxy::buffer::{BUFFER_BYTES, Buffer};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, CommonState, ServerConfig};
use std::io::{self, IoSlice, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes of plaintext in a record at most (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// What sealing adds to a record at most, in the suites that are offered: its head, an explicit nonce, a type, a tag.
const SEALING_BYTES: usize = 5 + 8 + 1 + 16;

/// Bytes of a message that has not come whole, at most: a chain of certificates is the largest that is worth taking.
const MESSAGE_BYTES: usize = 32 * 1024;

/// Sealed bytes that go along with the next write rather than by a system call of their own: the end of a handshake.
const ALONG_BYTES: usize = 4 * 1024;

/// A connection whose handshake is done.
pub struct Tls {
    tcp: TcpStream,
    session: Session,
    /// As it came: the beginning of a record, or of a message of the handshake.
    incoming: Buffer,
    /// Opened, and not fetched yet.
    plain: Buffer,
    /// Sealed, and not taken by the socket yet.
    unsent: Buffer,
    /// The peer has said that it sends no more.
    peer_finished: bool,
    /// Why nothing more can be read, told to the next who reads.
    broken: Option<io::Error>,
    /// The session has failed, and is not to be asked again.
    failed: bool,
    /// Dropping it tells the peer that this is the end.
    farewell: bool,
}

enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Session {
    fn common(&self) -> &CommonState {
        match self {
            Self::Server(session) => session,
            Self::Client(session) => session,
        }
    }
}

/// What is done with what the session has: opened bytes, sealed bytes.
struct Hands<'a, P> {
    opened: P,
    unsent: &'a mut Buffer,
    peer_finished: &'a mut bool,
    write: Write<'a>,
}

/// What is to be sealed.
enum Write<'a> {
    Nothing,
    Data {
        parts: &'a [IoSlice<'a>],
        /// Of `parts`, so many bytes are sealed.
        taken: &'a mut usize,
    },
    CloseNotify,
}

impl Tls {
    fn new(tcp: TcpStream, session: Session) -> Self {
        Self {
            tcp,
            session,
            incoming: Buffer::default(),
            plain: Buffer::default(),
            unsent: Buffer::default(),
            peer_finished: false,
            broken: None,
            failed: false,
            farewell: false,
        }
    }

    /// The server's side of a handshake; `early` was read from the client already.
    ///
    /// # Errors
    /// The client has gone, or speaks otherwise: it was told so.
    pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>, early: &[u8]) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(refused)?;
        let mut tls = Self::new(tcp, Session::Server(session));
        tls.incoming.push(early, BUFFER_BYTES);
        std::future::poll_fn(|context| tls.poll_handshake(context)).await?;
        Ok(tls)
    }

    /// The client's side of a handshake with `name`.
    ///
    /// # Errors
    /// The server has gone, speaks otherwise, or is not who it has to be: it was told so.
    pub async fn connect(tcp: TcpStream, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        let session = UnbufferedClientConnection::new(config, name).map_err(refused)?;
        let mut tls = Self::new(tcp, Session::Client(session));
        std::future::poll_fn(|context| tls.poll_handshake(context)).await?;
        Ok(tls)
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.process()?;
        loop {
            if !self.session.common().is_handshaking() {
                // A client's last flight goes along with its request.
                if matches!(self.session, Session::Server(_)) {
                    ready!(self.poll_flush(context, &|_| {}))?;
                }
                self.farewell = true;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_flush(context, &|_| {}))?;
            ready!(self.poll_receive(context))?;
        }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What was agreed on and shown in the handshake.
    pub fn common(&self) -> &CommonState {
        self.session.common()
    }

    /// Whether dropping it tells the peer that this is the end: not after an answer that was cut.
    pub fn says_farewell(&mut self, farewell: bool) {
        self.farewell = farewell;
    }

    /// See [`super::Stream::poll_fill`].
    pub fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Buffer,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        if buffer.unread().len() >= limit {
            return Poll::Ready(Ok(0));
        }
        loop {
            if !self.plain.is_empty() {
                let n = buffer.push(self.plain.unread(), limit);
                self.plain.consume(n);
                self.plain.release();
                return Poll::Ready(Ok(n));
            }
            if let Some(error) = self.broken.take() {
                return Poll::Ready(Err(error));
            }
            if self.peer_finished {
                return Poll::Ready(Ok(0));
            }
            let before = buffer.unread().len();
            let received = self.receive(poll_read(context), Some((&mut *buffer, limit)));
            match received {
                Poll::Pending => return Poll::Pending,
                // What came before the failure comes first.
                Poll::Ready(Err(error)) if buffer.unread().len() > before => self.broken = Some(error),
                Poll::Ready(received) => received?,
            }
            let n = buffer.unread().len() - before;
            if n > 0 {
                return Poll::Ready(Ok(n));
            }
        }
    }

    /// See [`super::Stream::poll_readable`].
    pub fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.plain.is_empty() && !self.peer_finished && self.broken.is_none() {
            if let Err(error) = ready!(self.poll_receive(context)) {
                self.broken = Some(error);
            }
        }
        Poll::Ready(())
    }

    /// See [`super::Stream::is_quiet`]: records that carry nothing (tickets) are noise, and taken in.
    pub fn is_quiet(&mut self) -> bool {
        self.stays_quiet(|tcp, room| nonblocking(tcp.try_read(room)))
    }

    /// See [`super::Stream::is_quiet_for_sure`].
    pub fn is_quiet_for_sure(&mut self) -> bool {
        self.stays_quiet(|tcp, room| nonblocking((&*socket2::SockRef::from(&*tcp)).read(room)))
    }

    fn stays_quiet(&mut self, mut read: impl FnMut(&mut TcpStream, &mut [u8]) -> Poll<io::Result<usize>>) -> bool {
        while self.plain.is_empty() && !self.peer_finished && self.broken.is_none() {
            match self.receive(&mut read, None) {
                Poll::Pending => return true,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.broken = Some(error),
            }
        }
        false
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.receive(poll_read(context), None)
    }

    /// Reads once from the socket and opens what is whole: into the buffer given up to its limit, then into our own.
    ///
    /// # Errors
    /// The peer has gone without a word, or broke the protocol and was told so.
    fn receive(
        &mut self,
        read: impl FnOnce(&mut TcpStream, &mut [u8]) -> Poll<io::Result<usize>>,
        mut into: Option<(&mut Buffer, usize)>,
    ) -> Poll<io::Result<()>> {
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let read = read(&mut self.tcp, self.incoming.room(BUFFER_BYTES));
        let Poll::Ready(read) = read else {
            self.incoming.settle();
            return Poll::Pending;
        };
        let n = read?;
        if n == 0 {
            let what = if self.session.common().is_handshaking() {
                "the connection was closed within the TLS handshake"
            } else {
                "the connection was closed without a TLS close_notify"
            };
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
        }
        self.incoming.filled(n);
        let Self {
            session,
            incoming,
            plain,
            unsent,
            peer_finished,
            ..
        } = self;
        let mut hands = Hands {
            opened: |mut bytes: &[u8]| {
                if let Some((buffer, limit)) = &mut into {
                    let taken = buffer.push(bytes, *limit);
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
                // What one read brings is bounded by the room it had.
                plain.push(bytes, usize::MAX);
            },
            unsent,
            peer_finished,
            write: Write::Nothing,
        };
        let processed = process(session, incoming, &mut hands);
        if let Err(error) = processed {
            self.tell_why();
            return Poll::Ready(Err(error));
        }
        if self.incoming.unread().len() > MESSAGE_BYTES {
            (self.failed, self.farewell) = (true, false);
            let what = "a message of the TLS handshake is too large";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        if self.peer_finished {
            // Whatever follows counts for nothing (RFC 8446 section 6.1).
            self.incoming = Buffer::default();
        }
        self.incoming.release();
        Poll::Ready(Ok(()))
    }

    /// Lets the session go on with what is there.
    fn process(&mut self) -> io::Result<()> {
        self.write(Write::Nothing)
    }

    fn write(&mut self, write: Write<'_>) -> io::Result<()> {
        if self.failed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let Self {
            session,
            incoming,
            plain,
            unsent,
            peer_finished,
            ..
        } = self;
        let mut hands = Hands {
            opened: |bytes: &[u8]| {
                plain.push(bytes, usize::MAX);
            },
            unsent,
            peer_finished,
            write,
        };
        let processed = process(session, incoming, &mut hands);
        if processed.is_err() {
            self.tell_why();
        }
        processed
    }

    /// After a failure: the alert that says why, if the socket takes it at once.
    fn tell_why(&mut self) {
        (self.failed, self.farewell) = (true, false);
        let Self {
            session,
            incoming,
            unsent,
            ..
        } = self;
        // Asked for no more than it has to say: a failed session would fail again on what made it fail.
        while session.common().wants_write() && encode_next(session, incoming, unsent) {}
        // Nobody waits for a peer that broke the protocol.
        let _ = self.tcp.try_write(self.unsent.unread());
        self.unsent = Buffer::default();
    }

    /// See [`super::Stream::poll_write`].
    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        accepted: &impl Fn(u64),
    ) -> Poll<io::Result<usize>> {
        if self.unsent.unread().len() > ALONG_BYTES {
            ready!(self.poll_flush(context, accepted))?;
        }
        let mut taken = 0;
        self.write(Write::Data {
            parts,
            taken: &mut taken,
        })?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        accepted(taken as u64);
        // What the socket does not take now goes before what comes next.
        if let Poll::Ready(flushed) = self.poll_flush(context, accepted) {
            flushed?;
        }
        Poll::Ready(Ok(taken))
    }

    /// See [`super::Stream::poll_flush`].
    pub fn poll_flush(&mut self, context: &mut Context<'_>, accepted: &impl Fn(u64)) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.tcp).poll_write(context, self.unsent.unread()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.unsent.consume(n),
            }
            accepted(0);
        }
        self.unsent.release();
        Poll::Ready(Ok(()))
    }

    /// See [`super::Stream::finish`].
    pub fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.farewell) {
            self.write(Write::CloseNotify)?;
        }
        ready!(self.poll_flush(context, &|_| {}))?;
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

impl Drop for Tls {
    /// As a plain connection's close is its end, a TLS connection's is `close_notify`: sent if the socket takes it at once.
    fn drop(&mut self) {
        if self.farewell && self.unsent.unread().len() <= ALONG_BYTES && self.write(Write::CloseNotify).is_ok() {
            // Nothing better can be done then than to close.
            let _ = self.tcp.try_write(self.unsent.unread());
        }
    }
}

/// Lets the session go on until it needs more bytes.
fn process<P: FnMut(&[u8])>(session: &mut Session, incoming: &mut Buffer, hands: &mut Hands<'_, P>) -> io::Result<()> {
    loop {
        let (used, rests) = match session {
            Session::Server(session) => step(session.process_tls_records(incoming.unread_mut()), hands)?,
            Session::Client(session) => step(session.process_tls_records(incoming.unread_mut()), hands)?,
        };
        incoming.consume(used);
        if rests {
            return Ok(());
        }
    }
}

/// One state of the session: the bytes of `incoming` that are used up, and whether it can go no further.
fn step<Data, P: FnMut(&[u8])>(
    UnbufferedStatus { discard, state }: UnbufferedStatus<'_, '_, Data>,
    hands: &mut Hands<'_, P>,
) -> io::Result<(usize, bool)> {
    let mut used = discard;
    let rests = match state.map_err(refused)? {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record.map_err(refused)?;
                used += record.discard;
                (hands.opened)(record.payload);
            }
            false
        }
        ConnectionState::EncodeTlsData(mut data) => {
            encode(&mut data, hands.unsent)?;
            false
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            false
        }
        ConnectionState::PeerClosed => {
            *hands.peer_finished = true;
            false
        }
        ConnectionState::WriteTraffic(mut traffic) => {
            seal(&mut traffic, &mut hands.write, hands.unsent)?;
            true
        }
        _ => true,
    };
    Ok((used, rests))
}

/// A message of the handshake, or an alert.
fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, unsent: &mut Buffer) -> io::Result<()> {
    let needed = match data.encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Err(error) => return Err(refused(error)),
    };
    let n = data.encode(unsent.room_for(needed)).map_err(refused)?;
    unsent.filled(n);
    Ok(())
}

/// Takes out what a failed session still has to say; whether there was something.
fn encode_next(session: &mut Session, incoming: &mut Buffer, unsent: &mut Buffer) -> bool {
    fn next<Data>(status: UnbufferedStatus<'_, '_, Data>, unsent: &mut Buffer) -> bool {
        match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, unsent).is_ok(),
            _ => false,
        }
    }
    match session {
        Session::Server(session) => next(session.process_tls_records(incoming.unread_mut()), unsent),
        Session::Client(session) => next(session.process_tls_records(incoming.unread_mut()), unsent),
    }
}

/// Seals what is to be written, as far as one pooled buffer holds it.
fn seal<Data>(traffic: &mut WriteTraffic<'_, Data>, write: &mut Write<'_>, unsent: &mut Buffer) -> io::Result<()> {
    match std::mem::replace(write, Write::Nothing) {
        Write::Nothing => Ok(()),
        Write::CloseNotify => {
            let n = traffic
                .queue_close_notify(unsent.room_for(RECORD_BYTES))
                .map_err(refused)?;
            unsent.filled(n);
            Ok(())
        }
        Write::Data { parts, taken } => {
            let mut left = Parts { parts, at: 0 };
            let mut gathered = Vec::new();
            while unsent.unread().len() + SEALING_BYTES < BUFFER_BYTES {
                let most = (BUFFER_BYTES - unsent.unread().len() - SEALING_BYTES).min(RECORD_BYTES);
                let piece = left.take(most, &mut gathered);
                if piece.is_empty() {
                    break;
                }
                let n = traffic
                    .encrypt(piece, unsent.room_for(piece.len() + SEALING_BYTES))
                    .map_err(refused)?;
                unsent.filled(n);
                *taken += piece.len();
            }
            Ok(())
        }
    }
}

/// What is left of the parts to be sealed.
struct Parts<'p> {
    parts: &'p [IoSlice<'p>],
    /// Of the first one, so much is taken.
    at: usize,
}

impl<'p> Parts<'p> {
    /// The next `most` bytes or fewer: where they are, or gathered from several parts, so that none of them becomes a
    /// record of its own.
    fn take<'g>(&mut self, most: usize, gathered: &'g mut Vec<u8>) -> &'g [u8]
    where
        'p: 'g,
    {
        gathered.clear();
        while let Some((first, others)) = self.parts.split_first() {
            let first = first.get(self.at..).unwrap_or_default();
            let wanted = most - gathered.len();
            if gathered.is_empty() && (first.len() >= wanted || others.iter().all(|part| part.is_empty())) {
                let taken = first.len().min(wanted);
                self.at += taken;
                return first.get(..taken).unwrap_or_default();
            }
            let taken = first.len().min(wanted);
            gathered.extend_from_slice(first.get(..taken).unwrap_or_default());
            if taken < first.len() || wanted == taken {
                self.at += taken;
                return gathered;
            }
            (self.parts, self.at) = (others, 0);
        }
        gathered
    }
}

fn poll_read<'c, 'w>(
    context: &'c mut Context<'w>,
) -> impl FnOnce(&mut TcpStream, &mut [u8]) -> Poll<io::Result<usize>> + use<'c, 'w> {
    |tcp, room| {
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(tcp).poll_read(context, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }
}

fn nonblocking(read: io::Result<usize>) -> Poll<io::Result<usize>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        read => Poll::Ready(read),
    }
}

fn refused(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
