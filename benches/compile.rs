//! What a reload costs: text of 1,000 services -> compiled snapshot, and the same for 100, to show that it grows linearly.
//! A reload runs this off the request path; it must still fit into the 250 ms between a write and the new routing.

#![allow(clippy::expect_used)] // a bench that cannot set itself up should stop

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;

/// A file of `services` services of two versions, each with a route of its own, a rule and affinity.
fn text(services: usize) -> String {
    let mut text = String::from(
        "listeners: [{ address: 127.0.0.1:8080 }]\nsegments:\n  staff: { header: x-user-email, ends_with: \"@example.com\" }\n\
         services:\n",
    );
    for n in 0..services {
        let (host, stable, canary) = (n % 100, 10_000 + n * 2, 10_001 + n * 2);
        writeln!(
            text,
            "  - name: s{n}\n    routes: [{{ host: h{host}.example.com, path_prefix: /s{n} }}]\n    affinity: {{ key: [{{ header: \
             x-user-id }}] }}\n    rules: [{{ name: staff, when: {{ segment: staff }}, version: v2 }}]\n    versions:\n      - {{ \
             name: v1, role: stable, weight: 95, pool: {{ endpoints: [\"127.0.0.1:{stable}\"] }} }}\n      - {{ name: v2, role: \
             canary, weight: 5, pool: {{ endpoints: [\"127.0.0.1:{canary}\"] }} }}"
        )
        .expect("a string takes everything");
    }
    text
}

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(20);
    for services in [100, 1_000] {
        let text = text(services);
        group.throughput(Throughput::Elements(services as u64));
        group.bench_with_input(BenchmarkId::new("services", services), &text, |bench, text| {
            bench.iter(|| {
                let snapshot = rollgate::config::parse(black_box(text), Path::new(""));
                let snapshot = snapshot.expect("the file is valid");
                assert_eq!(snapshot.services.len(), services);
                snapshot
            });
        });
    }
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
