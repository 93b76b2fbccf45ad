use super::*;
use crate::admin::api::{CertificateProblem, CheckStatus, ConfigStatus, EndpointStatus, StateStatus};
use crate::cli::print::plain;

fn endpoint(endpoint: &str, healthy: bool) -> EndpointStatus {
    EndpointStatus {
        endpoint: endpoint.to_owned(),
        healthy,
        in_flight: 2,
    }
}

/// A version with traffic.
fn version(name: &str, role: &str, weight: u32, endpoints: Vec<EndpointStatus>) -> VersionStatus {
    VersionStatus {
        name: name.to_owned(),
        role: role.to_owned(),
        weight,
        share_target: f64::from(weight),
        share_observed: Some(f64::from(weight) + 0.0371),
        rate: 1204.25,
        error_rate: Some(0.0),
        p50_ms: Some(3.25),
        p99_ms: Some(120.5),
        in_flight: 4,
        requests_total: 1_234_567,
        failures_total: 12,
        endpoints,
    }
}

fn idle(version: VersionStatus) -> VersionStatus {
    VersionStatus {
        share_observed: None,
        rate: 0.0,
        error_rate: None,
        p50_ms: None,
        p99_ms: None,
        in_flight: 0,
        ..version
    }
}

fn service(name: &str, versions: Vec<VersionStatus>) -> ServiceStatus {
    ServiceStatus {
        name: name.to_owned(),
        killed: false,
        kill: None,
        weights_source: "file".to_owned(),
        epoch: 3,
        versions,
        rollout: None,
    }
}

fn kill(source: &str, who: Option<&str>) -> Kill {
    Kill {
        source: source.to_owned(),
        who: who.map(str::to_owned),
        since: who.map(|_| "2026-07-01T09:00:00.000Z".to_owned()),
        reason: who.map(|_| "carts are empty\u{1b}[2J".to_owned()),
    }
}

/// Two services, and nothing to warn of.
fn well() -> Status {
    let checkout = vec![
        version(
            "v1",
            "stable",
            95,
            vec![endpoint("127.0.0.1:9001", true), endpoint("[::1]:9002", true)],
        ),
        version("v2", "canary", 5, vec![endpoint("127.0.0.1:9003", true)]),
    ];
    let search = vec![idle(version("blue", "stable", 100, vec![endpoint("search:80", true)]))];
    Status {
        version: "0.1.0".to_owned(),
        pid: 4242,
        uptime_s: 273_600,
        generation: 12,
        ready: true,
        draining: false,
        kill: None,
        config: ConfigStatus {
            file: "/etc/rollgate/rollgate.yaml".to_owned(),
            hash: "ab".repeat(32),
            last_reload_successful: true,
            error: None,
            last_success: "2026-07-01T08:00:00.000Z".to_owned(),
            restart_required: Vec::new(),
        },
        state: StateStatus {
            directory: "/var/lib/rollgate".to_owned(),
            durable: true,
            error: None,
        },
        certificate_problems: Vec::new(),
        services: vec![service("checkout", checkout), service("search", search)],
    }
}

/// The same, with everything wrong at once.
fn ill() -> Status {
    let mut status = well();
    status.draining = true;
    status.kill = Some(kill("file", None));
    status.config.last_reload_successful = false;
    status.config.error = Some("rollgate.yaml:7:3: services[0]: unknown key `nmae`\nrollgate.yaml:9:1: x".to_owned());
    status.config.restart_required = vec!["threads".to_owned(), "admin.socket".to_owned()];
    status.state.durable = false;
    status.state.error = Some("No space left on device (os error 28)".to_owned());
    status.certificate_problems = vec![CertificateProblem {
        file: "/etc/rollgate/shop.pem".to_owned(),
        names: vec!["shop.example.com".to_owned()],
        expires: Some("2026-06-30T00:00:00.000Z".to_owned()),
        problem: "it, or one of its chain, expired on 2026-06-30T00:00:00.000Z".to_owned(),
    }];
    let checkout = &mut status.services[0];
    checkout.killed = true;
    checkout.kill = Some(kill("admin", Some("ada (uid 1000)")));
    checkout.versions[0].error_rate = Some(0.001);
    checkout.versions[0].endpoints[1].healthy = false;
    checkout.versions[1].error_rate = Some(37.5);
    checkout.versions[1].endpoints[0].healthy = false;
    status.services[1].kill = Some(kill("both", Some("token")));
    status
}

#[test]
fn services_and_signals() {
    insta::assert_snapshot!("all", plain(&rendered(&well())));
}

#[test]
fn what_is_wrong_stands_below() {
    insta::assert_snapshot!("ill", plain(&rendered(&ill())));
    let mut status = well();
    status.config.last_reload_successful = false;
    status.ready = false;
    let text = plain(&rendered(&status));
    assert!(
        text.contains("starting") && text.contains("the last reload failed"),
        "{text}"
    );
}

#[test]
fn one_service_has_its_endpoints_and_totals() {
    let mut status = ill();
    status.services.truncate(1);
    status.services[0].rollout = Some(RolloutStatus {
        candidate: "v2".to_owned(),
        phase: "progressing".to_owned(),
        reason: None,
        cause: None,
        summary: "progressing, at step 2 of 5 (10 %)".to_owned(),
        step: 2,
        steps: 5,
        share: 10.0,
        segments: Vec::new(),
        mirror: 0.0,
        elapsed_s: 61.5,
        hold_s: 600.0,
        waits_for: "hold".to_owned(),
        obstacle: None,
        attempt: 1,
        failures: 3,
        max_failures: Some(50),
        recorded_weights: None,
        checks: vec![CheckStatus {
            metric: "error_rate".to_owned(),
            verdict: "no_evidence".to_owned(),
            reason: "v2 fails 1.0 % (3/300) against 0.5 % (14/2700): doubtful, evidence 3 to 1".to_owned(),
            on_fail: "rollback".to_owned(),
            evidence: Some(3.0),
            needed: Some(100.0),
        }],
        plan: Vec::new(),
    });
    insta::assert_snapshot!("service", plain(&rendered_service(&status)));
}

#[test]
fn what_needs_attention_has_a_colour_and_nothing_else_has() {
    let coloured = |status: &Status| {
        let text = rendered(status);
        [("red", "31"), ("yellow", "33")].map(|(_, code)| text.matches(&format!("\u{1b}[{code}m")).count())
    };
    assert_eq!(coloured(&well()), [0, 0]);
    // Killed, on two lines; a version without a healthy endpoint.
    assert_eq!(coloured(&ill())[0], 3);
    assert!(coloured(&ill())[1] > 0);
    // What the proxy sends cannot move the cursor.
    assert!(!rendered(&ill()).contains("\u{1b}[2J"));
}
