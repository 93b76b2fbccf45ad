//! A gRPC service and its clients on tonic, with messages of plain bytes: no code is generated.

use crate::support::{PATIENCE, Trust};
use bytes::{Buf, BufMut, Bytes};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::{ClientStreamingService, ServerStreamingService, StreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};

pub type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Messages as they are.
#[derive(Clone, Copy, Default)]
pub struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}

/// What a call came to at its server.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// A call that is never answered has begun.
    Hangs,
    /// A call of `/test.Echo/Hang` was given up before its end.
    Dropped,
}

/// The service `test.Echo`, in all four kinds.
#[derive(Clone)]
struct Echo {
    name: &'static str,
    seen: mpsc::Sender<Seen>,
}

/// A server on a port of its own.
pub struct EchoServer {
    port: u16,
    pub seen: mpsc::Receiver<Seen>,
    _runtime: Runtime,
}

/// A port of its own, and what runs the server behind it.
fn listen() -> (Runtime, u16, TcpIncoming) {
    let runtime = Runtime::new().unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (runtime, port, TcpIncoming::from(listener))
}

impl EchoServer {
    pub fn start(name: &'static str) -> Self {
        let (seen, told) = mpsc::channel();
        let (runtime, port, incoming) = listen();
        runtime.spawn(Server::builder().serve_with_incoming(Echo { name, seen }, incoming));
        Self {
            port,
            seen: told,
            _runtime: runtime,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A server of `grpc.health.v1.Health`, with nothing beside it.
pub struct HealthServer {
    port: u16,
    reporter: tonic_health::server::HealthReporter,
    runtime: Runtime,
}

impl HealthServer {
    pub fn start() -> Self {
        let (runtime, port, incoming) = listen();
        let (reporter, service) = tonic_health::server::health_reporter();
        runtime.spawn(Server::builder().serve_with_incoming(service, incoming));
        Self {
            port,
            reporter,
            runtime,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn says(&self, service: &str, serves: bool) {
        let status = match serves {
            true => tonic_health::ServingStatus::Serving,
            false => tonic_health::ServingStatus::NotServing,
        };
        self.runtime.block_on(self.reporter.set_service_status(service, status));
    }
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Plain);
            Ok(match request.uri().path() {
                "/test.Echo/Unary" | "/test.Echo/Fail" | "/test.Echo/Hang" => grpc.unary(service, request).await,
                "/test.Echo/Count" => grpc.server_streaming(service, request).await,
                "/test.Echo/Sum" => grpc.client_streaming(service, request).await,
                "/test.Echo/Both" => grpc.streaming(service, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Tells when it is dropped without having been disarmed.
struct Alarm(Option<mpsc::Sender<Seen>>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(seen) = self.0.take() {
            seen.send(Seen::Dropped).ok();
        }
    }
}

impl Echo {
    fn answer<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        response
            .metadata_mut()
            .insert("x-served-by", self.name.parse().unwrap());
        response
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The message, given back; `code:N` fails with that status, `hang` never answers.
impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let message = request.into_inner();
            if let Some(code) = text(&message).strip_prefix("code:") {
                let code = Code::from(code.parse::<i32>().unwrap());
                let mut details = MetadataMap::new();
                details.insert("x-detail", "100%".parse().unwrap());
                return Err(Status::with_metadata(code, "as asked: 50% \u{e9}", details));
            }
            if text(&message) == "hang" {
                let _alarm = Alarm(Some(service.seen.clone()));
                service.seen.send(Seen::Hangs).ok();
                std::future::pending::<()>().await;
            }
            Ok(service.answer(message))
        })
    }
}

/// So many messages as the request says, one each 10 ms, and then the status it says: `3 0`.
impl ServerStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let message = text(request.get_ref());
            let (count, code) = message.split_once(' ').unwrap();
            let (count, code): (u32, i32) = (count.parse().unwrap(), code.parse().unwrap());
            let alarm = Alarm(Some(service.seen.clone()));
            let (send, receive) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                let mut alarm = alarm;
                for n in 0..count {
                    if send.send(Ok(Bytes::from(n.to_string()))).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                alarm.0 = None;
                if code != 0 {
                    send.send(Err(Status::new(Code::from(code), "as asked"))).await.ok();
                }
            });
            Ok(service.answer(receiver(receive)))
        })
    }
}

/// How many messages came, and how many bytes in all.
impl ClientStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let (mut messages, mut count, mut bytes) = (request.into_inner(), 0, 0);
            while let Some(message) = messages.next().await {
                count += 1;
                bytes += message?.len();
            }
            Ok(service.answer(Bytes::from(format!("{count} {bytes}"))))
        })
    }
}

/// Every message, given back at once.
impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let answers: Answers = Box::pin(request.into_inner());
            Ok(service.answer(answers))
        })
    }
}

/// What is sent into a channel, as a stream.
pub fn receiver<T: Send + 'static>(receive: tokio::sync::mpsc::Receiver<T>) -> Pin<Box<dyn Stream<Item = T> + Send>> {
    Box::pin(tonic::codegen::tokio_stream::wrappers::ReceiverStream::new(receive))
}

/// Opens connections with TLS to this port.
struct Handshake {
    port: u16,
    config: Arc<rustls::ClientConfig>,
}

impl Service<http::Uri> for Handshake {
    type Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = BoxFuture<Self::Response, std::io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (port, connector) = (self.port, TlsConnector::from(Arc::clone(&self.config)));
        Box::pin(async move {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("shop.test").unwrap();
            connector.connect(name, tcp).await.map(TokioIo::new)
        })
    }
}

/// A client on one connection.
pub struct EchoClient {
    pub runtime: Runtime,
    pub grpc: tonic::client::Grpc<Channel>,
}

impl EchoClient {
    pub fn connect(port: u16) -> Self {
        let runtime = Runtime::new().unwrap();
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let channel = runtime.block_on(channel.connect()).unwrap();
        Self {
            grpc: tonic::client::Grpc::new(channel),
            runtime,
        }
    }

    /// By TLS, to `shop.test`.
    pub fn connect_tls(port: u16, trust: &Trust) -> Self {
        let runtime = Runtime::new().unwrap();
        let config = trust.speaking(&["h2"]).config();
        let endpoint = Channel::from_static("http://shop.test");
        let channel = runtime.block_on(endpoint.connect_with_connector(Handshake { port, config }));
        let channel = channel.unwrap();
        Self {
            grpc: tonic::client::Grpc::new(channel),
            runtime,
        }
    }

    /// A unary call of this message; it ends within [`PATIENCE`].
    pub fn unary(&self, path: &'static str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let mut grpc = self.grpc.clone();
        self.run(async move {
            grpc.ready().await.unwrap();
            let path = http::uri::PathAndQuery::from_static(path);
            grpc.unary(request, path, Plain).await
        })
    }

    /// A call of `/test.Echo/Both`: where messages go in, and where they come back.
    pub async fn converse(&self, timeout: Option<Duration>) -> (tokio::sync::mpsc::Sender<Bytes>, Answers) {
        let (say, messages) = tokio::sync::mpsc::channel(1);
        let mut request = Request::new(receiver(messages));
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let mut grpc = self.grpc.clone();
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/test.Echo/Both");
        let answers = grpc.streaming(request, path, Plain).await.unwrap();
        (say, Box::pin(answers.into_inner()))
    }

    pub fn say(&self, message: &'static str) -> Result<Response<Bytes>, Status> {
        self.unary("/test.Echo/Unary", Request::new(Bytes::from(message)))
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let work = async { tokio::time::timeout(PATIENCE, work).await };
        self.runtime.block_on(work).expect("an end in time")
    }
}
