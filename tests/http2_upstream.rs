//! HTTP/2 to endpoints: a real server, and servers by hand that do what real ones do at their worst.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use support::frames::*;
use support::{Authority, Broken, Config, Gate, Nginx, PATIENCE, Service, Upstream, Write, eventually, in_parallel};

fn over_h2c(service: Service) -> Config {
    Config::with(service.pools("protocol: h2c"))
}

/// One request to `gate` over HTTP/1.1: status and body.
fn ask(gate: &Gate, method: &str, body: &[u8]) -> (u16, String) {
    let answer = gate.client().request(method, "/", &[], body);
    (answer.status, answer.text())
}

/// Serves every request with this body.
fn serve_all(client: &mut RawClient, body: &str) {
    while let Some(stream) = client.next_request() {
        client.respond(stream, body);
    }
}

#[test]
fn a_real_server_is_spoken_to_in_http2_whatever_the_client_speaks() {
    let servers = ["v1", "v2"].map(|name| Nginx::listening(name, "http2", tempfile::tempdir().unwrap()));
    let service = Service::split(servers[0].port(), 50, servers[1].port(), 50);
    let gate = Gate::start(&over_h2c(service.pools("health_check: { path: /healthz, every: 1s }")).text());
    let page = "0123456789".repeat(200_000);
    for server in &servers {
        server.put_file("page", page.as_bytes());
    }
    gate.expect_metric("rollgate_endpoint_healthy", &[], 2.0);
    for how in ["--http1.1", "--http2-prior-knowledge"] {
        for _ in 0..10 {
            let url = format!("http://127.0.0.1:{}/files/page", gate.port());
            let output = Command::new("curl")
                .args(["-sS", "--max-time", "20", how, &url])
                .output()
                .unwrap();
            assert!(output.stdout == page.as_bytes(), "{how}: {} bytes", output.stdout.len());
        }
    }
    let (_, answer) = ask(&gate, "POST", &vec![b'x'; 300_000]);
    assert!(answer.starts_with('v'), "{answer}");
    for server in &servers {
        eventually(PATIENCE, "nginx has told of all", || server.served() >= 10);
        assert_eq!(server.served_over("HTTP/1.1"), 0);
    }
    assert_eq!(gate.metrics().sum("rollgate_request_failures_total", &[]), 0.0);
}

#[test]
fn over_tls_http2_is_agreed_on_or_nothing_is_said() {
    let authority = Authority::new("test");
    let directory = tempfile::tempdir().unwrap();
    authority.server(&["shop.internal"]).write(directory.path(), "shop");
    let at = directory.path().display().to_string();
    let how = format!("ssl http2; ssl_certificate {at}/shop.pem; ssl_certificate_key {at}/shop.key");
    let nginx = Nginx::listening("v1", &how, directory);
    let files = tempfile::tempdir().unwrap();
    authority.write(&files.path().join("ca.pem"));
    let tls = "tls: { sni: shop.internal, ca: ca.pem }";
    let only = |port| {
        let service = Service::only(port).pools("protocol: h2").pools(tls);
        Config::with(service.pools("timeouts: { connect: 15s }")).text()
    };
    let gate = Gate::start_in(files, &only(nginx.port()));
    assert_eq!(ask(&gate, "GET", b""), (200, "v1\n".to_owned()));
    eventually(PATIENCE, "nginx has told of it", || nginx.served() > 0);
    assert_eq!((nginx.served_over("HTTP/2.0"), nginx.served()), (1, 1));

    // A server that knows only HTTP/1.1 is not spoken to.
    let old = Upstream::tls("old", authority.server(&["shop.internal"]).serves(None));
    gate.write_config(&only(old.port()), Write::Rename);
    eventually(PATIENCE, "the other endpoint is in force", || {
        ask(&gate, "GET", b"").0 != 200
    });
    assert_eq!(ask(&gate, "GET", b"").0, 502);
    assert_eq!(old.count(), 0);
}

#[test]
fn many_requests_share_few_connections_and_versions_share_none() {
    let servers = ["v1", "v2"].map(|name| RawServer::start(&[], move |client, _| serve_all(client, name)));
    let service = Service::split(servers[0].port(), 90, servers[1].port(), 10);
    let gate = Gate::start(&over_h2c(service).top("threads: 1").text());
    let url = format!("http://127.0.0.1:{}/", gate.port());
    let output = Command::new("h2load")
        .args(["-n1000", "-c4", "-m25", &url])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1000 succeeded, 0 failed, 0 errored"), "{said}");
    gate.expect_metric("rollgate_requests_total", &[("version", "v2")], 100.0);
    for server in &servers {
        assert!(
            (1..=2).contains(&server.connections()),
            "{} connections",
            server.connections()
        );
    }
}

#[test]
fn a_server_that_takes_few_streams_gets_more_connections() {
    let came = AtomicUsize::new(0);
    // SETTINGS_MAX_CONCURRENT_STREAMS: 2.
    let server = RawServer::start(&[0, 3, 0, 0, 0, 2], move |client, _| {
        while let Some(stream) = client.next_request() {
            // Behind the first one, none is answered before one has come on another connection.
            if came.fetch_add(1, Ordering::SeqCst) > 0 {
                eventually(PATIENCE, "another one", || came.load(Ordering::SeqCst) > 2);
            }
            client.respond(stream, "v1");
        }
    });
    let gate = Gate::start(&over_h2c(Service::only(server.port())).top("threads: 1").text());
    // Its settings are known from here on.
    assert_eq!(ask(&gate, "GET", b"").0, 200);
    let answers = in_parallel(12, |_| ask(&gate, "POST", b"x"));
    assert!(
        answers.iter().all(|answer| *answer == (200, "v1".to_owned())),
        "{answers:?}"
    );
    assert!(server.connections() > 1, "{} connections", server.connections());
}

#[test]
fn what_an_endpoint_says_it_has_not_begun_is_sent_again_even_a_post() {
    let server = RawServer::start(&[], |client, connection| {
        let mut refused = false;
        while let Some(stream) = client.next_request() {
            match connection {
                0 if !refused => {
                    client.send(RST_STREAM, 0, stream, REFUSED_STREAM.to_be_bytes());
                    refused = true;
                }
                // The second time it says that it ends, and has begun nothing after stream 1.
                0 => {
                    client.send(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, 0]);
                }
                _ => {
                    client.respond(stream, &format!("on {connection}"));
                }
            }
        }
    });
    let gate = Gate::start(&over_h2c(Service::only(server.port())).top("threads: 1").text());
    assert_eq!(ask(&gate, "POST", b"one"), (200, "on 1".to_owned()));
    assert_eq!(ask(&gate, "POST", b"two"), (200, "on 2".to_owned()));
    assert_eq!(gate.metrics().sum("rollgate_request_failures_total", &[]), 0.0);
}

#[test]
fn what_was_not_begun_goes_where_no_other_end_is_near() {
    let came = AtomicUsize::new(0);
    // One stream at a time, so that there are two connections; both are to end with their second request.
    let server = RawServer::start(&[0, 3, 0, 0, 0, 1], move |client, connection| {
        while let Some(stream) = client.next_request() {
            match (connection, stream) {
                (0 | 1, 1) => {
                    came.fetch_add(1, Ordering::SeqCst);
                    eventually(PATIENCE, "the other one", || came.load(Ordering::SeqCst) == 2);
                    client.respond(stream, "first");
                }
                (0 | 1, _) => {
                    client.send(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, 0]);
                }
                _ => {
                    client.respond(stream, &format!("on {connection}"));
                }
            }
        }
    });
    let service = Service::only(server.port()).pools("timeouts: { connect: 20s }");
    let gate = Gate::start(&over_h2c(service).top("threads: 1").text());
    let answers = in_parallel(2, |_| ask(&gate, "GET", b""));
    assert!(answers.iter().all(|answer| answer.1 == "first"), "{answers:?}");
    assert_eq!(ask(&gate, "POST", b"x"), (200, "on 2".to_owned()));
    assert_eq!(gate.metrics().sum("rollgate_request_failures_total", &[]), 0.0);
}

/// The first time of a refusal, those refused go together to a new connection, and the second time each to one of its own.
#[test]
fn however_few_requests_a_connection_takes_none_is_lost() {
    let server = RawServer::start(&[], |client, _| {
        while let Some(stream) = client.next_request() {
            if stream > 3 {
                client.send(GOAWAY, 0, 0, [0, 0, 0, 3, 0, 0, 0, 0]);
            } else {
                client.respond(stream, "v1");
            }
        }
    });
    let service = Service::only(server.port()).pools("timeouts: { connect: 20s }");
    let gate = Gate::start(&over_h2c(service).top("threads: 1").text());
    for _ in 0..3 {
        let answers = in_parallel(24, |_| ask(&gate, "POST", b"x"));
        assert!(
            answers.iter().all(|answer| *answer == (200, "v1".to_owned())),
            "{answers:?}"
        );
    }
    assert_eq!(gate.metrics().sum("rollgate_request_failures_total", &[]), 0.0);
}

#[test]
fn nginx_that_ends_its_connections_loses_no_post() {
    let how = "http2; keepalive_requests 20; http2_max_concurrent_streams 8";
    let nginx = Nginx::listening("v1", how, tempfile::tempdir().unwrap());
    let service = Service::only(nginx.port()).pools("timeouts: { connect: 20s }");
    let gate = Gate::start(&over_h2c(service).text());
    let body = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(body.path(), "x").unwrap();
    let url = format!("http://127.0.0.1:{}/", gate.port());
    let output = Command::new("h2load")
        .args(["-n4000", "-c4", "-m50", "-d"])
        .arg(body.path())
        .arg(&url)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("4000 succeeded, 0 failed, 0 errored"), "{said}");
}

#[test]
fn an_endpoint_that_begins_nothing_is_asked_three_times() {
    let server = RawServer::start(&[], |client, _| {
        while let Some(stream) = client.next_request() {
            client.send(RST_STREAM, 0, stream, REFUSED_STREAM.to_be_bytes());
        }
    });
    let service = Service::only(server.port()).never_eject();
    let gate = Gate::start(&over_h2c(service).top("threads: 1").text());
    assert_eq!(ask(&gate, "POST", b"x").0, 502);
    assert_eq!(server.connections(), 3);
    gate.expect_metric("rollgate_request_failures_total", &[("kind", "reset")], 1.0);
}

/// The first request does not wait for SETTINGS. Those behind it do: how many more the endpoint takes is known only then.
#[test]
fn until_an_endpoint_has_told_its_limit_one_request_is_sent() {
    const REQUESTS: usize = 6;
    let (came, early) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (all_wait, may_tell) = mpsc::channel::<()>();
    let may_tell = std::sync::Mutex::new(may_tell);
    let (count, too_early) = (Arc::clone(&came), Arc::clone(&early));
    let server = RawServer::silent(move |client, connection| {
        let mut streams = vec![client.next_request().unwrap()];
        count.fetch_add(1, Ordering::SeqCst);
        if connection == 0 {
            may_tell.lock().unwrap().recv().unwrap();
            client.set_patience(Duration::from_millis(300));
            while let Ok(Some(frame)) = client.try_read() {
                too_early.fetch_add(usize::from(frame.kind == HEADERS), Ordering::SeqCst);
            }
            client.set_patience(PATIENCE);
        }
        client.send(SETTINGS, 0, 0, [0, 3, 0, 0, 0, 2]);
        streams.push(client.next_request().unwrap());
        count.fetch_add(1, Ordering::SeqCst);
        eventually(PATIENCE, "all of them", || count.load(Ordering::SeqCst) == REQUESTS);
        for stream in streams {
            client.respond(stream, "v1");
        }
        serve_all(client, "more");
    });
    let service = Service::only(server.port()).pools("timeouts: { connect: 20s }");
    let gate = Gate::start(&over_h2c(service).top("threads: 1").text());
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| in_parallel(REQUESTS, |_| ask(&gate, "POST", b"x")));
        gate.expect_metric("rollgate_requests_in_flight", &[], REQUESTS as f64);
        eventually(PATIENCE, "the first one", || came.load(Ordering::SeqCst) == 1);
        all_wait.send(()).unwrap();
        let answers = asked.join().unwrap();
        assert!(
            answers.iter().all(|answer| *answer == (200, "v1".to_owned())),
            "{answers:?}"
        );
    });
    assert_eq!((early.load(Ordering::SeqCst), server.connections()), (0, 3));
}

/// The window of a connection may be spent, and never come back.
#[test]
fn a_connection_that_takes_no_body_gets_no_further_requests() {
    let (stuck, has_gone_on) = mpsc::channel::<()>();
    let has_gone_on = std::sync::Mutex::new(has_gone_on);
    let server = RawServer::start(&[], move |client, connection| {
        let first = client.next_request().unwrap();
        if connection == 0 {
            // Of the body of a second one it reads as much as there is window for.
            client.next_request().unwrap();
            has_gone_on.lock().unwrap().recv().unwrap();
            client.respond(first, "slow");
            return serve_all(client, "wrong");
        }
        loop {
            let frame = client.read().unwrap();
            if frame.kind == DATA {
                let room = (frame.payload.len() as u32).to_be_bytes();
                if frame.has(END_STREAM) {
                    break;
                }
                client
                    .send(WINDOW_UPDATE, 0, 0, room)
                    .send(WINDOW_UPDATE, 0, first, room);
            }
        }
        client.respond(first, "taken");
        serve_all(client, "more");
    });
    let service = Service::only(server.port())
        .never_eject()
        .pools("timeouts: { connect: 20s, idle: 3s, first_byte: 60s }");
    let gate = Gate::start(&over_h2c(service).top("threads: 1").text());
    let body = vec![b'x'; 200_000];
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| ask(&gate, "GET", b""));
        eventually(PATIENCE, "the first one", || server.connections() == 1);
        let (status, text) = ask(&gate, "POST", &body);
        assert_eq!(status, 504);
        assert!(
            text.contains("the endpoint took nothing of the request's body"),
            "{text}"
        );
        assert_eq!(ask(&gate, "POST", &body), (200, "taken".to_owned()));
        stuck.send(()).unwrap();
        assert_eq!(
            slow.join().unwrap(),
            (200, "slow".to_owned()),
            "what runs there goes on"
        );
    });
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_reset_is_the_versions_failure_and_a_post_is_not_repeated() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let server = RawServer::start(&[], move |client, _| {
        while let Some(stream) = client.next_request() {
            count.fetch_add(1, Ordering::SeqCst);
            client.send(RST_STREAM, 0, stream, INTERNAL_ERROR.to_be_bytes());
        }
    });
    let gate = Gate::start(
        &over_h2c(Service::only(server.port()).never_eject())
            .top("threads: 1")
            .text(),
    );
    for (n, body) in [&b"x"[..], b""].into_iter().enumerate() {
        assert_eq!(ask(&gate, "POST", body).0, 502);
        assert_eq!(seen.load(Ordering::SeqCst), n + 1, "with {} bytes", body.len());
    }
    gate.expect_metric("rollgate_request_failures_total", &[("kind", "reset")], 2.0);
    assert_eq!(
        server.connections(),
        1,
        "the connection outlives a stream that was reset"
    );
}

#[test]
fn a_connection_that_ended_while_nothing_ran_costs_no_request() {
    let (ended, has_ended) = mpsc::channel();
    let server = RawServer::start(&[], move |client, connection| {
        let stream = client.next_request().unwrap();
        client.respond(stream, &format!("on {connection}"));
        // And it closes, without a word.
        client.finish();
        ended.send(()).unwrap();
    });
    let gate = Gate::start(&over_h2c(Service::only(server.port())).top("threads: 1").text());
    for n in 0..20 {
        assert_eq!(ask(&gate, "POST", b"x"), (200, format!("on {n}")));
        // A request that was already on its way would have been lost with the connection.
        has_ended.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn an_answer_before_the_end_of_its_request_outlives_the_connection() {
    let (ended, has_ended) = mpsc::channel();
    let server = RawServer::start(&[], move |client, connection| {
        let stream = client.next_request().unwrap();
        if connection % 2 == 0 {
            client.respond(stream, "page");
        } else {
            client.send(HEADERS, END_HEADERS | END_STREAM, stream, [0x88]);
        }
        client.finish();
        ended.send(()).unwrap();
        // And it closes, with a reset: much of the request is never read.
    });
    let gate = Gate::start(&over_h2c(Service::only(server.port())).top("threads: 1").text());
    for n in 0..20 {
        let mut client = gate.client();
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n");
        client.send(vec![b'x'; 60_000]);
        let answer = client.read(false).unwrap();
        // Of an answer without a body that is known, also when its connection has ended.
        let (page, length) = if n % 2 == 0 { ("page", None) } else { ("", Some("0")) };
        assert_eq!((answer.status, &*answer.text()), (200, page));
        assert_eq!(answer.header("content-length"), length);
        has_ended.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(gate.metrics().sum("rollgate_request_failures_total", &[]), 0.0);
}

/// Bytes an endpoint may send on one stream before they are passed on.
const STREAM_WINDOW: usize = 128 << 10;

/// The body of an answer, as much of it as the proxy and its client hold when the client takes nothing. As a server.
fn fill(server: &mut RawClient, stream: u32) -> usize {
    let (mut room, mut sent) = (STREAM_WINDOW, 0);
    server.set_patience(Duration::from_millis(300));
    loop {
        while room > 0 {
            let piece = room.min(16 << 10);
            server.send(DATA, 0, stream, vec![b'x'; piece]);
            (room, sent) = (room - piece, sent + piece);
        }
        match server.try_read() {
            Ok(Some(frame)) if frame.kind == WINDOW_UPDATE && frame.stream == stream => {
                room += u32::from_be_bytes(frame.payload.try_into().unwrap()) as usize;
            }
            Ok(Some(_)) => {}
            Ok(None) => panic!("the proxy has closed"),
            Err(_) => return sent,
        }
    }
}

#[test]
fn an_early_answer_outlives_the_connection_however_slow_its_client_is() {
    type End = fn(&mut RawClient, u32);
    let whole: [(&str, End); 2] = [
        ("an empty frame", |server, stream| {
            server.send(DATA, END_STREAM, stream, "");
        }),
        ("trailers", |server, stream| {
            let trailers = hpack(&[("x-sum", "1")]);
            let (first, rest) = trailers.split_at(3);
            server.send(HEADERS, END_STREAM, stream, first);
            server.send(CONTINUATION, END_HEADERS, stream, rest);
        }),
    ];
    let cut: [(&str, End); 3] = [
        ("nothing", |_, _| {}),
        ("a part of a frame", |server, stream| {
            let last = Frame::new(DATA, END_STREAM, stream, "last").bytes();
            server.send_bytes(&last[..last.len() - 1]);
        }),
        ("a part of the trailers", |server, stream| {
            server.send(HEADERS, END_STREAM, stream, &hpack(&[("x-sum", "1")])[..3]);
        }),
    ];
    let ends = whole.map(|end| (true, end)).into_iter();
    for (is_whole, (what, end)) in ends.chain(cut.map(|end| (false, end))) {
        let (told, hears) = mpsc::channel();
        let server = RawServer::start(&[], move |server, _| {
            let stream = server.next_request().unwrap();
            server.send(HEADERS, END_HEADERS, stream, [0x88]);
            let sent = fill(server, stream);
            end(server, stream);
            server.finish();
            // The proxy knows of the end when it closes in its turn. It does not where that came within a frame.
            server.set_patience(PATIENCE);
            while is_whole && server.read().is_some() {}
            told.send(sent).unwrap();
        });
        let service = Service::only(server.port()).never_eject();
        let gate = Gate::start(&over_h2c(service).top("threads: 1").text());

        let mut client = gate.client();
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\nunfinished");
        let first = hears.recv_timeout(PATIENCE).unwrap();
        let over_1 = match client.read(false) {
            Ok(answer) => Some(answer.body.len()),
            Err(Broken::Cut(_)) => None,
            Err(other) => panic!("{what}: {other:?}"),
        };

        let mut client = RawClient::connect(gate.port());
        // SETTINGS_INITIAL_WINDOW_SIZE: 5000.
        let settings = [0, 4, 0, 0, 0x13, 0x88];
        client.send_bytes(PREFACE).send(SETTINGS, 0, 0, settings);
        client.head(1, &POST).send(DATA, 0, 1, "unfinished");
        let second = hears.recv_timeout(PATIENCE).unwrap();
        for stream in [0, 1] {
            client.send(WINDOW_UPDATE, 0, stream, (1_u32 << 20).to_be_bytes());
        }
        let over_2 = match client.outcome(1, PATIENCE) {
            Outcome::Answer(_, body) => Some(body.len()),
            Outcome::Reset(_) => None,
            other => panic!("{what}: {other:?}"),
        };
        let expected = is_whole.then_some((first, second)).unzip();
        assert_eq!((over_1, over_2), expected, "an answer that ends with {what}");
        let failures = if is_whole { 0.0 } else { 2.0 };
        gate.expect_metric("rollgate_request_failures_total", &[], failures);
    }
}

#[test]
fn answers_that_break_http2_are_the_versions_failure_and_cost_only_their_connection() {
    type Answer = fn(&mut RawClient, u32);
    let broken: [(&str, Answer); 7] = [
        ("no status", |client, stream| {
            client.send(HEADERS, END_HEADERS, stream, hpack(&[("server", "x")]));
        }),
        ("a name in capitals", |client, stream| {
            client.send(HEADERS, END_HEADERS, stream, hpack(&[(":status", "200"), ("X", "y")]));
        }),
        ("a field of a connection", |client, stream| {
            client.send(
                HEADERS,
                END_HEADERS,
                stream,
                hpack(&[(":status", "200"), ("connection", "close")]),
            );
        }),
        ("an invalid block", |client, stream| {
            client.send(HEADERS, END_HEADERS, stream, [0xff; 24]);
        }),
        ("a body on stream 0", |client, _| {
            client.send(DATA, 0, 0, "x");
        }),
        ("a push", |client, stream| {
            client.send(
                PUSH_PROMISE,
                END_HEADERS,
                stream,
                [&[0, 0, 0, 2][..], &hpack(&GET)].concat(),
            );
        }),
        ("a head without an end", |client, stream| {
            client.send(HEADERS, 0, stream, hpack(&[(":status", "200")]));
            let piece = Frame::new(CONTINUATION, 0, stream, hpack(&[("x-more", &"x".repeat(8000))])).bytes();
            // Until the proxy has had enough of it; 800 MB would be enough of a failure.
            assert!(
                (0..100_000).any(|_| !client.try_send_bytes(&piece)),
                "it took all of that"
            );
        }),
    ];
    for (what, answer) in broken {
        let server = RawServer::start(&[], move |client, connection| {
            while let Some(stream) = client.next_request() {
                if connection == 0 && stream == 1 {
                    answer(client, stream);
                } else {
                    client.respond(stream, "whole");
                }
            }
        });
        let gate = Gate::start(
            &over_h2c(Service::only(server.port()).never_eject())
                .top("threads: 1")
                .text(),
        );
        assert_eq!(ask(&gate, "POST", b"x").0, 502, "{what}");
        assert_eq!(ask(&gate, "POST", b"x"), (200, "whole".to_owned()), "after {what}");
        gate.expect_metric("rollgate_request_failures_total", &[], 1.0);
        assert_eq!(gate.metric("rollgate_panics_total", &[]), 0.0);
    }
}

#[test]
fn a_client_that_takes_nothing_holds_up_nobody_on_the_same_connection() {
    let server = RawServer::start(&[], |client, _| {
        let first = client.next_request().unwrap();
        client.send(HEADERS, END_HEADERS, first, [0x88]);
        // As much as one stream may hold, all of it.
        for _ in 0..8 {
            client.send(DATA, 0, first, vec![b'x'; 16 << 10]);
        }
        serve_all(client, "fast");
    });
    let gate = Gate::start(&over_h2c(Service::only(server.port())).top("threads: 1").text());
    let mut slow = RawClient::greeted(gate.port());
    slow.request(1, &GET);
    slow.until("the slow answer begins", |frame| frame.kind == DATA);
    for _ in 0..20 {
        assert_eq!(ask(&gate, "GET", b""), (200, "fast".to_owned()));
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_client_that_leaves_takes_its_stream_back() {
    let (told, hears) = mpsc::channel();
    let server = RawServer::start(&[], move |client, _| {
        while let Some(stream) = client.next_request() {
            told.send(None).unwrap();
            let reset = client.until("the stream is taken back", |frame| frame.kind == RST_STREAM);
            told.send(Some((stream == reset.stream, reset.error()))).unwrap();
        }
    });
    let gate = Gate::start(&over_h2c(Service::only(server.port())).top("threads: 1").text());
    for _ in 0..3 {
        let mut client = gate.client();
        client.send("GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
        assert_eq!(hears.recv_timeout(PATIENCE), Ok(None), "the request is under way");
        client.reset();
        assert_eq!(hears.recv_timeout(PATIENCE), Ok(Some((true, CANCEL))));
        gate.expect_metric("rollgate_requests_in_flight", &[], 0.0);
    }
    assert_eq!(server.connections(), 1);
}

/// From a client of HTTP/1.1: pieces become DATA frames, and what follows them a head of its own.
#[test]
fn a_chunked_body_and_its_trailers_reach_the_endpoint() {
    let (told, hears) = mpsc::channel();
    let server = RawServer::start(&[], move |client, _| {
        while let Some(stream) = client.next_request() {
            let (mut body, mut trailers) = (Vec::new(), false);
            loop {
                let frame = client.read().unwrap();
                match frame.kind {
                    DATA => body.extend(&frame.payload),
                    HEADERS => trailers = true,
                    _ => {}
                }
                if matches!(frame.kind, DATA | HEADERS) && frame.has(END_STREAM) {
                    break;
                }
            }
            told.send((String::from_utf8(body).unwrap(), trailers)).unwrap();
            client.respond(stream, "got it");
        }
    });
    let gate = Gate::start(&over_h2c(Service::only(server.port())).text());
    for (trailer, expected) in [("", false), ("x-sum: 1\r\n", true)] {
        let mut client = gate.client();
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        client.send(format!("4\r\ndefg\r\n0\r\n{trailer}\r\n"));
        assert_eq!(client.read(false).unwrap().text(), "got it");
        assert_eq!(hears.recv_timeout(PATIENCE), Ok(("abcdefg".to_owned(), expected)));
    }
}

#[test]
fn a_client_is_held_back_by_an_endpoint_that_takes_nothing() {
    const MOST: usize = 64 << 20;
    let server = RawServer::start(&[], |client, _| {
        client.next_request();
        // Reads on, and opens no window.
        while let Ok(Some(_)) = client.try_read() {}
    });
    let config = over_h2c(Service::only(server.port())).limit("max_body: 1GiB");
    let gate = Gate::start(&config.text());
    let mut client = gate.client();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {MOST}\r\n\r\n"));
    client.stream().set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let (piece, mut sent) = (vec![b'x'; 64 << 10], 0);
    while sent < MOST && client.try_send(&piece).is_ok() {
        sent += piece.len();
    }
    assert!(
        sent < MOST / 2,
        "{sent} bytes were taken for an endpoint that takes nothing"
    );
}

#[test]
fn interim_answers_and_their_ends_reach_clients_of_both_versions() {
    let server = RawServer::start(&[], |client, _| {
        while let Some(stream) = client.next_request() {
            client.send(
                HEADERS,
                END_HEADERS,
                stream,
                hpack(&[(":status", "103"), ("link", "</a.css>")]),
            );
            client.respond(stream, "page");
        }
    });
    let gate = Gate::start(&over_h2c(Service::only(server.port())).text());
    let mut client = gate.client();
    client.send("GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
    let interim = client.read_head().unwrap();
    assert_eq!((interim.status, interim.header("link")), (103, Some("</a.css>")));
    assert_eq!(client.read(false).unwrap().text(), "page");
    let mut client = RawClient::greeted(gate.port());
    client.request(1, &GET);
    let interim = client.until("a head", |frame| frame.kind == HEADERS);
    assert_eq!(interim.status(), 103);
    assert_eq!(client.answer(1), (200, b"page".to_vec()));
}

#[test]
fn a_reload_changes_what_is_spoken_and_the_next_request_is_sent_so() {
    let old = Nginx::named("one");
    let server = RawServer::start(&[], |client, _| serve_all(client, "two"));
    let one = Config::with(Service::only(old.port())).text();
    let gate = Gate::start(&one);
    assert_eq!(ask(&gate, "GET", b"").1, "one\n");
    gate.write_config(&over_h2c(Service::only(server.port())).text(), Write::Rename);
    eventually(PATIENCE, "HTTP/2 is spoken", || {
        ask(&gate, "GET", b"") == (200, "two".to_owned())
    });
    // The same address, and another way to speak to it: what is idle is of no use.
    let other = RawServer::start(&[], |client, _| serve_all(client, "h2"));
    gate.write_config(&over_h2c(Service::only(other.port())).text(), Write::Rename);
    eventually(PATIENCE, "the other one", || {
        ask(&gate, "GET", b"") == (200, "h2".to_owned())
    });
    gate.write_config(&Config::with(Service::only(other.port())).text(), Write::Rename);
    eventually(PATIENCE, "a server of HTTP/2 does not speak HTTP/1.1", || {
        ask(&gate, "GET", b"").0 == 502
    });
}

/// What stays silent is asked for a sign of life, and its requests need not wait for `timeouts.first_byte`.
#[test]
fn a_connection_that_is_dead_is_given_up() {
    let server = RawServer::start(&[], |client, connection| {
        if connection > 0 {
            return serve_all(client, "alive");
        }
        // Reads nothing more: pings are not answered.
        client.next_request();
        std::thread::sleep(Duration::from_secs(60));
    });
    let service = Service::only(server.port()).pools("timeouts: { first_byte: 60s }");
    let gate = Gate::start(&over_h2c(service).top("threads: 1").text());
    // After 15 s; the client may be a bit more patient. `first_byte` would make it a 504.
    let mut client = gate.client();
    client.set_read_timeout(2 * PATIENCE);
    assert_eq!(client.request("POST", "/", &[], b"x").status, 502);
    assert_eq!(ask(&gate, "GET", b""), (200, "alive".to_owned()));
}

/// How many streams a thread has to an endpoint is bounded by the proxy: who finds none has met a limit of it, and no failure.
#[test]
fn where_no_stream_comes_free_the_proxy_says_so_and_nobody_has_failed() {
    const CONNECTIONS: usize = 32;
    let came = Arc::new(AtomicUsize::new(0));
    let (release, released) = mpsc::channel::<()>();
    let (count, released) = (Arc::clone(&came), std::sync::Mutex::new(released));
    // SETTINGS_MAX_CONCURRENT_STREAMS: 1.
    let server = RawServer::start(&[0, 3, 0, 0, 0, 1], move |client, _| {
        while let Some(stream) = client.next_request() {
            count.fetch_add(1, Ordering::SeqCst);
            // Fails once all may go.
            let _ = released.lock().unwrap().recv();
            client.respond(stream, "v1");
        }
    });
    let service = Service::only(server.port()).pools("timeouts: { connect: 3s, first_byte: 60s }");
    let gate = Gate::start(&over_h2c(service).top("threads: 1").text());
    std::thread::scope(|scope| {
        let held: Vec<_> = (1..=CONNECTIONS)
            .map(|n| {
                let one = scope.spawn(|| {
                    let mut client = gate.client();
                    client.set_read_timeout(3 * PATIENCE);
                    client.request("POST", "/", &[], b"x").status
                });
                eventually(PATIENCE, "it is there", || came.load(Ordering::SeqCst) == n);
                one
            })
            .collect();
        let (status, text) = ask(&gate, "POST", b"x");
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("the proxy has no room"), "{text}");
        drop(release);
        assert!(held.into_iter().all(|one| one.join().unwrap() == 200));
    });
    assert_eq!(server.connections(), CONNECTIONS);
    let line = gate.access_line("the one too many", |line| line["status"] == 503);
    let why = "connecting to the endpoint: all 32 streams that the endpoint allows of this thread's 32 connections were taken for \
               timeouts.connect";
    assert_eq!(
        (&line["error"], &line["termination"]),
        (&why.into(), &"internal".into())
    );
    assert_eq!(gate.metrics().sum("rollgate_request_failures_total", &[]), 0.0);
    assert_eq!(gate.metric("rollgate_endpoint_healthy", &[]), 1.0);
    assert_eq!(ask(&gate, "POST", b"x").0, 200);
}

/// A server of gRPC ends a connection on which it is asked for a sign of life a third time within minutes of saying nothing.
#[test]
fn an_endpoint_that_lives_and_is_silent_is_not_asked_again_soon() {
    let pings = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&pings);
    let server = RawServer::start(&[], move |client, _| {
        let stream = client.next_request().unwrap();
        let begun = Instant::now();
        client.set_patience(Duration::from_millis(100));
        while begun.elapsed() < Duration::from_secs(24) {
            let Ok(frame) = client.try_read() else {
                continue;
            };
            let frame = frame.expect("the connection lives");
            if frame.kind == PING && !frame.has(ACK) {
                asked.fetch_add(1, Ordering::SeqCst);
                client.send(PING, ACK, 0, frame.payload);
            }
        }
        client.respond(stream, "late");
    });
    let service = Service::only(server.port()).pools("timeouts: { first_byte: 60s }");
    let gate = Gate::start(&over_h2c(service).top("threads: 1").text());
    let mut client = gate.client();
    client.set_read_timeout(3 * PATIENCE);
    let answer = client.request("POST", "/", &[], b"x");
    assert_eq!((answer.status, answer.text()), (200, "late".to_owned()));
    assert_eq!(pings.load(Ordering::SeqCst), 1);
}
