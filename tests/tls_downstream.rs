//! TLS on listeners: which certificate, which version, who the client is, files that change, and whoever does not play
//! along.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

#[path = "tls_downstream/clients.rs"]
mod clients;
#[path = "tls_downstream/files.rs"]
mod files;
#[path = "tls_downstream/hostile.rs"]
mod hostile;
#[path = "tls_downstream/requests.rs"]
mod requests;

use std::io::Write;
use std::process::{Command, Stdio};
use support::{Authority, Client, Config, Gate, Leaf, PATIENCE, Service, Trust, Upstream, der, eventually};
use tempfile::TempDir;

/// `shop` behind TLS.
struct Shop {
    authority: Authority,
    files: TempDir,
    upstream: Upstream,
    gate: Gate,
}

impl Shop {
    /// With one certificate, for `shop.test`.
    fn new() -> Self {
        Self::with("", |config| config)
    }

    /// With further keys of `tls`, each with a comma behind, and of the file.
    fn with(tls: &str, config: impl FnOnce(Config) -> Config) -> Self {
        let authority = Authority::new("tests");
        let leaf = authority.server(&["shop.test"]);
        Self::serving(authority, &[("shop", leaf)], tls, config)
    }

    fn serving(
        authority: Authority,
        leaves: &[(&str, Leaf)],
        tls: &str,
        config: impl FnOnce(Config) -> Config,
    ) -> Self {
        let upstream = Upstream::named("v1");
        let files = tempfile::tempdir().unwrap();
        authority.write(&files.path().join("ca.pem"));
        let lines: Vec<String> = leaves
            .iter()
            .map(|(name, leaf)| leaf.write(files.path(), name))
            .collect();
        let tls = tls.replace("DIR", &files.path().display().to_string());
        let tls = format!("tls: {{ {tls} certificates: [{}] }}", lines.join(", "));
        let text = config(Config::with(Service::only(upstream.port())).listener(&tls)).text();
        Self {
            gate: Gate::start(&text),
            authority,
            files,
            upstream,
        }
    }

    fn trust(&self) -> Trust {
        Trust::new(&self.authority)
    }

    fn client(&self) -> Client {
        Client::connect_tls(self.gate.port(), &self.trust(), "shop.test")
    }

    fn try_client(&self, trust: &Trust) -> std::io::Result<Client> {
        let mut client = Client::try_connect_tls(self.gate.port(), trust, "shop.test")?;
        // In TLS 1.3 a server's refusal comes after the client's handshake is done.
        match client.try_request("GET", "/", &[], b"") {
            Ok(response) if response.status == 200 => Ok(client),
            other => Err(std::io::Error::other(format!("{other:?}"))),
        }
    }

    fn handshakes(&self, result: &str, count: f64) {
        self.gate
            .expect_metric("rollgate_tls_handshakes_total", &[("result", result)], count);
    }

    /// What curl says, and whether it succeeded.
    fn curl(&self, arguments: &[&str]) -> (bool, String) {
        let port = self.gate.port();
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", "--cacert"])
            .arg(self.files.path().join("ca.pem"))
            .args(["--resolve", &format!("shop.test:{port}:127.0.0.1")])
            .args(arguments)
            .arg(format!("https://shop.test:{port}/"))
            .output()
            .expect("start curl");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// What `openssl s_client` says of a handshake.
    fn openssl(&self, arguments: &[&str]) -> String {
        self.openssl_sending(arguments, "")
    }

    /// Likewise, with this sent behind it.
    fn openssl_sending(&self, arguments: &[&str], request: &str) -> String {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", self.gate.port())])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start openssl");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(request.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

#[test]
fn the_name_a_client_asks_for_chooses_the_certificate() {
    let authority = Authority::new("tests");
    let leaves = [
        ("default", authority.server(&["default.test", "shop.test"])),
        ("wild", authority.server(&["*.shop.test"])),
        ("exact", authority.server(&["a.shop.test"])),
    ];
    let shop = Shop::serving(authority, &leaves, "", |config| config);
    let shown = |name: &str| {
        let client = Client::connect_tls(shop.gate.port(), &shop.trust(), name);
        let shown = client.wire().peer_certificate().unwrap();
        leaves.iter().find(|(_, leaf)| der(&leaf.cert) == shown).unwrap().0
    };
    assert_eq!(shown("shop.test"), "default");
    assert_eq!(shown("a.shop.test"), "exact");
    assert_eq!(shown("A.Shop.Test"), "exact");
    assert_eq!(shown("b.shop.test"), "wild");
    // Two labels are not one: the default is shown, and a client that verifies refuses it.
    assert!(Client::try_connect_tls(shop.gate.port(), &shop.trust(), "a.b.shop.test").is_err());
    // Without a name.
    let said = shop.openssl(&["-noservername"]);
    let default = &leaves[0].1.cert.lines().nth(3).unwrap();
    assert!(said.contains(*default), "{said}");
}

#[test]
fn of_several_for_one_name_one_that_is_valid_now_is_shown() {
    let authority = Authority::new("tests");
    let leaves = [
        ("expired", authority.expired_server(&["shop.test"])),
        ("early", authority.early_server(&["shop.test"])),
        ("rsa", authority.rsa_server(&["shop.test"])),
    ];
    let renewed = authority.server(&["shop.test"]);
    let shop = Shop::serving(authority, &leaves, "", |config| config);
    let shown = || shop.client().wire().peer_certificate().unwrap();
    assert_eq!(shown(), der(&leaves[2].1.cert), "before a kind that is cheaper");
    renewed.write(shop.files.path(), "early");
    eventually(PATIENCE, "once another is valid, the cheaper kind", || {
        shown() == der(&renewed.cert)
    });
}

#[test]
fn both_versions_both_kinds_of_keys_and_curl() {
    let authority = Authority::new("tests");
    let leaves = [
        ("rsa", authority.rsa_server(&["shop.test"])),
        ("ecdsa", authority.server(&["shop.test"])),
    ];
    let shop = Shop::serving(authority, &leaves, "", |config| config);
    for (trust, version) in [
        (Trust::tls12(&shop.authority), "TLSv1_2"),
        (Trust::tls13(&shop.authority), "TLSv1_3"),
    ] {
        let mut client = Client::connect_tls(shop.gate.port(), &trust, "shop.test");
        assert_eq!(client.wire().version(), version);
        assert_eq!(client.get("/", &[]).status, 200);
        assert_eq!(client.get("/", &[]).status, 200);
        let shown = client.wire().peer_certificate().unwrap();
        assert_eq!(
            shown,
            der(&leaves[1].1.cert),
            "who can verify ECDSA gets it, wherever it stands"
        );
    }
    let versions = [
        &["--tls-max", "1.2"][..],
        &["--tlsv1.3"],
        &["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"],
        &["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    ];
    for arguments in versions {
        for (http, told) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let how = [&[http, "--write-out", " HTTP/%{http_version}"], arguments].concat();
            assert_eq!(shop.curl(&how), (true, format!("v1 HTTP/{told}")), "{how:?}");
        }
    }
    let said = shop.openssl(&[
        "-tls1_2",
        "-cipher",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "-servername",
        "shop.test",
    ]);
    assert!(said.contains("Peer signature type: RSA"), "{said}");
    assert_eq!(shop.upstream.last().head.get("x-forwarded-proto"), Some("https"));
    let (succeeded, said) = shop.curl(&["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"]);
    assert!(!succeeded, "TLS 1.1: {said}");
}

#[test]
fn the_oldest_version_may_be_1_3() {
    let shop = Shop::with("min_version: 1.3,", |config| config);
    assert!(shop.try_client(&Trust::tls13(&shop.authority)).is_ok());
    let refused = shop.try_client(&Trust::tls12(&shop.authority)).err().unwrap();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

#[test]
fn client_and_proxy_agree_on_a_protocol() {
    let shop = Shop::new();
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["http/1.0", "http/1.1"], Some("http/1.1")),
        (&["http/1.0"], Some("http/1.0")),
        (&[], None),
    ] {
        let trust = shop.trust().speaking(offered);
        let mut client = Client::connect_tls(shop.gate.port(), &trust, "shop.test");
        assert_eq!(client.wire().alpn().as_deref(), agreed);
        if agreed != Some("h2") {
            assert_eq!(client.get("/", &[]).status, 200);
        }
    }
    let said = shop.curl(&["--http1.0", "--write-out", " HTTP/%{http_version}"]);
    assert!(said.0 && said.1.starts_with("v1 HTTP/1"), "{said:?}");
    eventually(PATIENCE, "why there is no TLS is in the log", || {
        let refused = shop.try_client(&shop.trust().speaking(&["smtp"])).err().unwrap();
        assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
        shop.gate
            .log()
            .contains("it offers (ALPN) no protocol that is spoken here")
    });
    eventually(PATIENCE, "plain HTTP is told, too", || {
        let mut plain = Client::connect(shop.gate.port());
        assert!(plain.try_request("GET", "/", &[], b"").is_err());
        shop.gate.log().contains("plain HTTP, perhaps")
    });
}

#[test]
fn sessions_are_resumed() {
    let shop = Shop::new();
    for (count, trust) in [
        (1.0, Trust::tls12(&shop.authority)),
        (2.0, Trust::tls13(&shop.authority)),
    ] {
        let first = shop.try_client(&trust).unwrap();
        assert!(!first.wire().is_resumed());
        drop(first);
        let second = shop.try_client(&trust).unwrap();
        assert!(second.wire().is_resumed(), "{}", second.wire().version());
        shop.handshakes("resumed", count);
        shop.handshakes("full", count);
    }
}

#[test]
fn sessions_are_resumed_in_whichever_thread_the_client_comes_back_to() {
    let shop = Shop::with("", |config| config.top("threads: 4"));
    for trust in [Trust::tls12(&shop.authority), Trust::tls13(&shop.authority)] {
        shop.upstream.forget();
        drop(shop.try_client(&trust).unwrap());
        let mut open = Vec::new();
        // Each thread has connections of its own to the endpoint, and one will do for requests after each other.
        eventually(PATIENCE, "three threads have served", || {
            let client = shop.try_client(&trust).unwrap();
            assert!(
                client.wire().is_resumed(),
                "{} after {}",
                client.wire().version(),
                open.len()
            );
            open.push(client);
            shop.upstream.connections_used() >= 3
        });
    }
    shop.handshakes("full", 2.0);
}

#[test]
fn openssl_resumes_sessions() {
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let shop = Shop::new();
    for version in ["tls1_2", "tls1_3"] {
        let file = shop.files.path().join(version).display().to_string();
        let arguments = ["-servername", "shop.test", "-ign_eof", &format!("-{version}")];
        let visit = |session: &[&str]| shop.openssl_sending(&[&arguments, session].concat(), REQUEST);
        let first = visit(&["-sess_out", &file]);
        assert!(first.contains("New, TLSv1.") && first.contains("200 Answer"), "{first}");
        // What it would take before the handshake is done may be replayed.
        assert!(version == "tls1_2" || first.contains("Max Early Data: 0\n"), "{first}");
        // A ticket of TLS 1.3 is good for more than one connection.
        for _ in 0..2 {
            let again = visit(&["-sess_in", &file]);
            assert!(
                again.contains("Reused, TLSv1.") && again.contains("200 Answer"),
                "{version}: {again}"
            );
        }
    }
    shop.handshakes("resumed", 4.0);
    shop.handshakes("full", 2.0);
}
