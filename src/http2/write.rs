//! From text to HTTP/2: heads and trailers that [`crate::http1`] has written and that go out.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, uri};

/// A text that is no message of HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untranslatable {
    /// A byte that RFC 3986 does not allow and that HTTP/1.1 clients send all the same, or more than 64 KiB.
    #[error("the request target cannot be sent over HTTP/2")]
    Target,
    #[error("the head cannot be sent over HTTP/2")]
    Head,
}

/// The request that a text of [`crate::http1::write_request`] says. Its `Host` becomes `:authority`.
///
/// # Errors
/// [`Untranslatable::Target`] for targets that are refused over HTTP/2.
pub fn request(text: &[u8], https: bool) -> Result<Request<()>, Untranslatable> {
    let (line, fields) = first_line(text)?;
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(Untranslatable::Head);
    };
    let mut map = HeaderMap::with_capacity(16);
    let mut authority = None;
    for (name, value) in lines(fields) {
        if name.eq_ignore_ascii_case(b"host") {
            authority = Some(value);
        } else {
            add(&mut map, name, value)?;
        }
    }
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    let authority = authority.ok_or(Untranslatable::Head)?;
    parts.authority = Some(uri::Authority::try_from(authority).map_err(|_| Untranslatable::Head)?);
    parts.path_and_query = Some(uri::PathAndQuery::try_from(target).map_err(|_| Untranslatable::Target)?);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).map_err(|_| Untranslatable::Head)?;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Untranslatable::Target)?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = map;
    Ok(request)
}

/// The answer that a text of [`crate::http1::write_response`] says, interim ones included.
///
/// # Errors
/// [`Untranslatable::Head`] for a text of anybody else.
pub fn answer(text: &[u8]) -> Result<Response<()>, Untranslatable> {
    let (line, fields) = first_line(text)?;
    let status = line.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
    let mut response = Response::new(());
    *response.status_mut() = status.ok_or(Untranslatable::Head)?;
    *response.version_mut() = http::Version::HTTP_2;
    let map = response.headers_mut();
    map.reserve(16);
    for (name, value) in lines(fields) {
        add(map, name, value)?;
    }
    Ok(response)
}

/// Trailer fields in wire form ([`crate::http1::ChunkDecoder::trailers`]) as a map.
///
/// # Errors
/// [`Untranslatable::Head`] for a text of anybody else.
pub fn trailers(text: &[u8]) -> Result<HeaderMap, Untranslatable> {
    let mut map = HeaderMap::new();
    for (name, value) in lines(text) {
        add(&mut map, name, value)?;
    }
    Ok(map)
}

fn first_line(text: &[u8]) -> Result<(&[u8], &[u8]), Untranslatable> {
    let end = memchr::memchr(b'\r', text).ok_or(Untranslatable::Head)?;
    let (line, rest) = text.split_at_checked(end).ok_or(Untranslatable::Head)?;
    Ok((line, rest.get(2..).unwrap_or_default()))
}

/// Names and values of `name: value CRLF`, to the end or an empty line.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\r', rest).filter(|&end| end > 0)?;
        let line = rest.get(..end)?;
        rest = rest.get(end + 2..)?;
        let colon = memchr::memchr(b':', line)?;
        Some((line.get(..colon)?, line.get(colon + 2..)?))
    })
}

/// What belongs to one user is not indexed, since users share a connection to an endpoint (RFC 7541 section 7.1.3), and what
/// no other message has would only push from the table what many have.
fn is_unindexed(name: &HeaderName) -> bool {
    [header::AUTHORIZATION, header::COOKIE, header::SET_COOKIE].contains(name)
        || ["x-request-id", "traceparent"].contains(&name.as_str())
}

/// Values are copied one by one: parts of one buffer would keep all of it for as long as HPACK's table holds one of them.
fn add(map: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), Untranslatable> {
    let name = HeaderName::from_bytes(name).map_err(|_| Untranslatable::Head)?;
    let mut value = HeaderValue::from_bytes(value).map_err(|_| Untranslatable::Head)?;
    value.set_sensitive(is_unindexed(&name));
    map.try_append(name, value).map_err(|_| Untranslatable::Head)?;
    Ok(())
}
