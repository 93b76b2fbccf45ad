use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn normal(rng: &mut fastrand::Rng) -> f64 {
    (-2.0 * rng.f64().max(1e-300).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

type Draw = fn(&mut fastrand::Rng) -> f64;
const NORMAL: Draw = |rng| 100.0 + 10.0 * normal(rng);
/// One in twenty buys.
const RARE: Draw = |rng| f64::from(u8::from(rng.f64() < 0.05));
/// Baskets: a log-normal of skewness 6 (mean 1.65).
const BASKET: Draw = |rng| normal(rng).exp();
/// Pareto with 2.5 moments: the skewness is infinite.
const PARETO: Draw = |rng| rng.f64().max(1e-300).powf(-1.0 / 2.5);

fn values(rng: &mut fastrand::Rng, draw: Draw, count: u64, map: impl Fn(f64) -> f64) -> Moments {
    let mut moments = Moments::default();
    (0..count).for_each(|_| moments.record(map(draw(rng))));
    moments
}

fn ramp(second: usize) -> f64 {
    [0.02, 0.1, 0.5, 0.2][(second / 75) % 4]
}

/// Parts of 100 runs of five minutes at 100 values a second in which a difference was ever found at 1 in 100: as
/// significant, higher, or lower. `times`: what the candidate's values are multiplied by; the values of both drift.
fn found(draw: Draw, share: fn(usize) -> f64, times: f64) -> [f64; 3] {
    let runs = 100;
    let mut found = [0.0; 3];
    for seed in 0..runs {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut difference = MeanDifference::default();
        let mut ever = [false; 3];
        for second in 0..300 {
            let drift = 1.0 + second as f64 / 100.0;
            let of_candidate = (100.0 * share(second)) as u64;
            let candidate = values(&mut rng, draw, of_candidate, |value| value * times * drift);
            let stable = values(&mut rng, draw, 100 - of_candidate, |value| value * drift);
            difference.tick(candidate, stable, share(second), SECOND);
            let beyond = |worse| difference.log_worse(worse, 0.0).is_some_and(|log| log >= 100_f64.ln());
            ever[0] |= difference.difference(0.99).is_some_and(Difference::significant);
            ever[1] |= beyond(Worse::Higher);
            ever[2] |= beyond(Worse::Lower);
        }
        found
            .iter_mut()
            .zip(ever)
            .for_each(|(sum, ever)| *sum += f64::from(u8::from(ever)) / runs as f64);
    }
    found
}

#[test]
fn equal_means_are_not_told_apart_whatever_the_tails_the_ramp_and_the_drift() {
    for (name, draw) in [
        ("normal", NORMAL),
        ("rare", RARE),
        ("basket", BASKET),
        ("pareto", PARETO),
    ] {
        for share in [(|_| 0.1) as fn(usize) -> f64, |_| 0.02, ramp] {
            let found = found(draw, share, 1.0);
            println!("{name} at {}: {found:?}", share(0));
            assert!(
                found.iter().all(|part| *part <= 0.03),
                "{name} at {}: {found:?}",
                share(0)
            );
        }
    }
}

#[test]
fn different_means_are_told_apart() {
    for (name, draw, times) in [("normal", NORMAL, 1.02), ("rare", RARE, 1.7), ("basket", BASKET, 1.3)] {
        let [significant, higher, lower] = found(draw, |_| 0.1, times);
        println!("{name} {times}x: {significant} {higher} {lower}");
        assert!(
            significant >= 0.9 && higher >= significant && lower <= 0.03,
            "{name}: {significant} {higher} {lower}"
        );
    }
}

#[test]
fn a_tolerance_allows_what_it_says() {
    for (worse, times) in [(Worse::Higher, 1.1), (Worse::Lower, 0.9)] {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut difference = MeanDifference::default();
        let mut most: f64 = 0.0;
        for _ in 0..500 {
            let candidate = values(&mut rng, NORMAL, 20, |value| value * times);
            difference.tick(candidate, values(&mut rng, NORMAL, 180, |value| value), 0.1, SECOND);
            most = most.max(difference.log_worse(worse, 0.1).unwrap_or_default());
        }
        assert!(most < 20_f64.ln(), "{worse:?} at the edge: {most}");
        assert!(
            difference.log_worse(worse, 0.05).unwrap() > 1e3_f64.ln(),
            "{worse:?} beyond it"
        );
    }
}

#[test]
fn the_interval_holds_the_true_difference_at_every_instant() {
    let misses = (0..200).filter(|seed| {
        let mut rng = fastrand::Rng::with_seed(*seed);
        let mut difference = MeanDifference::default();
        (0..200).any(|_| {
            let candidate = values(&mut rng, BASKET, 20, |value| value + 0.5);
            difference.tick(candidate, values(&mut rng, BASKET, 60, |value| value), 0.25, SECOND);
            difference
                .difference(0.95)
                .is_some_and(|found| found.low > 0.5 || found.high < 0.5)
        })
    });
    let misses = misses.count();
    println!("{misses} of 200");
    assert!(misses <= 10, "{misses} of 200");
}

#[test]
fn a_mean_at_its_limit_is_not_called_beyond_it_and_one_beyond_is() {
    for (worse, limit, beyond) in [(Worse::Higher, 1.0, 0.8), (Worse::Lower, 1.0, 1.25)] {
        let ever = |limit: f64| {
            let runs = (0..200).filter(|seed| {
                let mut rng = fastrand::Rng::with_seed(*seed);
                let (mut all, mut stable) = (Moments::default(), Moments::default());
                (0..200).any(|_| {
                    all.add(values(&mut rng, BASKET, 20, |value| value / 1.648_721));
                    stable.add(values(&mut rng, BASKET, 20, |value| value / 1.648_721));
                    log_beyond(all, stable, limit, worse).is_some_and(|log| log >= 20_f64.ln())
                })
            });
            runs.count()
        };
        println!("{worse:?}: {} and {} of 200", ever(limit), ever(beyond));
        assert!(ever(limit) <= 10 && ever(beyond) >= 190, "{worse:?}");
    }
}

#[test]
fn few_values_say_nothing_and_equal_ones_only_that_nothing_is_worse() {
    let same = |value: f64, count: u64| Moments {
        count,
        sum: value * count as f64,
        sum_of_squares: value * value * count as f64,
    };
    let after = |candidate: f64, stable: f64, count: u64| {
        let mut difference = MeanDifference::default();
        difference.tick(same(candidate, count), same(stable, count), 0.5, SECOND);
        difference
    };
    assert_eq!(after(2.0, 2.0, BEGIN - 1).log_worse(Worse::Lower, 0.0), None);
    assert_eq!(after(2.0, 2.0, BEGIN).log_worse(Worse::Lower, 0.0), Some(0.0));
    assert_eq!(
        after(1.0, 2.0, BEGIN).log_worse(Worse::Lower, 0.0),
        None,
        "for how long?"
    );
    assert_eq!(after(1.0, 2.0, BEGIN).log_worse(Worse::Higher, 0.0), Some(0.0));
    assert_eq!(after(1.0, 2.0, BEGIN).difference(0.99), None);
    let beyond = |count: u64, limit: f64| log_beyond(same(1.0, count), same(1.0, count), limit, Worse::Higher);
    assert_eq!(beyond(BEGIN - 1, 2.0), None);
    assert_eq!(beyond(BEGIN, 2.0), Some(0.0));
    assert_eq!(beyond(BEGIN, 0.5), None);
}

#[test]
fn a_candidate_without_a_single_conversion_yet_is_not_convicted_by_chance() {
    let convicted = (0..500).filter(|seed| {
        let mut rng = fastrand::Rng::with_seed(*seed);
        let seldom: Draw = |rng| f64::from(u8::from(rng.f64() < 0.005));
        let mut difference = MeanDifference::default();
        let (mut all, mut all_stable) = (Moments::default(), Moments::default());
        (0..50).any(|_| {
            let (candidate, stable) = (
                values(&mut rng, seldom, 20, |value| value),
                values(&mut rng, seldom, 180, |value| value),
            );
            all.add(candidate);
            all_stable.add(stable);
            difference.tick(candidate, stable, 0.1, SECOND);
            let logs = [
                difference.log_worse(Worse::Lower, 0.0),
                log_beyond(all, all_stable, 0.005, Worse::Lower),
            ];
            logs.into_iter().flatten().any(|log| log >= 100_f64.ln())
        })
    });
    assert!(convicted.count() <= 5);
}

#[test]
fn a_report_says_what_is_significant() {
    let names = Names {
        candidate: "v2",
        stable: "v1",
    };
    let statement = |low: f64, high: f64| {
        let estimate = (low + high) / 2.0;
        Difference { estimate, low, high }.statement(names, "basket")
    };
    assert_eq!(
        statement(0.5, 2.5),
        "v2 has 1.5 more basket than v1 (from 0.5 to 2.5): significant"
    );
    assert_eq!(
        statement(-3.0, -2.0),
        "v2 has -2.5 more basket than v1 (from -3 to -2): significant"
    );
    assert_eq!(
        statement(-1.0, 2.0),
        "v2 has 0.5 more basket than v1 (from -1 to 2): not significant"
    );
}

#[test]
fn what_is_not_finite_is_not_a_value() {
    let mut moments = Moments::default();
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2.0]
        .iter()
        .for_each(|value| moments.record(*value));
    assert_eq!((moments.count, moments.mean()), (1, Some(2.0)));
}

proptest! {
    #[test]
    fn values_far_on_the_good_side_are_no_evidence(distance in 0.0..1e6) {
        let values = Moments { count: 1_000, sum: 0.0, sum_of_squares: 1_000.0 };
        let log = log_beyond(values, values, distance, Worse::Higher).unwrap();
        prop_assert!(log <= 0.0, "{log}");
        prop_assert!(log_scaled_phi(-20.0 - distance) <= log_scaled_phi(-20.0) + 0.01);
    }

    #[test]
    fn what_is_written_is_read_again(seed in any::<u64>()) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut kept = MeanDifference::default();
        for _ in 0..20 {
            kept.tick(values(&mut rng, BASKET, 15, |value| value), values(&mut rng, BASKET, 30, |value| value), 0.3, SECOND);
        }
        kept.burst(values(&mut rng, BASKET, 5, |value| value), Moments::default());
        let restored: MeanDifference = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        prop_assert_eq!(restored, kept);
    }

    #[test]
    fn moments_are_those_of_the_values(values in prop::collection::vec(-1e6..1e6, 1..50)) {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.record(*value));
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let scatter: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        prop_assert!((moments.mean().unwrap() - mean).abs() <= 1e-6);
        prop_assert!((moments.scatter() - scatter).abs() <= 1e-6 * (1.0 + moments.sum_of_squares));
    }
}
