use super::*;
use proptest::prelude::*;

fn of(durations: &[u64]) -> Histogram {
    let mut histogram = Histogram::default();
    durations.iter().for_each(|us| histogram.record(*us));
    histogram
}

#[test]
fn buckets_tile_the_durations_without_gap_or_overlap() {
    assert_eq!(BUCKETS, 1358);
    assert_eq!(bounds_of(0).0, MIN_US);
    assert_eq!(bounds_of(BUCKETS - 1).1, MAX_US + 1);
    for bucket in 0..BUCKETS {
        let (low, high) = bounds_of(bucket);
        assert_eq!(bucket_of(low), bucket);
        assert_eq!(bucket_of(high - 1), bucket);
        assert_eq!(bucket_of(high), (bucket + 1).min(BUCKETS - 1));
        let error = (high - low) as f64 / 2.0 / low as f64;
        assert!(error <= 0.01, "{low}..{high} us: {error}");
    }
}

#[test]
fn durations_out_of_range_are_counted_at_the_ends() {
    for us in [0, 1, 49, 50] {
        assert_eq!(bucket_of(us), 0, "{us}");
    }
    for us in [MAX_US, MAX_US + 1, u64::MAX] {
        assert_eq!(bucket_of(us), BUCKETS - 1, "{us}");
    }
    assert_eq!(of(&[0, u64::MAX]).count(), 2);
}

#[test]
fn an_empty_histogram_has_no_quantile() {
    assert_eq!(Histogram::default().quantile(0.99), None);
    assert_eq!(Histogram::default().above(0), 0);
}

#[test]
fn a_bucket_that_does_not_exist_is_refused_when_read() {
    let error = serde_json::from_str::<Histogram>("[[3,1],[1358,1]]").unwrap_err();
    assert!(error.to_string().contains("there is no bucket 1358"), "{error}");
    assert_eq!(serde_json::from_str::<Histogram>("[[1357,2]]").unwrap().count(), 2);
}

#[test]
fn counts_do_not_overflow() {
    let mut histogram = Histogram::default();
    histogram.add(1, u64::MAX);
    histogram.add(2, u64::MAX);
    histogram.merge(&histogram.clone());
    assert_eq!(histogram.count(), u64::MAX);
    assert_eq!(histogram.quantile_bucket(0.5), Some(1));
}

proptest! {
    #[test]
    fn a_duration_is_in_the_bounds_of_its_bucket(us in MIN_US..=MAX_US) {
        let (low, high) = bounds_of(bucket_of(us));
        prop_assert!(low <= us && us < high);
    }

    #[test]
    fn longer_durations_are_never_in_an_earlier_bucket(a in any::<u64>(), b in any::<u64>()) {
        prop_assert!(bucket_of(a.min(b)) <= bucket_of(a.max(b)));
    }

    #[test]
    fn a_quantile_is_within_one_percent_of_the_exact_one(
        mut durations in prop::collection::vec(MIN_US..MAX_US, 1..200),
        quantile in 0.0..=1.0,
    ) {
        let found = of(&durations).quantile(quantile).unwrap();
        durations.sort_unstable();
        let rank = ((durations.len() as f64 * quantile).ceil() as usize).max(1);
        let exact = durations[rank - 1];
        prop_assert!(found.low_us <= exact && exact < found.high_us);
        prop_assert!((found.middle_us() - exact as f64).abs() <= 0.01 * exact as f64);
    }

    #[test]
    fn above_counts_only_what_is_longer_and_misses_at_most_a_bucket(
        durations in prop::collection::vec(MIN_US..MAX_US, 0..200),
        limit in MIN_US..MAX_US,
    ) {
        let longer = |limit: f64| durations.iter().filter(|us| **us as f64 > limit).count() as u64;
        let above = of(&durations).above(limit);
        prop_assert!(above <= longer(limit as f64));
        prop_assert!(above >= longer(limit as f64 * 1.02));
    }

    #[test]
    fn merging_and_taking_away_are_exact(
        a in prop::collection::vec(any::<u64>(), 0..100),
        b in prop::collection::vec(any::<u64>(), 0..100),
    ) {
        let mut both = of(&a);
        both.merge(&of(&b));
        prop_assert_eq!(&both, &of(&[a.clone(), b.clone()].concat()));
        prop_assert_eq!(both.since(&of(&a)), of(&b));
        prop_assert_eq!(of(&a).since(&both).count(), 0);
    }

    #[test]
    fn what_is_written_is_read_again(durations in prop::collection::vec(any::<u64>(), 0..100)) {
        let histogram = of(&durations);
        let text = serde_json::to_string(&histogram).unwrap();
        prop_assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), histogram);
    }
}
