//! What a decision costs: `cargo bench --bench decide`.
//!
//! The case of the goal (under 300 ns on a quiet machine, no allocation): 10 services, 20 rules of which none matches, a
//! user known by a header, a request of 12 header fields. Allocations are counted, and one in a million decisions fails
//! the run.

#![allow(unsafe_code)] // A counting allocator cannot be written without.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing)]

use criterion::{Criterion, criterion_group, criterion_main};
use rollgate::routing::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A browser's request, looked up as the data plane does: line by line.
struct Fields(&'static [(&'static str, &'static str)]);

impl HeaderFields for Fields {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        let lines = self
            .0
            .iter()
            .filter(|(key, _)| is_field_name(key.as_bytes(), name.as_bytes()));
        lines.map(|(_, value)| value.as_bytes()).nth(n)
    }

    fn any<'s>(&'s self, name: &str, test: &mut dyn FnMut(&'s [u8]) -> bool) -> bool {
        let mut lines = self
            .0
            .iter()
            .filter(|(key, _)| is_field_name(key.as_bytes(), name.as_bytes()));
        lines.any(|(_, value)| test(value.as_bytes()))
    }
}

const BROWSER: &[(&str, &str)] = &[
    ("Host", "shop7.example.com"),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("Accept-Language", "en-GB,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://shop7.example.com/"),
    ("Connection", "keep-alive"),
    (
        "Cookie",
        "session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; consent=1",
    ),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("cf-ipcountry", "DE"),
    ("x-user-id", "user-8273645"),
];

const ANONYMOUS: &[(&str, &str)] = BROWSER.split_at(BROWSER.len() - 1).0;

struct World {
    turn: Cell<u64>,
    key: CookieKey,
}

impl Facts for World {
    fn now_s(&self) -> u64 {
        1_800_000_000
    }
    fn turn(&self, _: ServiceId, _: Option<u32>) -> u64 {
        self.turn.replace(self.turn.get() + 1)
    }
    fn usable(&self, _: ServiceId, _: VersionId) -> bool {
        true
    }
    fn cookie_key(&self) -> &CookieKey {
        &self.key
    }
    fn fresh_id(&self) -> u128 {
        7
    }
}

fn test(source: Source, operator: Operator) -> Condition {
    Condition::Test { source, operator }
}

/// Which rules a service has; none of them matches.
#[derive(Clone, Copy)]
enum Rules {
    None,
    /// 20 tests of headers, a quarter of them present.
    Headers,
    /// 20 conditions of every kind.
    Mixed,
}

fn header(name: &str) -> Source {
    Source::Header(name.into())
}

fn rules(kind: Rules) -> Box<[Rule]> {
    let condition = match kind {
        Rules::None => return [].into(),
        Rules::Headers => header_condition,
        Rules::Mixed => mixed_condition,
    };
    let rule = |n| Rule {
        name: format!("rule-{n}").into(),
        when: condition(n),
        from: None,
        target: Target::Version(VersionId(1)),
    };
    (0..20).map(rule).collect()
}

fn header_condition(n: u32) -> Condition {
    let name = ["x-version", "x-tenant", "x-beta-group", "cf-ipcountry"];
    test(
        header(name[n as usize % 4]),
        Operator::Equals(format!("value-{n}").into()),
    )
}

fn mixed_condition(n: u32) -> Condition {
    match n % 10 {
        0 => test(header("x-version"), Operator::Equals("v2".into())),
        1 => Condition::Segment(SegmentId(0)),
        2 => test(header("cf-ipcountry"), Operator::In(["JP".into(), "KR".into()].into())),
        3 => test(Source::Cookie("beta".into()), Operator::Equals("1".into())),
        4 => Condition::ClientIp([("10.1.0.0/16").parse().unwrap(), "2001:db8::/32".parse().unwrap()].into()),
        5 => test(Source::Query("beta".into()), Operator::Exists(true)),
        6 => test(header("x-account-age-days"), Operator::GreaterThan(365.0)),
        7 => test(header("accept-language"), Operator::StartsWith("ja".into())),
        8 => Condition::All([test(header("x-tenant"), Operator::Equals("acme".into()))].into()),
        _ => test(header("x-canary"), Operator::Exists(true)),
    }
}

fn policy(kind: Rules, versions: usize) -> Policy {
    let service = |n: u32| Service {
        name: format!("service-{n}").into(),
        versions: (0..versions)
            .map(|index| Version {
                name: format!("v{index}").into(),
                role: if index == 0 { Role::Stable } else { Role::Canary },
            })
            .collect(),
        stable: VersionId(0),
        affinity: Some(Affinity {
            key: [KeySource::Header("x-user-id".into())].into(),
            salt: format!("service-{n}").into(),
            hash: HashName::Rollgate1,
            cookie: None,
            keep: false,
        }),
        rules: rules(kind),
        fallback: Fallback::Stable,
    };
    let route = |n: u32| Route {
        host: HostPattern::Exact(format!("shop{n}.example.com").into()),
        path: PathPattern::Prefix("/checkout".into()),
        methods: [].into(),
        to: Destination::Service(ServiceId(n)),
    };
    let staff = test(
        Source::Header("x-user-email".into()),
        Operator::EndsWith("@example.com".into()),
    );
    Policy {
        routes: RouteTable::new((0..10).map(route).collect()),
        segments: [Segment {
            name: "staff".into(),
            when: staff,
        }]
        .into(),
        services: (0..10).map(service).collect(),
    }
}

fn traffic(weights: &[u32]) -> Traffic {
    let service = ServiceTraffic {
        split: Split::new(weights).unwrap(),
        killed: false,
        epoch: 0,
        ring: None,
        mirror: None,
    };
    Traffic {
        killed: false,
        services: vec![service; 10].into(),
    }
}

fn request(fields: &Fields) -> RequestView<'_> {
    RequestView {
        method: "GET",
        host: "shop7.example.com",
        path: "/checkout/cart/items",
        query: "sort=price&page=2",
        fields,
        client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        client_cert: None,
    }
}

fn decisions(criterion: &mut Criterion) {
    let world = World {
        turn: Cell::new(0),
        key: CookieKey::new(&[1; 32]),
    };
    for (name, fields, kind, weights) in [
        (
            "decide/20 rules on headers, by header key",
            BROWSER,
            Rules::Headers,
            &[95, 5][..],
        ),
        ("decide/20 mixed rules, by header key", BROWSER, Rules::Mixed, &[95, 5]),
        ("decide/20 mixed rules, by weight", ANONYMOUS, Rules::Mixed, &[95, 5]),
        ("decide/no rules, by header key", BROWSER, Rules::None, &[95, 5]),
        (
            "decide/no rules, by header key, 5 versions",
            BROWSER,
            Rules::None,
            &[80, 5, 5, 5, 5],
        ),
    ] {
        let (policy, traffic, fields) = (policy(kind, weights.len()), traffic(weights), Fields(fields));
        let once = || {
            decide(
                black_box(&policy),
                black_box(&traffic),
                black_box(&request(&fields)),
                &world,
            )
        };
        assert!(
            once()
                .decision()
                .is_some_and(|decision| matches!(decision.reason, Reason::Bucket | Reason::Weight))
        );
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..1_000_000 {
            black_box(once());
        }
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocations, 0, "{name}: allocations in a million decisions");
        println!("{name}: 0 allocations in a million decisions");
        criterion.bench_function(name, |bencher| bencher.iter(once));
    }
}

fn parts(criterion: &mut Criterion) {
    for hash in [HashName::Rollgate1, HashName::Unleash1, HashName::Flagd2] {
        criterion.bench_function(&format!("bucket/{}", hash.as_str()), |bencher| {
            bencher.iter(|| hash.bucket(black_box("service-7"), black_box(b"user-8273645")));
        });
    }
    let split = Split::new([95, 5]).unwrap();
    let mut turn = 0;
    criterion.bench_function("split/without a key", |bencher| {
        bencher.iter(|| {
            turn += 1;
            black_box(&split).by_turn(black_box(turn))
        });
    });
    let big = RouteTable::new(
        (0..10_000)
            .map(|n| Route {
                host: HostPattern::Exact(format!("shop{}.example.com", n % 100).into()),
                path: PathPattern::Prefix(format!("/service-{n}").into()),
                methods: [].into(),
                to: Destination::Service(ServiceId(n)),
            })
            .collect(),
    );
    let fields = Fields(BROWSER);
    let view = RequestView {
        path: "/service-4207/cart/items",
        ..request(&fields)
    };
    assert!(
        big.find(&view)
            .is_some_and(|(_, route)| route.to == Destination::Service(ServiceId(4207)))
    );
    criterion.bench_function("routes/one of 10,000", |bencher| {
        bencher.iter(|| black_box(&big).find(black_box(&view)));
    });
}

criterion_group!(benches, decisions, parts);
criterion_main!(benches);
