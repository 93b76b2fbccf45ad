use super::super::fixture::*;
use super::super::*;
use super::*;

/// Failures of the candidate against those of stable, and nothing clever: the machine is under test, not the judge.
#[derive(Default)]
struct Ratio {
    step: Arm,
    rollout: Arm,
    stable: Arm,
    slow: bool,
}

impl Judge for Ratio {
    fn reset(&mut self, scope: Scope) {
        self.step = Arm::default();
        if scope != Scope::Step {
            *self = Self::default();
        }
    }

    fn judge(&mut self, plan: &Plan, slice: &Slice) -> Judgement {
        let candidate = slice.pairs.map_or(slice.candidate, |pairs| pairs.copies);
        for arm in [&mut self.step, &mut self.rollout] {
            arm.requests += candidate.requests + slice.ring.requests;
            arm.failures += candidate.failures + slice.ring.failures;
        }
        self.stable.requests += slice.stable.requests;
        self.stable.failures += slice.stable.failures;
        self.slow |=
            slice.candidate.requests > 0 && slice.candidate.behaviour.slowness > slice.stable.behaviour.slowness * 1.2;
        let rate = |arm: Arm| arm.failures as f64 / arm.requests.max(1) as f64;
        let (candidate, stable) = (self.rollout, self.stable);
        if candidate.failures >= 10 && rate(candidate) > 2.0 * rate(stable) {
            let sentence = format!(
                "v2 fails {}/{} against {}/{}",
                candidate.failures, candidate.requests, stable.failures, stable.requests
            );
            return Judgement::Fail {
                action: Action::Rollback,
                sentence,
            };
        }
        if self.slow {
            return Judgement::Fail {
                action: Action::Pause,
                sentence: "v2 is slower than stable".to_owned(),
            };
        }
        let (seen, needed) = (self.step.requests, plan.analysis.min_requests);
        if seen < needed {
            return Judgement::NoEvidence(format!("v2 has had {seen} of the {needed} requests needed"));
        }
        Judgement::Pass
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

/// The rollout of `config/full.yaml`.
fn full() -> Plan {
    let stays = |step| with_ring(&["staff"], step);
    Plan {
        max_failures: None,
        ..plan(vec![
            ring(&["staff"], 600),
            stays(step(1_000, 300)),
            stays(step(10_000, 600)),
            approved(stays(step(50_000, 1_800))),
            stays(step(100_000, 3_600)),
        ])
    }
}

fn scenario() -> Scenario {
    Scenario {
        // 2026-03-03, a Tuesday, 12:00 UTC.
        begins_unix_s: 1_772_539_200,
        every: Duration::from_secs(1),
        limit: 30 * 24 * HOUR,
        traffic: vec![of_rate(Duration::ZERO, 100.0)],
        in_segments: Share::from_thousandths(500),
        copyable: Share::from_thousandths(80_000),
        events: Vec::new(),
        approves_after: Some(HOUR / 4),
    }
}

fn of_rate(from: Duration, rate: f64) -> Traffic {
    Traffic {
        from,
        rate,
        ..Traffic::default()
    }
}

fn told(plan: &Plan, scenario: &Scenario) -> String {
    simulate(plan, scenario, &mut Ratio::default(), &mut Steady::default()).to_string()
}

#[test]
fn a_good_candidate() {
    insta::assert_snapshot!(told(&full(), &scenario()));
}

#[test]
fn a_candidate_that_fails_after_half_an_hour() {
    let fails = |error_rate| Behaviour {
        error_rate,
        slowness: 1.0,
    };
    let good = Traffic {
        stable: fails(0.002),
        candidate: fails(0.002),
        ..of_rate(Duration::ZERO, 100.0)
    };
    let bad = Traffic {
        from: HOUR / 2,
        candidate: fails(0.05),
        ..good
    };
    let traffic = vec![good, bad];
    insta::assert_snapshot!(told(&full(), &Scenario { traffic, ..scenario() }));
}

#[test]
fn a_slow_candidate_and_a_person_who_knows_better_for_a_while() {
    let as_slow = |from, slowness| Traffic {
        candidate: Behaviour {
            error_rate: 0.0,
            slowness,
        },
        ..of_rate(from, 100.0)
    };
    let scenario = Scenario {
        traffic: vec![
            as_slow(Duration::ZERO, 1.0),
            as_slow(HOUR / 3, 1.5),
            as_slow(HOUR / 2, 1.0),
            as_slow(HOUR, 1.5),
        ],
        events: vec![(HOUR * 3 / 4, command(Verb::Resume))],
        ..scenario()
    };
    insta::assert_snapshot!(told(&full(), &scenario));
}

#[test]
fn a_night_without_traffic_and_a_frozen_weekend() {
    let mut plan = full();
    plan.freeze = [Freeze::parse("Fri 16:00-Mon 08:00 Europe/Berlin").unwrap()].into();
    plan.gates = [gate(Before::Promote)].into();
    // Friday, 14:30 in Berlin.
    let scenario = Scenario {
        begins_unix_s: 1_772_803_800,
        traffic: vec![
            of_rate(Duration::ZERO, 50.0),
            of_rate(HOUR / 2, 0.0),
            of_rate(HOUR, 50.0),
        ],
        ..scenario()
    };
    insta::assert_snapshot!(told(&plan, &scenario));
}

#[test]
fn nobody_approves() {
    let scenario = Scenario {
        approves_after: None,
        ..scenario()
    };
    let transcript = simulate(&full(), &scenario, &mut Ratio::default(), &mut Steady::default());
    assert_eq!(
        (transcript.state.step, transcript.state.phase.word()),
        (4, "waiting_approval")
    );
    assert!(transcript.took < HOUR, "nothing more can happen: {:?}", transcript.took);
}

#[test]
fn an_idle_service_holds_until_the_limit() {
    let scenario = Scenario {
        traffic: Vec::new(),
        every: LONGEST_GAP,
        limit: 48 * HOUR,
        ..scenario()
    };
    let transcript = simulate(&full(), &scenario, &mut Ratio::default(), &mut Steady::default());
    assert_eq!((transcript.state.step, transcript.took), (1, 48 * HOUR));
    assert_eq!(transcript.candidate, Arm::default());
}

#[test]
fn events_happen_when_they_are_due_and_what_is_killed_gets_nothing() {
    let scenario = Scenario {
        events: vec![
            (HOUR / 4, command(Verb::Promote)),
            (HOUR / 2, Event::Killed(by("bob"))),
            (HOUR / 2, command(Verb::Retry)),
        ],
        limit: HOUR,
        ..scenario()
    };
    let transcript = simulate(&full(), &scenario, &mut Ratio::default(), &mut Steady::default());
    assert_eq!(
        (transcript.highest, transcript.state.phase.word()),
        (Share::WHOLE, "rolled_back")
    );
    // Staff for ten minutes, 1 % for five, everything for fifteen.
    let half = transcript.candidate.requests;
    assert!((90_000..93_000).contains(&half), "{half}");
    assert!(
        transcript.lines.last().unwrap().text.starts_with("refused: "),
        "{transcript}"
    );
}

#[test]
fn steady_counts_are_exact() {
    let mut steady = Steady::default();
    let total: u64 = (0..1000).map(|_| steady.count(0, 0.3)).sum();
    assert!((299..=300).contains(&total));
    assert_eq!((steady.count(1, -1.0), steady.count(99, 5.0)), (0, 0));
    assert_eq!((steady.failures(2, 9, 1.0), steady.failures(3, 9, 0.5)), (9, 4));
}

#[test]
fn a_transcript_is_bounded() {
    /// Cannot make up its mind.
    struct Fickle(bool);
    impl Judge for Fickle {
        fn reset(&mut self, _: Scope) {}
        fn judge(&mut self, _: &Plan, _: &Slice) -> Judgement {
            self.0 = !self.0;
            if self.0 { no_evidence() } else { fail(Action::Pause) }
        }
    }
    let events = (0..20_000)
        .map(|second| (Duration::from_secs(second), command(Verb::Resume)))
        .collect();
    let scenario = Scenario {
        events,
        limit: 6 * HOUR,
        ..scenario()
    };
    let transcript = simulate(&full(), &scenario, &mut Fickle(true), &mut Steady::default());
    assert_eq!(transcript.lines.len(), 10_000);
    assert!(transcript.left_out > 1_000 && transcript.to_string().contains("more lines"));
}

#[test]
fn copies_are_judged_beside_their_originals_and_are_nobodys_requests() {
    let fails = |error_rate| Behaviour {
        error_rate,
        slowness: 1.0,
    };
    let steps = vec![mirror(50_000, 600), step(10_000, 600), step(100_000, 600)];
    let traffic = |candidate| Traffic {
        stable: fails(0.002),
        candidate: fails(candidate),
        ..of_rate(Duration::ZERO, 100.0)
    };
    let run = |candidate| {
        let scenario = Scenario {
            traffic: vec![traffic(candidate)],
            ..scenario()
        };
        let plan = Plan {
            max_failures: None,
            ..plan(steps.clone())
        };
        simulate(&plan, &scenario, &mut Ratio::default(), &mut Steady::default())
    };
    let bad = run(0.5);
    assert_eq!(
        (bad.state.phase.word(), bad.highest, bad.candidate.requests),
        ("rolled_back", Share::ZERO, 0)
    );
    assert!(bad.copies.requests > 0 && bad.copies.failures > 0, "{bad:?}");
    let good = run(0.002);
    assert_eq!(good.state.phase, Phase::Succeeded);
    // Half of the 80 % that may be copied, of 100 a second.
    assert_eq!(good.copies.requests, 24_000);
    insta::assert_snapshot!(good.to_string());
}
