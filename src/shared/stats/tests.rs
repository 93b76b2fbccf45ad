use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

fn ended(status: u16, outcome: Outcome, duration: Duration) -> Ended {
    Ended {
        status,
        grpc_status: None,
        outcome,
        duration,
        upgraded: false,
    }
}

fn success(status: u16) -> Ended {
    ended(status, Outcome::Success, Duration::from_millis(3))
}

#[test]
fn a_request_is_in_flight_between_begin_and_end() {
    let stats = VersionStats::new(2);
    stats.begin(0);
    stats.begin(1);
    assert_eq!((stats.in_flight(), stats.begun()), (2, 2));
    stats.end(1, &success(200));
    assert_eq!((stats.in_flight(), stats.begun()), (1, 2));
    assert_eq!(stats.totals().ended(), 1);
}

#[test]
fn failures_are_counted_by_kind_and_aborts_are_nobodys() {
    let stats = VersionStats::new(1);
    let zero = Duration::ZERO;
    stats.end(0, &ended(504, Outcome::Failure(FailureKind::Timeout), zero));
    stats.end(0, &ended(499, Outcome::ClientAbort, zero));
    stats.charge(0, FailureKind::NoEndpoint);
    let totals = stats.totals();
    assert_eq!(totals.failed(FailureKind::Timeout), 1);
    assert_eq!(totals.failed(FailureKind::NoEndpoint), 1);
    assert_eq!(totals.all_failed(), 2);
    assert_eq!(totals.codes().collect::<Vec<_>>(), [(499, 1), (504, 1)]);
}

#[test]
fn a_duration_on_a_bound_is_within_it() {
    let stats = VersionStats::new(1);
    for us in [0, 1_000, 1_001, 60_000_000, 60_000_001] {
        stats.end(0, &ended(200, Outcome::Success, Duration::from_micros(us)));
    }
    let totals = stats.totals();
    assert_eq!(totals.durations[0], 2);
    assert_eq!(totals.durations[1], 1);
    assert_eq!(totals.durations[14], 1);
    assert_eq!(totals.durations[15], 1);
    assert_eq!(totals.duration_sum_us, 120_002_002);
}

#[test]
fn an_upgraded_connection_counts_and_its_duration_does_not() {
    let stats = VersionStats::new(1);
    stats.begin(0);
    let upgraded = Ended {
        upgraded: true,
        ..success(101)
    };
    stats.end(0, &upgraded);
    let totals = stats.totals();
    assert_eq!(totals.codes().collect::<Vec<_>>(), [(101, 1)]);
    assert_eq!(totals.durations.iter().sum::<u64>(), 0);
    assert_eq!(totals.in_flight, 0);
}

#[test]
fn common_codes_ascend_so_that_each_has_one_slot() {
    assert!(COMMON_CODES.is_sorted_by(|a, b| a < b));
    assert!(COMMON_CODES.len() < usize::from(RARE));
}

#[test]
fn a_shard_stays_small() {
    assert!(
        size_of::<Shard>() <= 1280,
        "a shard has {} bytes: times versions times threads",
        size_of::<Shard>()
    );
}

proptest! {
    /// Whatever an upstream answers, each status is counted as itself, and what is no status of HTTP in one place.
    #[test]
    fn every_status_is_counted_once(statuses in prop::collection::vec(any::<u16>().prop_map(|n| n % 700), 0..200)) {
        let stats = VersionStats::new(1);
        let mut expected = BTreeMap::new();
        let mut other = 0;
        for &status in &statuses {
            stats.end(0, &success(status));
            if (100..600).contains(&status) {
                *expected.entry(status).or_insert(0_u64) += 1;
            } else {
                other += 1;
            }
        }
        let totals = stats.totals();
        prop_assert_eq!(totals.codes().collect::<BTreeMap<_, _>>(), expected);
        prop_assert_eq!(totals.other_codes, other);
        prop_assert_eq!(totals.ended(), statuses.len() as u64);
    }
}

/// Threads count without a lock and nothing is lost; a reader never sees fewer than no requests in flight.
#[test]
fn threads_lose_nothing() {
    const THREADS: usize = 4;
    const REQUESTS: u64 = 20_000;
    let stats = VersionStats::new(THREADS);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let in_flight = stats.in_flight();
                assert!((0..=THREADS as i64).contains(&in_flight), "{in_flight}");
            }
        });
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let stats = &stats;
                scope.spawn(move || {
                    for _ in 0..REQUESTS {
                        stats.begin(thread);
                        stats.end(thread, &success(200));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    let expected = REQUESTS * THREADS as u64;
    let totals = stats.totals();
    assert_eq!(totals.begun, expected);
    assert_eq!(totals.codes().collect::<Vec<_>>(), [(200, expected)]);
    assert_eq!(totals.in_flight, 0);
}

#[test]
fn a_thread_counts_its_own() {
    let thread = ThreadStats::default();
    thread.connection_opened();
    thread.connection_opened();
    thread.connection_closed();
    thread.refused(Refusal::NoRoute);
    thread.terminated(Termination::Refused);
    thread.retried();
    thread.panicked();
    assert_eq!((thread.connections(), thread.connections_total()), (1, 2));
    assert_eq!((thread.retries(), thread.panics()), (1, 1));
    for refusal in Refusal::ALL {
        assert_eq!(thread.refusals(refusal), u64::from(refusal == Refusal::NoRoute));
    }
    for ending in Termination::ALL {
        assert_eq!(thread.terminations(ending), u64::from(ending == Termination::Refused));
    }
}

#[test]
fn a_quantile_is_known_to_within_one_percent() {
    let stats = VersionStats::new(2);
    for us in 1..=10_000_u64 {
        let duration = Duration::from_micros(us * 10);
        stats.end((us % 2) as usize, &ended(200, Outcome::Success, duration));
    }
    for (quantile, expected) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
        let seen = stats.histogram().quantile(quantile).unwrap().middle_us();
        assert!((seen - expected).abs() <= expected * 0.01, "{quantile}: {seen}");
    }
}
