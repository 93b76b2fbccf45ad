use super::*;
use proptest::prelude::*;

/// By how much the mean of `E` is multiplied by a batch of `trials`, each a hit with probability `p`, exactly.
fn rise(mixture: &Mixture, null: f64, p: f64, trials: u64) -> f64 {
    let mut chance = (1.0 - p).powi(trials as i32);
    let mut mean = 0.0;
    for hits in 0..=trials {
        mean += chance * (mixture.log_with(null, hits, trials) - now(mixture)).exp();
        chance *= (trials - hits) as f64 / (hits + 1) as f64 * p / (1.0 - p);
    }
    mean
}

/// `ln E`.
fn now(mixture: &Mixture) -> f64 {
    mixture.log_with(0.0, 0, 0)
}

fn batches() -> impl Strategy<Value = Vec<(f64, u64, u64)>> {
    let batch = (0.001..0.999, 0_u64..30).prop_flat_map(|(null, trials)| (Just(null), 0..=trials, Just(trials)));
    prop::collection::vec(batch, 0..30)
}

fn after(batches: &[(f64, u64, u64)]) -> Mixture {
    let mut mixture = Mixture::default();
    batches
        .iter()
        .for_each(|(null, hits, trials)| mixture.charge(*null, *hits, *trials));
    mixture
}

proptest! {
    /// The martingale itself: whatever came before, the mean does not rise where the candidate is innocent; and stays
    /// where it is just so, so nothing is given away either.
    #[test]
    fn the_mean_never_rises_for_an_innocent_candidate(
        history in batches(),
        null in 0.001..0.999,
        innocence in 0.0..=1.0,
        trials in 0_u64..40,
    ) {
        let mixture = after(&history);
        prop_assert!(rise(&mixture, null, null * innocence, trials) <= 1.0 + 1e-9);
        prop_assert!((rise(&mixture, null, null, trials) - 1.0).abs() <= 1e-9);
    }

    #[test]
    fn a_charge_is_what_was_foretold_and_lays_out_stakes_that_come_from_what_was_unspent(
        history in batches(),
        null in 0.001..0.999,
        trials in 1_u64..40,
    ) {
        let mut mixture = after(&history);
        let hits = trials / 3;
        let foretold = mixture.log_with(null, hits, trials);
        mixture.charge(null, hits, trials);
        prop_assert!((now(&mixture) - foretold).abs() <= 1e-9);
    }

    #[test]
    fn hits_speak_against_the_candidate_and_other_trials_for_it(
        history in batches(), null in 0.001..0.999, hits in 0_u64..20, others in 0_u64..20,
    ) {
        let mixture = after(&history);
        let log = mixture.log_with(null, hits, hits + others);
        prop_assert!(mixture.log_with(null, hits + 1, hits + 1 + others) > log - 1e-12);
        prop_assert!(mixture.log_with(null, hits, hits + others + 1) < log + 1e-12);
        prop_assert!(mixture.log_with((null * 1.1).min(1.0), hits, hits + others) <= log + 1e-12);
    }

    #[test]
    fn what_is_written_is_read_again_and_goes_on_alike(history in batches(), more in batches()) {
        let mut kept = after(&history);
        let text = serde_json::to_string(&kept).unwrap();
        let mut restored: Mixture = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&restored, &kept);
        for (null, hits, trials) in more {
            kept.charge(null, hits, trials);
            restored.charge(null, hits, trials);
        }
        prop_assert_eq!(restored, kept);
    }
}

#[test]
fn it_begins_at_one_and_says_nothing_about_nothing() {
    let mut mixture = Mixture::default();
    assert!(now(&mixture).abs() < 1e-12);
    for null in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
        mixture.charge(null, 3, 5);
    }
    mixture.charge(0.5, 0, 0);
    assert_eq!(mixture, Mixture::default());
}

#[test]
fn the_stakes_never_sum_to_more_than_one_and_last_for_weeks() {
    let mut left = unspent(0.0);
    assert_eq!(left, 1.0 - FIRST_STAKE);
    for expected in [1.0, 1e3, 1e6, 1e9, 1e12] {
        assert!(unspent(expected) < left && unspent(expected) > 0.01, "{expected}");
        left = unspent(expected);
    }
}

/// A fault that begins late is found nearly as fast as one that is there from the start.
#[test]
fn a_long_good_record_buys_a_candidate_few_failures() {
    for (bad_before, most) in [(0, 4), (300, 8), (20_000, 11)] {
        let mut mixture = Mixture::default();
        for batch in 0..bad_before / 10 {
            mixture.charge(0.1, u64::from(batch % 10 == 0) * 10, 10);
        }
        let failures = (1..1000).find(|failures| mixture.log_with(0.1, *failures, *failures) >= 100_f64.ln());
        assert!(failures.unwrap() <= most, "after {bad_before}: {failures:?}");
    }
}

#[test]
fn enormous_counts_give_numbers() {
    let mut mixture = Mixture::default();
    mixture.charge(0.5, u64::MAX, u64::MAX);
    mixture.charge(1e-300, 0, u64::MAX);
    mixture.charge(1.0, 0, u64::MAX);
    assert!(mixture.log_with(0.5, 1, 2).is_finite());
}
