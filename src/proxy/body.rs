//! Bodies on their way through: read by one framing, written by another, one buffer in between, so that a slow reader
//! holds back the writer.

use super::buffer::{BUFFER_BYTES, Buffer};
use super::stream::Stream;
use crate::http1::{ChunkDecoder, ChunkError, write_chunk_head};
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

    pub fn chunked() -> Self {
        Self::Chunked(Box::default())
    }
}

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the connection was closed within the body")]
    Closed,
    #[error("reading the body: {0}")]
    Io(#[from] io::Error),
    #[error("the chunked coding is broken: {0}")]
    Malformed(ChunkError),
}

/// The body of one message, piece by piece.
pub struct BodyReader<'c> {
    stream: &'c Stream,
    buffer: &'c mut Buffer,
    framing: Framing,
    /// Bytes of the buffer behind the piece that was lent last.
    lent: usize,
    trailers: Vec<u8>,
}

impl<'c> BodyReader<'c> {
    pub fn new(stream: &'c Stream, buffer: &'c mut Buffer, framing: Framing) -> Self {
        Self {
            stream,
            buffer,
            framing,
            lent: 0,
            trailers: Vec::new(),
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
            if self.stream.fill(self.buffer, BUFFER_BYTES).await? == 0 {
                if !matches!(self.framing, Framing::UntilClose) {
                    return Err(BodyError::Closed);
                }
                self.framing = Framing::Done;
            }
        };
        Ok(self.buffer.unread().get(..piece))
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
                let decoded = decode(decoder, self.buffer.unread_mut()).map_err(BodyError::Malformed)?;
                self.lent = decoded.consumed;
                if decoded.done {
                    self.trailers = decoder.trailers().to_vec();
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

    /// The buffer itself, when no piece is needed any more: what is in it is the next message.
    pub fn buffer(&mut self) -> &mut Buffer {
        self.buffer.consume(std::mem::take(&mut self.lent));
        self.buffer
    }

    /// Trailer fields in wire form, after the end of a chunked body.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }
}

impl Drop for BodyReader<'_> {
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

/// Writes one message: its head with the first piece of its body, if that is already there.
pub struct BodyWriter<'c> {
    stream: &'c Stream,
    /// The head, until it is written.
    head: &'c [u8],
    coding: Coding,
    /// Bytes the socket accepted, head and framing included.
    pub written: u64,
}

impl<'c> BodyWriter<'c> {
    pub fn new(stream: &'c Stream, head: &'c [u8], coding: Coding) -> Self {
        Self {
            stream,
            head,
            coding,
            written: 0,
        }
    }

    /// Writes the head, if it was not written yet.
    pub async fn flush(&mut self) -> io::Result<()> {
        let head = std::mem::take(&mut self.head);
        self.stream
            .write_all(&mut [IoSlice::new(head)], &mut self.written)
            .await
    }

    /// Writes one piece (not an empty one).
    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let head = std::mem::take(&mut self.head);
        match self.coding {
            Coding::Plain => {
                let mut parts = [IoSlice::new(head), IoSlice::new(piece)];
                self.stream.write_all(&mut parts, &mut self.written).await
            }
            Coding::Chunked => {
                let mut size = Vec::with_capacity(16);
                write_chunk_head(&mut size, piece.len());
                let mut parts = [
                    IoSlice::new(head),
                    IoSlice::new(&size),
                    IoSlice::new(piece),
                    IoSlice::new(b"\r\n"),
                ];
                self.stream.write_all(&mut parts, &mut self.written).await
            }
        }
    }

    /// Ends the body, with trailer fields (in wire form) where the coding has a place for them.
    pub async fn finish(&mut self, trailers: &[u8]) -> io::Result<()> {
        let head = std::mem::take(&mut self.head);
        match self.coding {
            Coding::Plain => {
                self.stream
                    .write_all(&mut [IoSlice::new(head)], &mut self.written)
                    .await
            }
            Coding::Chunked => {
                let mut parts = [
                    IoSlice::new(head),
                    IoSlice::new(b"0\r\n"),
                    IoSlice::new(trailers),
                    IoSlice::new(b"\r\n"),
                ];
                self.stream.write_all(&mut parts, &mut self.written).await
            }
        }
    }
}
