use super::*;
use crate::outcome::Outcome;
use crate::routing::Role;
use crate::shared::{Ended, NotificationEnd, VersionStats};
use crate::telemetry::fixture::{V, in_force, shared};
use std::sync::Arc;
use std::time::Duration;

const SHOP: &[V<'_>] = &[
    V("v1", Role::Stable, 95, &["127.0.0.1:9001", "app.internal:9002"]),
    V("v2", Role::Canary, 5, &["127.0.0.1:9003"]),
];
const BLOG: &[V<'_>] = &[V("only", Role::Stable, 1, &["127.0.0.1:9004"])];

fn serve(stats: &VersionStats, thread: usize, status: u16, outcome: Outcome, ms: u64) {
    stats.begin(thread);
    let ended = Ended {
        status,
        grpc_status: None,
        outcome,
        duration: Duration::from_millis(ms),
        upgraded: false,
    };
    stats.end(thread, &ended);
}

fn page(shared: &Shared) -> String {
    render(shared, &ShareWindow::default(), &Process::default()).unwrap()
}

fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

#[test]
fn a_page_shows_all_there_is() {
    let first = in_force(3, 2, &[("shop", SHOP), ("blog", BLOG)]);
    let (stable, canary) = (
        Arc::clone(&first.services[0].versions[0].stats),
        Arc::clone(&first.services[0].versions[1].stats),
    );
    let shared = shared(first, 2);
    for ms in [1, 4, 90, 70_000] {
        serve(&stable, 0, 200, Outcome::Success, ms);
    }
    serve(&stable, 1, 404, Outcome::Success, 2);
    serve(&canary, 1, 502, Outcome::Failure(FailureKind::Connect), 12);
    serve(&canary, 1, 299, Outcome::Success, 12);
    serve(&canary, 1, 999, Outcome::Failure(FailureKind::Protocol), 12);
    serve(&canary, 0, 499, Outcome::ClientAbort, 30);
    canary.begin(0);
    shared.threads[0].connection_opened();
    shared.threads[1].connection_opened();
    shared.threads[1].connection_closed();
    shared.threads[1].refused(Refusal::NoRoute);
    shared.threads[0].terminated(Termination::Ok);
    shared.threads[0].retried();
    shared.log_dropped.store(4, Ordering::Relaxed);
    shared.notifications.count(NotificationEnd::Delivered, 9);
    shared.notifications.count(NotificationEnd::Dropped, 2);
    shared.notifications.set_waiting(3);
    *shared.reload.lock().unwrap() = crate::shared::ReloadStatus {
        error: Some("services[0]: …".to_owned()),
        succeeded: 2,
        failed: 1,
        last_success_s: 1_782_907_200,
        ..Default::default()
    };
    let process = Process {
        cpu_seconds: Some(1.25),
        resident_bytes: Some(16 << 20),
        virtual_bytes: Some(64 << 20),
        open_fds: Some(12),
        max_fds: Some(1024),
        start_time_s: Some(1_782_907_100.5),
    };
    let page = render(&shared, &ShareWindow::default(), &process).unwrap();
    let build = concat!("rollgate_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    assert!(page.contains(build));
    insta::assert_snapshot!(page.replace(build, "rollgate_build_info{version=\"0.0.0\"}"));
}

#[test]
fn series_of_a_version_that_left_are_gone_and_the_others_keep_their_counts() {
    let first = in_force(1, 1, &[("shop", SHOP)]);
    let stable = Arc::clone(&first.services[0].versions[0].stats);
    let shared = shared(first, 1);
    serve(&stable, 0, 200, Outcome::Success, 1);
    assert!(page(&shared).contains("version=\"v2\""));

    let mut next = in_force(2, 1, &[("shop", &SHOP[..1])]);
    Arc::get_mut(&mut next.services).unwrap()[0].versions[0].stats = stable;
    shared.publish(next);
    let page = page(&shared);
    assert!(!page.contains("version=\"v2\""), "{page}");
    let series = r#"rollgate_requests_total{service="shop",version="v1",role="stable",code="200"}"#;
    assert_eq!(value(&page, series), Some(1.0));
    assert_eq!(value(&page, "rollgate_config_generation"), Some(2.0));
}

#[test]
fn certificates_are_told_until_when_they_are_valid() {
    let shared = shared(in_force(1, 1, &[("shop", SHOP)]), 1);
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let status = |file: &str, expires_s: Option<i64>, error: Option<&str>| crate::shared::CertificateStatus {
        file: file.into(),
        names: Box::default(),
        begins_s: expires_s.map(|_| 0),
        expires_s,
        error: error.map(Into::into),
    };
    let soon = i64::try_from(now_s).unwrap() + 1000;
    *shared.certificates.lock().unwrap() = [
        status("/a.pem", Some(soon), None),
        status("/b.pem", Some(soon - 2000), Some("broken")),
        status("/ca.pem", None, None),
    ]
    .into();
    let page = page(&shared);
    let of = |name: &str, file: &str| value(&page, &format!("rollgate_certificate_{name}{{certificate=\"{file}\"}}"));
    let left = of("expiry_seconds", "/a.pem").unwrap();
    assert!((900.0..=1000.0).contains(&left), "{left}");
    assert!(
        of("expiry_seconds", "/b.pem").unwrap() < -900.0,
        "negative once it has expired"
    );
    assert_eq!(of("expiry_seconds", "/ca.pem"), None);
    assert_eq!(of("last_load_successful", "/b.pem"), Some(0.0));
    assert_eq!(of("last_load_successful", "/ca.pem"), Some(1.0));
}

/// A scraper refuses the whole page for one series twice or one line it cannot read.
#[test]
fn each_series_is_there_once_whatever_the_names() {
    let odd: &[V<'_>] = &[
        V("a\"b\\c\nd", Role::Stable, 1, &["same:1", "same:1", "other:1"]),
        V("{x=\"y\"} 1", Role::Canary, 0, &[]),
    ];
    let first = in_force(1, 1, &[("é \u{1b}", odd)]);
    serve(&first.services[0].versions[0].stats, 0, 200, Outcome::Success, 1);
    let page = page(&shared(first, 1));
    assert!(page.contains(r#"version="a\"b\\c\nd""#), "{page}");
    let mut series = std::collections::HashSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
        assert!(series.insert(name), "twice: {name}");
    }
}

#[test]
fn a_kill_switch_moves_the_target_to_stable() {
    let target = |page: &str, version: &str| {
        let series = format!(r#"rollgate_version_share_target{{service="shop",version="{version}"}}"#);
        value(page, &series).unwrap()
    };
    let mut one = in_force(1, 1, &[("shop", SHOP), ("blog", BLOG)]);
    one.traffic.services[0].killed = true;
    let killed = page(&shared(one, 1));
    assert_eq!((target(&killed, "v1"), target(&killed, "v2")), (100.0, 0.0));
    assert_eq!(value(&killed, r#"rollgate_kill_switch{service="shop"}"#), Some(1.0));
    assert_eq!(value(&killed, r#"rollgate_kill_switch{service="blog"}"#), Some(0.0));

    let mut all = in_force(1, 1, &[("shop", SHOP), ("blog", BLOG)]);
    all.traffic.killed = true;
    let killed = page(&shared(all, 1));
    assert_eq!(target(&killed, "v2"), 0.0);
    assert_eq!(value(&killed, r#"rollgate_kill_switch{service="blog"}"#), Some(1.0));

    let free = page(&shared(in_force(1, 1, &[("shop", SHOP)]), 1));
    assert_eq!((target(&free, "v1"), target(&free, "v2")), (95.0, 5.0));
}

#[test]
fn the_share_observed_is_that_of_the_last_minute() {
    let observed = |shared: &Shared, window: &ShareWindow| {
        let page = render(shared, window, &Process::default()).unwrap();
        ["v1", "v2"].map(|version| {
            let series = format!(r#"rollgate_version_share_observed{{service="shop",version="{version}"}}"#);
            value(&page, &series)
        })
    };
    let first = in_force(1, 1, &[("shop", SHOP)]);
    let stats: Vec<_> = first.services[0]
        .versions
        .iter()
        .map(|version| Arc::clone(&version.stats))
        .collect();
    let shared = shared(first, 1);
    let mut window = ShareWindow::default();
    assert_eq!(observed(&shared, &window), [None, None]);
    (0..30).for_each(|_| serve(&stats[0], 0, 200, Outcome::Success, 1));
    (0..10).for_each(|_| serve(&stats[1], 0, 200, Outcome::Success, 1));
    assert_eq!(observed(&shared, &window), [Some(75.0), Some(25.0)], "since the start");
    (0..60).for_each(|_| window.sample(&shared.load()));
    assert_eq!(
        observed(&shared, &window),
        [Some(75.0), Some(25.0)],
        "still since the start"
    );
    window.sample(&shared.load());
    assert_eq!(observed(&shared, &window), [None, None], "a quiet minute");
    serve(&stats[1], 0, 200, Outcome::Success, 1);
    assert_eq!(observed(&shared, &window), [Some(0.0), Some(100.0)]);
}

#[test]
fn the_window_forgets_versions_that_left() {
    let shared = shared(in_force(1, 1, &[("shop", SHOP)]), 1);
    let old = Arc::downgrade(&shared.load().services[0].versions[1].stats);
    let mut window = ShareWindow::default();
    window.sample(&shared.load());
    shared.publish(in_force(2, 1, &[("shop", BLOG)]));
    assert!(old.upgrade().is_some());
    window.sample(&shared.load());
    assert!(old.upgrade().is_none());
}

#[test]
fn an_ejected_endpoint_is_not_healthy() {
    let shared = shared(in_force(1, 1, &[("shop", SHOP)]), 1);
    let pool = Arc::clone(&shared.load().services[0].versions[0].pool);
    for _ in 0..pool.spec.ejection.consecutive_failures {
        pool.failed(&pool.endpoints[0], FailureKind::Status5xx, 0);
    }
    let page = page(&shared);
    let healthy = |label: &str| {
        let series = format!(r#"rollgate_endpoint_healthy{{service="shop",version="v1",endpoint="{label}"}}"#);
        value(&page, &series)
    };
    assert_eq!(healthy("127.0.0.1:9001"), Some(0.0));
    assert_eq!(healthy("app.internal:9002"), Some(1.0));
}
