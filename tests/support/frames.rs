//! HTTP/2 by hand: a client that sends the frames it is told, right or wrong, and reads what comes. It shares no code with
//! what it tests; of HPACK it writes literals, and reads no more than a status.

use super::PATIENCE;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITIZED: u8 = 0x20;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame, as it came or is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.as_ref().to_vec(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], self.kind, self.flags];
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The error of a RST_STREAM or a GOAWAY.
    pub fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status that a HEADERS frame begins with.
    pub fn status(&self) -> u16 {
        match *self.payload.as_slice() {
            [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            [0x48, length, ref rest @ ..] => {
                let text = &rest[..usize::from(length & 0x7f)];
                if length & 0x80 == 0 {
                    std::str::from_utf8(text).unwrap().parse().unwrap()
                } else {
                    huffman_digits(text)
                }
            }
            // A size update comes first.
            [first, ref rest @ ..] if first & 0xe0 == 0x20 => Frame::new(HEADERS, 0, 1, rest).status(),
            // From the dynamic table: said before on this connection, and not remembered here.
            _ => 0,
        }
    }
}

/// Three digits (RFC 7541 appendix B).
fn huffman_digits(text: &[u8]) -> u16 {
    let bits: String = text.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut at, mut digits) = (0, String::new());
    while digits.len() < 3 {
        let (length, base) = match &bits[at..at + 5] {
            "00000" | "00001" | "00010" => (5, 0),
            _ => (6, 0x19 - 3),
        };
        let code = u8::from_str_radix(&bits[at..at + length], 2).unwrap();
        digits.push(char::from(b'0' + code - base));
        at += length;
    }
    digits.parse().unwrap()
}

/// Fields as literals that are not indexed, without Huffman coding.
pub fn hpack(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name.as_bytes());
        string(&mut block, value.as_bytes());
    }
    block
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        block.push(text.len() as u8);
    } else {
        block.push(127);
        let mut left = text.len() - 127;
        while left >= 128 {
            block.push((left % 128) as u8 | 128);
            left /= 128;
        }
        block.push(left as u8);
    }
    block.extend(text);
}

/// The fields of an ordinary request.
pub const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "shop.example"),
];

pub const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "shop.example"),
];

/// One connection.
pub struct RawClient {
    stream: TcpStream,
    buffered: Vec<u8>,
}

/// What became of a stream or its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer: its status and body.
    Answer(u16, Vec<u8>),
    /// RST_STREAM.
    Reset(u32),
    /// GOAWAY with an error.
    GoAway(u32),
    /// The connection ended without a word, or with a GOAWAY that says NO_ERROR.
    Closed,
    /// Nothing came any more.
    Silent,
}

impl RawClient {
    /// Connected, and nothing sent.
    pub fn connect(port: u16) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", port)).expect("connect"))
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            buffered: Vec::new(),
        }
    }

    /// Connected and greeted: settings were exchanged.
    pub fn greeted(port: u16) -> Self {
        let mut client = Self::connect(port);
        client.send_bytes(PREFACE).send(SETTINGS, 0, 0, "");
        let settings = client.read().expect("settings");
        assert_eq!((settings.kind, settings.flags), (SETTINGS, 0));
        client.send(SETTINGS, ACK, 0, "");
        client
    }

    /// A peer that has closed already is no error here: what is read tells.
    pub fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).ok();
        self
    }

    /// Whether it could be sent: the peer has not closed.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> &mut Self {
        self.send_bytes(Frame::new(kind, flags, stream, payload).bytes())
    }

    /// A request without a body.
    pub fn request(&mut self, stream: u32, fields: &[(&str, &str)]) -> &mut Self {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, hpack(fields))
    }

    /// The head of a request with a body.
    pub fn head(&mut self, stream: u32, fields: &[(&str, &str)]) -> &mut Self {
        self.send(HEADERS, END_HEADERS, stream, hpack(fields))
    }

    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// The next frame; `None`: the connection has ended.
    ///
    /// # Errors
    /// Nothing came in time.
    pub fn try_read(&mut self) -> io::Result<Option<Frame>> {
        let Some(header) = self.take(9)? else { return Ok(None) };
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let Some(payload) = self.take(length)? else {
            return Ok(None);
        };
        Ok(Some(Frame {
            kind: header[3],
            flags: header[4],
            stream: u32::from_be_bytes(header[5..9].try_into().unwrap()),
            payload,
        }))
    }

    /// # Panics
    /// When nothing comes in time.
    pub fn read(&mut self) -> Option<Frame> {
        self.try_read().expect("a frame in time")
    }

    fn take(&mut self, length: usize) -> io::Result<Option<Vec<u8>>> {
        let mut part = [0; 16 * 1024];
        while self.buffered.len() < length {
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(None),
                Ok(n) => self.buffered.extend(&part[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(error);
                }
                // A process that was stopped and goes on has missed nothing.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(self.buffered.drain(..length).collect()))
    }

    /// Reads until a frame of which `wanted` holds; acknowledges settings on the way.
    ///
    /// # Panics
    /// When the connection ends, or nothing comes in time.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.read().unwrap_or_else(|| panic!("{what}: the connection ended"));
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// What becomes of `stream`: reads on, for `patience` of silence at most.
    pub fn outcome(&mut self, stream: u32, patience: Duration) -> Outcome {
        self.set_patience(patience);
        let (mut status, mut body) = (0, Vec::new());
        let deadline = Instant::now() + PATIENCE;
        let mut last_word = Outcome::Closed;
        while Instant::now() < deadline {
            let frame = match self.try_read() {
                Err(_) => return Outcome::Silent,
                Ok(None) => return last_word,
                Ok(Some(frame)) => frame,
            };
            match frame.kind {
                GOAWAY if frame.error() != NO_ERROR => last_word = Outcome::GoAway(frame.error()),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(frame.error()),
                HEADERS if frame.stream == stream && status < 200 => status = frame.status(),
                DATA if frame.stream == stream => body.extend(&frame.payload),
                _ => {}
            }
            if frame.stream == stream && matches!(frame.kind, DATA | HEADERS) && frame.has(END_STREAM) {
                return Outcome::Answer(status, body);
            }
        }
        Outcome::Silent
    }

    /// The stream of the next request of which the head is there; `None`: the connection has ended. As a server.
    pub fn next_request(&mut self) -> Option<u32> {
        self.serve_until(|frame| frame.kind == HEADERS)
    }

    /// The stream of the next request that is there to its end, and small: an answer to it is not an early one. As a server.
    pub fn next_whole_request(&mut self) -> Option<u32> {
        self.serve_until(|frame| matches!(frame.kind, HEADERS | DATA) && frame.has(END_STREAM))
    }

    /// The stream of the next frame of which `wanted` holds; acknowledges settings on the way.
    fn serve_until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<u32> {
        loop {
            let frame = self.try_read().ok().flatten()?;
            if wanted(&frame) {
                return Some(frame.stream);
            }
            if frame.kind == SETTINGS && !frame.has(ACK) {
                self.send(SETTINGS, ACK, 0, "");
            }
        }
    }

    /// Answers 200 with this body. As a server.
    pub fn respond(&mut self, stream: u32, body: &str) -> &mut Self {
        self.send(HEADERS, END_HEADERS, stream, [0x88]);
        self.send(DATA, END_STREAM, stream, body)
    }

    /// The answer to a request on `stream`.
    ///
    /// # Panics
    /// Without a whole one.
    pub fn answer(&mut self, stream: u32) -> (u16, Vec<u8>) {
        match self.outcome(stream, PATIENCE) {
            Outcome::Answer(status, body) => (status, body),
            other => panic!("stream {stream}: {other:?}"),
        }
    }

    /// Whether a ping is answered: the connection lives.
    pub fn lives(&mut self) -> bool {
        let mark = *b"are you?";
        self.send(PING, 0, 0, mark);
        self.set_patience(PATIENCE);
        while let Ok(Some(frame)) = self.try_read() {
            if frame.kind == PING && frame.has(ACK) && frame.payload == mark {
                return true;
            }
            if frame.kind == GOAWAY && frame.error() != NO_ERROR {
                return false;
            }
        }
        false
    }
}

/// Serves connections whose clients speak HTTP/2 with prior knowledge, each in a thread of its own.
pub struct RawServer {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl RawServer {
    /// `settings`: the payload of its SETTINGS. `serve` gets each connection behind its preface, with its position.
    pub fn start(settings: &'static [u8], serve: impl Fn(&mut RawClient, usize) + Send + Sync + 'static) -> Self {
        Self::silent(move |client, connection| {
            client.send(SETTINGS, 0, 0, settings);
            serve(client, connection);
        })
    }

    /// Its SETTINGS are the business of `serve`.
    pub fn silent(serve: impl Fn(&mut RawClient, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (serve, count) = (Arc::new(serve), Arc::clone(&connections));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (serve, count) = (Arc::clone(&serve), Arc::clone(&count));
                std::thread::spawn(move || {
                    let mut client = RawClient::over(stream);
                    // A health check that only connects says nothing.
                    if client.take(PREFACE.len()).ok().flatten().as_deref() == Some(PREFACE) {
                        serve(&mut client, count.fetch_add(1, Ordering::SeqCst));
                    }
                });
            }
        });
        Self { port, connections }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections on which HTTP/2 was spoken.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

#[test]
fn a_status_is_read_however_it_is_written() {
    let status = |payload: &[u8]| Frame::new(HEADERS, 0, 1, payload).status();
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x20, 0x8d]), 404);
    assert_eq!(status(&[0x48, 3, b'5', b'0', b'3']), 503);
    // RFC 7541 appendix C.6: 302 and 307.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
    assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), 307);
    assert_eq!(status(&[0x48, 0x82, 0x10, 0x01]), 200);
}
