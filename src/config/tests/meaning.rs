//! What a valid file means.

use super::*;
use crate::balancing::Rate;
use crate::config::snapshot::{
    Balance, Host, KeyInFlight, LogPath, Probe, RateLimit, ServiceLimits, TlsVersion, VersionLimits,
};
use crate::config::{diff, reference};
use crate::http1::{FieldEdits, Piece, Rewrite};
use crate::routing::{
    Condition, Fallback, HashName, HostPattern, KeySource, PathPattern, Role, SegmentId, Target, VersionId,
};
use std::time::Duration;

#[test]
fn the_smallest_file_has_a_default_for_everything_else() {
    let snapshot = valid(&with_service(""));
    assert_eq!(snapshot.threads, None);
    assert_eq!(snapshot.access_log, None);
    assert_eq!((snapshot.forwarded, snapshot.killed), (false, false));
    assert_eq!(snapshot.state_dir, Path::new("/etc/rollgate/state"));
    assert_eq!(snapshot.admin.address, None);
    assert_eq!(snapshot.admin.socket_mode, 0o600);
    let limits = &snapshot.limits;
    assert_eq!(
        (limits.max_connections, limits.max_body, limits.max_head),
        (50_000, 64 << 20, 32 << 10)
    );
    assert_eq!(limits.header_timeout, Duration::from_secs(10));
    assert_eq!(limits.request_timeout, Duration::from_secs(3600));
    assert_eq!(limits.keepalive_timeout, Duration::from_secs(75));
    assert_eq!(limits.drain_timeout, Duration::from_secs(30));
    assert_eq!(limits.drain_delay, Duration::ZERO);
    assert_eq!(limits.upgrade_timeout, Duration::from_secs(30));
    let service = &snapshot.policy.services[0];
    assert_eq!(service.stable, VersionId(0));
    assert_eq!(
        (service.versions[0].role, service.versions[1].role),
        (Role::Stable, Role::Canary)
    );
    assert_eq!(service.fallback, Fallback::Stable);
    assert!(service.affinity.is_none() && service.rules.is_empty());
    assert_eq!(snapshot.services[0].split.weights(), [100, 0]);
    assert!(!snapshot.services[0].expose_version && !snapshot.services[0].killed);
    let pool = &snapshot.services[0].pools[1];
    assert_eq!(pool.balance, Balance::PowerOfTwo);
    assert_eq!((pool.endpoints[0].port, pool.endpoints[0].weight), (9002, 1));
    assert_eq!(&*pool.endpoints[0].label, "127.0.0.1:9002");
    let check = &pool.health_check;
    assert_eq!(
        (&check.probe, check.healthy_after, check.unhealthy_after),
        (&Probe::Connection, 1, 3)
    );
    assert_eq!(
        (check.every, check.timeout),
        (Duration::from_secs(2), Duration::from_secs(1))
    );
    assert_eq!(pool.ejection.consecutive_failures, 5);
    assert_eq!(
        (pool.ejection.base, pool.ejection.at_most),
        (Duration::from_secs(5), 0.5)
    );
    assert_eq!(pool.timeouts.connect, Duration::from_secs(1));
    assert_eq!(pool.timeouts.first_byte, Duration::from_secs(30));
    assert_eq!(pool.timeouts.idle, Duration::from_secs(60));
    let routes = snapshot.policy.routes.routes();
    assert_eq!(routes.len(), 1);
    assert_eq!(
        (&routes[0].host, &routes[0].path),
        (&HostPattern::Any, &PathPattern::Prefix("/".into()))
    );
    assert!(snapshot.unsupported.is_empty() && snapshot.files.is_empty());
}

#[test]
fn the_full_example_means_what_it_says() {
    let snapshot = valid(FULL);
    assert_eq!(snapshot.listeners.len(), 2);
    assert_eq!(
        snapshot.access_log.as_ref().map(|log| (&log.path, log.sample)),
        Some((&LogPath::Stdout, 1.0))
    );
    assert_eq!(snapshot.limits.request_timeout, Duration::from_secs(60));
    assert_eq!(snapshot.trusted_proxies[0].to_string(), "10.0.0.0/8");
    assert_eq!(snapshot.services[0].kill_drain, Some(Duration::from_secs(5)));
    let names: Vec<&str> = snapshot.policy.segments.iter().map(|segment| &*segment.name).collect();
    assert_eq!(names, ["staff", "japan", "old", "office", "beta", "ops"]);
    let service = &snapshot.policy.services[0];
    let affinity = service.affinity.as_ref().unwrap();
    let key = [
        KeySource::Header("x-user-id".into()),
        KeySource::Cookie("uid".into()),
        KeySource::ClientIp,
    ];
    assert_eq!(*affinity.key, key);
    assert_eq!(
        (&*affinity.salt, affinity.hash, affinity.keep),
        ("checkout", HashName::Rollgate1, true)
    );
    let cookie = affinity.cookie.as_ref().unwrap();
    assert_eq!((&*cookie.name, cookie.ttl_s), ("rollgate", 2_592_000));
    assert_eq!(service.rules[0].from, Some(SegmentId(3)));
    assert!(matches!(service.rules[1].when, Condition::Segment(SegmentId(4))));
    assert!(matches!(&service.rules[2].target, Target::Split(split) if split.weights() == [50, 50]));
    let mirror = snapshot.services[0].mirror.as_ref().unwrap();
    assert_eq!((mirror.version, mirror.share), (VersionId(1), 10_000));
    assert_eq!(*mirror.methods, ["GET".into(), "HEAD".into()]);
    assert_eq!(snapshot.services[0].split.weights(), [95, 5]);
    let pool = &snapshot.services[0].pools[0];
    assert_eq!((pool.balance, pool.endpoints[1].weight), (Balance::LeastRequests, 2));
    assert_eq!(pool.health_check.probe, Probe::Get("/healthz".into()));
    let routes = snapshot.policy.routes.routes();
    assert_eq!(routes[1].host, HostPattern::Wildcard("shop.example.com".into()));
    assert_eq!(routes[1].methods.len(), 2);
    let refusing: Vec<&str> = snapshot
        .unsupported
        .iter()
        .filter(|warning| warning.refuses_to_run)
        .map(|warning| warning.path.as_str())
        .collect();
    assert!(refusing.is_empty(), "{refusing:?}");
    let tls = snapshot.listeners[1].tls.as_ref().unwrap();
    assert_eq!(
        tls.certificates[0].key.display().to_string(),
        "/etc/rollgate/certs/shop.key"
    );
    let clients = tls.clients.as_ref().unwrap();
    assert!(clients.ca.ends_with("certs/clients.pem") && !clients.required);
    assert_eq!(tls.min_version, TlsVersion::V1_2);
    assert!(snapshot.listeners[0].tls.is_none());
    let files: Vec<String> = snapshot
        .files
        .iter()
        .map(|named| named.file.display().to_string())
        .collect();
    assert_eq!(
        files,
        [
            "/etc/rollgate/certs/shop.pem",
            "/etc/rollgate/certs/shop.key",
            "/etc/rollgate/certs/clients.pem",
            "/etc/rollgate/admin.token"
        ]
    );
}

#[test]
fn names_of_the_admin_address() {
    let text = with_top("admin: { address: 127.0.0.1:1, hosts: [Admin.Example.com, \"10.0.0.1:9900\", \"[::1]\"] }\n");
    let hosts = valid(&text).admin.hosts;
    let hosts: Vec<_> = hosts.iter().map(|host| (&*host.name, host.port)).collect();
    assert_eq!(
        hosts,
        [("admin.example.com", None), ("10.0.0.1", Some(9900)), ("[::1]", None)]
    );
}

#[test]
fn tls_of_listeners_and_pools() {
    let listener = |keys: &str| valid(&with_listener(keys)).listeners[0].clone();
    let certificates = "certificates: [{ cert: a.pem, key: /b.key }]";
    let plain = listener(&format!("tls: {{ {certificates} }}"));
    assert_eq!((plain.hsts, plain.redirect_to_https), (None, None));
    let full = listener(&format!(
        "tls: {{ {certificates}, client_ca: ca.pem, client_auth: optional, min_version: 1.3, hsts: {{ max_age: 1h, \
         include_subdomains: true }} }}"
    ));
    let tls = full.tls.unwrap();
    let clients = tls.clients.unwrap();
    assert_eq!(
        (clients.ca.display().to_string(), clients.required),
        ("/etc/rollgate/ca.pem".to_owned(), false)
    );
    assert_eq!(tls.min_version, TlsVersion::V1_3);
    assert_eq!(full.hsts.as_deref(), Some("max-age=3600; includeSubDomains"));
    assert_eq!(listener("redirect_to_https: true").redirect_to_https, Some(443));
    assert_eq!(listener("redirect_to_https: 8443").redirect_to_https, Some(8443));

    let pool = |tls: &str| {
        let text = with_pool(&format!("{{ endpoints: [\"h:1\"], tls: {tls} }}"));
        valid(&text).services[0].pools[0].tls.clone().unwrap()
    };
    let defaults = pool("{}");
    assert!(defaults.verify && defaults.sni.is_none() && defaults.ca.is_none() && defaults.client.is_none());
    let full = pool("{ sni: Shop.Internal, ca: ca.pem, cert: c.pem, key: c.key }");
    assert_eq!(full.sni.as_deref(), Some("shop.internal"));
    assert_eq!(full.client.unwrap().key.display().to_string(), "/etc/rollgate/c.key");
    assert!(!pool("{ verify: false }").verify);
}

#[test]
fn absent_weights_and_roles() {
    let split = |versions: &[&str]| {
        let snapshot = valid(&with_versions(versions));
        let stable = snapshot.policy.services[0].stable.0;
        (stable, snapshot.services[0].split.weights().to_vec())
    };
    assert_eq!(split(&["name: a"]), (0, vec![100]));
    assert_eq!(split(&["name: a", "name: b", "name: c"]), (0, vec![100, 0, 0]));
    assert_eq!(split(&["name: a", "name: b, role: stable"]), (1, vec![0, 100]));
    assert_eq!(
        split(&["name: a, role: canary", "name: b, role: stable"]),
        (1, vec![0, 100])
    );
    assert_eq!(split(&["name: a", "name: b, weight: 5"]), (0, vec![0, 5]));
    assert_eq!(
        split(&["name: a, weight: 1000000", "name: b, weight: 0"]),
        (0, vec![1_000_000, 0])
    );
}

#[test]
fn weight_zero_and_a_service_of_one_version_are_ordinary() {
    assert!(parsed(&with_versions(&["name: a, weight: 1"])).is_ok());
    assert!(parsed(&with_versions(&["name: a, weight: 0", "name: b, weight: 1"])).is_ok());
}

#[test]
fn kept_users_need_a_cookie() {
    let affinity = |text: &str| {
        let snapshot = valid(&with_service(&format!("    affinity: {text}\n")));
        snapshot.policy.services[0].affinity.clone().unwrap()
    };
    let cookie = affinity("{ key: [client_ip], keep: true }").cookie.unwrap();
    assert_eq!((&*cookie.name, cookie.ttl_s), ("rollgate", 30 * 86_400));
    assert_eq!(affinity("{ key: [client_ip] }").cookie, None);
    let by_cookie = affinity("{ cookie: {}, salt: x, hash: flagd-2 }");
    assert!(by_cookie.key.is_empty() && by_cookie.cookie.is_some());
    assert_eq!((&*by_cookie.salt, by_cookie.hash), ("x", HashName::Flagd2));
    assert_eq!(&*affinity("{ key: [{ header: X-User }] }").salt, "shop");
    assert_eq!(
        affinity("{ key: [{ header: X-User }] }").key[0],
        KeySource::Header("x-user".into())
    );
}

#[test]
fn expose_version_is_inherited_and_overruled() {
    let exposed = |text: &str| valid(text).services[0].expose_version;
    assert!(exposed(&with_top("expose_version: true\n")));
    assert!(!exposed(&with_service(
        "    expose_version: false\nexpose_version: true\n"
    )));
    assert!(exposed(&with_service("    expose_version: true\n")));
}

#[test]
fn kill_switches_are_read() {
    let snapshot = valid(&with_service("    kill: true\nkill: true\n"));
    assert!(snapshot.killed && snapshot.services[0].killed);
    let drains = |service: &str, top: &str| {
        let snapshot = valid(&with_service(&format!("{service}{top}")));
        (
            snapshot.killed,
            snapshot.services[0].killed,
            snapshot.services[0].kill_drain,
        )
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(drains("", ""), (false, false, seconds(30)));
    assert_eq!(
        drains("    kill: true\n", "kill: { drain: 5s }\n"),
        (false, true, seconds(5))
    );
    assert_eq!(
        drains("    kill: { drain: 0s }\n", "kill: { on: true, drain: never }\n"),
        (true, false, seconds(0))
    );
    assert_eq!(
        drains("    kill: { on: true, drain: never }\n", "kill: false\n"),
        (false, true, None)
    );
    assert_eq!(drains("", "kill: { drain: never }\n"), (false, false, None));
}

#[test]
fn access_log_off_and_to_a_file() {
    assert_eq!(valid(&with_top("access_log: off\n")).access_log, None);
    let log = valid(&with_top("access_log: { path: log/access.json, sample: 0.1% }\n"))
        .access_log
        .unwrap();
    assert_eq!(log.path, LogPath::File("/etc/rollgate/log/access.json".into()));
    assert!((log.sample - 0.001).abs() < 1e-12);
    assert_eq!(
        valid(&with_top("access_log: { path: stderr }\n"))
            .access_log
            .map(|log| log.path),
        Some(LogPath::Stderr)
    );
}

#[test]
fn bare_addresses_are_networks_of_one() {
    let snapshot = valid(&with_top("trusted_proxies: [10.1.2.3, \"::1\", 10.9.9.9/8]\n"));
    let shown: Vec<String> = snapshot.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.1.2.3/32", "::1/128", "10.0.0.0/8"]);
}

#[test]
fn names_are_resolved_later_and_labels_kept_as_written() {
    let snapshot = valid(&with_pool("{ endpoints: [\"App.Internal:80\", \"[::1]:80\"] }"));
    let endpoints = &snapshot.services[0].pools[0].endpoints;
    assert_eq!(
        (&*endpoints[0].label, &endpoints[0].host),
        ("App.Internal:80", &Host::Name("app.internal".into()))
    );
    assert_eq!(&*endpoints[1].label, "[::1]:80");
}

#[test]
fn routes_that_differ_in_any_part_do_not_overlap() {
    let routes = "[{ host: a.b }, { host: \"*.a.b\" }, {}, { path: / }, { path_prefix: /x }, { path: /x }, { path: /x, methods: \
                  [GET] }, { path: /x, methods: [POST] }]";
    let snapshot = valid(&with_service(&format!("    routes: {routes}\n")));
    assert_eq!(snapshot.policy.routes.routes().len(), 8);
}

#[test]
fn routes_may_share_methods_as_long_as_each_has_one_of_its_own() {
    let routes = "[{ path: /x, methods: [GET] }, { path: /x, methods: [GET, POST] }]";
    let snapshot = valid(&with_service(&format!("    routes: {routes}\n")));
    assert_eq!(snapshot.policy.routes.routes().len(), 2);
}

#[test]
fn port_zero_may_be_asked_for_twice() {
    let text = with_service("").replace("127.0.0.1:8080\n", "127.0.0.1:0\n  - address: 127.0.0.1:0\n");
    assert_eq!(valid(&text).listeners.len(), 2);
}

#[test]
fn words_of_yaml_1_1_are_texts() {
    let snapshot = valid(&with_service(
        "    rules: [{ name: no, version: v2, when: { header: x, in: [NO, on, off, yes, 1, 1.0, \"null\"] } }]\n",
    ));
    let Condition::Test { operator, .. } = &snapshot.policy.services[0].rules[0].when else {
        panic!()
    };
    assert!(matches!(operator, crate::routing::Operator::In(values)
        if values.iter().map(|v| &**v).eq(["NO", "on", "off", "yes", "1", "1.0", "null"])));
}

#[test]
fn aliases_stand_for_what_they_name() {
    let snapshot = valid(&with_service(
        "    rules:\n      - { name: a, version: v2, when: &staff { header: x, exists: true } }\n      - { name: b, version: v1, when: \
         *staff }\n",
    ));
    assert_eq!(snapshot.policy.services[0].rules.len(), 2);
}

#[test]
fn every_default_of_the_reference_is_right_when_written() {
    let mut checked = 0;
    for (place, key, default) in reference::defaults() {
        let default = if default.contains('%') || default.contains('-') {
            format!("{default:?}")
        } else {
            default.to_owned()
        };
        let pair = format!(
            "{key}: {}",
            if default.contains('[') {
                default.trim_matches('"')
            } else {
                &default
            }
        );
        let rollout = |inner: &str| {
            with_service(&format!(
                "    rollout: {{ steps: [{{ share: 1%, hold: 1m }}], {inner} }}\n"
            ))
        };
        let text = match place.as_str() {
            "" => with_top(&format!("{pair}\n")),
            "listeners[]" => with_listener(&pair),
            "listeners[].tls" => with_listener(&format!("tls: {{ certificates: [{{ cert: a, key: b }}], {pair} }}")),
            "listeners[].tls.hsts" => with_listener(&format!(
                "tls: {{ certificates: [{{ cert: a, key: b }}], hsts: {{ {pair} }} }}"
            )),
            "access_log" | "limits" | "admin" | "kill" => with_top(&format!("{place}: {{ {pair} }}\n")),
            "tracing" => with_top(&format!("tracing: {{ otlp: \"http://h\", {pair} }}\n")),
            "routes[].redirect" => with_top(&format!("routes: [{{ path: /a, redirect: {{ path: /b, {pair} }} }}]\n")),
            "routes[].respond" => with_top(&format!("routes: [{{ path: /a, respond: {{ {pair} }} }}]\n")),
            "services[].routes[]" => with_service(&format!("    routes: [{{ path: /a, {pair} }}]\n")),
            "services[].rate_limits[]" => with_service(&format!("    rate_limits: [{{ requests: 1, {pair} }}]\n")),
            "services[].max_in_flight_per_key[]" => with_service(&format!(
                "    max_in_flight_per_key: [{{ requests: 1, key: [client_ip], {pair} }}]\n"
            )),
            "services[].versions[].rate_limits[]" => {
                with_versions(&[&format!("name: v1, rate_limits: [{{ requests: 1, {pair} }}]")])
            }
            "services[]" => with_service(&format!("    {pair}\n")),
            "services[].kill" => with_service(&format!("    kill: {{ {pair} }}\n")),
            "services[].versions[].pool" => with_pool(&format!("{{ endpoints: [\"h:1\"], {pair} }}")),
            "services[].versions[].pool.endpoints[]" => {
                with_pool(&format!("{{ endpoints: [{{ address: \"h:1\", {pair} }}] }}"))
            }
            "services[].versions[].pool.tls" => with_pool(&format!("{{ endpoints: [\"h:1\"], tls: {{ {pair} }} }}")),
            "services[].affinity" if key == "key" || key == "keep" => continue,
            "services[].affinity" => with_service(&format!("    affinity: {{ cookie: {{}}, {pair} }}\n")),
            "services[].affinity.cookie" => with_service(&format!("    affinity: {{ cookie: {{ {pair} }} }}\n")),
            "services[].mirror" => with_service(&format!("    mirror: {{ version: v2, {pair} }}\n")),
            "services[].rescue" => with_service(&format!("    rescue: {{ {pair} }}\n")),
            "services[].rollout" => rollout(&pair),
            "services[].rollout.steps[]" => with_service(&format!(
                "    rollout: {{ steps: [{{ share: 1%, hold: 1m, {pair} }}] }}\n"
            )),
            "services[].rollout.analysis" => rollout(&format!("analysis: {{ {pair} }}")),
            "services[].rollout.analysis.checks[]" => rollout(&format!(
                "analysis: {{ checks: [{{ metric: error_rate, max: 1%, {pair} }}] }}"
            )),
            "services[].rollout.analysis.checks[].prometheus" => rollout(&format!(
                "analysis: {{ checks: [{{ metric: m, max: 1, prometheus: {{ url: \"http://h\", query: q, {pair} }} }}] }}"
            )),
            "services[].versions[]" => with_versions(&[&format!("name: v1, {pair}")]),
            "services[].request_headers" | "services[].response_headers" => {
                let part = place.trim_start_matches("services[].");
                with_service(&format!("    {part}: {{ {pair} }}\n"))
            }
            "services[].versions[].request_headers" | "services[].versions[].response_headers" => {
                let part = place.trim_start_matches("services[].versions[].");
                with_versions(&[&format!("name: v1, {part}: {{ {pair} }}")])
            }
            place => match place.strip_prefix("services[].versions[].pool.") {
                Some(part) => with_pool(&format!("{{ endpoints: [\"h:1\"], {part}: {{ {pair} }} }}")),
                None => panic!("a default at a place this test does not know: {place}"),
            },
        };
        valid(&text);
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn rules_of_a_version_come_after_those_of_its_service() {
    let snapshot = valid(&with_versions(&[
        "name: v1",
        "name: v2, rewrite: { host: v2.internal }, request_headers: { set: { X-A: inner, X-New: \"${service}-${version}\" }, \
         remove: [x-b] }",
    ]).replace(
        "    versions:",
        "    rewrite: { host: inside, strip_prefix: /shop/ }\n    request_headers: { set: { x-a: outer }, add: { x-b: b, x-c: c } }\n    versions:",
    ));
    let rewrites = &snapshot.services[0].rewrites;
    let text = |text: &str| vec![Piece::Text(text.into())];
    let lines = |lines: &[(&str, &str)]| {
        lines
            .iter()
            .map(|(name, value)| ((*name).to_owned(), text(value)))
            .collect()
    };
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
    let outer = Rewrite {
        request: FieldEdits::new(names(&["x-a"]), lines(&[("x-a", "outer"), ("x-b", "b"), ("x-c", "c")])),
        host: Some("inside".into()),
        strip_prefix: Some("/shop".into()),
        ..Rewrite::default()
    };
    assert_eq!(rewrites[0].as_ref(), Some(&outer));
    let inner = Rewrite {
        request: FieldEdits::new(
            names(&["x-a", "x-b", "x-new"]),
            lines(&[("x-c", "c"), ("X-A", "inner"), ("X-New", "shop-v2")]),
        ),
        host: Some("v2.internal".into()),
        ..outer
    };
    assert_eq!(rewrites[1].as_ref(), Some(&inner));
    let plain = valid(&with_service("    request_headers: {}\n    rewrite: {}\n"));
    assert_eq!(*plain.services[0].rewrites, [None, None], "no rules cost nothing");
}

#[test]
fn timeouts_of_a_route_stand_beside_it_in_the_table() {
    let text = |timeouts: &str| {
        with_service(&format!(
            "    routes: [{{ path: /a }}, {{ path: /b, timeouts: {{ {timeouts} }} }}]\nroutes: [{{ path: /c, respond: {{}} }}]\n"
        ))
        .replace("9002\"]", "9002\"], timeouts: { idle: 7s }")
    };
    let snapshot = valid(&text("request: 2s, first_byte: 1s"));
    let at = snapshot
        .policy
        .routes
        .routes()
        .iter()
        .position(|route| route.path == PathPattern::Exact("/b".into()));
    let timeouts = &snapshot.route_timeouts;
    assert_eq!(timeouts.iter().flatten().count(), 1);
    let of_route = timeouts[at.unwrap()].as_ref().unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(of_route.request, Some(seconds(2)));
    let attempts = of_route.attempts.iter().map(|t| (t.connect, t.first_byte, t.idle));
    let expected = [
        (seconds(1), seconds(1), seconds(60)),
        (seconds(1), seconds(1), seconds(7)),
    ];
    assert!(attempts.eq(expected), "{of_route:?}");
    assert!(
        valid(&text("")).route_timeouts.is_empty(),
        "nothing is kept where no route says anything"
    );
    let changed = diff(&snapshot, &valid(&text("request: 3s, first_byte: 1s")));
    assert!(
        changed.services_changed[0].routing && !changed.services_changed[0].pools,
        "{changed:?}"
    );
}

#[test]
fn limits_say_how_much_a_service_and_a_version_take() {
    let text = with_versions(&["name: v1", "name: v2, max_in_flight: 20, rate_limits: [{ requests: 100 }]"]).replace(
        "    versions:",
        "    max_in_flight: 500\n    rate_limits: [{ requests: 100 }, { requests: 6, per: 1m, burst: 2, key: [client_ip], max_keys: 9 \
         }]\n    max_in_flight_per_key: [{ requests: 7, key: [{ header: X-Api-Key }, client_ip] }]\n    versions:",
    );
    let snapshot = valid(&text);
    let limits = &snapshot.services[0].limits;
    assert_eq!(
        (limits.max_in_flight, limits.of_version(0), limits.of_version(2)),
        (Some(500), Some(&VersionLimits::default()), None)
    );
    let of_key = KeyInFlight {
        most: 7,
        key: [KeySource::Header("x-api-key".into()), KeySource::ClientIp].into(),
        max_keys: 16_384,
    };
    assert_eq!(*limits.keys_in_flight, [of_key]);
    let whole = RateLimit {
        rate: Rate::new(100, Duration::from_secs(1), 100),
        key: Box::default(),
        max_keys: 16_384,
    };
    let of_client = RateLimit {
        rate: Rate::new(6, Duration::from_secs(60), 2),
        key: [KeySource::ClientIp].into(),
        max_keys: 9,
    };
    let canary = limits.of_version(1).unwrap();
    assert_eq!((&*canary.rates, canary.max_in_flight), (&[whole.clone()][..], Some(20)));
    assert_eq!(*limits.rates, [of_client, whole], "those with a key come first");
    let none = valid(&with_service(""));
    assert_eq!(none.services[0].limits, ServiceLimits::default());
}

#[test]
fn upgrades_are_to_web_socket_unless_others_are_listed() {
    let upgrades = |key: &str| valid(&with_service(key)).services[0].upgrades.clone();
    assert_eq!(*upgrades(""), ["websocket".into()]);
    assert!(upgrades("    upgrades: []\n").is_empty());
    assert_eq!(
        *upgrades("    upgrades: [WebSocket, SPDY/3.1, h2o]\n"),
        ["WebSocket".into(), "SPDY/3.1".into(), "h2o".into()]
    );
}
