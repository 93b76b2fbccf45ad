use super::*;

fn start(limits: Limits) -> Running {
    Bench {
        limits,
        ..Bench::default()
    }
    .start()
}

impl Running {
    /// The whole answer, in bytes as sent, by any name; the connection is closed after it.
    fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = self.connect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: any.name\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn probes_say_what_the_process_is_at() {
    let admin = start(PATIENT);
    assert!(admin.ask("GET", "/livez").starts_with("HTTP/1.1 200 "));
    let starting = admin.ask("GET", "/readyz");
    assert!(starting.starts_with("HTTP/1.1 503 "), "{starting}");
    assert!(starting.contains("\r\n\r\nstarting"), "{starting}");

    admin.shared.ready.store(true, Ordering::Relaxed);
    let ready = admin.ask("GET", "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(ready.ends_with("\r\n\r\nready\n"), "{ready}");

    admin.shared.draining.store(true, Ordering::Relaxed);
    let draining = admin.ask("GET", "/readyz");
    assert!(draining.starts_with("HTTP/1.1 503 "), "{draining}");
    assert!(draining.contains("\r\n\r\ndraining"), "{draining}");
    assert!(admin.ask("GET", "/livez").starts_with("HTTP/1.1 200 "));
    admin.stop();
}

#[test]
fn the_page_is_prometheus_text() {
    let admin = start(PATIENT);
    let page = admin.ask("GET", "/metrics");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(page.contains("\nrollgate_endpoint_healthy{service=\"shop\",version=\"v1\",endpoint=\"127.0.0.1:9001\"} "));
    assert!(page.contains("\nprocess_open_fds "));

    let head = admin.ask("HEAD", "/metrics");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    admin.stop();
}

#[test]
fn anything_else_is_a_problem() {
    let admin = start(PATIENT);
    for (method, path, status) in [
        ("GET", "/metrics/", 404),
        ("GET", "/v1", 404),
        ("POST", "/nothing", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/livez", 405),
        ("OPTIONS", "/readyz", 405),
        ("OPTIONS", "/v1/kill", 405),
        ("POST", "/v1/services/shop/weights", 405),
    ] {
        let answer = admin.ask(method, path);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{method} {path}: {answer}"
        );
        assert!(
            answer.contains("content-type: application/problem+json\r\n"),
            "{answer}"
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["status"], status);
        assert_eq!(status == 405, head.contains("\r\nallow: "), "{head}");
    }
    admin.stop();
}

#[test]
fn a_head_that_drips_is_cut_off() {
    let admin = start(Limits {
        header: Duration::from_millis(300),
        ..PATIENT
    });
    let mut stream = admin.connect();
    let began = Instant::now();
    // It would take more than three minutes.
    let mut head = b"GET /livez HTTP/1.1\r\nx-slow: ".to_vec();
    head.resize(10_000, b'a');
    let mut answer = Vec::new();
    for byte in head {
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        assert!(began.elapsed() < LONG, "it may go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    admin.stop();
}

/// All connections taken by clients who say nothing: the next one waits for them to be cut off, and is served.
#[test]
fn silent_clients_do_not_keep_it() {
    let header = Duration::from_millis(600);
    let admin = start(Limits { header, ..PATIENT });
    let began = Instant::now();
    let _silent: Vec<_> = (0..5).map(|_| admin.connect()).collect();
    assert!(admin.ask("GET", "/livez").starts_with("HTTP/1.1 200 "));
    let waited = began.elapsed();
    assert!(waited >= header, "{waited:?}");
    admin.stop();
}

#[test]
fn a_connection_serves_more_than_one_request() {
    let admin = start(PATIENT);
    let mut stream = admin.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"alive\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
    }
    admin.stop();
}

#[test]
fn stopping_waits_for_nobody_long() {
    let idle = start(Limits {
        last_answer: NEVER,
        ..PATIENT
    });
    idle.stop();

    let silent = start(PATIENT);
    let mut stream = silent.connect();
    stream.write_all(b"GET /livez HT").unwrap();
    assert!(silent.ask("GET", "/livez").starts_with("HTTP/1.1 200 "));
    silent.stop();
}

#[test]
fn an_old_connection_is_closed_between_answers() {
    let admin = start(Limits {
        // Not so young that the request would come too late.
        age: Duration::from_millis(1500),
        ..PATIENT
    });
    let mut stream = admin.connect();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("alive\n"), "{answer}");
    admin.stop();
}

/// Whoever fills the connections of one listener does not fill those of another.
#[test]
fn the_unix_socket_is_not_filled_from_tcp() {
    let admin = start(PATIENT);
    let _silent: Vec<_> = (0..PATIENT.connections + 1).map(|_| admin.connect()).collect();
    assert_eq!(admin.unix("PUT /v1/kill", "").status, 200);
    admin.stop();
}

#[test]
fn the_dashboard_asks_for_what_is_there() {
    let admin = start(PATIENT);
    let index = admin.get("/");
    assert_eq!(index.status, 200);
    assert!(index.header("content-type").unwrap().starts_with("text/html"));
    let policy = index.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"),
        "{policy}"
    );
    let document = admin.get("/openapi.json");
    assert_eq!(document.body, openapi());
    let paths = document.json()["paths"].as_object().unwrap().clone();
    let links: Vec<&str> = index
        .body
        .split("href=\"/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(links.len() > 5, "{links:?}");
    for link in links {
        let path = format!("/{link}");
        assert!(path == "/openapi.json" || paths.contains_key(&path), "{path}");
    }
    admin.stop();
}
