//! Bodies on their way through: read by one framing, written by another, one piece in between, so that a slow reader
//! holds back the writer.

mod frames;
mod wire;

pub use frames::{FrameReader, FrameWriter, Outgoing};
pub use wire::{Coding, Framing, WireReader, WireWriter};

use super::buffer::{Buffer, HeadBytes};
use super::deadlines::Slot;
use super::stream::Stream;
use crate::http1::{ChunkError, HeadLimits};
use bytes::Bytes;
use h2::RecvStream;
use std::cell::Cell;
use std::io;
use std::time::Duration;

/// Bytes of a body that are read only to be dropped; of a longer one the connection is closed.
const DROPPED_BYTES: u64 = 16 << 20;

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the connection was closed within the body")]
    Closed,
    #[error("reading the body: {0}")]
    Io(#[from] io::Error),
    #[error("the coding of the body is broken: {0}")]
    Malformed(#[from] ChunkError),
    #[error("the stream of the body broke HTTP/2: {0}")]
    Stream(h2::Error),
}

impl BodyError {
    /// Its sender broke the protocol, rather than leave.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::Stream(_))
    }
}

/// The body of one message, piece by piece.
pub enum BodyReader<'c> {
    Wire(WireReader<'c>),
    /// Boxed: it owns what it reads from.
    Frames(Box<FrameReader>),
    /// A body of which all is known already.
    Kept,
}

impl<'c> BodyReader<'c> {
    /// A body on a connection of its own, framed as its head says.
    pub fn wire(stream: &'c Stream, buffer: &'c mut Buffer, framing: Framing) -> Self {
        Self::Wire(WireReader::new(stream, buffer, framing))
    }

    /// A body on a stream. `none`: there is none. `limits`: of its trailers.
    pub fn frames(stream: RecvStream, none: bool, limits: HeadLimits) -> Self {
        Self::Frames(Box::new(FrameReader::new(stream, none, limits)))
    }

    /// All of the body was lent.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Wire(reader) => reader.is_done(),
            Self::Frames(reader) => reader.is_done(),
            Self::Kept => true,
        }
    }

    /// Something can be lent without waiting (as far as is known).
    pub fn has_buffered(&mut self) -> bool {
        match self {
            Self::Wire(reader) => reader.has_buffered(),
            Self::Frames(reader) => reader.has_buffered(),
            Self::Kept => false,
        }
    }

    /// The next piece, never empty; `None` after the last. Safe to drop and call again.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, BodyError> {
        match self {
            Self::Wire(reader) => reader.next().await,
            Self::Frames(reader) => reader.next().await,
            Self::Kept => Ok(None),
        }
    }

    /// The piece that was lent last.
    fn piece(&self) -> &[u8] {
        match self {
            Self::Wire(reader) => reader.piece(),
            Self::Frames(reader) => reader.piece(),
            Self::Kept => b"",
        }
    }

    /// A part of that piece, to be kept: without a copy where it is shared already.
    fn share(&self, part: std::ops::Range<usize>) -> Bytes {
        match self {
            Self::Wire(reader) => Bytes::copy_from_slice(reader.piece().get(part).unwrap_or_default()),
            Self::Frames(reader) => reader.share(part),
            Self::Kept => Bytes::new(),
        }
    }

    /// The piece that was lent is used, and who takes them is slow: what can be given back meanwhile is.
    fn slow_down(&mut self) {
        match self {
            Self::Wire(reader) => reader.slow_down(),
            Self::Frames(_) | Self::Kept => {}
        }
    }

    /// The buffer of a connection, when no piece is needed any more: what is in it is the next message.
    pub fn buffer(&mut self) -> Option<&mut Buffer> {
        match self {
            Self::Wire(reader) => Some(reader.buffer()),
            Self::Frames(_) | Self::Kept => None,
        }
    }

    /// The trailer fields that came, in wire form, after the end.
    pub fn received_trailers(&self) -> &[u8] {
        self.trailers_held().map_or(b"", |trailers| &trailers.received)
    }

    /// Those that go on.
    pub fn trailers(&self) -> &[u8] {
        self.trailers_held().map_or(b"", |trailers| &trailers.passing)
    }

    /// Says which of those that came go on, if any came: until then none do.
    pub fn choose_trailers(&mut self, passing: impl FnOnce(&[u8]) -> Vec<u8>) {
        let held = match self {
            Self::Wire(reader) => reader.trailers.as_deref_mut(),
            Self::Frames(reader) => reader.trailers.as_deref_mut(),
            Self::Kept => None,
        };
        if let Some(trailers) = held {
            trailers.passing = passing(&trailers.received);
        }
    }

    fn trailers_held(&self) -> Option<&Trailers> {
        match self {
            Self::Wire(reader) => reader.trailers.as_deref(),
            Self::Frames(reader) => reader.trailers.as_deref(),
            Self::Kept => None,
        }
    }
}

/// Trailer fields in wire form. Boxed where they are held: most bodies have none.
struct Trailers {
    received: Vec<u8>,
    /// Those that may go on, once that is known.
    passing: Vec<u8>,
}

impl Trailers {
    /// `None` where there are none.
    fn new(received: Vec<u8>) -> Option<Box<Self>> {
        let passing = Vec::new();
        (!received.is_empty()).then(|| Box::new(Self { received, passing }))
    }
}

/// Writes one message: its head, with the first piece of its body where that saves a packet.
pub enum BodyWriter<'c> {
    Wire(WireWriter<'c>),
    Frames(FrameWriter<'c>),
    /// Drops it, up to [`DROPPED_BYTES`].
    Nowhere(Accepted<'c>),
}

impl<'c> BodyWriter<'c> {
    pub fn wire(stream: &'c Stream, head: HeadBytes, coding: Coding, progress: Accepted<'c>) -> Self {
        Self::Wire(WireWriter::new(stream, head, coding, progress))
    }

    /// The same, telling of the body alone: as on a stream, without head and framing.
    pub fn wire_body(stream: &'c Stream, head: HeadBytes, coding: Coding, progress: Accepted<'c>) -> Self {
        Self::Wire(WireWriter::new(stream, head, coding, progress).of_body())
    }

    pub fn frames(outgoing: &'c Outgoing, head: HeadBytes, progress: Accepted<'c>) -> Self {
        Self::Frames(FrameWriter::new(outgoing, head, progress))
    }

    /// Writes the head, if it was not written yet.
    pub async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Wire(writer) => writer.flush().await,
            Self::Frames(writer) => writer.flush(),
            Self::Nowhere(_) => Ok(()),
        }
    }

    /// Writes the piece that `reader` lent last, and the end of the body with it if it was the last one. While the peer is
    /// slow to take it, what is left of it is held, and the reader's buffer is not.
    pub async fn pass(&mut self, reader: &mut BodyReader<'_>) -> io::Result<()> {
        match self {
            Self::Wire(writer) => writer.pass(reader).await,
            Self::Frames(writer) => writer.pass(reader).await,
            Self::Nowhere(dropped) => dropped.drop_piece(reader.piece()),
        }
    }

    /// Writes one piece (not an empty one).
    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Wire(writer) => writer.write(piece).await,
            Self::Frames(writer) => writer.write(piece).await,
            Self::Nowhere(dropped) => dropped.drop_piece(piece),
        }
    }

    /// Ends a message whose end was not written with its last piece: one without a body, or whose body turned out to have
    /// ended. Trailer fields come in wire form, and go where there is a place for them.
    pub async fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        match self {
            Self::Wire(writer) => writer.finish(trailers).await,
            Self::Frames(writer) => writer.finish(trailers),
            Self::Nowhere(_) => Ok(()),
        }
    }
}

/// Told of every byte a peer accepts.
#[derive(Clone, Copy)]
pub struct Accepted<'c> {
    /// Bytes so far; known also to who drops a write half done.
    pub bytes: &'c Cell<u64>,
    /// Whoever takes bytes makes progress, however slowly: the phase goes on for so long.
    pub slot: &'c Slot,
    pub idle: Duration,
}

impl Accepted<'_> {
    fn add(self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        self.slot.set_phase(self.idle);
    }

    /// Nobody needs this piece.
    fn drop_piece(self, piece: &[u8]) -> io::Result<()> {
        self.add(piece.len() as u64);
        if self.bytes.get() > DROPPED_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(())
    }
}
