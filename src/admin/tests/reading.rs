use super::*;
use crate::outcome::{FailureKind, Outcome};
use crate::runtime::{Latch, ServiceState, WeightsSet};
use crate::shared::{CertificateStatus, Ended, Rejected};

fn by(who: &str) -> Origin {
    Origin {
        who: who.to_owned(),
        from: "unix".to_owned(),
        at_ms: 1_783_900_800_000,
        reason: Some("fire".to_owned()),
    }
}

fn fired() -> Value {
    serde_json::json!({
        "source": "admin", "who": "ada (uid 1000)", "since": "2026-07-13T00:00:00.000Z", "reason": "fire",
    })
}

#[test]
fn the_status_says_what_is_in_force() {
    let admin = Bench::default().start();
    {
        let mut reload = admin.shared.reload.lock().unwrap();
        reload.text = "services: []\n".into();
        reload.error = Some("rollgate.yaml:1:1: broken".to_owned());
        reload.last_success_s = 1_783_900_800;
        reload.restart_required = vec!["threads".to_owned()];
    }
    let certificate = |file: &str, expires_s| CertificateStatus {
        file: file.into(),
        names: ["shop.test".to_owned()].into(),
        begins_s: Some(0),
        expires_s: Some(expires_s),
        error: None,
    };
    *admin.shared.certificates.lock().unwrap() = [
        certificate("/old.pem", 1_583_900_800),
        certificate("/good.pem", i64::MAX),
    ]
    .into();
    let answer = admin.get("/v1/status");
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"1\"")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let status: api::Status = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(status.generation, 1);
    assert_eq!((status.ready, status.draining, &status.kill), (false, false, &None));
    assert_eq!(status.pid, std::process::id());
    assert!(status.config.file.ends_with("/rollgate.yaml"));
    assert!(!status.config.last_reload_successful);
    assert_eq!(status.config.last_success, "2026-07-13T00:00:00.000Z");
    assert_eq!(status.config.restart_required, ["threads"]);
    let [old] = &status.certificate_problems[..] else {
        panic!("{:?}", status.certificate_problems)
    };
    assert_eq!(
        (old.file.as_str(), &old.names[..]),
        ("/old.pem", &["shop.test".to_owned()][..])
    );
    assert_eq!(old.expires.as_deref(), Some("2020-03-11T04:26:40.000Z"));
    assert!(old.problem.contains("expired on 2020-03-11"), "{}", old.problem);
    assert!(status.state.durable && status.state.directory.ends_with("/state"));
    let shop = &status.services[0];
    assert_eq!(
        (shop.name.as_str(), shop.killed, shop.weights_source.as_str()),
        ("shop", false, "file")
    );
    let shares: Vec<_> = shop
        .versions
        .iter()
        .map(|v| (&*v.name, &*v.role, v.weight, v.share_target))
        .collect();
    assert_eq!(shares, [("v1", "stable", 90, 90.0), ("v2", "canary", 10, 10.0)]);
    assert_eq!(shop.versions[0].endpoints[0].endpoint, "127.0.0.1:9001");

    admin.disk.is_full.store(true, Ordering::Relaxed);
    admin.shared.ready.store(true, Ordering::Relaxed);
    let status: api::Status = serde_json::from_str(&admin.get("/v1/status").body).unwrap();
    assert!(status.ready && !status.state.durable);
    assert_eq!(status.state.error.as_deref(), Some("the disk is full"));
    let services = admin.get("/v1/services");
    assert_eq!(services.header("etag"), Some("\"1\""));
    let services: api::Services = serde_json::from_str(&services.body).unwrap();
    assert_eq!((services.generation, services.services.len()), (1, 1));
    let missing = admin.get("/v1/services/shpo");
    assert_eq!((missing.status, missing.problem().as_str()), (404, "unknown-service"));
    assert!(missing.json()["help"].as_str().unwrap().contains("did you mean `shop`"));
    admin.stop();
}

#[test]
fn who_killed_what_and_who_set_the_weights() {
    let mut bench = Bench::default();
    let latch = || {
        Some(Latch {
            by: by("ada (uid 1000)"),
        })
    };
    let service = ServiceState {
        file_kill: true,
        kill: latch(),
        epoch: 3,
        set: Some(WeightsSet {
            weights: [("v1".to_owned(), 1), ("v2".to_owned(), 1)].into(),
            by: by("bob"),
        }),
        ..ServiceState::default()
    };
    bench.in_force.state = Arc::new(State {
        kill: latch(),
        services: [("shop".into(), Arc::new(service))].into(),
        ..State::default()
    });
    bench.in_force.traffic.services[0].killed = true;
    bench.in_force.traffic.services[0].epoch = 3;
    let admin = bench.start();
    let status = admin.get("/v1/status").json();
    assert_eq!(status["kill"], fired());
    let shop = admin.get("/v1/services/shop").json();
    assert_eq!(shop["kill"]["source"], "both");
    assert_eq!(
        (&shop["killed"], &shop["weights_source"], &shop["epoch"]),
        (&true.into(), &"admin".into(), &3.into())
    );
    assert_eq!(shop["versions"][0]["share_target"], 100.0);
    assert_eq!(shop["versions"][1]["share_target"], 0.0);
    admin.stop();
}

#[test]
fn golden_signals_of_the_last_minute() {
    let admin = Bench::default().start();
    let in_force = admin.shared.load();
    let shop = || {
        let shop: api::ServiceStatus = serde_json::from_str(&admin.get("/v1/services/shop").body).unwrap();
        shop
    };
    assert_eq!(shop().versions[0].share_observed, None);
    let deadline = Instant::now() + LONG;
    for (version, count) in [(0, 3), (1, 1)] {
        let stats = &in_force.services[0].versions[version].stats;
        for _ in 0..count {
            stats.begin(0);
            let outcome = if version == 0 {
                Outcome::Success
            } else {
                Outcome::Failure(FailureKind::Status5xx)
            };
            let ended = Ended {
                status: 200,
                grpc_status: None,
                outcome,
                duration: Duration::from_millis(7),
                upgraded: false,
            };
            stats.end(0, &ended);
        }
    }
    in_force.services[0].versions[0].stats.begin(0);
    // The first sample is taken when the thread has begun.
    let shop = loop {
        let shop = shop();
        if shop.versions[1].error_rate.is_some() {
            break shop;
        }
        assert!(Instant::now() < deadline, "{shop:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    let [stable, canary] = &shop.versions[..] else {
        panic!("{shop:?}")
    };
    assert_eq!((stable.share_observed, canary.share_observed), (Some(80.0), Some(20.0)));
    assert_eq!((stable.error_rate, canary.error_rate), (Some(0.0), Some(100.0)));
    assert_eq!(
        (stable.requests_total, stable.in_flight, canary.failures_total),
        (4, 1, 1)
    );
    assert!(
        stable.rate > 0.0 && (stable.p99_ms.unwrap() - 7.0).abs() < 0.07,
        "{stable:?}"
    );
    admin.stop();
}

#[test]
fn what_was_refused_is_shown_to_who_is_trusted() {
    let admin = Bench::default().start();
    admin.shared.rejected.keep(|| Rejected {
        at: std::time::UNIX_EPOCH,
        is_answer: false,
        from: "192.0.2.1".to_owned(),
        reason: "bad_request",
        status: 400,
        why: "both".to_owned(),
        head: vec![r"GET / HTTP/1.1\r\n".to_owned()],
    });
    let rejected: api::RejectedMessages = serde_json::from_str(&admin.trusted("GET /v1/rejected", "").body).unwrap();
    assert_eq!(rejected.rejected.len(), 1);
    assert_eq!(
        (&*rejected.rejected[0].message, &*rejected.rejected[0].detail),
        ("request", "both")
    );
    admin.stop();
}

#[test]
fn the_text_in_force_and_another_one() {
    let admin = Bench::default().start();
    admin.shared.reload.lock().unwrap().text = "the text".into();
    let config = admin.unix("GET /v1/config", "");
    assert_eq!(config.header("etag"), Some("\"1\""));
    let config = config.json();
    assert_eq!(
        (&config["text"], &config["generation"]),
        (&"the text".into(), &1.into())
    );
    assert_eq!(
        config["hash"],
        "41a1f654dc79a9ac645afa553c31d51fd115eca8dd1cb9e6c67ae03e52718e8b"
    );
    admin.stop();
}

const GOOD: &str = "listeners: [{ address: \"127.0.0.1:0\" }]\ntracing: { otlp: \"http://h\" }\nservices:\n  - name: s\n    \
                    versions: [{ name: v1, pool: { endpoints: [\"127.0.0.1:1\"] } }]\n";

#[test]
fn a_text_is_checked_as_check_does() {
    let admin = Bench::default().start();
    let ask = |media: &str, body: &str| {
        let lines = format!("host: x\r\ncontent-type: {media}\r\n");
        exchange(admin.connect_unix(), "POST /v1/config/validate", &lines, body)
    };
    let good = ask("application/yaml", GOOD);
    assert_eq!(good.status, 200, "{good:?}");
    let checked: api::Checked = serde_json::from_str(&good.body).unwrap();
    assert!(
        checked.ok && checked.problems.is_empty() && checked.warnings[0].path == "tracing",
        "{checked:?}"
    );
    let bad = GOOD.replace("otlp", "oltp").replace("127.0.0.1:1", "nowhere");
    let as_json = serde_json::json!({ "text": bad }).to_string();
    let expected = crate::cli::check::render_json(&config(&bad));
    let expected: Value = serde_json::from_str(&expected).unwrap();
    for answer in [
        ask("text/plain; charset=utf-8", &bad),
        ask("application/json", &as_json),
    ] {
        assert_eq!((answer.status, answer.problem().as_str()), (422, "bad-configuration"));
        let found = answer.json();
        for key in ["ok", "problems", "warnings"] {
            assert_eq!(found[key], expected[key], "{key}");
        }
        assert_eq!(found["problems"].as_array().unwrap().len(), 2, "{found}");
    }
    assert_eq!(ask("application/json", "{\"txt\": \"\"}").problem(), "unacceptable");
    assert_eq!(ask("image/png", GOOD).problem(), "media-type");
    assert_eq!(ask("text/plain", "\u{0}").status, 422);
    let large = format!("{GOOD}#{}\n", "x".repeat((1 << 20) - GOOD.len() - 2));
    assert_eq!(ask("text/plain", &large).status, 200);
    assert_eq!(ask("text/plain", &format!("{large}x")).problem(), "bad-configuration");
    assert_eq!(ask("text/plain", &large.repeat(2)).problem(), "body-too-large");
    admin.stop();
}

fn config(text: &str) -> Result<crate::config::Snapshot, crate::control::load::LoadError> {
    crate::control::load::compile(std::path::Path::new("rollgate.yaml"), text.as_bytes())
}

#[test]
fn why_a_request_gets_its_version() {
    let admin = Bench::default().start();
    let ask = |body: &str| {
        admin.tcp(
            "POST /v1/explain",
            &format!("{}content-type: application/json\r\n", admin.local()),
            body,
        )
    };
    let named = ask(r#"{"service": "shop"}"#);
    assert_eq!(named.status, 200, "no token is needed to read: {named:?}");
    let named = named.json();
    assert_eq!((&named["version"], &named["reason"]), (&"v1".into(), &"weight".into()));
    assert_eq!(
        named["shares"][1],
        serde_json::json!({ "version": "v2", "share": 10.0 })
    );
    let turn = || admin.shared.load().services[0].turn.load(Ordering::Relaxed);
    assert_eq!(turn(), 0, "asking moves nothing");
    let unrouted = ask(
        r#"{"method": "POST", "host": "a.example:80", "path": "/x?y=z", "headers": {"a": "b", "c": ["d", "e"]}, "client_ip": "::1"}"#,
    );
    assert_eq!(unrouted.status, 200);
    assert!(unrouted.json()["notes"][0].as_str().unwrap().contains("no route"));
    for (body, word) in [
        (r#"{"service": "shpo"}"#, "unknown-service"),
        (r#"{"service": "shop", "path": "/"}"#, "unacceptable"),
        (r#"{"path": "cart"}"#, "unacceptable"),
        (r#"{"path": "/a b"}"#, "unacceptable"),
        (r#"{"host": "a b"}"#, "unacceptable"),
        (r#"{"method": "G T"}"#, "unacceptable"),
        (r#"{"client_ip": "example.com"}"#, "unacceptable"),
        (r#"{"headers": {"a b": "c"}}"#, "unacceptable"),
        (r#"{"headers": {"a": 1}}"#, "unacceptable"),
        (r#"{"url": "http://a/"}"#, "unacceptable"),
        ("null", "unacceptable"),
    ] {
        assert_eq!(ask(body).problem(), word, "{body}");
    }
    admin.stop();
}
