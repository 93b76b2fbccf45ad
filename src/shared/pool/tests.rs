use super::*;
use crate::config::snapshot::{Ejection, HealthCheck, Probe, Timeouts};
use std::time::Duration;

fn spec(balance: Balance, at_most: f64) -> Arc<snapshot::Pool> {
    Arc::new(snapshot::Pool {
        endpoints: Box::default(),
        balance,
        health_check: HealthCheck {
            probe: Probe::Connection,
            every: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
        },
        ejection: Ejection {
            consecutive_failures: 5,
            base: Duration::from_secs(1),
            at_most,
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        },
        tls: None,
        http2: false,
        send_proxy_protocol: None,
    })
}

fn pool(role: Role, count: u16, at_most: f64) -> Pool {
    let endpoint = |number: u16| {
        let address = ([127, 0, 0, 1], 9000 + number).into();
        let label = format!("127.0.0.1:{}", 9000 + number);
        Arc::new(Endpoint::new("shop/v1", label, address, 1, role == Role::Stable, 2))
    };
    Pool::new(
        spec(Balance::PowerOfTwo, at_most),
        (0..count).map(endpoint).collect(),
        role,
        2,
    )
}

fn probe(pool: &Pool, index: usize, success: bool, at_ms: u64) {
    let failure = (!success).then_some(&"down" as &dyn std::fmt::Display);
    pool.endpoints[index].probe_ended(failure, &pool.spec.health_check, at_ms, at_ms);
}

fn fail(pool: &Pool, index: usize, kind: FailureKind, times: u32, now_ms: u64) {
    for _ in 0..times {
        pool.failed(&pool.endpoints[index], kind, now_ms);
    }
}

fn picks(pool: &Pool, now_ms: u64) -> Vec<u32> {
    let mut counts = vec![0; pool.endpoints.len()];
    for draw in 0..1_000_u64 {
        let picked = pool
            .pick(0, now_ms, draw.wrapping_mul(0x9E37_79B9_7F4A_7C15), None, &Tried::new())
            .unwrap();
        counts[pool.endpoints.iter().position(|one| Arc::ptr_eq(one, picked)).unwrap()] += 1;
    }
    counts
}

#[test]
fn requests_in_flight_are_counted_over_threads() {
    let pool = pool(Role::Stable, 1, 0.5);
    let endpoint = &pool.endpoints[0];
    let held = [endpoint.begin(0), endpoint.begin(1), endpoint.begin(1)];
    assert_eq!(endpoint.in_flight(), 3);
    let foreign = endpoint.begin(2);
    assert_eq!(endpoint.in_flight(), 3, "a thread it was not made for is not counted");
    assert_eq!(foreign.endpoint().address, endpoint.address);
    drop(foreign);
    drop(held);
    assert_eq!(endpoint.in_flight(), 0);
}

#[test]
fn the_less_busy_endpoint_is_picked() {
    let pool = pool(Role::Stable, 2, 0.5);
    let _busy = pool.endpoints[0].begin(1);
    assert_eq!(picks(&pool, 0), [0, 1_000]);
}

#[test]
fn every_balance_of_the_file_is_honoured() {
    for balance in [
        Balance::PowerOfTwo,
        Balance::LeastRequests,
        Balance::RoundRobin,
        Balance::Hash,
    ] {
        let like = pool(Role::Stable, 4, 0.5);
        let pool = Pool::new(spec(balance, 0.5), like.endpoints.clone(), Role::Stable, 2);
        let mut order = Vec::new();
        for draw in 0..8_u64 {
            let picked = pool.pick(0, 0, draw << 60, Some(42), &Tried::new()).unwrap();
            order.push(picked.address.port() - 9000);
        }
        match balance {
            Balance::RoundRobin => assert_eq!(order, [0, 1, 2, 3, 0, 1, 2, 3]),
            Balance::Hash => assert!(order.iter().all(|one| one == &order[0])),
            Balance::PowerOfTwo | Balance::LeastRequests => assert!(order.iter().any(|one| one != &order[0])),
        }
    }
}

#[test]
fn a_canary_is_not_used_before_its_first_successful_probe() {
    let pool = pool(Role::Canary, 2, 0.5);
    assert!(!pool.usable(0));
    assert!(pool.pick(0, 0, 7, None, &Tried::new()).is_none());
    probe(&pool, 0, false, 0);
    assert!(!pool.usable(0));
    probe(&pool, 1, true, 0);
    assert!(pool.usable(0));
    assert_eq!(picks(&pool, 0), [0, 1_000]);
}

#[test]
fn a_stable_version_that_becomes_a_canary_must_have_been_probed() {
    let stable = pool(Role::Stable, 1, 0.5);
    assert!(stable.usable(0) && stable.endpoints[0].usable(0));
    let canary = Pool::new(Arc::clone(&stable.spec), stable.endpoints.clone(), Role::Canary, 2);
    assert!(!canary.usable(0));
    probe(&canary, 0, true, 0);
    assert!(canary.usable(0));
}

#[test]
fn stable_tries_them_all_when_all_look_dead() {
    let pool = pool(Role::Stable, 3, 0.5);
    for index in 0..3 {
        probe(&pool, index, false, 0);
    }
    assert!(pool.usable(0));
    assert!(picks(&pool, 0).iter().all(|&count| count > 200));
    probe(&pool, 1, true, 0);
    assert_eq!(picks(&pool, 0), [0, 1_000, 0], "one that works is preferred again");
    assert!(!self::pool(Role::Stable, 0, 0.5).usable(0), "nothing is nothing");
}

#[test]
fn a_retry_goes_elsewhere_and_to_the_dead_last() {
    let pool = pool(Role::Stable, 3, 0.5);
    probe(&pool, 2, false, 0);
    let mut tried = Tried::new();
    let mut order = Vec::new();
    while let Some(picked) = pool.pick(0, 0, 99, None, &tried) {
        order.push(picked.address.port() - 9000);
        tried.add(picked);
    }
    assert_eq!((order.len(), order[2]), (3, 2), "{order:?}");
    assert_eq!(tried.len(), 3);
}

#[test]
fn what_was_tried_is_remembered_up_to_the_bound() {
    let pool = pool(Role::Stable, 6, 0.5);
    let mut tried = Tried::new();
    assert!(tried.is_empty());
    for endpoint in &pool.endpoints {
        assert!(!tried.contains(endpoint));
        tried.add(endpoint);
    }
    let remembered: Vec<bool> = pool.endpoints.iter().map(|endpoint| tried.contains(endpoint)).collect();
    assert_eq!(remembered, [true, true, true, true, false, false]);
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_saves() {
    let pool = pool(Role::Stable, 2, 0.5);
    fail(&pool, 0, FailureKind::Status5xx, 4, 100);
    pool.succeeded(&pool.endpoints[0]);
    fail(&pool, 0, FailureKind::Status5xx, 4, 100);
    assert!(pool.endpoints[0].usable(100));
    pool.failed(&pool.endpoints[0], FailureKind::Status5xx, 100);
    assert!(pool.endpoints[0].ejected(100) && pool.endpoints[0].healthy());
    assert_eq!(picks(&pool, 1_099), [0, 1_000]);
    assert!(pool.endpoints[0].usable(1_100), "back after its time");
}

#[test]
fn what_fails_while_it_is_away_does_not_count_against_its_return() {
    let pool = pool(Role::Stable, 2, 0.5);
    fail(&pool, 0, FailureKind::Timeout, 50, 100);
    assert!(pool.endpoints[0].ejected(1_099));
    fail(&pool, 0, FailureKind::Timeout, 4, 1_100);
    assert!(!pool.endpoints[0].ejected(1_100));
    fail(&pool, 0, FailureKind::Timeout, 1, 1_100);
    assert!(
        pool.endpoints[0].ejected(3_099) && !pool.endpoints[0].ejected(3_100),
        "twice as long"
    );
}

#[test]
fn no_usable_endpoint_is_nobodys_failure() {
    let pool = pool(Role::Stable, 2, 0.5);
    fail(&pool, 0, FailureKind::NoEndpoint, 50, 0);
    assert!(pool.endpoints[0].usable(0));
}

#[test]
fn at_most_a_part_of_a_pool_is_ejected() {
    for (count, at_most, expected) in [
        (1, 0.5, 0),
        (2, 0.5, 1),
        (3, 0.5, 1),
        (4, 0.5, 2),
        (4, 0.0, 0),
        (4, 1.0, 4),
    ] {
        let pool = pool(Role::Stable, count, at_most);
        for index in 0..usize::from(count) {
            fail(&pool, index, FailureKind::Connect, 9, 0);
        }
        let ejected = pool.endpoints.iter().filter(|endpoint| endpoint.ejected(0)).count();
        assert_eq!(ejected, expected, "{count} endpoints at {at_most}");
    }
}

#[test]
fn one_that_the_cap_saved_goes_when_there_is_room() {
    let pool = pool(Role::Stable, 2, 0.5);
    fail(&pool, 0, FailureKind::Status5xx, 5, 0);
    fail(&pool, 1, FailureKind::Status5xx, 8, 0);
    assert!(!pool.endpoints[1].ejected(0));
    fail(&pool, 1, FailureKind::Status5xx, 1, 1_000);
    assert!(pool.endpoints[1].ejected(1_000));
}

#[test]
fn the_cap_holds_when_threads_eject_together() {
    for _ in 0..20 {
        let pool = pool(Role::Stable, 8, 0.5);
        std::thread::scope(|scope| {
            for index in 0..8 {
                let pool = &pool;
                scope.spawn(move || fail(pool, index, FailureKind::Connect, 9, 0));
            }
        });
        assert_eq!(pool.endpoints.iter().filter(|endpoint| endpoint.ejected(0)).count(), 4);
    }
}

#[test]
fn a_canary_nobody_can_connect_to_is_ejected_whole() {
    let canary = |at_most| {
        let pool = pool(Role::Canary, 1, at_most);
        probe(&pool, 0, true, 0);
        pool
    };
    let refused = canary(0.5);
    fail(&refused, 0, FailureKind::Connect, 5, 10);
    assert!(!refused.usable(10), "its users go to stable");

    let answering = canary(0.5);
    fail(&answering, 0, FailureKind::Status5xx, 50, 10);
    assert!(answering.usable(10), "bad answers stay within the cap");
    fail(&answering, 0, FailureKind::Reset, 1, 10);
    assert!(!answering.usable(10));

    let never = canary(0.0);
    fail(&never, 0, FailureKind::Connect, 50, 10);
    assert!(never.usable(10), "0 % never ejects");
}

#[test]
fn a_probe_that_reaches_it_ends_the_ejection_of_an_unreachable_endpoint_only() {
    let pool = pool(Role::Stable, 4, 0.5);
    probe(&pool, 0, true, 0);
    probe(&pool, 1, true, 0);
    fail(&pool, 0, FailureKind::Connect, 5, 100);
    fail(&pool, 1, FailureKind::Status5xx, 5, 100);
    probe(&pool, 0, true, 200);
    probe(&pool, 1, true, 200);
    assert!(pool.endpoints[0].usable(200));
    assert!(pool.endpoints[1].ejected(200));
}

#[test]
fn a_change_of_weight_keeps_health_and_ejection() {
    let pool = pool(Role::Canary, 1, 0.5);
    probe(&pool, 0, true, 0);
    let heavier = pool.endpoints[0].reweighted(9);
    assert_eq!(heavier.weight, 9);
    assert!(heavier.healthy() && heavier.probed_ok() && heavier.usable(0));
    fail(&pool, 0, FailureKind::Connect, 5, 0);
    assert!(pool.endpoints[0].reweighted(9).ejected(0));
}

/// What is logged while `act` runs.
fn logged(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_flapping_endpoint_is_logged_once_a_second_and_its_last_state_in_the_end() {
    let pool = pool(Role::Stable, 2, 0.5);
    probe(&pool, 0, true, 0);
    let log = logged(|| {
        // Unhealthy after three failures, healthy after two successes: 40 changes in a second.
        for round in 0..20_u64 {
            for (step, success) in [false, false, false, true, true].into_iter().enumerate() {
                probe(&pool, 0, success, 5_000 + round * 50 + step as u64 * 10);
            }
        }
        probe(&pool, 0, true, 7_000);
        probe(&pool, 0, true, 9_000);
    });
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains("WARN") && lines[0].contains("endpoint unhealthy: down"),
        "{log}"
    );
    assert!(lines[1].contains("INFO") && lines[1].contains("healthy=true"), "{log}");
    assert!(
        lines[1].contains("unlogged_changes=39") && lines[1].contains("version=shop/v1"),
        "{log}"
    );
}

#[test]
fn an_ejection_is_logged_with_its_length() {
    let pool = pool(Role::Stable, 2, 0.5);
    let log = logged(|| fail(&pool, 1, FailureKind::Connect, 5, 0));
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains("ejected_for_ms=1000") && log.contains("endpoint=127.0.0.1:9001"),
        "{log}"
    );
}
