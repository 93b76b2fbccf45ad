//! From HTTP/2 to text: heads and trailers that came in.

use crate::http1::{
    ChunkError, HeadError, HeadLimits, HeadParser, MethodKind, RequestHead, ResponseHead, Upgrading, Version,
    parse_request, parse_response, trailer_section,
};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, request, response};
use std::io::Write;

/// Reads the head of a request: writes it to `out` (empty before) as text, and reads that. `ended`: nothing follows it.
///
/// A body whose length is not told is chunked in the text. `POST`, `PUT` and `PATCH` without a body say so
/// (`Content-Length: 0`, RFC 9110 section 8.6). Cookies that came in pieces are joined (RFC 9113 section 8.2.3).
///
/// # Errors
/// As [`parse_request`]. Refused besides: CONNECT, a scheme that is not HTTP's, a target that is no path, `:authority` that
/// differs from `host`, fields that belong to a connection, values that begin or end with white space.
pub fn read_request(
    out: &mut Vec<u8>,
    head: &request::Parts,
    ended: bool,
    limits: &HeadLimits,
    parser: &mut HeadParser,
) -> Result<RequestHead, HeadError> {
    if head.method == Method::CONNECT {
        return Err(HeadError::Connect);
    }
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    // What is no path would be read as another form of target.
    if !(target.starts_with('/') || target == "*") || !head.uri.scheme_str().is_none_or(is_http) {
        return Err(HeadError::TargetForm);
    }
    // Writing to a vector does not fail.
    let _ = write!(out, "{} {target} HTTP/1.1\r\n", head.method);
    if let Some(authority) = authority(head)? {
        write_line(out, b"host", authority);
    }
    let mut cookies = head.headers.get_all(header::COOKIE).iter().peekable();
    if cookies.peek().is_some() {
        out.extend_from_slice(b"cookie: ");
        while let Some(cookie) = cookies.next() {
            out.extend_from_slice(checked(cookie)?);
            out.extend_from_slice(if cookies.peek().is_some() { b"; " } else { b"\r\n" });
        }
    }
    let passed = |name: &HeaderName| *name != header::HOST && *name != header::COOKIE;
    write_fields(out, &head.headers, passed)?;
    if head.headers.contains_key(header::TE) {
        // It is of this hop here, too, without saying so.
        write_line(out, b"connection", b"te");
    }
    let untold = !head.headers.contains_key(header::CONTENT_LENGTH);
    if untold && !ended {
        write_line(out, b"transfer-encoding", b"chunked");
    } else if untold && matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
        write_line(out, b"content-length", b"0");
    }
    out.extend_from_slice(b"\r\n");
    let mut read = whole(parse_request(out, limits, parser), |head| head.len, out)?;
    read.version = Version::Http2;
    Ok(read)
}

/// Reads the head of an answer to a request of method `request`: writes it to `out` (empty before) as text, and reads that.
/// `ended`: nothing follows it.
///
/// # Errors
/// As [`parse_response`]; fields that belong to a connection, and a 101, which HTTP/2 does not have, are errors.
pub fn read_answer(
    out: &mut Vec<u8>,
    head: &response::Parts,
    ended: bool,
    request: MethodKind,
    limits: &HeadLimits,
    parser: &mut HeadParser,
) -> Result<ResponseHead, HeadError> {
    let status = head.status.as_u16();
    // Writing to a vector does not fail.
    let _ = write!(out, "HTTP/1.1 {status} \r\n");
    write_fields(out, &head.headers, |_| true)?;
    let bodiless = matches!(status, 100..200 | 204 | 304) || request == MethodKind::Head;
    if !bodiless && !head.headers.contains_key(header::CONTENT_LENGTH) {
        if ended {
            write_line(out, b"content-length", b"0");
        } else {
            write_line(out, b"transfer-encoding", b"chunked");
        }
    }
    out.extend_from_slice(b"\r\n");
    let parsed = parse_response(out, request, Upgrading::default(), limits, parser);
    let mut read = whole(parsed, |head| head.len, out)?;
    read.version = Version::Http2;
    Ok(read)
}

/// Trailer fields in wire form, as [`crate::http1::ChunkDecoder::trailers`] gives them.
///
/// # Errors
/// More than `limits` allow.
pub fn read_trailers(fields: &HeaderMap, limits: &HeadLimits) -> Result<Vec<u8>, ChunkError> {
    trailer_section(
        fields
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
        limits,
    )
}

/// The text is one head and nothing else: no value can have ended it early.
fn whole<H>(parsed: Result<Option<H>, HeadError>, length: impl Fn(&H) -> usize, text: &[u8]) -> Result<H, HeadError> {
    parsed?
        .filter(|head| length(head) == text.len())
        .ok_or(HeadError::FieldValue)
}

/// `:authority`, or `host` where there is none; both must say the same (RFC 9113 section 8.3.1).
fn authority(head: &request::Parts) -> Result<Option<&[u8]>, HeadError> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(HeadError::HostRepeated);
    }
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => Err(HeadError::HostMismatch),
        _ => Ok(authority.or(host)),
    }
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap, passed: impl Fn(&HeaderName) -> bool) -> Result<(), HeadError> {
    for (name, value) in fields.iter().filter(|(name, _)| passed(name)) {
        let of_a_connection = *name == header::CONNECTION
            || *name == header::TRANSFER_ENCODING
            || *name == header::UPGRADE
            || *name == "keep-alive"
            || *name == "proxy-connection"
            || (*name == header::TE && value != "trailers");
        if of_a_connection {
            return Err(HeadError::ConnectionField);
        }
        write_line(out, name.as_str().as_bytes(), checked(value)?);
    }
    Ok(())
}

/// RFC 9113 section 8.2.1: no white space around a value. Controls are not in a [`HeaderValue`].
fn checked(value: &HeaderValue) -> Result<&[u8], HeadError> {
    let bytes = value.as_bytes();
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if blank(bytes.first()) || blank(bytes.last()) {
        return Err(HeadError::FieldValue);
    }
    Ok(bytes)
}

fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
