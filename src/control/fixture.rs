//! A receiver of webhooks on a real socket, for tests: it answers as it is told, and remembers what it was sent.

use crate::rollout::Url;
use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub enum Reply {
    /// These bytes, then the connection closes.
    Bytes(Vec<u8>),
    /// The same after a while.
    Slow(Duration, Vec<u8>),
    /// Nothing, ever.
    Silence,
    /// A head that promises more, then one byte a time.
    Trickle,
    /// 200 and a body without end.
    Endless,
}

/// An answer with a status line such as `200 OK`.
pub fn status(line: &str, body: &str) -> Reply {
    with_header(line, "x-a: b", body)
}

pub fn with_header(line: &str, header: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(format!("HTTP/1.1 {line}\r\n{header}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
}

#[derive(Debug, Clone)]
pub struct Received {
    /// `POST /hook HTTP/1.1`
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &**value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

struct Inner {
    received: Mutex<Vec<Received>>,
    reply: Mutex<Reply>,
    tls: Option<TlsAcceptor>,
}

/// Its connections end with it.
pub struct Receiver {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    pub async fn new(reply: Reply) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), reply, None).await
    }

    /// On an address that was another's, perhaps.
    pub async fn on(address: SocketAddr, reply: Reply, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let inner = Arc::new(Inner {
            received: Mutex::default(),
            reply: Mutex::new(reply),
            tls: tls.map(TlsAcceptor::from),
        });
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&inner)));
        Self {
            address,
            inner,
            accepting,
        }
    }

    pub fn url(&self, path: &str) -> Url {
        Url::new(&format!("http://{}{path}", self.address))
    }

    pub fn reply(&self, reply: Reply) {
        *self.inner.reply.lock().unwrap() = reply;
    }

    pub fn received(&self) -> Vec<Received> {
        self.inner.received.lock().unwrap().clone()
    }

    /// What it was sent, once that is `count` requests.
    pub async fn after(&self, count: usize) -> Vec<Received> {
        eventually("enough requests have come", || self.received().len() >= count).await;
        self.received()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An address at which nobody listens. While this is held the kernel gives its port to no one who asks for any, as other
/// tests do; who asks for this one gets it ([`Receiver::on`]).
pub struct Nobody {
    pub address: SocketAddr,
    _held: Socket,
}

impl Nobody {
    pub fn url(&self, path: &str) -> Url {
        Url::new(&format!("http://{}{path}", self.address))
    }
}

pub fn nobody() -> Nobody {
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.set_reuse_address(true).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();
    Nobody { address, _held: held }
}

/// Polls until `is_so`.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    // Dropped with the task: then the connections end, too.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let inner = Arc::clone(&inner);
        connections.spawn(async move {
            match &inner.tls {
                // A client that does not trust us leaves.
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => serve(stream, &inner).await,
                    Err(_) => None,
                },
                None => serve(stream, &inner).await,
            }
        });
    }
}

/// `None`: the client has gone.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, inner: &Inner) -> Option<()> {
    let received = read(&mut stream).await?;
    inner.received.lock().unwrap().push(received);
    let reply = inner.reply.lock().unwrap().clone();
    match reply {
        Reply::Bytes(bytes) => stream.write_all(&bytes).await.ok()?,
        Reply::Slow(pause, bytes) => {
            tokio::time::sleep(pause).await;
            stream.write_all(&bytes).await.ok()?;
        }
        Reply::Silence => std::future::pending().await,
        Reply::Trickle => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                .await
                .ok()?;
            loop {
                stream.write_all(b"x").await.ok()?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
            loop {
                stream.write_all(&[b'x'; 16 << 10]).await.ok()?;
            }
        }
    }
    stream.shutdown().await.ok()
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<_> = lines
        .map(|field| field.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = bytes[head_end + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received { line, headers, body })
}
