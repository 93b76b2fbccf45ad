use super::*;
use crate::config::snapshot::{self, Admin, Balance, Ejection, HealthCheck, Limits, Timeouts};
use crate::routing::{Fallback, Policy, Role, RouteTable, Service, Split, Version, VersionId};
use std::net::IpAddr;

/// One service with one stable version of these endpoints; none without endpoints.
pub(crate) fn snapshot(labels: &[&str]) -> Snapshot {
    let pool = pool(labels);
    let version = Version {
        name: "v1".into(),
        role: Role::Stable,
    };
    let service = Service {
        name: "shop".into(),
        versions: [version].into(),
        stable: VersionId(0),
        affinity: None,
        rules: Box::default(),
        fallback: Fallback::Stable,
    };
    let settings = snapshot::Service {
        split: Split::new([1]).unwrap(),
        killed: false,
        kill_drain: None,
        mirror: None,
        rescue: None,
        rollout: None,
        expose_version: false,
        limits: snapshot::ServiceLimits::default(),
        upgrades: Box::default(),
        pools: [pool].into(),
        rewrites: [None].into(),
    };
    let there = !labels.is_empty();
    Snapshot {
        listeners: Box::default(),
        threads: None,
        access_log: None,
        trusted_proxies: Box::default(),
        forwarded: false,
        via: false,
        limits: limits(),
        admin: Admin::default(),
        state_dir: "state".into(),
        policy: Policy {
            routes: RouteTable::default(),
            segments: Box::default(),
            services: there.then_some(service).into_iter().collect(),
        },
        services: there.then_some(settings).into_iter().collect(),
        route_timeouts: Box::default(),
        unsupported: Box::default(),
        killed: false,
        files: Box::default(),
    }
}

pub(crate) fn pool(labels: &[&str]) -> snapshot::Pool {
    snapshot::Pool {
        endpoints: labels.iter().map(|label| endpoint(label)).collect(),
        balance: Balance::PowerOfTwo,
        health_check: HealthCheck {
            probe: snapshot::Probe::Connection,
            every: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
        },
        ejection: Ejection {
            consecutive_failures: 5,
            base: Duration::from_secs(30),
            at_most: 0.5,
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        },
        tls: None,
        http2: false,
        send_proxy_protocol: None,
    }
}

fn limits() -> Limits {
    Limits {
        max_connections: 100,
        header_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(60),
        connection_age: Duration::from_secs(3600),
        max_streams: 128,
        max_body: 1 << 20,
        max_head: 32 << 10,
        drain_timeout: Duration::from_secs(30),
        drain_delay: Duration::ZERO,
        upgrade_timeout: Duration::from_secs(30),
    }
}

fn endpoint(label: &str) -> Endpoint {
    let (host, port) = label.rsplit_once(':').unwrap();
    let host = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => Host::Address(ip),
        Err(_) => Host::Name(host.into()),
    };
    Endpoint {
        label: label.into(),
        host,
        port: port.parse().unwrap(),
        weight: 1,
    }
}

/// A name service under the test's hand: what each name answers now (`None`: never), and how often it was asked.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<String, Entry>>>);

type Entry = (Option<Vec<&'static str>>, u32);

impl Names {
    fn set(&self, name: &str, answer: Option<&[&'static str]>) {
        self.0.lock().unwrap().entry(name.into()).or_default().0 = answer.map(<[_]>::to_vec);
    }

    fn asked(&self, name: &str) -> u32 {
        self.0.lock().unwrap().get(name).map_or(0, |entry| entry.1)
    }

    /// Running.
    fn resolver(&self) -> Arc<Resolver> {
        let names = self.clone();
        let resolver = Arc::new(Resolver::with_lookup(move |name| {
            let answer = {
                let mut names = names.0.lock().unwrap();
                let entry = names.entry(name.to_string()).or_default();
                entry.1 += 1;
                entry.0.clone()
            };
            Box::pin(async move {
                match answer.as_deref() {
                    None => std::future::pending().await,
                    Some([]) => Err(io::Error::other("NXDOMAIN")),
                    Some(found) => Ok(found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect()),
                }
            })
        }));
        run(&resolver);
        resolver
    }
}

/// Until the test ends.
fn run(resolver: &Arc<Resolver>) {
    let resolver = Arc::clone(resolver);
    tokio::spawn(async move { resolver.run().await });
}

async fn known_now(resolver: &Resolver, snapshot: &Snapshot) -> Resolved {
    resolver.resolve_all(snapshot, Duration::ZERO).await
}

fn addresses(resolved: &Resolved, label: &str) -> Vec<String> {
    resolved
        .addresses(&endpoint(label))
        .iter()
        .map(ToString::to_string)
        .collect()
}

const BOUND: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn literals_need_no_lookup_and_names_get_their_port() {
    let names = Names::default();
    names.set("app", Some(&["10.0.0.2", "10.0.0.1", "10.0.0.2"]));
    let resolver = names.resolver();
    let resolved = resolver
        .resolve_all(&snapshot(&["127.0.0.1:1", "[::1]:2", "app:80", "app:81"]), BOUND)
        .await;
    assert_eq!(addresses(&resolved, "127.0.0.1:1"), ["127.0.0.1:1"]);
    assert_eq!(addresses(&resolved, "[::1]:2"), ["[::1]:2"]);
    assert_eq!(
        addresses(&resolved, "app:80"),
        ["10.0.0.1:80", "10.0.0.2:80"],
        "sorted, once each"
    );
    assert_eq!(addresses(&resolved, "app:81"), ["10.0.0.1:81", "10.0.0.2:81"]);
    assert_eq!(addresses(&resolved, "other:81"), [""; 0]);
    assert_eq!(names.asked("app"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_is_silent_holds_nothing_up() {
    let names = Names::default();
    names.set("app", Some(&["10.0.0.1"]));
    names.set("slow", None);
    let resolver = names.resolver();
    let began = Instant::now();
    let resolved = resolver.resolve_all(&snapshot(&["slow:80", "app:80"]), BOUND).await;
    assert_eq!(began.elapsed(), BOUND);
    assert_eq!(addresses(&resolved, "app:80"), ["10.0.0.1:80"]);
    assert_eq!(addresses(&resolved, "slow:80"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_name_delays_the_change_that_brings_it_and_no_other() {
    let names = Names::default();
    names.set("slow", None);
    names.set("app", Some(&["10.0.0.1"]));
    let resolver = names.resolver();
    resolver.resolve_all(&snapshot(&["slow:80"]), BOUND).await;
    let began = Instant::now();
    for _ in 0..3 {
        resolver.resolve_all(&snapshot(&["slow:80"]), BOUND).await;
    }
    let resolved = resolver.resolve_all(&snapshot(&["slow:80", "app:80"]), BOUND).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(
        addresses(&resolved, "app:80"),
        ["10.0.0.1:80"],
        "a new name is waited for"
    );
    assert_eq!(names.asked("slow"), 1, "never twice at once");
}

#[tokio::test(start_paused = true)]
async fn what_a_publication_waited_for_is_not_told_and_what_came_too_late_is() {
    let names = Names::default();
    names.set("app", Some(&["10.0.0.1"]));
    let resolver = names.resolver();
    let mut changes = resolver.changes();
    resolver.resolve_all(&snapshot(&["app:80"]), BOUND).await;
    assert!(!changes.has_changed().unwrap());
    names.set("late", Some(&["10.0.0.2"]));
    let both = snapshot(&["app:80", "late:80"]);
    let resolved = resolver.resolve_all(&both, Duration::ZERO).await;
    assert_eq!(addresses(&resolved, "late:80"), [""; 0]);
    changes.changed().await.unwrap();
    assert_eq!(
        addresses(&known_now(&resolver, &both).await, "late:80"),
        ["10.0.0.2:80"]
    );
}

#[tokio::test(start_paused = true)]
async fn known_names_are_not_waited_for_again() {
    let names = Names::default();
    names.set("app", Some(&["10.0.0.1"]));
    let resolver = names.resolver();
    resolver.resolve_all(&snapshot(&["app:80"]), BOUND).await;
    let resolved = resolver.resolve_all(&snapshot(&["app:80", "127.0.0.1:1"]), BOUND).await;
    assert_eq!(addresses(&resolved, "app:80"), ["10.0.0.1:80"]);
    assert_eq!(names.asked("app"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_changed_answer_is_noticed_and_told() {
    let names = Names::default();
    names.set("app", Some(&["10.0.0.1"]));
    let resolver = names.resolver();
    let snapshot = snapshot(&["app:80"]);
    resolver.resolve_all(&snapshot, BOUND).await;
    let mut changes = resolver.changes();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!((5..=8).contains(&names.asked("app")), "{} lookups", names.asked("app"));
    assert!(!changes.has_changed().unwrap(), "the same answer is no change");

    names.set("app", Some(&["10.0.0.3", "10.0.0.2"]));
    tokio::time::timeout(Duration::from_secs(12), changes.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        addresses(&known_now(&resolver, &snapshot).await, "app:80"),
        ["10.0.0.2:80", "10.0.0.3:80"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_name_keeps_its_addresses_and_is_asked_less_often() {
    let names = Names::default();
    names.set("app", Some(&["10.0.0.1"]));
    let resolver = names.resolver();
    let snapshot = snapshot(&["app:80"]);
    resolver.resolve_all(&snapshot, BOUND).await;
    names.set("app", Some(&[]));
    // About 10 s to the first failure, then after 1, 2, 4, 8, 16, 30, 30 … s.
    tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    assert_eq!(
        addresses(&known_now(&resolver, &snapshot).await, "app:80"),
        ["10.0.0.1:80"]
    );
    assert!(
        (20..=26).contains(&names.asked("app")),
        "{} lookups",
        names.asked("app")
    );

    let changes = resolver.changes();
    names.set("app", Some(&["10.0.0.1"]));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(!changes.has_changed().unwrap(), "back, and unchanged");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_never_resolved_is_tried_every_second() {
    let names = Names::default();
    names.set("app", Some(&[]));
    let resolver = names.resolver();
    let snapshot = snapshot(&["app:80"]);
    let resolved = resolver.resolve_all(&snapshot, BOUND).await;
    assert_eq!(addresses(&resolved, "app:80"), [""; 0]);
    let mut changes = resolver.changes();
    tokio::time::sleep(Duration::from_millis(30_500)).await;
    assert_eq!(names.asked("app"), 31);
    names.set("app", Some(&["10.0.0.9"]));
    tokio::time::timeout(Duration::from_secs(2), changes.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        addresses(&known_now(&resolver, &snapshot).await, "app:80"),
        ["10.0.0.9:80"]
    );
}

#[tokio::test(start_paused = true)]
async fn names_that_left_are_forgotten_and_new_ones_followed() {
    let names = Names::default();
    names.set("old", Some(&["10.0.0.1"]));
    names.set("new", None);
    let resolver = names.resolver();
    resolver.resolve_all(&snapshot(&["old:80"]), BOUND).await;
    let changes = resolver.changes();
    let next = snapshot(&["new:80"]);
    resolver.resolve_all(&next, BOUND).await;
    let asked = names.asked("old");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(names.asked("old"), asked);
    assert_eq!(resolver.names().len(), 1);
    assert!(
        names.asked("new") <= 2,
        "a lookup that hangs is not repeated beside itself"
    );
    assert!(!changes.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn one_lookup_that_panics_does_not_stop_the_others() {
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let resolver = Arc::new(Resolver::with_lookup(move |name| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move {
            assert!(number > 2, "the first three break: {name}");
            Ok(vec![SocketAddr::from(([10, 0, 0, 1], 0))])
        })
    }));
    let snapshot = snapshot(&["app:80"]);
    run(&resolver);
    resolver.resolve_all(&snapshot, BOUND).await;
    let mut changes = resolver.changes();
    tokio::time::timeout(Duration::from_secs(5), changes.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        addresses(&known_now(&resolver, &snapshot).await, "app:80"),
        ["10.0.0.1:80"]
    );
}

#[test]
fn a_name_gives_a_bounded_number_of_addresses() {
    let many = (0..500_u16)
        .rev()
        .map(|number| SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], number)));
    let kept = sorted(many.collect());
    assert_eq!(kept.len(), ADDRESSES_MOST);
    assert_eq!(kept[0], SocketAddr::from(([10, 0, 0, 0], 0)));
    assert!(kept.is_sorted());
}

#[tokio::test]
async fn the_system_resolves_localhost() {
    let resolver = Arc::new(Resolver::new());
    run(&resolver);
    let resolved = resolver
        .resolve_all(&snapshot(&["localhost:9001"]), Duration::from_secs(10))
        .await;
    let found = resolved.addresses(&endpoint("localhost:9001"));
    assert!(
        found
            .iter()
            .any(|address| address.ip().is_loopback() && address.port() == 9001),
        "{found:?}"
    );
}
