//! Finding the end of a head, once over its bytes however they arrive.

use super::{HeadError, HeadLimits, is_token_byte};

/// Longest method accepted, in bytes.
pub(super) const MAX_METHOD: usize = 32;

/// How far the search for the end of a head went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scan {
    /// Bytes already searched for LF.
    scanned: usize,
    /// Where the line being searched begins.
    line: usize,
    /// Where the first line begins: after a tolerated empty line.
    start: usize,
    /// Where the first line ends, without CRLF; `None` until it is complete.
    first_line_end: Option<usize>,
}

/// A complete head inside its buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// First byte of the first line.
    pub(super) start: usize,
    /// One past the first line's last byte before CRLF.
    pub(super) first_line_end: usize,
    /// One past the final CRLF.
    pub(super) end: usize,
}

impl Scan {
    /// Where the first line begins, as far as known.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// The first line without CRLF, once complete.
    pub(super) fn first_line<'b>(&self, buf: &'b [u8]) -> Option<&'b [u8]> {
        buf.get(self.start..self.first_line_end?)
    }

    /// Searches what is new in `buf`. `None`: the end has not arrived. `leading`: one empty line may come first.
    ///
    /// Errors: a bare LF as soon as it is seen, a head over `limits.bytes` as soon as it must be.
    pub(super) fn find(&mut self, buf: &[u8], limits: &HeadLimits, leading: bool) -> Result<Option<Extent>, HeadError> {
        let fresh = buf.get(self.scanned..).unwrap_or_default();
        let base = self.scanned;
        for found in memchr::memchr_iter(b'\n', fresh) {
            let at = base + found;
            if at >= limits.bytes {
                break;
            }
            let Some(end) = at
                .checked_sub(1)
                .filter(|&c| c >= self.line && buf.get(c) == Some(&b'\r'))
            else {
                return Err(HeadError::BareLineFeed);
            };
            let begin = std::mem::replace(&mut self.line, at + 1);
            if end > begin {
                self.first_line_end.get_or_insert(end);
                continue;
            }
            if let Some(first_line_end) = self.first_line_end {
                let start = self.start;
                return Ok(Some(Extent {
                    start,
                    first_line_end,
                    end: at + 1,
                }));
            }
            if !leading || self.start > 0 {
                return Err(HeadError::EmptyLines);
            }
            self.start = at + 1;
        }
        self.scanned = buf.len();
        if buf.len() >= limits.bytes {
            return Err(match self.first_line_end {
                None => HeadError::TargetTooLong,
                Some(_) => HeadError::HeadTooLarge,
            });
        }
        Ok(None)
    }
}

/// Refuses what can already be told from the beginning of a request line: bytes that are no method (TLS or another
/// protocol on this port), so that its sender does not wait for a deadline.
pub(super) fn check_method_prefix(line: &[u8]) -> Result<(), HeadError> {
    for (at, &byte) in line.iter().take(MAX_METHOD + 1).enumerate() {
        match byte {
            b' ' if at > 0 => return Ok(()),
            // The CR of an empty line whose LF has not arrived, or of a line that ends too early.
            b'\r' if line.len() == at + 1 => return Ok(()),
            _ if at == MAX_METHOD || !is_token_byte(byte) => return Err(HeadError::Method),
            _ => {}
        }
    }
    Ok(())
}

/// The fault of a first line whose version `httparse` did not accept: 505 for a well-formed one, 400 for another.
pub(super) fn version_error(version: &[u8]) -> HeadError {
    match version {
        // The version is good; what follows it is not.
        b"HTTP/1.0" | b"HTTP/1.1" => HeadError::VersionMalformed,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            HeadError::VersionNotSupported
        }
        _ => HeadError::VersionMalformed,
    }
}
