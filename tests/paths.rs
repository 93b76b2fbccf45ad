//! One path, however it is written: routes are compared with its canonical form, and what endpoints might resolve elsewhere
//! than the routes did is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::frames::RawClient;
use support::{ApiSite, Config, Gate, Service, Upstream};

/// `/admin` is nobody's but the proxy's, `/api` is a service's that is told of `/inner` instead, the rest another's.
fn config(api: &Upstream, rest: &Upstream) -> Config {
    let jailed = Service::new("api")
        .stable("v1", 100, &[api.port()])
        .route("path_prefix: /api")
        .key("rewrite: { strip_prefix: /api, add_prefix: /inner }");
    Config::with(jailed)
        .and(Service::only(rest.port()).route("path_prefix: /"))
        .top(
            "routes:\n  - { path_prefix: /admin, respond: { status: 403 } }\n  - { path_prefix: /old, redirect: { path_prefix: /new } }",
        )
}

/// Paths that some server resolves to `/admin/x`, or to something else outside `/api`.
const ELSEWHERE: [&str; 12] = [
    "/x/../admin/x",
    "/x/..",
    "/api/../secret",
    "/api/%2e%2E/secret",
    "/api/.%2e;a=b/secret",
    "/api/..;/secret",
    "/api/..%2fsecret",
    "/api/..%5csecret",
    "/./admin/x",
    "/\\admin/x",
    "/admin%00/x",
    "/x/%/admin",
];

#[test]
fn what_leads_elsewhere_is_refused_in_every_protocol() {
    let (api, rest) = (Upstream::named("api"), Upstream::named("rest"));
    let gate = Gate::start(&config(&api, &rest).text());
    for (sent, path) in ELSEWHERE.iter().enumerate() {
        let mut client = gate.client();
        let response = client.get(path, &[]);
        assert_eq!((response.status, response.closes()), (400, true), "{path}");
        assert!(
            response.text().starts_with("400 Bad Request: the path has a"),
            "{path}: {}",
            response.text()
        );
        let mut client = RawClient::greeted(gate.port());
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
        ];
        client.request(1, &fields);
        let (status, body) = client.answer(1);
        assert_eq!(status, 400, "{path}");
        assert!(
            body.starts_with(b"400 Bad Request: the path has a"),
            "{path}: {}",
            body.escape_ascii()
        );
        let both = (sent + 1) as f64 * 2.0;
        gate.expect_metric("rollgate_refusals_total", &[("reason", "bad_request")], both);
    }
    assert_eq!((api.count(), rest.count()), (0, 0));
}

#[test]
fn a_route_takes_its_path_however_it_is_written() {
    let (api, rest) = (Upstream::named("api"), Upstream::named("rest"));
    let gate = Gate::start(&config(&api, &rest).text());
    let mut client = gate.client();
    for path in [
        "/admin",
        "//admin",
        "/%61dmin",
        "/%61%64%6D%69%6e/",
        "///admin//x",
        "/adm%69n?a=/../b",
    ] {
        assert_eq!(client.get(path, &[]).status, 403, "{path}");
    }
    assert_eq!((api.count(), rest.count()), (0, 0));
    // What is encoded for good reason stays so, and is another path.
    for path in [
        "/%2fadmin",
        "/admin%2Fx",
        "/Admin",
        "/a//%7euser/%c3%a9?q=//%61",
        "/.well-known/x",
        "/...",
    ] {
        assert_eq!(client.get(path, &[]).served_by(), "rest", "{path}");
        assert_eq!(rest.last().target, path, "forwarded as it came");
    }
    let location = |response: support::Response| response.header("location").map(str::to_owned);
    assert_eq!(
        location(client.get("//%6fld//a%2fb?q=%61", &[("host", "shop")])).as_deref(),
        Some("http://shop/new/a%2Fb?q=%61")
    );
}

#[test]
fn a_prefix_is_no_way_out() {
    let (api, rest) = (Upstream::named("api"), Upstream::named("rest"));
    let gate = Gate::start(&config(&api, &rest).text());
    let mut client = gate.client();
    for (path, target) in [
        ("/api", "/inner"),
        ("/api/a%2fb?x", "/inner/a%2Fb?x"),
        ("/api/A%2FB%20?x", "/inner/A%2FB%20?x"),
        ("/%61pi//a//%7e", "/inner/a/~"),
        ("//api/a?b=//c", "/inner/a?b=//c"),
    ] {
        assert_eq!(client.get(path, &[]).served_by(), "api", "{path}");
        assert_eq!(api.last().target, target, "{path}");
        let line = gate.access_line("the request as it came", |line| line["path"] == path);
        assert_eq!(line["service"], "api");
    }
    assert_eq!(rest.count(), 0);
}

#[test]
fn explain_answers_as_the_proxy_does() {
    let (api, rest) = (Upstream::named("api"), Upstream::named("rest"));
    let site = ApiSite::new();
    let _gate = site.start(&config(&api, &rest));
    let ask = |path: &str| {
        let body = serde_json::json!({ "method": "GET", "host": "a", "path": path }).to_string();
        let answer = site.ask("POST /v1/explain", &body);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        (answer.json["service"].clone(), answer.json["notes"].to_string())
    };
    let (service, notes) = ask("/%61pi//x");
    assert_eq!(service, "api");
    assert!(notes.contains("routes are compared with the path as /api/x"), "{notes}");
    let (service, notes) = ask("/%61dmin");
    assert!(service.is_null() && notes.contains("respond 403"), "{notes}");
    let (service, notes) = ask("/api/%2e./x");
    assert!(
        service.is_null() && notes.contains("`..`: the answer is 400"),
        "{notes}"
    );
    assert_eq!(ask("/api/x").1.matches("compared").count(), 0);
}
