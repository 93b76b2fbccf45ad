use super::*;
use crate::routing::{HeaderFields, KeySource};
use std::collections::HashMap;

const MS: u64 = 1_000_000;

struct Headers<'a>(&'a [(&'a str, &'a str)]);

impl HeaderFields for Headers<'_> {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        let mut named = self.0.iter().filter(|(known, _)| *known == name);
        named.nth(n).map(|(_, value)| value.as_bytes())
    }
}

fn request<'a>(fields: &'a Headers<'a>, client_ip: &str) -> RequestView<'a> {
    RequestView {
        method: "GET",
        host: "a",
        path: "/",
        query: "",
        fields,
        client_ip: client_ip.parse().unwrap(),
        client_cert: None,
    }
}

fn limit(burst: u64, key: &[KeySource]) -> RateLimit {
    RateLimit {
        rate: Rate::new(burst, Duration::from_secs(60), burst),
        key: key.into(),
        max_keys: 64,
    }
}

fn limits(rates: &[RateLimit]) -> ServiceLimits {
    ServiceLimits::default().next(rates, ["v1", "v2"].into_iter())
}

const NOW: Duration = Duration::from_secs(5);

#[test]
fn a_gate_is_exact_over_threads_and_opens_again() {
    let gate = Arc::new(Gate::default());
    let most = std::thread::scope(|scope| {
        let enter = || {
            let mut inside = Vec::new();
            for _ in 0..1_000 {
                inside.extend(gate.enter(50));
            }
            inside
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(enter)).collect();
        let inside: Vec<Vec<Inside>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        inside.iter().map(Vec::len).sum::<usize>()
    });
    assert_eq!((most, gate.rejected()), (50, 3_950));
    assert_eq!(gate.inside.load(Ordering::Relaxed), 0);
    assert!(gate.enter(1).is_some(), "all have left");
}

#[test]
fn a_rate_is_one_for_all_threads() {
    let limits = limits(&[limit(500, &[])]);
    let fields = Headers(&[]);
    let let_in = std::thread::scope(|scope| {
        let ask = || {
            (0..1_000)
                .filter(|_| limits.take(&request(&fields, "192.0.2.1"), NOW).is_ok())
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!((let_in, limits.rejected_by_rate()), (500, 3_500));
}

#[test]
fn keys_do_not_use_up_each_others_rate() {
    let sources = [KeySource::Header("x-key".into()), KeySource::ClientIp];
    let limits = limits(&[limit(2, &sources)]);
    let of = |headers: &[(&str, &str)], ip: &str| limits.take(&request(&Headers(headers), ip), NOW).is_ok();
    for (headers, ip) in [
        (&[("x-key", "ada")][..], "192.0.2.1"),
        (&[("x-key", "192.0.2.1")], "192.0.2.1"),
        (&[], "192.0.2.1"),
        (&[], "2001:db8:0:1::1"),
        (&[], "2001:db8:0:2::1"),
    ] {
        assert_eq!([0; 3].map(|_| of(headers, ip)), [true, true, false], "{headers:?} {ip}");
    }
    assert!(!of(&[], "2001:db8:0:1:ffff::9"), "the same network");
    assert!(!of(&[], "::ffff:192.0.2.1"), "the same client on a dual-stack listener");
    let by_header = limits_by_header();
    let nobody = Headers(&[]);
    assert!(
        (0..9).all(|_| by_header.take(&request(&nobody, "192.0.2.1"), NOW).is_ok()),
        "no key, no limit"
    );
}

fn limits_by_header() -> ServiceLimits {
    limits(&[limit(2, &[KeySource::Header("x-key".into())])])
}

#[test]
fn what_stays_in_the_file_goes_on() {
    let (first, second) = (limit(2, &[]), limit(3, &[]));
    let before = limits(std::slice::from_ref(&first));
    let fields = Headers(&[]);
    let take = |limits: &ServiceLimits| limits.take(&request(&fields, "192.0.2.1"), NOW).is_ok();
    assert_eq!([0; 3].map(|_| take(&before)), [true, true, false]);
    let gate = before.version(1).unwrap();
    let inside = gate.enter(1).unwrap();
    let same = before.next(&[first], ["v2", "v3"].into_iter());
    assert!(!take(&same));
    assert_eq!(same.rejected_by_rate(), 2);
    assert!(same.version(0).unwrap().enter(1).is_none(), "v2 is as full as it was");
    assert!(same.version(1).unwrap().enter(1).is_some());
    drop(inside);
    assert!(
        take(&before.next(&[second], ["v1"].into_iter())),
        "another rate begins anew"
    );
}

/// A table that is too small forgets, but never those who use up their rate, and gives nobody more than twice its due.
#[test]
fn a_flood_of_keys_does_not_free_a_heavy_one() {
    let buckets = KeyedBuckets::new(64);
    let rate = Rate::new(10, Duration::from_secs(1), 10);
    let mut let_in: HashMap<u32, u32> = HashMap::new();
    let mut now = 1_000 * MS;
    for round in 0..2_000_u32 {
        now += MS;
        let mut ask = |key: u32| {
            let ok = buckets.take(&rate, &key, now).is_ok();
            *let_in.entry(key).or_default() += u32::from(ok);
        };
        ask(0);
        (1..=5).for_each(|n| ask(round * 5 + n));
    }
    // Two seconds: the burst of 10, and 20 more.
    assert!((25..=31).contains(&let_in[&0]), "{}", let_in[&0]);
    assert!(
        let_in.iter().all(|(key, count)| *key == 0 || *count == 1),
        "a new key is let in"
    );
}
