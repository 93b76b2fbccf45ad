//! The one way in which the control plane asks others over HTTP: webhooks, gates, queries.
//!
//! One request on one connection, HTTP/1.1, over TLS for `https`. Redirects are not followed and no proxy of the
//! environment is used: who is called is what the file says. Everything has a bound: the connection, the whole exchange,
//! the answer. Addresses hold secrets ([`Url`]): no error has more of one than its host.

use super::tls::system_roots;
use crate::rollout::Url;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::Scheme;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

/// Lookup, connection and handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// All of it, from the first packet to the last byte of the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer's body.
const BODY_MOST: usize = 64 << 10;
/// Bytes and fields of an answer's head.
const HEAD_MOST: usize = 64 << 10;
const FIELDS_MOST: usize = 100;
/// Addresses of a name that are tried.
const ADDRESSES_MOST: usize = 4;
/// Characters of an answer that are told, and of a part of an address from which on it may be secret.
const WORDS_MOST: usize = 200;
const SECRET_LEAST: usize = 4;
/// Lookups under way at once: one that hangs holds a thread for as long as the system's resolver takes.
const LOOKUPS_MOST: usize = 16;

/// One for the process; copies share what it knows.
#[derive(Clone)]
pub struct HttpClient {
    /// Read from the disk when the first `https` address is called.
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
    lookups: Arc<Semaphore>,
    connect_within: Duration,
    answer_within: Duration,
}

/// What is asked.
pub struct Outgoing<'o> {
    pub method: Method,
    /// `http` or `https`; a user and a password in it are sent as basic authentication (RFC 7617).
    pub url: &'o Url,
    pub headers: &'o [(HeaderName, &'o str)],
    pub body: Vec<u8>,
}

/// What came back: at least a whole head.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// At most 64 KiB.
    ///
    /// # Errors
    /// It broke off, did not end in time, or is larger.
    pub body: Result<Vec<u8>, Failure>,
}

/// Why there is no answer, or no whole one. Says nothing that is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the address cannot be called")]
    Address,
    #[error("{0}")]
    Trust(String),
    #[error("the name does not resolve: {0}")]
    Lookup(String),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no TLS: {0}")]
    Tls(String),
    #[error("no connection within {} s", .0.as_secs_f32())]
    ConnectTimeout(Duration),
    #[error("no answer within {} s", .0.as_secs_f32())]
    AnswerTimeout(Duration),
    #[error("no valid answer: {0}")]
    Broken(String),
    #[error("the answer is larger than {} KiB", BODY_MOST >> 10)]
    TooLarge,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    /// Trusts the authorities that the system trusts.
    pub fn new() -> Self {
        Self {
            tls: Arc::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MOST)),
            connect_within: CONNECT_WITHIN,
            answer_within: ANSWER_WITHIN,
        }
    }

    /// Sends one request, and takes the answer as it is: whatever its status, wherever it points.
    ///
    /// # Errors
    /// No whole head of an answer has come, within 3 s to connect and 10 s in all.
    pub async fn send(&self, outgoing: Outgoing<'_>) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.answer_within;
        let uri: Uri = outgoing.url.secret().parse().map_err(|_| Failure::Address)?;
        let request = request(&uri, outgoing)?;
        let connecting = timeout(self.connect_within, self.connect(&uri));
        let stream = connecting
            .await
            .unwrap_or(Err(Failure::ConnectTimeout(self.connect_within)))?;
        let late = Failure::AnswerTimeout(self.answer_within);
        exchange(stream, request, deadline, late).await
    }

    async fn connect(&self, uri: &Uri) -> Result<Box<dyn Stream>, Failure> {
        let encrypted = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(Failure::Address),
        };
        let host = uri.host().ok_or(Failure::Address)?;
        let port = port(uri, host)?.unwrap_or(if encrypted { 443 } else { 80 });
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let config = if encrypted { Some(self.trust().await?) } else { None };
        let addresses = self.addresses(host, port).await?;
        let stream = reach(&addresses, self.connect_within).await?;
        let Some(config) = config else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Failure::Address)?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        let stream = handshake.await.map_err(|error| Failure::Tls(error.to_string()))?;
        Ok(Box::new(stream))
    }

    /// What a handshake goes by. What failed is tried again at the next one.
    async fn trust(&self) -> Result<Arc<ClientConfig>, Failure> {
        let config = self.tls.get_or_try_init(|| async {
            let roots = tokio::task::spawn_blocking(system_roots).await;
            let roots = roots.map_err(|error| Failure::Trust(error.to_string()))?;
            verifying(roots.map_err(|unusable| Failure::Trust(unusable.why))?)
        });
        config.await.map(Arc::clone)
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let failed = |error: io::Error| Failure::Lookup(error.to_string());
        let permit = Arc::clone(&self.lookups).acquire_owned().await;
        let permit = permit.map_err(|error| failed(io::Error::other(error)))?;
        let name = host.to_owned();
        // In a task: who gives up waiting for it does not give its permit back.
        let lookup = tokio::spawn(async move {
            let found = tokio::net::lookup_host((name, port)).await;
            drop(permit);
            Ok::<Vec<_>, io::Error>(found?.take(ADDRESSES_MOST).collect())
        });
        let found = lookup.await.map_err(|error| failed(io::Error::other(error)))?;
        found.map_err(failed)
    }
}

fn verifying(roots: RootCertStore) -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Failure::Trust(error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// `None`: the address has none. A number that is too large is not taken for none.
fn port(uri: &Uri, host: &str) -> Result<Option<u16>, Failure> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let port = authority.rsplit('@').next().and_then(|rest| rest.strip_prefix(host));
    match port.ok_or(Failure::Address)?.trim_start_matches(':') {
        "" => Ok(None),
        port => port.parse().map(Some).map_err(|_| Failure::Address),
    }
}

/// The first of the addresses that answers; each has its part of the time.
async fn reach(addresses: &[SocketAddr], within: Duration) -> Result<TcpStream, Failure> {
    let part = within / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failed = Failure::Lookup("it has no address".to_owned());
    for address in addresses {
        match timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = Failure::Connect(error.to_string()),
            Err(_) => failed = Failure::ConnectTimeout(within),
        }
    }
    Err(failed)
}

fn request(uri: &Uri, outgoing: Outgoing<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    let authority = uri.authority().ok_or(Failure::Address)?.as_str();
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let target = match uri.path_and_query().map_or("", |target| target.as_str()) {
        query if !query.starts_with('/') => format!("/{query}"),
        target => target.to_owned(),
    };
    let mut request = Request::builder()
        .method(outgoing.method)
        .uri(target)
        .header(HOST, host)
        .header(USER_AGENT, concat!("rollgate/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    if let Some(user) = user {
        let user = percent_encoding::percent_decode_str(user).collect::<Vec<u8>>();
        request = request.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(user)));
    }
    for (name, value) in outgoing.headers {
        let value = HeaderValue::from_str(value).map_err(|_| Failure::Address)?;
        request = request.header(name, value);
    }
    request
        .body(Full::new(outgoing.body.into()))
        .map_err(|_| Failure::Address)
}

/// Plain or encrypted.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    deadline: Instant,
    late: Failure,
) -> Result<Answer, Failure> {
    let mut protocol = http1::Builder::new();
    protocol.max_buf_size(HEAD_MOST).max_headers(FIELDS_MOST);
    let (mut sender, connection) = protocol.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let asking = async {
        let answer = timeout_at(deadline, sender.send_request(request)).await;
        let answer = answer.map_err(|_| late.clone())?.map_err(broken)?;
        let (head, body) = answer.into_parts();
        let body = timeout_at(deadline, whole(body)).await;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.unwrap_or(Err(late)),
        })
    };
    tokio::pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        // The connection's end does not mean that there was no answer: the question knows.
        _ = connection => asking.await,
    }
}

async fn whole(mut body: Incoming) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken)?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if bytes.len() > BODY_MOST {
            return Err(Failure::TooLarge);
        }
    }
    Ok(bytes)
}

/// With its cause: alone, hyper's words say little.
fn broken(error: hyper::Error) -> Failure {
    Failure::Broken(match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

/// The beginning of an answer's text for people: one line of at most 200 characters; nothing of a page in HTML. What `url` has
/// beside its host is left out: some servers repeat what they were asked for, and it may be secret.
pub fn first_words(body: &[u8], url: &Url) -> String {
    let text = String::from_utf8_lossy(body);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let mut line = words.join(" ");
    if line.starts_with('<') {
        return String::new();
    }
    for secret in secrets(url.secret()) {
        line = line.replace(secret, "…");
    }
    if let Some((end, _)) = line.char_indices().nth(WORDS_MOST) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// The parts of an address beside scheme and host that are long enough to be a secret, the longest first.
fn secrets(url: &str) -> Vec<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let parts = [user, rest]
        .into_iter()
        .flat_map(|part| part.split(['/', '?', '#', '&', '=', ':']));
    let mut secrets: Vec<_> = parts.filter(|part| part.len() >= SECRET_LEAST).collect();
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

#[cfg(test)]
#[path = "http_client_tests.rs"]
pub(super) mod tests;
