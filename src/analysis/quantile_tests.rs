use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// `count` latencies, exponential above 20 ms, with a mean of 100 ms, times `times`.
fn latencies(rng: &mut fastrand::Rng, count: u64, times: f64) -> Histogram {
    let mut histogram = Histogram::default();
    for _ in 0..count {
        let us = 20_000.0 - 80_000.0 * rng.f64().max(1e-12).ln();
        histogram.record((us * times) as u64);
    }
    histogram
}

/// Second and runs in which the candidate was found slower at 1 in 20, of 30 runs of `seconds`.
fn found(quantile: f64, times: f64, seconds: usize, share: fn(usize) -> f64, drift: fn(usize) -> f64) -> Vec<usize> {
    let runs = (0..30).filter_map(|seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut evidence = QuantileEvidence::new(quantile, 0.2);
        (0..seconds).find(|second| {
            let (share, drift) = (share(*second), drift(*second));
            let of_candidate = (100.0 * share) as u64;
            let candidate = latencies(&mut rng, of_candidate, drift * times);
            let stable = latencies(&mut rng, 100 - of_candidate, drift);
            evidence.tick(&candidate, &stable, share, SECOND);
            evidence.log() >= 20_f64.ln()
        })
    });
    runs.collect()
}

#[test]
fn a_candidate_within_the_tolerance_is_not_found_slow_whatever_drifts() {
    for quantile in [0.5, 0.99] {
        for times in [1.0, 1.2] {
            let steady = found(quantile, times, 300, |_| 0.1, |_| 1.0);
            let ramp = found(
                quantile,
                times,
                300,
                |second| [0.05, 0.2, 0.5, 0.1][second / 75],
                |second| 1.0 + second as f64 / 100.0,
            );
            println!("p{quantile} {times}x: {} and {} of 30", steady.len(), ramp.len());
            assert!(
                steady.len() <= 2 && ramp.len() <= 2,
                "p{quantile} {times}x: {steady:?} {ramp:?}"
            );
        }
    }
}

#[test]
fn a_slower_candidate_is_found_soon() {
    for (quantile, times, most) in [(0.5, 1.5, 90), (0.99, 1.5, 120), (0.99, 2.0, 40)] {
        let mut seconds = found(quantile, times, 400, |_| 0.1, |_| 1.0);
        seconds.sort_unstable();
        println!(
            "p{quantile} {times}x: {} of 30, median {} s",
            seconds.len(),
            seconds[seconds.len() / 2]
        );
        assert!(
            seconds.len() == 30 && seconds[15] <= most,
            "p{quantile} {times}x: {seconds:?}"
        );
    }
}

#[test]
fn a_candidate_that_becomes_slow_late_is_found_soon() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut evidence = QuantileEvidence::new(0.99, 0.2);
    let mut second = |times: f64, evidence: &mut QuantileEvidence| {
        let (candidate, stable) = (latencies(&mut rng, 20, times), latencies(&mut rng, 180, 1.0));
        evidence.tick(&candidate, &stable, 0.1, SECOND);
        evidence.log() >= 20_f64.ln()
    };
    (0..1_000).for_each(|_| assert!(!second(1.0, &mut evidence)));
    let found = (1..200).find(|_| second(2.0, &mut evidence));
    assert!(found.is_some_and(|seconds| seconds <= 20), "{found:?}");
}

#[test]
fn without_stables_latencies_there_is_no_threshold_and_no_evidence() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut evidence = QuantileEvidence::new(0.99, 0.2);
    for _ in 0..100 {
        evidence.tick(&latencies(&mut rng, 10, 9.0), &Histogram::default(), 0.1, SECOND);
    }
    assert_eq!(evidence.thresholds_us(), None);
    assert!(evidence.log().abs() < 1e-9);
    evidence.tick(&Histogram::default(), &latencies(&mut rng, 1_000, 1.0), 0.1, SECOND);
    let (of_stable, of_candidate) = evidence.thresholds_us().unwrap();
    assert!((380_000..420_000).contains(&of_stable), "{of_stable}");
    assert!(of_candidate as f64 >= of_stable as f64 * 1.2 && (of_candidate as f64) < of_stable as f64 * 1.22);
}

#[test]
fn the_threshold_follows_stable() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut evidence = QuantileEvidence::new(0.9, 0.2);
    let mut threshold = |times: f64| {
        for _ in 0..100 {
            evidence.tick(
                &latencies(&mut rng, 20, times),
                &latencies(&mut rng, 180, times),
                0.1,
                SECOND,
            );
        }
        evidence.thresholds_us().unwrap().0 as f64
    };
    let before = threshold(1.0);
    let ratio = threshold(3.0) / before;
    assert!((2.8..3.2).contains(&ratio), "{ratio}");
}

proptest! {
    #[test]
    fn the_candidates_threshold_is_never_below_the_tolerance(us in 50_u64..100_000_000, tolerance in 0.0..3.0) {
        let bucket = bucket_from(us, tolerance);
        let edge = us as f64 * (1.0 + tolerance);
        prop_assert!(bucket == BUCKETS || bounds_of(bucket).0 as f64 >= edge);
        prop_assert!(bucket == BUCKETS || (bounds_of(bucket).0 as f64) <= edge * 1.02 + 1.0);
    }

    #[test]
    fn what_is_written_is_read_again_and_goes_on_alike(seed in any::<u64>()) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut kept = QuantileEvidence::new(0.9, 0.1);
        for _ in 0..20 {
            kept.tick(&latencies(&mut rng, 20, 1.2), &latencies(&mut rng, 50, 1.0), 0.3, SECOND);
        }
        let mut restored: QuantileEvidence = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        prop_assert_eq!(&restored, &kept);
        let (candidate, stable) = (latencies(&mut rng, 20, 1.2), latencies(&mut rng, 50, 1.0));
        kept.burst(&candidate, &stable);
        restored.burst(&candidate, &stable);
        prop_assert_eq!(restored, kept);
    }
}
