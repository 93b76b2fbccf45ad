//! WebSocket through the proxy, with a real library at both ends (tungstenite), and with bytes by hand where that would be
//! too well-behaved.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value::Null;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{
    Authority, Client, Config, Gate, Operator, PATIENCE, Service, Then, Trust, Upstream, WEB_SOCKET, eventually,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async, tungstenite};

type Socket = WebSocketStream<TcpStream>;

const TO_CANARY: (&str, &str) = ("x-version", "v2");
const RULE: &str = "rules:\n  - { name: forced, when: { header: x-version, equals: v2 }, version: v2 }";

/// A server that echoes messages, closes with 4002 when told `bye`, and says its name when asked `who`.
struct Echo {
    address: SocketAddr,
    /// Codes with which its clients closed, as it saw them; `None`: without a close frame.
    closed: Arc<Mutex<Vec<Option<u16>>>>,
}

impl Echo {
    async fn named(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closed = Arc::new(Mutex::new(Vec::new()));
        let codes = Arc::clone(&closed);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let codes = Arc::clone(&codes);
                tokio::spawn(async move {
                    // Probes come without a request.
                    if let Some(code) = echo(stream, name).await {
                        codes.lock().unwrap().push(code);
                    }
                });
            }
        });
        Self { address, closed }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn expect_closed(&self, codes: &[Option<u16>]) {
        eventually(PATIENCE, "the server knows how its clients left", || {
            *self.closed.lock().unwrap() == codes
        });
    }
}

/// One connection of the server, to its end. The large error is the library's.
#[allow(clippy::result_large_err)]
async fn echo(stream: TcpStream, name: &str) -> Option<Option<u16>> {
    let served_by = |request: &Request, mut response: Response| {
        // The proxy passes them on, both ways.
        let protocol = request.headers().get("sec-websocket-protocol").cloned();
        response.headers_mut().extend(protocol.map(|value| {
            let name = tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
            (name, value)
        }));
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, served_by).await.ok()?;
    let mut code = None;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) if text == "bye" => {
                let frame = CloseFrame {
                    code: CloseCode::Library(4002),
                    reason: "bye".into(),
                };
                socket.close(Some(frame)).await.ok()?;
            }
            Message::Text(text) if text == "who" => socket.send(Message::text(name)).await.ok()?,
            Message::Text(_) | Message::Binary(_) => socket.send(message).await.ok()?,
            // Its own half of the farewell goes out with the next read.
            Message::Close(frame) => code = frame.map(|frame| frame.code.into()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    Some(code)
}

async fn connect(gate: &Gate, fields: &[(&'static str, &'static str)]) -> Socket {
    let mut request = format!("ws://127.0.0.1:{}/chat?room=1", gate.port())
        .into_client_request()
        .unwrap();
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(("127.0.0.1", gate.port())).await.unwrap();
    client_async(request, stream).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Message {
    let message = timeout(PATIENCE, socket.next()).await.expect("a message in time");
    message.expect("a message before the end").expect("a whole message")
}

async fn ask(socket: &mut Socket, text: &'static str) -> String {
    socket.send(Message::text(text)).await.unwrap();
    next(socket).await.into_text().unwrap().as_str().to_owned()
}

/// The close frame that comes next.
async fn closed_with(socket: &mut Socket) -> u16 {
    match next(socket).await {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("no close frame with a code: {other:?}"),
    }
}

/// Versions `v1` and `v2`, of which `v2` serves who asks for it by a rule.
fn split(v1: &Echo, v2: &Echo, (weight1, weight2): (u32, u32)) -> Service {
    Service::split(v1.port(), weight1, v2.port(), weight2).key(RULE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_both_ways_whatever_their_size_and_kind() {
    let v1 = Echo::named("v1").await;
    let gate = Gate::start(&Config::with(Service::only(v1.port())).text());
    let mut socket = connect(&gate, &[("sec-websocket-protocol", "chat")]).await;
    assert_eq!(ask(&mut socket, "who").await, "v1");
    let sizes = [0, 1, 125, 126, 65_535, 65_536, 1 << 20];
    for size in sizes {
        let message = Message::binary((0..size).map(|n| (n % 251) as u8).collect::<Vec<u8>>());
        socket.send(message.clone()).await.unwrap();
        assert!(next(&mut socket).await == message, "{size} bytes");
    }
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("are you there".into()));
    // Each side closes as it likes, and the other learns how.
    let frame = CloseFrame {
        code: CloseCode::Library(4001),
        reason: "enough".into(),
    };
    socket.close(Some(frame)).await.unwrap();
    assert_eq!(closed_with(&mut socket).await, 4001);
    v1.expect_closed(&[Some(4001)]);
    drop(socket);
    let mut socket = connect(&gate, &[]).await;
    socket.send(Message::text("bye")).await.unwrap();
    assert_eq!(closed_with(&mut socket).await, 4002);
    assert!(timeout(PATIENCE, socket.next()).await.unwrap().is_none());
    drop(socket);
    // Each frame has a head of 2 bytes and a mask of 4; longer ones tell their length in 2 or 8 bytes more.
    let frames = sizes.len() + 3;
    let texts = ["who", "are you there", "enough"].map(str::len).iter().sum::<usize>() + 2;
    let sent = sizes.iter().sum::<usize>() + texts + frames * 6 + 2 * 2 + 2 * 8;
    gate.access_line("what the first sent", |line| line["request_bytes"] == sent);
    // Counted, and apart from latency.
    gate.expect_metric("rollgate_requests_total", &[("version", "v1"), ("code", "101")], 2.0);
    gate.expect_metric("rollgate_request_duration_seconds_count", &[("version", "v1")], 0.0);
    gate.expect_metric("rollgate_request_failures_total", &[("version", "v1")], 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sockets_at_once_of_which_a_kill_ends_those_of_the_canary() {
    const SOCKETS: usize = 1_000;
    let (v1, v2) = (Echo::named("v1").await, Echo::named("v2").await);
    let gate = Gate::start(
        &Config::with(split(&v1, &v2, (50, 50)))
            .top("kill: { drain: 0s }")
            .text(),
    );
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(connect(&gate, &[]).await);
    }
    let mut names = Vec::new();
    for socket in &mut sockets {
        socket.send(Message::text("who")).await.unwrap();
    }
    for socket in &mut sockets {
        names.push(next(socket).await.into_text().unwrap().as_str().to_owned());
    }
    let on_canary = names.iter().filter(|name| *name == "v2").count();
    assert!((495..=505).contains(&on_canary), "{on_canary}");
    gate.expect_metric("rollgate_requests_in_flight", &[("service", "shop")], SOCKETS as f64);
    Operator::of(&gate)
        .put("/v1/services/shop/kill", r#"{"reason":"test"}"#)
        .expect_ok();
    for (socket, name) in sockets.iter_mut().zip(&names) {
        if name == "v2" {
            assert_eq!(closed_with(socket).await, 1012);
        }
    }
    for (socket, name) in sockets.iter_mut().zip(&names) {
        if name == "v1" {
            assert_eq!(ask(socket, "still here").await, "still here");
        }
    }
    // Their servers are told, too.
    v2.expect_closed(&vec![Some(1001); on_canary]);
    gate.expect_metric("rollgate_terminations_total", &[("code", "revoked")], on_canary as f64);
    gate.expect_metric("rollgate_request_failures_total", &[("service", "shop")], 0.0);
    drop(sockets);
    gate.expect_metric("rollgate_requests_in_flight", &[("service", "shop")], 0.0);
    gate.expect_metric("rollgate_requests_total", &[("code", "101")], SOCKETS as f64);
    gate.expect_metric("rollgate_request_duration_seconds_count", &[("service", "shop")], 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_closes_what_the_candidate_had_and_leaves_who_is_sent_there_later() {
    let (v1, v2) = (Echo::named("v1").await, Echo::named("v2").await);
    let plan = "rollout: { steps: [{ share: 50%, hold: 1h }] }\nkill: { drain: 500ms }";
    let gate = Gate::start(&Config::with(split(&v1, &v2, (100, 0)).key(plan)).text());
    let operator = Operator::of(&gate);
    eventually(PATIENCE, "the candidate has its share", || {
        operator.get("/v1/services/shop").expect_ok()["rollout"]["share"] == 50.0
    });
    let (mut canary, mut stable) = (connect(&gate, &[TO_CANARY]).await, None);
    while stable.is_none() {
        let mut socket = connect(&gate, &[]).await;
        stable = (ask(&mut socket, "who").await == "v1").then_some(socket);
    }
    // Those that were too many have left.
    gate.expect_metric("rollgate_requests_in_flight", &[("service", "shop")], 2.0);
    operator
        .post("/v1/services/shop/rollout/rollback", r#"{"reason":"test"}"#)
        .expect_ok();
    let mut later = connect(&gate, &[TO_CANARY]).await;
    assert_eq!(closed_with(&mut canary).await, 1012);
    // Longer than the drain: who is forced there after the rollback stays.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ask(&mut later, "who").await, "v2");
    assert_eq!(ask(&mut stable.unwrap(), "who").await, "v1");
    gate.expect_metric("rollgate_terminations_total", &[("code", "revoked")], 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_on_which_nothing_moves_is_closed_and_one_that_pings_is_not() {
    let v1 = Echo::named("v1").await;
    let service = Service::only(v1.port()).pools("timeouts: { idle: 2s }");
    let config = Config::with(service).limit("request_timeout: 2s");
    let gate = Gate::start(&config.text());
    let (mut idle, mut used) = (connect(&gate, &[]).await, connect(&gate, &[]).await);
    for _ in 0..10 {
        used.send(Message::Ping("x".into())).await.unwrap();
        assert_eq!(next(&mut used).await, Message::Pong("x".into()));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(closed_with(&mut idle).await, 1001);
    v1.expect_closed(&[Some(1001)]);
    assert_eq!(ask(&mut used, "who").await, "v1");
    drop(idle);
    let line = gate.access_line("the idle socket", |line| line["status"] == 101);
    assert_eq!((&line["termination"], &line["failure"]), (&"idle".into(), &Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stops_says_so_before_the_drain_is_over() {
    let v1 = Echo::named("v1").await;
    let config = Config::with(Service::only(v1.port())).limit("drain_timeout: 4s");
    let mut gate = Gate::start(&config.text());
    let mut socket = connect(&gate, &[]).await;
    gate.signal("TERM");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(ask(&mut socket, "still here").await, "still here");
    assert_eq!(closed_with(&mut socket).await, 1001);
    drop(socket);
    v1.expect_closed(&[Some(1001)]);
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    let line = gate.access_line("the socket", |line| line["status"] == 101);
    assert_eq!(line["termination"], "drain");
}

/// A tunnel whose endpoint sends `bytes` by itself, and then listens.
fn raw(bytes: &'static [u8]) -> (Upstream, Gate, Client) {
    let v2 = Upstream::with("v2", move |exchange| {
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        exchange.send(bytes);
        exchange.io().take(usize::MAX).ok();
        Then::Close
    });
    let service = Service::split(v2.port(), 100, v2.port(), 0).key(RULE);
    let gate = Gate::start(&Config::with(service).top("kill: { drain: 0s }").text());
    let mut client = gate.client();
    let upgrade = [&WEB_SOCKET[..], &[TO_CANARY]].concat();
    assert_eq!(client.get("/", &upgrade).status, 101);
    assert_eq!(client.read_bytes(bytes.len()), bytes);
    (v2, gate, client)
}

fn kill(gate: &Gate) {
    Operator::of(gate)
        .put("/v1/services/shop/kill", r#"{"reason":"test"}"#)
        .expect_ok();
}

#[test]
fn a_close_frame_is_sent_between_frames_and_never_into_one() {
    // A whole message, then nothing.
    let (_v2, gate, mut client) = raw(b"\x82\x03abc");
    kill(&gate);
    assert_eq!(client.read_bytes(4), b"\x88\x02\x03\xf4");
    assert!(client.is_closed_within(PATIENCE));
    // The first fragment of one: control frames may come in between.
    let (_v2, gate, mut client) = raw(b"\x02\x03abc");
    kill(&gate);
    assert_eq!(client.read_bytes(4), b"\x88\x02\x03\xf4");
    // Half a message, half a head, and a close of the server's own.
    for bytes in [
        &b"\x82\x05abc"[..],
        b"\x82\x03abc\x82",
        b"\x82\x7e\x01",
        b"\x88\x02\x03\xe8",
    ] {
        let (_v2, gate, mut client) = raw(bytes);
        kill(&gate);
        assert!(
            client.is_closed_within(PATIENCE),
            "{bytes:?}: more came, or the tunnel is open"
        );
    }
}

/// An empty ping, and a close frame, of a client.
const PING: [u8; 6] = *b"\x89\x80abcd";
const CLOSE: [u8; 6] = *b"\x88\x80abcd";

/// How the log tells the end of a socket on which the endpoint sends `bytes`, and ends so when it has got a ping. Where it
/// does not (`None`), the client is `left` to end it.
fn told(bytes: &'static [u8], then: Option<Then>, left: impl FnOnce(Client)) -> (serde_json::Value, f64) {
    let v1 = Upstream::with("v1", move |exchange| {
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        exchange.send(bytes);
        let expected = then.map_or(usize::MAX, |_| PING.len());
        exchange.io().take(expected).ok();
        then.unwrap_or(Then::Close)
    });
    let gate = Gate::start(&Config::with(Service::only(v1.port())).text());
    let mut client = gate.client();
    assert_eq!(client.get("/", &WEB_SOCKET).status, 101);
    assert_eq!(client.read_bytes(bytes.len()), bytes);
    if then.is_some() {
        client.send(PING);
        assert!(client.is_closed_within(PATIENCE), "{bytes:?} {then:?}");
    }
    left(client);
    let line = gate.access_line("the socket", |line| line["status"] == 101);
    let failures = gate.metric("rollgate_request_failures_total", &[("version", "v1")]);
    (line, failures)
}

#[test]
fn who_breaks_a_socket_off_is_told_and_an_endpoint_that_does_has_failed() {
    let whole = b"\x82\x03abc";
    let (reset, close) = (Some(Then::Reset), Some(Then::Close));
    for (bytes, then, termination, failure) in [
        (&whole[..], reset, "upstream_reset", "reset".into()),
        (b"\x82\x05abc", reset, "upstream_reset", "reset".into()),
        (b"\x82\x05abc", close, "upstream_truncated", "reset".into()),
        (b"\x82", close, "upstream_truncated", "reset".into()),
        (whole, close, "ok", Null),
        (b"\x88\x02\x03\xe8", reset, "ok", Null),
        (b"\x88\x02\x03\xe8", close, "ok", Null),
    ] {
        let (line, failures) = told(bytes, then, drop);
        let expected = (&termination.into(), &failure);
        assert_eq!((&line["termination"], &line["failure"]), expected, "{bytes:?} {then:?}");
        assert_eq!(failures > 0.0, failure != Null, "{bytes:?} {then:?}");
    }
    let leave = |bytes: &'static [u8]| {
        move |mut client: Client| {
            client.send(bytes);
            client.half_close();
            assert!(client.is_closed_within(PATIENCE));
        }
    };
    type Leave = Box<dyn FnOnce(Client)>;
    let leaves: [(&str, Leave, &str); 4] = [
        ("reset", Box::new(Client::reset), "client_abort_answer"),
        ("a close frame", Box::new(leave(&CLOSE)), "ok"),
        ("no word", Box::new(leave(&PING)), "ok"),
        ("half a frame", Box::new(leave(&PING[..3])), "client_abort_answer"),
    ];
    for (what, left, termination) in leaves {
        let (line, failures) = told(whole, None, left);
        assert_eq!((&line["termination"], failures), (&termination.into(), 0.0), "{what}");
        assert_eq!(line["failure"], Null, "{what}");
    }
}

/// An endpoint that changes to WebSocket, and has fields of its own.
fn talkative(name: &'static str) -> Upstream {
    Upstream::with(name, move |exchange| {
        exchange.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nserver: {name}/1.0\r\n\
             content-length: 0\r\nset-cookie: own=1\r\nx-name: {name}\r\n\r\n"
        ));
        exchange.io().take(usize::MAX).ok();
        Then::Close
    })
}

#[test]
fn a_101_gets_what_other_last_answers_get() {
    let (v1, v2) = (talkative("v1"), talkative("v2"));
    let service = Service::split(v1.port(), 50, v2.port(), 50)
        .key("affinity: { cookie: { name: rollgate }, keep: true }")
        .key("expose_version: true")
        .key("response_headers: { set: { x-frame-options: DENY }, remove: [server] }");
    let gate = Gate::start(&Config::with(service).text());
    let first = gate.get("/chat", &WEB_SOCKET);
    let cookies: Vec<&str> = first.head.all("set-cookie").collect();
    assert_eq!((first.status, cookies.len(), cookies[0]), (101, 2, "own=1"));
    let name = first.header("x-name").unwrap();
    assert_eq!(first.header("x-rollgate-version"), Some(name));
    assert_eq!(first.header("x-frame-options"), Some("DENY"));
    assert_eq!((first.header("server"), first.header("content-length")), (None, None));
    assert_eq!(
        (first.header("upgrade"), first.header("connection")),
        (Some("websocket"), Some("Upgrade"))
    );
    // Whoever asks for nothing but sockets is known by its cookie, too.
    let cookie = cookies[1].split(';').next().unwrap();
    assert!(cookie.starts_with("rollgate="), "{cookie}");
    for _ in 0..10 {
        let again = gate.get("/chat", &[&WEB_SOCKET[..], &[("cookie", cookie)]].concat());
        assert_eq!((again.status, again.header("x-name")), (101, Some(name)));
    }
}

#[test]
fn sockets_are_served_over_tls() {
    let v1 = Upstream::with("v1", |exchange| {
        let key = exchange.request.head.get("sec-websocket-key").unwrap().to_owned();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        exchange.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n\
             \x02\x03abc\u{0}\x03def"
        ));
        // An end of its own, before the last fragment has come.
        exchange.send(b"\x80\x00\x88\x02\x03\xe8");
        exchange.io().take(usize::MAX).ok();
        Then::Close
    });
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let pair = authority.server(&["shop.example"]).write(directory.path(), "shop");
    let config = Config::with(Service::only(v1.port())).listener(&format!("tls: {{ certificates: [{pair}] }}"));
    let gate = Gate::start_in(directory, &config.text());
    let tcp = std::net::TcpStream::connect(("127.0.0.1", gate.port())).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let wire = Trust::new(&authority).connect(tcp, "shop.example").unwrap();
    let (mut socket, _) = tungstenite::client("wss://shop.example/", wire).unwrap();
    assert_eq!(socket.read().unwrap(), Message::binary(&b"abcdef"[..]));
    match socket.read().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1000),
        other => panic!("{other:?}"),
    }
}

#[test]
fn upgrades_to_anything_else_are_served_as_if_they_had_not_asked() {
    let v1 = Upstream::named("v1");
    let gate = Gate::start(&Config::with(Service::only(v1.port())).text());
    for protocol in ["h2c", "TLS/1.0", "tcp", "websocket, h2c"] {
        let fields = [("connection", "upgrade"), ("upgrade", protocol)];
        assert_eq!(gate.get("/", &fields).served_by(), "v1", "{protocol}");
        assert_eq!(v1.last().head.get("upgrade"), None, "{protocol}");
    }
}
