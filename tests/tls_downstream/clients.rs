//! Certificates of clients: who is let in, and which version they get.

use crate::Shop;
use crate::support::{Authority, Config, Gate, PATIENCE, Service, Trust, Upstream, eventually, rollgate, self_signed};
use std::time::{Duration, Instant, SystemTime};

/// With the canary, which the rules send some to.
fn with_clients(auth: &str) -> (Shop, Upstream) {
    with_clients_and(auth, "")
}

/// And further keys of the service.
fn with_clients_and(auth: &str, keys: &str) -> (Shop, Upstream) {
    let (v1, authority) = (Upstream::named("v1"), Authority::new("tests"));
    let v2 = Upstream::named("v2");
    let files = tempfile::tempdir().unwrap();
    authority.write(&files.path().join("ca.pem"));
    let line = authority.server(&["shop.test"]).write(files.path(), "shop");
    let service = Service::split(v1.port(), 100, v2.port(), 0).pools("health_check: { every: 50ms }").key(
        "rules:\n  - { name: ops, when: { client_cert: subject_cn, equals: ops }, version: v2 }\n  - { name: mail, when: { \
         client_cert: { san: { ends_with: \"@canary.test\" } } }, version: v2 }\n  - { name: both, when: { client_cert: { \
         subject_cn: ada, san: ada@example.test } }, version: v2 }",
    );
    let config = Config::with(service.key(keys)).listener(&format!(
        "tls: {{ certificates: [{line}], client_ca: {}, client_auth: {auth} }}",
        files.path().join("ca.pem").display()
    ));
    let gate = Gate::start(&config.text());
    let shop = Shop {
        authority,
        files,
        upstream: v1,
        gate,
    };
    (shop, v2)
}

fn served(shop: &Shop, trust: &Trust) -> String {
    let mut client = shop.try_client(trust).unwrap();
    client.get("/", &[]).served_by().to_owned()
}

#[test]
fn clients_without_a_certificate_of_the_authority_are_refused_where_one_is_required() {
    let (shop, _canary) = with_clients("required");
    let (stranger, ops) = (
        Authority::new("strangers"),
        shop.authority.client("ops", "ops@example.test"),
    );
    for trust in [
        Trust::new(&shop.authority),
        Trust::showing(&shop.authority, &stranger.client("ops", "ops@example.test")),
        Trust::showing(&shop.authority, &stranger.server(&["ops"])),
    ] {
        assert!(shop.try_client(&trust).is_err());
    }
    shop.handshakes("failed", 3.0);
    assert_eq!(served(&shop, &Trust::showing(&shop.authority, &ops)), "v2");
    let visitor = shop.authority.client("visitor", "visitor@example.test");
    assert_eq!(served(&shop, &Trust::showing(&shop.authority, &visitor)), "v1");
    let canary = shop.authority.client("visitor", "visitor@canary.test");
    let trust = Trust::showing(&shop.authority, &canary);
    assert_eq!(served(&shop, &trust), "v2");
    for (cn, email, version) in [
        ("ada", "ada@example.test", "v2"),
        ("ada", "eve@example.test", "v1"),
        ("eve", "ada@example.test", "v1"),
    ] {
        let shown = shop.authority.client(cn, email);
        assert_eq!(served(&shop, &Trust::showing(&shop.authority, &shown)), version);
    }
    // The session brings the certificate along.
    let mut again = shop.try_client(&trust).unwrap();
    assert!(again.wire().is_resumed());
    assert_eq!(again.get("/", &[]).served_by(), "v2");
}

#[test]
fn why_a_client_was_refused_is_in_the_log_now_and_then() {
    let (shop, _canary) = with_clients("required");
    let tells = |trust: &Trust, why: &str| {
        eventually(PATIENCE, why, || {
            assert!(shop.try_client(trust).is_err());
            let log = shop.gate.log();
            let mut lines = log.lines();
            lines.any(|line| line.contains("WARN") && line.contains("listeners[0]: ") && line.contains(why))
        });
    };
    let stranger = Authority::new("strangers");
    tells(&Trust::new(&shop.authority), "it has shown no certificate");
    let foreign = stranger.client("ops", "ops@example.test");
    tells(
        &Trust::showing(&shop.authority, &foreign),
        "nobody in `client_ca` vouches",
    );
    let server = shop.authority.server(&["ops"]);
    tells(
        &Trust::showing(&shop.authority, &server),
        "the certificate it has shown is refused",
    );
    // A client that does not trust us says so before it shows anything.
    tells(&Trust::new(&stranger), "it does not trust the certificate it was shown");
    let told = || shop.gate.log().matches("no TLS with a client").count();
    let (before, began) = (told(), Instant::now());
    for _ in 0..50 {
        assert!(shop.try_client(&Trust::new(&shop.authority)).is_err());
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(told() <= before + seconds * threads, "{}", shop.gate.log());
}

#[test]
fn a_self_signed_certificate_is_let_in_where_it_is_itself_listed() {
    let (shop, _canary) = with_clients("required");
    let (ops, twin) = (self_signed("ops"), self_signed("ops"));
    let ca = shop.files.path().join("ca.pem");
    assert!(shop.try_client(&Trust::showing(&shop.authority, &ops)).is_err());
    std::fs::write(&ca, format!("{}{}", shop.authority.pem(), ops.cert)).unwrap();
    eventually(PATIENCE, "it is let in once it is listed", || {
        shop.try_client(&Trust::showing(&shop.authority, &ops)).is_ok()
    });
    assert_eq!(
        served(&shop, &Trust::showing(&shop.authority, &ops)),
        "v2",
        "rules know it"
    );
    assert!(shop.try_client(&Trust::showing(&shop.authority, &twin)).is_err());
    let thief = Trust::pretending(&shop.authority, &ops, &twin);
    assert!(shop.try_client(&thief).is_err(), "the key has to be its own");
    let visitor = shop.authority.client("visitor", "visitor@example.test");
    assert_eq!(served(&shop, &Trust::showing(&shop.authority, &visitor)), "v1");
}

#[test]
fn where_it_is_optional_rules_tell_them_apart() {
    let (shop, _canary) = with_clients("optional");
    assert_eq!(served(&shop, &Trust::new(&shop.authority)), "v1");
    let ops = shop.authority.client("ops", "ops@example.test");
    assert_eq!(served(&shop, &Trust::showing(&shop.authority, &ops)), "v2");
    let forged = Authority::new("strangers").client("ops", "ops@example.test");
    assert!(
        shop.try_client(&Trust::showing(&shop.authority, &forged)).is_err(),
        "one that is shown is verified"
    );
    // The same over HTTP/2, by curl.
    ops.write(shop.files.path(), "ops");
    let path = |name: &str| shop.files.path().join(name).display().to_string();
    let shown = ["--http2", "--cert", &path("ops.pem"), "--key", &path("ops.key")];
    assert_eq!(shop.curl(&shown), (true, "v2".to_owned()));
    assert_eq!(shop.curl(&["--http2"]), (true, "v1".to_owned()));
    shop.gate
        .access_line("the rule is told", |line| line["reason"] == "rule:ops");
}

#[test]
fn endpoints_are_told_who_the_client_is_whatever_it_says_itself() {
    let rules = "request_headers: { set: { X-Client-CN: \"${client_cert_subject_cn}\", X-Client-San: \"${client_cert_san}\", \
                 X-Client-Verify: \"${client_cert_verify}\" } }";
    let (shop, _canary) = with_clients_and("optional", rules);
    let told = |trust: &Trust| {
        let forged = [
            ("x-client-cn", "root"),
            ("X_Client_San", "root"),
            ("x-client-verify", "SUCCESS"),
        ];
        let mut client = shop.try_client(trust).unwrap();
        assert_eq!(client.get("/who", &forged).status, 200);
        let head = shop.upstream.last().head;
        ["x-client-cn", "x-client-san", "x-client-verify", "x_client_san"].map(|name| {
            let values: Vec<&str> = head.all(name).collect();
            values.join("|")
        })
    };
    assert_eq!(told(&shop.trust()), ["", "", "NONE", ""]);
    let eve = shop.authority.client("eve", "eve@example.test");
    let expected = ["eve", "eve@example.test", "SUCCESS", ""];
    assert_eq!(told(&Trust::showing(&shop.authority, &eve)), expected);
    // The same over HTTP/2, by curl.
    eve.write(shop.files.path(), "eve");
    let path = |name: &str| shop.files.path().join(name).display().to_string();
    let forged = "x-client-cn: root";
    let shown = [
        "--http2",
        "--cert",
        &path("eve.pem"),
        "--key",
        &path("eve.key"),
        "-H",
        forged,
    ];
    assert_eq!(shop.curl(&shown), (true, "v1".to_owned()));
    let values: Vec<String> = shop
        .upstream
        .last()
        .head
        .all("x-client-cn")
        .map(str::to_owned)
        .collect();
    assert_eq!(values, ["eve"]);
    assert_eq!(shop.curl(&["--http2", "-H", forged]), (true, "v1".to_owned()));
    assert_eq!(shop.upstream.last().head.get("x-client-cn"), None);
}

#[test]
fn explain_is_told_what_the_client_has_shown() {
    let (shop, _canary) = with_clients("optional");
    let socket = format!("unix:{}", shop.gate.directory().join("rollgate.sock").display());
    let file = shop.gate.config_path().display().to_string();
    for asked in [["--admin", &socket], ["--config", &file]] {
        let reason = |shown: &[&str]| {
            let exit = rollgate(&[&["explain", "shop", "--json"], shown, &asked[..]].concat());
            assert_eq!(exit.code, Some(0), "{exit:?}");
            let said: serde_json::Value = serde_json::from_str(&exit.stdout).unwrap();
            said["reason"].as_str().unwrap().to_owned()
        };
        assert_eq!(reason(&[]), "weight");
        assert_eq!(reason(&["--client-cert-cn", "ops"]), "rule:ops");
        assert_eq!(reason(&["--client-cert-san", "ops"]), "weight");
        let two = ["--client-cert-san", "a.test", "--client-cert-san", "b@canary.test"];
        assert_eq!(reason(&two), "rule:mail");
        let both = ["--client-cert-cn", "ada", "--client-cert-san", "ada@example.test"];
        assert_eq!(reason(&both), "rule:both");
    }
}

#[test]
fn a_session_does_not_outlive_the_authorities_that_let_it_in() {
    let (shop, _canary) = with_clients("required");
    let ops = shop.authority.client("ops", "ops@example.test");
    let trust = Trust::showing(&shop.authority, &ops);
    assert!(shop.try_client(&trust).is_ok());
    Authority::new("others").write(&shop.files.path().join("ca.pem"));
    eventually(PATIENCE, "the certificate is not believed any more", || {
        shop.try_client(&trust).is_err()
    });
    assert!(shop.try_client(&trust).is_err());
}

#[test]
fn a_session_does_not_outlive_the_certificate_that_let_it_in() {
    let (shop, _canary) = with_clients("required");
    let end = SystemTime::now() + Duration::from_secs(10);
    let ops = shop.authority.client_until("ops", "ops@example.test", end);
    let both = [
        Trust::showing(&shop.authority, &ops),
        Trust::tls12_showing(&shop.authority, &ops),
    ];
    for trust in &both {
        assert!(!shop.try_client(trust).unwrap().wire().is_resumed());
        assert!(shop.try_client(trust).unwrap().wire().is_resumed());
    }
    for trust in &both {
        eventually(PATIENCE, "it is refused, though it has resumed all the time", || {
            shop.try_client(trust).is_err()
        });
        assert!(SystemTime::now() > end, "not before");
        // What the client has to do is to show another: it is asked for one, ticket or not.
        assert!(shop.try_client(trust).is_err());
    }
    let told = "the certificate it has shown is refused";
    eventually(PATIENCE, "the log tells", || shop.gate.log().contains(told));
    assert!(
        shop.gate
            .metric("rollgate_tls_handshakes_total", &[("result", "failed")])
            >= 4.0
    );
    let renewed = shop.authority.client("ops", "ops@example.test");
    assert!(shop.try_client(&Trust::showing(&shop.authority, &renewed)).is_ok());
}
