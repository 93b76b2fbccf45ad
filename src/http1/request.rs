//! The head of a request.

use super::field::Kind;
use super::framing;
use super::head::{FieldIndex, Fields, Gathered, HeadLimits, HeadParser, Slots, Span, allowed, fault, slice, text};
use super::scan::{self, Extent, MAX_METHOD};
use super::target::{self, Authority, Target};
use super::upgrade::Protocols;
use super::{HeadError, MethodKind, Upgrading, Version};
use crate::routing::canonical_path;
use std::borrow::Cow;
use std::mem::MaybeUninit;

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    /// No framing field: no body.
    None,
    /// `Content-Length`, which may be 0.
    Length(u64),
    Chunked,
}

/// The head of a request, as offsets into the buffer that was parsed. Given another buffer, its methods answer with empty
/// or wrong text, and never panic.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// Bytes of the buffer that are the head: a tolerated empty line before it and the final CRLF included.
    pub len: usize,
    /// The version that brought it; [`Version::Http2`] only where [`crate::http2`] translated it.
    pub version: Version,
    pub body: RequestBody,
    /// Whether the client wants the connection kept: the default of its version and `Connection` (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// It waits for a 100 before it sends its body. Never without a body, never for HTTP/1.0.
    pub expect_continue: bool,
    /// It asks to change the protocol, in HTTP/1.1 with `Connection: Upgrade`; to what is [`Self::upgrading`]'s to say.
    pub upgrade: bool,
    /// As a handshake of WebSocket does: `GET`, no body, one key and one version (RFC 6455 section 4.1).
    web_socket: bool,
    pub method_kind: MethodKind,
    /// It accepts trailers and says so for this hop (`TE: trailers`, `Connection: TE`).
    pub te_trailers: bool,
    /// `Max-Forwards` of `OPTIONS` and `TRACE`; `None` for others. At 0 the proxy must answer itself and not forward
    /// (RFC 9110 section 7.6.2); otherwise [`super::write_request`] sends one less.
    pub max_forwards: Option<u64>,
    method: Span,
    target: Target,
    /// The path in canonical form, where that is not as it was received.
    canonical: Option<Box<str>>,
    authority: Span,
    host_len: u32,
    /// The kinds of fields present, as bits.
    pub(super) seen: u64,
    pub(super) index: FieldIndex,
}

impl RequestHead {
    /// The method, case-sensitive.
    pub fn method<'b>(&self, buf: &'b [u8]) -> &'b str {
        text(buf, self.method)
    }

    /// The host without port, in the case received, IPv6 in brackets; of absolute-form's authority, or of `Host`. Empty
    /// only for an HTTP/1.0 request that names none.
    pub fn host<'b>(&self, buf: &'b [u8]) -> &'b str {
        let start = self.authority.start;
        text(
            buf,
            Span {
                start,
                len: self.host_len,
            },
        )
    }

    /// The host with its port, if it was given one.
    pub fn authority<'b>(&self, buf: &'b [u8]) -> &'b str {
        text(buf, self.authority)
    }

    /// The path, from its first `/`, without the query; `*` for `OPTIONS *`. As received: nothing is decoded.
    pub fn path<'b>(&self, buf: &'b [u8]) -> &'b str {
        match (self.target.asterisk, self.target.path.is_empty()) {
            (true, _) => "*",
            (false, true) => "/",
            (false, false) => text(buf, self.target.path),
        }
    }

    /// The path in the form that routes are compared with ([`canonical_path`]).
    pub fn canonical_path<'b>(&'b self, buf: &'b [u8]) -> &'b str {
        self.canonical.as_deref().unwrap_or_else(|| self.path(buf))
    }

    /// The query without its `?`; empty when there is none.
    pub fn query<'b>(&self, buf: &'b [u8]) -> &'b str {
        text(buf, self.target.query)
    }

    /// The request target as received, for logs.
    pub fn target<'b>(&self, buf: &'b [u8]) -> &'b str {
        text(buf, self.target.whole)
    }

    /// The fields in the order received.
    pub fn fields<'b>(&'b self, buf: &'b [u8]) -> Fields<'b> {
        Fields::new(buf, &self.index)
    }

    /// What of `allowed`, protocols by name, the request asks to change to.
    pub fn upgrading<'p>(&self, buf: &[u8], allowed: &'p [Box<str>]) -> Upgrading<'p> {
        if self.upgrade {
            return Upgrading::of(allowed, buf, &self.index.0, self.web_socket);
        }
        let asked = Protocols::default();
        Upgrading { allowed, asked }
    }

    /// Whether a field of this kind is present.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.seen & kind.bit() != 0
    }

    /// The target in origin-form or `*`, in two parts to be written one after the other.
    pub(super) fn origin_form<'b>(&self, buf: &'b [u8]) -> (&'static [u8], &'b [u8]) {
        let rest = slice(buf, self.target.rest);
        match rest.first() {
            None if self.target.asterisk => (b"*", b""),
            Some(b'/' | b'*') => (b"", rest),
            _ => (b"/", rest),
        }
    }
}

impl From<RequestHead> for FieldIndex {
    fn from(head: RequestHead) -> Self {
        head.index
    }
}

/// Reads the head of a request from the beginning of `buf`. `Ok(None)`: it is not complete; call again with the same
/// bytes and more. The time over all calls is linear in the bytes.
///
/// Errors: see [`HeadError`]; refuse with [`HeadError::status`] and close the connection.
pub fn parse_request(
    buf: &[u8],
    limits: &HeadLimits,
    parser: &mut HeadParser,
) -> Result<Option<RequestHead>, HeadError> {
    let begun = parser.scan.first_line(buf).is_some();
    let Some(extent) = parser.find(buf, limits, true)? else {
        return check_partial(buf, begun, parser)
            .map(|()| None)
            .inspect_err(|_| parser.reset());
    };
    let mut index = parser.take_index();
    let result = parse_complete(buf, extent, limits, &mut index);
    match result {
        Ok(mut head) => {
            head.index = index;
            Ok(Some(head))
        }
        Err(error) => {
            parser.recycle(index);
            Err(error)
        }
    }
}

/// Refuses early what cannot become a request. `begun`: the first line was complete before, and was looked at.
fn check_partial(buf: &[u8], begun: bool, parser: &HeadParser) -> Result<(), HeadError> {
    match parser.scan.first_line(buf) {
        Some(_) if begun => Ok(()),
        Some(line) => {
            scan::check_method_prefix(line)?;
            check_line(line).map(|_| ())
        }
        None => scan::check_method_prefix(buf.get(parser.scan.start()..).unwrap_or_default()),
    }
}

/// `METHOD SP target SP HTTP/1.x`, by its spaces: the lengths of method and target.
fn check_line(line: &[u8]) -> Result<(usize, usize), HeadError> {
    let method = memchr::memchr(b' ', line).ok_or(HeadError::RequestLine)?;
    let after = line.get(method + 1..).unwrap_or_default();
    // A second space inside the target would make the version malformed: the last part is taken as one.
    let target = memchr::memchr(b' ', after).ok_or(HeadError::VersionMalformed)?;
    if method == 0 || method > MAX_METHOD || target == 0 {
        return Err(if target == 0 {
            HeadError::RequestLine
        } else {
            HeadError::Method
        });
    }
    match after.get(target + 1..).unwrap_or_default() {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok((method, target)),
        version => Err(scan::version_error(version)),
    }
}

fn parse_complete(
    buf: &[u8],
    extent: Extent,
    limits: &HeadLimits,
    index: &mut FieldIndex,
) -> Result<RequestHead, HeadError> {
    let line = buf.get(extent.start..extent.first_line_end).unwrap_or_default();
    scan::check_method_prefix(line)?;
    let (method_len, target_len) = check_line(line)?;
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; HeadLimits::MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let head = buf.get(extent.start..extent.end).unwrap_or_default();
    match parsed.parse_with_uninit_headers(head, allowed(&mut slots, limits)) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(HeadError::RequestLine),
        Err(error) => return Err(fault(error, HeadError::TargetByte)),
    }
    let version = Version::of_minor(parsed.version.ok_or(HeadError::VersionMalformed)?);
    let method = Span::new(extent.start, extent.start + method_len);
    let method_kind = MethodKind::of(slice(buf, method));
    if method_kind == MethodKind::Connect {
        return Err(HeadError::Connect);
    }
    let target_start = extent.start + method_len + 1;
    let target = Target::parse(
        buf.get(target_start..target_start + target_len).unwrap_or_default(),
        target_start,
        method_kind,
    )?;
    let canonical = match canonical_path(text(buf, target.path))? {
        Cow::Borrowed(_) => None,
        Cow::Owned(path) => Some(path.into()),
    };
    let all = Gathered::index(buf, parsed.headers, index, true)?;
    all.options.mark(buf, &mut index.0, true)?;
    let (authority, host_len) = effective_host(buf, &target, all.host, version)?;
    let body = body(&all, version, method_kind)?;
    let web_socket = method_kind == MethodKind::Get && body == RequestBody::None && is_web_socket(buf, &all);
    Ok(RequestHead {
        len: extent.end,
        version,
        body,
        keep_alive: all.options.persists(version),
        expect_continue: all.has(Kind::Expect) && version == Version::Http11 && has_content(body),
        upgrade: version == Version::Http11 && all.upgrades(),
        web_socket,
        method_kind,
        te_trailers: all.te_trailers && all.options.te && version == Version::Http11,
        max_forwards: max_forwards(buf, &all, method_kind)?,
        method,
        target,
        canonical,
        authority,
        host_len,
        seen: all.seen,
        index: FieldIndex::default(),
    })
}

fn has_content(body: RequestBody) -> bool {
    !matches!(body, RequestBody::None | RequestBody::Length(0))
}

fn body(all: &Gathered, version: Version, method: MethodKind) -> Result<RequestBody, HeadError> {
    let body = match (all.length, all.chunked) {
        (Some(_), true) => return Err(HeadError::LengthAndCoding),
        (None, true) if version == Version::Http10 => return Err(HeadError::CodingOnHttp10),
        (None, true) => RequestBody::Chunked,
        (Some(length), false) => RequestBody::Length(length),
        (None, false) => RequestBody::None,
    };
    // RFC 9110 section 9.3.8: no content in a TRACE request.
    if method == MethodKind::Trace && has_content(body) {
        return Err(HeadError::TraceBody);
    }
    Ok(body)
}

/// The authority that counts and the length of its host (RFC 9112 section 3.2, RFC 9110 section 7.2).
fn effective_host(buf: &[u8], target: &Target, host: Option<Span>, version: Version) -> Result<(Span, u32), HeadError> {
    let parsed = match host {
        Some(span) => Some((span, target::parse_authority(slice(buf, span))?)),
        None if version == Version::Http11 => return Err(HeadError::HostMissing),
        None => None,
    };
    let Some(default_port) = target.default_port else {
        let (span, host_len) = parsed.map_or((Span::default(), 0), |(span, a)| (span, a.host_len));
        return Ok((span, u32::try_from(host_len).unwrap_or(0)));
    };
    let authority = target::parse_authority(slice(buf, target.authority))?;
    if let Some((span, named)) = parsed
        && !same(buf, (target.authority, authority), (span, named), default_port)
    {
        return Err(HeadError::HostMismatch);
    }
    Ok((target.authority, u32::try_from(authority.host_len).unwrap_or(0)))
}

/// Whether two authorities name the same origin: hosts but for case, ports with the scheme's default.
fn same(buf: &[u8], a: (Span, Authority), b: (Span, Authority), default_port: u16) -> bool {
    let host = |(span, authority): (Span, Authority)| slice(buf, span).get(..authority.host_len).unwrap_or_default();
    let port = |(_, authority): (Span, Authority)| authority.port.unwrap_or(default_port);
    host(a).eq_ignore_ascii_case(host(b)) && port(a) == port(b)
}

fn max_forwards(buf: &[u8], all: &Gathered, method: MethodKind) -> Result<Option<u64>, HeadError> {
    match all.max_forwards {
        Some(span) if matches!(method, MethodKind::Options | MethodKind::Trace) => framing::decimal(slice(buf, span))
            .map(Some)
            .ok_or(HeadError::MaxForwards),
        _ => Ok(None),
    }
}

/// Whether the fields are those of a handshake (RFC 6455 section 4.1).
fn is_web_socket(buf: &[u8], all: &Gathered) -> bool {
    // 16 bytes in base64 (RFC 6455 section 4.1).
    let is_key = |key: &[u8]| {
        key.len() == 24
            && key.ends_with(b"==")
            && key
                .iter()
                .take(22)
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
    };
    all.web_socket_key.is_some_and(|span| is_key(slice(buf, span)))
        && all
            .web_socket_version
            .is_some_and(|span| framing::decimal(slice(buf, span)).is_some())
}
