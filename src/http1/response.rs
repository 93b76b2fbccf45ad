//! The head of an answer.

use super::head::{FieldIndex, Fields, Gathered, HeadLimits, HeadParser, Slots, Span, allowed, fault, slice};
use super::scan::{self, Extent};
use super::upgrade::{Protocols, Upgrading, is_web_socket};
use super::{HeadError, MethodKind, Version};
use std::mem::MaybeUninit;

/// How the body of an answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBody {
    /// None, whatever the fields say: 1xx, 204, 304, or the answer to HEAD.
    None,
    /// `Content-Length`, which may be 0.
    Length(u64),
    Chunked,
    /// Until the connection is closed.
    UntilClose,
}

/// The head of an answer, as offsets into the buffer that was parsed. Given another buffer, its methods answer with empty
/// or wrong text, and never panic.
#[derive(Debug)]
pub struct ResponseHead {
    /// Bytes of the buffer that are the head, the final CRLF included.
    pub len: usize,
    /// 100 to 599.
    pub status: u16,
    pub version: Version,
    pub body: ResponseBody,
    /// Whether the connection may be used again once the body is read: never after [`ResponseBody::UntilClose`] or 101.
    pub keep_alive: bool,
    /// A 101, after which comes WebSocket. What comes after another 101 is not known here.
    pub web_socket: bool,
    /// The `Content-Length` received, also where it only describes (HEAD, 304).
    pub content_length: Option<u64>,
    /// What it offers (`Connection: Upgrade`, `Upgrade`), as 101 and 426 do, of what is let through.
    pub(super) offered: Protocols,
    reason: Span,
    pub(super) index: FieldIndex,
}

impl ResponseHead {
    /// The reason phrase as received; often empty.
    pub fn reason<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        slice(buf, self.reason)
    }

    /// The fields in the order received.
    pub fn fields<'b>(&'b self, buf: &'b [u8]) -> Fields<'b> {
        Fields::new(buf, &self.index)
    }

    /// An interim answer: another head follows. A 101 is final in this sense.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

impl From<ResponseHead> for FieldIndex {
    fn from(head: ResponseHead) -> Self {
        head.index
    }
}

/// Reads the head of an answer to a request of method `request`, from the beginning of `buf`. `upgrading`: what the request
/// asked to change to; a 101 to anything else is an error. `Ok(None)`: it is not complete; call again with the same bytes
/// and more.
///
/// A status that has no body (1xx, 204) may not declare one: `Transfer-Encoding`, or a `Content-Length` other than 0, is
/// an error, because a parser that believed it would read the next answer as this one's body.
///
/// Errors: the answer is unusable (502) and its connection must be closed.
pub fn parse_response(
    buf: &[u8],
    request: MethodKind,
    upgrading: Upgrading<'_>,
    limits: &HeadLimits,
    parser: &mut HeadParser,
) -> Result<Option<ResponseHead>, HeadError> {
    check_start(buf).inspect_err(|_| parser.reset())?;
    let Some(extent) = parser.find(buf, limits, false)? else {
        return Ok(None);
    };
    let mut index = parser.take_index();
    match parse_complete(buf, extent, limits, &mut index, (request, upgrading)) {
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

/// Refuses what cannot become an answer before its first line ends.
fn check_start(buf: &[u8]) -> Result<(), HeadError> {
    const START: &[u8] = b"HTTP/1.";
    let len = buf.len().min(START.len());
    if buf.get(..len) == START.get(..len) {
        return Ok(());
    }
    Err(match buf {
        [b'\n', ..] => HeadError::BareLineFeed,
        [b'\r', b'\n', ..] => HeadError::EmptyLines,
        [b'H', b'T', b'T', b'P', b'/', ..] => HeadError::VersionNotSupported,
        _ => HeadError::StatusLine,
    })
}

fn parse_complete(
    buf: &[u8],
    extent: Extent,
    limits: &HeadLimits,
    index: &mut FieldIndex,
    (request, upgrading): (MethodKind, Upgrading<'_>),
) -> Result<ResponseHead, HeadError> {
    let line = buf.get(..extent.first_line_end).unwrap_or_default();
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; HeadLimits::MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let head = buf.get(..extent.end).unwrap_or_default();
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, allowed(&mut slots, limits)) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(HeadError::StatusLine),
        Err(httparse::Error::Version) => return Err(scan::version_error(line.get(..8).unwrap_or_default())),
        Err(error) => return Err(fault(error, HeadError::StatusLine)),
    }
    let version = Version::of_minor(parsed.version.ok_or(HeadError::VersionMalformed)?);
    let status = parsed
        .code
        .filter(|s| (100..=599).contains(s))
        .ok_or(HeadError::Status)?;
    let all = Gathered::index(buf, parsed.headers, index, false)?;
    all.options.mark(buf, &mut index.0, false)?;
    let offered = match all.upgrades() {
        true => upgrading.offered(buf, &index.0),
        false => Protocols::default(),
    };
    let chosen = match status {
        101 if version == Version::Http11 && all.upgrades() => upgrading.chosen(buf, &index.0),
        _ => None,
    };
    if status == 101 && chosen.is_none() {
        return Err(HeadError::Upgrade);
    }
    let body = body(&all, version, status, request)?;
    Ok(ResponseHead {
        len: extent.end,
        status,
        version,
        body,
        keep_alive: all.options.persists(version) && body != ResponseBody::UntilClose && status != 101,
        web_socket: chosen.is_some_and(is_web_socket),
        content_length: all.length,
        offered,
        // `HTTP/1.1 200 reason`
        reason: Span::new(13.min(line.len()), line.len()),
        index: FieldIndex::default(),
    })
}

/// RFC 9112 section 6.3.
fn body(all: &Gathered, version: Version, status: u16, request: MethodKind) -> Result<ResponseBody, HeadError> {
    if all.chunked && all.length.is_some() {
        return Err(HeadError::LengthAndCoding);
    }
    if all.chunked && version == Version::Http10 {
        return Err(HeadError::CodingOnHttp10);
    }
    let bodiless = status < 200 || status == 204;
    if bodiless && (all.chunked || all.length.is_some_and(|n| n > 0)) {
        return Err(HeadError::BodyForbidden);
    }
    if bodiless || status == 304 || request == MethodKind::Head {
        return Ok(ResponseBody::None);
    }
    Ok(match all.length {
        _ if all.chunked => ResponseBody::Chunked,
        Some(length) => ResponseBody::Length(length),
        None => ResponseBody::UntilClose,
    })
}
