//! One request to the admin API, over a unix socket or TCP, within deadlines and a bound on the answer.

use super::failure::{Exit, Failure, one_line};
use super::place::{Found, Place, Token};
use super::print::{self, WARNING};
use super::trouble::{Trouble, failure};
use crate::admin::api::Problem;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, http};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// For a connection, names looked up included.
const CONNECT: Duration = Duration::from_secs(2);
/// For an answer, from the connection to its last byte.
pub const ANSWER: Duration = Duration::from_secs(30);
/// After which who waits for [`Request::meanwhile`] is told it.
const SOON: Duration = Duration::from_secs(3);
/// For a new process to start, load, probe and take over.
pub const UPGRADE: Duration = Duration::from_secs(180);
/// Between two attempts on a socket whose queue is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of an answer: thousands of services, with all their endpoints.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub method: Method,
    /// With the query.
    pub path: String,
    /// Beside those that every request has.
    pub headers: Vec<(HeaderName, String)>,
    /// JSON.
    pub body: Option<String>,
    /// For the answer.
    pub patience: Duration,
    /// What else may be done, for who does not want to wait so long: said on stderr when there is no answer soon.
    pub meanwhile: Option<&'static str>,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: Vec::new(),
            body: None,
            patience: ANSWER,
            meanwhile: None,
        }
    }

    /// A request with a body.
    pub fn send(method: Method, path: impl Into<String>, body: &impl Serialize) -> Self {
        Self {
            method,
            // The bodies are structs of texts and numbers, which are always JSON.
            body: serde_json::to_string(body).ok(),
            ..Self::get(path)
        }
    }

    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Carried out only while `generation` is in force, if one is given.
    pub fn if_generation(self, generation: Option<u64>) -> Self {
        match generation {
            Some(generation) => self.header(header::IF_MATCH, format!("\"{generation}\"")),
            None => self,
        }
    }

    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// A good answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub body: String,
}

impl Answer {
    /// What to print of it: the answer itself, or `rendered`.
    ///
    /// # Errors
    /// Those of `rendered`.
    pub fn shown(
        &self,
        json: bool,
        rendered: impl FnOnce(&Self) -> Result<String, Failure>,
    ) -> Result<String, Failure> {
        if json { Ok(one_line(&self.body)) } else { rendered(self) }
    }

    /// The answer as a value.
    ///
    /// # Errors
    /// It is not of this form.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.body).map_err(|error| {
            Failure::failed(format!("the proxy's answer is not understood: {error}"))
                .help("is the proxy of another version than this program? `--json` shows the answer as it is")
        })
    }
}

/// Asks one proxy. Blocks: each call is one connection, made and closed.
#[derive(Debug, Clone)]
pub struct Client {
    pub found: Found,
    pub token: Option<Token>,
}

impl Client {
    /// Sends `request` and returns the answer if it is a good one.
    ///
    /// # Errors
    /// The proxy cannot be reached, or says no.
    pub fn call(&self, request: &Request) -> Result<Answer, Failure> {
        blocking(async {
            let mut answer = pin!(self.answer(request));
            if let Some(meanwhile) = request.meanwhile {
                match timeout(SOON, &mut answer).await {
                    Ok(answer) => return answer,
                    Err(_) => print::note(&still_waiting(&self.found.place, request.patience, meanwhile)),
                }
            }
            answer.await
        })
    }

    async fn answer(&self, request: &Request) -> Result<Answer, Failure> {
        let exchange = async {
            let response = self.respond(request, "application/json").await?;
            Ok((response.status, response.kind.clone(), response.text().await?))
        };
        let (status, kind, body) = exchange
            .await
            .map_err(|trouble| failure(&trouble, &self.found, request))?;
        judged(status, &kind, body, self)
    }

    /// Connects and sends; returns when the head of the answer is there.
    ///
    /// # Errors
    /// There is no answer in time.
    pub async fn respond(&self, request: &Request, accept: &'static str) -> Result<Response, Trouble> {
        let message = self
            .message(request, accept)
            .map_err(|error| Trouble::Request(error.to_string()))?;
        match &self.found.place {
            Place::Unix(path) => transmit(connected(unix(path)).await?, message, request.patience).await,
            Place::Http { host, port } => {
                let stream = connected(TcpStream::connect((host.as_str(), *port))).await?;
                transmit(stream, message, request.patience).await
            }
        }
    }

    fn message(&self, request: &Request, accept: &'static str) -> http::Result<http::Request<Full<Bytes>>> {
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(&request.path)
            .header(header::HOST, self.found.place.authority())
            .header(header::USER_AGENT, concat!("rollgate/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, accept)
            .header(header::CONNECTION, "close");
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(token.bearer())?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        if request.body.is_some() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        builder.body(Full::from(request.body.clone().unwrap_or_default()))
    }
}

fn still_waiting(place: &Place, patience: Duration, meanwhile: &str) -> String {
    format!(
        "{WARNING}note:{WARNING:#} no answer of {place} yet; it is waited for up to {} s; {meanwhile}\n",
        patience.as_secs()
    )
}

/// A queue that is full is refused at once here, where over TCP it would be waited for.
async fn unix(path: &Path) -> std::io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(FULL_QUEUE_PAUSE).await,
            connected => return connected,
        }
    }
}

async fn connected<S>(connecting: impl Future<Output = std::io::Result<S>>) -> Result<S, Trouble> {
    match timeout(CONNECT, connecting).await {
        Ok(connected) => connected.map_err(Trouble::Connect),
        Err(_) => Err(Trouble::ConnectTimeout(CONNECT)),
    }
}

async fn transmit(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    message: http::Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Response, Trouble> {
    let deadline = Instant::now() + patience;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection, or with the runtime.
        tokio::spawn(connection);
        sender.send_request(message).await
    };
    let response = timeout_at(deadline, exchange).await;
    let (head, body) = response
        .map_err(|_| Trouble::Silent(patience))?
        .map_err(Trouble::of_exchange)?
        .into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    Ok(Response {
        status: head.status,
        kind: kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase(),
        body,
        deadline,
        patience,
    })
}

/// An answer whose head is there.
pub struct Response {
    pub status: StatusCode,
    /// The content type without parameters, in small letters.
    pub kind: String,
    pub body: Incoming,
    /// By when the whole of it must be there, if it ends at all.
    deadline: Instant,
    patience: Duration,
}

impl Response {
    /// The body to its end, within the bound.
    ///
    /// # Errors
    /// It is cut, too slow, or too large.
    pub async fn text(self) -> Result<String, Trouble> {
        let collecting = Limited::new(self.body, MAX_ANSWER_BYTES).collect();
        let body = timeout_at(self.deadline, collecting).await;
        let body = body
            .map_err(|_| Trouble::Silent(self.patience))?
            .map_err(|error| Trouble::of_body(&*error))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }
}

/// What an answer is worth: good, an error of the proxy, or not of the proxy at all.
///
/// # Errors
/// It is not a good one.
pub fn judged(status: StatusCode, content_type: &str, body: String, client: &Client) -> Result<Answer, Failure> {
    if status.is_success() && content_type == "application/json" {
        return Ok(Answer { body });
    }
    let problem = match content_type {
        "application/problem+json" => serde_json::from_str::<Problem>(&body).ok(),
        _ => None,
    };
    let Some(problem) = problem else {
        return Err(stranger(status, content_type, &client.found));
    };
    Err(advised(Failure::answered(problem, body), status, client))
}

/// Adds what only who asks can know: where a token comes from here, and that the proxy may be another one.
fn advised(failure: Failure, status: StatusCode, client: &Client) -> Failure {
    let over_tcp = matches!(client.found.place, Place::Http { .. });
    match (status, &client.token) {
        (StatusCode::UNAUTHORIZED, None) if over_tcp => failure.only_help(
            "`--token-file FILE`, ROLLGATE_TOKEN_FILE or ROLLGATE_TOKEN gives the token; the socket needs none",
        ),
        (StatusCode::UNAUTHORIZED, Some(_)) if over_tcp => {
            failure.only_help("the token that was sent is not one of the proxy's `admin.token_file`")
        }
        (StatusCode::FORBIDDEN, _) if over_tcp => {
            failure.help("over the socket (`--admin unix:PATH`) changes need no token")
        }
        (StatusCode::NOT_FOUND, _) if failure.is_unknown_path() => failure.only_help(format!(
            "the proxy does not know this command: `rollgate status` shows its version, this program is {}",
            env!("CARGO_PKG_VERSION")
        )),
        _ => failure,
    }
}

fn stranger(status: StatusCode, content_type: &str, found: &Found) -> Failure {
    let kind = if content_type.is_empty() {
        "no content type"
    } else {
        content_type
    };
    Failure::new(
        Exit::Unreachable,
        format!(
            "{} answers {} with {kind}: that is not the admin API of Rollgate",
            found.place,
            status.as_u16()
        ),
    )
    .help(format!(
        "{} says to ask there; the admin API is at `admin.socket` and `admin.address` of the configuration, not at a \
         listener",
        found.said_by
    ))
}

/// Runs `work` to its end on this thread.
///
/// # Errors
/// Those of `work`; or there are no descriptors left for a runtime.
pub fn blocking<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime can be made: {error}")))?;
    let result = runtime.block_on(work);
    // A name that is still looked up must not hold the command.
    runtime.shutdown_background();
    result
}

/// A segment of a path, whatever is in it.
pub fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte as char);
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
