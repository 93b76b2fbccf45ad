use super::*;
use crate::config;
use crate::control::load::LoadError;
use crate::runtime::{Command, Refusal, Scope, Steer};

/// An admin side whose writer answers with this.
fn answering(answer: impl Fn() -> Result<Done, NotDone> + Send + 'static) -> Running {
    Bench {
        writer: Box::new(move |_, _, _| answer()),
        ..Bench::default()
    }
    .start()
}

#[test]
fn orders_reach_the_writer_as_they_are_meant() {
    let admin = Bench {
        writer: Box::new(|order, by, expected| Ok(done(&format!("{order:?} {:?} {expected:?}", by.reason)))),
        ..Bench::default()
    }
    .start();
    let shop = || Scope::Service("shop".to_owned());
    let weights = |pairs: &[(&str, u32)]| Command::Weights {
        service: "shop".to_owned(),
        weights: pairs.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect(),
    };
    for (start, body, order, reason) in [
        (
            "PUT /v1/services/shop/weights",
            r#"{"weights": {"v1": 90, "v2": 10}, "reason": "more"}"#,
            Order::Change(weights(&[("v1", 90), ("v2", 10)])),
            Some("more"),
        ),
        (
            "PUT /v1/services/shop/kill",
            "",
            Order::Change(Command::Kill(shop())),
            None,
        ),
        (
            "PUT /v1/services/sh%6fp/kill",
            "",
            Order::Change(Command::Kill(shop())),
            None,
        ),
        (
            "DELETE /v1/services/shop/kill",
            r#"{"reason": "over"}"#,
            Order::Change(Command::Unkill(shop())),
            Some("over"),
        ),
        ("PUT /v1/kill", "{}", Order::Change(Command::Kill(Scope::All)), None),
        (
            "DELETE /v1/kill",
            r#"{"reason": " "}"#,
            Order::Change(Command::Unkill(Scope::All)),
            None,
        ),
        (
            "POST /v1/services/shop/rollout/approve",
            r#"{"reason": "fine"}"#,
            Order::Change(Command::Rollout {
                service: "shop".to_owned(),
                steer: Steer::Verb(crate::rollout::Verb::Approve),
            }),
            Some("fine"),
        ),
        (
            "POST /v1/services/shop/rollout/rollback",
            "",
            Order::Change(Command::Rollout {
                service: "shop".to_owned(),
                steer: Steer::Verb(crate::rollout::Verb::Rollback),
            }),
            None,
        ),
        ("POST /v1/config/reload", "", Order::Reload, None),
    ] {
        for answer in [admin.unix(start, body), admin.trusted(start, body)] {
            assert_eq!(answer.status, 200, "{answer:?}");
            let message = format!("{order:?} {:?} None", reason.map(str::to_owned));
            assert_eq!(answer.json()["message"], message, "{start}");
            assert_eq!(answer.header("etag"), Some("\"2\""));
        }
    }
    admin.stop();
}

#[test]
fn what_was_done_is_told_whole() {
    let admin = answering(|| {
        Ok(Done {
            not_durable: Some("the disk is full".to_owned()),
            restart_required: vec!["threads".to_owned()],
            changed: false,
            ..done("as it was")
        })
    });
    let answer = admin.unix("POST /v1/config/reload", "").json();
    let expected = serde_json::json!({
        "generation": 2, "changed": false, "message": "as it was", "durable": false,
        "not_durable": "the disk is full", "restart_required": ["threads"],
    });
    assert_eq!(answer, expected);
    admin.stop();
}

#[test]
fn only_the_generation_that_was_seen() {
    let admin = Bench {
        writer: Box::new(|_, _, expected| match expected {
            Some(expected) if expected != 1 => Err(NotDone::Stale { expected, current: 1 }),
            _ => Ok(done("done")),
        }),
        ..Bench::default()
    }
    .start();
    for (tag, status) in [
        ("\"1\"", 200),
        ("*", 200),
        ("\"0\", \"1\"", 200),
        ("\"2\"", 412),
        ("W/\"1\"", 412),
        ("\"else\"", 412),
        ("1", 200),
        ("x", 400),
    ] {
        let lines = format!("host: x\r\nif-match: {tag}\r\n");
        let answer = exchange(admin.connect_unix(), "PUT /v1/kill", &lines, "");
        assert_eq!(answer.status, status, "{tag}: {answer:?}");
        if status == 412 {
            assert_eq!(answer.problem(), "stale-generation");
        }
    }
    admin.stop();
}

#[test]
fn refusals_are_problems_of_their_own() {
    type Make = fn(String) -> NotDone;
    let refused: [(Make, u16, &str); 13] = [
        (
            |name| Refusal::UnknownService { name, similar: None }.into(),
            404,
            "unknown-service",
        ),
        (
            |name| {
                let (service, known) = (String::new(), Vec::new());
                Refusal::UnknownVersion { service, name, known }.into()
            },
            422,
            "unknown-version",
        ),
        (
            |service| {
                let missing = String::new();
                Refusal::MissingVersion { service, missing }.into()
            },
            422,
            "missing-version",
        ),
        (
            |version| Refusal::WeightTooLarge { version, weight: 0 }.into(),
            422,
            "weight-too-large",
        ),
        (|_| Refusal::NoWeight.into(), 422, "no-weight"),
        (
            |_| Refusal::KilledByFile { scope: Scope::All }.into(),
            409,
            "killed-by-file",
        ),
        (
            |service| Refusal::KilledWithAll { service }.into(),
            409,
            "killed-with-all",
        ),
        (|_| NotDone::Overtaken, 409, "overtaken"),
        (NotDone::NotDurable, 503, "not-durable"),
        (|_| NotDone::Busy("busy"), 503, "busy"),
        (|_| NotDone::Stopping("over"), 503, "stopping"),
        (NotDone::RefusesToRun, 422, "refuses-to-run"),
        (NotDone::Unreadable, 422, "unreadable-file"),
    ];
    for (make, status, word) in refused {
        let admin = answering(move || Err(make("this".to_owned())));
        let answer = admin.unix("POST /v1/config/reload", "");
        assert_eq!((answer.status, answer.problem().as_str()), (status, word));
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
        admin.stop();
    }
}

#[test]
fn a_bad_file_is_refused_with_every_problem() {
    let admin = answering(|| {
        Err(LoadError::Invalid {
            file: "shop.yaml".into(),
            problems: config::parse("listeners: 1\nservices: 2\n", std::path::Path::new("")).unwrap_err(),
            named: Vec::new(),
        }
        .into())
    });
    let answer = admin.unix("POST /v1/config/reload", "");
    assert_eq!((answer.status, answer.problem().as_str()), (422, "bad-configuration"));
    let problem = answer.json();
    assert_eq!(problem["problems"].as_array().unwrap().len(), 2);
    assert_eq!(problem["problems"][1]["line"], 2);
    assert!(problem["detail"].as_str().unwrap().starts_with("shop.yaml:1:"));
    admin.stop();
}

#[test]
fn a_writer_that_has_gone_is_no_silence() {
    let admin = Bench {
        writer: Box::new(|_, _, _| panic!("broken")),
        ..Bench::default()
    }
    .start();
    for _ in 0..2 {
        assert_eq!(admin.unix("PUT /v1/kill", "").problem(), "stopping");
    }
    admin.stop();
}

#[test]
fn bodies_are_json_whole_and_small() {
    let admin = answering(|| Ok(done("done")));
    let kind = |body: &str| {
        let answer = admin.unix("PUT /v1/services/shop/weights", body);
        if answer.status == 200 {
            String::new()
        } else {
            answer.problem()
        }
    };
    for (body, word) in [
        (r#"{"weights": {"v1": 1}}"#, ""),
        ("", "media-type"),
        ("{", "malformed-json"),
        (r#"{"weights": {"v1": 1}} x"#, "malformed-json"),
        ("\u{feff}{}", "malformed-json"),
        ("{}", "unacceptable"),
        ("[]", "unacceptable"),
        (r#"[{"v1": 1}]"#, "unacceptable"),
        (r#"{"wieghts": 1, }"#, "malformed-json"),
        (r#"{"weights": {"v1": -1}}"#, "unacceptable"),
        (r#"{"weights": {"v1": 1.5}}"#, "unacceptable"),
        (r#"{"weights": {"v1": 1e9}}"#, "unacceptable"),
        (r#"{"weights": {"v1": null}}"#, "unacceptable"),
        (r#"{"weights": {"v1": 99999999999}}"#, "unacceptable"),
        (r#"{"weights": null}"#, "unacceptable"),
        (r#"{"weights": {"v1": 1, "v1": 2}}"#, "unacceptable"),
        (r#"{"weights": {"v1": 1}, "weights": {}}"#, "unacceptable"),
        (r#"{"weights": {"v1": 1}, "wieghts": {}}"#, "unacceptable"),
        (r#"{"weights": {"v1": 1}, "reason": "a\nb"}"#, "unacceptable"),
    ] {
        // A body of no bytes has no type, either.
        let found = if body.is_empty() {
            exchange(admin.connect_unix(), "PUT /v1/services/shop/weights", "host: x\r\n", "").problem()
        } else {
            kind(body)
        };
        assert_eq!(found, word, "{body}");
    }
    assert_eq!(admin.unix("PUT /v1/kill", "[]").problem(), "unacceptable");
    let nested = "[".repeat(60_000);
    assert_eq!(kind(&nested), "malformed-json");
    assert_eq!(kind(&" ".repeat(64 * 1024 + 1)), "body-too-large");
    for media in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
    ] {
        let lines = format!("host: x\r\ncontent-type: {media}\r\n");
        let answer = exchange(admin.connect_unix(), "PUT /v1/kill", &lines, "{}");
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (415, "media-type"),
            "{media}"
        );
    }
    let lines = "host: x\r\ncontent-type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(exchange(admin.connect_unix(), "PUT /v1/kill", lines, "{}").status, 200);
    admin.stop();
}

#[test]
fn a_body_that_drips_or_never_ends_is_cut_off() {
    let admin = Bench {
        limits: Limits {
            body: Duration::from_millis(300),
            ..PATIENT
        },
        ..Bench::default()
    }
    .start();
    let mut stream = admin.connect_unix();
    let head = "PUT /v1/kill HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let n = stream.read(&mut answer).unwrap();
    let answer = Answer::of(String::from_utf8_lossy(&answer[..n]).into_owned());
    assert_eq!((answer.status, answer.problem().as_str()), (408, "body-timeout"));

    admin.stop();

    let admin = answering(|| Ok(done("done")));
    let mut stream = admin.connect_unix();
    let head =
        "PUT /v1/kill HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
    for _ in 0..4 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let mut answer = [0; 4096];
    let n = stream.read(&mut answer).unwrap();
    let answer = Answer::of(String::from_utf8_lossy(&answer[..n]).into_owned());
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body-too-large"));
    admin.stop();
}

#[test]
fn a_writer_that_takes_too_long_is_not_waited_for() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let admin = Bench {
        limits: Limits {
            answer: Duration::from_millis(200),
            ..PATIENT
        },
        writer: Box::new(move |_, _, _| {
            let _ = released.recv();
            Ok(done("late"))
        }),
        ..Bench::default()
    }
    .start();
    let answer = admin.unix("PUT /v1/kill", "");
    assert_eq!((answer.status, answer.problem().as_str()), (504, "late"));
    drop(release);
    admin.stop();
}

#[test]
fn an_upgrade_is_asked_for_and_its_end_waited_for() {
    let admin = Bench {
        limits: Limits {
            answer: Duration::from_millis(50),
            ..PATIENT
        },
        upgrade: Arc::new(|by: Origin| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                match by.reason.as_deref() {
                    Some("bad") => Err("the new process cannot serve: a.yaml:1:1: broken".to_owned()),
                    _ => Ok(4711),
                }
            })
        }),
        ..Bench::default()
    }
    .start();
    let done = admin.unix("POST /v1/upgrade", "").json();
    assert_eq!(done["message"], "process 4711 serves now, and this one drains");
    let failed = admin.trusted("POST /v1/upgrade", r#"{"reason": "bad"}"#);
    assert_eq!((failed.status, failed.problem().as_str()), (409, "not-upgraded"));
    assert!(failed.json()["detail"].as_str().unwrap().contains("a.yaml:1:1"));
    let lines = "host: x\r\nif-match: 7\r\n";
    let stale = exchange(admin.connect_unix(), "POST /v1/upgrade", lines, "");
    assert_eq!((stale.status, stale.problem().as_str()), (412, "stale-generation"));
    admin.stop();
}

#[test]
fn a_rollout_has_seven_verbs() {
    let admin = Bench::default().start();
    let unknown = admin.unix("POST /v1/services/shpo/rollout/pause", "");
    assert_eq!((unknown.status, unknown.problem().as_str()), (404, "unknown-service"));
    assert!(unknown.json()["help"].as_str().unwrap().contains("`shop`"));
    assert_eq!(
        admin.unix("POST /v1/services/shop/rollout/dance", "").problem(),
        "not-found"
    );
    assert_eq!(admin.unix("POST /v1/services/%ff/rollout/pause", "").status, 404);
    admin.stop();
}
