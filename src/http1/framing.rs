//! How long a body is: the two fields that say so (RFC 9112 section 6).

use super::{HeadError, is_token, list_elements};

/// The largest length: what a signed 64-bit parser behind us reads the same way.
const MAX_LENGTH: u64 = i64::MAX as u64;

/// More digits than [`MAX_LENGTH`] has, leading zeros included, are refused.
const MAX_DIGITS: usize = 19;

/// `1*DIGIT`, at most [`MAX_LENGTH`]. A list, a sign or white space is no number.
pub(super) fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    decimal(value)
        .filter(|&n| n <= MAX_LENGTH)
        .ok_or(HeadError::ContentLength)
}

/// The number of 1 to 19 digits, and nothing else; 19 digits cannot overflow.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > MAX_DIGITS {
        return None;
    }
    let mut number: u64 = 0;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
    }
    Some(number)
}

/// Codings a server may know (RFC 9112 section 7.2, RFC 2616's `identity`): known, and not accepted here.
const REGISTERED: [&[u8]; 6] = [b"compress", b"deflate", b"gzip", b"identity", b"x-compress", b"x-gzip"];

/// Accepts the value of the only `Transfer-Encoding`: `chunked`.
///
/// [`HeadError::UnknownCoding`] when an unregistered coding comes before a final, only `chunked`;
/// [`HeadError::TransferEncoding`] otherwise, above all when the final coding is not `chunked`: the length is unknown.
pub(super) fn check_coding(value: &[u8]) -> Result<(), HeadError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut chunked = 0;
    let mut last_chunked = false;
    let mut unknown = false;
    for coding in list_elements(value) {
        if !is_token(coding) {
            return Err(HeadError::TransferEncoding);
        }
        last_chunked = coding.eq_ignore_ascii_case(b"chunked");
        if last_chunked {
            chunked += 1;
        } else if !REGISTERED.iter().any(|r| r.eq_ignore_ascii_case(coding)) {
            unknown = true;
        }
    }
    if last_chunked && chunked == 1 && unknown {
        return Err(HeadError::UnknownCoding);
    }
    Err(HeadError::TransferEncoding)
}
