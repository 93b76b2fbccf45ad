//! What requests and answers share: the index of fields, the parser's reusable state, one pass over the fields.

use super::connection::Options;
use super::field::{self, Kind};
use super::framing;
use super::scan::{Extent, Scan};
use super::{HeadError, list_elements};
use crate::routing::{HeaderFields, is_field_name};
use std::mem::MaybeUninit;

/// Bounds of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first to the final CRLF, both included.
    pub bytes: usize,
    /// Field lines, at most [`HeadLimits::MAX_FIELDS`].
    pub fields: usize,
}

impl HeadLimits {
    /// The most field lines that can be allowed: they are indexed on the stack first.
    pub const MAX_FIELDS: usize = 256;
    /// The most bytes that can be allowed: offsets are 32 bits.
    pub const MAX_BYTES: usize = 16 << 20;

    /// These limits within what the parser can do.
    fn bounded(&self) -> Self {
        Self {
            bytes: self.bytes.min(Self::MAX_BYTES),
            fields: self.fields.min(Self::MAX_FIELDS),
        }
    }
}

impl Default for HeadLimits {
    /// 32 KiB, 100 fields.
    fn default() -> Self {
        Self {
            bytes: 32 << 10,
            fields: 100,
        }
    }
}

/// A range of the buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        // Offsets fit: heads are at most MAX_BYTES long. A wrong one would read as empty, never out of bounds.
        let at = u32::try_from(start).unwrap_or(u32::MAX);
        Self {
            start: at,
            len: u32::try_from(end.saturating_sub(start)).unwrap_or(0),
        }
    }

    pub(super) fn start(self) -> usize {
        self.start as usize
    }

    pub(super) fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    pub(super) fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// The bytes at `span`; empty when `buf` is not the buffer that was parsed.
pub(super) fn slice(buf: &[u8], span: Span) -> &[u8] {
    buf.get(span.start()..span.end()).unwrap_or_default()
}

/// The text at `span`; empty when `buf` is not the buffer that was parsed.
pub(super) fn text(buf: &[u8], span: Span) -> &str {
    std::str::from_utf8(slice(buf, span)).unwrap_or_default()
}

/// Where `part`, a slice of `buf`, lies in it.
fn span_of(buf: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().saturating_sub(buf.as_ptr().addr());
    Span::new(start, start + part.len())
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Span,
    pub(super) value: Span,
    pub(super) kind: Kind,
    /// On the wire it is `name: value CRLF` with one space and no other white space: may be copied as it lies.
    pub(super) canonical: bool,
}

/// The storage of a head's fields, to be used again for the next head.
#[derive(Debug, Clone, Default)]
pub struct FieldIndex(pub(super) Vec<Field>);

/// The fields of a head in the order received: an iterator of name (as received) and value, and what routing reads.
#[derive(Debug, Clone)]
pub struct Fields<'b> {
    buf: &'b [u8],
    fields: std::slice::Iter<'b, Field>,
}

impl<'b> Fields<'b> {
    pub(super) fn new(buf: &'b [u8], index: &'b FieldIndex) -> Self {
        Self {
            buf,
            fields: index.0.iter(),
        }
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = (&'b str, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.fields.next()?;
        Some((text(self.buf, field.name), slice(self.buf, field.value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

impl ExactSizeIterator for Fields<'_> {}

impl<'b> Fields<'b> {
    /// The values of the fields called `name` (lowercase).
    fn called(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        let buf = self.buf;
        self.fields
            .as_slice()
            .iter()
            .filter(move |f| f.name.len as usize == name.len() && is_field_name(slice(buf, f.name), name.as_bytes()))
            .map(move |f| slice(buf, f.value))
    }
}

impl HeaderFields for Fields<'_> {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        self.called(name).nth(n)
    }

    fn any<'s>(&'s self, name: &str, test: &mut dyn FnMut(&'s [u8]) -> bool) -> bool {
        self.called(name).any(test)
    }
}

/// What a connection keeps between reads of a head: how far the search for its end went, and the index of the last one.
///
/// Cheap to create: it allocates with the first complete head. While a call returns `Ok(None)`, the next must be given
/// the same bytes with more behind them; after any other result the parser is ready for another head.
#[derive(Debug, Default)]
pub struct HeadParser {
    pub(super) scan: Scan,
    index: FieldIndex,
}

impl HeadParser {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes back the index of a head that is no longer needed, so that the next one allocates nothing.
    pub fn recycle(&mut self, head: impl Into<FieldIndex>) {
        self.index = head.into();
    }

    /// Forgets a head begun; the bytes were dropped.
    pub fn reset(&mut self) {
        self.scan = Scan::default();
    }

    /// Searches the end of the head; resets itself unless more bytes are needed.
    pub(super) fn find(&mut self, buf: &[u8], limits: &HeadLimits, leading: bool) -> Result<Option<Extent>, HeadError> {
        let found = self.scan.find(buf, &limits.bounded(), leading);
        if !matches!(found, Ok(None)) {
            self.reset();
        }
        found
    }

    /// The index of the last head that was recycled, emptied.
    pub(super) fn take_index(&mut self) -> FieldIndex {
        let mut index = std::mem::take(&mut self.index);
        index.0.clear();
        index
    }
}

/// Room for `httparse` to index fields in.
pub(super) type Slots<'b> = [MaybeUninit<httparse::Header<'b>>; HeadLimits::MAX_FIELDS];

/// As much of the room as the limits allow.
pub(super) fn allowed<'s, 'b>(
    slots: &'s mut Slots<'b>,
    limits: &HeadLimits,
) -> &'s mut [MaybeUninit<httparse::Header<'b>>] {
    slots.get_mut(..limits.bounded().fields).unwrap_or_default()
}

/// The faults that `httparse` names, in our words. `line` is the fault of the first line, which differs by message.
pub(super) fn fault(error: httparse::Error, line: HeadError) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::FieldName,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::NewLine => HeadError::BareCarriageReturn,
        httparse::Error::Token | httparse::Error::Version | httparse::Error::Status => line,
    }
}

/// What one pass over the fields finds, before it is judged as a request's or an answer's.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The kinds present, as bits.
    pub(super) seen: u64,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) options: Options,
    pub(super) host: Option<Span>,
    pub(super) te_trailers: bool,
    pub(super) max_forwards: Option<Span>,
    pub(super) web_socket_key: Option<Span>,
    pub(super) web_socket_version: Option<Span>,
}

impl Gathered {
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.seen & kind.bit() != 0
    }

    /// Indexes `headers` (slices of `buf`) and checks each field by itself and against its repetitions; those that mean
    /// something in requests only, with `request`.
    pub(super) fn index(
        buf: &[u8],
        headers: &[httparse::Header<'_>],
        index: &mut FieldIndex,
        request: bool,
    ) -> Result<Self, HeadError> {
        let mut all = Self::default();
        index.0.reserve(headers.len());
        for header in headers {
            let name = span_of(buf, header.name.as_bytes());
            let value = span_of(buf, header.value);
            let kind = field::classify(header.name.as_bytes());
            if kind != Kind::Other {
                let repeated = all.has(kind);
                all.seen |= kind.bit();
                all.note(kind, repeated, header.value)?;
                if request {
                    all.note_request(kind, repeated, header.value, value)?;
                }
            }
            let canonical = value.start() == name.end() + 2
                && buf.get(name.end()..value.start()) == Some(b": ")
                && buf.get(value.end()..value.end() + 2) == Some(b"\r\n");
            index.0.push(Field {
                name,
                value,
                kind,
                canonical,
            });
        }
        Ok(all)
    }

    /// Fields of both directions.
    fn note(&mut self, kind: Kind, repeated: bool, value: &[u8]) -> Result<(), HeadError> {
        match kind {
            Kind::ContentLength if repeated => return Err(HeadError::ContentLengthRepeated),
            Kind::ContentLength => self.length = Some(framing::parse_length(value)?),
            Kind::TransferEncoding if repeated => return Err(HeadError::TransferEncoding),
            Kind::TransferEncoding => {
                framing::check_coding(value)?;
                self.chunked = true;
            }
            Kind::Connection => self.options.add(value)?,
            _ => {}
        }
        Ok(())
    }

    /// Fields of requests.
    fn note_request(&mut self, kind: Kind, repeated: bool, value: &[u8], span: Span) -> Result<(), HeadError> {
        match kind {
            Kind::Host if repeated => return Err(HeadError::HostRepeated),
            Kind::Host => self.host = Some(span),
            Kind::Te => self.te_trailers |= list_elements(value).any(|e| e.eq_ignore_ascii_case(b"trailers")),
            Kind::Expect if !value.eq_ignore_ascii_case(b"100-continue") => return Err(HeadError::Expectation),
            // An empty span is no number, and no key: what is repeated is refused or passed over where it is read.
            Kind::MaxForwards => self.max_forwards = Some(if repeated { Span::default() } else { span }),
            Kind::WebSocketKey => self.web_socket_key = (!repeated).then_some(span),
            Kind::WebSocketVersion => self.web_socket_version = (!repeated).then_some(span),
            _ => {}
        }
        Ok(())
    }

    /// Whether `Connection` and `Upgrade` together speak of other protocols.
    pub(super) fn upgrades(&self) -> bool {
        self.options.upgrade && self.has(Kind::Upgrade)
    }
}
