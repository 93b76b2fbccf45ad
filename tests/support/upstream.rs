//! Upstreams on raw sockets: each answers as its closure says, keeps every byte it was sent, and lints it.

use super::tls::Wire;
use super::wire::{Buffered, Head, read_chunked};
use super::{PATIENCE, Port, lint_forwarded_request};
use socket2::SockRef;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the proxy itself asks for: probes, notifications, gates. The lint is for requests it forwards.
const OWN: [&str; 3] = [" /healthz ", " /events", " /gate/"];

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Received {
    pub head: Head,
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body was read to its end.
    pub complete: bool,
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// Its position on the connection, from 0.
    pub nth: usize,
    /// What the PROXY protocol header of the connection said, where one is expected: version, source and destination.
    pub told: Option<(u8, Option<[SocketAddr; 2]>)>,
}

/// What becomes of a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
    /// Closed with a TCP reset.
    Reset,
}

/// One request in the hands of an upstream's closure.
pub struct Exchange<'a> {
    pub request: Received,
    /// Position among all requests of the upstream, from 0.
    pub index: usize,
    io: &'a mut Buffered<Wire>,
    state: &'a State,
}

impl Exchange<'_> {
    /// Asks for the body if the client waits to be asked, reads it to its end (or to where it was cut) and keeps it.
    pub fn read_body(&mut self) -> &[u8] {
        if self.request.complete {
            return &self.request.body;
        }
        if self
            .request
            .head
            .get("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            self.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        if self.request.head.is_chunked() {
            if let Ok(chunked) = read_chunked(self.io) {
                self.request.body = chunked.body;
                self.request.trailers = chunked.trailers;
                self.request.complete = chunked.complete;
            }
        } else {
            let length = self.request.head.length().unwrap_or(0);
            self.request.body = self.io.take(length).unwrap_or_default();
            self.request.complete = self.request.body.len() == length;
        }
        let mut requests = self.state.requests.lock().unwrap();
        // A test may have forgotten it meanwhile, and others may stand in its place.
        let known = requests.get_mut(self.index);
        let is_this =
            |known: &&mut Received| (known.connection, known.nth) == (self.request.connection, self.request.nth);
        if let Some(known) = known.filter(is_this) {
            *known = self.request.clone();
        }
        drop(requests);
        &self.request.body
    }

    /// Says nothing more, until the peer has left.
    pub fn stay_silent(&mut self) -> Then {
        self.io.stream.read_to_end(&mut Vec::new()).ok();
        Then::Close
    }

    /// Sends raw bytes; a peer that has left is no error.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.stream.write_all(bytes.as_ref()).ok();
    }

    /// Whether the bytes could be sent.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.io.stream.write_all(bytes).is_ok()
    }

    /// A whole answer with the upstream's name and `Content-Length`.
    pub fn answer(&mut self, status: u16, fields: &[(&str, &str)], body: &[u8]) -> Then {
        let mut text = format!("HTTP/1.1 {status} Answer\r\nx-served-by: {}\r\n", self.state.name);
        for (name, value) in fields {
            text += &format!("{name}: {value}\r\n");
        }
        if status >= 200 && status != 204 && status != 304 {
            text += &format!("content-length: {}\r\n", body.len());
        }
        text += "\r\n";
        let body = if self.request.method == "HEAD" { b"" } else { body };
        self.send([text.as_bytes(), body].concat());
        Then::Keep
    }

    /// Agrees to a WebSocket (by the key of RFC 6455 section 1.3), says `first`, and then gives back every byte, those
    /// included that came with the request.
    pub fn echo_web_socket(&mut self, first: &str) -> Then {
        self.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n{first}"
        ));
        let early = std::mem::take(&mut self.io.bytes);
        self.send(early);
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = self.io.stream.read(&mut buffer) {
            self.send(&buffer[..read]);
        }
        Then::Close
    }

    /// The stream and what was read from it and not used: for tunnels.
    pub fn io(&mut self) -> &mut Buffered<Wire> {
        self.io
    }
}

type Handler = dyn Fn(&mut Exchange<'_>) -> Then + Send + Sync;

struct State {
    name: String,
    handler: Box<Handler>,
    requests: Mutex<Vec<Received>>,
    faults: Mutex<Vec<String>>,
    open: Mutex<HashMap<usize, TcpStream>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
    /// Connections begin with a PROXY protocol header.
    proxied: bool,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// What was seen of TLS handshakes, by connection.
    handshakes: Mutex<HashMap<usize, Shaken>>,
}

/// A TLS handshake as an upstream saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaken {
    pub sni: Option<String>,
    pub resumed: bool,
    pub shown: Option<Vec<u8>>,
}

/// A running upstream. Dropping it fails the test if a forwarded request broke the lint.
pub struct Upstream {
    port: Arc<Port>,
    state: Arc<State>,
}

impl Upstream {
    /// Reads each request whole and answers 200 with its name, in `x-served-by` and as the body.
    pub fn named(name: &str) -> Self {
        Self::with(name, answer_with_name)
    }

    /// `handler` gets each request when its head has arrived; it reads the body if it wants to.
    pub fn with(name: &str, handler: impl Fn(&mut Exchange<'_>) -> Then + Send + Sync + 'static) -> Self {
        Self::start(name, Arc::new(Port::reserved()), Box::new(handler), (false, None))
    }

    /// As [`Self::named`], by TLS.
    pub fn tls(name: &str, config: Arc<rustls::ServerConfig>) -> Self {
        Self::tls_with(name, config, answer_with_name)
    }

    /// As [`Self::with`], by TLS.
    pub fn tls_with(
        name: &str,
        config: Arc<rustls::ServerConfig>,
        handler: impl Fn(&mut Exchange<'_>) -> Then + Send + Sync + 'static,
    ) -> Self {
        Self::start(
            name,
            Arc::new(Port::reserved()),
            Box::new(handler),
            (false, Some(config)),
        )
    }

    /// The TLS handshakes of connections that brought a request, in the order of these.
    pub fn handshakes(&self) -> Vec<Shaken> {
        let seen = self.state.handshakes.lock().unwrap();
        let mut connections: Vec<_> = seen.iter().collect();
        connections.sort_by_key(|(connection, _)| **connection);
        connections.into_iter().map(|(_, shaken)| shaken.clone()).collect()
    }

    /// As [`Self::named`], behind PROXY protocol headers, of either version.
    pub fn proxied(name: &str) -> Self {
        Self::start(
            name,
            Arc::new(Port::reserved()),
            Box::new(answer_with_name),
            (true, None),
        )
    }

    /// The same answer, byte for byte, to every request, and what becomes of the connection.
    pub fn fixed(name: &str, answer: impl Into<Vec<u8>>, then: Then) -> Self {
        let answer = answer.into();
        Self::with(name, move |exchange| {
            exchange.read_body();
            exchange.send(&answer);
            then
        })
    }

    fn start(
        name: &str,
        port: Arc<Port>,
        handler: Box<Handler>,
        (proxied, tls): (bool, Option<Arc<rustls::ServerConfig>>),
    ) -> Self {
        let listener = port.listen();
        let state = Arc::new(State {
            name: name.to_owned(),
            handler,
            requests: Mutex::default(),
            faults: Mutex::default(),
            open: Mutex::default(),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            proxied,
            tls,
            handshakes: Mutex::default(),
        });
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// All requests so far, in the order their heads arrived.
    pub fn requests(&self) -> Vec<Received> {
        self.state.requests.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.state.requests.lock().unwrap().len()
    }

    /// Connections that brought at least one request.
    pub fn connections_used(&self) -> usize {
        let requests = self.state.requests.lock().unwrap();
        requests
            .iter()
            .map(|request| request.connection)
            .collect::<std::collections::HashSet<_>>()
            .len()
    }

    /// The last request.
    ///
    /// # Panics
    /// Without any.
    pub fn last(&self) -> Received {
        self.state
            .requests
            .lock()
            .unwrap()
            .last()
            .expect("a request arrived")
            .clone()
    }

    pub fn forget(&self) {
        self.state.requests.lock().unwrap().clear();
    }

    /// What `kill -9` looks like from outside: no listener, and every connection gone. Nobody else gets its port.
    pub fn kill(&self) {
        if !self.state.stopped.swap(true, Ordering::SeqCst) {
            // Wakes the accept loop, which then drops the listener.
            let connect = || TcpStream::connect(("127.0.0.1", self.port()));
            drop(connect());
            super::eventually(PATIENCE, "the listener is gone", || connect().is_err());
        }
        self.close_connections();
    }

    /// Closes every open connection, and goes on accepting.
    pub fn close_connections(&self) {
        for (_, stream) in self.state.open.lock().unwrap().drain() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// As [`Self::close_connections`], of connections whose peers take what is sent: returns when these, or their kernels, have
    /// heard it.
    pub fn close_connections_and_wait(&self) {
        let open = self.state.open.lock().unwrap();
        let peers: Vec<u16> = open.values().map(|stream| stream.peer_addr().unwrap().port()).collect();
        drop(open);
        self.close_connections();
        super::eventually(PATIENCE, "the peers have heard it", || {
            !peers.iter().any(|peer| is_unheard(self.port(), *peer))
        });
    }

    /// A new upstream on the port of this (killed) one, that answers with its name.
    pub fn revive(&self) -> Self {
        let handler = Box::new(answer_with_name);
        let kind = (self.state.proxied, self.state.tls.clone());
        Self::start(&self.state.name, Arc::clone(&self.port), handler, kind)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.kill();
        let faults = self.state.faults.lock().unwrap();
        if !std::thread::panicking() {
            assert!(faults.is_empty(), "forwarded to {}: {faults:#?}", self.state.name);
        }
    }
}

fn answer_with_name(exchange: &mut Exchange<'_>) -> Then {
    exchange.read_body();
    let name = exchange.state.name.clone();
    exchange.answer(200, &[], name.as_bytes())
}

/// A PROXY protocol header: its version, and the source where it tells one. Written for the tests alone.
fn proxy_header(io: &mut Buffered<Wire>) -> Option<(u8, Option<[SocketAddr; 2]>)> {
    let begin = io.take(6).ok()?;
    if begin == b"PROXY " {
        let line = String::from_utf8(io.take_until(b"\r\n").ok()??).unwrap();
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let address = |at: usize| SocketAddr::new(words[at].parse().unwrap(), words[at + 2].parse().unwrap());
        return Some((1, (words[0] != "UNKNOWN").then(|| [address(1), address(2)])));
    }
    let rest = io.take(10).ok()?;
    assert_eq!([&begin[..], &rest[..6]].concat(), b"\r\n\r\n\0\r\nQUIT\n");
    let payload = io.take(usize::from(rest[8]) * 256 + usize::from(rest[9])).ok()?;
    let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&payload[at..at + 4]).unwrap());
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&payload[at..at + 16]).unwrap());
    let pair = match (rest[6], rest[7]) {
        (0x20, 0x00) => None,
        (0x21, 0x11) => Some([(v4(0), port(8)), (v4(4), port(10))]),
        (0x21, 0x21) => Some([(v6(0), port(32)), (v6(16), port(34))]),
        other => panic!("command and family {other:?}"),
    };
    Some((2, pair.map(|pair| pair.map(SocketAddr::from))))
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming() {
        if state.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        stream.set_nodelay(true).unwrap();
        let number = state.connections.fetch_add(1, Ordering::SeqCst);
        state.open.lock().unwrap().insert(number, stream.try_clone().unwrap());
        let state = Arc::clone(state);
        std::thread::spawn(move || serve(stream, number, &state));
    }
}

fn serve(stream: TcpStream, connection: usize, state: &State) {
    let mut io = Buffered::new(match &state.tls {
        Some(config) => Wire::server(stream, config),
        None => Wire::Plain(stream),
    });
    let mut then = Then::Close;
    let told = if state.proxied { proxy_header(&mut io) } else { None };
    for nth in 0.. {
        // Health probes come without a request; they and broken connections end here.
        let Ok(Some(raw)) = io.take_until(b"\r\n\r\n") else {
            break;
        };
        if state.tls.is_some() {
            let shaken = Shaken {
                sni: io.stream.sni(),
                resumed: io.stream.is_resumed(),
                shown: io.stream.peer_certificate(),
            };
            state.handshakes.lock().unwrap().insert(connection, shaken);
        }
        let faults = lint_forwarded_request(&raw);
        let head = Head::parse(&raw).unwrap_or_default();
        if !faults.is_empty() && !OWN.iter().any(|own| head.start.contains(own)) {
            let text = format!("{faults:?} in {:?}", String::from_utf8_lossy(&raw));
            state.faults.lock().unwrap().push(text);
        }
        let mut words = head.start.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let request = Received {
            head,
            method,
            target,
            connection,
            nth,
            told,
            ..Received::default()
        };
        let index = {
            let mut requests = state.requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        then = (state.handler)(&mut Exchange {
            request,
            index,
            io: &mut io,
            state,
        });
        if then != Then::Keep {
            break;
        }
    }
    // The last handle decides how the connection ends.
    state.open.lock().unwrap().remove(&connection);
    if then == Then::Reset {
        reset(io.stream.tcp());
    }
}

/// Whether a connection of the loopback address is open, or the other end has not confirmed yet that this one has closed it.
fn is_unheard(local: u16, peer: u16) -> bool {
    let addresses = format!(" 0100007F:{local:04X} 0100007F:{peer:04X} ");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut states = table.lines().filter_map(|line| line.split_once(&addresses));
    // Established, FIN_WAIT1 and CLOSING, of `include/net/tcp_states.h` in Linux.
    states.any(|(_, state)| ["01", "04", "0B"].iter().any(|unheard| state.starts_with(unheard)))
}

/// Makes the stream end with a reset as soon as it is dropped.
pub fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A port whose connections are never completed: the listener's queue is full.
pub struct Blackhole {
    listener: socket2::Socket,
    queued: Vec<TcpStream>,
}

impl Blackhole {
    /// # Panics
    /// When the queue does not fill up.
    pub fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let mut hole = Self {
            listener,
            queued: Vec::new(),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], hole.port()));
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            hole.queued.push(stream);
            assert!(hole.queued.len() < 64, "the queue never fills");
        }
        hole
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().as_socket().unwrap().port()
    }
}
