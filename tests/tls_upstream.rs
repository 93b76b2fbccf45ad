//! TLS to endpoints: who they have to be, what is shown to them, and that no connection outlives what it was made by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::path::Path;
use support::{
    Authority, Broken, Client, Config, Gate, Leaf, PATIENCE, Port, Service, Then, Trust, Upstream, WEB_SOCKET, Write,
    der, eventually, file, self_signed,
};

/// A handshake may take as long, where it is not the point.
const PATIENT: &str = "timeouts: { connect: 15s }";

/// A gate before one endpoint that speaks TLS.
struct Shop {
    authority: Authority,
    files: tempfile::TempDir,
    upstream: Upstream,
    gate: Gate,
}

impl Shop {
    /// The endpoint has a certificate for `names`; `tls`: further keys of `tls`, each with a comma before.
    fn new(names: &[&str], tls: &str) -> Self {
        let authority = Authority::new("tests");
        let upstream = Upstream::tls("v1", authority.server(names).serves(None));
        Self::before(authority, upstream, tls)
    }

    fn before(authority: Authority, upstream: Upstream, tls: &str) -> Self {
        let ca = authority.pem().to_owned();
        Self::trusting(&ca, authority, upstream, tls)
    }

    /// With this file of authorities.
    fn trusting(ca: &str, authority: Authority, upstream: Upstream, tls: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let ca = file(files.path(), "ca.pem", ca).display().to_string();
        let tls = tls.replace("DIR", &files.path().display().to_string());
        let service = Service::only(upstream.port())
            .never_eject()
            .pools(&format!("tls: {{ ca: {ca}{tls} }}"))
            .pools("health_check: { path: /healthz, every: 100ms }")
            .pools(PATIENT);
        Self {
            gate: Gate::start(&Config::with(service).top("threads: 1").text()),
            authority,
            files,
            upstream,
        }
    }

    fn healthy(&self) -> bool {
        self.gate.metric("rollgate_endpoint_healthy", &[]) > 0.5
    }

    /// Without probes: those that brought requests.
    fn requests(&self) -> Vec<support::Received> {
        let all = self.upstream.requests().into_iter();
        all.filter(|request| request.target != "/healthz").collect()
    }

    /// A request fails with 502, and the log says `why`.
    fn refuses(&self, why: &str) {
        let response = self.gate.get("/", &[]);
        assert_eq!(response.status, 502);
        assert!(
            response.text().contains(": no connection to the endpoint\n"),
            "no more than that: {}",
            response.text()
        );
        assert!(self.requests().is_empty(), "nothing was sent");
        let line = self.gate.access_line("it is told", |line| line["status"] == 502);
        assert_eq!(
            (line["termination"].as_str(), line["failure"].as_str()),
            (Some("upstream_connect"), Some("connect"))
        );
        error_is(&self.gate, why);
        let of_request = |log: &str| {
            log.lines()
                .any(|line| line.contains("no TLS with an endpoint") && line.contains(why))
        };
        eventually(PATIENCE, why, || of_request(&self.gate.log()));
        eventually(PATIENCE, "probes find the same", || !self.healthy());
        let of_probes = |log: &str| {
            log.lines()
                .any(|line| line.contains("unhealthy: no TLS: ") && line.contains(why))
        };
        eventually(PATIENCE, "the log says so", || of_probes(&self.gate.log()));
    }
}

/// The log of a failed request says why.
fn error_is(gate: &Gate, why: &str) {
    let line = gate.access_line("it failed", |line| line["status"] == 502);
    assert!(line["error"].as_str().unwrap().contains(why), "{line}");
}

// ---- who an endpoint has to be ----

#[test]
fn the_host_of_an_endpoint_is_verified_unless_another_name_is_given() {
    let by_address = Shop::new(&["127.0.0.1"], "");
    assert_eq!(by_address.gate.get("/", &[]).served_by(), "v1");
    eventually(PATIENCE, "its probes succeed", || by_address.healthy());
    assert_eq!(
        by_address.upstream.handshakes()[0].sni,
        None,
        "an address is no name to ask for"
    );

    let by_name = Shop::new(&["shop.internal"], ", sni: Shop.Internal");
    assert_eq!(by_name.gate.get("/", &[]).served_by(), "v1");
    let asked = by_name.upstream.handshakes();
    assert!(
        asked
            .iter()
            .all(|shaken| shaken.sni.as_deref() == Some("shop.internal")),
        "{asked:?}"
    );
}

#[test]
fn a_name_that_is_resolved_is_the_name_that_is_verified() {
    let authority = Authority::new("tests");
    let upstream = Upstream::tls("v1", authority.server(&["localhost"]).serves(None));
    let files = tempfile::tempdir().unwrap();
    let ca = file(files.path(), "ca.pem", authority.pem());
    let config = format!(
        "listeners:\n  - address: 127.0.0.1:0\nadmin:\n  address: 127.0.0.1:0\nservices:\n  - name: shop\n    versions:\n      \
         - name: v1\n        pool: {{ endpoints: [\"localhost:{}\"], tls: {{ ca: {} }}, {PATIENT} }}\n",
        upstream.port(),
        ca.display()
    );
    let gate = Gate::start(&config);
    assert_eq!(gate.get("/", &[]).served_by(), "v1");
    assert_eq!(upstream.handshakes().pop().unwrap().sni.as_deref(), Some("localhost"));
}

#[test]
fn a_wrong_name_is_refused() {
    Shop::new(&["other.internal"], ", sni: shop.internal").refuses("certificate not valid for name");
    Shop::new(&["shop.internal"], "").refuses(": `tls.sni` must be a name it has");
}

#[test]
fn an_unknown_authority_is_refused() {
    let upstream = Upstream::tls("v1", Authority::new("strangers").server(&["127.0.0.1"]).serves(None));
    Shop::before(Authority::new("tests"), upstream, "").refuses("UnknownIssuer: `tls.ca` must have");
}

#[test]
fn a_self_signed_certificate_is_trusted_where_it_is_itself_the_ca_and_nowhere_else() {
    let listed = self_signed("ed.test");
    let upstream = Upstream::tls("v1", listed.serves(None));
    let shop = Shop::before(Authority::new("tests"), upstream, ", sni: ed.test");
    shop.refuses(": it is an authority's: `tls.ca` must have this very certificate");
    std::fs::write(shop.files.path().join("ca.pem"), &listed.cert).unwrap();
    eventually(PATIENCE, "it is trusted once it is listed", || {
        shop.gate.get("/", &[]).status == 200
    });
    eventually(PATIENCE, "by probes, too", || shop.healthy());

    let thief = Leaf {
        key: self_signed("ed.test").key,
        ..listed.clone()
    };
    for (shown, asked, why) in [
        (self_signed("ed.test").serves(None), "ed.test", "CaUsedAsEndEntity"),
        (listed.serves(None), "other.test", "certificate not valid for name"),
        (thief.pretends(), "ed.test", "BadSignature"),
    ] {
        let tls = format!(", sni: {asked}");
        let upstream = Upstream::tls("v1", shown);
        Shop::trusting(&listed.cert, Authority::new("tests"), upstream, &tls).refuses(why);
    }
}

#[test]
fn without_a_ca_the_systems_authorities_count() {
    let authority = Authority::new("tests");
    let upstream = Upstream::tls("v1", authority.server(&["127.0.0.1"]).serves(None));
    let service = Service::only(upstream.port())
        .never_eject()
        .pools("tls: {}")
        .pools(PATIENT);
    let gate = Gate::start(&Config::with(service).text());
    assert_eq!(gate.get("/", &[]).status, 502);
    error_is(&gate, "UnknownIssuer");
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::new("tests");
    let upstream = Upstream::tls("v1", authority.expired_server(&["127.0.0.1"]).serves(None));
    Shop::before(authority, upstream, "").refuses(": it must be renewed");
}

#[test]
fn an_endpoint_that_speaks_no_tls_is_refused() {
    let files = tempfile::tempdir().unwrap();
    let ca = file(files.path(), "ca.pem", Authority::new("tests").pem());
    // It answers whatever comes with something that is no TLS.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 1000]).is_ok_and(|read| read > 0) {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
            }
        }
    });
    let service = Service::only(port)
        .never_eject()
        .pools(&format!("tls: {{ ca: {} }}", ca.display()))
        .pools(PATIENT);
    let gate = Gate::start(&Config::with(service).text());
    let response = gate.get("/", &[]);
    assert_eq!(response.status, 502);
    error_is(&gate, "TLS: received corrupt message");
}

#[test]
fn an_endpoint_that_offers_no_http2_is_told_of_its_protocol() {
    let authority = Authority::new("tests");
    let mut config = (*authority.server(&["127.0.0.1"]).serves(None)).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let upstream = Upstream::tls("v1", config.into());
    let files = tempfile::tempdir().unwrap();
    let ca = file(files.path(), "ca.pem", authority.pem());
    let service = Service::only(upstream.port()).pools("protocol: h2").pools(PATIENT);
    let service = service.pools(&format!("tls: {{ ca: {} }}", ca.display()));
    let gate = Gate::start(&Config::with(service).text());
    assert_eq!(gate.get("/", &[]).status, 502);
    eventually(PATIENCE, "the log says what to change", || {
        gate.log()
            .contains("the endpoint does not speak the `protocol` of its pool")
    });
}

#[test]
fn an_endpoint_that_does_not_answer_the_handshake_is_late() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = Service::only(port)
        .never_eject()
        .pools("tls: { verify: false }")
        .pools("timeouts: { connect: 300ms }");
    let gate = Gate::start(&Config::with(service).text());
    let response = gate.get("/", &[]);
    assert_eq!(response.status, 504);
    assert!(response.text().contains("timeouts.connect"), "{}", response.text());
}

#[test]
fn verification_can_be_turned_off_and_that_is_told() {
    let authority = Authority::new("tests");
    let upstream = Upstream::tls("v1", authority.expired_server(&["other.internal"]).serves(None));
    let service = Service::only(upstream.port())
        .pools("tls: { verify: false, sni: shop.internal }")
        .pools(PATIENT);
    let gate = Gate::start(&Config::with(service).text());
    assert_eq!(gate.get("/", &[]).served_by(), "v1");
    assert_eq!(upstream.handshakes()[0].sni.as_deref(), Some("shop.internal"));
    eventually(PATIENCE, "the log tells", || gate.log().contains("`verify: false`"));
}

// ---- who we are ----

#[test]
fn an_endpoint_that_asks_is_shown_the_certificate() {
    let authority = Authority::new("tests");
    let upstream = Upstream::tls("v1", authority.server(&["127.0.0.1"]).serves(Some(&authority)));
    let us = authority.client("rollgate", "gate@example.test");
    let files = tempfile::tempdir().unwrap();
    us.write(files.path(), "us");
    let shown = format!(", cert: {0}/us.pem, key: {0}/us.key", files.path().display());
    let shop = Shop::before(authority, upstream, &shown);
    assert_eq!(shop.gate.get("/", &[]).served_by(), "v1");
    assert_eq!(shop.upstream.handshakes()[0].shown, Some(der(&us.cert)));
    eventually(PATIENCE, "probes show it, too", || shop.healthy());

    let authority = Authority::new("tests");
    let upstream = Upstream::tls("v1", authority.server(&["127.0.0.1"]).serves(Some(&authority)));
    let nobody = Shop::before(authority, upstream, "");
    let response = nobody.gate.get("/", &[]);
    assert_eq!(response.status, 502);
    error_is(&nobody.gate, "CertificateRequired: `tls.cert` must be set");
}

// ---- connections ----

#[test]
fn a_connection_is_used_again_and_a_session_resumed() {
    let shop = Shop::new(&["127.0.0.1"], "");
    for _ in 0..10 {
        assert_eq!(shop.gate.get("/", &[]).status, 200);
    }
    let of = |requests: &[support::Received]| requests.iter().map(|r| r.connection).collect::<HashSet<_>>();
    assert_eq!(of(&shop.requests()).len(), 1);
    // The endpoint closes what rests, with a close_notify; the next request gets a new connection.
    shop.upstream.close_connections();
    assert_eq!(shop.gate.get("/", &[]).status, 200);
    assert_eq!(of(&shop.requests()).len(), 2);
    assert!(shop.upstream.handshakes().last().unwrap().resumed);
    let body = vec![1; 100_000];
    assert_eq!(shop.gate.client().request("POST", "/", &[], &body).status, 200);
    assert!(shop.requests().last().unwrap().body == body);
}

#[test]
fn no_connection_is_shared_between_settings() {
    let authority = Authority::new("tests");
    let upstream = Upstream::tls("v1", authority.server(&["a.internal", "b.internal"]).serves(None));
    let files = tempfile::tempdir().unwrap();
    let ca = file(files.path(), "ca.pem", authority.pem()).display().to_string();
    let pool = |name: &str| {
        format!(
            "{{ endpoints: [\"127.0.0.1:{}\"], tls: {{ ca: {ca}, sni: {name} }}, {PATIENT} }}",
            upstream.port()
        )
    };
    let text = |a: &str, b: &str| {
        format!(
            "listeners:\n  - address: 127.0.0.1:0\nadmin:\n  address: 127.0.0.1:0\nthreads: 1\nservices:\n  - name: a\n    routes: [{{ \
             host: a.test }}]\n    versions: [{{ name: v1, pool: {} }}]\n  - name: b\n    routes: [{{ host: b.test }}]\n    \
             versions: [{{ name: v1, pool: {} }}]\n",
            pool(a),
            pool(b)
        )
    };
    let gate = Gate::start(&text("a.internal", "b.internal"));
    let mut client = gate.client();
    for host in ["a.test", "b.test", "a.test", "b.test"] {
        assert_eq!(client.get("/", &[("host", host)]).status, 200);
    }
    let asked: Vec<_> = upstream
        .handshakes()
        .into_iter()
        .filter_map(|shaken| shaken.sni)
        .collect();
    assert_eq!(asked, ["a.internal", "b.internal"]);
    // Another name for one of them: its idle connection is of no use any more.
    gate.write_config(&text("b.internal", "b.internal"), Write::Rename);
    eventually(PATIENCE, "the name is asked for anew", || {
        client.get("/", &[("host", "a.test")]);
        upstream.handshakes().len() == 3
    });
    assert_eq!(upstream.handshakes()[2].sni.as_deref(), Some("b.internal"));
}

#[test]
fn other_authorities_on_the_disk_hold_for_the_next_request() {
    let shop = Shop::new(&["127.0.0.1"], "");
    let mut client = shop.gate.client();
    assert_eq!(client.get("/", &[]).status, 200);
    let ca = shop.files.path().join("ca.pem");
    Authority::new("others").write(&ca);
    eventually(PATIENCE, "the endpoint is not believed any more", || {
        client.get("/", &[]).status == 502
    });
    eventually(PATIENCE, "the log tells", || {
        shop.gate.log().contains("authorities are replaced")
    });
    std::fs::write(&ca, "nonsense").unwrap();
    eventually(PATIENCE, "a broken file is told", || {
        shop.gate.log().contains("ca.pem: no certificate in it")
    });
    let label = ca.display().to_string();
    shop.gate.expect_metric(
        "rollgate_certificate_last_load_successful",
        &[("certificate", &label)],
        0.0,
    );
    shop.authority.write(&ca);
    eventually(PATIENCE, "and believed again", || client.get("/", &[]).status == 200);
    eventually(PATIENCE, "by probes, too", || shop.healthy());
}

#[test]
fn bodies_go_both_ways_and_an_answer_that_is_cut_is_seen_as_cut() {
    let authority = Authority::new("tests");
    let config = authority.server(&["127.0.0.1"]).serves(None);
    let upstream = Upstream::tls_with("v1", config, |exchange| {
        let body = exchange.read_body().to_vec();
        match exchange.request.target.as_str() {
            // Until the connection closes: with a close_notify it is whole.
            "/close" => {
                exchange.send("HTTP/1.1 200 OK\r\n\r\nhello");
                if let support::Wire::Server(tls) = &mut exchange.io().stream {
                    tls.conn.send_close_notify();
                    tls.flush().ok();
                }
                Then::Close
            }
            "/cut" => {
                exchange.send("HTTP/1.1 200 OK\r\n\r\nhello");
                Then::Close
            }
            _ => exchange.answer(200, &[], &body),
        }
    });
    let shop = Shop::before(authority, upstream, "");
    let mut client = shop.gate.client();
    for size in [1, 16_384, 70_000, 5_000_000] {
        let body: Vec<u8> = (0..size).map(|at| (at * 13 % 251) as u8).collect();
        assert!(client.request("POST", "/", &[], &body).body == body, "{size}");
    }
    assert_eq!(client.get("/close", &[]).body, b"hello");
    let cut = shop.gate.client().try_request("GET", "/cut", &[], b"");
    assert!(matches!(cut, Err(Broken::Cut(_))), "{cut:?}");
    shop.gate
        .access_line("whose fault it was", |line| line["termination"] == "upstream_truncated");
}

#[test]
fn tls_on_both_sides_and_web_sockets() {
    let authority = Authority::new("tests");
    let config = authority.server(&["127.0.0.1"]).serves(None);
    let upstream = Upstream::tls_with("v1", config, |exchange| exchange.echo_web_socket("first"));
    let files = tempfile::tempdir().unwrap();
    let ca = file(files.path(), "ca.pem", authority.pem()).display().to_string();
    let line = authority.server(&["shop.test"]).write(files.path(), "shop");
    let service = Service::only(upstream.port())
        .pools(&format!("tls: {{ ca: {ca} }}"))
        .pools(PATIENT);
    let gate = Gate::start(
        &Config::with(service)
            .listener(&format!("tls: {{ certificates: [{line}] }}"))
            .text(),
    );
    let mut client = Client::connect_tls(gate.port(), &Trust::new(&authority), "shop.test");
    assert_eq!(client.get("/ws", &WEB_SOCKET).status, 101);
    assert_eq!(client.read_bytes(5), b"first");
    for n in 0..100_u8 {
        client.send([n; 5000]);
        assert_eq!(client.read_bytes(5000), [n; 5000]);
    }
    upstream.close_connections();
    assert!(client.is_closed_within(PATIENCE));
}

/// A real nginx that asks for a PROXY protocol header, then TLS.
#[test]
fn nginx_with_tls_behind_a_proxy_header() {
    let authority = Authority::new("tests");
    let files = tempfile::tempdir().unwrap();
    let ca = file(files.path(), "ca.pem", authority.pem()).display().to_string();
    authority.server(&["shop.internal"]).write(files.path(), "nginx");
    let nginx = Nginx::start(files.path());
    let service = Service::only(nginx.port.number())
        .pools(&format!("tls: {{ ca: {ca}, sni: shop.internal }}"))
        .pools("send_proxy_protocol: v2")
        .pools("health_check: { path: /, every: 100ms }")
        .pools(PATIENT);
    let gate = Gate::start(&Config::with(service).listener("proxy_protocol: true").text());
    eventually(PATIENCE, "its probes succeed", || {
        gate.metric("rollgate_endpoint_healthy", &[]) > 0.5
    });
    let mut client = gate.client();
    client.send("PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n");
    for _ in 0..3 {
        let response = client.get("/", &[]);
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "203.0.113.7 shop.internal TLSv1.3")
        );
    }
}

struct Nginx {
    child: std::process::Child,
    port: Port,
}

impl Nginx {
    fn start(at: &Path) -> Self {
        let reserved = Port::reserved();
        let port = reserved.number();
        let at = at.display();
        let text = format!(
            "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log info;\nevents {{ }}\nhttp {{\n access_log \
             off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path \
             {at}/uwsgi; scgi_temp_path {at}/scgi;\n server {{ listen 127.0.0.1:{port} ssl proxy_protocol; ssl_certificate \
             {at}/nginx.pem; ssl_certificate_key {at}/nginx.key; ssl_protocols TLSv1.2 TLSv1.3;\n location / {{ return 200 \
             '$proxy_protocol_addr $ssl_server_name $ssl_protocol'; }} }} }}\n"
        );
        let path = file(Path::new(&at.to_string()), "nginx.conf", &text);
        let paths = format!(
            "{}:/usr/sbin:/usr/local/sbin",
            std::env::var("PATH").unwrap_or_default()
        );
        let child = std::process::Command::new("nginx")
            .env("PATH", paths)
            .arg("-p")
            .arg(at.to_string())
            .arg("-c")
            .arg(path)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("nginx is needed for this test ({error}); `make test` installs it"));
        let nginx = Self { child, port: reserved };
        eventually(PATIENCE, "nginx listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn files_of_pools_are_checked_like_those_of_listeners() {
    let files = tempfile::tempdir().unwrap();
    let wrong = file(files.path(), "wrong.pem", "nonsense").display().to_string();
    let service = |tls: &str| Config::with(Service::only(1).pools(&format!("tls: {{ {tls} }}"))).text();
    for (tls, place) in [
        (format!("ca: {wrong}"), "services[0].versions[0].pool.tls.ca: "),
        (
            format!("cert: {wrong}, key: {wrong}"),
            "services[0].versions[0].pool.tls.cert: ",
        ),
    ] {
        let exit = Gate::try_start(&service(&tls)).err().unwrap();
        assert_eq!(exit.code, Some(1));
        assert!(
            exit.stderr.contains(place) && exit.stderr.contains("no certificate in it"),
            "{}",
            exit.stderr
        );
    }
}
