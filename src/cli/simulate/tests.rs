use super::fault::{Fault, Profile};
use super::*;
use crate::rollout::simulate::Behaviour;
use proptest::prelude::*;

const PROFILE: Profile = Profile {
    rate: 100.0,
    wave: 0.0,
    begins_unix_s: 0,
    error_rate: 0.01,
};

fn fault(text: &str) -> Fault {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn behaviour(error_rate: f64, slowness: f64) -> Behaviour {
    Behaviour { error_rate, slowness }
}

#[test]
fn faults_begin_and_end_and_the_last_counts() {
    let faults = [
        "errors=5x@10m-20m",
        "both:errors=30%@15m-16m",
        "latency=2x@15m",
        "stable:errors=1000x,latency=0.5x@1h",
    ]
    .map(fault);
    let traffic = PROFILE.traffic(&faults, DAY);
    let told: Vec<(u64, Behaviour, Behaviour)> = traffic
        .iter()
        .map(|traffic| (traffic.from.as_secs() / 60, traffic.stable, traffic.candidate))
        .collect();
    let usual = behaviour(0.01, 1.0);
    assert_eq!(
        told,
        [
            (0, usual, usual),
            (10, usual, behaviour(0.05, 1.0)),
            (15, behaviour(0.3, 1.0), behaviour(0.3, 2.0)),
            (16, usual, behaviour(0.05, 2.0)),
            (20, usual, behaviour(0.01, 2.0)),
            (60, behaviour(1.0, 0.5), behaviour(0.01, 2.0)),
        ]
    );
}

#[test]
fn what_is_no_fault_is_refused() {
    for bad in [
        "",
        "errors=5x",
        "errors@10m",
        "errors=5@10m",
        "errors=0x@10m",
        "errors=1001x@10m",
        "errors=101%@10m",
        "latency=5%@10m",
        "latency=x@10m",
        "errors=5x@10",
        "errors=5x@20m-10m",
        "errors=5x@10m-10m",
        "errors=5x,errors=6x@10m",
        "errors=5x,@10m",
        "canary:errors=5x@10m",
        "traffic=5x@10m",
    ] {
        assert!(bad.parse::<Fault>().is_err(), "{bad}");
    }
}

#[test]
fn a_wave_is_highest_in_the_afternoon_and_has_the_mean_of_the_day() {
    let wavy = Profile { wave: 0.6, ..PROFILE };
    let traffic = wavy.traffic(&[], DAY);
    let at = |hour: usize| traffic[hour * 4].rate;
    assert!((at(15) - 160.0).abs() < 1e-6 && (at(3) - 40.0).abs() < 1e-6);
    let mean = traffic[..96].iter().map(|traffic| traffic.rate).sum::<f64>() / 96.0;
    assert!((mean - 100.0).abs() < 1e-6, "{mean}");
}

proptest! {
    #[test]
    fn made_up_traffic_is_in_order_and_within_bounds(
        wave in 0.0..=1.0, begins_unix_s in -1_000_000_i64..4_000_000_000,
        faults in prop::collection::vec(("(candidate:|stable:|both:)", 0_u32..2_000, 1_u32..2_000, 1_u32..=1_000), 0..8),
        limit in 0_u64..1_000_000,
    ) {
        let faults: Vec<Fault> = faults
            .iter()
            .map(|(of, from, length, times)| fault(&format!("{of}errors={times}x@{from}s-{}s", from + length)))
            .collect();
        let profile = Profile { wave, begins_unix_s, ..PROFILE };
        let traffic = profile.traffic(&faults, Duration::from_secs(limit));
        prop_assert_eq!(traffic[0].from, Duration::ZERO);
        prop_assert!(traffic.is_sorted_by(|earlier, later| earlier.from < later.from));
        for traffic in &traffic {
            prop_assert!((0.0..=200.0).contains(&traffic.rate));
            prop_assert!((0.0..=1.0).contains(&traffic.candidate.error_rate));
        }
    }

    #[test]
    fn a_fault_of_any_text_is_parsed_or_refused(text in "[a-z:=,@0-9.%x-]{0,24}") {
        let _ = text.parse::<Fault>();
    }
}
