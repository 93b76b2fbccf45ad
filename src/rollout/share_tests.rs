use super::*;
use crate::routing::{Fallback, HashName, Role, Service, Split, Version, VersionId};
use proptest::prelude::*;

#[test]
fn shares_are_written_as_percentages() {
    for (thousandths, text) in [
        (0, "0 %"),
        (1, "0.001 %"),
        (100, "0.1 %"),
        (10_000, "10 %"),
        (33_330, "33.33 %"),
        (100_000, "100 %"),
        (100_001, "100 %"),
    ] {
        assert_eq!(Share::from_thousandths(thousandths).to_string(), text);
    }
    assert_eq!(serde_json::from_str::<Share>("4000000000").unwrap(), Share::WHOLE);
}

#[test]
fn weights_are_those_an_operator_would_have_written() {
    let at =
        |before: &[u32], candidate, thousandths| at_share(before, 0, candidate, Share::from_thousandths(thousandths));
    for (before, thousandths, weights) in [
        (&[95, 5][..], 10_000, &[90, 10][..]),
        (&[95, 5], 100, &[999, 1]),
        (&[95, 5], 1, &[99_999, 1]),
        (&[95, 5], 50_000, &[50, 50]),
        (&[95, 5], 100_000, &[0, 100]),
        (&[95, 5], 0, &[95, 0]),
        (&[0, 5], 0, &[100, 0]),
        (&[0, 5], 25_000, &[75, 25]),
        (&[60, 0, 30], 10_000, &[60, 10, 30]),
        (&[2, 0, 1], 50_000, &[2, 3, 1]),
        // Nothing is taken from others to give it to a stable version that had none.
        (&[0, 0, 7], 50_000, &[0, 50, 50]),
    ] {
        assert_eq!(&*at(before, 1, thousandths), weights, "{before:?} at {thousandths}");
    }
    assert_eq!(&*at(&[1, 2], 7, 10_000), &[1, 2], "no such candidate");
    assert_eq!(&*at_share(&[], 0, 0, Share::WHOLE), &[0; 0]);
}

#[test]
fn the_share_of_weights_is_never_rounded_to_none_or_all() {
    for (weights, thousandths) in [
        (&[90, 10][..], 10_000),
        (&[1_000_000, 1], 1),
        (&[1, 1_000_000], 99_999),
        (&[0, 3], 100_000),
        (&[3, 0], 0),
        (&[2, 1], 33_333),
        (&[0, 0], 0),
    ] {
        assert_eq!(share_of(weights, 1).thousandths_percent(), thousandths, "{weights:?}");
    }
    assert_eq!(share_of(&[1], 9), Share::ZERO);
}

/// Weights of 2 to 8 versions, the position of stable, and another position.
fn versions() -> impl Strategy<Value = (Vec<u32>, usize, usize)> {
    let weight = prop_oneof![Just(0u32), 1u32..=100, 0u32..=1_000_000, Just(1_000_000)];
    proptest::collection::vec(weight, 2..=8).prop_flat_map(|weights| {
        let count = weights.len();
        (Just(weights), 0..count, 1..count)
            .prop_map(move |(weights, stable, step)| (weights, stable, (stable + step) % count))
    })
}

fn service(count: usize, stable: usize) -> Service {
    Service {
        name: "s".into(),
        versions: (0..count)
            .map(|index| Version {
                name: format!("v{index}").into(),
                role: if index == stable { Role::Stable } else { Role::Canary },
            })
            .collect(),
        stable: VersionId(u32::try_from(stable).unwrap()),
        affinity: None,
        rules: Box::default(),
        fallback: Fallback::Stable,
    }
}

proptest! {
    #[test]
    fn the_share_is_exact_and_the_others_keep_their_ratios(
        (before, stable, candidate) in versions(),
        thousandths in prop_oneof![0u32..=100_000, Just(1), Just(99_999), Just(100_000)],
    ) {
        let share = Share::from_thousandths(thousandths);
        let weights = at_share(&before, stable, candidate, share);
        prop_assert_eq!(weights.len(), before.len());
        prop_assert!(weights.iter().all(|&weight| weight <= 1_000_000));
        let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
        prop_assert!(total > 0);
        prop_assert_eq!(u128::from(weights[candidate]) * 100_000, u128::from(thousandths) * total);
        prop_assert_eq!(share_of(&weights, candidate), share);

        let others: u128 = before.iter().enumerate().filter(|(i, _)| *i != candidate).map(|(_, w)| u128::from(*w)).sum();
        let rest = total - u128::from(weights[candidate]);
        for (index, &weight) in weights.iter().enumerate().filter(|(index, _)| *index != candidate) {
            let ratio = |weight: u32, sum: u128| if sum == 0 { 0.0 } else { f64::from(weight) / sum as f64 };
            let wanted = if others == 0 { f64::from(u8::from(index == stable)) } else { ratio(before[index], others) };
            // A millionth of all traffic, and one more where stable was given its last.
            if rest > 0 {
                let off = (ratio(weight, rest) - wanted).abs() * rest as f64 / total as f64;
                prop_assert!(off <= 2.1e-6, "{} off by {}", index, off);
            }
        }
        if before[stable] > 0 && share < Share::WHOLE {
            prop_assert!(weights[stable] > 0);
        }
        if share == Share::ZERO && others > 0 {
            for (index, &weight) in weights.iter().enumerate().filter(|(index, _)| *index != candidate) {
                prop_assert_eq!(weight, before[index]);
            }
        }
    }

    /// Where integers can say it, raising the share only moves users into the candidate.
    #[test]
    fn raising_the_share_only_moves_users_into_the_candidate(
        before in proptest::collection::vec(0u32..=100, 2..=5),
        low in 0u32..=100, high in 0u32..=100,
    ) {
        let service = service(before.len(), 0);
        let (low, high) = (low.min(high) * 1_000, low.max(high) * 1_000);
        let split = |thousandths| Split::new(at_share(&before, 0, 1, Share::from_thousandths(thousandths))).unwrap();
        let (low, high) = (split(low), split(high));
        for user in 0..200 {
            let key = format!("u{user}");
            let index = |split: &Split| split.by_user(HashName::Rollgate1, "s", key.as_bytes(), &service).index;
            let (was, is) = (index(&low), index(&high));
            prop_assert!(was == is || is == 1, "{} moved from {} to {}", key, was, is);
        }
    }
}
