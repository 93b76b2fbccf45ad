//! Other people's parsers, fed from memory: how hyper and httparse read the same bytes.

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request as another parser reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub host: String,
    pub body: Vec<u8>,
}

/// The requests of a stream, and whether the rest of it was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub seen: Vec<Seen>,
    pub refused: bool,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = runtime();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| tokio::task::LocalSet::new().block_on(runtime, future))
}

/// How hyper's server reads `bytes`.
pub fn hyper_server(bytes: &[u8]) -> Verdict {
    block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&seen);
        let service = service_fn(move |request: Request<Incoming>| {
            let kept = Rc::clone(&kept);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes().to_vec();
                let host = parts
                    .headers
                    .get("host")
                    .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
                kept.borrow_mut().push(Seen {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    host: host.unwrap_or_default(),
                    body,
                });
                Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        let served = server
            .half_close(true)
            .serve_connection(TokioIo::new(ours), service)
            .await;
        let mut out = Vec::new();
        theirs.read_to_end(&mut out).await.unwrap();
        let refused = served.is_err_and(|error| !error.is_incomplete_message())
            || ["400", "414", "431"]
                .iter()
                .any(|status| out.starts_with(format!("HTTP/1.1 {status}").as_bytes()));
        let seen = seen.borrow().clone();
        Verdict { seen, refused }
    })
}

/// The status and body of the answer in `bytes`, as hyper's client reads it; or why it does not.
pub fn hyper_client(bytes: &[u8], method: &str) -> Result<(u16, Vec<u8>), String> {
    block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours))
            .await
            .map_err(|e| e.to_string())?;
        let running = tokio::task::spawn_local(connection);
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header("host", "a")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request);
        let feed = async {
            let mut first = [0; 1];
            theirs.read_exact(&mut first).await.unwrap();
            theirs.write_all(bytes).await.unwrap();
            theirs.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(answer, feed);
        let answer = answer.map_err(|e| format!("{e:?}"))?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|e| format!("{e:?}"))?;
        running.abort();
        Ok::<_, String>((status, body.to_bytes().to_vec()))
    })
}

/// How httparse reads `bytes`, with the least that can be written around it.
pub fn httparse_all(bytes: &[u8]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match httparse_one(rest) {
            Ok(Some((seen, after))) => {
                verdict.seen.push(seen);
                rest = after;
            }
            Ok(None) => return verdict,
            Err(()) => {
                verdict.refused = true;
                return verdict;
            }
        }
    }
    verdict
}

fn httparse_one(bytes: &[u8]) -> Result<Option<(Seen, &[u8])>, ()> {
    let mut slots = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut slots);
    let httparse::Status::Complete(head) = request.parse(bytes).map_err(|_| ())? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let found = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.map(|h| String::from_utf8_lossy(h.value).into_owned())
    };
    let mut seen = Seen {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        host: value("host").unwrap_or_default(),
        body: Vec::new(),
    };
    let mut rest = &bytes[head..];
    if value("transfer-encoding").is_some() {
        loop {
            let httparse::Status::Complete((line, size)) = httparse::parse_chunk_size(rest).map_err(|_| ())? else {
                return Ok(None);
            };
            let size = usize::try_from(size).map_err(|_| ())?;
            if size == 0 {
                rest = &rest[line..];
                break;
            }
            let Some(data) = rest.get(line..line + size + 2) else {
                return Ok(None);
            };
            seen.body.extend_from_slice(&data[..size]);
            rest = &rest[line + size + 2..];
        }
        let mut slots = [httparse::EMPTY_HEADER; 128];
        return match httparse::parse_headers(rest, &mut slots).map_err(|_| ())? {
            httparse::Status::Complete((trailers, _)) => Ok(Some((seen, &rest[trailers..]))),
            httparse::Status::Partial => Ok(None),
        };
    }
    let length = value("content-length")
        .map_or(Ok(0), |v| v.parse::<usize>())
        .map_err(|_| ())?;
    match rest.get(..length) {
        None => Ok(None),
        Some(body) => {
            seen.body = body.to_vec();
            Ok(Some((seen, &rest[length..])))
        }
    }
}
