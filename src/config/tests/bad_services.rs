//! What is said of services that are wrong, word by word.

use super::bad_input::report;
use super::*;

#[test]
fn services_and_versions() {
    let cases = [
        ("no services", format!("{LISTENERS}services: []\n")),
        (
            "no versions",
            format!("{LISTENERS}services: [{{ name: a, versions: [] }}]\n"),
        ),
        ("no name", with_service("").replace("name: shop", "kill: true")),
        ("a bad name", with_service("").replace("name: shop", "name: \"shop/1\"")),
        (
            "a long name",
            with_service("").replace("name: shop", &format!("name: {}", "x".repeat(65))),
        ),
        ("a service twice", with_many_services(2).replace("s1", "s0")),
        ("a version twice", with_versions(&["name: v1", "name: v1"])),
        (
            "two stables",
            with_versions(&[
                "name: v1, role: stable",
                "name: v2, role: stable",
                "name: v3, role: stable",
            ]),
        ),
        (
            "no stable",
            with_versions(&["name: v1, role: canary", "name: v2, role: canary"]),
        ),
        (
            "all weights zero",
            with_versions(&["name: v1, weight: 0", "name: v2, weight: 0"]),
        ),
        (
            "weights",
            with_versions(&[
                "name: v1, weight: -1",
                "name: v2, weight: 1000001",
                "name: v3, weight: 1e9",
                "name: v4, weight: NaN",
                "name: v5, weight: \"5\"",
                "name: v6, weight: 1.5",
                "name: v7, weight:",
            ]),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn rules_and_affinity() {
    let rules = |text: &str| with_service(&format!("    rules: [{text}]\n"));
    let when = "when: { header: x, exists: true }";
    let cases = [
        ("a rule without effect", rules(&format!("{{ name: a, {when} }}"))),
        (
            "a rule with two effects",
            rules(&format!("{{ name: a, {when}, version: v1, split: {{ v1: 1 }} }}")),
        ),
        (
            "a rule twice",
            rules(&format!(
                "{{ name: a, {when}, version: v1 }}, {{ name: a, {when}, version: v2 }}"
            )),
        ),
        ("a rule without condition", rules("{ name: a, version: v1 }")),
        (
            "a rule to an unknown version",
            rules(&format!("{{ name: a, {when}, version: v3 }}")),
        ),
        (
            "a split to an unknown version",
            rules(&format!("{{ name: a, {when}, split: {{ v1: 1, v22: 1 }} }}")),
        ),
        (
            "a split of zeros",
            rules(&format!("{{ name: a, {when}, split: {{ v1: 0, v2: 0 }} }}")),
        ),
        ("an empty split", rules(&format!("{{ name: a, {when}, split: {{}} }}"))),
        ("an affinity for nobody", with_service("    affinity: { salt: a }\n")),
        (
            "sources of a key",
            with_service(
                "    affinity: { key: [{ headers: x }, ip, { header: x, cookie: y }, { cookie: \"a b\" }] }\n",
            ),
        ),
        (
            "its own cookie as key",
            with_service("    affinity: { key: [{ cookie: rollgate }], cookie: {} }\n"),
        ),
        (
            "an affinity with a bad hash",
            with_service("    affinity: { key: [client_ip], hash: rollgate1, salt: \"\" }\n"),
        ),
        (
            "a life of half a second",
            with_service("    affinity: { cookie: { ttl: 500ms } }\n"),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn pools_and_endpoints() {
    let endpoints = |text: &str| with_pool(&format!("{{ endpoints: [{text}] }}"));
    let cases = [
        ("no pool", with_versions(&["name: v1"]).replace("pool:", "pol:")),
        ("no endpoints", endpoints("")),
        (
            "endpoints",
            endpoints("\"h\", \"h:0\", \"h:70000\", \"http://h:80/\", \"::1\", \"[::1]:x\", \"a b:80\", 9001, [h]"),
        ),
        (
            "an endpoint twice",
            endpoints("\"H:1\", { address: \"h:1\", weight: 2 }"),
        ),
        (
            "an endpoint without weight",
            endpoints("{ address: \"h:1\", weight: 0 }"),
        ),
        (
            "a health check",
            with_pool("{ endpoints: [\"h:1\"], health_check: { path: healthz, every: 2, healthy_after: 0 } }"),
        ),
        (
            "a probe every millisecond",
            with_pool("{ endpoints: [\"h:1\"], health_check: { every: 1ms } }"),
        ),
        (
            "a health check turned off",
            with_pool("{ endpoints: [\"h:1\"], health_check: off }"),
        ),
        (
            "an ejection",
            with_pool("{ endpoints: [\"h:1\"], ejection: { at_most: 50, for: forever, consecutive_failures: 0 } }"),
        ),
        (
            "a protocol",
            with_pool("{ endpoints: [\"h:1\"], protocol: http2, tls: { sni: \"a:443\", verify: 1 } }"),
        ),
        (
            "HTTP/2 over TLS without TLS",
            with_pool("{ endpoints: [\"h:1\"], protocol: h2 }"),
        ),
        (
            "HTTP/2 in plain text over TLS",
            with_pool("{ endpoints: [\"h:1\"], protocol: h2c, tls: { sni: a } }"),
        ),
        (
            "an empty name never means that nothing is verified",
            with_pool("{ endpoints: [\"h:1\"], tls: { sni: \"\" } }"),
        ),
        (
            "tls to endpoints that contradicts itself",
            with_pool("{ endpoints: [\"h:1\"], tls: { ca: a.pem, verify: false, cert: b.pem } }"),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn routes() {
    let two = |first: &str, second: &str| {
        let service = |name: &str, routes: &str| {
            format!("  - name: {name}\n{routes}    versions: [{{ name: v, pool: {{ endpoints: [\"h:1\"] }} }}]\n")
        };
        format!("{LISTENERS}services:\n{}{}", service("a", first), service("b", second))
    };
    let route = |text: &str| with_service(&format!("    routes: [{text}]\n"));
    let cases = [
        ("two services without routes", two("", "")),
        (
            "a service without routes beside all paths",
            two("", "    routes: [{ path_prefix: / }]\n"),
        ),
        (
            "the same host and path",
            two(
                "    routes: [{ host: a.b, path_prefix: /x }]\n",
                "    routes: [{ host: c.d }, { host: A.B, path_prefix: /x/ }]\n",
            ),
        ),
        (
            "methods that are all taken",
            two(
                "    routes: [{ path: /x, methods: [GET, POST] }]\n",
                "    routes: [{ path: /x, methods: [PUT, POST] }, { path: /x, methods: [POST, PUT] }]\n",
            ),
        ),
        ("a route twice", route("{ host: a.b }, { host: a.b }")),
        ("no routes", route("")),
        ("two paths", route("{ path: /a, path_prefix: /b }")),
        (
            "paths",
            route("{ path: a }, { path_prefix: \"/a?b\" }, { path: \"/a b\" }, { path: \"\" }"),
        ),
        (
            "paths no request has",
            route(
                "{ path: /a/../b }, { path_prefix: /a%2e }, { path_prefix: //a%2fb }, { path: '/a\\b' }, { path: /a% }",
            )
            .replace(
                "    versions:",
                "    rewrite: { strip_prefix: /..;a, add_prefix: /%61 }\n    versions:",
            ),
        ),
        (
            "hosts",
            route(
                "{ host: \"http://a.b/c\" }, { host: \"a.b:80\" }, { host: \"*a.b\" }, { host: \"a.*\" }, { host: \"\" }, { host: ä.de }",
            ),
        ),
        (
            "methods",
            route(
                "{ methods: [get] }, { methods: [] }, { methods: [\"A B\"] }, { methods: [GET, GET] }, { methods: [CONNECT] }",
            ),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn mirrors_rescues_and_rollouts() {
    let rollout = |text: &str| with_service(&format!("    rollout: {{ {text} }}\n"));
    let cases = [
        (
            "a mirror",
            with_service("    mirror: { version: v3, share: 10, methods: [get] }\n"),
        ),
        (
            "a rescue",
            with_service("    rescue: { methods: [CONNECT], on: [conect, 5xx] }\n"),
        ),
        ("a rescue on nothing", with_service("    rescue: { on: [] }\n")),
        ("no steps", rollout("steps: []")),
        (
            "a stable candidate",
            rollout("candidate: v1, steps: [{ share: 1%, hold: 1m }]"),
        ),
        (
            "an unknown candidate",
            rollout("candidate: v3, steps: [{ share: 1%, hold: 1m }]"),
        ),
        (
            "several canaries",
            format!(
                "{}    rollout: {{ steps: [{{ share: 1%, hold: 1m }}] }}\n",
                with_versions(&["name: v1", "name: v2", "name: v3"])
            ),
        ),
        (
            "steps",
            rollout(
                "steps: [{ hold: 1m }, { share: 5% }, { share: 10%, hold: 1 }, { share: 5%, hold: 1m }, { segments: [staff], hold: 1m }, { segments: [], hold: 1m }]",
            ),
        ),
        (
            "mirror steps",
            rollout(
                "steps: [{ mirror: 0%, hold: 1m }, { mirror: 10%, share: 1%, hold: 1m }, { mirror: 10%, segments: [staff], hold: 1m }, { mirror: 10, hold: 1m }]",
            ),
        ),
        (
            "mirror steps that fall, and one after users",
            rollout(
                "steps: [{ mirror: 10%, hold: 1m }, { mirror: 5%, hold: 1m }, { share: 1%, hold: 1m }, { mirror: 10%, hold: 1m }]",
            ),
        ),
        (
            "mirror steps beside a mirror for another version",
            format!(
                "{}    mirror: {{ version: v3 }}\n    rollout: {{ candidate: v2, steps: [{{ mirror: 1%, hold: 1m }}] }}\n",
                with_versions(&["name: v1", "name: v2", "name: v3"])
            ),
        ),
        (
            "analysis",
            rollout(
                "steps: [{ share: 1%, hold: 1m }], analysis: { confidence: 100%, on_no_evidence: wait, min_requests: 0, max_hold: 0s }",
            ),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn checks_and_notifications() {
    let rollout = |text: &str| with_service(&format!("    rollout: {{ {text} }}\n"));
    let check = |text: &str| {
        rollout(&format!(
            "steps: [{{ share: 1%, hold: 1m }}], analysis: {{ checks: [{{ {text} }}] }}"
        ))
    };
    let judged = |metrics: &str, checks: &str| {
        rollout(&format!(
            "steps: [{{ share: 1%, hold: 1m }}], analysis: {{ {metrics}, checks: [{checks}] }}"
        ))
    };
    let cases = [
        ("a check without condition", check("metric: error_rate")),
        (
            "a comparison and a limit",
            check("metric: error_rate, compared_to: stable, tolerance: 1%, max: 1%"),
        ),
        (
            "a comparison without tolerance",
            check("metric: error_rate, compared_to: canary, on_fail: explode"),
        ),
        ("a misspelt metric", check("metric: latency_99, max: 1s")),
        ("a quantile that is none", check("metric: latency_p100, max: 1s")),
        ("statuses without copies", check("metric: mismatch_rate, max: 1%")),
        (
            "statuses compared otherwise",
            rollout(
                "steps: [{ mirror: 1%, hold: 1m }], analysis: { checks: [{ metric: mismatch_rate, compared_to: stable, tolerance: 1% }] }",
            ),
        ),
        ("limits of another unit", check("metric: latency_p99, max: 1%")),
        (
            "a rate that is no percentage",
            check("metric: error_rate, max: 0.02, min: 1%"),
        ),
        (
            "a query under a name of ours",
            check("metric: error_rate, max: 1%, prometheus: { url: \"127.0.0.1:9090\", query: \"\" }"),
        ),
        (
            "a query compared",
            check(
                "metric: conversion, compared_to: stable, tolerance: 1%, prometheus: { url: \"http://h\", query: q }",
            ),
        ),
        (
            "metrics",
            judged(
                "metrics: { error_rate: { from_header: a, worse: lower }, a b: { from_header: \"a b\", worse: low }, orders: {} }",
                "",
            ),
        ),
        (
            "too many metrics",
            judged(
                &format!(
                    "metrics: {{ {} }}",
                    (0..9)
                        .map(|n| format!("m{n}: {{ from_header: a, worse: lower }}"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
                "",
            ),
        ),
        (
            "checks of metrics",
            judged(
                "metrics: { orders: { from_header: x-orders, worse: lower }, broken: {} }",
                "{ metric: order, min: 1 }, { metric: orders, compared_to: stable, tolerance: 100% }, { metric: broken, max: 1 }, \
                 { metric: orders, min: many, prometheus: { url: \"http://h\", query: q } }",
            ),
        ),
        (
            "a query with a variable that is none, too often",
            check(
                "metric: m, max: 1, prometheus: { url: \"http://h\", query: \"a{b=\\\"{{ canidate }}\\\"}\", every: 999ms }",
            ),
        ),
        (
            "a query with open braces",
            check("metric: m, max: 1, prometheus: { url: \"http://h\", query: \"a {{service\" }"),
        ),
        (
            "addresses with secrets",
            rollout(
                "steps: [{ share: 1%, hold: 1m }], notify: [{ slack: \"hooks.slack.example/services/secret\" }], gates: [{ before: start, webhook: \"ftp://u:secret@h/secret\" }]",
            ),
        ),
        (
            "notifications",
            rollout(
                "steps: [{ share: 1%, hold: 1m }], notify: [{}, { slack: a, webhook: \"http://b\" }, { webhook: \"http://b\", events: [promoted] }], gates: [{ before: promotion }], guard: { max_failures: 0 }",
            ),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn freezes_and_trains() {
    let rollout = |text: &str| {
        with_service(&format!(
            "    rollout: {{ steps: [{{ share: 1%, hold: 1m }}], {text} }}\n"
        ))
    };
    // Services `a`, `b` and `c` with these rollouts, of which the last has none.
    let three = |a: &str, b: &str| {
        let service = |name: &str, rollout: &str| {
            format!(
                "- {{name: {name}, routes: [{{host: {name}.example}}], versions: [{{name: v1, pool: {{endpoints: [\"h:1\"]}}}}, \
                 {{name: v2, pool: {{endpoints: [\"h:2\"]}}}}]{rollout}}}\n"
            )
        };
        let rolled_out = |text: &str| format!(", rollout: {{steps: [{{share: 1%, hold: 1m}}], {text}}}");
        format!(
            "{LISTENERS}services:\n{}{}{}",
            service("a", &rolled_out(a)),
            service("b", &rolled_out(b)),
            service("c", "")
        )
    };
    let many: Vec<String> = (0..65)
        .map(|minute| format!("\"00:{:02}-12:00 UTC\"", minute % 60))
        .collect();
    let cases = [
        (
            "windows",
            rollout(
                "freeze: [\"Fri 16:00-Mon 08:00\", \"Fri 16:00-Mon 08:00 Berlin\", weekend, \"00:00-24:00 UTC\", 5]",
            ),
        ),
        ("too many windows", rollout(&format!("freeze: [{}]", many.join(", ")))),
        ("a train of one", rollout("with: [shop]")),
        ("a train with nobody", three("with: [bb, c, a]", "")),
        ("a service twice", three("with: [b, b]", "")),
        ("two trains", three("with: [b]", "with: [a]")),
        (
            "other lengths",
            three("with: [b]", "steps: []").replace(
                "1m}], steps: []",
                "1m}, {share: 100%, hold: 1m}, {share: 100%, hold: 1m}]",
            ),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn header_rules() {
    let with = |text: &str| with_service(&format!("    {text}\n"));
    let cases = [
        (
            "names that have an owner",
            with(
                "request_headers: { set: { Host: a, Content-Length: \"1\", X-Forwarded-For: x, x_rollgate_version: x }, remove: \
                 [connection, via] }",
            ),
        ),
        (
            "names of answers that have an owner",
            with("response_headers: { remove: [transfer-encoding, date, x-rollgate-version] }"),
        ),
        (
            "names twice",
            with("response_headers: { add: { X-A: a }, set: { x-a: b }, remove: [X-a, x-b, x-b] }"),
        ),
        ("no names", with("request_headers: { remove: [\"\", \"a b\", \"x:\"] }")),
        (
            "values",
            with(
                "request_headers: { set: { a: \"x\\ny\", b: \" x\", c: \"é\", d: \"${client-ip}\", e: \"${\", f: \"${x\" } }",
            ),
        ),
        (
            "who the client is, beside what it says itself",
            with(
                "request_headers: { add: { a: \"${client_cert_subject_cn}\", b: \"x ${client_cert_verify}\", c: \"${host}\" } }",
            ),
        ),
        (
            "another host and path",
            with("rewrite: { host: \"http://a\", strip_prefix: a, add_prefix: / }"),
        ),
        (
            "of a version",
            with_versions(&[
                "name: v1, request_headers: { add: { te: a } }, rewrite: { host: \"a b\", stripprefix: /a }",
            ]),
        ),
        (
            "too many",
            with(&format!(
                "request_headers: {{ remove: [{}] }}",
                (0..33).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(", ")
            )),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn routes_of_the_proxy_itself() {
    let with = |text: &str| with_top(&format!("routes: [{text}]\n"));
    let cases = [
        ("no answer", with("{ path: /a }")),
        ("two answers", with("{ path: /a, redirect: { path: /b }, respond: {} }")),
        (
            "nowhere else",
            with("{ path: /a, redirect: {} }, { path: /b, redirect: { status: 301 } }"),
        ),
        (
            "statuses",
            with("{ path: /a, redirect: { status: 303, path: /b } }, { path: /b, respond: { status: 101 } }"),
        ),
        (
            "places",
            with(
                "{ path: /a, redirect: { host: \"http://b\", path: b } }, { path: /b, redirect: { path_prefix: /c } }, { \
                 path_prefix: /c, redirect: { path: /d, path_prefix: /e } }, { path: /d, redirect: { scheme: ftp, port: 0 } }",
            ),
        ),
        (
            "fixed answers",
            with(
                "{ path: /a, respond: { status: 204, body: x } }, { path: /b, respond: { content_type: text } }, { path: /c, \
                 respond: { content_type: \"text/x\\r\\nx: y\" } }",
            ),
        ),
        (
            "one place for two routes",
            with(
                "{ path: /a, respond: {} }, { path: /a, methods: [GET], respond: {} }, { path: /a, redirect: { path: /b } }",
            ),
        ),
        ("every request", with("{ respond: {} }")),
        (
            "a service's own",
            with("{ host: h0.example, respond: {} }")
                .replace("    versions", "    routes: [{ host: h0.example }]\n    versions"),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn upgrades() {
    let with = |list: &str| with_service(&format!("    upgrades: {list}\n"));
    let cases = [
        ("no list", with("websocket")),
        (
            "what carries requests",
            with("[h2c, H2C-14, h2, tls, TLS/1.2, http/2.0, https, h3]"),
        ),
        (
            "no protocols",
            with("[\"\", a b, \"a, b\", spdy/, /1, a/b/c, \"*\", \"a\\nb\"]"),
        ),
        ("misspelt", with("[websockets, web-socket, websocket/13]")),
        ("twice", with("[websocket, tcp, WebSocket, TCP]")),
        ("too many", with(&format!("[{}a]", "a, ".repeat(16)))),
    ];
    insta::assert_snapshot!(report(&cases));
}
