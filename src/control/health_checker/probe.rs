//! One probe of one endpoint: a connection, a page, or the word of `grpc.health.v1.Health`
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use crate::config::snapshot::{HealthCheck, Probe};
use crate::http2::grpc;
use crate::opening::write_proxy_header;
use crate::shared::{Endpoint, explain_tls};
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::error::Error as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes of a health page that are read before the connection is closed.
const PAGE_MOST: usize = 64 << 10;

const GRPC_PATH: &str = "/grpc.health.v1.Health/Check";

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("no TLS: {}", explain_tls(.0))]
    Tls(std::io::Error),
    #[error("no HTTP/2: the endpoint does not agree on it (ALPN `h2`)")]
    NoHttp2,
    #[error("no answer in time")]
    Timeout,
    #[error("the probe cannot be written: {0}")]
    Request(#[from] http::Error),
    #[error("no valid answer: {}", no_answer(.0))]
    Answer(#[from] hyper::Error),
    #[error("status {0}")]
    Status(http::StatusCode),
    /// gRPC's status in place of an answer.
    #[error("grpc-status {0}{hint}", hint = hint(*.0))]
    GrpcStatus(u32),
    #[error("an answer that is none of `grpc.health.v1.Health`")]
    NoHealth,
    #[error("it says that it is {}", serving_status(*.0))]
    NotServing(u64),
}

/// In TLS 1.3 an endpoint's refusal comes after our handshake is done.
fn no_answer(error: &hyper::Error) -> String {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.map_or_else(|| error.to_string(), explain_tls)
}

/// One probe.
///
/// # Errors
/// The endpoint is not healthy, and why.
pub async fn probe(endpoint: &Endpoint, check: &HealthCheck) -> Result<(), ProbeError> {
    let mut stream = TcpStream::connect(endpoint.address)
        .await
        .map_err(ProbeError::Connect)?;
    if let Some(version) = endpoint.transport.send_proxy_protocol {
        let mut header = Vec::new();
        write_proxy_header(&mut header, version, None);
        stream.write_all(&header).await.map_err(ProbeError::Connect)?;
    }
    let Some(tls) = &endpoint.transport.tls else {
        return ask(stream, endpoint, check).await;
    };
    let config = tls.settings.load().0;
    let config = config.ok_or_else(|| ProbeError::Tls(std::io::Error::other("the pool's `tls` cannot be used")))?;
    let connector = TlsConnector::from(config);
    let stream = connector
        .connect(tls.name.clone(), stream)
        .await
        .map_err(ProbeError::Tls)?;
    if endpoint.transport.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(ProbeError::NoHttp2);
    }
    ask(stream, endpoint, check).await
}

/// What a status of gRPC most likely means where health was asked for.
fn hint(status: u32) -> &'static str {
    match status {
        5 => ": it does not know the service that `health_check.grpc` names",
        12 => ": it has no `grpc.health.v1.Health`",
        _ => "",
    }
}

fn serving_status(status: u64) -> &'static str {
    match status {
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "of no status that is known",
    }
}

/// The question of a probe on its connection, if it has one: in the version of HTTP that requests are sent in.
async fn ask<S>(stream: S, endpoint: &Endpoint, check: &HealthCheck) -> Result<(), ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match &check.probe {
        Probe::Connection => Ok(()),
        Probe::Get(path) => {
            let answer = exchange(stream, endpoint, path, None).await?;
            match answer.status.as_u16() {
                200..=399 => Ok(()),
                _ => Err(ProbeError::Status(answer.status)),
            }
        }
        Probe::Grpc(service) => {
            let question = grpc::health_question(service);
            health(&exchange(stream, endpoint, GRPC_PATH, Some(question)).await?)
        }
    }
}

/// What an answer to `Check` says.
fn health(answer: &Answer) -> Result<(), ProbeError> {
    if answer.status != http::StatusCode::OK {
        return Err(ProbeError::Status(answer.status));
    }
    let status = answer
        .fields
        .get("grpc-status")
        .map(|value| grpc::status(value.as_bytes()));
    match status {
        Some(Some(0)) => {}
        Some(Some(status)) => return Err(ProbeError::GrpcStatus(status)),
        Some(None) | None => return Err(ProbeError::NoHealth),
    }
    match grpc::health_in(&answer.body) {
        Some(grpc::SERVING) => Ok(()),
        Some(status) => Err(ProbeError::NotServing(status)),
        None => Err(ProbeError::NoHealth),
    }
}

struct Answer {
    status: http::StatusCode,
    /// Those of its trailers included.
    fields: HeaderMap,
    /// Its beginning.
    body: Vec<u8>,
}

/// Asks for `path`: with a message of gRPC, or with GET.
async fn exchange<S>(stream: S, endpoint: &Endpoint, path: &str, message: Option<Vec<u8>>) -> Result<Answer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let agent = concat!("rollgate/", env!("CARGO_PKG_VERSION"), " health check");
    let mut request = http::Request::builder().header(http::header::USER_AGENT, agent);
    if message.is_some() {
        request = request
            .method(http::Method::POST)
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers");
    }
    let body = Full::new(Bytes::from(message.unwrap_or_default()));
    if endpoint.transport.http2 {
        let scheme = if endpoint.transport.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let request = request.uri(format!("{scheme}://{}{path}", endpoint.label)).body(body)?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        Ok(answer(sender.send_request(request), connection).await?)
    } else {
        let request = request
            .uri(path)
            .header(http::header::HOST, &*endpoint.label)
            .header(http::header::CONNECTION, "close")
            .body(body)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(answer(sender.send_request(request), connection).await?)
    }
}

async fn answer(
    asked: impl Future<Output = hyper::Result<http::Response<Incoming>>>,
    connection: impl Future,
) -> hyper::Result<Answer> {
    let exchange = async {
        let (head, body) = asked.await?.into_parts();
        let (status, mut fields) = (head.status, head.headers);
        // A server whose page is read to the end is not left with a reset connection in its log.
        let body = read_some(body, &mut fields).await;
        Ok(Answer { status, fields, body })
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection's end does not mean that there was no answer: the exchange knows.
        _ = connection => exchange.await,
    }
}

/// What is there of a body, up to a bound and a little more; its trailers join `fields`.
async fn read_some(mut body: Incoming, fields: &mut HeaderMap) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < PAGE_MOST {
        let Some(Ok(frame)) = body.frame().await else { break };
        match frame.into_data() {
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => fields.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    read
}
