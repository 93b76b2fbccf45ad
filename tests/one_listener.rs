//! One listener for all of them at once, through a split, while weights move and its certificate is replaced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

#[path = "grpc/service.rs"]
#[allow(dead_code, reason = "tests/grpc.rs uses all of it")]
mod service;

use bytes::Bytes;
use service::{EchoClient, EchoServer, Plain, receiver};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use support::{
    Authority, Client, Config, Exchange, Gate, Operator, PATIENCE, Service, Then, Trust, Upstream, WEB_SOCKET, der,
    eventually,
};
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::StreamExt;

/// Requests of one run of curl, on one connection.
const BATCH: usize = 20;

/// What both versions serve: `/ws` echoes, `/feed` tells numbers until it is `over`, and all else is answered with the name.
fn version(name: &'static str, over: &Arc<AtomicBool>) -> Upstream {
    let over = Arc::clone(over);
    Upstream::with(name, move |exchange| match exchange.request.target.as_str() {
        "/ws" => exchange.echo_web_socket(""),
        "/feed" => tell(exchange, &over),
        _ => {
            exchange.read_body();
            exchange.answer(200, &[], name.as_bytes())
        }
    })
}

fn tell(exchange: &mut Exchange<'_>, over: &AtomicBool) -> Then {
    exchange.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        let event = format!("data: {number}\n\n");
        if !exchange.try_send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()) {
            return Then::Close;
        }
        number += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    exchange.send("b\r\ndata: end\n\n\r\n0\r\n\r\n");
    Then::Keep
}

/// Everything that goes on, and how far each has come: a thread that fails ends the test.
struct Scene {
    gate: Gate,
    authority: Authority,
    over: Arc<AtomicBool>,
    http1: AtomicUsize,
    http2: AtomicUsize,
    messages: AtomicUsize,
    events: AtomicUsize,
    calls: AtomicUsize,
}

impl Scene {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// A curl that trusts the authority.
    fn curl(&self, how: &str) -> Command {
        let port = self.gate.port();
        let mut curl = Command::new("curl");
        curl.args(["-sS", how, "--resolve", &format!("shop.test:{port}:127.0.0.1")])
            .arg("--cacert")
            .arg(self.gate.directory().join("ca.pem"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        curl
    }

    fn url(&self, path: &str) -> String {
        format!("https://shop.test:{}{path}", self.gate.port())
    }

    /// Requests by curl, over and over, each run on a connection of its own.
    fn request(&self, how: &str, told: &str, count: &AtomicUsize) {
        while self.goes_on() {
            let output = self
                .curl(how)
                .args([
                    "--max-time",
                    "60",
                    "--write-out",
                    " %{http_version} %{http_code} %{num_connects}\n",
                ])
                .arg(self.url(&format!("/[1-{BATCH}]")))
                .output()
                .expect("start curl");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(lines.len(), BATCH, "{said}");
            for (at, line) in lines.iter().enumerate() {
                let rest = format!("{told} 200 {}", u8::from(at == 0));
                assert!(
                    ["v1", "v2"].iter().any(|version| **line == format!("{version} {rest}")),
                    "{line}"
                );
            }
            count.fetch_add(BATCH, Ordering::SeqCst);
        }
    }

    /// One WebSocket, with a message after the other and each answer compared.
    fn talk(&self) {
        let mut client = Client::connect_tls(self.gate.port(), &Trust::new(&self.authority), "shop.test");
        assert_eq!(client.get("/ws", &WEB_SOCKET).status, 101);
        for number in 0_u32.. {
            let message: Vec<u8> = number.to_be_bytes().repeat(250);
            client.send(&message);
            assert!(client.read_bytes(message.len()) == message, "message {number}");
            self.messages.fetch_add(1, Ordering::SeqCst);
            if !self.goes_on() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        client.half_close();
        assert!(client.is_closed_within(PATIENCE));
    }

    /// One feed by curl, of which no event may be missing.
    fn listen(&self, how: &str) {
        let mut curl = self
            .curl(how)
            .args(["--max-time", "600", "-N"])
            .arg(self.url("/feed"))
            .spawn()
            .expect("start curl");
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut expected = 0;
        let mut ended = false;
        for line in lines.filter(|line| !line.is_empty()) {
            assert!(!ended, "{line:?} after the end");
            ended = line == "data: end";
            assert!(
                ended || line == format!("data: {expected}"),
                "{how}: {line:?} for {expected}"
            );
            expected += 1;
            self.events.fetch_add(1, Ordering::SeqCst);
        }
        assert!(
            curl.wait().unwrap().success() && ended,
            "{how}: cut after {expected} events"
        );
    }

    /// One stream of gRPC, with a call beside each of its messages, on one connection.
    fn call(&self) {
        let client = EchoClient::connect_tls(self.gate.port(), &Trust::new(&self.authority));
        let (say, messages) = tokio::sync::mpsc::channel(1);
        let mut grpc = client.grpc.clone();
        let mut answers = client.run(async {
            grpc.ready().await.unwrap();
            let path = PathAndQuery::from_static("/test.Echo/Both");
            let messages = Request::new(receiver(messages));
            grpc.streaming(messages, path, Plain).await.unwrap().into_inner()
        });
        for number in 0_u32.. {
            let message = Bytes::from(number.to_string());
            client.run(async {
                say.send(message.clone()).await.unwrap();
                assert_eq!(answers.next().await.unwrap().unwrap(), message);
            });
            assert_eq!(client.say("hello").unwrap().into_inner(), "hello");
            self.calls.fetch_add(1, Ordering::SeqCst);
            if !self.goes_on() {
                break;
            }
        }
        drop(say);
        assert!(client.run(answers.next()).is_none());
    }

    /// Waits until each of them has come further.
    fn moves(&self) {
        let counters = [&self.http1, &self.http2, &self.messages, &self.events, &self.calls];
        let before = counters.map(|counter| counter.load(Ordering::SeqCst));
        for (counter, before) in counters.iter().zip(before) {
            eventually(3 * PATIENCE, "everything goes on", || {
                counter.load(Ordering::SeqCst) >= before + 3 * BATCH
            });
        }
    }

    /// Requests answered by each version, at one moment.
    fn answered(&self) -> (f64, f64) {
        let metrics = self.gate.metrics();
        let by = |version| [("service", "shop"), ("version", version), ("code", "200")];
        let answered = |version| metrics.sum("rollgate_requests_total", &by(version));
        (answered("v1"), answered("v2"))
    }

    /// The certificate that a new connection is shown.
    fn shown(&self) -> Vec<u8> {
        let client = Client::connect_tls(self.gate.port(), &Trust::new(&self.authority), "shop.test");
        client.wire().peer_certificate().unwrap()
    }

    fn weigh(&self, stable: u32, canary: u32) {
        let body = format!(r#"{{"weights":{{"v1":{stable},"v2":{canary}}}}}"#);
        for service in ["shop", "echo"] {
            let path = format!("/v1/services/{service}/weights");
            Operator::of(&self.gate).put(&path, &body).expect_ok();
        }
    }

    /// What the operator does while all of that goes on.
    fn operate(&self) {
        let (mut v1, mut v2) = (0.0, 0.0);
        eventually(3 * PATIENCE, "enough requests for a share", || {
            (v1, v2) = self.answered();
            v1 + v2 > 400.0
        });
        let share = v2 / (v1 + v2);
        assert!((0.08..=0.12).contains(&share), "{v2} of {} to the canary", v1 + v2);
        for (stable, canary) in [(50, 50), (10, 90), (0, 100)] {
            self.weigh(stable, canary);
            self.moves();
        }
        let renewed = self.authority.server(&["shop.test"]);
        assert_ne!(self.shown(), der(&renewed.cert));
        renewed.write(self.gate.directory(), "shop");
        eventually(PATIENCE, "the new certificate is shown", || {
            self.shown() == der(&renewed.cert)
        });
        self.moves();
        for (stable, canary) in [(100, 0), (90, 10)] {
            self.weigh(stable, canary);
            self.moves();
        }
    }
}

/// Ends it all however its scope ends: a failure of one must not leave the others going on.
struct Curtain<'a>(&'a AtomicBool);

impl Drop for Curtain<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn everything_at_once_while_weights_move_and_a_certificate_is_replaced() {
    let over = Arc::new(AtomicBool::new(false));
    let (v1, v2) = (version("v1", &over), version("v2", &over));
    let (files, authority) = (tempfile::tempdir().unwrap(), Authority::new("tests"));
    authority.write(&files.path().join("ca.pem"));
    let pair = authority.server(&["shop.test"]).write(files.path(), "shop");
    let servers = [EchoServer::start("v1"), EchoServer::start("v2")];
    let echo = Service::new("echo")
        .stable("v1", 90, &[servers[0].port()])
        .canary("v2", 10, &[servers[1].port()])
        .route("path_prefix: /test.Echo")
        .pools("protocol: h2c");
    let shop = Service::split(v1.port(), 90, v2.port(), 10);
    let config = Config::with(shop)
        .and(echo)
        .listener(&format!("tls: {{ certificates: [{pair}] }}"));
    let scene = Scene {
        gate: Gate::start_in(files, &config.text()),
        authority,
        over,
        http1: AtomicUsize::new(0),
        http2: AtomicUsize::new(0),
        messages: AtomicUsize::new(0),
        events: AtomicUsize::new(0),
        calls: AtomicUsize::new(0),
    };
    std::thread::scope(|scope| {
        let _curtain = Curtain(&scene.over);
        scope.spawn(|| scene.request("--http1.1", "1.1", &scene.http1));
        scope.spawn(|| scene.request("--http2", "2", &scene.http2));
        for _ in 0..3 {
            scope.spawn(|| scene.talk());
        }
        scope.spawn(|| scene.call());
        for how in ["--http1.1", "--http2"] {
            scope.spawn(|| scene.listen(how));
        }
        scene.operate();
    });
    let gate = &scene.gate;
    gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
    assert_eq!(gate.metric("rollgate_panics_total", &[]), 0.0);
    assert_eq!(
        gate.metric("rollgate_tls_handshakes_total", &[("result", "failed")]),
        0.0
    );
    gate.access_line("a WebSocket is told", |line| line["status"] == 101);
    for line in gate.access_log_lines() {
        assert_eq!(line["termination"], "ok", "{line}");
    }
}
