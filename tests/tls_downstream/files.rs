//! Certificate files: replaced, wrong, expired, missing.

use crate::Shop;
use crate::support::{Authority, Client, Config, Leaf, PATIENCE, Service, Write, der, eventually, file, rollgate};
use std::path::Path;

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_disturbs_no_other() {
    let shop = Shop::new();
    let mut old = shop.client();
    assert_eq!(old.get("/", &[]).status, 200);
    let trust = shop.trust();
    drop(shop.try_client(&trust).unwrap());
    let file_label = shop.files.path().join("shop.pem").display().to_string();
    let labels = [("certificate", file_label.as_str())];
    let before = shop.gate.metric("rollgate_certificate_expiry_seconds", &labels);
    assert!(before > 0.0, "{before}");
    let renewed = shop.authority.server(&["shop.test"]);
    renewed.write(shop.files.path(), "shop");
    let shown = || shop.client().wire().peer_certificate().unwrap();
    eventually(PATIENCE, "the new one is shown", || shown() == der(&renewed.cert));
    assert_eq!(old.get("/", &[]).status, 200, "the old connection lives on");
    assert!(shop.try_client(&trust).unwrap().wire().is_resumed(), "sessions, too");
    eventually(PATIENCE, "it is told", || {
        shop.gate.log().contains("a certificate is replaced")
    });

    // A pair that does not fit, and one that is broken: the good one stays.
    let other = shop.authority.server(&["shop.test"]);
    for (wrong, what) in [
        (
            Leaf {
                cert: renewed.cert.clone(),
                key: other.key.clone(),
            },
            "does not belong to the certificate",
        ),
        (
            Leaf {
                cert: "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n".to_owned(),
                key: renewed.key.clone(),
            },
            "shop.pem: certificate 1 in it: not an X.509 certificate",
        ),
    ] {
        wrong.write(shop.files.path(), "shop");
        eventually(PATIENCE, "it is told", || shop.gate.log().contains(what));
        shop.gate
            .expect_metric("rollgate_certificate_last_load_successful", &labels, 0.0);
        assert_eq!(shown(), der(&renewed.cert));
        eventually(PATIENCE, "status tells", || {
            let told = status(&shop);
            let mut lines = told.lines();
            lines.any(|line| line.contains("shop.pem: what is on the disk cannot be used") && line.contains(what))
        });
    }
    assert!(!shop.gate.log().contains("BEGIN"), "nothing of the files is logged");
    other.write(shop.files.path(), "shop");
    eventually(PATIENCE, "a good one again", || shown() == der(&other.cert));
    shop.gate
        .expect_metric("rollgate_certificate_last_load_successful", &labels, 1.0);
    assert_eq!(old.get("/", &[]).status, 200);
    eventually(PATIENCE, "status has nothing to say", || {
        !status(&shop).contains("warning")
    });
}

/// What `rollgate status` prints.
fn status(shop: &Shop) -> String {
    let socket = format!("unix:{}", shop.gate.directory().join("rollgate.sock").display());
    rollgate(&["status", "--admin", &socket]).stdout
}

#[test]
fn authorities_of_clients_that_cannot_be_read_are_told() {
    let shop = Shop::with("client_ca: DIR/ca.pem,", |config| config);
    std::fs::write(shop.files.path().join("ca.pem"), "nonsense").unwrap();
    eventually(PATIENCE, "status tells", || {
        status(&shop).contains("/ca.pem: no certificate in it")
    });
}

#[test]
fn a_certificate_that_has_expired_is_served_and_told() {
    let authority = Authority::new("tests");
    let leaf = authority.expired_server(&["shop.test"]);
    let shop = Shop::serving(authority, &[("shop", leaf)], "", |config| config);
    let (succeeded, said) = shop.curl(&["-k"]);
    assert!(succeeded, "{said}");
    let file_label = shop.files.path().join("shop.pem").display().to_string();
    eventually(PATIENCE, "the metric is there", || {
        shop.gate
            .metric("rollgate_certificate_expiry_seconds", &[("certificate", &file_label)])
            < 0.0
    });
    eventually(PATIENCE, "the log tells once", || {
        shop.gate.log().matches("has expired").count() == 1
    });
    let told = status(&shop);
    assert!(
        told.contains("shop.pem: it, or one of its chain, expired on 2020-02-01"),
        "{told}"
    );
    shop.authority
        .early_server(&["shop.test"])
        .write(shop.files.path(), "shop");
    eventually(PATIENCE, "one that is not valid yet is told, too", || {
        status(&shop).contains("is not valid before 3000-01-01")
    });
    eventually(PATIENCE, "the log tells", || {
        shop.gate.log().contains("is not valid yet")
    });
}

#[test]
fn a_reload_brings_and_takes_certificates_without_a_restart() {
    let shop = Shop::new();
    let mut old = shop.client();
    assert_eq!(old.get("/", &[]).status, 200);
    let more = shop.authority.server(&["more.test"]);
    let first = format!("{0}/shop.pem, key: {0}/shop.key", shop.files.path().display());
    let text = |tls: &str| Config::with(Service::only(shop.upstream.port())).listener(tls).text();
    let added = format!(
        "tls: {{ certificates: [{{ cert: {first} }}, {}] }}",
        more.write(shop.files.path(), "more")
    );
    shop.gate.write_config(&text(&added), Write::Rename);
    let trust = shop.trust();
    let shows_more = || Client::try_connect_tls(shop.gate.port(), &trust, "more.test").is_ok();
    eventually(PATIENCE, "the second name is served", shows_more);

    // One that cannot be loaded refuses the file; what is in force stays.
    let bad = file(shop.files.path(), "bad.pem", "no certificate")
        .display()
        .to_string();
    let wrong = added.replace("] }", &format!(", {{ cert: {bad}, key: {bad} }}] }}"));
    shop.gate.write_config(&text(&wrong), Write::Rename);
    eventually(PATIENCE, "the reload is refused", || {
        let log = shop.gate.log();
        let place = log.contains("listeners[0].tls.certificates[2].cert: ") && log.contains("bad.pem");
        place && log.contains("no certificate in it")
    });
    assert!(shows_more());

    // A certificate in use that is broken on the disk does not stand against another change.
    std::fs::write(shop.files.path().join("more.pem"), "broken").unwrap();
    let limited = Config::with(Service::only(shop.upstream.port()))
        .listener(&added)
        .limit("max_body: 1B");
    shop.gate.write_config(&limited.text(), Write::Rename);
    eventually(PATIENCE, "the other change is in force", || {
        shop.client().request("POST", "/", &[], b"too long").status == 413
    });
    assert!(shows_more());
    shop.gate.write_config(&text("proxy_protocol: false"), Write::Rename);
    eventually(PATIENCE, "plain text is served", || {
        let mut client = shop.gate.client();
        client
            .try_request("GET", "/", &[], b"")
            .is_ok_and(|response| response.status == 200)
    });
    assert_eq!(old.get("/", &[]).status, 200, "through all of it");
}

#[test]
fn a_configuration_that_is_before_its_certificate_is_taken_when_that_comes() {
    let shop = Shop::new();
    let (late, directory) = (shop.authority.server(&["late.test"]), shop.files.path());
    let of = |name: &str| format!("{{ cert: {0}/{name}.pem, key: {0}/{name}.key }}", directory.display());
    let text = format!("tls: {{ certificates: [{}, {}] }}", of("shop"), of("late"));
    let text = Config::with(Service::only(shop.upstream.port())).listener(&text).text();
    let lacks = |name: &str| status(&shop).contains(&format!("{name}: cannot read it: No such file"));
    let generation = || shop.gate.metric("rollgate_config_generation", &[]);
    let before = generation();
    shop.gate.write_config(&text, Write::Rename);
    eventually(PATIENCE, "the file is refused", || {
        lacks("late.pem") && lacks("late.key")
    });
    file(directory, "late.pem", &late.cert);
    eventually(PATIENCE, "one of both has come", || {
        !lacks("late.pem") && lacks("late.key")
    });
    let refused = || {
        let failures = [("result", "failure")];
        shop.gate.metric("rollgate_config_reloads_total", &failures)
    };
    assert!(
        (2.0..=3.0).contains(&refused()),
        "tried when something changes, not all the time"
    );
    file(directory, "late.key", &late.key);
    let trust = shop.trust();
    eventually(PATIENCE, "it is in force", || {
        Client::try_connect_tls(shop.gate.port(), &trust, "late.test").is_ok()
    });
    shop.gate
        .expect_metric("rollgate_config_last_reload_successful", &[], 1.0);
    assert!(!lacks("late.key"));
    assert!(generation() - before < 1.5, "one generation");
}

#[test]
fn what_is_wrong_with_files_is_a_problem_of_check_and_run_and_what_is_missing_of_run_alone() {
    let authority = Authority::new("tests");
    let (a, b) = (authority.server(&["a.test"]), authority.server(&["b.test"]));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let config = "listeners:\n  - address: 127.0.0.1:0\n    tls: { certificates: [{ cert: a.pem, key: a.key }] }\n\
                  services:\n  - name: s\n    versions: [{ name: v1, pool: { endpoints: [\"127.0.0.1:1\"] } }]\n";
    let of = |cert: &str, key: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "rollgate.yaml", config);
        std::fs::write(directory.path().join("a.pem"), cert).unwrap();
        std::fs::write(directory.path().join("a.key"), key).unwrap();
        let path = path.display().to_string();
        let (check, run) = (rollgate(&["check", &path]), rollgate(&["run", "--config", &path]));
        assert_eq!((check.code, run.code), (Some(1), Some(1)), "{check:?} {run:?}");
        assert!(!run.stderr.contains("panic"), "{}", run.stderr);
        (check.stdout, run.stderr)
    };
    for (cert, key, place, why) in [
        ("", a.key.as_str(), "cert", "no certificate in it"),
        ("garbage", &a.key, "cert", "no certificate in it"),
        (&a.cert, "", "key", "no private key in it"),
        (&a.cert, &a.cert, "key", "no private key in it"),
        (&b.cert, &a.key, "key", "does not belong to the certificate"),
        (&a.cert, encrypted, "key", "the key is encrypted"),
        (&a.cert[..a.cert.len() / 2], &a.key, "cert", "broken PEM"),
        (
            "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n",
            &a.key,
            "cert",
            "broken PEM",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &a.key,
            "cert",
            "not an X.509 certificate",
        ),
    ] {
        let (check, run) = of(cert, key);
        let path = format!("listeners[0].tls.certificates[0].{place}: ");
        assert!(check.contains(&path) && check.contains(why), "{why}: {check}");
        assert!(run.contains(&path) && run.contains(why), "{why}: {run}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "rollgate.yaml", config).display().to_string();
    let (check, run) = (rollgate(&["check", &path]), rollgate(&["run", "--config", &path]));
    assert_eq!((check.code, run.code), (Some(0), Some(1)), "{check:?} {run:?}");
    assert!(
        check.stdout.starts_with("warning: ") && check.stdout.contains("; `run` refuses the file"),
        "{}",
        check.stdout
    );
    assert!(
        run.stderr.contains("a.pem: cannot read it: No such file"),
        "{}",
        run.stderr
    );
}

#[test]
fn check_warns_of_certificates_that_are_not_valid_now() {
    let authority = Authority::new("tests");
    let directory = tempfile::tempdir().unwrap();
    let lines = [
        authority.expired_server(&["old.test"]).write(directory.path(), "old"),
        authority.server(&["shop.test"]).write(directory.path(), "shop"),
        authority.early_server(&["new.test"]).write(directory.path(), "new"),
    ];
    let config = format!(
        "listeners:\n  - address: 127.0.0.1:0\n    tls: {{ certificates: [{}] }}\nservices:\n  - name: s\n    versions: \
         [{{ name: v1, pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}]\n",
        lines.join(", ")
    );
    let path = file(directory.path(), "rollgate.yaml", &config).display().to_string();
    let check = rollgate(&["check", &path]);
    assert_eq!(check.code, Some(0), "{check:?}");
    let warnings: Vec<&str> = check
        .stdout
        .lines()
        .filter(|line| line.starts_with("warning: "))
        .collect();
    let [old, new] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    for (warning, index, why) in [(old, 0, "has expired"), (new, 2, "is not valid yet")] {
        let key = format!("listeners[0].tls.certificates[{index}].cert: ");
        assert!(
            warning.contains(":3:") && warning.contains(&key) && warning.ends_with(why),
            "{warning}"
        );
    }
}

#[test]
fn the_full_example_passes_check_where_its_files_are_not() {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/full.yaml");
    let check = rollgate(&["check", &full.display().to_string()]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(
        check.stdout.contains("listeners[1].tls.certificates[0].cert: "),
        "{}",
        check.stdout
    );
}
