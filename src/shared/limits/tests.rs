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
    ServiceLimits::default().next(&of_service(rates), ["v1", "v2"].into_iter())
}

fn of_service(rates: &[RateLimit]) -> snapshot::ServiceLimits {
    snapshot::ServiceLimits {
        rates: rates.into(),
        ..snapshot::ServiceLimits::default()
    }
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
    assert_eq!(most, 50);
    assert_eq!(gate.inside.load(Ordering::Relaxed), 0);
    assert!(gate.enter(1).is_some(), "all have left");
}

#[test]
fn a_rate_is_one_for_all_threads() {
    let limits = limits(&[limit(500, &[])]);
    assert_eq!(let_in_over_threads(&limits), 500);
}

/// Of 4,000 at one moment.
fn let_in_over_threads(limits: &ServiceLimits) -> usize {
    let fields = Headers(&[]);
    std::thread::scope(|scope| {
        let ask = || {
            (0..1_000)
                .filter(|_| limits.rates.take(&request(&fields, "192.0.2.1"), NOW).is_ok())
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn keys_do_not_use_up_each_others_rate() {
    let sources = [KeySource::Header("x-key".into()), KeySource::ClientIp];
    let limits = limits(&[limit(2, &sources)]);
    let of = |headers: &[(&str, &str)], ip: &str| limits.rates.take(&request(&Headers(headers), ip), NOW).is_ok();
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
        (0..9).all(|_| by_header.rates.take(&request(&nobody, "192.0.2.1"), NOW).is_ok()),
        "no key, no limit"
    );
}

/// By whichever of them, and in whichever order they stand.
#[test]
fn a_request_that_one_rate_refuses_takes_from_no_other() {
    let team = limit(3, &[KeySource::Header("x-team".into())]);
    let user = limit(1, &[KeySource::Header("x-user".into())]);
    for specs in [[team.clone(), user.clone()], [user, team]] {
        let limits = limits(&specs);
        let of = |user: &str| {
            let fields = [("x-team", "red"), ("x-user", user)];
            limits.rates.take(&request(&Headers(&fields), "192.0.2.1"), NOW)
        };
        assert_eq!((of("ada"), of("bob")), (Ok(()), Ok(())));
        // How long it is told to wait is until all would let it in.
        assert!((0..9).all(|_| of("ada") == Err(Duration::from_secs(60))));
        assert_eq!(of("cyd"), Ok(()), "the third of the team");
        assert_eq!(of("dan"), Err(Duration::from_secs(20)));
        assert_eq!(of("ada"), Err(Duration::from_secs(60)));
    }
}

#[test]
fn rates_together_let_in_what_the_narrowest_does_over_threads() {
    for specs in [[limit(700, &[]), limit(500, &[])], [limit(500, &[]), limit(700, &[])]] {
        let limits = limits(&specs);
        assert_eq!(let_in_over_threads(&limits), 500);
    }
}

#[test]
fn what_was_taken_is_given_back_unless_another_has_taken_since() {
    let (rate, arrival) = (Rate::new(60, Duration::from_secs(60), 9), AtomicU64::new(7));
    let now = 5_000 * MS;
    take(&rate, &arrival, now).unwrap().give_back();
    assert_eq!(arrival.load(Ordering::Relaxed), 7);
    let first = take(&rate, &arrival, now).unwrap();
    let second = take(&rate, &arrival, now).unwrap();
    first.give_back();
    assert_eq!(arrival.load(Ordering::Relaxed), 7_000 * MS);
    second.give_back();
    assert_eq!(arrival.load(Ordering::Relaxed), 6_000 * MS);
}

fn limits_by_header() -> ServiceLimits {
    limits(&[limit(2, &[KeySource::Header("x-key".into())])])
}

#[test]
fn what_stays_in_the_file_goes_on() {
    let (first, second) = (limit(2, &[]), limit(3, &[]));
    let before = limits(std::slice::from_ref(&first));
    let fields = Headers(&[]);
    let take = |limits: &ServiceLimits| limits.rates.take(&request(&fields, "192.0.2.1"), NOW).is_ok();
    assert_eq!([0; 3].map(|_| take(&before)), [true, true, false]);
    before.rates.reject();
    let gate = &before.version(1).unwrap().in_flight;
    let inside = gate.enter(1).unwrap();
    let same = before.next(&of_service(&[first]), ["v2", "v3"].into_iter());
    assert!(!take(&same));
    assert_eq!(same.rates.rejected(), 1);
    assert!(
        same.version(0).unwrap().in_flight.enter(1).is_none(),
        "v2 is as full as it was"
    );
    assert!(same.version(1).unwrap().in_flight.enter(1).is_some());
    drop(inside);
    assert!(
        take(&before.next(&of_service(&[second]), ["v1"].into_iter())),
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

#[test]
fn keys_in_flight_are_exact_over_threads_and_given_back() {
    let gates = Arc::new(KeyedGates::new(64));
    let most_inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (gates, most_inside) = (&gates, &most_inside);
            scope.spawn(move || {
                for round in 0..5_000 {
                    // Keys come and go around the one that is watched, so that its place changes.
                    let others: Vec<_> = (0..3).map(|n| gates.enter(&(thread, round, n), 1)).collect();
                    if let Ok(Some(inside)) = gates.enter(&"shared", 2) {
                        let now = most_inside.fetch_add(1, Ordering::SeqCst) + 1;
                        assert!(now <= 2, "{now} are inside");
                        most_inside.fetch_sub(1, Ordering::SeqCst);
                        drop(inside);
                    }
                    drop(others);
                }
            });
        }
    });
    assert_eq!(gates.total(), 0);
    let inside: Vec<_> = (0..3).map(|_| gates.enter(&"shared", 2)).collect();
    assert!(matches!(&*inside, [Ok(Some(_)), Ok(Some(_)), Err(Full)]));
    assert!(matches!(gates.enter(&"another", 2), Ok(Some(_))));
    drop(inside);
    assert!(matches!(gates.enter(&"shared", 1), Ok(Some(_))), "all have left");
}

#[test]
fn a_full_table_of_keys_in_flight_lets_in_and_keeps_who_is_counted() {
    let gates = Arc::new(KeyedGates::new(1));
    let inside: Vec<_> = (0..40_u32).map(|key| gates.enter(&key, 1).unwrap()).collect();
    let counted = inside.iter().flatten().count();
    assert_eq!((counted, gates.total()), (8, 8), "all places of one set");
    for (key, inside) in inside.iter().enumerate() {
        let again = gates.enter(&(key as u32), 1);
        assert_eq!(again.is_err(), inside.is_some(), "{key}");
    }
    drop(inside);
    assert_eq!(gates.total(), 0);
}

#[test]
fn who_is_inside_stays_so_when_the_file_changes_the_number() {
    let of = |most: u32, source: KeySource| snapshot::ServiceLimits {
        keys_in_flight: [KeyInFlight {
            most,
            key: [source].into(),
            max_keys: 64,
        }]
        .into(),
        ..snapshot::ServiceLimits::default()
    };
    let none = Headers(&[]);
    let (ada, bob) = (request(&none, "192.0.2.1"), request(&none, "192.0.2.2"));
    let versions = || std::iter::empty();
    let before = ServiceLimits::default().next(&of(1, KeySource::ClientIp), versions());
    let inside = before.enter_keys(&ada).unwrap();
    assert_eq!(inside.len(), 1);
    assert!(before.enter_keys(&ada).is_err() && before.enter_keys(&bob).is_ok());
    let after = before.next(&of(2, KeySource::ClientIp), versions());
    let second = after.enter_keys(&ada).unwrap();
    assert!(after.enter_keys(&ada).is_err());
    assert_eq!(after.rejected_by_key(), 2);
    drop((inside, second));
    assert!(after.enter_keys(&ada).is_ok());
    let by_header = after.next(&of(1, KeySource::Header("x-key".into())), versions());
    assert_eq!(by_header.enter_keys(&ada).unwrap().len(), 0, "no key, no limit");
}

#[test]
fn a_limit_that_refuses_leaves_no_other_counted() {
    let limit = |most, source| KeyInFlight {
        most,
        key: [source].into(),
        max_keys: 64,
    };
    let spec = snapshot::ServiceLimits {
        keys_in_flight: [
            limit(5, KeySource::ClientIp),
            limit(1, KeySource::Header("x-key".into())),
        ]
        .into(),
        ..snapshot::ServiceLimits::default()
    };
    let limits = ServiceLimits::default().next(&spec, std::iter::empty());
    let fields = Headers(&[("x-key", "ada")]);
    let ada = request(&fields, "192.0.2.1");
    let inside = limits.enter_keys(&ada).unwrap();
    for _ in 0..9 {
        assert!(limits.enter_keys(&ada).is_err());
    }
    let counted = |limits: &ServiceLimits| limits.keys.iter().map(|(_, gates)| gates.total()).sum::<u64>();
    assert_eq!(counted(&limits), 2);
    drop(inside);
    assert_eq!(counted(&limits), 0);
}
