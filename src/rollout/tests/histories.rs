//! Random histories, longer than a search can be.

use super::invariants::{OF_HAPPENINGS, OF_WORLDS, Seen};
use super::world::{Happening, World, files, happenings, reread};
use crate::rollout::fixture::{by, command, fail, no_evidence, plan, step};
use crate::rollout::*;
use proptest::prelude::*;

/// Positions among all that can happen; what moves a rollout on more often than the rest.
fn history() -> impl Strategy<Value = Vec<Happening>> {
    let all = happenings(files().len());
    let one = prop_oneof![
        2 => 0..all.len(),
        1 => 0..2usize,
        1 => Just(all.iter().position(|happening| happening.name == "start").unwrap()),
        1 => Just(all.iter().position(|happening| happening.name == "approve").unwrap()),
        1 => Just(all.iter().position(|happening| happening.name == "gate 0: yes").unwrap()),
        1 => Just(all.iter().position(|happening| happening.name == "gate 1: yes").unwrap()),
    ];
    proptest::collection::vec(one, 1..120)
        .prop_map(move |positions| positions.into_iter().map(|position| all[position].clone()).collect())
}

/// An event with the time that goes by before it.
fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let judgement = prop_oneof![
        6 => Just(Judgement::Pass),
        2 => Just(no_evidence()),
        1 => proptest::sample::select(&[Action::Rollback, Action::Pause, Action::StepBack][..]).prop_map(fail),
    ];
    let look = (
        judgement,
        0u64..12,
        proptest::option::weighted(0.1, Just("no endpoint".to_owned())),
        0u64..60,
    )
        .prop_map(|(judgement, window, obstacle, failures)| {
            Event::Look(Look {
                window,
                judgement,
                failures,
                obstacle,
            })
        });
    let answer = prop_oneof![
        Just(Answer::Yes),
        Just(Answer::No("no".to_owned())),
        Just(Answer::Error("?".to_owned()))
    ];
    let gate = (0usize..40, 0u64..12, answer).prop_map(|(gate, window, answer)| Event::Gate { gate, window, answer });
    let event = prop_oneof![
        8 => look,
        2 => proptest::sample::select(&Verb::ALL[..]).prop_map(command),
        2 => gate,
        1 => proptest::sample::select(vec![Event::Loaded, Event::Removed, Event::Restored, Event::Killed(by("bob")), Event::Unkilled(by("bob"))]),
        1 => (0u32..=100_000).prop_map(|share| Event::WeightsSet { share: Share::from_thousandths(share), by: by("bob") }),
        1 => proptest::collection::btree_map("v[1-3]", 0u32..100, 0..4).prop_map(Event::FileWeights),
    ];
    proptest::collection::vec((0u64..40_000, event), 0..80)
}

/// Any state at all, also one that no machine would write.
fn any_state() -> impl Strategy<Value = State> {
    let reason = Reason {
        cause: Cause::Weights,
        text: "".into(),
    };
    let phases = vec![
        Phase::Idle,
        Phase::Progressing,
        Phase::Paused(reason.clone()),
        Phase::WaitingApproval,
        Phase::Baking,
        Phase::Succeeded,
        Phase::RolledBack(reason),
    ];
    let numbers = (
        any::<u32>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        proptest::option::of(any::<u64>()),
    );
    (
        proptest::sample::select(phases),
        numbers,
        0u32..=100_000,
        any::<bool>(),
        proptest::option::of(Just("v2".into())),
    )
        .prop_map(
            |(phase, (step, elapsed_ms, window, attempt, asked_ms), share, flag, candidate)| State {
                candidate,
                phase,
                step: step % 9 * if flag { 1 } else { u32::MAX / 9 },
                elapsed_ms,
                window,
                attempt,
                asked_ms,
                share: Share::from_thousandths(share),
                segments: vec!["staff".into()],
                mirror: Share::from_thousandths(share / 3),
                approved: flag,
                promoting: flag,
                gates_open: step,
                step_backs: step,
                killed: !flag,
                ..State::default()
            },
        )
}

fn run(plan: &Plan, mut state: State, events: &[(u64, Event)], through_store: bool) -> (State, Vec<Vec<Effect>>) {
    let mut now = Now {
        uptime_ms: 0,
        unix_s: 1_772_539_200,
    };
    let mut all = Vec::new();
    for (after_ms, event) in events {
        now.uptime_ms += after_ms;
        if through_store {
            let live = state.live;
            state = reread(&state);
            state.live = live;
        }
        let (next, effects) = advance(plan, state, event.clone(), now);
        state = next;
        all.push(effects);
    }
    (state, all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_history_violates_an_invariant(history in history()) {
        let files = files();
        let mut world = World::new(&advance, &files);
        for happening in &history {
            let after = world.next(&advance, &files, happening);
            let seen = Seen { advance: &advance, files: &files, before: &world, happening, after: &after };
            for (name, invariant) in OF_HAPPENINGS.iter().chain(&OF_WORLDS) {
                prop_assert!(invariant(&seen).is_ok(), "{}: {:?} by {}", name, invariant(&seen), happening.name);
            }
            world = after.world;
        }
    }

    /// The same events give the same state and effects, read from the store before each of them or not.
    #[test]
    fn a_replay_gives_the_same(events in events()) {
        let plan = &files()[0];
        let once = run(plan, State::default(), &events, false);
        prop_assert_eq!(&run(plan, State::default(), &events, false), &once);
        prop_assert_eq!(&run(plan, State::default(), &events, true), &once);
    }

    #[test]
    fn any_state_and_event_have_an_answer(state in any_state(), events in events(), file in 0usize..5) {
        let plan = files().into_iter().nth(file).unwrap_or_else(|| plan(Vec::new()));
        let (after, _) = run(&plan, state, &events, false);
        let rolled_back = advance(&plan, after, command(Verb::Rollback), Now { uptime_ms: 0, unix_s: i64::MIN }).0;
        prop_assert_eq!(rolled_back.share, Share::ZERO);
    }

    /// Whatever is read from a store is a state or an error.
    #[test]
    fn no_text_panics(text in "\\PC{0,60}", share in any::<u32>()) {
        let _ = serde_json::from_str::<State>(&text);
        let state: State = serde_json::from_str(&format!("{{\"share\": {share}}}")).unwrap();
        prop_assert!(state.share <= Share::WHOLE);
    }
}

/// Three steps of a week each, looked at every ten seconds.
#[test]
fn three_weeks_pass_in_a_moment() {
    let day = 86_400;
    let plan = plan(vec![
        step(1_000, 7 * day),
        step(50_000, 7 * day),
        step(100_000, 7 * day),
    ]);
    let mut now = Now {
        uptime_ms: 0,
        unix_s: 1_772_539_200,
    };
    let mut state = advance(&plan, State::default(), Event::Loaded, now).0;
    state = advance(&plan, state, command(Verb::Start), now).0;
    let mut looks = 0u64;
    while state.phase != Phase::Succeeded {
        let look = Look {
            window: state.window,
            judgement: Judgement::Pass,
            failures: 0,
            obstacle: None,
        };
        state = advance(&plan, state, Event::Look(look), now).0;
        now.uptime_ms += 10_000;
        looks += 1;
    }
    assert_eq!(looks, 3 * 7 * day / 10 + 1);
}
