//! Bodies in DATA frames: one stream of a connection that others share.

use super::{Accepted, BodyError, BodyReader, Trailers};
use crate::http1::HeadLimits;
use crate::http2;
use crate::proxy::buffer::HeadBytes;
use crate::proxy::io::Meter;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// The body of one message, piece by piece: see [`BodyReader`]. The sender may send more only once a piece was used.
pub struct FrameReader {
    stream: RecvStream,
    /// Lent last.
    piece: Bytes,
    /// Taken before it was asked for.
    ahead: Option<Bytes>,
    done: bool,
    pub(super) trailers: Option<Box<Trailers>>,
    /// Of them.
    limits: HeadLimits,
    /// Of an answer: knows whether that has ended.
    meter: Option<Rc<Meter>>,
}

impl FrameReader {
    /// `none`: there is nothing to read.
    pub(super) fn new(stream: RecvStream, none: bool, limits: HeadLimits) -> Self {
        Self {
            done: none || stream.is_end_stream(),
            stream,
            piece: Bytes::new(),
            ahead: None,
            trailers: None,
            limits,
            meter: None,
        }
    }

    /// The body of an answer that comes in on a connection of which `meter` knows.
    pub fn answer(stream: RecvStream, meter: &Rc<Meter>, limits: HeadLimits) -> Self {
        let mut reader = Self {
            meter: Some(Rc::clone(meter)),
            ..Self::new(stream, false, limits)
        };
        if reader.has_ended() {
            // There may be none: also then the connection's end may hide that.
            reader.has_buffered();
        }
        reader
    }

    /// All of an answer has come, although its request may not be whole.
    fn has_ended(&self) -> bool {
        let stream = self.stream.stream_id().as_u32();
        self.meter.as_ref().is_some_and(|meter| meter.has_ended(stream))
    }

    /// Whether `error`, behind all that came, is no more than the end of a connection from which all had come.
    fn is_end(&self, error: &h2::Error) -> bool {
        !error.is_reset() && self.has_ended()
    }

    /// There is nothing to read, whatever comes.
    pub fn leave(&mut self) {
        self.done = true;
        self.ahead = None;
    }

    pub fn is_done(&self) -> bool {
        self.done && self.ahead.is_none()
    }

    pub fn has_buffered(&mut self) -> bool {
        if self.ahead.is_none() && !self.done {
            // Who waits for more asks again, with a waker of its own.
            let mut nobody = Context::from_waker(Waker::noop());
            match self.stream.poll_data(&mut nobody) {
                Poll::Ready(Some(Ok(data))) => {
                    self.ahead = Some(data).filter(|data| !data.is_empty());
                    self.done = self.stream.is_end_stream();
                }
                Poll::Ready(Some(Err(error))) => self.done = self.is_end(&error),
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        self.ahead.is_some()
    }

    pub async fn next(&mut self) -> Result<Option<&[u8]>, BodyError> {
        let used = std::mem::take(&mut self.piece).len();
        self.release(used);
        if let Some(ahead) = self.ahead.take() {
            self.piece = ahead;
            return Ok(Some(&self.piece));
        }
        while !self.done {
            match poll_fn(|context| self.stream.poll_data(context)).await {
                Some(Ok(data)) => {
                    self.done = self.stream.is_end_stream();
                    if !data.is_empty() {
                        self.piece = data;
                        return Ok(Some(&self.piece));
                    }
                }
                Some(Err(error)) if self.is_end(&error) => self.done = true,
                Some(Err(error)) => return Err(broken(error)),
                None => {
                    let fields = poll_fn(|context| self.stream.poll_trailers(context)).await;
                    if let Some(fields) = fields.map_err(broken)? {
                        self.trailers = Trailers::new(http2::read_trailers(&fields, &self.limits)?);
                    }
                    self.done = true;
                }
            }
        }
        Ok(None)
    }

    /// The sender may send so much more.
    fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            // Fails when the stream is closed: nobody needs room any more.
            let _ = self.stream.flow_control().release_capacity(bytes);
        }
    }

    pub(super) fn piece(&self) -> &[u8] {
        &self.piece
    }

    pub(super) fn share(&self, part: Range<usize>) -> Bytes {
        let part = part.start.min(self.piece.len())..part.end.min(self.piece.len());
        self.piece.slice(part)
    }
}

fn broken(error: h2::Error) -> BodyError {
    if error.is_library() {
        BodyError::Stream(error)
    } else if error.is_reset() {
        BodyError::Closed
    } else {
        BodyError::Io(io_error(error))
    }
}

fn io_error(error: h2::Error) -> io::Error {
    match error.get_io() {
        Some(cause) => io::Error::new(cause.kind(), error),
        None => io::Error::new(io::ErrorKind::BrokenPipe, error),
    }
}

/// What goes out on one stream. Borrowed only inside a poll, never across one, so that who writes and who watches may
/// share it. Dropped before its end, it resets the stream: `CANCEL`, or `NO_ERROR` where an answer was whole.
pub struct Outgoing {
    half: RefCell<Half>,
    /// Nothing may follow.
    ended: Cell<bool>,
}

enum Half {
    /// An answer that has not begun.
    Answer(SendResponse<Bytes>),
    Open(SendStream<Bytes>),
}

impl Outgoing {
    /// The answer to a request.
    pub fn answer(respond: SendResponse<Bytes>) -> Self {
        Self {
            half: RefCell::new(Half::Answer(respond)),
            ended: Cell::new(false),
        }
    }

    /// What follows the head of a request. `ended`: nothing does.
    pub fn after_request(stream: SendStream<Bytes>, ended: bool) -> Self {
        Self {
            half: RefCell::new(Half::Open(stream)),
            ended: Cell::new(ended),
        }
    }

    /// An interim answer, from its text.
    ///
    /// # Errors
    /// The peer has gone.
    pub fn interim(&self, text: &[u8]) -> io::Result<()> {
        let head = http2::answer(text).map_err(io::Error::other)?;
        match &mut *self.half.borrow_mut() {
            Half::Answer(respond) => respond.send_informational(head).map_err(io_error),
            Half::Open(_) => Ok(()),
        }
    }

    /// Resolves when the peer has reset the stream, or the connection is gone.
    pub async fn gone(&self) {
        poll_fn(|context| match &mut *self.half.borrow_mut() {
            Half::Answer(respond) => respond.poll_reset(context).map(drop),
            Half::Open(stream) => stream.poll_reset(context).map(drop),
        })
        .await;
    }

    /// Whether the peer has reset the stream, or the protocol was broken on it, before its end.
    pub fn was_reset(&self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let gone = std::pin::pin!(self.gone()).poll(&mut nobody);
        !self.ended.get() && gone.is_ready()
    }

    /// Nothing may follow.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Ends the stream before its time: the peer sees that what it has is not all.
    pub fn reset(&self, reason: Reason) {
        self.ended.set(true);
        match &mut *self.half.borrow_mut() {
            Half::Answer(respond) => respond.send_reset(reason),
            Half::Open(stream) => stream.send_reset(reason),
        }
    }

    /// The head of the answer, from its text. `end`: nothing follows.
    fn head(&self, text: &[u8], end: bool) -> io::Result<()> {
        let mut head = http2::answer(text).map_err(io::Error::other)?;
        if end {
            http2::grpc::leave_length_out(head.headers_mut());
        }
        let mut half = self.half.borrow_mut();
        let Half::Answer(respond) = &mut *half else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        *half = Half::Open(respond.send_response(head, end).map_err(io_error)?);
        self.ended.set(end);
        Ok(())
    }

    /// How much of `wanted` bytes the peer takes, at least one.
    fn poll_room(&self, context: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let mut half = self.half.borrow_mut();
        let Half::Open(stream) = &mut *half else {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        };
        stream.reserve_capacity(wanted);
        let mut room = stream.capacity();
        while room == 0 {
            room = match ready!(stream.poll_capacity(context)) {
                Some(room) => room.map_err(io_error)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        Poll::Ready(Ok(room.min(wanted)))
    }

    fn data(&self, data: Bytes, end: bool) -> io::Result<()> {
        self.open(|stream| stream.send_data(data, end))?;
        self.ended.set(end);
        Ok(())
    }

    /// Ends the message, with trailer fields in wire form if there are any.
    ///
    /// # Errors
    /// The head was not sent yet, or the peer has gone.
    pub fn end(&self, trailers: &[u8]) -> io::Result<()> {
        if self.ended.get() {
            return Ok(());
        }
        if trailers.is_empty() {
            return self.data(Bytes::new(), true);
        }
        let fields = http2::trailers(trailers).map_err(io::Error::other)?;
        self.open(|stream| stream.send_trailers(fields))?;
        self.ended.set(true);
        Ok(())
    }

    fn open(&self, send: impl FnOnce(&mut SendStream<Bytes>) -> Result<(), h2::Error>) -> io::Result<()> {
        match &mut *self.half.borrow_mut() {
            Half::Answer(_) => Err(io::ErrorKind::InvalidInput.into()),
            Half::Open(stream) => send(stream).map_err(io_error),
        }
    }
}

/// Writes one message: see [`super::BodyWriter`]. Its frames go out with those of other streams, as soon as the connection
/// takes them; what a connection holds unsent is bounded.
pub struct FrameWriter<'c> {
    outgoing: &'c Outgoing,
    /// The head of an answer, until it is written.
    head: HeadBytes,
    progress: Accepted<'c>,
}

impl<'c> FrameWriter<'c> {
    pub fn new(outgoing: &'c Outgoing, head: HeadBytes, progress: Accepted<'c>) -> Self {
        Self {
            outgoing,
            head,
            progress,
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.write_head(false)
    }

    fn write_head(&mut self, end: bool) -> io::Result<()> {
        if !self.head.is_empty() {
            self.outgoing.head(&std::mem::take(&mut self.head), end)?;
            self.progress.add(0);
        }
        Ok(())
    }

    pub async fn pass(&mut self, reader: &mut BodyReader<'_>) -> io::Result<()> {
        self.flush()?;
        let (length, done) = (reader.piece().len(), reader.is_done());
        let end = done && reader.trailers().is_empty();
        self.pieces(length, end, |part| reader.share(part)).await?;
        if done {
            self.outgoing.end(reader.trailers())
        } else {
            Ok(())
        }
    }

    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.flush()?;
        let part = |part: Range<usize>| Bytes::copy_from_slice(piece.get(part).unwrap_or_default());
        self.pieces(piece.len(), false, part).await
    }

    /// Passes on so many bytes, as the peer makes room for them.
    async fn pieces(&self, length: usize, end: bool, part: impl Fn(Range<usize>) -> Bytes) -> io::Result<()> {
        let mut at = 0;
        while at < length {
            let room = poll_fn(|context| self.outgoing.poll_room(context, length - at)).await?;
            let next = at + room;
            self.outgoing.data(part(at..next), end && next == length)?;
            self.progress.add(room as u64);
            at = next;
        }
        Ok(())
    }

    pub fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        self.write_head(trailers.is_empty())?;
        self.outgoing.end(trailers)
    }
}
