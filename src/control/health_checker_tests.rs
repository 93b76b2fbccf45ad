use super::*;
use crate::config::snapshot;
use crate::control::fixture::nobody;
use crate::control::resolver::tests::{pool as pool_spec, snapshot as snapshot_of};
use crate::outcome::FailureKind;
use crate::routing::{CookieKey, Role, Traffic};
use crate::shared::{Pool, ServiceInForce, ServiceLimits, VersionInForce, VersionStats};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that answers every connection with the same bytes; its connections are counted and the last head is kept.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
    head: Arc<std::sync::Mutex<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve_at(address: SocketAddr, answer: &'static str) -> Server {
    let listener = TcpListener::bind(address).await.unwrap();
    let connections = Arc::new(AtomicU32::new(0));
    let head = Arc::new(std::sync::Mutex::new(String::new()));
    let (count, kept) = (Arc::clone(&connections), Arc::clone(&head));
    Server {
        address: listener.local_addr().unwrap(),
        connections,
        head,
        task: tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let mut read = [0; 4096];
                let length = stream.read(&mut read).await.unwrap_or(0);
                *kept.lock().unwrap() = String::from_utf8_lossy(&read[..length]).into_owned();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }),
    }
}

async fn serve(answer: &'static str) -> Server {
    serve_at(([127, 0, 0, 1], 0).into(), answer).await
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An interval that no test lives to see the end of, and a quarter of it neither.
const NEVER_MS: u64 = 3_600_000;

fn spec(path: Option<&str>, every_ms: u64) -> snapshot::Pool {
    let mut spec = pool_spec(&[]);
    spec.health_check.probe = path.map_or(snapshot::Probe::Connection, |path| snapshot::Probe::Get(path.into()));
    spec.health_check.every = Duration::from_millis(every_ms);
    spec.health_check.timeout = PATIENCE;
    spec
}

fn endpoint(address: SocketAddr, role: Role) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(
        "shop/v1",
        address.to_string(),
        address,
        1,
        role == Role::Stable,
        1,
    ))
}

fn pool(spec: snapshot::Pool, role: Role, endpoints: &[&Arc<Endpoint>]) -> Arc<Pool> {
    let endpoints = endpoints.iter().map(|&endpoint| Arc::clone(endpoint)).collect();
    Arc::new(Pool::new(Arc::new(spec), endpoints, role, 1))
}

fn in_force(generation: u64, pool: &Arc<Pool>) -> InForce {
    let version = VersionInForce {
        stats: Arc::new(VersionStats::new(1)),
        pool: Arc::clone(pool),
        revoked: Arc::default(),
    };
    InForce {
        listeners: Arc::default(),
        departed: Arc::default(),
        generation,
        snapshot: Arc::new(snapshot_of(&[])),
        state: Arc::default(),
        traffic: Traffic::default(),
        cookie_key: CookieKey::new(&[7; 32]),
        services: [ServiceInForce {
            turn: Arc::default(),
            rule_turns: Box::default(),
            limits: ServiceLimits::default(),
            evidence: None,
            mirror: None,
            rollbacks: Arc::default(),
            versions: [version].into(),
        }]
        .into(),
    }
}

/// The planes' meeting place with this pool in force, and a checker at work on it.
fn checked(pool: &Arc<Pool>) -> (Arc<Shared>, Arc<HealthChecker>, JoinSet<()>) {
    let shared = Arc::new(Shared::new(in_force(1, pool), 1));
    let checker = Arc::new(HealthChecker::new(Arc::clone(&shared)));
    let mut tasks = JoinSet::new();
    let running = Arc::clone(&checker);
    tasks.spawn(async move {
        running.run().await;
    });
    (shared, checker, tasks)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, wait).await.is_ok(),
        "waited in vain: {what}"
    );
}

#[tokio::test]
async fn the_first_pass_probes_every_endpoint_at_once() {
    let server = serve(OK).await;
    let nobody = nobody();
    let (good, dead) = (
        endpoint(server.address, Role::Canary),
        endpoint(nobody.address, Role::Stable),
    );
    let pool = pool(spec(Some("/healthz?deep=1"), NEVER_MS), Role::Canary, &[&good, &dead]);
    let (shared, _checker, _tasks) = checked(&pool);
    assert!(first_pass(&shared, PATIENCE).await);
    assert!(good.usable(0) && good.probed_ok());
    assert!(
        !dead.healthy() && !dead.probed_ok(),
        "one that never answered is not given patience"
    );

    let head = server.head.lock().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /healthz?deep=1 http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nhost: {}\r\n", server.address)), "{head}");
}

#[tokio::test]
async fn the_first_pass_is_bounded() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(silent.local_addr().unwrap(), Role::Stable);
    let mut spec = spec(Some("/"), NEVER_MS);
    spec.health_check.timeout = Duration::from_secs(600);
    let (shared, _checker, _tasks) = checked(&pool(spec, Role::Stable, &[&endpoint]));
    assert!(!first_pass(&shared, Duration::from_millis(100)).await);
    assert!(endpoint.healthy(), "not known yet");
}

#[tokio::test]
async fn statuses_200_to_399_are_healthy_and_nothing_else() {
    let answers = [
        (OK, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 399 Odd\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\ncut", true),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false),
        ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", false),
        ("SSH-2.0-OpenSSH_9.2\r\n", false),
        ("", false),
    ];
    for (answer, healthy) in answers {
        let server = serve(answer).await;
        let endpoint = endpoint(server.address, Role::Canary);
        let check = spec(Some("/"), 1_000).health_check;
        let result = tokio::time::timeout(PATIENCE, probe(&endpoint, &check)).await.unwrap();
        assert_eq!(result.is_ok(), healthy, "{answer:?}: {result:?}");
    }
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = spec(None, 1_000).health_check;
    assert!(
        probe(&endpoint(silent.local_addr().unwrap(), Role::Stable), &check)
            .await
            .is_ok()
    );
    let nobody = nobody();
    let error = probe(&endpoint(nobody.address, Role::Stable), &check)
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("no connection: "), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_unhealthy_after_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(silent.local_addr().unwrap(), Role::Stable);
    let mut spec = spec(Some("/"), NEVER_MS);
    spec.health_check.timeout = Duration::from_millis(50);
    let (_shared, _checker, _tasks) = checked(&pool(spec, Role::Stable, &[&endpoint]));
    until("unhealthy", || !endpoint.healthy()).await;
}

#[tokio::test]
async fn an_endpoint_that_dies_goes_and_comes_back_within_two_intervals() {
    let every = Duration::from_millis(600);
    // Kept for it while it is dead.
    let place = nobody();
    let address = place.address;
    let mut server = serve_at(address, OK).await;
    let endpoint = endpoint(address, Role::Stable);
    let pool = pool(spec(Some("/"), 600), Role::Stable, &[&endpoint]);
    let (_shared, _checker, _tasks) = checked(&pool);
    until("the first probe", || endpoint.probed_ok()).await;

    server.task.abort();
    until("the listener is closed", || server.task.is_finished()).await;
    until("unhealthy", || !endpoint.healthy()).await;

    server = serve_at(address, OK).await;
    // Two intervals, and a half for the machine. Each part begins when the one before has ended, as probes do: what holds
    // up the probes holds up this, too.
    let intervals = async {
        for part in [every, every, every / 2] {
            tokio::time::sleep(part).await;
        }
    };
    tokio::select! {
        () = until("healthy", || endpoint.healthy()) => {}
        () = intervals => panic!("not healthy within two intervals"),
    }
    assert!(server.connections.load(Ordering::Relaxed) >= 2, "healthy_after is 2");
}

#[tokio::test]
async fn an_ejected_endpoint_that_was_restarted_is_back_by_its_probes() {
    let server = serve(OK).await;
    let endpoint = endpoint(server.address, Role::Canary);
    let mut spec = spec(Some("/"), 100);
    spec.ejection.base = Duration::from_secs(3600);
    let pool = pool(spec, Role::Canary, &[&endpoint]);
    let (shared, _checker, _tasks) = checked(&pool);
    until("the first probe", || endpoint.probed_ok()).await;
    let ejected = uptime_ms(&shared);
    for _ in 0..5 {
        pool.failed(&endpoint, FailureKind::Connect, ejected);
    }
    assert!(!endpoint.usable(ejected));
    until("usable", || endpoint.usable(uptime_ms(&shared))).await;
}

#[tokio::test]
async fn a_publication_brings_probes_to_new_endpoints_and_ends_those_of_old_ones() {
    let (kept, gone, new) = (serve(OK).await, serve(OK).await, serve(OK).await);
    let [kept_end, gone_end, new_end] = [&kept, &gone, &new].map(|server| endpoint(server.address, Role::Canary));
    let first = pool(spec(Some("/"), NEVER_MS), Role::Canary, &[&kept_end, &gone_end]);
    let (shared, checker, _tasks) = checked(&first);
    assert!(first_pass(&shared, PATIENCE).await);

    let second = pool(spec(Some("/"), NEVER_MS), Role::Canary, &[&kept_end, &new_end]);
    shared.publish(in_force(2, &second));
    checker.published();
    until("the new one is probed", || new_end.probed_ok()).await;
    assert_eq!(
        kept.connections.load(Ordering::Relaxed),
        1,
        "its probing is not begun again"
    );
    drop(first);
    until("nobody holds the old one", || Arc::strong_count(&gone_end) == 1).await;
}

#[tokio::test]
async fn a_changed_check_is_applied() {
    let server = serve(OK).await;
    let endpoint = endpoint(server.address, Role::Canary);
    let (shared, checker, _tasks) = checked(&pool(spec(Some("/old"), NEVER_MS), Role::Canary, &[&endpoint]));
    assert!(first_pass(&shared, PATIENCE).await);
    shared.publish(in_force(
        2,
        &pool(spec(Some("/new"), NEVER_MS), Role::Canary, &[&endpoint]),
    ));
    checker.published();
    until("the new path is asked for", || {
        server.head.lock().unwrap().starts_with("GET /new ")
    })
    .await;
}

#[tokio::test]
async fn dropping_the_checker_ends_its_probes() {
    let server = serve(OK).await;
    let endpoint = endpoint(server.address, Role::Canary);
    let (shared, _checker, mut tasks) = checked(&pool(spec(Some("/"), 20), Role::Canary, &[&endpoint]));
    assert!(first_pass(&shared, PATIENCE).await);
    tasks.shutdown().await;
    drop(shared);
    // The pool's, and this test's.
    until("nobody else holds it", || Arc::strong_count(&endpoint) <= 2).await;
}

#[test]
fn pauses_spread_and_never_exceed_the_interval() {
    let every = Duration::from_secs(2);
    for draw in [0.0, 0.3, 1.0] {
        for (first, confirming) in [(true, false), (false, false), (false, true), (true, true)] {
            let pause = pause(every, first, confirming, draw);
            assert!(pause <= every && pause >= every / 4, "{pause:?}");
        }
    }
    assert_eq!(pause(every, false, true, 0.9), Duration::from_secs(1));
    assert_ne!(pause(every, true, false, 0.1), pause(every, true, false, 0.2));
    assert_eq!(pause(Duration::ZERO, false, false, 0.0), SHORTEST);
}
