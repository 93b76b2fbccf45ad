//! What `diff` says of two files.

use super::*;
use crate::config::{Diff, diff};

fn between(old: &str, new: &str) -> Diff {
    diff(&valid(old), &valid(new))
}

fn changed(old: &str, new: &str) -> (bool, bool, bool) {
    let diff = between(old, new);
    let change = &diff.services_changed[0];
    (change.weights, change.pools, change.routing)
}

#[test]
fn a_file_does_not_differ_from_itself() {
    assert!(between(FULL, FULL).is_empty());
    let commented = format!("# a comment\n{}", FULL.replace("weight: 95", "weight:   95"));
    assert!(between(FULL, &commented).is_empty());
}

#[test]
fn what_needs_a_restart_is_named() {
    let old = with_top("threads: 1\n");
    let new = with_top("threads: 2\nstate_dir: other\nadmin: { address: 127.0.0.1:1 }\naccess_log: {}\n");
    let diff = between(&old, &new.replace("8080", "8081"));
    assert_eq!(
        diff.restart_required,
        [
            "listeners[0].address",
            "threads",
            "access_log.path",
            "admin.address",
            "state_dir"
        ]
    );
    let more = with_service("").replace("8080\n", "8080\n  - address: 127.0.0.1:1\n");
    assert_eq!(between(&with_service(""), &more).restart_required, ["listeners"]);
}

#[test]
fn a_listener_is_known_by_its_address() {
    let file = |listeners: &[(u16, &str)]| {
        let line = |(port, more): &(u16, &str)| format!("  - {{ address: \"127.0.0.1:{port}\"{more} }}\n");
        let lines: String = listeners.iter().map(line).collect();
        with_service("").replace("  - address: 127.0.0.1:8080\n", &lines)
    };
    let proxied = ", proxy_protocol: true";
    let told = |old: &[(u16, &str)], new: &[(u16, &str)]| {
        let diff = between(&file(old), &file(new));
        let (restart, settings) = (diff.restart_required.join(" "), diff.settings_changed.join(" "));
        format!("{restart}; {settings}")
    };
    let old = [(1, ""), (2, "")];
    assert_eq!(told(&old, &[(2, ""), (1, "")]), "; ", "another order");
    assert_eq!(told(&old, &[(2, proxied), (1, "")]), "; listeners");
    assert_eq!(told(&old, &[(1, ""), (3, "")]), "listeners[1].address; ");
    assert_eq!(told(&old, &[(3, ""), (2, proxied)]), "listeners[0].address; listeners");
    assert_eq!(told(&old, &[(3, ""), (1, ""), (2, proxied)]), "listeners; listeners");
    assert_eq!(told(&old, &[(2, proxied)]), "listeners; listeners");
    assert_eq!(told(&[(0, ""), (0, proxied)], &[(0, ""), (0, "")]), "; listeners");
}

#[test]
fn each_kind_of_change_is_told_apart() {
    let old = with_service("");
    assert_eq!(
        changed(&old, &old.replace("name: v2,", "name: v2, weight: 5,")),
        (true, false, false)
    );
    assert_eq!(changed(&old, &old.replace("9002", "9003")), (false, true, false));
    assert_eq!(changed(&old, &with_service("    kill: true\n")), (false, false, true));
    assert_eq!(
        changed(&old, &with_service("    kill: { drain: 1s }\n")),
        (false, false, true)
    );
    assert_eq!(
        changed(&old, &with_service("    routes: [{ host: a.b }]\n")),
        (false, false, true)
    );
    assert_eq!(changed(&old, &with_service("    upgrades: []\n")), (false, false, true));
    assert_eq!(
        changed(&old, &with_service("    affinity: { cookie: {} }\n")),
        (false, false, true)
    );
    assert_eq!(
        changed(&old, &old.replace("name: v2,", "name: v3,")),
        (true, true, true)
    );
    let proxied = old.replace("8080\n", "8080\n    proxy_protocol: true\n");
    assert_eq!(between(&old, &proxied).settings_changed, ["listeners"]);
    assert!(between(&old, &proxied).restart_required.is_empty());
    let tls = |cert: &str| with_listener(&format!("tls: {{ certificates: [{{ cert: {cert}, key: k }}] }}"));
    assert_eq!(between(&old, &tls("a")).settings_changed, ["listeners"]);
    assert_eq!(between(&tls("a"), &tls("b")).settings_changed, ["listeners"]);
    let pool = |tls: &str| with_pool(&format!("{{ endpoints: [\"h:1\"], tls: {tls} }}"));
    assert_eq!(changed(&pool("{}"), &pool("{ verify: false }")), (false, true, false));
    let settings = between(&old, &with_top("limits: { max_body: 1B }\nkill: true\n"));
    assert_eq!(settings.settings_changed, ["kill", "limits"]);
    assert!(settings.services_changed.is_empty() && settings.restart_required.is_empty());
}

#[test]
fn services_come_and_go_by_name() {
    let (two, three) = (with_many_services(2), with_many_services(3));
    assert_eq!(between(&two, &three).services_added, ["s2"]);
    assert_eq!(between(&three, &two).services_removed, ["s2"]);
    // The first is gone and all move up: those that stay have not changed.
    let moved = three
        .lines()
        .filter(|line| !line.contains("s0"))
        .collect::<Vec<_>>()
        .join("\n");
    let diff = between(&three, &moved);
    assert_eq!(diff.services_removed, ["s0"]);
    assert!(diff.services_changed.is_empty() && diff.services_added.is_empty());
}

#[test]
fn conditions_are_compared_by_what_they_say() {
    let file = |segments: &str, when: &str| {
        with_service(&format!(
            "    rules: [{{ name: r, version: v2, when: {when} }}]\nsegments:\n{segments}"
        ))
    };
    let a = "  a: { header: x, matches: \"^a\" }\n";
    let b = "  b: { any: [{ segment: a }, { not: { client_ip: [10.0.0.0/8] } }] }\n";
    let old = file(&format!("{a}{b}"), "{ segment: b }");
    assert!(between(&old, &file(&format!("{b}{a}"), "{ segment: b }")).is_empty());
    let edited = between(&old, &file(&format!("{}{b}", a.replace("^a", "^b")), "{ segment: b }"));
    assert_eq!(edited.segments_changed, ["a"]);
    let removed = between(&old, &file(a, "{ segment: a }"));
    assert_eq!(removed.segments_changed, ["b"]);
    assert!(removed.services_changed[0].routing);
}

#[test]
fn an_edit_of_a_plan_is_a_change_of_its_rollout() {
    let file = |text: &str| with_service(&format!("    rollout: {{ {text} }}\n"));
    let old = file("steps: [{ share: 1%, hold: 1m }]");
    for new in [
        "steps: [{ share: 1%, hold: 2m }]",
        "steps: [{ share: 1%, hold: 1m, approval: true }]",
        "steps: [{ share: 1%, hold: 1m }], analysis: { checks: [{ metric: error_rate, max: 1% }] }",
        "steps: [{ share: 1%, hold: 1m }], start: manual",
        "steps: [{ share: 1%, hold: 1m }], guard: { max_failures: 5 }",
        "steps: [{ share: 1%, hold: 1m }], gates: [{ before: step, webhook: \"http://h/\" }]",
        "steps: [{ share: 1%, hold: 1m }], notify: [{ slack: \"http://h/\" }]",
        "steps: [{ share: 1%, hold: 1m }], freeze: [\"Sat 00:00-Mon 00:00 UTC\"]",
    ] {
        let diff = between(&old, &file(new));
        let change = &diff.services_changed[0];
        assert!(
            change.rollout && !change.weights && !change.pools && !change.routing,
            "{new}"
        );
    }
    assert!(between(&old, &with_service("")).services_changed[0].rollout);
    assert!(between(&old, &file("candidate: v2, steps: [{ share: 1%, hold: 60s }]")).is_empty());
}
