//! Bodies as HTTP/1.1 frames them: by length, in chunks, or until the connection closes.

use super::{Accepted, BodyError, BodyReader, Trailers};
use crate::http1::{CHUNK_END, ChunkDecoder, ChunkError, HeadLimits, write_chunk_head, write_last_chunk};
use crate::proxy::buffer::{BUFFER_BYTES, Buffer, HeadBytes, SLOW_READ_BYTES};
use crate::proxy::stream::Stream;
use std::cell::Cell;
use std::io::{self, IoSlice};

/// How the length of a body that is read is known.
pub enum Framing {
    /// Bytes still to come.
    Length(u64),
    /// Boxed: the rarer case, and the larger.
    Chunked(Box<ChunkDecoder>),
    UntilClose,
    /// All of it was read.
    Done,
}

impl Framing {
    pub fn length(bytes: u64) -> Self {
        if bytes == 0 { Self::Done } else { Self::Length(bytes) }
    }

    /// `limits`: of the trailers.
    pub fn chunked(limits: HeadLimits) -> Self {
        Self::Chunked(Box::new(ChunkDecoder::new(limits)))
    }
}

/// The body of one message, piece by piece: see [`BodyReader`].
pub struct WireReader<'c> {
    stream: &'c Stream,
    buffer: &'c mut Buffer,
    framing: Framing,
    /// Bytes of the buffer behind the piece that was lent last.
    lent: usize,
    /// Bytes of that piece.
    piece: usize,
    /// Bytes read at once.
    read_bytes: usize,
    pub(super) trailers: Option<Box<Trailers>>,
}

impl<'c> WireReader<'c> {
    pub fn new(stream: &'c Stream, buffer: &'c mut Buffer, framing: Framing) -> Self {
        Self {
            stream,
            buffer,
            framing,
            lent: 0,
            piece: 0,
            read_bytes: BUFFER_BYTES,
            trailers: None,
        }
    }

    /// All of the body was lent.
    pub fn is_done(&self) -> bool {
        matches!(self.framing, Framing::Done)
    }

    /// Something can be lent without waiting (as far as is known).
    pub fn has_buffered(&self) -> bool {
        self.buffer.unread().len() > self.lent
    }

    /// The next piece, never empty; `None` after the last. Safe to drop and call again.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, BodyError> {
        self.buffer.consume(std::mem::take(&mut self.lent));
        let piece = loop {
            if let Some(piece) = self.buffered()? {
                break piece;
            }
            if self.is_done() {
                self.buffer.release();
                return Ok(None);
            }
            self.buffer.release();
            if self.stream.fill(self.buffer, self.read_bytes).await? == 0 {
                if !matches!(self.framing, Framing::UntilClose) {
                    return Err(BodyError::Closed);
                }
                self.framing = Framing::Done;
            }
        };
        self.piece = piece;
        Ok(Some(self.piece()))
    }

    /// The piece that was lent last.
    pub(super) fn piece(&self) -> &[u8] {
        self.buffer.unread().get(..self.piece).unwrap_or_default()
    }

    /// The length of the piece at the front of the buffer, decoded; `None`: nothing there yet.
    fn buffered(&mut self) -> Result<Option<usize>, BodyError> {
        let held = self.buffer.unread().len();
        let piece = match &mut self.framing {
            Framing::Done => return Ok(None),
            Framing::UntilClose => {
                self.lent = held;
                held
            }
            Framing::Length(left) => {
                let piece = usize::try_from(*left).map_or(held, |left| left.min(held));
                *left -= piece as u64;
                self.lent = piece;
                if *left == 0 {
                    self.framing = Framing::Done;
                }
                piece
            }
            Framing::Chunked(decoder) => {
                let decoded = decode(decoder, self.buffer.unread_mut())?;
                self.lent = decoded.consumed;
                if decoded.done {
                    self.trailers = Trailers::new(decoder.trailers().to_vec());
                    self.framing = Framing::Done;
                }
                decoded.payload
            }
        };
        if piece == 0 {
            self.buffer.consume(std::mem::take(&mut self.lent));
            return Ok(None);
        }
        Ok(Some(piece))
    }

    /// The piece that was lent is used, and who takes them is slow: the buffer goes back meanwhile, and less is read at
    /// once from now on.
    pub(super) fn slow_down(&mut self) {
        self.buffer().release();
        self.read_bytes = SLOW_READ_BYTES;
    }

    /// The buffer itself, when no piece is needed any more: what is in it is the next message.
    pub fn buffer(&mut self) -> &mut Buffer {
        self.buffer.consume(std::mem::take(&mut self.lent));
        self.buffer
    }
}

impl Drop for WireReader<'_> {
    /// A piece that was lent is used: what follows it in the buffer is the next message.
    fn drop(&mut self) {
        self.buffer.consume(self.lent);
    }
}

struct Decoded {
    consumed: usize,
    /// Bytes of payload, moved to the front.
    payload: usize,
    done: bool,
}

/// Decodes all that is there, moving the payload of many chunks together: one piece to write instead of many.
fn decode(decoder: &mut ChunkDecoder, bytes: &mut [u8]) -> Result<Decoded, ChunkError> {
    let mut decoded = Decoded {
        consumed: 0,
        payload: 0,
        done: false,
    };
    while !decoded.done {
        let rest = bytes.get(decoded.consumed..).unwrap_or_default();
        let step = decoder.step(rest)?;
        if step.consumed == 0 && !step.done {
            break;
        }
        let from = decoded.consumed + step.data.start..decoded.consumed + step.data.end;
        let length = from.len();
        bytes.copy_within(from, decoded.payload);
        decoded.payload += length;
        decoded.consumed += step.consumed;
        decoded.done = step.done;
    }
    Ok(decoded)
}

/// How the length of a body that is written is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is: by `Content-Length`, by the close of the connection, or there is none.
    Plain,
    Chunked,
}

/// A piece up to this long is copied behind what goes before it: one plain send costs less than a gathered one.
const COPIED_BYTES: usize = 4 * 1024;

/// Writes one message: its head with the first piece of its body, if that is already there. See [`super::BodyWriter`].
pub struct WireWriter<'c> {
    stream: &'c Stream,
    /// The head, until it is written.
    head: HeadBytes,
    coding: Coding,
    /// Whether `progress` is told of the body alone.
    of_body: bool,
    /// Of what is being written: bytes to come before those of the body, and those. (A piece is a buffer, or a frame.)
    ahead: Cell<(u32, u32)>,
    progress: Accepted<'c>,
}

impl<'c> WireWriter<'c> {
    pub fn new(stream: &'c Stream, head: HeadBytes, coding: Coding, progress: Accepted<'c>) -> Self {
        Self {
            stream,
            head,
            coding,
            of_body: false,
            ahead: Cell::default(),
            progress,
        }
    }

    pub(super) fn of_body(self) -> Self {
        Self { of_body: true, ..self }
    }

    /// So many bytes are to be written, those of the body behind others.
    fn begin(&self, others: usize, body: usize) {
        let bound = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.ahead.set((bound(others), bound(body)));
    }

    /// The peer has taken so much more.
    fn took(&self, bytes: u64) {
        let (others, body) = self.ahead.get();
        let taken = u32::try_from(bytes).unwrap_or(u32::MAX);
        let of_others = taken.min(others);
        let of_body = (taken - of_others).min(body);
        self.ahead.set((others - of_others, body - of_body));
        self.progress.add(if self.of_body { u64::from(of_body) } else { bytes });
    }

    /// Writes the head, if it was not written yet.
    pub async fn flush(&mut self) -> io::Result<()> {
        let head = std::mem::take(&mut self.head);
        self.begin(head.len(), 0);
        self.stream
            .write_all(&mut [IoSlice::new(&head)], |bytes| self.took(bytes))
            .await
    }

    /// Writes the piece that `reader` lent last, and the end of the body with it if it was the last one. While the peer is
    /// slow to take it, what is left of it is held, and the reader's buffer is not.
    pub async fn pass(&mut self, reader: &mut BodyReader<'_>) -> io::Result<()> {
        let end = reader.is_done().then(|| reader.trailers());
        if let Some(rest) = self.write_now(reader.piece(), end).await? {
            reader.slow_down();
            self.stream
                .write_all(&mut [IoSlice::new(&rest)], |bytes| self.took(bytes))
                .await?;
        }
        Ok(())
    }

    /// Writes one piece (not an empty one).
    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if let Some(rest) = self.write_now(piece, None).await? {
            self.stream
                .write_all(&mut [IoSlice::new(&rest)], |bytes| self.took(bytes))
                .await?;
        }
        Ok(())
    }

    /// What the peer takes at once of a piece, and of the end of the body if `end` gives its trailers; returns the rest.
    async fn write_now(&mut self, piece: &[u8], end: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut before = std::mem::take(&mut self.head);
        let mut after = HeadBytes::default();
        if self.coding == Coding::Chunked {
            write_chunk_head(&mut before, piece.len());
            after.extend_from_slice(CHUNK_END);
            if let Some(trailers) = end {
                write_last_chunk(&mut after, trailers);
            }
        }
        self.begin(before.len(), piece.len());
        if piece.len() > COPIED_BYTES {
            let mut parts = [IoSlice::new(&before), IoSlice::new(piece), IoSlice::new(&after)];
            return self.stream.write_now(&mut parts, |bytes| self.took(bytes)).await;
        }
        if before.is_empty() {
            return self
                .stream
                .write_now(&mut [IoSlice::new(piece)], |bytes| self.took(bytes))
                .await;
        }
        before.extend_from_slice(piece);
        before.extend_from_slice(&after);
        self.stream
            .write_now(&mut [IoSlice::new(&before)], |bytes| self.took(bytes))
            .await
    }

    /// Ends a message whose end was not written with its last piece: one without a body, or whose body turned out to have
    /// ended. Trailer fields come in wire form, and go where the coding has a place for them.
    pub async fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        if self.coding == Coding::Chunked {
            write_last_chunk(&mut self.head, trailers);
        }
        self.flush().await
    }
}
