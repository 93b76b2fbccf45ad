use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::HashMap;

/// Endpoints of which each is allowed or not and carries so many requests.
struct Fixed {
    allowed: Vec<bool>,
    in_flight: Vec<u32>,
}

impl Candidates for Fixed {
    fn allowed(&self, index: usize) -> bool {
        self.allowed[index]
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.in_flight[index]
    }
}

const METHODS: [Method; 4] = [
    Method::PowerOfTwo,
    Method::LeastRequests,
    Method::RoundRobin,
    Method::Hash,
];

fn picker(method: Method, weights: &[u32]) -> Picker {
    let entries: Vec<Entry> = (0_u16..)
        .zip(weights)
        .map(|(port, &weight)| Entry {
            weight,
            hash: address_hash(SocketAddr::from(([127, 0, 0, 1], 9000 + port))),
        })
        .collect();
    Picker::new(method, entries)
}

fn idle(count: usize) -> Fixed {
    Fixed {
        allowed: vec![true; count],
        in_flight: vec![0; count],
    }
}

/// How often each is picked in `picks` picks with even draws and keys.
fn shares(picker: &Picker, candidates: &Fixed, picks: u32) -> Vec<u32> {
    let turn = Cell::new(0);
    let mut counts = vec![0; candidates.allowed.len()];
    for number in 0..picks {
        let next = || turn.replace(turn.get() + 1);
        let index = picker
            .pick(candidates, mix(u64::from(number)), Some(number), next)
            .unwrap();
        counts[index] += 1;
    }
    counts
}

/// Within 5 standard deviations of what the weights say.
fn assert_by_weight(counts: &[u32], weights: &[u32]) {
    let picks: f64 = counts.iter().copied().map(f64::from).sum();
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    for (&count, &weight) in counts.iter().zip(weights) {
        let share = f64::from(weight) / total;
        let deviation = (picks * share * (1.0 - share)).sqrt();
        let off = (f64::from(count) - picks * share).abs();
        assert!(off <= 5.0 * deviation + 1.0, "{counts:?} for weights {weights:?}");
    }
}

#[test]
fn nothing_is_picked_from_nothing() {
    for method in METHODS {
        assert_eq!(picker(method, &[]).pick(&idle(0), 1, Some(1), || 0), None, "{method:?}");
    }
}

#[test]
fn an_idle_pool_is_used_by_weight() {
    for method in METHODS {
        // Round robin is right to 1 in 4096: no lone 1 beside a million for it.
        let wide = if method == Method::RoundRobin { 300_001 } else { 1 };
        for weights in [
            &[1, 1][..],
            &[5, 1],
            &[1, 1, 1, 1, 1],
            &[1, 2, 3, 4],
            &[1_000_000, 500_000, wide],
        ] {
            let counts = shares(&picker(method, weights), &idle(weights.len()), 60_000);
            assert_by_weight(&counts, weights);
        }
    }
}

#[test]
fn the_rest_is_used_by_weight_when_some_are_forbidden() {
    for method in METHODS {
        let weights = [4, 1, 8, 2, 1];
        let mut candidates = idle(5);
        candidates.allowed[2] = false;
        candidates.allowed[4] = false;
        let counts = shares(&picker(method, &weights), &candidates, 60_000);
        assert_eq!((counts[2], counts[4]), (0, 0), "{method:?}");
        assert_by_weight(&[counts[0], counts[1], counts[3]], &[4, 1, 2]);
    }
}

#[test]
fn two_choices_of_two_take_the_less_busy() {
    let picker = picker(Method::PowerOfTwo, &[1, 1]);
    let mut candidates = idle(2);
    candidates.in_flight = vec![3, 2];
    for draw in 0..100 {
        assert_eq!(picker.pick(&candidates, mix(draw), None, || 0), Some(1));
    }
}

#[test]
fn two_choices_keep_a_busy_endpoint_out_but_for_few() {
    // One of ten is stuck: it is taken only when it is drawn twice, which cannot be.
    let picker = picker(Method::PowerOfTwo, &[1; 10]);
    let mut candidates = idle(10);
    candidates.in_flight[4] = 1_000;
    assert_eq!(shares(&picker, &candidates, 10_000)[4], 0);
}

#[test]
fn load_is_measured_against_weight() {
    for method in [Method::PowerOfTwo, Method::LeastRequests] {
        let picker = picker(method, &[10, 1]);
        let mut candidates = idle(2);
        candidates.in_flight = vec![15, 2];
        assert_eq!(
            picker.pick(&candidates, 7, None, || 0),
            Some(0),
            "{method:?}: 1.5 against 2"
        );
        candidates.in_flight = vec![25, 2];
        assert_eq!(
            picker.pick(&candidates, 7, None, || 0),
            Some(1),
            "{method:?}: 2.5 against 2"
        );
    }
}

#[test]
fn smooth_round_robin_is_the_known_sequence() {
    // The example of nginx's change that brought it.
    assert_eq!(*round(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(*round(&[3, 3, 3]), [0, 1, 2], "by the greatest common divisor");
    assert!(round(&[]).is_empty());
}

#[test]
fn a_long_round_is_shortened_and_quick() {
    let weights: Vec<u32> = (0..1_000).map(|number| 1_000_000 - number * 997).collect();
    let round = round(&weights);
    assert!((1_000..=6_000).contains(&round.len()), "{}", round.len());
    assert!((0..1_000).all(|index| round.contains(&index)), "nobody is left out");
}

#[test]
fn a_forbidden_turn_does_not_double_the_neighbour() {
    let picker = picker(Method::RoundRobin, &[1, 1, 1]);
    let mut candidates = idle(3);
    candidates.allowed[1] = false;
    assert_eq!(shares(&picker, &candidates, 1_000), [500, 0, 500]);
}

#[test]
fn a_heavy_forbidden_endpoint_does_not_hide_a_light_one() {
    let picker = picker(Method::RoundRobin, &[4_000, 1]);
    let mut candidates = idle(2);
    candidates.allowed[0] = false;
    let turns = Cell::new(0);
    let picked = picker.pick(&candidates, 0, None, || turns.replace(turns.get() + 1));
    assert_eq!(picked, Some(1));
    assert!(turns.get() <= TURNS_MOST as u64);
}

#[test]
fn hash_without_key_balances() {
    let picker = picker(Method::Hash, &[1, 1]);
    let mut candidates = idle(2);
    candidates.in_flight = vec![0, 9];
    assert_eq!(picker.pick(&candidates, 3, None, || 0), Some(0));
}

#[test]
fn address_hashes_are_fixed_and_differ() {
    // Pinned: proxies of different builds must agree on a user's endpoint.
    assert_eq!(address_hash("127.0.0.1:9001".parse().unwrap()), 0x8246_239D_B1FB_F0E8);
    assert_eq!(address_hash("[2001:db8::1]:80".parse().unwrap()), 0x1513_F2E4_6E1D_C4EF);
    let addresses =
        (0..=255_u8).flat_map(|last| (1..40_u16).map(move |port| SocketAddr::from(([10, 0, 0, last], port))));
    let hashes: HashMap<u64, SocketAddr> = addresses.map(|address| (address_hash(address), address)).collect();
    assert_eq!(hashes.len(), 256 * 39);
}

fn pools() -> impl Strategy<Value = (Vec<u32>, Vec<bool>, Vec<u32>)> {
    (1_usize..12).prop_flat_map(|count| {
        let weight = prop_oneof![1_u32..5, 1_u32..=1_000_000];
        (
            proptest::collection::vec(weight, count),
            proptest::collection::vec(any::<bool>(), count),
            proptest::collection::vec(prop_oneof![0_u32..4, any::<u32>()], count),
        )
    })
}

proptest! {
    #[test]
    fn picks_exactly_when_something_is_allowed_and_then_that(
        (weights, allowed, in_flight) in pools(),
        draw in any::<u64>(),
        key in any::<Option<u32>>(),
        start in 0_u64..100_000,
    ) {
        let candidates = Fixed { allowed, in_flight };
        for method in METHODS {
            let turn = Cell::new(start);
            let next = || turn.replace(turn.get() + 1);
            match picker(method, &weights).pick(&candidates, draw, key, next) {
                Some(index) => prop_assert!(candidates.allowed[index], "{:?}", method),
                None => prop_assert!(!candidates.allowed.contains(&true), "{:?}", method),
            }
        }
    }

    #[test]
    fn least_requests_takes_a_least_busy(
        (weights, allowed, in_flight) in pools(),
        draw in any::<u64>(),
    ) {
        let candidates = Fixed { allowed, in_flight };
        if let Some(picked) = picker(Method::LeastRequests, &weights).pick(&candidates, draw, None, || 0) {
            let load = |index: usize| u64::from(candidates.in_flight[index]);
            for other in (0..weights.len()).filter(|&other| candidates.allowed[other]) {
                prop_assert!(load(picked) * u64::from(weights[other]) <= load(other) * u64::from(weights[picked]));
            }
        }
    }

    #[test]
    fn two_choices_never_take_the_busiest_of_distinct_loads(
        (weights, _, _) in pools(),
        draw in any::<u64>(),
    ) {
        prop_assume!(weights.len() > 1);
        let mut candidates = idle(weights.len());
        candidates.in_flight[0] = u32::MAX;
        let picked = picker(Method::PowerOfTwo, &weights).pick(&candidates, draw, None, || 0);
        prop_assert_ne!(picked, Some(0));
    }

    #[test]
    fn a_round_is_exact_and_without_bursts(weights in proptest::collection::vec(1_u32..60, 1..10)) {
        let round = round(&weights);
        let divisor = weights.iter().copied().fold(0, gcd);
        let total: u32 = weights.iter().map(|weight| weight / divisor).sum();
        prop_assert_eq!(round.len() as u32, total);
        let mut counts = vec![0_u32; weights.len()];
        for (taken, &index) in (1_u32..).zip(&round) {
            counts[index as usize] += 1;
            for (&count, &weight) in counts.iter().zip(&weights) {
                let due = f64::from(taken) * f64::from(weight / divisor) / f64::from(total);
                let bound = weights.len() as f64;
                prop_assert!((f64::from(count) - due).abs() < bound, "{:?}", round);
            }
        }
        for (&count, &weight) in counts.iter().zip(&weights) {
            prop_assert_eq!(count, weight / divisor);
        }
    }

    #[test]
    fn a_shortened_round_keeps_proportions(weights in proptest::collection::vec(1_u32..=1_000_000, 2..6)) {
        let round = round(&weights);
        prop_assert!(round.len() <= LONGEST_ROUND + weights.len());
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        for (index, &weight) in (0_u32..).zip(&weights) {
            let share = round.iter().filter(|&&one| one == index).count() as f64 / round.len() as f64;
            prop_assert!((share - f64::from(weight) / total).abs() < 0.002, "{} of {:?}", share, weights);
        }
    }

    /// When one endpoint leaves, only its own keys move; when it comes back they come back.
    #[test]
    fn hash_moves_only_the_keys_of_the_one_that_left(
        (weights, _, in_flight) in pools(),
        gone in any::<prop::sample::Index>(),
        keys in proptest::collection::vec(any::<u32>(), 50),
    ) {
        prop_assume!(weights.len() > 1);
        let gone = gone.index(weights.len());
        let picker = picker(Method::Hash, &weights);
        let all = Fixed { allowed: vec![true; weights.len()], in_flight };
        let mut fewer = idle(weights.len());
        fewer.allowed[gone] = false;
        for key in keys {
            let before = picker.pick(&all, 0, Some(key), || 0).unwrap();
            let after = picker.pick(&fewer, 1, Some(key), || 0).unwrap();
            prop_assert_ne!(after, gone);
            if before != gone {
                prop_assert_eq!(before, after);
            }
        }
    }

    /// A raised weight only draws keys to its endpoint, also where the weights were even before.
    #[test]
    fn hash_moves_keys_only_to_the_one_whose_weight_rose(
        weight in 1_u32..100,
        count in 2_usize..10,
        risen in any::<prop::sample::Index>(),
        keys in proptest::collection::vec(any::<u32>(), 50),
    ) {
        let risen = risen.index(count);
        let mut weights = vec![weight; count];
        let before = picker(Method::Hash, &weights);
        weights[risen] += 1 + weight / 2;
        let after = picker(Method::Hash, &weights);
        for key in keys {
            let (a, b) = (before.pick(&idle(count), 0, Some(key), || 0), after.pick(&idle(count), 0, Some(key), || 0));
            prop_assert!(a == b || b == Some(risen));
        }
    }
}
