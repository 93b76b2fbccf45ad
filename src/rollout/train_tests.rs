use super::super::fixture::*;
use super::super::*;
use proptest::prelude::*;

const SERVICES: [&str; 3] = ["checkout", "cart", "payment"];

/// A train that a test leads.
struct Led {
    plans: Vec<Plan>,
    states: Vec<State>,
    effects: Vec<Vec<Effect>>,
    now: Now,
}

fn member(index: usize, steps: Vec<Step>) -> Plan {
    let others = SERVICES.iter().enumerate().filter(|(other, _)| *other != index);
    Plan {
        service: SERVICES[index].into(),
        with: others.map(|(_, &name)| name.into()).collect(),
        ..plan(steps)
    }
}

impl Led {
    fn new() -> Self {
        let shares = [[1_000, 50_000, 100_000], [5_000, 50_000, 100_000], [0, 10_000, 100_000]];
        let plans: Vec<Plan> = shares
            .iter()
            .enumerate()
            .map(|(index, shares)| member(index, shares.iter().map(|&share| step(share, 10)).collect()))
            .collect();
        let mut led = Self {
            states: vec![State::default(); plans.len()],
            effects: Vec::new(),
            plans,
            now: Now {
                uptime_ms: 0,
                unix_s: 1_772_539_200,
            },
        };
        (0..3).for_each(|to| led.happen(to, Event::Loaded));
        led
    }

    /// Begun, and all in their first step.
    fn begun() -> Self {
        let mut led = Self::new();
        led.happen(0, command(Verb::Start));
        led.all_pass(0);
        assert_eq!(led.steps(), [1, 1, 1]);
        led
    }

    fn happen(&mut self, to: usize, event: Event) {
        let members = self.plans.iter().zip(std::mem::take(&mut self.states)).collect();
        (self.states, self.effects) = advance_train(members, to, event, self.now).into_iter().unzip();
    }

    fn judged(&mut self, to: usize, judgement: Judgement) {
        let window = self.states[to].window;
        self.happen(
            to,
            Event::Look(Look {
                window,
                judgement,
                failures: 0,
                obstacle: None,
            }),
        );
    }

    /// After some seconds, all of them are looked at, one after the other.
    fn all_pass(&mut self, seconds: u64) {
        self.now.uptime_ms += seconds * 1_000;
        (0..3).for_each(|to| self.judged(to, Judgement::Pass));
    }

    fn steps(&self) -> Vec<u32> {
        self.states.iter().map(|state| state.step).collect()
    }

    fn phases(&self) -> Vec<&str> {
        self.states.iter().map(|state| state.phase.word()).collect()
    }

    fn refusals(&self) -> Vec<&str> {
        self.effects.iter().filter_map(|effects| refusal(effects)).collect()
    }
}

#[test]
fn services_of_a_train_go_on_together() {
    let mut led = Led::begun();
    led.now.uptime_ms += 10_000;
    led.judged(0, Judgement::Pass);
    led.judged(1, Judgement::Pass);
    assert_eq!(led.steps(), [1, 1, 1], "the third was not judged yet");
    assert_eq!(led.states[0].wait, Wait::Train);
    led.judged(2, no_evidence());
    assert_eq!(led.steps(), [1, 1, 1]);
    led.now.uptime_ms += 1_000;
    led.judged(2, Judgement::Pass);
    assert_eq!(led.steps(), [2, 2, 2], "with what is known of the others for a second");
    led.all_pass(10);
    led.all_pass(10);
    assert_eq!(led.phases(), ["succeeded"; 3]);
}

#[test]
fn a_verdict_that_is_old_moves_nobody() {
    let mut led = Led::begun();
    led.all_pass(9);
    led.now.uptime_ms += 1_000;
    led.judged(0, Judgement::Pass);
    led.judged(1, Judgement::Pass);
    led.now.uptime_ms += 11_000;
    led.judged(2, Judgement::Pass);
    assert_eq!(led.steps(), [1, 1, 1]);
    led.judged(0, Judgement::Pass);
    led.judged(1, Judgement::Pass);
    assert_eq!(led.steps(), [2, 2, 2]);
}

#[test]
fn a_rollback_of_one_is_a_rollback_of_all() {
    let causes: [fn(&mut Led); 4] = [
        |led| led.judged(1, fail(Action::Rollback)),
        |led| led.happen(1, command(Verb::Rollback)),
        |led| led.happen(1, Event::Killed(by("bob"))),
        |led| led.judged(1, fail(Action::StepBack)),
    ];
    for cause in causes {
        let mut led = Led::begun();
        cause(&mut led);
        assert_eq!(led.phases(), ["rolled_back"; 3]);
        assert!(
            led.effects
                .iter()
                .all(|effects| effects.contains(&Effect::Revoke) && toward(effects) == Toward::Stable)
        );
    }
    let mut led = Led::begun();
    led.judged(1, fail(Action::Rollback));
    assert_eq!(
        &*led.states[0].phase.reason().unwrap().text,
        "cart of its train was rolled back: v2 fails 2.1 % (63/3000) against 0.5 % (140/27000)"
    );
    led.happen(2, command(Verb::Retry));
    led.all_pass(1);
    assert_eq!(led.steps(), [1, 1, 1], "tried again together");
}

#[test]
fn when_one_goes_back_a_step_all_do() {
    let mut led = Led::begun();
    led.all_pass(10);
    led.judged(0, fail(Action::StepBack));
    assert_eq!((led.steps(), led.phases()), (vec![1, 1, 1], vec!["progressing"; 3]));
    led.all_pass(10);
    assert_eq!(led.steps(), [2, 2, 2]);
}

#[test]
fn one_that_is_paused_holds_the_others() {
    let mut led = Led::begun();
    led.judged(1, fail(Action::Pause));
    led.all_pass(10);
    led.all_pass(10);
    assert_eq!(
        (led.steps(), led.phases()),
        (vec![1, 1, 1], vec!["progressing", "paused", "progressing"])
    );
    led.happen(0, command(Verb::Resume));
    assert_eq!(
        led.refusals(),
        [
            "checkout: nothing is paused: v2 is progressing, at step 1 of 3 (1 %) (`rollgate rollout rollback checkout` ends it)"
        ]
    );
    led.happen(1, command(Verb::Resume));
    led.all_pass(10);
    assert_eq!(led.steps(), [2, 2, 2]);
    led.happen(0, command(Verb::Pause));
    assert_eq!(led.phases(), ["paused"; 3]);
    led.happen(0, command(Verb::Resume));
    assert_eq!(led.phases(), ["progressing"; 3]);
}

#[test]
fn a_promote_is_for_all_or_for_none() {
    let mut led = Led::begun();
    led.happen(0, command(Verb::Promote));
    assert_eq!(
        (led.steps(), led.phases()),
        (vec![3, 3, 3], vec!["baking"; 3]),
        "at once"
    );

    let mut led = Led::begun();
    led.plans[2].freeze = [Freeze::parse("Tue 00:00-Wed 00:00 UTC").unwrap()].into();
    led.happen(0, command(Verb::Promote));
    assert_eq!(
        led.refusals(),
        ["payment: v2 cannot be promoted: it is frozen until 2026-03-04 00:00 (Tue 00:00-Wed 00:00 UTC)"]
    );
    assert_eq!(led.steps(), [1, 1, 1]);

    // The gate of one holds all.
    let mut led = Led::begun();
    led.plans[2].gates = [gate(Before::Promote)].into();
    led.happen(0, command(Verb::Promote));
    led.all_pass(1);
    assert_eq!((led.refusals().len(), led.steps()), (0, vec![1, 1, 1]));
    let window = led.states[2].window;
    led.happen(
        2,
        Event::Gate {
            gate: 0,
            window,
            answer: Answer::Yes,
        },
    );
    led.all_pass(1);
    assert_eq!(led.steps(), [3, 3, 3]);
}

#[test]
fn a_promote_that_one_cannot_follow_is_given_up_by_all() {
    let mut led = Led::begun();
    led.plans[2].gates = [gate(Before::Promote)].into();
    led.happen(0, command(Verb::Promote));
    led.judged(1, fail(Action::Pause));
    assert!(led.states.iter().all(|state| !state.promoting));
    let given_up = |effects: &Vec<Effect>| {
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Report(said) if said.contains("given up")))
    };
    assert!(given_up(&led.effects[0]) && given_up(&led.effects[2]));
    led.happen(1, command(Verb::Resume));
    led.all_pass(10);
    assert_eq!(led.steps(), [2, 2, 2], "step by step, as before");

    // One that is behind, and one that has everything.
    let mut led = Led::begun();
    led.happen(0, command(Verb::Promote));
    led.plans[1].candidate = "v3".into();
    led.plans[1].start = Start::Automatic;
    led.happen(1, Event::Loaded);
    led.all_pass(1);
    assert_eq!(led.steps(), [3, 1, 3]);
    led.happen(1, command(Verb::Promote));
    assert_eq!((led.refusals().len(), led.steps()), (0, vec![3, 3, 3]));
}

#[test]
fn one_that_is_not_under_way_holds_nobody_and_one_that_is_behind_does() {
    let mut led = Led::begun();
    led.all_pass(10);
    // Another candidate of the cart: it starts over, and the others wait for it.
    led.plans[1].candidate = "v3".into();
    led.plans[1].start = Start::Automatic;
    led.happen(1, Event::Loaded);
    assert_eq!((led.steps(), led.phases()), (vec![2, 0, 2], vec!["progressing"; 3]));
    led.all_pass(10);
    assert_eq!(led.steps(), [2, 1, 2]);
    led.all_pass(10);
    assert_eq!(led.steps(), [2, 2, 2]);
    // The cart leaves the file: the others go on.
    led.happen(1, Event::Removed);
    led.all_pass(10);
    assert_eq!(led.steps(), [3, 0, 3]);
}

#[test]
fn an_event_to_nobody_changes_nothing() {
    let mut led = Led::begun();
    let before = led.states.clone();
    led.happen(7, command(Verb::Rollback));
    assert_eq!(led.states, before);
    assert!(advance_train(Vec::new(), 0, Event::Loaded, led.now).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens to whom: those under way are never further apart than one that began later, they leave a step at
    /// the same instant, and none stays out when another is rolled back.
    #[test]
    fn a_train_stays_together(
        events in proptest::collection::vec((0usize..3, 0usize..16, 0u64..3), 1..80),
    ) {
        let mut led = Led::new();
        for (to, what, ticks) in events {
            led.now.uptime_ms += ticks * 5_000;
            let before = led.states.clone();
            match what {
                0..=6 => led.judged(to, Judgement::Pass),
                7 => led.judged(to, no_evidence()),
                8 => led.judged(to, fail(Action::StepBack)),
                9 => led.judged(to, fail([Action::Rollback, Action::Pause][ticks as usize % 2])),
                10 => led.happen(to, command(Verb::Start)),
                11 => led.happen(to, command(Verb::Retry)),
                12 => led.happen(to, command(Verb::Resume)),
                13 => led.happen(to, command([Verb::Pause, Verb::Promote, Verb::Rollback][ticks as usize])),
                14 => led.happen(to, Event::Loaded),
                _ => led.happen(to, Event::WeightsSet { share: Share::from_thousandths(500), by: by("bob") }),
            }
            let after = &led.states;
            let under_way: Vec<usize> = (0..3).filter(|&index| before[index].owns_split()).collect();
            let lost = under_way.iter().any(|&index| matches!(after[index].phase, Phase::RolledBack(_)));
            if lost {
                prop_assert!(under_way.iter().all(|&index| matches!(after[index].phase, Phase::RolledBack(_))), "{:?}", led.phases());
            }
            let least = under_way.iter().map(|&index| before[index].step).min();
            let left: Vec<usize> = under_way.iter().copied().filter(|&index| after[index].step > before[index].step || after[index].phase == Phase::Succeeded).collect();
            let promoted = (what == 13 && ticks == 1) || before.iter().any(|state| state.promoting);
            if promoted {
                // To everything, all of them or none.
                let all = under_way.iter().all(|&index| after[index].share == Share::WHOLE);
                prop_assert!(left.is_empty() || all, "{:?} to {:?}", before, after);
                continue;
            }
            for &index in &left {
                prop_assert_eq!(Some(before[index].step), least, "one left that is ahead");
            }
            if !left.is_empty() {
                let stay = under_way.iter().filter(|&&index| Some(before[index].step) == least && !left.contains(&index)).count();
                prop_assert_eq!(stay, 0, "one stayed behind: {:?} to {:?}", before, after);
            }
        }
    }
}
