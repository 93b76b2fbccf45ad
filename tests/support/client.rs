//! A client on a raw socket: it sends what it is told, and believes nothing.

use super::PATIENCE;
use super::tls::{Trust, Wire};
use super::wire::{Buffered, Head, read_chunked};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

pub struct Client {
    buffered: Buffered<Wire>,
}

/// The fields that ask for a WebSocket, with the key of RFC 6455 section 1.3.
pub const WEB_SOCKET: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

/// A final answer, with the interim ones before it.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub interim: Vec<Head>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the connection ends with this answer.
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The name of the upstream that answered.
    pub fn served_by(&self) -> &str {
        self.header("x-served-by").unwrap_or("nobody")
    }
}

/// Why no whole answer came.
#[derive(Debug)]
pub enum Broken {
    /// The connection was closed or reset before the first byte.
    Closed,
    /// It was closed or reset in the middle; with what had come.
    Cut(Box<Response>),
    /// Nothing came in time.
    Silent,
    Malformed(String),
}

impl Client {
    /// # Panics
    /// When the connection is refused.
    pub fn connect(port: u16) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", port)).expect("connect"))
    }

    /// On a connection made otherwise.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self::on(Wire::Plain(stream))
    }

    fn on(wire: Wire) -> Self {
        Self {
            buffered: Buffered::new(wire),
        }
    }

    /// By TLS, to `name`.
    ///
    /// # Errors
    /// The handshake fails.
    pub fn try_connect_tls(port: u16, trust: &Trust, name: &str) -> io::Result<Self> {
        Self::connect(port).upgrade(trust, name)
    }

    /// As [`Self::try_connect_tls`].
    ///
    /// # Panics
    /// When the handshake fails.
    pub fn connect_tls(port: u16, trust: &Trust, name: &str) -> Self {
        Self::try_connect_tls(port, trust, name).unwrap_or_else(|error| panic!("no TLS with {name}: {error}"))
    }

    /// TLS on this connection.
    ///
    /// # Errors
    /// The handshake fails.
    pub fn upgrade(self, trust: &Trust, name: &str) -> io::Result<Self> {
        let Wire::Plain(tcp) = self.buffered.stream else {
            panic!("TLS already");
        };
        trust.connect(tcp, name).map(Self::on)
    }

    pub fn stream(&self) -> &TcpStream {
        self.buffered.stream.tcp()
    }

    pub fn wire(&self) -> &Wire {
        &self.buffered.stream
    }

    /// Sends bytes. A peer that has already closed is not an error here: the answer tells.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.buffered.stream.write_all(bytes.as_ref()).ok();
        self
    }

    /// # Errors
    /// As [`Write::write_all`]: for tests of back-pressure.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffered.stream.write_all(bytes)
    }

    /// A `GET` and its answer.
    ///
    /// # Panics
    /// Without a whole answer.
    pub fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.request("GET", path, fields, b"")
    }

    /// A request with `Host` (unless given) and, with a body, `Content-Length`; and its answer.
    ///
    /// # Panics
    /// Without a whole answer.
    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(request_bytes(method, path, fields, body));
        self.read(method == "HEAD")
            .unwrap_or_else(|broken| panic!("{method} {path}: {broken:?}"))
    }

    /// Like [`Self::request`], and gives back what went wrong.
    ///
    /// # Errors
    /// Without a whole answer.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Broken> {
        self.send(request_bytes(method, path, fields, body));
        self.read(method == "HEAD")
    }

    /// Reads the next final answer. `to_head`: it answers a HEAD and has no body.
    ///
    /// # Errors
    /// Without a whole answer.
    pub fn read(&mut self, to_head: bool) -> Result<Response, Broken> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.read_head()?;
            if response.status < 200 && response.status != 101 {
                interim.push(response.head);
                continue;
            }
            response.interim = interim;
            return self.read_body(response, to_head);
        }
    }

    /// Reads one head, interim or final.
    ///
    /// # Errors
    /// Without a whole head.
    pub fn read_head(&mut self) -> Result<Response, Broken> {
        let raw = match self.buffered.take_until(b"\r\n\r\n") {
            Ok(Some(raw)) => raw,
            Ok(None) if self.buffered.bytes.is_empty() => return Err(Broken::Closed),
            Ok(None) => return Err(Broken::Cut(Box::default())),
            Err(error) if is_timeout(&error) => return Err(Broken::Silent),
            Err(_) if self.buffered.bytes.is_empty() => return Err(Broken::Closed),
            Err(_) => return Err(Broken::Cut(Box::default())),
        };
        let head = Head::parse(&raw).map_err(Broken::Malformed)?;
        let malformed = || Broken::Malformed(format!("status line {:?}", head.start));
        let rest = head.start.strip_prefix("HTTP/1.1 ").ok_or_else(malformed)?;
        let status = rest.get(..3).and_then(|s| s.parse().ok()).ok_or_else(malformed)?;
        Ok(Response {
            status,
            head,
            ..Response::default()
        })
    }

    fn read_body(&mut self, mut response: Response, to_head: bool) -> Result<Response, Broken> {
        if to_head || response.status == 204 || response.status == 304 || response.status == 101 {
            return Ok(response);
        }
        if response.head.is_chunked() {
            if response.head.length().is_some() {
                return Err(Broken::Malformed("Content-Length beside Transfer-Encoding".into()));
            }
            return match read_chunked(&mut self.buffered) {
                Ok(chunked) => {
                    (response.body, response.trailers) = (chunked.body, chunked.trailers);
                    if chunked.complete {
                        Ok(response)
                    } else {
                        Err(Broken::Cut(Box::new(response)))
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Broken::Malformed(error.to_string())),
                Err(error) if is_timeout(&error) => Err(Broken::Silent),
                Err(_) => Err(Broken::Cut(Box::new(response))),
            };
        }
        let length = response.head.length();
        match self.buffered.take(length.unwrap_or(usize::MAX)) {
            Ok(body) => response.body = body,
            Err(error) if is_timeout(&error) => return Err(Broken::Silent),
            Err(_) => {
                response.body = std::mem::take(&mut self.buffered.bytes);
                return Err(Broken::Cut(Box::new(response)));
            }
        }
        if length.is_some_and(|length| response.body.len() < length) {
            return Err(Broken::Cut(Box::new(response)));
        }
        Ok(response)
    }

    /// Exactly `count` bytes as they come: for tunnels.
    ///
    /// # Panics
    /// When the stream ends or fails before.
    pub fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.buffered.take(count).expect("read");
        assert_eq!(
            bytes.len(),
            count,
            "the stream ended after {:?}",
            String::from_utf8_lossy(&bytes)
        );
        bytes
    }

    /// Whether the peer closes within `within`, without another byte.
    pub fn is_closed_within(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.buffered.bytes.is_empty() {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return false;
            }
            self.set_read_timeout(rest);
            let read = self.buffered.fill();
            self.set_read_timeout(PATIENCE);
            match read {
                Ok(false) => return true,
                Ok(true) => {}
                Err(error) if is_timeout(&error) => return false,
                Err(_) => return true,
            }
        }
        false
    }

    pub fn set_read_timeout(&self, timeout: Duration) {
        self.stream()
            .set_read_timeout(Some(timeout.max(Duration::from_millis(1))))
            .unwrap();
    }

    /// Says that nothing more will be sent, and still reads.
    pub fn half_close(&self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }

    /// Leaves with a reset.
    pub fn reset(self) {
        super::reset(self.stream());
    }
}

fn request_bytes(method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text += "host: shop.example.com\r\n";
    }
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("content-length: {}\r\n", body.len());
    }
    text += "\r\n";
    [text.as_bytes(), body].concat()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
