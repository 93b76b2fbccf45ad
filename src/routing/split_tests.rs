use super::*;
use crate::routing::{Fallback, Version, VersionId};
use proptest::prelude::*;

const HASHES: [HashName; 3] = [HashName::Rollgate1, HashName::Unleash1, HashName::Flagd2];

/// A service of `versions` versions called v0, v1, ...; the one at `stable` is stable.
fn service(versions: usize, stable: usize) -> Service {
    let role = |index| if index == stable { Role::Stable } else { Role::Canary };
    Service {
        name: "checkout".into(),
        versions: (0..versions)
            .map(|index| Version {
                name: format!("v{index}").into(),
                role: role(index),
            })
            .collect(),
        stable: VersionId(stable as u32),
        affinity: None,
        rules: [].into(),
        fallback: Fallback::Stable,
    }
}

fn split(weights: &[u32]) -> Split {
    Split::new(weights).unwrap()
}

fn user(number: u64) -> String {
    format!("user-{number}")
}

/// How many of `users` users each version gets.
fn census(split: &Split, hash: HashName, service: &Service, users: u64) -> Vec<u64> {
    let mut counts = vec![0; split.weights().len()];
    for number in 0..users {
        counts[split.by_user(hash, "checkout", user(number).as_bytes(), service).index] += 1;
    }
    counts
}

/// Whether `count` of `total` is within 4 standard deviations of `share` (0 to 1).
fn is_within(count: u64, total: u64, share: f64) -> bool {
    let (total, count) = (total as f64, count as f64);
    (count - total * share).abs() <= 4.0 * (total * share * (1.0 - share)).sqrt()
}

#[test]
fn no_weight_is_no_split() {
    assert_eq!(Split::new([]), None);
    assert_eq!(Split::new([0, 0]), None);
    let split = split(&[3, 0, 1]);
    assert_eq!(
        (split.share_percent(0), split.share_percent(1), split.share_percent(9)),
        (75.0, 0.0, 0.0)
    );
    assert_eq!((split.weight(2), split.weight(9)), (1, 0));
}

#[test]
fn ten_thousand_turns_at_five_percent_give_500_within_3() {
    for weights in [[95, 5], [5, 95]] {
        let split = split(&weights);
        let canary = usize::from(weights[1] == 5);
        // Every run of 10,000 among the first 200,000 turns, and among others far away (the counter wraps).
        for first in [0, u64::MAX / 3, u64::MAX - 100_000] {
            let hits: Vec<bool> = (0..200_000)
                .map(|n| split.by_turn(first.wrapping_add(n)) == canary)
                .collect();
            let mut count = hits[..10_000].iter().filter(|&&hit| hit).count();
            for end in 10_000..hits.len() {
                assert!(
                    count.abs_diff(500) <= 3,
                    "{count} in the run before turn {end} from {first}"
                );
                count += usize::from(hits[end]);
                count -= usize::from(hits[end - 10_000]);
            }
        }
    }
}

#[test]
fn turns_do_not_come_in_bursts() {
    let five = split(&[95, 5]);
    let hits: Vec<u64> = (0..100_000).filter(|&turn| five.by_turn(turn) == 1).collect();
    for pair in hits.windows(2) {
        assert!((8..=34).contains(&(pair[1] - pair[0])), "{pair:?}");
    }
    let half = split(&[1, 1]);
    for turn in 0..100_000 {
        let run: usize = (turn..turn + 4).map(|turn| half.by_turn(turn)).sum();
        assert!((1..=3).contains(&run), "four in a row at {turn}");
    }
}

#[test]
fn nobody_at_0_and_everybody_at_100_percent() {
    let two = service(2, 0);
    for number in 0..5_000 {
        for hash in HASHES {
            let index = |weights: &[u32]| split(weights).by_user(hash, "s", user(number).as_bytes(), &two).index;
            assert_eq!(index(&[100, 0]), 0, "{hash:?}");
            assert_eq!(index(&[0, 100]), 1, "{hash:?}");
        }
        assert_eq!(split(&[100, 0]).by_turn(number), 0);
        assert_eq!(split(&[0, 100]).by_turn(number), 1);
    }
}

/// Off by one at a boundary is the commonest bug of the field.
#[test]
fn the_canary_starts_and_ends_at_its_bucket() {
    let two = service(2, 0);
    for number in 0..2_000 {
        let key = user(number);
        let bucket = HashName::Rollgate1.bucket("s", key.as_bytes());
        let index = |canary: u32| {
            split(&[BUCKETS - canary, canary])
                .by_user(HashName::Rollgate1, "s", key.as_bytes(), &two)
                .index
        };
        assert_eq!(index(bucket), 0, "bucket {bucket} is not below {bucket}");
        assert_eq!(index(bucket + 1), 1, "bucket {bucket} is below {}", bucket + 1);
    }
}

#[test]
fn flagd_preimages_fall_as_flagd_has_them() {
    let two = service(2, 0);
    let index = |key: &str, weights: &[u32]| split(weights).by_user(HashName::Flagd2, "", key.as_bytes(), &two).index;
    assert_eq!(index("ejOoVL", &[1, 99]), 0);
    assert_eq!(index("bY9fO-", &[1, 99]), 0);
    assert_eq!(index("SI7p-", &[50, 50]), 0);
    assert_eq!(index("6LvT0", &[50, 50]), 1);
    assert_eq!(index("ceQdGm", &[99, 1]), 1);
}

#[test]
fn unleash_users_fall_as_unleash_has_them() {
    let two = service(2, 0);
    let hash = HashName::Unleash1;
    // user-1 stands at 95, alice at 32 in the group `demo`.
    for (key, first_share) in [("user-1", 95), ("alice", 32)] {
        let index = |share: u32| {
            split(&[100 - share, share])
                .by_user(hash, "demo", key.as_bytes(), &two)
                .index
        };
        assert_eq!((index(first_share - 1), index(first_share)), (0, 1), "{key}");
    }
    // As variants, user-1 stands at 93 of 100, bob at 5.
    let three = service(3, 0);
    let index = |key: &str, weights: &[u32]| split(weights).by_user(hash, "demo", key.as_bytes(), &three).index;
    for (weights, user_1, bob) in [
        ([4, 88, 8], 2, 1),
        ([5, 88, 7], 1, 0),
        ([92, 1, 7], 1, 0),
        ([93, 1, 6], 0, 0),
    ] {
        assert_eq!(
            (index("user-1", &weights), index("bob", &weights)),
            (user_1, bob),
            "{weights:?}"
        );
    }
}

#[test]
fn a_hundred_thousand_users_are_split_as_asked() {
    let two = service(2, 0);
    for hash in HASHES {
        for (canary, whole) in [(1, 1_000), (1, 100), (10, 100), (50, 100)] {
            // Unleash has whole percents only: 0.1 % admits nobody there.
            if hash == HashName::Unleash1 && whole > 100 {
                continue;
            }
            let counts = census(&split(&[whole - canary, canary]), hash, &two, 100_000);
            let share = f64::from(canary) / f64::from(whole);
            assert!(is_within(counts[1], 100_000, share), "{hash:?} {share}: {counts:?}");
        }
    }
}

#[test]
fn many_versions_get_their_shares() {
    for (weights, stable) in [
        (&[90, 5, 5][..], 0),
        (&[5, 90, 5], 1),
        (&[1, 1, 1, 997], 3),
        (&[40, 0, 30, 20, 10], 0),
        (&[0, 10, 20], 0),
        (&[10, 0, 20, 30], 2),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 4),
        (&[1; 10], 9),
    ] {
        let service = service(weights.len(), stable);
        let total: u32 = weights.iter().sum();
        for hash in HASHES {
            let counts = census(&split(weights), hash, &service, 100_000);
            for (index, &weight) in weights.iter().enumerate() {
                let share = f64::from(weight) / f64::from(total);
                assert!(
                    is_within(counts[index], 100_000, share),
                    "{hash:?} {weights:?}: {counts:?}"
                );
            }
        }
    }
}

#[test]
fn a_third_version_takes_a_third_of_either() {
    let service = service(3, 0);
    let (before, after) = (split(&[50, 50, 0]), split(&[50, 50, 50]));
    let (mut had, mut lost) = ([0; 2], [0; 2]);
    for number in 0..100_000 {
        let key = user(number);
        let was = before.by_user(HashName::Rollgate1, "s", key.as_bytes(), &service).index;
        let is = after.by_user(HashName::Rollgate1, "s", key.as_bytes(), &service).index;
        had[was] += 1;
        lost[was] += u64::from(is == 2);
    }
    for version in [0, 1] {
        assert!(is_within(lost[version], had[version], 1.0 / 3.0), "{lost:?} of {had:?}");
    }
}

/// Computed once and frozen: `rollgate-1` never changes meaning, with many versions neither.
#[test]
fn the_race_is_frozen() {
    let (split, service) = (split(&[40, 20, 20, 20]), service(4, 0));
    let drawn: String = (0..40)
        .map(|number| {
            split
                .by_user(HashName::Rollgate1, "checkout", user(number).as_bytes(), &service)
                .index
        })
        .map(|index| index.to_string())
        .collect();
    assert_eq!(drawn, "2200102112130023320000120112122100000120");
}

#[test]
fn ten_to_twenty_moves_nobody_off_and_back_moves_half() {
    let two = service(2, 0);
    let at = |share: u32, key: &str| {
        split(&[100 - share, share])
            .by_user(HashName::Rollgate1, "s", key.as_bytes(), &two)
            .index
    };
    let (mut in_ten, mut in_twenty) = (0, 0);
    for number in 0..100_000 {
        let key = user(number);
        let (ten, twenty) = (at(10, &key), at(20, &key));
        assert!(ten <= twenty, "{key}");
        in_ten += ten as u64;
        in_twenty += twenty as u64;
    }
    assert!(is_within(in_ten, in_twenty, 0.5), "{in_ten} of {in_twenty}");
}

/// Weights of 2 to 10 versions, not all zero; where stable is; which one is changed, and to what.
fn changes() -> impl Strategy<Value = (Vec<u32>, usize, usize, u32)> {
    let weight = prop_oneof![2 => Just(0u32), 4 => 0u32..=100, 2 => 0u32..=1_000_000, 1 => any::<u32>()];
    (
        prop::collection::vec(weight.clone(), 2..=10),
        any::<usize>(),
        any::<usize>(),
        weight,
    )
        .prop_map(|(weights, stable, changed, to)| {
            let len = weights.len();
            (weights, stable % len, changed % len, to)
        })
        .prop_filter("no weight", |(weights, _, changed, to)| {
            let others: u64 = weights.iter().map(|&w| u64::from(w)).sum::<u64>() - u64::from(weights[*changed]);
            others > 0 || (weights[*changed] > 0 && *to > 0)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_risen_version_only_gains_and_a_fallen_one_only_loses(
        (weights, stable, changed, to) in changes(),
        first_user: u32,
    ) {
        let service = service(weights.len(), stable);
        let before = split(&weights);
        let mut weights = weights;
        let from = std::mem::replace(&mut weights[changed], to);
        let after = split(&weights);
        for number in 0..50 {
            let key = user(u64::from(first_user) + number);
            let was = before.by_user(HashName::Rollgate1, "s", key.as_bytes(), &service).index;
            let is = after.by_user(HashName::Rollgate1, "s", key.as_bytes(), &service).index;
            if was != is {
                prop_assert_eq!(if to > from { is } else { was }, changed, "{} moved {} -> {}", key, was, is);
                prop_assert!(to != from);
            }
        }
    }

    /// The whole life of a rollout: one version rises step by step, from nothing to everything.
    #[test]
    fn a_user_enters_the_rising_version_once_and_never_leaves(
        (weights, stable, rising, _) in changes(),
        mut steps in prop::collection::vec(0u32..1_000_000, 1..20),
        first_user: u32,
    ) {
        let service = service(weights.len(), stable);
        steps.sort_unstable();
        let mut weights = weights;
        for number in 0..10 {
            let key = user(u64::from(first_user) + number);
            let mut last = None;
            for &step in &steps {
                weights[rising] = step;
                let Some(split) = Split::new(weights.as_slice()) else { continue };
                let is = split.by_user(HashName::Rollgate1, "s", key.as_bytes(), &service).index;
                prop_assert!(last.is_none_or(|was| was == is || is == rising), "{key} {last:?} -> {is}");
                last = Some(is);
            }
        }
    }

    #[test]
    fn two_versions_follow_the_formula_and_a_third_at_zero_changes_nobody(
        of_stable: u32, of_canary: u32, key in ".{0,12}", stable in 0usize..2, more in 0usize..4,
    ) {
        prop_assume!(of_stable > 0 || of_canary > 0);
        let mut weights = [of_canary; 2].to_vec();
        weights[stable] = of_stable;
        let bucket = u128::from(HashName::Rollgate1.bucket("s", key.as_bytes()));
        let total = u128::from(of_stable) + u128::from(of_canary);
        let expected = if bucket * total < u128::from(of_canary) * 100_000 { 1 - stable } else { stable };
        weights.resize(2 + more, 0);
        let drawn = split(&weights).by_user(HashName::Rollgate1, "s", key.as_bytes(), &service(2 + more, stable));
        prop_assert_eq!((drawn.index, u128::from(drawn.bucket)), (expected, bucket));
    }

    #[test]
    fn only_weights_as_such_matter(weights in prop::collection::vec(0u32..1000, 2..=10), factor in 1u32..1000, key in ".{0,8}") {
        let Some(once) = Split::new(weights.as_slice()) else { return Ok(()) };
        let scaled: Vec<u32> = weights.iter().map(|weight| weight * factor).collect();
        let service = service(weights.len(), 0);
        let index = |split: &Split| split.by_user(HashName::Rollgate1, "s", key.as_bytes(), &service).index;
        prop_assert_eq!(index(&once), index(&split(&scaled)));
    }

    #[test]
    fn two_versions_are_monotone_under_every_hash(low in 0u32..=100, high in 0u32..=100, key in ".{0,12}") {
        let (low, high) = (low.min(high), low.max(high));
        let two = service(2, 0);
        for hash in HASHES {
            let index = |share: u32| split(&[100 - share, share]).by_user(hash, "s", key.as_bytes(), &two).index;
            prop_assert!(index(low) <= index(high), "{hash:?}");
        }
    }

    #[test]
    fn no_version_of_weight_0_is_ever_drawn(
        weights in prop::collection::vec(prop_oneof![Just(0u32), any::<u32>()], 1..=12),
        versions in 0usize..=12,
        key in prop::collection::vec(any::<u8>(), 0..40),
        turn: u64,
    ) {
        let Some(split) = Split::new(weights.as_slice()) else { return Ok(()) };
        prop_assert!(split.weight(split.by_turn(turn)) > 0);
        // Whatever the service is: also one whose versions are not those of the split.
        let service = service(versions, 0);
        for hash in HASHES {
            let drawn = split.by_user(hash, "s", &key, &service);
            prop_assert!(split.weight(drawn.index) > 0, "{hash:?}");
            prop_assert!(drawn.bucket < BUCKETS);
        }
    }
}
