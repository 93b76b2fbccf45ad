//! What recording costs a request on its worker thread: the counters (under 200 ns together), and its line in the
//! access log.

use criterion::{Criterion, criterion_group, criterion_main};
use rollgate::config::snapshot;
use rollgate::outcome::{Outcome, Termination};
use rollgate::shared::{Ended, Ending, Evidence, Sent, ThreadStats, VersionStats};
use rollgate::telemetry::access_log::{AccessLog, Line};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

fn ended(status: u16) -> Ended {
    Ended {
        status,
        outcome: Outcome::Success,
        duration: Duration::from_micros(3_400),
        upgraded: false,
        grpc_status: None,
    }
}

fn record(stats: &VersionStats, thread_stats: &ThreadStats, thread: usize, ended: &Ended) {
    stats.begin(black_box(thread));
    stats.end(black_box(thread), black_box(ended));
    thread_stats.terminated(Termination::Ok);
}

fn counters(criterion: &mut Criterion) {
    let stats = VersionStats::new(4);
    let (first, second) = (&ThreadStats::default(), &ThreadStats::default());
    let mut group = criterion.benchmark_group("record");
    group.bench_function("request", |bencher| {
        bencher.iter(|| record(&stats, first, 0, &ended(200)));
    });
    group.bench_function("request with a status outside the registry", |bencher| {
        bencher.iter(|| record(&stats, first, 0, &ended(299)));
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                record(&stats, second, 1, &ended(200));
            }
        });
        group.bench_function("request while another thread records the same version", |bencher| {
            bencher.iter(|| record(&stats, first, 0, &ended(200)));
        });
        stop.store(true, Ordering::Relaxed);
    });
    group.finish();
}

/// What a request of a service with a rollout costs beside that: under 100 ns.
fn evidence(criterion: &mut Criterion) {
    let evidence = Evidence::new(2, 4, 0, Arc::default());
    let ending = Ending {
        outcome: Outcome::Success,
        duration: Some(Duration::from_micros(3_400)),
        values: &[],
    };
    let mut group = criterion.benchmark_group("evidence");
    for (name, bucket) in [("request without a user", None), ("request of a user", Some(42_123))] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let counted = evidence.begin(black_box(0), black_box(1), Some(Sent::Split), black_box(bucket));
                evidence.end(black_box(0), counted, black_box(&ending));
            });
        });
    }
    group.finish();
}

fn access_log(criterion: &mut Criterion) {
    let spec = snapshot::AccessLog {
        path: snapshot::LogPath::File("/dev/null".into()),
        sample: 1.0,
    };
    let Ok(log) = AccessLog::open(&spec, Arc::<AtomicU64>::default()) else {
        return;
    };
    let mut shard = log.shard();
    let line = Line {
        time: SystemTime::now(),
        client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 17)),
        method: "GET",
        host: "shop.example.com",
        path: "/checkout/basket?item=42&color=dark%20blue",
        protocol: "HTTP/1.1",
        status: 200,
        service: Some("checkout"),
        rescued: None,
        version: Some("v1"),
        reason: Some("bucket"),
        rule: None,
        bucket: Some(42_123),
        endpoint: Some("127.0.0.1:9001"),
        attempts: 1,
        request_bytes: 0,
        response_bytes: 1024,
        duration: Duration::from_micros(3_417),
        upstream_time: Some(Duration::from_micros(3_102)),
        termination: Termination::Ok,
        request_id: "0197f9a0c3d47be2a9d1c4e5f6071829",
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        grpc_status: None,
        failure: None,
        refusal: None,
        error: None,
    };
    let mut group = criterion.benchmark_group("access log");
    group.bench_function("line", |bencher| {
        bencher.iter(|| shard.record(black_box(&line)));
    });
    group.finish();
    drop(shard);
    log.close(Duration::from_secs(5));
}

criterion_group!(benches, counters, evidence, access_log);
criterion_main!(benches);
