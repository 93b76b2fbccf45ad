//! The chunked transfer coding (RFC 9112 section 7.1).

use super::HeadLimits;
use super::is_token_byte;
use super::trailer::Trailers;
use std::ops::Range;

/// Most hexadecimal digits of a chunk size, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;
/// Largest chunk: what a signed 64-bit parser behind us reads the same way.
const MAX_SIZE: u64 = i64::MAX as u64;
/// Most bytes of one chunk's extensions.
const MAX_EXTENSION: u16 = 1024;
/// Most bytes a body may waste on chunk lines beyond 16 a chunk and twice its data: bounds the work that empty talk
/// can cause (as Go's net/http does since CVE-2023-39326), and leaves room for a signature on every large chunk.
const MAX_EXCESS: u64 = 16 << 10;

/// What is wrong with a chunked body. The message cannot be completed; its connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChunkError {
    #[error("a chunk size is not 1 to 16 hexadecimal digits")]
    Size,
    #[error("a chunk is larger than 2^63 - 1")]
    SizeOverflow,
    #[error("a chunk extension is malformed")]
    Extension,
    #[error("a chunk's extensions are too long")]
    ExtensionTooLong,
    #[error("too many bytes of chunk lines for so little data")]
    Excess,
    #[error("a line of the chunked body does not end in CRLF")]
    LineEnd,
    #[error("chunk data is not followed by CRLF")]
    DataEnd,
    #[error("a trailer field is malformed")]
    Trailer,
    #[error("the trailers are larger than limits.max_head, or more than 100 fields")]
    TrailersTooLarge,
}

/// What one step found in its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkStep {
    /// Bytes of the input that are dealt with; above 0 unless the input was empty or the body was complete.
    pub consumed: usize,
    /// Payload inside the input, may be empty. Ends at or before `consumed`.
    pub data: Range<usize>,
    /// The body is complete; what follows `consumed` is not part of it.
    pub done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before or inside the size.
    Size {
        digits: u8,
    },
    /// White space after the size: only an extension may follow.
    SpaceBeforeExtension,
    /// After `;`, before the name.
    BeforeName,
    Name,
    /// White space after a name.
    AfterName,
    /// After `=`, before the value.
    BeforeValue,
    Value,
    Quoted,
    /// After a backslash in a quoted string.
    Escaped,
    /// After a quoted string.
    AfterQuoted,
    /// After white space that follows a value.
    AfterValue,
    /// The CR of the chunk line was read.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// Reads a chunked body, however it is split. Extensions are checked and dropped (RFC 9112 section 7.1.1); trailers are
/// collected. Holds no buffer before the first trailer.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    /// Of the chunk being read: its size, then what is left of it.
    remaining: u64,
    /// Bytes of the current chunk line, bounded by the digits and [`MAX_EXTENSION`].
    line: u16,
    excess: u64,
    trailers: Trailers,
}

impl ChunkDecoder {
    /// `limits`: of the trailers, which are as a head.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            state: State::Size { digits: 0 },
            remaining: 0,
            line: 0,
            excess: 0,
            trailers: Trailers::new(limits),
        }
    }

    /// Whether the last chunk and the trailers were read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer fields, each `name: value CRLF`, complete once the body is done; often empty. Which of them go on is for
    /// [`super::request_trailers`] and [`super::response_trailers`] to say.
    pub fn trailers(&self) -> &[u8] {
        self.trailers.wire()
    }

    /// Reads on, up to the end of the next piece of payload or of the input. Call again while input is left and the body
    /// is not done. After an error the decoder must not be used.
    pub fn step(&mut self, input: &[u8]) -> Result<ChunkStep, ChunkError> {
        let mut at = 0;
        while self.state != State::Done {
            let Some(rest) = input.get(at..).filter(|r| !r.is_empty()) else {
                break;
            };
            match self.state {
                State::Data => {
                    let len = usize::try_from(self.remaining).map_or(rest.len(), |r| r.min(rest.len()));
                    self.remaining -= len as u64;
                    let data = at..at + len;
                    let consumed = data.end + self.skip_data_end(input.get(data.end..).unwrap_or_default())?;
                    return Ok(ChunkStep {
                        consumed,
                        data,
                        done: false,
                    });
                }
                State::Trailers => {
                    let (consumed, done) = self.trailers.read(rest)?;
                    at += consumed;
                    if done {
                        self.state = State::Done;
                    }
                }
                _ => {
                    let byte = rest.first().copied().unwrap_or_default();
                    self.state = self.next(byte)?;
                    at += 1;
                }
            }
        }
        Ok(ChunkStep {
            consumed: at,
            data: at..at,
            done: self.state == State::Done,
        })
    }

    /// After a piece of payload: moves on when the chunk is complete, past its CRLF when that is there too.
    fn skip_data_end(&mut self, rest: &[u8]) -> Result<usize, ChunkError> {
        if self.remaining > 0 {
            return Ok(0);
        }
        self.state = State::DataCr;
        let mut skipped = 0;
        for &byte in rest.iter().take(2) {
            self.state = self.next(byte)?;
            skipped += 1;
        }
        Ok(skipped)
    }

    /// The state after one byte that is neither payload nor trailer.
    fn next(&mut self, byte: u8) -> Result<State, ChunkError> {
        match self.state {
            State::Size { digits } => return self.size(digits, byte),
            State::SizeLf if byte == b'\n' => return self.chunk_begins(),
            State::DataCr if byte == b'\r' => return Ok(State::DataLf),
            State::DataLf if byte == b'\n' => {
                self.line = 0;
                return Ok(State::Size { digits: 0 });
            }
            State::SizeLf => return Err(ChunkError::LineEnd),
            State::DataCr | State::DataLf => return Err(ChunkError::DataEnd),
            _ => {}
        }
        self.line += 1;
        if self.line > MAX_EXTENSION + u16::from(MAX_SIZE_DIGITS) {
            return Err(ChunkError::ExtensionTooLong);
        }
        extension(self.state, byte)
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<State, ChunkError> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return match byte {
                _ if digits == 0 => Err(ChunkError::Size),
                b'\r' => Ok(State::SizeLf),
                b';' => Ok(State::BeforeName),
                b' ' | b'\t' => Ok(State::SpaceBeforeExtension),
                b'\n' => Err(ChunkError::LineEnd),
                _ => Err(ChunkError::Size),
            };
        };
        if digits == MAX_SIZE_DIGITS {
            return Err(ChunkError::Size);
        }
        self.line += 1;
        self.remaining = if digits == 0 { 0 } else { self.remaining << 4 } | u64::from(digit);
        if self.remaining > MAX_SIZE {
            return Err(ChunkError::SizeOverflow);
        }
        Ok(State::Size { digits: digits + 1 })
    }

    /// The chunk line is complete.
    fn chunk_begins(&mut self) -> Result<State, ChunkError> {
        if self.remaining == 0 {
            return Ok(State::Trailers);
        }
        let allowance = self.remaining.saturating_mul(2).saturating_add(16);
        self.excess = (self.excess + u64::from(self.line)).saturating_sub(allowance);
        if self.excess > MAX_EXCESS {
            return Err(ChunkError::Excess);
        }
        Ok(State::Data)
    }
}

/// One byte of `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`, or the CR that ends it.
fn extension(state: State, byte: u8) -> Result<State, ChunkError> {
    let space = matches!(byte, b' ' | b'\t');
    let token = is_token_byte(byte);
    Ok(match state {
        State::SpaceBeforeExtension if space => state,
        State::SpaceBeforeExtension if byte == b';' => State::BeforeName,
        State::BeforeName if space => state,
        State::BeforeName | State::Name if token => State::Name,
        State::Name | State::AfterName if space => State::AfterName,
        State::Name | State::AfterName if byte == b'=' => State::BeforeValue,
        State::BeforeValue if space => state,
        State::BeforeValue if byte == b'"' => State::Quoted,
        State::BeforeValue | State::Value if token => State::Value,
        State::Quoted if byte == b'"' => State::AfterQuoted,
        State::Quoted if byte == b'\\' => State::Escaped,
        State::Quoted | State::Escaped if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => State::Quoted,
        State::Value | State::AfterQuoted | State::AfterValue if space => State::AfterValue,
        State::Name | State::AfterName | State::Value | State::AfterQuoted | State::AfterValue if byte == b';' => {
            State::BeforeName
        }
        // White space before CR is not in the grammar, and parsers differ on it.
        State::Name | State::Value | State::AfterQuoted if byte == b'\r' => State::SizeLf,
        _ if byte == b'\n' => return Err(ChunkError::LineEnd),
        _ => return Err(ChunkError::Extension),
    })
}

/// What ends the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Writes the line before `len` bytes of data; write [`CHUNK_END`] after them. Writes nothing for 0, which would end the
/// body: see [`write_last_chunk`].
pub fn write_chunk_head(out: &mut Vec<u8>, len: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if len == 0 {
        return;
    }
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        let digit = (len >> (place * 4)) & 0xf;
        out.extend(DIGITS.get(digit));
    }
    out.extend_from_slice(b"\r\n");
}

/// Ends a chunked body: the last chunk, `trailers` in the form of [`ChunkDecoder::trailers`], the empty line.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}
