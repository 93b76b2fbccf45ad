//! A strict reader of HTTP/1.1 messages, written for the tests alone.

use std::io::{self, Read};

/// A start line and its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// All bytes up to and including the empty line.
    pub raw: Vec<u8>,
    pub start: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// # Errors
    /// What is wrong, where the bytes are no head: any line without CRLF, a field without a colon, a control character.
    pub fn parse(raw: &[u8]) -> Result<Self, String> {
        // Values may hold any byte above 127 (obs-text, RFC 9110 section 5.5).
        let text: String = raw.iter().copied().map(char::from).collect();
        let body = text
            .strip_suffix("\r\n\r\n")
            .ok_or("head does not end in an empty line")?;
        let mut lines = body.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(format!("field name {name:?}"));
            }
            fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
        if body
            .replace("\r\n", "")
            .chars()
            .any(|c| c.is_ascii_control() && c != '\t')
        {
            return Err(format!("control character in {body:?}"));
        }
        Ok(Self {
            raw: raw.to_vec(),
            start,
            fields,
        })
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The value of the first field of this (lowercase) name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn is_chunked(&self) -> bool {
        self.all("transfer-encoding").any(|v| v.eq_ignore_ascii_case("chunked"))
    }

    /// # Panics
    /// When `Content-Length` is no number.
    pub fn length(&self) -> Option<usize> {
        self.get("content-length")
            .map(|v| v.parse().expect("Content-Length is a number"))
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Bytes read from a stream and not yet used.
pub struct Buffered<R> {
    pub stream: R,
    pub bytes: Vec<u8>,
}

impl<R: Read> Buffered<R> {
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    /// Reads once more. `false` at the end of the stream.
    pub fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0_u8; 16 * 1024];
        let read = loop {
            match self.stream.read(&mut chunk) {
                // A process that was stopped and goes on has missed nothing.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.bytes.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }

    /// Bytes up to and including `end`; `None` when the stream ends before.
    pub fn take_until(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut from = 0;
        loop {
            if let Some(at) = find(&self.bytes[from..], end) {
                return Ok(Some(self.bytes.drain(..from + at + end.len()).collect()));
            }
            from = self.bytes.len().saturating_sub(end.len() - 1);
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Exactly `count` bytes, or fewer when the stream ends before.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.bytes.len() < count && self.fill()? {}
        let count = count.min(self.bytes.len());
        Ok(self.bytes.drain(..count).collect())
    }
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A chunked body: its content, its trailers, whether it was complete.
#[derive(Debug, Default)]
pub struct Chunked {
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub complete: bool,
}

/// # Errors
/// Of the stream, or `InvalidData` where the bytes are no chunks.
pub fn read_chunked<R: Read>(from: &mut Buffered<R>) -> io::Result<Chunked> {
    let mut chunked = Chunked::default();
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    loop {
        let Some(line) = from.take_until(b"\r\n")? else {
            return Ok(chunked);
        };
        let line = String::from_utf8(line).map_err(|e| invalid(e.to_string()))?;
        let digits = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(|_| invalid(format!("chunk size {line:?}")))?;
        if size == 0 {
            break;
        }
        let data = from.take(size)?;
        let whole = data.len() == size;
        chunked.body.extend(data);
        let end = from.take(2)?;
        if !whole || end.len() < 2 {
            return Ok(chunked);
        }
        if end != b"\r\n" {
            return Err(invalid(format!("chunk ends in {end:?}")));
        }
    }
    loop {
        let Some(line) = from.take_until(b"\r\n")? else {
            return Ok(chunked);
        };
        if line == b"\r\n" {
            chunked.complete = true;
            return Ok(chunked);
        }
        let line = String::from_utf8(line).map_err(|e| invalid(e.to_string()))?;
        let (name, value) = line
            .trim_end()
            .split_once(':')
            .ok_or_else(|| invalid(format!("trailer {line:?}")))?;
        chunked
            .trailers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}
