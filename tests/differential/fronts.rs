//! What stands before the upstream: a bare pingora-proxy in this process, or the real rollgate; and a client that gives
//! either the same bytes and keeps all it answers.

use super::reading::{self, End, Message, Reading, Stop};
use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::{Stream, l4};
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// pingora-proxy with nothing added.
struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    fn suppress_error_log(&self, _: &Session, (): &(), _: &pingora_core::Error) -> bool {
        true
    }
}

/// Starts it in front of `upstream`, and gives its port.
pub fn pingora(upstream: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let upstream = SocketAddr::from(([127, 0, 0, 1], upstream));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let proxy = Arc::new(http_proxy(&Arc::new(ServerConf::default()), Bare { upstream }));
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (_stop, stopping) = tokio::sync::watch::channel(false);
            while let Ok((tcp, _)) = listener.accept().await {
                let (proxy, stopping) = (Arc::clone(&proxy), stopping.clone());
                tcp.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let stream: Stream = Box::new(l4::stream::Stream::from(tcp));
                    proxy.process_new(stream, &stopping).await;
                });
            }
        });
    });
    port
}

/// What a front made of a stream.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The final answers.
    pub answers: Vec<Message>,
    /// All bytes, interim answers too.
    pub raw: Vec<u8>,
    /// It ended the connection before the client had finished.
    pub closed_first: bool,
    /// The connection ended with a reset.
    pub reset: bool,
    /// Nothing came for the whole patience.
    pub silent: bool,
    /// What the bytes behind the last whole answer are.
    pub rest: Stop,
}

impl Outcome {
    pub fn statuses(&self) -> Vec<u16> {
        self.answers.iter().map(|answer| answer.status).collect()
    }
}

/// How the client deals with a front.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub patience: Duration,
    /// After a refusal the front has to close by itself.
    pub demands_close: bool,
}

/// Nothing came in time, or the process was stopped meanwhile.
fn is_no_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Sends `pieces`, whose `reading` is known; reads all that comes back. The client says that it has finished when it has
/// the answers that are due: before, it might be taken for one that left.
pub fn converse(port: u16, pieces: &[&[u8]], reading: &Reading, manner: Manner) -> Outcome {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_nodelay(true).unwrap();
    for (nth, piece) in pieces.iter().enumerate() {
        if nth > 0 {
            // So that the pieces arrive apart; nothing depends on it.
            std::thread::sleep(Duration::from_millis(1));
        }
        stream.write_all(piece).ok();
    }
    let bytes = pieces.concat();
    let methods = reading.methods(&bytes);
    let refusal = matches!(reading.end, End::Malformed(_));
    let due = reading.messages.len() + usize::from(refusal);
    let must_close = manner.demands_close && (refusal || reading.end == End::Closed);
    let mut outcome = Outcome {
        answers: Vec::new(),
        raw: Vec::new(),
        closed_first: false,
        reset: false,
        silent: false,
        rest: Stop::Incomplete,
    };
    let mut finished = false;
    let mut deadline = Instant::now() + manner.patience;
    let mut chunk = [0; 16 * 1024];
    loop {
        let answered = reading::answers(&outcome.raw, &methods, false).0.len();
        if !finished && answered >= due && !must_close {
            stream.shutdown(Shutdown::Write).ok();
            finished = true;
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            outcome.silent = true;
            if finished {
                break;
            }
            stream.shutdown(Shutdown::Write).ok();
            finished = true;
            deadline = Instant::now() + manner.patience;
            continue;
        }
        stream.set_read_timeout(Some(rest)).unwrap();
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => outcome.raw.extend_from_slice(&chunk[..read]),
            Err(error) if is_no_end(error.kind()) => {}
            Err(_) => {
                outcome.reset = true;
                break;
            }
        }
    }
    outcome.closed_first = !finished;
    (outcome.answers, outcome.rest) = reading::answers(&outcome.raw, &methods, !outcome.reset);
    outcome
}
