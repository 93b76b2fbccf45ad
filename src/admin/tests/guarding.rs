use super::*;

/// What is refused without a token, and what is not.
const SECRETS: [&str; 10] = [
    "PUT /v1/services/shop/weights",
    "PUT /v1/services/shop/kill",
    "DELETE /v1/services/shop/kill",
    "PUT /v1/kill",
    "DELETE /v1/kill",
    "POST /v1/config/reload",
    "POST /v1/upgrade",
    "POST /v1/config/validate",
    "GET /v1/config",
    "GET /v1/rejected",
];
const READINGS: [&str; 6] = [
    "GET /",
    "GET /openapi.json",
    "GET /v1/status",
    "GET /v1/services",
    "GET /v1/services/shop",
    "GET /v1/events",
];
const PROBES: [&str; 2] = ["GET /livez", "GET /metrics"];

#[test]
fn without_a_token_configured_tcp_only_reads() {
    let admin = Bench {
        tokens: None,
        writer: Box::new(|_, _, _| panic!("nothing is asked of the writer")),
        ..Bench::default()
    }
    .start();
    for start in SECRETS {
        let answer = admin.trusted(start, "");
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (403, "read-only"),
            "{start}"
        );
        assert!(answer.json()["help"].as_str().unwrap().contains("admin.token_file"));
    }
    for start in READINGS.into_iter().chain(PROBES) {
        assert_eq!(admin.tcp(start, &admin.local(), "").status, 200, "{start}");
    }
    admin.stop();
}

#[test]
fn a_token_opens_and_nothing_else_does() {
    let admin = Bench::default().start();
    let with = |start: &str, lines: &str| admin.tcp(start, &format!("{}{lines}", admin.local()), "");
    for start in SECRETS {
        for lines in [
            "",
            "authorization: Bearer 0123456789abcdeX\r\n",
            "authorization: Bearer\r\n",
            "authorization: Basic 0123456789abcdef\r\n",
            "authorization: Bearer 0123456789abcdef\r\nauthorization: Bearer 0123456789abcdef\r\n",
            "cookie: token=0123456789abcdef\r\n",
        ] {
            let answer = with(start, lines);
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (401, "unauthorized"),
                "{start} {lines}"
            );
            assert_eq!(answer.header("www-authenticate"), Some("bearer realm=\"rollgate\""));
            assert!(!answer.body.contains("0123456789"), "{answer:?}");
        }
        let query = format!("{start}?token={TOKEN}&access_token={TOKEN}");
        assert_eq!(with(&query, "").status, 401, "{start}");
        let trusted = admin.trusted(start, "");
        assert!(![401, 403].contains(&trusted.status), "{start}: {trusted:?}");
    }
    for start in READINGS {
        assert_eq!(with(start, "authorization: Bearer wrong\r\n").status, 200, "{start}");
    }
    admin.stop();
}

#[test]
fn who_asks_is_told_to_the_writer() {
    let admin = Bench {
        writer: Box::new(|_, by, _| Ok(done(&format!("{} from {}: {:?}", by.who, by.from, by.reason)))),
        tokens: Some(format!("ci: {TOKEN}\nfedcba9876543210")),
        ..Bench::default()
    }
    .start();
    let message = |answer: Answer| answer.json()["message"].as_str().unwrap().to_owned();
    let by_token = message(admin.trusted("PUT /v1/kill", r#"{"reason": "fire"}"#));
    assert_eq!(by_token, "token ci from 127.0.0.1: Some(\"fire\")");
    let lines = format!("{}authorization: Bearer fedcba9876543210\r\n", admin.local());
    assert_eq!(
        message(admin.tcp("PUT /v1/kill", &lines, "")),
        "token from 127.0.0.1: None"
    );
    let uid = nix::unistd::Uid::effective();
    let user = nix::unistd::User::from_uid(uid).unwrap().unwrap().name;
    assert_eq!(
        message(admin.unix("PUT /v1/kill", "")),
        format!("{user} (uid {uid}) from unix: None")
    );
    admin.stop();
}

#[test]
fn a_token_file_that_is_not_right_opens_nothing() {
    let admin = Bench::default().start();
    let file = admin.directory.path().join("admin.token");
    std::fs::write(&file, "short").unwrap();
    let answer = admin.trusted("PUT /v1/kill", "");
    assert_eq!((answer.status, answer.problem().as_str()), (503, "token-file"));
    assert_eq!(admin.unix("PUT /v1/kill", "").status, 200);
    std::fs::write(&file, TOKEN).unwrap();
    assert_eq!(admin.trusted("PUT /v1/kill", "").status, 200);
    admin.stop();
}

#[test]
fn only_by_our_names() {
    let admin = Bench {
        hosts: &["Admin.Example.com", "proxy:81"],
        ..Bench::default()
    }
    .start();
    let port = admin.address.port();
    let ask = |start: &str, lines: &str| admin.tcp(start, lines, "");
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        "admin.example.com".to_owned(),
        "ADMIN.example.com:443".to_owned(),
        "proxy:81".to_owned(),
    ] {
        assert_eq!(
            ask("GET /v1/status", &format!("host: {host}\r\n")).status,
            200,
            "{host}"
        );
    }
    for host in [
        "evil.example",
        "127.0.0.1",
        "localhost",
        "proxy",
        "127.0.0.1:1",
        "a b",
        "",
        "127.0.0.1:",
    ] {
        for start in READINGS.into_iter().chain(SECRETS) {
            let answer = ask(start, &format!("host: {host}\r\nauthorization: Bearer {TOKEN}\r\n"));
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (421, "wrong-host"),
                "{start} at {host}"
            );
        }
        assert_eq!(ask("GET /livez", &format!("host: {host}\r\n")).status, 200, "{host}");
    }
    let ours = admin.local();
    for lines in [
        String::new(),
        format!("{ours}{ours}"),
        format!("{ours}host: evil.example\r\n"),
    ] {
        assert_eq!(ask("GET /v1/status", &lines).problem(), "bad-request", "{lines}");
    }
    let absolute = ask("GET http://evil.example/v1/status", &ours);
    assert_eq!(absolute.problem(), "wrong-host");
    let absolute = ask(&format!("GET http://localhost:{port}/v1/status"), &ours);
    assert_eq!(absolute.status, 200);
    assert_eq!(
        admin.unix("GET /v1/status", "").status,
        200,
        "by any name over the unix socket"
    );
    admin.stop();
}

#[test]
fn no_page_of_another_site() {
    let admin = Bench::default().start();
    let own = format!("origin: http://{}\r\n", admin.address);
    let foreign = [
        "origin: http://evil.example\r\n".to_owned(),
        "origin: null\r\n".to_owned(),
        format!("origin: http://localhost:{}\r\n", admin.address.port()),
        format!("origin: https://{}\r\n{own}", "evil.example"),
        "sec-fetch-site: cross-site\r\n".to_owned(),
        format!("{own}sec-fetch-site: Cross-Site\r\n"),
    ];
    let base = format!("{}authorization: Bearer {TOKEN}\r\n", admin.local());
    for start in READINGS.into_iter().chain(SECRETS) {
        for lines in &foreign {
            let answer = admin.tcp(start, &format!("{base}{lines}"), "");
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (403, "foreign-origin"),
                "{start} {lines}"
            );
        }
    }
    for lines in [
        own.as_str(),
        "sec-fetch-site: same-origin\r\n",
        "sec-fetch-site: none\r\n",
        "",
    ] {
        let answer = admin.tcp("PUT /v1/kill", &format!("{base}{lines}"), "");
        assert_eq!(answer.status, 200, "{lines}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let tunnelled = exchange(
        admin.connect_unix(),
        "PUT /v1/kill",
        "host: localhost:9900\r\norigin: http://evil.example\r\n",
        "",
    );
    assert_eq!(tunnelled.problem(), "foreign-origin");
    admin.stop();
}

#[test]
fn every_operation_is_behind_the_guard_that_the_document_says() {
    let admin = Bench::default().start();
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace("{service}", "shop").replace("{verb}", "pause");
        for (method, operation) in item.as_object().unwrap() {
            let start = format!("{} {path}", method.to_uppercase());
            let bare = admin.tcp(&start, &admin.local(), "");
            let stranger = admin.tcp(&start, "host: evil.example\r\n", "");
            let is_probe = operation["tags"][0] == "probes";
            assert_eq!(bare.status == 401, operation.get("security").is_some(), "{start}");
            assert_eq!(stranger.status == 421, !is_probe, "{start}");
            let is_reading = method == "get" || path == "/v1/explain";
            let is_secret = ["/v1/config", "/v1/rejected"].contains(&path.as_str());
            assert_eq!(operation.get("security").is_none(), is_reading && !is_secret, "{start}");
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
    admin.stop();
}

#[test]
fn wrong_tokens_are_slowed_down_and_right_ones_are_not() {
    let after = |wrong_token: Duration| {
        let limits = Limits { wrong_token, ..PATIENT };
        Bench {
            limits,
            ..Bench::default()
        }
        .start()
    };
    let (pause, began) = (Duration::from_millis(500), Instant::now());
    let admin = after(pause);
    let lines = format!("{}authorization: Bearer wrong\r\n", admin.local());
    assert_eq!(admin.tcp("PUT /v1/kill", &lines, "").status, 401);
    assert!(began.elapsed() >= pause);
    admin.stop();
    let admin = after(NEVER);
    assert_eq!(admin.trusted("PUT /v1/kill", "").status, 200);
    admin.stop();
}
