//! What gRPC puts into fields (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use super::write::lines;
use http::header::{self, HeaderMap};
use std::time::Duration;

const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;

const CONTENT_TYPE: &[u8] = b"application/grpc";

/// The most digits of a timeout.
const TIMEOUT_DIGITS: usize = 8;

/// Whether a `content-type` is that of gRPC: `application/grpc`, with a message format behind `+` or parameters behind
/// `;`. gRPC-Web, which has no trailers, is another protocol.
pub fn is_grpc(content_type: &[u8]) -> bool {
    match content_type.split_at_checked(CONTENT_TYPE.len()) {
        Some((name, rest)) => {
            name.eq_ignore_ascii_case(CONTENT_TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        }
        None => false,
    }
}

/// The time that a `grpc-timeout` gives: 1 to 8 digits and a unit. `None`: malformed, which gRPC leaves without effect.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The `grpc-status` among trailer fields in wire form; `None`: there is none, or none that is a number.
pub fn status_in(trailers: &[u8]) -> Option<u32> {
    lines(trailers)
        .find(|(name, _)| name.eq_ignore_ascii_case(b"grpc-status"))
        .and_then(|(_, value)| status(value))
}

/// The number that a `grpc-status` is; `None`: it is none.
pub fn status(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What a gRPC client is told instead of a status of HTTP that the proxy answers of itself: INVALID_ARGUMENT would blame what
/// the caller asked for, so what it sent is INTERNAL, as clients take it that see the 400
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
pub fn status_for(http: u16) -> u32 {
    match http {
        400 => INTERNAL,
        404 | 405 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 414 | 429 | 431 => RESOURCE_EXHAUSTED,
        502 | 503 => UNAVAILABLE,
        500 => INTERNAL,
        _ => UNKNOWN,
    }
}

/// The head of an answer that is all of it: to gRPC its fields are trailers, where a length has no place.
pub fn leave_length_out(fields: &mut HeaderMap) {
    let content_type = fields.get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| is_grpc(value.as_bytes())) {
        fields.remove(header::CONTENT_LENGTH);
    }
}

/// The trailers, in wire form, that say what a status of HTTP means.
pub fn trailers_for(http: u16, why: &str) -> Vec<u8> {
    let mut trailers = format!("grpc-status: {}\r\ngrpc-message: ", status_for(http)).into_bytes();
    write_message(&mut trailers, why);
    trailers.extend_from_slice(b"\r\n");
    trailers
}

/// Writes a text as `grpc-message` has it: printable ASCII as it is, everything else and `%` as `%XX`.
pub fn write_message(out: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
            continue;
        }
        out.push(b'%');
        out.extend(DIGITS.get(usize::from(byte >> 4)));
        out.extend(DIGITS.get(usize::from(byte & 15)));
    }
}

/// The status of `grpc.health.v1.HealthCheckResponse` that means yes.
pub const SERVING: u64 = 1;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A `grpc.health.v1.HealthCheckRequest` as it goes into DATA.
pub fn health_question(service: &str) -> Vec<u8> {
    let mut message = vec![0; PREFIX];
    if !service.is_empty() {
        // Field 1, with a length.
        message.push(0x0a);
        put_varint(&mut message, service.len());
        message.extend(service.as_bytes());
    }
    let length = u32::try_from(message.len() - PREFIX).unwrap_or_default();
    if let Some(to) = message.get_mut(1..PREFIX) {
        to.copy_from_slice(&length.to_be_bytes());
    }
    message
}

/// The status in a `grpc.health.v1.HealthCheckResponse` as it comes in DATA; `None`: it is none.
pub fn health_in(data: &[u8]) -> Option<u64> {
    let (&[0, a, b, c, d], rest) = data.split_first_chunk()? else {
        return None;
    };
    let mut message = rest.get(..u32::from_be_bytes([a, b, c, d]).try_into().ok()?)?;
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        // The kinds of Protocol Buffers: a number, eight bytes, so many bytes, four bytes.
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                status = if tag >> 3 == 1 { value } else { status };
                0
            }
            1 => 8,
            2 => varint(&mut message)?.try_into().ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

/// Adds a number as [`varint`] takes it.
fn put_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes a number off the front: seven bits a byte, the least first, up to ten of them.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
