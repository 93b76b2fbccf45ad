//! The request target and the host (RFC 9112 section 3.2, RFC 3986).

use super::head::Span;
use super::{HeadError, MethodKind};

/// A host and port that were found good, as lengths of the text they were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority {
    /// Bytes of the host; brackets included for IPv6.
    pub(super) host_len: usize,
    /// `None`: no port, or an empty one.
    pub(super) port: Option<u16>,
}

/// `host [":" port]`. The host is letters, digits, `-._~`, or `[IPv6]`; the port at most 65535. Nothing may be empty
/// except the digits of the port (RFC 3986 section 3.2.3).
pub(super) fn parse_authority(text: &[u8]) -> Result<Authority, HeadError> {
    let host_len = if text.first() == Some(&b'[') {
        let close = memchr::memchr(b']', text).ok_or(HeadError::HostInvalid)?;
        let inner = text.get(1..close).and_then(|t| std::str::from_utf8(t).ok());
        inner
            .and_then(|t| t.parse::<std::net::Ipv6Addr>().ok())
            .ok_or(HeadError::HostInvalid)?;
        close + 1
    } else {
        let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        text.iter().position(|&b| !is_host(b)).unwrap_or(text.len())
    };
    if host_len == 0 {
        return Err(HeadError::HostInvalid);
    }
    let port = match text.get(host_len..) {
        None | Some([]) => None,
        Some([b':', digits @ ..]) => parse_port(digits)?,
        Some(_) => return Err(HeadError::HostInvalid),
    };
    Ok(Authority { host_len, port })
}

fn parse_port(digits: &[u8]) -> Result<Option<u16>, HeadError> {
    if digits.is_empty() {
        return Ok(None);
    }
    if digits.len() > 5 {
        return Err(HeadError::HostInvalid);
    }
    super::framing::decimal(digits)
        .and_then(|n| u16::try_from(n).ok())
        .map(Some)
        .ok_or(HeadError::HostInvalid)
}

/// A request target, taken apart. Spans are offsets into the buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Target {
    /// As received.
    pub(super) whole: Span,
    /// The authority of absolute-form; empty for another form.
    pub(super) authority: Span,
    /// From the path on: what origin-form would hold. May lack its leading `/` in absolute-form.
    pub(super) rest: Span,
    /// The path in it; may be empty in absolute-form.
    pub(super) path: Span,
    /// The query in it, without `?`.
    pub(super) query: Span,
    /// The port that absolute-form's scheme implies.
    pub(super) default_port: Option<u16>,
    /// `*`, or `OPTIONS` in absolute-form without path and query, which means the same (RFC 9112 section 3.2.4).
    pub(super) asterisk: bool,
}

impl Target {
    pub(super) fn parse(target: &[u8], start: usize, method: MethodKind) -> Result<Self, HeadError> {
        if target.iter().any(|&b| b == b'#' || !(0x21..=0x7e).contains(&b)) {
            return Err(HeadError::TargetByte);
        }
        let end = start + target.len();
        let mut this = Self {
            whole: Span::new(start, end),
            ..Self::default()
        };
        let rest = match target {
            [b'/', ..] => start,
            b"*" if method == MethodKind::Options => {
                this.asterisk = true;
                start
            }
            _ => {
                let (authority, port) = absolute(target)?;
                this.default_port = Some(port);
                this.authority = Span::new(start + authority.start, start + authority.end);
                start + authority.end
            }
        };
        this.asterisk |= rest == end && method == MethodKind::Options;
        this.rest = Span::new(rest, end);
        let tail = target.get(rest - start..).unwrap_or_default();
        let question = memchr::memchr(b'?', tail).map_or(end, |at| rest + at);
        this.path = Span::new(rest, question);
        this.query = Span::new((question + 1).min(end), end);
        Ok(this)
    }
}

/// Where the authority of `http://authority…` lies, and the port its scheme implies.
fn absolute(target: &[u8]) -> Result<(std::ops::Range<usize>, u16), HeadError> {
    let scheme = |s: &str| {
        target
            .get(..s.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(s.as_bytes()))
    };
    let (begin, port) = if scheme("http://") {
        (7, 80)
    } else if scheme("https://") {
        (8, 443)
    } else {
        return Err(HeadError::TargetForm);
    };
    let after = target.get(begin..).unwrap_or_default();
    let len = memchr::memchr2(b'/', b'?', after).unwrap_or(after.len());
    Ok((begin..begin + len, port))
}
