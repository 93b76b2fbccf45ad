//! Against receivers that behave in every way they can.

use super::*;
use crate::control::fixture::{Received, Receiver, Reply, nobody, status, with_header};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A short deadline, so that a test of it is short.
const SHORT: Duration = Duration::from_millis(300);

impl HttpClient {
    /// One that gives up early, for peers that never answer: others may be slow.
    pub fn hasty() -> Self {
        Self::giving_up_after(SHORT)
    }

    pub fn giving_up_after(answer_within: Duration) -> Self {
        Self {
            answer_within,
            ..Self::new()
        }
    }

    /// One that trusts these authorities.
    fn trusting(roots: RootCertStore) -> Self {
        let tls = OnceCell::new_with(Some(verifying(roots).unwrap()));
        Self {
            tls: Arc::new(tls),
            ..Self::new()
        }
    }
}

async fn post(client: &HttpClient, url: &Url) -> Result<Answer, Failure> {
    let outgoing = Outgoing {
        method: Method::POST,
        url,
        headers: &[(http::header::CONTENT_TYPE, "application/json")],
        body: b"{}".to_vec(),
    };
    client.send(outgoing).await
}

async fn answered(reply: Reply) -> Result<Answer, Failure> {
    answered_to(&HttpClient::new(), reply).await
}

async fn answered_to(client: &HttpClient, reply: Reply) -> Result<Answer, Failure> {
    let receiver = Receiver::new(reply).await;
    post(client, &receiver.url("/hook")).await
}

/// What goes out to `url`, whose host is the receiver's.
async fn sent(url: impl Fn(SocketAddr) -> String) -> Received {
    let receiver = Receiver::new(status("204 No Content", "")).await;
    let answer = post(&HttpClient::new(), &Url::new(&url(receiver.address)))
        .await
        .unwrap();
    assert_eq!(answer.status, 204);
    receiver.received().remove(0)
}

#[tokio::test]
async fn a_request_is_whole_and_says_who_asks() {
    let mut at = String::new();
    let received = sent(|address| format!("http://{address}/hook/T0?a=b&c#here")).await;
    at.push_str(&received.line);
    assert_eq!(at, "POST /hook/T0?a=b&c HTTP/1.1");
    assert!(received.header("host").unwrap().starts_with("127.0.0.1:"));
    assert!(received.header("user-agent").unwrap().starts_with("rollgate/"));
    assert_eq!(received.header("content-type"), Some("application/json"));
    assert_eq!(received.header("authorization"), None);
    assert_eq!(received.body, b"{}");
}

#[tokio::test]
async fn an_address_without_a_path_asks_for_the_root() {
    for (end, line) in [("", "POST / HTTP/1.1"), ("?a=b", "POST /?a=b HTTP/1.1")] {
        assert_eq!(sent(|address| format!("http://{address}{end}")).await.line, line);
    }
}

/// RFC 7617, section 2: its example.
#[tokio::test]
async fn a_user_in_the_address_is_basic_authentication_and_not_in_the_host() {
    let received = sent(|address| format!("http://Aladdin:open%20sesame@{address}/")).await;
    assert_eq!(
        received.header("authorization"),
        Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    );
    assert!(!received.header("host").unwrap().contains("Aladdin"));
}

#[tokio::test]
async fn any_status_is_an_answer_and_redirects_are_not_followed() {
    let elsewhere = Receiver::new(status("200 OK", "")).await;
    let location = format!("location: http://{}/", elsewhere.address);
    let answer = answered(with_header("302 Found", &location, "there")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body), (302, Ok(b"there".to_vec())));
    assert!(elsewhere.received().is_empty());
    let answer = answered(status("500 Oh", "broken")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body), (500, Ok(b"broken".to_vec())));
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_not_asked() {
    // Nobody else in this process reads it.
    let receiver = Receiver::new(status("200 OK", "")).await;
    let proxy = Receiver::new(status("502 Bad Gateway", "")).await;
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "control::http_client::tests::child", "--ignored"])
        .env("ROLLGATE_TEST_URL", receiver.url("/").secret())
        .env("http_proxy", proxy.url("/").secret())
        .env("HTTP_PROXY", proxy.url("/").secret())
        .env("ALL_PROXY", proxy.url("/").secret())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut child = child;
        child.wait().unwrap()
    });
    assert!(ended.await.unwrap().success());
    assert_eq!((receiver.received().len(), proxy.received().len()), (1, 0));
}

#[tokio::test]
#[ignore = "the child of the test above"]
async fn child() {
    let Ok(url) = std::env::var("ROLLGATE_TEST_URL") else {
        return;
    };
    assert_eq!(post(&HttpClient::new(), &Url::new(&url)).await.unwrap().status, 200);
}

#[tokio::test]
async fn what_takes_too_long_has_an_end() {
    assert_eq!(
        answered_to(&HttpClient::hasty(), Reply::Silence).await.unwrap_err(),
        Failure::AnswerTimeout(SHORT)
    );
    // Long enough for a head on a busy machine.
    let answer_within = Duration::from_secs(3);
    let client = HttpClient::giving_up_after(answer_within);
    let began = Instant::now();
    let answer = answered_to(&client, Reply::Trickle).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (200, Err(Failure::AnswerTimeout(answer_within)))
    );
    // Not one deadline after another.
    assert!(began.elapsed() < answer_within * 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_peer_that_takes_no_connection_is_given_up() {
    // Linux takes a few connections more than asked for, then lets further ones wait.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = timeout(SHORT, TcpStream::connect(address)).await {
        held.push(stream);
    }
    let client = HttpClient {
        connect_within: SHORT,
        ..HttpClient::new()
    };
    let failure = post(&client, &Url::new(&format!("http://{address}/"))).await;
    assert_eq!(failure.unwrap_err(), Failure::ConnectTimeout(SHORT));
}

#[tokio::test]
async fn an_answer_has_a_bound() {
    let answer = answered(Reply::Endless).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body), (200, Err(Failure::TooLarge)));
    let most = "x".repeat(BODY_MOST);
    assert_eq!(
        answered(status("200 OK", &most)).await.unwrap().body.unwrap().len(),
        BODY_MOST
    );
    let endless_head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(4 * HEAD_MOST));
    let failure = answered(Reply::Bytes(endless_head.into_bytes())).await.unwrap_err();
    assert!(matches!(failure, Failure::Broken(_)), "{failure}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none_or_says_so() {
    let cut = |bytes: &str| answered(Reply::Bytes(bytes.as_bytes().to_vec()));
    for bytes in ["", "HTTP/1.1 200 OK\r\nx: y", "+PONG\r\n"] {
        let failure = cut(bytes).await.unwrap_err();
        assert!(matches!(failure, Failure::Broken(_)), "{bytes}: {failure}");
    }
    let answer = cut("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
    assert!(matches!(answer.body, Err(Failure::Broken(_))), "{:?}", answer.body);
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_without_the_secret() {
    let client = HttpClient::new();
    let nobody = nobody();
    let closed = nobody.address;
    for (url, why) in [
        (format!("http://u:secret@{closed}/secret?secret"), "no connection: "),
        (
            "http://rollgate.invalid/secret".to_owned(),
            "the name does not resolve: ",
        ),
        (
            "http://127.0.0.1:99999/secret".to_owned(),
            "the address cannot be called",
        ),
        ("secret".to_owned(), "the address cannot be called"),
    ] {
        let failure = post(&client, &Url::new(&url)).await.unwrap_err();
        let text = failure.to_string();
        // A resolver that does not answer is another failure.
        assert!(text.starts_with(why) || url.contains("invalid"), "{url}: {text}");
        assert!(!format!("{failure:?} {text}").contains("secret"), "{text}");
    }
}

// ---- TLS ----

/// A certificate for `name`, the authorities that trust it, and a server that shows it.
fn certified(name: &str) -> (RootCertStore, Arc<ServerConfig>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    (roots, Arc::new(server))
}

async fn encrypted(name: &str, trusted: bool) -> Result<StatusCode, Failure> {
    let (roots, server) = certified(name);
    let roots = if trusted { roots } else { certified(name).0 };
    let receiver = Receiver::on("127.0.0.1:0".parse().unwrap(), status("200 OK", ""), Some(server)).await;
    let url = Url::new(&format!("https://localhost:{}/secret", receiver.address.port()));
    let answer = post(&HttpClient::trusting(roots), &url).await;
    assert_eq!(
        receiver.received().len(),
        usize::from(answer.is_ok()),
        "nothing is sent to a stranger"
    );
    answer.map(|answer| answer.status)
}

#[tokio::test]
async fn https_is_verified_by_authority_and_name() {
    assert_eq!(encrypted("localhost", true).await, Ok(StatusCode::OK));
    for (name, trusted) in [("localhost", false), ("elsewhere.example", true)] {
        let failure = encrypted(name, trusted).await.unwrap_err();
        assert!(matches!(failure, Failure::Tls(_)), "{failure}");
        assert!(failure.to_string().contains("invalid peer certificate"), "{failure}");
    }
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::new(&format!("https://{}/", listener.local_addr().unwrap()));
    let peer = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, refusal).await.unwrap();
        stream
    });
    let failure = post(&HttpClient::trusting(RootCertStore::empty()), &url)
        .await
        .unwrap_err();
    assert!(matches!(failure, Failure::Tls(_)), "{failure}");
    drop(peer.await.unwrap());
}

// ---- what an answer says ----

#[test]
fn the_first_words_are_one_short_line_without_secrets() {
    let url = Url::new("https://ada:hunter2@hooks.example/services/T0/B0/sEcReT?token=0123&v=1");
    for (body, words) in [
        ("Forbidden", "Forbidden"),
        ("  no_service\r\n\n", "no_service"),
        ("a\u{1b}[31m b\0c", "a [31m b c"),
        ("", ""),
        ("<html><body>/services/T0/B0/sEcReT", ""),
        (
            "Cannot POST /services/T0/B0/sEcReT?token=0123",
            "Cannot POST /…/T0/B0/…?…=…",
        ),
        ("hunter2 of hooks.example", "… of hooks.example"),
    ] {
        assert_eq!(first_words(body.as_bytes(), &url), words);
    }
    let long = first_words("ä".repeat(1000).as_bytes(), &url);
    assert_eq!(long.chars().count(), WORDS_MOST + 1);
    // A secret is not cut in two, and then overlooked.
    let across = format!("{}sEcReT", " x".repeat(98));
    assert!(!first_words(across.as_bytes(), &url).contains("sEc"));
    assert_eq!(first_words(&[0xff, b'a'], &url), "\u{fffd}a");
}
