use super::*;
use crate::analysis::{Arm, Counts, Evidence, LimitEvidence};
use proptest::prelude::*;

const TRAFFIC: Traffic = Traffic {
    rate: 50.0,
    share: 0.1,
    bad: 0.005,
    tolerance: 0.0,
    needed: 20.0,
};

/// The table of the design, found there by simulation of the plain mixture: bad requests for a chance of 80 % at 1 in 20.
#[test]
fn it_agrees_with_the_published_table() {
    let table = [
        (0.01, [6146.0, 1736.0, 171.0, 57.0]),
        (0.05, [1332.0, 421.0, 46.0, 17.0]),
        (0.1, [686.0, 188.0, 25.0, 11.0]),
        (0.25, [358.0, 119.0, 19.0, 10.0]),
        (0.5, [268.0, 100.0, 24.0, 14.0]),
    ];
    for (share, row) in table {
        let power = Power::new(Traffic {
            share,
            bad: 1e-6,
            ..TRAFFIC
        })
        .unwrap();
        let found = [1.5, 2.0, 5.0, 10.0].map(|times| power.bad_to_find(times).unwrap());
        println!("{share}: {found:?}");
        for (bad, published) in found.into_iter().zip(row) {
            assert!(
                bad >= published * 0.9 - 4.0 && bad <= published * 1.25 + 3.0,
                "{share}: {found:?}, {row:?}"
            );
        }
    }
}

/// The real thing, second by second, finds about as many as foretold.
#[test]
fn what_is_foretold_happens() {
    for (rate, times, seconds) in [(50.0, 2.0, 1_200), (50.0, 5.0, 60), (5.0, 5.0, 500)] {
        let power = Power::new(Traffic { rate, ..TRAFFIC }).unwrap();
        let foretold = power.chance(times, Duration::from_secs(seconds));
        let runs = 200;
        let found = (0..runs).filter(|seed| {
            let mut rng = fastrand::Rng::with_seed(*seed);
            let mut draw = |count: u64, bad: f64| Arm {
                begun: count,
                ended: count,
                bad: (0..count).map(|_| u64::from(rng.f64() < bad)).sum(),
            };
            let mut evidence = Evidence::new(0.0);
            (0..seconds).any(|second| {
                // A tenth of them, whole numbers at a time.
                let candidate = ((second + 1) as f64 * rate * 0.1) as u64 - (second as f64 * rate * 0.1) as u64;
                let seen = Counts {
                    candidate: draw(candidate, 0.005 * times),
                    stable: draw(rate as u64 - candidate, 0.005),
                };
                evidence.tick(seen, 0.1, Duration::from_secs(1));
                evidence.log() >= 20_f64.ln()
            })
        });
        let found = found.count() as f64 / f64::from(runs as u32);
        println!("{rate}/s {times}x {seconds} s: foretold {foretold:.2}, found {found:.2}");
        assert!(
            (foretold - found).abs() <= 0.15,
            "{rate}/s {times}x: foretold {foretold}, found {found}"
        );
    }
}

#[test]
fn the_approximation_takes_over_where_the_walk_ends() {
    for (share, times) in [(0.5, 1.2), (0.5, 1.3), (0.1, 1.3)] {
        let power = Power::new(Traffic { share, ..TRAFFIC }).unwrap();
        let (exact, approximate) = (
            power.walk.chances(power.chance_of_candidate(times)).last().unwrap(),
            power
                .walk
                .approximate_chance(power.chance_of_candidate(times), STEPS as f64),
        );
        println!("{share} {times}x: {exact} {approximate}");
        assert!(
            approximate <= exact + 0.02 && approximate >= exact - 0.25,
            "{share} {times}x: {exact} {approximate}"
        );
    }
    let power = Power::new(Traffic { share: 0.01, ..TRAFFIC }).unwrap();
    let bad = power.bad_to_find(1.3).unwrap();
    assert!((12_000.0..30_000.0).contains(&bad), "{bad}");
    assert_eq!(power.bad_to_find(1.01), None, "as good as the same");
}

#[test]
fn what_cannot_be_compared_has_no_power() {
    for traffic in [
        Traffic { share: 0.0, ..TRAFFIC },
        Traffic { share: 1.0, ..TRAFFIC },
        Traffic { rate: 0.0, ..TRAFFIC },
        Traffic { bad: 0.0, ..TRAFFIC },
        Traffic {
            bad: f64::NAN,
            ..TRAFFIC
        },
        Traffic {
            needed: f64::INFINITY,
            ..TRAFFIC
        },
        Traffic {
            tolerance: -1.0,
            ..TRAFFIC
        },
    ] {
        assert!(Power::new(traffic).is_none(), "{traffic:?}");
    }
}

/// Of a limit, second by second.
#[test]
fn what_a_limit_is_foretold_to_find_it_finds() {
    for (rate, limit, bad, seconds) in [(20.0, 0.02, 0.04, 60), (5.0, 0.02, 0.1, 25), (50.0, 0.01, 0.015, 150)] {
        let foretold = LimitPower::new(rate, limit, 100.0)
            .unwrap()
            .chance(bad, Duration::from_secs(seconds));
        let runs = 200;
        let found = (0..runs).filter(|seed| {
            let mut rng = fastrand::Rng::with_seed(*seed);
            let mut evidence = LimitEvidence::of_failures(limit);
            (0..seconds).any(|_| {
                let count = rate as u64;
                let bad = (0..count).map(|_| u64::from(rng.f64() < bad)).sum();
                let seen = Arm {
                    begun: count,
                    ended: count,
                    bad,
                };
                evidence.tick(seen, Duration::from_secs(1));
                evidence.log() >= 100_f64.ln()
            })
        });
        let found = found.count() as f64 / f64::from(runs as u32);
        println!("{rate}/s {limit} {bad}: foretold {foretold:.2}, found {found:.2}");
        assert!((0.2..0.98).contains(&foretold), "says something: {foretold}");
        assert!(
            (foretold - found).abs() <= 0.15,
            "{rate}/s {bad}: foretold {foretold}, found {found}"
        );
    }
}

#[test]
fn a_limit_without_traffic_or_sense_finds_nothing() {
    for (rate, limit, needed) in [
        (0.0, 0.02, 100.0),
        (1.0, 1.0, 100.0),
        (1.0, 2.0, 100.0),
        (f64::INFINITY, 0.02, 100.0),
        (1.0, 0.02, 0.0),
    ] {
        assert!(
            LimitPower::new(rate, limit, needed).is_none(),
            "{rate} {limit} {needed}"
        );
    }
    let strict = LimitPower::new(100.0, 0.0, 100.0).unwrap();
    assert!(strict.smallest_found(Duration::from_secs(600)).unwrap() < 0.001);
    assert_eq!(strict.smallest_found(Duration::ZERO), None);
    let loose = LimitPower::new(100.0, 0.02, 100.0).unwrap();
    assert_eq!(loose.hold_to_find(0.01), None, "what is within the limit");
    assert!(loose.hold_to_find(1.0).unwrap() < Duration::from_secs(1));
}

#[test]
fn a_step_too_short_finds_nothing_and_a_long_one_nearly_everything() {
    let power = Power::new(TRAFFIC).unwrap();
    assert_eq!(power.smallest_found(Duration::ZERO), None);
    assert_eq!(power.chance(200.0, Duration::ZERO), 0.0);
    let after = |minutes: u64| power.smallest_found(Duration::from_secs(60 * minutes)).unwrap();
    println!(
        "{:.2} {:.2} {:.2} {:.2}",
        after(1),
        after(10),
        after(30),
        after(100_000)
    );
    assert!(after(1) > after(10) && after(10) > after(30) && after(30) > after(100_000));
    assert!(after(100_000) < 1.3, "{}", after(100_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn more_traffic_more_time_and_a_worse_candidate_are_found_sooner(
        share in 0.01..0.6, bad in 0.001..0.05, times in 1.5..20.0, minutes in 1_u64..60,
    ) {
        let power = Power::new(Traffic { share, bad, tolerance: 0.1, ..TRAFFIC }).unwrap();
        let hold = Duration::from_secs(60 * minutes);
        let chance = power.chance(times, hold);
        prop_assert!((0.0..=1.0 + 1e-9).contains(&chance));
        prop_assert!(power.chance(times * 1.5, hold) >= chance - 0.02);
        prop_assert!(power.chance(times, hold * 2) >= chance - 0.02);
        prop_assert!(power.bad_to_find(times) >= power.bad_to_find(times * 1.5).map(|bad| bad * 0.98));
        if let Some(hold) = power.hold_to_find(times) {
            prop_assert!(power.chance(times, hold + Duration::from_secs(1) + hold / 50) >= POWER - 0.03);
        }
    }

    #[test]
    fn more_requests_and_a_worse_candidate_break_a_limit_sooner(
        rate in 0.5..500.0, limit in 0.001..0.2, times in 1.2..20.0, minutes in 1_u64..60,
    ) {
        let power = LimitPower::new(rate, limit, 100.0).unwrap();
        let (hold, bad) = (Duration::from_secs(60 * minutes), f64::min(limit * times, 1.0));
        let chance = power.chance(bad, hold);
        prop_assert!((0.0..=1.0 + 1e-9).contains(&chance));
        prop_assert!(power.chance(bad * 1.5, hold) >= chance - 0.02);
        prop_assert!(power.chance(bad, hold * 2) >= chance - 0.02);
        if let Some(found) = power.smallest_found(hold) {
            prop_assert!(found > limit && power.chance(found, hold) >= POWER);
        }
        if let Some(hold) = power.hold_to_find(bad) {
            prop_assert!(power.chance(bad, hold + Duration::from_secs(1) + hold / 50) >= POWER - 0.03);
        }
    }
}
